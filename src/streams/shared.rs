//! What the parts of one stream share, and what all streams of a node share.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adapters::contract::{Clock, Credits, Env, Keep, Resolve};
use metrics::gauge;
use serde_json::Value;
use tokio::sync::{Notify, Semaphore, watch};

use super::api::Parked;
use super::intake::Intake;
use crate::announce::{Feed, Sink};
use crate::checkpoint::Cache;
use crate::lake::Lake;
use crate::names::StreamId;
use crate::settings::{EpochLimits, Job};
use crate::telemetry::events::Events;
use crate::telemetry::metrics::{WAITING, stream_labels};
use crate::telemetry::secrets::Scrubber;

/// Claims under way at once. Each is a handful of requests to the lake; more at once only lengthen the queue there.
const CLAIMS_MAX: usize = 32;

/// Commits under way at once, as many as keep the lake busy: each has up to three objects on their way, and the lake takes
/// 192 requests at a time. Others go on collecting, so that a busy lake gets fewer and larger epochs instead of a queue
/// in which claims and polls of new streams would wait behind thousands of small ones. Few in tests, so that they wait.
const COMMITS_MAX: usize = if cfg!(test) { 2 } else { 64 };

/// References kept between commit and announcement, so that the announcer need not read back what was just written.
const RECENT_MAX: usize = 64;

/// A stream may have two epochs' bytes under way: one that collects and one that commits.
const EPOCHS_IN_FLIGHT: usize = 2;

/// What all streams of a node share. Made by the composition root.
#[derive(Debug)]
pub struct Node {
    /// The lake.
    pub lake: Arc<Lake>,
    /// The cache.
    pub cache: Cache,
    /// The embedded feed; also the first of `sinks`.
    pub feed: Arc<Feed>,
    /// Where references go.
    pub sinks: Vec<Arc<dyn Sink>>,
    /// The newest events.
    pub events: Arc<Events>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Memories of sources.
    pub keep: Arc<dyn Keep>,
    /// Names of hosts.
    pub resolve: Arc<dyn Resolve>,
    /// Bytes under way between all sources and the lake.
    pub credits: Arc<Semaphore>,
    /// When an epoch closes.
    pub epoch: EpochLimits,
    /// Seeds what is random.
    pub seed: u64,
    /// Takes secrets out of what is told about failures.
    pub scrubber: Arc<Scrubber>,
    /// Bounds what is under way at the lake.
    pub turns: Turns,
    /// Collects how late polls start, for the benchmark.
    pub start_lags: Option<Arc<Mutex<Vec<std::time::Duration>>>>,
}

/// Bounds claims and commits under way, each in the order in which they were asked for.
#[derive(Debug)]
pub struct Turns {
    /// Claims.
    pub claims: Semaphore,
    /// Commits.
    pub commits: Arc<Semaphore>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { claims: Semaphore::new(CLAIMS_MAX), commits: Arc::new(Semaphore::new(COMMITS_MAX)) }
    }
}

/// How far a stream has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// The last committed epoch.
    pub epoch: u64,
    /// Who committed.
    pub generation: u64,
    /// The newest event time committed, µs.
    pub newest_event_us: Option<i64>,
}

/// What a worker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Comes up.
    Starting,
    /// A workload is under way, or the source is continuous.
    Working,
    /// Until then, µs since the epoch.
    Waiting(i64),
    /// The source has no more to give.
    Ended,
}

/// A worker as its stream sees it.
#[derive(Debug)]
pub struct WorkerView {
    /// What it is doing.
    pub phase: Phase,
    /// Failed workloads in a row, over all incarnations.
    pub failed: u32,
    /// Why the last workload failed; `None` once one succeeds.
    pub trouble: Option<Parked>,
    /// Rings to drop the workload in progress.
    pub interrupt: Arc<Notify>,
}

impl Default for WorkerView {
    fn default() -> Self {
        Self { phase: Phase::Starting, failed: 0, trouble: None, interrupt: Arc::default() }
    }
}

/// What the parts of one stream share.
#[derive(Debug)]
pub struct Shared {
    /// The stream.
    pub id: StreamId,
    /// The node's parts.
    pub node: Arc<Node>,
    /// The stream's credits.
    pub credits: Credits,
    /// What to do; `None` where there is no job.
    pub job: watch::Sender<Option<Arc<Job>>>,
    /// The committer's open end; `None` while there is no claim.
    pub intake: watch::Sender<Option<Arc<Intake>>>,
    /// How far the stream has come.
    pub progress: watch::Sender<Progress>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// In order, so that whatever is told to all of them is told in the same order always.
    workers: BTreeMap<String, WorkerView>,
    parked: HashMap<String, Parked>,
    /// When what is parked is tried again, µs, by path.
    probes: HashMap<String, i64>,
    recent: std::collections::VecDeque<(u64, Value)>,
    bucket: String,
    /// Why the stream waits, where it is not a worker's wait.
    waits_for: Option<String>,
    /// The lake was asked how far the stream has come.
    acquainted: bool,
}

impl Shared {
    /// A stream that does nothing yet.
    #[must_use]
    pub fn new(id: StreamId, node: Arc<Node>) -> Arc<Self> {
        let credits = Credits::for_stream(node.epoch.max_bytes * EPOCHS_IN_FLIGHT, Arc::clone(&node.credits));
        let state = State { bucket: crate::names::DEFAULT_BUCKET.to_owned(), ..State::default() };
        Arc::new(Self {
            id,
            node,
            credits,
            job: watch::Sender::new(None),
            intake: watch::Sender::new(None),
            progress: watch::Sender::new(Progress::default()),
            state: Mutex::new(state),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a source of `partition` gets from outside.
    #[must_use]
    pub fn env(&self, partition: &str) -> Env {
        Env {
            clock: Arc::clone(&self.node.clock),
            keep: Arc::clone(&self.node.keep),
            resolve: Arc::clone(&self.node.resolve),
            seed: self.node.seed ^ hash(&format!("{}/{partition}", self.id)),
            scope: format!("{}/{partition}", self.id),
        }
    }

    /// Learns from the lake how far a stream has come that nobody claimed since the start of the node. A lake that does
    /// not answer leaves it unknown.
    pub async fn acquaint(&self) {
        let unknown = |progress: &Progress| progress.generation == 0;
        if !unknown(&self.progress.borrow()) || self.lock().acquainted {
            return;
        }
        match self.node.lake.last_checkpoint(&self.id).await {
            Ok(found) => {
                self.lock().acquainted = true;
                self.progress.send_if_modified(|progress| {
                    let Some(found) = found.filter(|_| unknown(progress)) else { return false };
                    let (epoch, generation) = (found.epoch, found.generation);
                    *progress = Progress { epoch, generation, newest_event_us: found.newest_event_us };
                    true
                });
            }
            Err(e) => tracing::warn!(stream = %self.id, code = e.code, message = e.message, "the lake did not tell"),
        }
    }

    /// Changes the view of a worker.
    pub fn worker<T>(&self, partition: &str, change: impl FnOnce(&mut WorkerView) -> T) -> T {
        change(self.lock().workers.entry(partition.to_owned()).or_default())
    }

    /// What a worker is doing, how many of its workloads failed in a row, and why the last one did; `None` where the
    /// partition has none.
    #[must_use]
    pub fn worker_view(&self, partition: &str) -> Option<(Phase, u32, Option<Parked>)> {
        let state = self.lock();
        let view = state.workers.get(partition)?;
        Some((view.phase, view.failed, view.trouble.clone()))
    }

    /// Forgets the views of workers that are gone.
    pub fn forget_workers(&self) {
        self.lock().workers.clear();
    }

    /// Drops the workload of one partition or of all; false where the partition has no worker.
    pub fn interrupt(&self, partition: Option<&str>) -> bool {
        let state = self.lock();
        let mut found = partition.is_none();
        for (name, view) in &state.workers {
            if partition.is_none_or(|wanted| wanted == name) {
                view.interrupt.notify_waiters();
                found = true;
            }
        }
        found
    }

    /// The phases of all workers.
    #[must_use]
    pub fn phases(&self) -> Vec<Phase> {
        self.lock().workers.values().map(|view| view.phase).collect()
    }

    /// A child of this stream was parked, or is no longer. `path` is as in the tree.
    pub fn set_parked(&self, path: &str, parked: Option<Parked>) {
        let mut state = self.lock();
        match parked {
            Some(parked) => state.parked.insert(path.to_owned(), parked),
            None => state.parked.remove(path),
        };
        state.probes.remove(path);
    }

    /// The child at `path` is parked and tried again at `at_us`.
    pub fn set_probe(&self, path: &str, at_us: i64) {
        self.lock().probes.insert(path.to_owned(), at_us);
    }

    /// When the parked child at `path` is tried again, µs; `None` where it is not parked or not tried.
    #[must_use]
    pub fn probe_at_us(&self, path: &str) -> Option<i64> {
        self.lock().probes.get(path).copied()
    }

    /// Forgets all that is parked: the children are gone.
    pub fn forget_parked(&self) {
        let mut state = self.lock();
        state.parked.clear();
        state.probes.clear();
    }

    /// What is parked, by path.
    #[must_use]
    pub fn parked(&self) -> HashMap<String, Parked> {
        self.lock().parked.clone()
    }

    /// Keeps the reference of a committed epoch for the announcer.
    pub fn remember(&self, epoch: u64, reference: Value) {
        let mut state = self.lock();
        state.recent.push_back((epoch, reference));
        if state.recent.len() > RECENT_MAX {
            state.recent.pop_front();
        }
    }

    /// The reference of an epoch that was committed lately.
    #[must_use]
    pub fn recent(&self, epoch: u64) -> Option<Value> {
        self.lock().recent.iter().find(|(known, _)| *known == epoch).map(|(_, reference)| reference.clone())
    }

    /// The first segment of the epoch records' path.
    #[must_use]
    pub fn bucket(&self) -> String {
        self.lock().bucket.clone()
    }

    /// Another bucket, from the next epoch on.
    pub fn set_bucket(&self, bucket: &str) {
        bucket.clone_into(&mut self.lock().bucket);
    }

    /// Says what the stream as a whole waits for.
    pub fn set_waits_for(&self, reason: Option<String>) {
        gauge!(WAITING, stream_labels(self.id.tenant(), self.id.stream())).set(f64::from(u8::from(reason.is_some())));
        self.lock().waits_for = reason;
    }

    /// What the stream as a whole waits for.
    #[must_use]
    pub fn waits_for(&self) -> Option<String> {
        self.lock().waits_for.clone()
    }
}

/// FNV-1a: spreads seeds, nothing more.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}
