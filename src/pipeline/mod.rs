//! From batches to the sealed content of an epoch: pure functions on payloads and Arrow batches. No I/O, no clock.
//!
//! ```text
//! Batch ──push──▶ EpochBuilder (positions joined; decoded and encoded in groups) ──seal──▶ Sealed: raw segments, data
//!                                                                                 files, dead letters, all named
//! ```

mod builder;
mod columns;
mod dead;
mod decoded;
mod encode;
mod evolve;
mod files;
mod generate;
mod naming;
mod objects;
mod raw;
mod seal;
mod split;
mod stats;
#[cfg(test)]
mod tests;

pub use builder::{BuilderSpec, EpochBuilder, Refused};
pub use columns::{
    LF_COLUMNS, LF_EPOCH, LF_PARTITION, LF_POSITION, LF_RAW, LF_RECEIVED_AT, adapter_columns, normalise, table_columns,
};
pub use dead::dead_columns;
pub(crate) use encode::{Encoder, properties_for};
pub use evolve::{Misfit, join, merge_columns};
pub use raw::{raw_columns, raw_path};
pub use seal::{DataFile, Moved, RawSegment, Sealed};
pub use split::partition_name;
pub(crate) use split::{HIVE_NULL, can_partition};
