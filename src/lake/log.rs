//! A Delta table's log as an owner follows it: what the newest entries say, and how one more is added.
//!
//! An entry is added by a create-only put of the next version, so of all that try one wins; whoever lost, and whoever
//! does not know whether he won, reads what is there now before doing anything else.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use futures::future::try_join_all;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use super::delta::{check_writable, schema_from_delta};
use super::error::{LakeError, LakeErrorClass};
use super::io::{Io, Put, Tries};
use super::{layout, snapshot};
use crate::faults;

/// Where a log entry of ours names its epoch record.
pub(crate) const RECORD_KEY: &str = "lakefeed.record";
/// Where a claim holds the token that tells it from another owner's.
pub(crate) const CLAIM_KEY: &str = "lakefeed.claim";

/// Entries that are read at once while catching up.
const READ_AHEAD_MAX: u64 = 16;
/// Entries that may come in between one of ours. More than any real contention; a log that always moves is reported.
const CONFLICTS_MAX: usize = 256;
/// After this long without a look, the state is read afresh before it is built upon: log clean-up may have removed the
/// entries that would tell, and a create-only put would then fill their place. Far below any retention of logs.
const STALE_AFTER: Duration = Duration::from_secs(3600);
/// Epochs whose record's path is remembered from the log.
const RECORDS_REMEMBERED: usize = 256;

/// The `txn` ids that an owner follows in a table.
#[derive(Debug, Clone)]
pub(crate) struct Apps {
    /// Version = generation; absent in a dead table.
    pub(crate) own: Option<String>,
    /// Version = epoch.
    pub(crate) epoch: String,
}

/// What an entry says of an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) version: u64,
    pub(crate) record: Option<String>,
}

/// A table as of a version.
#[derive(Debug, Clone)]
pub(crate) struct TableState {
    pub(crate) version: u64,
    pub(crate) protocol: Value,
    pub(crate) metadata: Value,
    pub(crate) schema: SchemaRef,
    pub(crate) partition_by: Vec<String>,
    /// The generation that owns the stream, 0 before the first.
    pub(crate) own: u64,
    /// The token of the claim that made it so, where the log still holds it.
    pub(crate) claim: Option<String>,
    /// The last epoch, 0 before the first.
    pub(crate) epoch: u64,
    /// Recent epochs.
    pub(crate) told: BTreeMap<u64, Told>,
    seen: Instant,
}

#[derive(Deserialize)]
struct Line {
    txn: Option<Txn>,
    #[serde(rename = "metaData")]
    metadata: Option<Value>,
    protocol: Option<Value>,
    #[serde(rename = "commitInfo")]
    info: Option<BTreeMap<String, Value>>,
}

#[derive(Deserialize)]
struct Txn {
    #[serde(rename = "appId")]
    app: String,
    version: i64,
}

/// What one entry says, as far as an owner cares.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    pub(crate) own: Option<u64>,
    pub(crate) epoch: Option<u64>,
    pub(crate) claim: Option<String>,
    pub(crate) record: Option<String>,
    metadata: Option<Value>,
    protocol: Option<Value>,
}

impl Entry {
    pub(crate) fn parse(path: &str, bytes: &[u8], apps: &Apps) -> Result<Self, LakeError> {
        let mut entry = Self::default();
        for line in bytes.split(|b| *b == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
            let line: Line = serde_json::from_slice(line)
                .map_err(|_| LakeError::data("log_unreadable", format!("{path} is not an entry of a Delta log")))?;
            if let Some(txn) = line.txn {
                let version = u64::try_from(txn.version).ok();
                if txn.app == apps.epoch {
                    entry.epoch = version;
                } else if Some(&txn.app) == apps.own.as_ref() {
                    entry.own = version;
                }
            }
            if let Some(info) = line.info {
                let text = |key: &str| info.get(key).and_then(Value::as_str).map(str::to_owned);
                entry.claim = text(CLAIM_KEY);
                entry.record = text(RECORD_KEY);
            }
            entry.metadata = line.metadata.or(entry.metadata);
            entry.protocol = line.protocol.or(entry.protocol);
        }
        Ok(entry)
    }
}

impl TableState {
    pub(crate) fn new(version: u64, protocol: Value, metadata: Value) -> Result<Self, LakeError> {
        let mut state = Self {
            version,
            protocol,
            metadata: Value::Null,
            schema: crate::pipeline::table_columns(None),
            partition_by: Vec::new(),
            own: 0,
            claim: None,
            epoch: 0,
            told: BTreeMap::new(),
            seen: Instant::now(),
        };
        state.set_metadata(metadata)?;
        Ok(state)
    }

    fn set_metadata(&mut self, metadata: Value) -> Result<(), LakeError> {
        let text = metadata.get("schemaString").and_then(Value::as_str).unwrap_or_default();
        self.schema = schema_from_delta(text)?;
        let columns = metadata.get("partitionColumns").and_then(Value::as_array).cloned().unwrap_or_default();
        self.partition_by = columns.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        self.metadata = metadata;
        Ok(())
    }

    /// The table's id.
    pub(crate) fn table_id(&self) -> String {
        self.metadata.get("id").and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// Moves on by one entry.
    fn apply(&mut self, entry: Entry) -> Result<(), LakeError> {
        self.version += 1;
        self.tell(self.version, &entry);
        if let Some(own) = entry.own
            && (own != self.own || entry.claim.is_some())
        {
            self.own = own;
            self.claim = entry.claim;
        }
        if let Some(epoch) = entry.epoch {
            self.epoch = epoch;
        }
        if let Some(protocol) = entry.protocol {
            self.protocol = protocol;
        }
        if let Some(metadata) = entry.metadata {
            self.set_metadata(metadata)?;
        }
        Ok(())
    }

    /// Remembers which version holds an epoch.
    pub(crate) fn tell(&mut self, version: u64, entry: &Entry) {
        if let Some(epoch) = entry.epoch {
            self.told.insert(epoch, Told { version, record: entry.record.clone() });
            if self.told.len() > RECORDS_REMEMBERED {
                self.told.pop_first();
            }
        }
    }
}

/// A table's log, and its state as last seen; `None` while the table does not exist.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    pub(crate) table: String,
    pub(crate) apps: Apps,
    pub(crate) state: Option<TableState>,
}

/// What is to be done in the state that is there now.
pub(crate) enum Step {
    /// It was done, by this version.
    Done(u64),
    /// This entry, one action a line.
    Write(String),
}

impl Log {
    /// Reads the newest state of `table`.
    pub(crate) async fn open(io: &Io, table: String, apps: Apps) -> Result<Self, LakeError> {
        let mut log = Self { table, apps, state: None };
        log.reload(io).await?;
        Ok(log)
    }

    async fn reload(&mut self, io: &Io) -> Result<(), LakeError> {
        self.state = snapshot::load(io, &self.table, &self.apps).await?;
        self.catch_up(io).await
    }

    /// Reads the entries after the known version, until there is none.
    pub(crate) async fn catch_up(&mut self, io: &Io) -> Result<(), LakeError> {
        let mut window = 1;
        loop {
            let next = self.state.as_ref().map_or(0, |state| state.version + 1);
            let paths: Vec<_> = (next..next + window).map(|v| layout::log_entry(&self.table, v)).collect();
            let entries = try_join_all(paths.iter().map(|path| io.get(path))).await?;
            for (path, bytes) in paths.iter().zip(entries) {
                let Some(bytes) = bytes else {
                    if let Some(state) = &mut self.state {
                        state.seen = Instant::now();
                    }
                    return Ok(());
                };
                self.apply(path, &bytes)?;
            }
            window = (window * 2).min(READ_AHEAD_MAX);
        }
    }

    fn apply(&mut self, path: &str, bytes: &[u8]) -> Result<(), LakeError> {
        let entry = Entry::parse(path, bytes, &self.apps)?;
        let Some(state) = &mut self.state else {
            let first = || LakeError::data("log_unreadable", format!("{path} lacks protocol or metaData"));
            let (protocol, metadata) = (entry.protocol.clone(), entry.metadata.clone());
            let mut state = TableState::new(0, protocol.ok_or_else(first)?, metadata.ok_or_else(first)?)?;
            (state.own, state.claim) = (entry.own.unwrap_or(0), entry.claim.clone());
            state.epoch = entry.epoch.unwrap_or(0);
            state.tell(0, &entry);
            self.state = Some(state);
            return Ok(());
        };
        state.apply(entry)
    }

    /// Adds what `decide` asks for to the state that is there, however often that changes meanwhile. Gives the version.
    ///
    /// `sent` is the fault point right after the put was applied.
    pub(crate) async fn append(
        &mut self,
        io: &Io,
        sent: &str,
        mut decide: impl FnMut(Option<&TableState>) -> Result<Step, LakeError>,
    ) -> Result<u64, LakeError> {
        if self.state.as_ref().is_some_and(|state| state.seen.elapsed() > STALE_AFTER) {
            self.reload(io).await?;
        }
        let mut tries = Tries::new(&self.table);
        let mut unsure: Option<LakeError> = None;
        for _ in 0..CONFLICTS_MAX {
            if let Some(state) = &self.state {
                check_writable(&state.protocol, &state.metadata)?;
            }
            let body = match decide(self.state.as_ref())? {
                Step::Done(version) => {
                    self.settle(io, version, unsure.is_some()).await?;
                    return Ok(version);
                }
                Step::Write(body) => Bytes::from(body),
            };
            if let Some(error) = unsure.take() {
                tries.again(error).await?;
            }
            let version = self.state.as_ref().map_or(0, |state| state.version + 1);
            let path = layout::log_entry(&self.table, version);
            match io.put_new(&path, body.clone()).await {
                Ok(Put::Created) if faults::fails(sent) => {
                    unsure = Some(LakeError::new(LakeErrorClass::Transient, "crash_point", "answer lost"));
                }
                Ok(Put::Exists) if !faults::bug("ignore_conflict") => {}
                Ok(_) => {
                    self.apply(&path, &body)?;
                    if let Some(state) = &mut self.state {
                        state.seen = Instant::now();
                    }
                    return Ok(version);
                }
                Err(_) if faults::bug("no_look") => {
                    if let Some(state) = &mut self.state {
                        state.version += 1;
                    }
                }
                Err(error) => unsure = Some(error),
            }
            self.catch_up(io).await?;
            let moved = self.state.as_ref().is_some_and(|state| state.version >= version);
            if !moved && unsure.is_none() {
                // Refused as existing, and yet not there: some stores answer so while another put is under way.
                let message = format!("{path} is refused as existing but cannot be read");
                unsure = Some(LakeError::new(LakeErrorClass::Transient, "log_unsettled", message));
            }
        }
        let message = format!("the log of {} moved {CONFLICTS_MAX} times under one commit", self.table);
        Err(LakeError::new(LakeErrorClass::Transient, "log_contended", message))
    }

    /// An entry of ours whose put ended in an error was found by looking. It may be visible and not yet durable, so the
    /// store is asked to create it once more: its refusal is its word that the entry is there to stay.
    async fn settle(&self, io: &Io, version: u64, unsure: bool) -> Result<(), LakeError> {
        if !unsure {
            return Ok(());
        }
        let path = layout::log_entry(&self.table, version);
        let Some(bytes) = io.get(&path).await? else {
            return Err(LakeError::new(LakeErrorClass::Transient, "log_unsettled", format!("{path} went away")));
        };
        io.put_same(&path, bytes).await
    }
}
