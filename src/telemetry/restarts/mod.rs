//! The restart log: what failed, why, what came back, from which checkpoint, and what to do about it.
//!
//! JSON lines in the state directory, bounded in size; the history goes with that directory.

mod incarnations;
mod log;
mod record;
mod remedy;
mod segments;
mod story;

pub use log::{RestartLog, RestartLogError};
pub use record::{CLASSES, EVENTS, Filter, Reason, RestartRecord, ResumedFrom};
pub use remedy::remedy;
pub use segments::{SEGMENT_BYTES_MAX, SEGMENTS_MAX};
pub use story::{Affected, Story};
