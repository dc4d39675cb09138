//! What is really so, seen from outside: what sources handed over, what the store took, what was published. Whoever
//! claims more than is so is caught at that moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde_json::Value;
use supervisors::{Event, EventKind};

use super::journal::Journal;
use super::store::{Kind, Watch};

/// A stream as it really is.
#[derive(Debug, Default)]
pub(crate) struct StreamTruth {
    /// The last committed epoch.
    pub(crate) epoch: u64,
    /// Who may commit.
    pub(crate) own: u64,
    /// By partition, the last sequence number that is committed.
    pub(crate) committed: BTreeMap<String, u64>,
    /// By partition, the greatest sequence number that was handed over.
    pub(crate) handed: BTreeMap<String, u64>,
    /// References in the order in which they arrived.
    pub(crate) published: Vec<Value>,
    /// The last epoch that the outside knows of.
    pub(crate) announced: u64,
}

#[derive(Debug, Default)]
struct State {
    streams: BTreeMap<String, StreamTruth>,
    objects: BTreeSet<String>,
    records: BTreeMap<String, Value>,
    wrong: Vec<String>,
    /// Restarts that were decided, by child and reason.
    restarts: BTreeMap<String, u32>,
    parked: BTreeMap<String, u32>,
    acknowledged: u64,
}

/// Shared by everything that is simulated.
#[derive(Debug)]
pub(crate) struct Truth {
    pub(crate) journal: Journal,
    state: Mutex<State>,
}

fn stream_of(path: &str) -> String {
    path.split('/').skip(1).take(2).collect::<Vec<_>>().join("/")
}

impl Truth {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { journal: Journal::new(), state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at a stream, or changes it.
    pub(crate) fn stream<T>(&self, id: &str, look: impl FnOnce(&mut StreamTruth) -> T) -> T {
        look(self.lock().streams.entry(id.to_owned()).or_default())
    }

    /// Something that must never be.
    pub(crate) fn wrong(&self, what: String) {
        self.journal.note(format!("WRONG {what}"));
        self.lock().wrong.push(what);
    }

    pub(crate) fn take_wrong(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().wrong)
    }

    /// Restarts by `<last segment of the path> <class> <code>`.
    pub(crate) fn restarts(&self) -> BTreeMap<String, u32> {
        self.lock().restarts.clone()
    }

    /// Parked children by the same.
    pub(crate) fn parked(&self) -> BTreeMap<String, u32> {
        self.lock().parked.clone()
    }

    pub(crate) fn acknowledgements(&self) -> u64 {
        self.lock().acknowledged
    }

    pub(crate) fn handed(&self, id: &str, partition: &str, seq: u64) {
        self.stream(id, |stream| {
            let last = stream.handed.entry(partition.to_owned()).or_default();
            *last = seq.max(*last);
        });
        self.journal.note(format!("handed {id}/{partition} {seq}"));
    }

    /// A source is told that everything up to `seq` is safe.
    pub(crate) fn acknowledged(&self, id: &str, partition: &str, seq: u64) {
        self.lock().acknowledged += 1;
        let committed = self.stream(id, |stream| stream.committed.get(partition).copied());
        if committed.is_none_or(|committed| committed < seq) {
            self.wrong(format!("{id}/{partition} was told {seq}, committed is {committed:?}"));
        }
    }

    /// A reference arrives outside.
    pub(crate) fn published(&self, id: &str, epoch: u64, data: &Value) {
        let committed = self.stream(id, |stream| {
            stream.published.push(data.clone());
            stream.announced = stream.announced.max(epoch);
            stream.epoch
        });
        self.journal.note(format!("published {id} {epoch}"));
        if committed < epoch {
            self.wrong(format!("epoch {epoch} of {id} was published, committed is {committed}"));
        }
    }

    /// A cache takes positions as of `epoch`.
    pub(crate) fn cached(&self, id: &str, epoch: u64) {
        let committed = self.stream(id, |stream| stream.epoch);
        if committed < epoch {
            self.wrong(format!("a cache has epoch {epoch} of {id}, committed is {committed}"));
        }
    }

    /// Something happened in a tree.
    pub(crate) fn happened(&self, who: &str, event: &Event) {
        let reason = event.reason.as_ref().map_or_else(String::new, |r| format!(" {}/{}", r.class, r.code));
        let (kind, path) = (event.kind.as_str(), event.path.as_str());
        let delay = event.delay.map_or_else(String::new, |delay| format!(" in {}ms", delay.as_millis()));
        self.journal.note(format!("{who} {kind} {path} #{}{reason}{delay}", event.incarnation));
        let child = match path.split_once("/workers/") {
            Some(_) => "worker",
            None => path.rsplit('/').next().unwrap_or_default(),
        };
        let mut state = self.lock();
        match event.kind {
            EventKind::Restarting => *state.restarts.entry(format!("{child}{reason}")).or_default() += 1,
            EventKind::Parked => *state.parked.entry(format!("{child}{reason}")).or_default() += 1,
            _ => {}
        }
        drop(state);
        if matches!(event.kind, EventKind::Failed | EventKind::Parked)
            && let Some(reason) = &event.reason
        {
            self.journal.note(format!("{who}   {}", reason.message));
        }
    }

    /// An entry of a stream's log is there.
    fn entry(&self, path: &str, bytes: &[u8]) {
        let id = stream_of(path);
        let lines = bytes.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
        let (mut epoch, mut own, mut record) = (None, None, None);
        for action in lines {
            if let Some(txn) = action.get("txn") {
                let version = txn["version"].as_u64();
                if txn["appId"] == format!("lakefeed/{id}") {
                    epoch = version;
                } else if txn["appId"] == format!("lakefeed-own/{id}") {
                    own = version;
                }
            }
            if let Some(name) = action.pointer("/commitInfo/lakefeed.record").and_then(Value::as_str) {
                record = Some(name.to_owned());
            }
            if let Some(add) = action.get("add") {
                let table = path.split("/_delta_log/").next().unwrap_or_default();
                let file = format!("{table}/{}", add["path"].as_str().unwrap_or_default().replace("%25", "%"));
                if !self.lock().objects.contains(&file) {
                    self.wrong(format!("{path} names {file}, which is not there"));
                }
            }
        }
        let before = self.stream(&id, |stream| {
            let before = (stream.epoch, stream.own);
            stream.epoch = epoch.unwrap_or(stream.epoch);
            stream.own = own.unwrap_or(stream.own);
            before
        });
        let Some(epoch) = epoch else { return };
        if (epoch, own) != (before.0 + 1, Some(before.1)) {
            self.wrong(format!("{path} commits epoch {epoch} by {own:?} after {before:?}"));
        }
        self.committed(&id, path, record.unwrap_or_default());
    }

    fn committed(&self, id: &str, path: &str, record: String) {
        let Some(found) = self.lock().records.get(&record).cloned() else {
            return self.wrong(format!("{path} is committed and its record {record:?} is not there"));
        };
        for raw in found["raw"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !self.lock().objects.contains(raw) {
                self.wrong(format!("{path} is committed and {raw} is not there"));
            }
        }
        self.stream(id, |stream| {
            for (partition, span) in found["positions"].as_object().into_iter().flatten() {
                if let Some(to) = span["to"].as_str().and_then(|to| to.parse().ok()) {
                    stream.committed.insert(partition.clone(), to);
                }
            }
        });
    }

    fn dead_entry(&self, path: &str, bytes: &[u8]) {
        let id = stream_of(path);
        let committed = self.stream(&id, |stream| stream.epoch);
        for line in bytes.split(|b| *b == b'\n') {
            let Ok(action) = serde_json::from_slice::<Value>(line) else { continue };
            if action.pointer("/txn/version").and_then(Value::as_u64).is_some_and(|epoch| epoch > committed) {
                self.wrong(format!("{path} leads, committed is {committed}"));
            }
        }
    }
}

impl Watch for Truth {
    fn changed(&self, path: &str, bytes: Option<&Bytes>) {
        let Some(bytes) = bytes else {
            self.lock().objects.remove(path);
            return;
        };
        self.lock().objects.insert(path.to_owned());
        match Kind::of(path) {
            Kind::Entry => self.entry(path, bytes),
            Kind::DeadEntry => self.dead_entry(path, bytes),
            Kind::Record => {
                let record = serde_json::from_slice(bytes).unwrap_or_default();
                self.lock().records.insert(path.to_owned(), record);
            }
            _ => {}
        }
    }

    fn asked(&self, who: &str, operation: &str, path: &str, went: &str) {
        self.journal.note(format!("{who} {operation} {path} {went}"));
    }
}
