//! A node: the real tree over doubles of everything around it, that can be killed at any moment.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use adapters::contract::config::MapSecrets;
use adapters::contract::{Clock, Credits, Kind, MemoryKeep, SystemResolve};
use serde_json::Value;
use supervisors::{ChildPath, Event, Observer, Root, Strategy, SupervisorSpec};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::sink::{Broker, Connection};
use super::source::Simulated;
use super::store::{FailingStore, Gate};
use super::truth::Truth;
use crate::announce::{Feed, Sink};
use crate::checkpoint::{Cache, Change, Disk, Entry, Trees, unseal};
use crate::lake::Lake;
use crate::settings;
use crate::streams::{Directory, Node, Turns, observe};
use crate::telemetry::events::Events;

/// 2024-05-01T12:00:00Z.
const NOON_US: i64 = 1_714_564_800_000_000;
/// As the composition root has it.
const ROOT_RESTARTS_MAX: u32 = 5;
const ROOT_WINDOW: Duration = Duration::from_secs(30);

/// A wall clock that goes with virtual time and jumps when told to.
#[derive(Debug)]
pub(crate) struct JumpingClock {
    began: Instant,
    offset_us: AtomicI64,
}

impl JumpingClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { began: Instant::now(), offset_us: AtomicI64::new(0) })
    }

    pub(crate) fn jump(&self, us: i64) {
        self.offset_us.fetch_add(us, Ordering::SeqCst);
    }
}

impl Clock for JumpingClock {
    fn now_us(&self) -> i64 {
        let elapsed = i64::try_from(self.began.elapsed().as_micros()).unwrap_or(i64::MAX);
        NOON_US + elapsed + self.offset_us.load(Ordering::SeqCst)
    }
}

/// What outlives a node: its state directory.
#[derive(Clone, Default)]
pub(crate) struct StateDir {
    pub(crate) disk: Arc<Disk>,
    pub(crate) incarnations: Arc<Mutex<BTreeMap<String, u64>>>,
}

/// The disk as long as the node lives. What it writes must be so.
struct LivingDisk {
    disk: Arc<Disk>,
    gate: Gate,
    truth: Arc<Truth>,
}

impl Trees for LivingDisk {
    fn get(&self, tree: &str, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        self.disk.get(tree, key)
    }

    fn scan(&self, tree: &str, prefix: &[u8]) -> Result<Vec<Result<Entry, String>>, String> {
        self.disk.scan(tree, prefix)
    }

    fn apply(&self, tree: &str, changes: Vec<Change>) -> Result<(), String> {
        if self.gate.is_closed() {
            return Ok(());
        }
        for (key, sealed) in &changes {
            let value = sealed.as_ref().filter(|_| tree == "positions" && !key.contains(&0));
            let meta = value.and_then(|sealed| unseal(key, sealed)).map(serde_json::from_slice::<Value>);
            if let Some(Ok(meta)) = meta {
                self.truth.cached(&String::from_utf8_lossy(key), meta["epoch"].as_u64().unwrap_or(u64::MAX));
            }
        }
        self.disk.apply(tree, changes)
    }

    fn flush(&self) -> Result<(), String> {
        if self.gate.is_closed() { Ok(()) } else { self.disk.flush() }
    }
}

/// Writes the tree's events down as long as the node lives.
struct Observed {
    who: String,
    gate: Gate,
    truth: Arc<Truth>,
    directory: OnceLock<Arc<Directory>>,
    incarnations: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl Observer for Observed {
    fn record(&self, event: Event) {
        if self.gate.is_closed() {
            return;
        }
        self.truth.happened(&self.who, &event);
        if let Some(directory) = self.directory.get() {
            observe(directory, &event);
        }
    }

    fn next_incarnation(&self, path: &ChildPath) -> u64 {
        let mut incarnations = self.incarnations.lock().unwrap_or_else(PoisonError::into_inner);
        let incarnation = incarnations.entry(path.as_str().to_owned()).or_default();
        *incarnation += 1;
        *incarnation
    }
}

/// What a node is made of.
pub(crate) struct Parts {
    pub(crate) who: String,
    pub(crate) truth: Arc<Truth>,
    pub(crate) store: FailingStore,
    pub(crate) broker: Arc<Broker>,
    pub(crate) clock: Arc<JumpingClock>,
    pub(crate) simulated: Simulated,
    pub(crate) config: std::path::PathBuf,
    pub(crate) state: StateDir,
    pub(crate) seed: u64,
}

/// A tree that is up.
#[derive(Clone)]
pub(crate) struct Up {
    pub(crate) root: Root,
    pub(crate) directory: Arc<Directory>,
}

/// A node from its start to its death.
pub(crate) struct SimNode {
    pub(crate) who: String,
    pub(crate) gate: Gate,
    pub(crate) state: StateDir,
    up: Arc<OnceLock<Up>>,
    starting: JoinHandle<bool>,
}

impl SimNode {
    /// Begins to start a node. It is up some time later, or it has failed to.
    pub(crate) fn start(parts: Parts) -> Self {
        let (who, state, gate) = (parts.who.clone(), parts.state.clone(), parts.simulated.gate.clone());
        let up = Arc::new(OnceLock::new());
        let tell = Arc::clone(&up);
        parts.truth.journal.note(format!("{who} starts"));
        let starting = tokio::spawn(async move {
            let truth = Arc::clone(&parts.truth);
            match bring_up(parts).await {
                Ok(started) => tell.set(started).is_ok(),
                Err(why) => {
                    truth.journal.note(format!("did not start: {why}"));
                    false
                }
            }
        });
        Self { who, gate, state, up, starting }
    }

    /// The tree, once it is up.
    pub(crate) fn up(&self) -> Option<Up> {
        self.up.get().cloned()
    }

    /// Whether its start has failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.starting.is_finished() && self.up.get().is_none()
    }

    /// Kills it. What it had sent is on its way; what it has not sent will never be.
    pub(crate) fn kill(&self) {
        self.gate.close();
        self.starting.abort();
        if let Some(up) = self.up() {
            // Its remains are cleared away; nothing outside hears of it.
            tokio::spawn(async move { up.root.stop().await });
        }
    }
}

async fn bring_up(parts: Parts) -> Result<Up, String> {
    let gate = parts.simulated.gate.clone();
    let kinds: Vec<Arc<dyn Kind>> = vec![Arc::new(parts.simulated.clone())];
    let secrets = Arc::new(MapSecrets::default());
    let (settings, _) = load(&parts.config, &kinds, &secrets)?;
    let clock: Arc<dyn Clock> = Arc::<JumpingClock>::clone(&parts.clock);
    let disk = LivingDisk { disk: Arc::clone(&parts.state.disk), gate: gate.clone(), truth: Arc::clone(&parts.truth) };
    let cache = Cache::in_place(Arc::new(disk));
    let feed = Arc::new(Feed::load(cache.clone(), format!("{:016x}", parts.seed)).await);
    let store = Arc::new(parts.store.for_node(&parts.who, &gate));
    let broker = Connection { broker: parts.broker, gate: gate.clone() };
    let node = Arc::new(Node {
        lake: Lake::with_seed(store, "memory:", Arc::clone(&clock), u128::from(parts.seed)),
        sinks: vec![Arc::<Feed>::clone(&feed) as Arc<dyn Sink>, Arc::new(broker)],
        feed,
        events: Arc::new(Events::new(Arc::clone(&clock))),
        keep: Arc::new(MemoryKeep::default()),
        cache,
        clock,
        resolve: Arc::new(SystemResolve),
        credits: Credits::node(settings.node.queue_bytes),
        epoch: settings.lake.epoch,
        seed: parts.seed,
        scrubber: Arc::default(),
        turns: Turns::default(),
        start_lags: None,
    });
    let directory = Directory::new(node, Arc::new(settings), kinds, secrets);
    let observed = Observed {
        who: parts.who,
        gate,
        truth: parts.truth,
        directory: OnceLock::new(),
        incarnations: parts.state.incarnations,
    };
    let _ = observed.directory.set(Arc::clone(&directory));
    let spec =
        SupervisorSpec::new(Strategy::OneForOne).intensity(ROOT_RESTARTS_MAX, ROOT_WINDOW).child(directory.tenants());
    let root = Root::start("lakefeed", spec, Arc::new(observed), parts.seed).await;
    let root = root.map_err(|failure| failure.to_string())?;
    directory.attach(root.handle());
    Ok(Up { root, directory })
}

fn load(
    config: &Path,
    kinds: &[Arc<dyn Kind>],
    secrets: &MapSecrets,
) -> Result<(settings::Settings, Vec<adapters::contract::config::Problem>), String> {
    settings::load(config, kinds, secrets).map_err(|problems| format!("{problems:?}"))
}
