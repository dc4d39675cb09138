//! References out: each committed epoch is published at least once and in order, re-derived from the lake after any
//! loss. A sink takes them; the embedded feed is the one that is always there.

mod feed;

use async_trait::async_trait;
use serde_json::Value;
use thiserror::Error;

use crate::names::StreamId;

pub use feed::{Feed, FeedError};

/// A reference could not be delivered; the announcer tries again.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("sink {sink}: {message}")]
pub struct SinkError {
    /// The sink's name.
    pub sink: &'static str,
    /// One sentence without secrets.
    pub message: String,
}

/// Where references go.
///
/// Guarantee asked of a sink: when `publish` returns, the reference is as durable as the sink ever makes it. It is
/// called in epoch order per stream and may be called again with what it already has.
#[async_trait]
pub trait Sink: Send + Sync + std::fmt::Debug {
    /// The name in `lakefeed_references_total{sink}`.
    fn name(&self) -> &'static str;

    /// The last epoch of `id` that this sink is known to have; 0 where it has none or cannot tell.
    fn announced(&self, id: &StreamId) -> u64;

    /// Publishes the reference of one epoch: `data` of `data-streams:results`.
    ///
    /// # Errors
    /// Where it may not have arrived.
    async fn publish(&self, id: &StreamId, epoch: u64, data: &Value) -> Result<(), SinkError>;
}
