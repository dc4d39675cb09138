//! A store that fails where it is told to, or as a seed has it.
//!
//! ```text
//! request ──there──▶ store (applied, refused, overtaken) ──back──▶ answer (or none)
//! ```
//!
//! With latency a put travels by itself: whoever asked for it may die or give up meanwhile, it arrives all the same.

mod fault;
mod plan;
mod tests;
mod through;

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error, ObjectStore, PutMode, PutOptions, PutPayload, PutResult, Result};
use tokio::time::{Instant, sleep};

pub(crate) use fault::{Answer, Fault, Kind};
pub(crate) use plan::{Fail, Weather};
use plan::{Fate, Plan};

use super::draw::Draw;

/// A stale listing lacks what came within this time.
const STALE_FOR: Duration = Duration::from_secs(5);
/// Objects that a stale listing may lack.
const NEWEST_MAX: usize = 4096;

thread_local! {
    /// Every node of this thread has died and nobody has looked yet.
    pub(crate) static KILLED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a node is alive: a dead one asks for nothing and hears of nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gate(Arc<AtomicBool>);

impl Gate {
    pub(crate) fn close(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_closed(&self) -> bool {
        KILLED.get() || self.0.load(Ordering::SeqCst)
    }

    /// Never comes back for a dead node.
    pub(crate) async fn pass(&self) {
        if self.is_closed() {
            std::future::pending::<()>().await;
        }
    }
}

/// Is told of every object that was really put or removed (`None`), and of every request: who, what, how it went.
pub(crate) trait Watch: Send + Sync {
    fn changed(&self, path: &str, bytes: Option<&Bytes>);
    fn asked(&self, who: &str, operation: &str, path: &str, went: &str);
}

struct Shared {
    inner: Arc<dyn ObjectStore>,
    plan: Mutex<Plan>,
    newest: Mutex<VecDeque<(Instant, String)>>,
    watch: Option<Arc<dyn Watch>>,
}

/// A decorator.
#[derive(Clone)]
pub(crate) struct FailingStore {
    shared: Arc<Shared>,
    who: String,
    gate: Gate,
}

impl fmt::Debug for FailingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FailingStore")
    }
}

impl fmt::Display for FailingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FailingStore")
    }
}

impl FailingStore {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self::watched(inner, None)
    }

    pub(crate) fn watched(inner: Arc<dyn ObjectStore>, watch: Option<Arc<dyn Watch>>) -> Self {
        let shared = Shared { inner, plan: Mutex::default(), newest: Mutex::default(), watch };
        Self { shared: Arc::new(shared), who: String::new(), gate: Gate::default() }
    }

    /// The same store as a node sees it that lives as long as `gate` is open.
    pub(crate) fn for_node(&self, who: &str, gate: &Gate) -> Self {
        Self { shared: Arc::clone(&self.shared), who: who.to_owned(), gate: gate.clone() }
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.shared.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn arm(&self, fault: Fail) {
        self.plan().faults.push(fault);
    }

    /// From now on everything random is drawn from `seed`.
    pub(crate) fn seed(&self, seed: u64) {
        self.plan().draw = Some(Draw::new(seed));
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        self.plan().weather = weather;
    }

    /// No fault any more.
    pub(crate) fn heal(&self) {
        let mut plan = self.plan();
        plan.faults.clear();
        plan.weather = Weather { latency_ms: plan.weather.latency_ms.clone(), ..Weather::default() };
    }

    /// How many faults came.
    pub(crate) fn fired(&self) -> u32 {
        self.plan().fired.values().sum()
    }

    /// How many faults came, by their names.
    pub(crate) fn fired_by_name(&self) -> BTreeMap<&'static str, u32> {
        self.plan().fired.clone()
    }

    /// Operations so far, `put path`.
    pub(crate) fn log(&self) -> Vec<String> {
        self.plan().log.clone()
    }

    /// Puts an object past all faults, as somebody else would.
    pub(crate) async fn put_directly(&self, path: &str, bytes: Bytes) -> bool {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        self.shared.put(&Path::from(path), bytes.into(), options).await.is_ok()
    }

    fn tell(&self, operation: &str, path: &str, went: &str) {
        if let Some(watch) = &self.shared.watch
            && !self.gate.is_closed()
        {
            watch.asked(&self.who, operation, path, went);
        }
    }

    /// The way there, and what the plan has for the request.
    async fn travel(&self, operation: &'static str, path: &str) -> Fate {
        self.gate.pass().await;
        let fate = self.plan().ask(operation, path);
        rest(fate.there).await;
        fate
    }

    /// The way back: the answer, or what the fault makes of it.
    async fn back<T>(&self, operation: &str, path: &str, fate: Fate, result: Result<T>) -> Result<T> {
        let result = match fate.fault {
            Some(Fault::SilentDone) => {
                self.tell(operation, path, "silent_done");
                std::future::pending().await
            }
            Some(Fault::After(answer)) => Err(answer.error(path)),
            _ => result,
        };
        rest(fate.back).await;
        self.gate.pass().await;
        let went = match (&result, fate.fault) {
            (_, Some(fault)) => fault.name(),
            (Ok(_), None) => "ok",
            (Err(Error::NotFound { .. }), None) => "none",
            (Err(Error::AlreadyExists { .. }), None) => "exists",
            (Err(_), None) => "error",
        };
        self.tell(operation, path, went);
        result
    }

    /// What keeps a request from being done at all.
    async fn refused(&self, operation: &str, path: &str, fate: Fate) -> Result<()> {
        match fate.fault {
            Some(Fault::Before(answer)) => {
                self.gate.pass().await;
                self.tell(operation, path, Fault::Before(answer).name());
                Err(answer.error(path))
            }
            Some(Fault::Silent) => {
                self.tell(operation, path, "silent");
                std::future::pending().await
            }
            _ => Ok(()),
        }
    }
}

async fn rest(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

impl Shared {
    fn changed(&self, path: &str, bytes: Option<&Bytes>) {
        if let Some(watch) = &self.watch {
            watch.changed(path, bytes);
        }
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes.is_some() {
            newest.push_back((Instant::now(), path.to_owned()));
        }
        if newest.len() > NEWEST_MAX {
            newest.pop_front();
        }
    }

    /// Whether a stale listing lacks `path`.
    fn is_new(&self, path: &Path) -> bool {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.iter().rev().take_while(|(at, _)| at.elapsed() < STALE_FOR).any(|(_, new)| new == path.as_ref())
    }

    async fn put(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let bytes = self.watch.is_some().then(|| Bytes::from(payload.clone()));
        let result = self.inner.put_opts(path, payload, options).await;
        if result.is_ok() {
            self.changed(path.as_ref(), Some(&bytes.unwrap_or_default()));
        }
        result
    }

    /// An entry by somebody else, who has nothing to do with streams.
    async fn overtake(&self, path: &Path) {
        let entry = format!("{{\"commitInfo\":{{\"operation\":\"SET TBLPROPERTIES\",\"by\":\"{path}\"}}}}\n");
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let _ = self.put(path, entry.into(), options).await;
    }
}
