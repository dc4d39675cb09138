//! The restart log: what failed, why, what came back, from which checkpoint, and what to do about it.
//!
//! JSON lines in the state directory, bounded in size; the history goes with that directory. Failures and what followed
//! from them have files of their own, beside those of plain starts and stops: a node with many streams writes tens of
//! thousands of starts, and they must not push out what somebody on call looks for.

mod backtraces;
mod incarnations;
mod log;
mod record;
mod remedy;
mod segments;
mod story;

pub use log::{RestartLog, RestartLogError};
pub use record::{CLASSES, EVENTS, Filter, Reason, RestartRecord, ResumedFrom, Window};
pub use remedy::remedy;
pub use segments::{FAILURES, LIFECYCLE, Lane};
pub use story::{Affected, Story};
