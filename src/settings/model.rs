//! What settings hold once they are read and checked. Values only; nothing here opens, connects or runs.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use adapters::contract::Mount;
use adapters::contract::config::{Secret, Table};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};

use crate::names::StreamId;
use crate::streams::api::Desired;

/// A whole configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `[node]`.
    pub node: NodeSettings,
    /// `[lake]`.
    pub lake: LakeSettings,
    /// `[api]`.
    pub api: ApiSettings,
    /// `[supervision]`: what adapters and streams that say nothing else restart by.
    pub supervision: RestartSettings,
    /// `[adapter.*]` by name.
    pub adapters: BTreeMap<String, AdapterSettings>,
    /// `[stream.*]`.
    pub streams: BTreeMap<StreamId, StreamSettings>,
}

/// `[node]`.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeSettings {
    /// `name`, default `node-1`.
    pub name: String,
    /// `state_dir`, resolved against the file's folder.
    pub state_dir: PathBuf,
    /// `drain`, default 30 s.
    pub drain: Duration,
    /// `queue`: bytes that all streams together may hold between source and lake, default 256 MiB.
    pub queue_bytes: usize,
    /// `secrets_key`: 32 bytes.
    pub secrets_key: Option<Arc<SecretKey>>,
}

/// The key that encrypts secrets from messages.
#[derive(PartialEq, Eq)]
pub struct SecretKey(pub [u8; 32]);

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretKey")
    }
}

/// `[lake]`.
#[derive(Debug, Clone, PartialEq)]
pub struct LakeSettings {
    /// `file:` (absolute by now), `s3://`, `gs://`, `az://`.
    pub url: String,
    /// Options of the store, secrets resolved.
    pub options: HashMap<String, Secret>,
    /// When an epoch closes.
    pub epoch: EpochLimits,
}

/// When an epoch closes: whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochLimits {
    /// Since its first record. Default 1 s.
    pub max_age: Duration,
    /// Payload bytes. Default 64 MiB.
    pub max_bytes: usize,
    /// Payloads. Default 1,000,000.
    pub max_rows: usize,
}

impl Default for EpochLimits {
    fn default() -> Self {
        Self { max_age: Duration::from_secs(1), max_bytes: 64 << 20, max_rows: 1_000_000 }
    }
}

/// `[api]`.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiSettings {
    /// Default `127.0.0.1:7400`.
    pub listen: SocketAddr,
    /// Needed beyond loopback.
    pub token: Option<Secret>,
}

/// `[supervision]`, and `restart` of an adapter or stream.
#[derive(Debug, Clone, PartialEq)]
pub struct RestartSettings {
    /// Default 5.
    pub max_restarts: u32,
    /// Default 30 s (`max_seconds` is a whole number of seconds).
    pub window: Duration,
    /// Shortest delay, default 200 ms.
    pub backoff_min: Duration,
    /// Longest delay, default 30 s.
    pub backoff_max: Duration,
    /// Growth, default 2.
    pub backoff_factor: f64,
    /// Random part, 0 to 1, default 0.2.
    pub backoff_jitter: f64,
    /// Healthy time after which the delay starts again at the shortest, default 2 min.
    pub reset_after: Duration,
    /// How often a parked child is tried again, default 15 min.
    pub probe: Duration,
}

impl Default for RestartSettings {
    fn default() -> Self {
        Self {
            max_restarts: 5,
            window: Duration::from_secs(30),
            backoff_min: Duration::from_millis(200),
            backoff_max: Duration::from_secs(30),
            backoff_factor: 2.0,
            backoff_jitter: 0.2,
            reset_after: Duration::from_secs(120),
            probe: Duration::from_secs(900),
        }
    }
}

/// What happens to a record that cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnBadRecord {
    /// It becomes a dead letter and the stream goes on.
    DeadLetter,
    /// Its partition is parked before it.
    Park,
}

/// A column of `table.generated`: a date in UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// Its name.
    pub column: String,
    /// What it is the date of; null where that is.
    pub of: DateOf,
}

/// What a generated column is the date of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DateOf {
    /// The record's event time.
    EventTime,
    /// The arrival of the record's payload.
    ReceivedAt,
    /// A timestamp column.
    Column(String),
}

/// `allow` of an adapter: what messages may ask for beyond the operator's own values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allow {
    /// URLs; compared by `adapters::http::allows`.
    pub endpoints: Vec<String>,
    /// `env:NAME` and `file:PATH` as written.
    pub secrets: Vec<String>,
    /// Keys that `settings` of a message may hold.
    pub settings: Vec<String>,
}

/// `[adapter.NAME]`.
#[derive(Debug, Clone)]
pub struct AdapterSettings {
    /// The name.
    pub name: String,
    /// The kind's name.
    pub kind: String,
    /// The table as written, so that a stream or a message can lay its own keys over it.
    pub table: Table,
    /// What messages may ask for.
    pub allow: Allow,
    /// `[supervision]`, which the adapter's `restart` narrows.
    pub supervision: RestartSettings,
    /// Tells two readings of the adapter apart, secrets included.
    pub digest: Digest,
}

/// A hash of settings with what their secret references led to. Tells whether something changed, not what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub(super) [u8; 32]);

/// An adapter with one stream's or message's own keys laid over it, read and checked.
#[derive(Debug, Clone)]
pub struct Job {
    /// The adapter's name.
    pub adapter: String,
    /// The kind's configured source.
    pub mount: Arc<dyn Mount>,
    /// `raw = "keep"`.
    pub raw_kept: bool,
    /// `table.partition_by`.
    pub partition_by: Vec<String>,
    /// `table.schema` where declared; a kind's fixed schema comes from the mount.
    pub schema: Option<SchemaRef>,
    /// `table.generated`.
    pub generated: Vec<Generated>,
    /// `on_bad_record`.
    pub on_bad_record: OnBadRecord,
    /// `on_schema_change = "park"`; the rest of that key is the decoder's.
    pub park_on_schema_change: bool,
    /// `max_failed_workloads`, default 5.
    pub failed_workloads_max: u32,
    /// `restart`, narrowed from `[supervision]`.
    pub restart: RestartSettings,
}

/// `[stream."tenant/name"]`.
#[derive(Debug, Clone)]
pub struct StreamSettings {
    /// The adapter's name.
    pub adapter: String,
    /// Desired state at first sight.
    pub state: Desired,
    /// The stream's own keys as written; a message lays its keys over them.
    pub table: Table,
    /// Read and checked.
    pub job: Job,
    /// Of the adapter and the stream's own keys together.
    pub digest: Digest,
}

impl Job {
    /// The columns that the table must have, as declared, fixed by the kind, or computed; `None` where all are inferred.
    #[must_use]
    pub fn columns(&self) -> Option<SchemaRef> {
        let own = self.schema.clone().or_else(|| self.mount.schema());
        if self.generated.is_empty() {
            return own;
        }
        let own = own.iter().flat_map(|schema| schema.fields().iter().cloned());
        let dates = self.generated.iter().map(|date| Arc::new(Field::new(&date.column, DataType::Date32, true)));
        Some(Arc::new(Schema::new(own.chain(dates).collect::<Vec<FieldRef>>())))
    }
}
