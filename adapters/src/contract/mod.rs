//! The source contract: what an adapter owes the runtime, and what the runtime owes it.
//!
//! # Delivery semantics
//!
//! A source is split into *partitions*, each independently ordered. A worker opens one partition at a
//! [`Position`] and pulls [`Batch`]es, each covering `(from, to]` of the partition. The runtime commits batches
//! atomically with their positions; after any failure it drops the source, opens it again at the last position
//! that it took over, and goes on. So exactly-once rests on two promises:
//!
//! - **the source's**: opened at position `p`, a [`Replay::Replayable`] source gives exactly the records after `p`,
//!   in the same order, however often it is opened; a [`Replay::CurrentValue`] source gives what is current now and
//!   never again what `p` says was given before;
//! - **the runtime's**: a batch that was handed over is committed once, or not at all and asked for again.
//!
//! # The driving loop
//!
//! ```text
//! let source = mount.open(partition, position, env)
//! loop {
//!     at each beat (polled) or at once (continuous), under the deadline `timeout`:
//!         loop {
//!             match source.next(credits).await {      // may be dropped at any await
//!                 Pull::Batch(b) => committer.take(b) // then source.acknowledge(b.to) after the commit
//!                 Pull::Idle     => break             // this workload is done
//!                 Pull::End      => return            // nothing will ever come again
//!             }
//!         }
//! }
//! ```
//!
//! # Cancellation
//!
//! The future of [`Source::next`] may be dropped at every await (timeout, interrupt, stop). After that `next` may
//! be called again on the same source, or the source is dropped and opened anew; in both cases nothing that was
//! not returned may count as handed over.
//!
//! Every kind passes the suite in [`crate::conformance`].

mod batch;
pub mod columns;
pub mod config;
mod credits;
mod decode;
mod env;
mod error;
mod partition;
mod source;

pub use batch::{Batch, DeadMark, Payload, Position};
pub use credits::{Credits, Hold};
pub use decode::{DeadRecord, Decode, Rows};
pub use env::{Clock, Env, Keep, MemoryKeep, Resolve, SystemClock, SystemResolve};
pub use error::{ErrorClass, SourceError};
pub use partition::Partition;
pub use source::{Cadence, Kind, Mount, Pull, Replay, Source};
