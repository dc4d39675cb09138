//! What the node tells about itself: logs, metrics, the newest events, and the restart log.

pub mod events;
mod logging;
pub mod metrics;
pub mod restarts;
pub mod secrets;
pub mod tree;

pub use logging::{FILTER_DEMO, FILTER_NODE, LoggingError, init};
