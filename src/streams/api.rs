//! What the streams offer to the control room: plain requests and answers, no actors in sight.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::names::StreamId;

/// What a stream should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    /// Works.
    Running,
    /// Keeps its table, asks its source for nothing.
    Paused,
    /// Holds nothing.
    Stopped,
}

/// What a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Actual {
    /// Claims its table or starts its workers.
    Starting,
    /// A workload is under way.
    Running,
    /// For the next beat, a back-off, a Retry-After.
    Waiting,
    /// All its workers are parked, or the stream itself is.
    Parked,
    /// Holds nothing.
    Stopped,
}

/// Why something is parked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {
    /// A class of interface §5.
    pub class: String,
    /// A stable name.
    pub code: String,
    /// One sentence.
    pub message: String,
}

/// `worker:status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// What it should be.
    pub desired: Desired,
    /// What it is.
    pub actual: Actual,
    /// The last committed epoch, 0 before the first.
    pub epoch: u64,
    /// Now − newest committed event time; `None` before the first.
    pub lag_seconds: Option<f64>,
    /// RFC 3339 of the next beat or attempt.
    pub next_at: Option<String>,
    /// Why it is parked, if it is.
    pub parked: Option<Parked>,
    /// `code: message` of what the stream as a whole waits for (its lake, a job), as `/health/ready`, the tree and the
    /// gauge `lakefeed_waiting` have it; `None` where it waits for nothing but its next beat, or should not run.
    pub waits_for: Option<String>,
}

/// One line of `GET /v1/streams`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamView {
    /// Its tenant.
    pub tenant: String,
    /// Its name within the tenant.
    pub stream: String,
    /// The adapter it uses.
    pub adapter: String,
    /// The version of its desired state; the ETag of `GET /v1/streams/{tenant}/{stream}`.
    pub version: u64,
    /// Names of its partitions, the first 1,000.
    pub partitions: Vec<String>,
    /// Keys that a message or PUT laid over the adapter; secrets as `"***"`.
    pub settings: Value,
    /// As `worker:status`.
    #[serde(flatten)]
    pub status: Status,
}

/// `worker:start` as parsed; also PUT of a stream.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StartRequest {
    /// `settings` and the named keys (endpoint, secret_key, interval, timeout, partitions) as they came, to be laid
    /// over the adapter.
    pub overrides: serde_json::Map<String, Value>,
    /// `bucket_name`.
    pub bucket_name: Option<String>,
    /// With If-Match: refuse unless the desired state has this version (0 = does not exist).
    pub if_version: Option<u64>,
}

/// Why a request was refused, in the terms of interface §3.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// A stable name in snake case.
    pub code: String,
    /// One sentence for the caller; no secret.
    pub message: String,
    /// The key that is wrong.
    pub field: Option<String>,
}

impl Refusal {
    /// A refusal without a field.
    pub fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self { status, code: code.to_owned(), message: message.into(), field: None }
    }

    /// The same, blaming `field`.
    #[must_use]
    pub fn field(mut self, field: &str) -> Self {
        self.field = Some(field.to_owned());
        self
    }
}

/// Which part of the tree is asked for. The default is all of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TreeQuery {
    /// Only this stream, and what it hangs on.
    pub stream: Option<StreamId>,
    /// Levels below the root; 0 = the root alone.
    pub depth: Option<usize>,
    /// Only nodes in one of these states, and what they hang on. See [`TREE_STATES`].
    pub only: Vec<String>,
    /// At most so many nodes: first those that are in trouble, then from the top down.
    pub limit: Option<usize>,
}

/// What [`TreeQuery::only`] may name: the states of nodes, and `trouble`, everything that somebody on call looks for:
/// what is waiting for a restart, parked, abandoned or not running, what flaps or has used half of its restarts, and
/// workers whose workloads fail.
pub const TREE_STATES: [&str; 9] =
    ["running", "starting", "waiting", "parked", "draining", "stopping", "abandoned", "stopped", "trouble"];

/// A page of references, events or records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// In order.
    pub items: Vec<Value>,
    /// To give as `after`.
    pub next: String,
}

/// Everything the control room asks of the streams. Each change is durable in the lake when it returns.
#[async_trait]
pub trait Streams: Send + Sync + 'static {
    /// All streams, in order of their names.
    async fn list(&self) -> Vec<StreamView>;
    /// One stream; 404 `unknown_stream`.
    async fn get(&self, id: &StreamId) -> Result<StreamView, Refusal>;
    /// Starts or reconfigures; 404 `unknown_adapter`.
    async fn start(&self, id: &StreamId, adapter: &str, request: StartRequest) -> Result<StreamView, Refusal>;
    /// Sets another desired state of a known stream. `stop` of an unknown stream whose adapter exists is no error.
    async fn set_desired(
        &self,
        id: &StreamId,
        adapter: Option<&str>,
        desired: Desired,
        if_version: Option<u64>,
    ) -> Result<(), Refusal>;
    /// Drops the workload in progress (of one partition or of all).
    async fn interrupt(&self, id: &StreamId, partition: Option<&str>) -> Result<(), Refusal>;
    /// Restarts workers (of one partition or all), also parked and waiting ones.
    async fn restart(&self, id: &StreamId, partition: Option<&str>) -> Result<(), Refusal>;
    /// Stops and forgets the stream; its tables stay.
    async fn delete(&self, id: &StreamId, if_version: Option<u64>) -> Result<(), Refusal>;
    /// `{epoch, generation, positions: {partition: position}}`.
    async fn checkpoint(&self, id: &StreamId) -> Result<Value, Refusal>;
    /// Sets positions (`Some`; partitions not named stay) or forgets all (`None`: from the beginning). 409 unless the
    /// stream is stopped.
    async fn set_checkpoint(
        &self,
        id: &StreamId,
        positions: Option<std::collections::BTreeMap<String, String>>,
    ) -> Result<Value, Refusal>;
    /// Dead letters after the cursor `after` (`""` = from the first).
    async fn dead(&self, id: &StreamId, after: &str, limit: usize) -> Result<Page, Refusal>;
    /// Rows of the table as JSON objects, after the cursor `after`.
    async fn records(&self, id: &StreamId, after: &str, limit: usize) -> Result<Page, Refusal>;
    /// References, of one stream (`after` is an epoch) or of all (`after` is a cursor); waits up to `wait` for the
    /// first. 400 `invalid_cursor`.
    async fn references(
        &self,
        id: Option<&StreamId>,
        after: &str,
        limit: usize,
        wait: Duration,
    ) -> Result<Page, Refusal>;
    /// The newest events, `{ts, pattern, data}`; waits like `references`.
    async fn events(&self, after: &str, limit: usize, wait: Duration) -> Result<Page, Refusal>;
    /// The supervision tree, or the part that is asked for: nodes with their children, and what workers, committers and
    /// streams say about themselves.
    async fn tree(&self, query: &TreeQuery) -> Value;
    /// The nodes at `paths` without their children, in the same order; `None` where there is none now.
    async fn nodes(&self, paths: &[String]) -> Vec<Option<Value>>;
    /// Ok when every running stream has claimed its table or waits for a named reason; else who does not.
    async fn ready(&self) -> Result<Value, Value>;
}
