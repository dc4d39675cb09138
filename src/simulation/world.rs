//! One seed: a world that is drawn, goes wrong for a while, and is judged.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use object_store::ObjectStore;
use object_store::memory::InMemory;
use tokio::time::{Instant, sleep};

use super::draw::Draw;
use super::foreign::Foreign;
use super::node::{JumpingClock, Parts, SimNode, StateDir};
use super::sink::Broker;
use super::source::{Simulated, Troubles};
use super::store::{FailingStore, Gate, Watch, Weather};
use super::truth::Truth;
use crate::faults::{self, Script, Strike};
use crate::names::StreamId;

/// A fresh record is committed within this time after the last fault.
pub(crate) const LIVE_WITHIN: Duration = Duration::from_secs(30);

/// What a seed came to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Everything that must not be.
    pub(crate) wrong: Vec<String>,
    /// What of it `lake check` found.
    pub(crate) checked: Vec<String>,
    /// The story.
    pub(crate) log: Vec<String>,
    /// Faults that happened, by name.
    pub(crate) faults: BTreeMap<String, u32>,
    pub(crate) records: u64,
    pub(crate) dead: u64,
    pub(crate) epochs: u64,
    /// What sources were told.
    pub(crate) acknowledged: u64,
    pub(crate) restarts: BTreeMap<String, u32>,
    pub(crate) parked: BTreeMap<String, u32>,
}

/// A point at which something strikes.
#[derive(Debug)]
pub(crate) struct Armed {
    pub(crate) point: &'static str,
    pub(crate) passes: u64,
    pub(crate) blow: Blow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blow {
    Panic,
    Fail,
    /// Every node dies here.
    Kill,
}

/// The points of the way of a record, in order.
pub(crate) const POINTS: [&str; 20] = [
    "worker.pulled",
    "lake.claim.sent",
    "lake.claim.after",
    "lake.raw.before",
    "lake.raw.after",
    "lake.data.before",
    "lake.data.after",
    "lake.record.after",
    "lake.commit.before",
    "lake.commit.sent",
    "lake.commit.after",
    "lake.dead.before",
    "lake.dead.sent",
    "lake.dead.after",
    "cache.before",
    "cache.after",
    "announce.before",
    "announce.after",
    "control.stored",
    "control.applied",
];

/// The world of one seed.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) draw: Draw,
    pub(crate) truth: Arc<Truth>,
    pub(crate) inner: Arc<InMemory>,
    pub(crate) store: FailingStore,
    pub(crate) clock: Arc<JumpingClock>,
    pub(crate) troubles: Arc<Troubles>,
    pub(crate) broker: Arc<Broker>,
    pub(crate) streams: Vec<StreamId>,
    pub(crate) partitions: BTreeMap<StreamId, u64>,
    pub(crate) foreign: Vec<Foreign>,
    pub(crate) nodes: Vec<SimNode>,
    pub(crate) faults: BTreeMap<String, u32>,
    started: u64,
    junk_every: u64,
    polled: bool,
    config: PathBuf,
    /// Keeps the configuration's folder.
    _folder: tempfile::TempDir,
    armed: Arc<Mutex<Option<Armed>>>,
    struck: Arc<Mutex<Vec<(String, Blow)>>>,
}

impl World {
    pub(crate) fn new(seed: u64, bug: Option<&str>) -> Self {
        let mut draw = Draw::new(seed);
        let truth = Truth::new();
        let inner = Arc::new(InMemory::new());
        let watch: Arc<dyn Watch> = Arc::<Truth>::clone(&truth);
        let store = FailingStore::watched(Arc::<InMemory>::clone(&inner), Some(watch));
        store.seed(draw.word());
        let (armed, struck) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(Vec::new())));
        script(bug, &armed, &struck);
        let folder = tempfile::tempdir().expect("a folder");
        let (text, partitions) = configuration(seed, &mut draw);
        let config = folder.path().join("node.toml");
        std::fs::write(&config, text).expect("a configuration");
        let streams: Vec<StreamId> = partitions.keys().cloned().collect();
        let foreign = |id: &StreamId| {
            Foreign::new(Arc::<InMemory>::clone(&inner) as Arc<dyn ObjectStore>, store.clone(), &id.to_string())
        };
        Self {
            seed,
            foreign: streams.iter().map(foreign).collect(),
            clock: JumpingClock::new(),
            troubles: Troubles::new(draw.branch()),
            broker: Broker::new(Arc::clone(&truth), draw.branch()),
            junk_every: *draw.pick(&[0, 7, 7, 23]),
            polled: draw.one_in(4),
            nodes: Vec::new(),
            faults: BTreeMap::new(),
            started: 0,
            _folder: folder,
            truth,
            inner,
            store,
            streams,
            partitions,
            config,
            armed,
            struck,
            draw,
        }
    }

    pub(crate) fn note(&self, line: impl AsRef<str>) {
        self.truth.journal.note(line);
    }

    /// Counts a fault that happened.
    pub(crate) fn count(&mut self, fault: &str) {
        *self.faults.entry(fault.to_owned()).or_default() += 1;
    }

    /// Starts a node on `state`.
    pub(crate) fn start_node(&mut self, state: StateDir) {
        self.started += 1;
        let simulated = Simulated {
            truth: Arc::clone(&self.truth),
            troubles: Arc::clone(&self.troubles),
            gate: Gate::default(),
            seed: self.seed,
            junk_every: self.junk_every,
            polled: self.polled,
        };
        let parts = Parts {
            who: format!("n{}", self.started),
            truth: Arc::clone(&self.truth),
            store: self.store.clone(),
            broker: Arc::clone(&self.broker),
            clock: Arc::clone(&self.clock),
            simulated,
            config: self.config.clone(),
            state,
            seed: self.draw.word(),
        };
        self.nodes.push(SimNode::start(parts));
    }

    /// Arms a point.
    pub(crate) fn arm(&self, armed: Option<Armed>) {
        *self.armed.lock().unwrap_or_else(PoisonError::into_inner) = armed;
    }

    /// What struck since the last look.
    pub(crate) fn struck(&self) -> Vec<(String, Blow)> {
        std::mem::take(&mut *self.struck.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until `done`, looking often; false where it took longer than `patience`.
    pub(crate) async fn until(&self, patience: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = Instant::now() + patience;
        loop {
            if done(self) {
                return true;
            }
            if Instant::now() >= end {
                return false;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// No fault any more.
    pub(crate) fn calm(&mut self) {
        self.arm(None);
        self.store.heal();
        self.store.set_weather(Weather { latency_ms: 1..5, ..Weather::default() });
        self.troubles.set(super::source::Mood::default());
        self.broker.set(super::sink::Service::default());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        faults::play(None);
    }
}

/// What strikes at the armed point. A kill closes every gate at that moment; the story clears away the dead later.
fn script(bug: Option<&str>, armed: &Arc<Mutex<Option<Armed>>>, struck: &Arc<Mutex<Vec<(String, Blow)>>>) {
    let (armed, struck) = (Arc::clone(armed), Arc::clone(struck));
    let point = move |name: &str| {
        let mut slot = armed.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(armed) = slot.as_mut().filter(|armed| armed.point == name) else { return Strike::Pass };
        if armed.passes > 0 {
            armed.passes -= 1;
            return Strike::Pass;
        }
        let blow = armed.blow;
        *slot = None;
        struck.lock().unwrap_or_else(PoisonError::into_inner).push((name.to_owned(), blow));
        match blow {
            Blow::Panic => Strike::Panic,
            Blow::Fail => Strike::Fail,
            Blow::Kill => {
                super::store::KILLED.set(true);
                Strike::Pass
            }
        }
    };
    faults::play(Some(Script { bug: bug.map(str::to_owned), point: Box::new(point) }));
}

/// The node's configuration, and how many partitions each stream has.
fn configuration(seed: u64, draw: &mut Draw) -> (String, BTreeMap<StreamId, u64>) {
    let mut text = String::from(
        "[node]\nstate_dir = \"state\"\n[lake]\nurl = \"file:lake\"\nepoch = { max_age = \"1s\", max_bytes = \"64KiB\" }\n[api]\nlisten = \"127.0.0.1:0\"\n\
         [supervision]\nprobe = \"10s\"\nbackoff = { min = \"100ms\", max = \"3s\" }\n",
    );
    let mut partitions = BTreeMap::new();
    for name in &["acme/one", "acme/two", "globex/one"][..1 + draw.below(2) as usize] {
        let id: StreamId = name.parse().expect("a name");
        let count = 1 + draw.below(3);
        let adapter = name.replace('/', "_").to_uppercase();
        let raw = *draw.pick(&["keep", "off"]);
        let rate = 2 + draw.below(6);
        text.push_str(&format!(
            "[adapter.{adapter}]\nkind = \"synthetic\"\nseed = {seed}\npartitions = {count}\nrate = {rate}\nbytes = 120\nraw = \"{raw}\"\n\
             [stream.\"{name}\"]\nadapter = \"{adapter}\"\n",
        ));
        partitions.insert(id, count);
    }
    (text, partitions)
}
