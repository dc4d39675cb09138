//! The composition root: the only file that names concrete adapters, stores, sinks and the clock together.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use adapters::contract::config::{Problem, ProcessSecrets, SecretSource};
use adapters::contract::{Clock, Credits, Kind, SystemClock, SystemResolve};
use object_store::ObjectStore;
use supervisors::{
    Backoff, ChildSpec, Class, Event, Failure, KILL_GRACE, Observer, Pacing, RestartPolicy, Root, RootEnd, RootOptions,
    Shutdown, Started, StopOutcome, StopReport, StoppedChild, Strategy, SupervisorSpec,
};
use thiserror::Error;
use tokio::time::Instant;

use crate::announce::{Feed, Sink};
use crate::checkpoint::{Cache, SledKeep};
use crate::cli::problem_json;
use crate::control::http;
use crate::lake::{Lake, LakeError};
use crate::run::chain;
use crate::settings::{self, ApiSettings, Settings};
use crate::streams::{Directory, DirectoryHandle, Node, Turns, observe};
use crate::telemetry::events::Events;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::restarts::RestartLog;
use crate::telemetry::secrets::{Learning, Scrubber};
use crate::{maintenance, telemetry};

/// The root's own limit. Below it every level parks what it cannot keep up, so reaching it means that the parts of the
/// node itself (the API, the recovery of the desired states) fail again and again: the node's supervisor decides then.
const ROOT_RESTARTS_MAX: u32 = 5;
const ROOT_WINDOW: Duration = Duration::from_secs(30);

/// Tries of the API that fail in a row, with what is between them (200 ms, doubling to 10 s): a port that somebody else
/// holds, the process before this one for example, which may drain for half a minute, is waited for for about a minute.
const API_RESTARTS_MAX: u32 = 10;
const API_BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Above what that takes (53 s and some jitter), so that the window sees all of it.
const API_WINDOW: Duration = Duration::from_secs(120);

/// `control` is started anew once: its limit was a minute of patience, and a node that cannot be reached is of no use
/// to whoever has to help it. Its lives are told apart by this much time, which is longer than ten lives of an API that
/// each come near to being forgotten (2 min).
const CONTROL_RESTARTS_MAX: u32 = 1;
const CONTROL_RESET_AFTER: Duration = Duration::from_secs(1800);

/// Restarts of the whole tree. When something fails that all share, up to 10,000 workers crash at once; each restart
/// opens a source, which costs the node about 1 ms and the source a connection. At this pace all are up again in 20 s, within the
/// 30 s that are promised after a fault, and no source is asked by more than a burst at once.
const STORM_PACE: Pacing = Pacing { burst: 500, per_second: 500.0 };

/// Children that did not stop as they should and are named in the log; the number of all is told.
const UNCLEAN_SHOWN: usize = 20;

/// Idle connections end at once; a request under way may finish.
const API_STOP: Duration = Duration::from_secs(3);

/// Why a node did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error("the configuration has {} problem(s)", .0.len())]
    Settings(Vec<Problem>),
    /// The lake cannot be opened.
    #[error("the lake cannot be opened")]
    Lake(#[from] LakeError),
    /// The state directory cannot be used.
    #[error("the state directory {} cannot be used", path.display())]
    State {
        /// `node.state_dir`.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The metrics recorder is taken.
    #[error("telemetry cannot be set up")]
    Telemetry(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The tree did not come up.
    #[error("the supervision tree did not start: {} {}", .0.reason.code, .0.reason.message)]
    Tree(Failure),
}

/// The kinds of adapters that this build knows.
#[must_use]
pub fn kinds() -> Vec<Arc<dyn Kind>> {
    let budgets = Arc::new(adapters::http::Budgets::default());
    vec![
        Arc::new(adapters::http_poll::HttpPoll::new(Arc::clone(&budgets))),
        Arc::new(adapters::iqair::Iqair::new(budgets)),
        Arc::new(adapters::synthetic::Synthetic::default()),
    ]
}

/// A running node.
#[derive(Debug)]
pub struct App {
    /// Its streams.
    pub directory: Arc<Directory>,
    /// Its restart log.
    pub restarts: Arc<RestartLog>,
    /// Where its API listens.
    pub address: SocketAddr,
    root: Root,
    node: Arc<Node>,
    drain: Duration,
}

/// What a node is made of besides its settings, so that the demo and the benchmarks can put their own in.
pub struct Parts {
    /// The kinds of adapters.
    pub kinds: Vec<Arc<dyn Kind>>,
    /// Where secret references lead.
    pub secrets: Arc<dyn SecretSource>,
    /// Knows the secrets that were read through `secrets`.
    pub scrubber: Arc<Scrubber>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Seeds what is random.
    pub seed: u64,
    /// Collects how late polls start, for the benchmark.
    pub start_lags: Option<Arc<std::sync::Mutex<Vec<Duration>>>>,
    /// Put around the lake's store, for the benchmark with a slow lake.
    pub store_layer: Option<StoreLayer>,
}

/// Puts something around a store.
pub type StoreLayer = Box<dyn FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> + Send>;

impl Parts {
    /// The machine's own.
    #[must_use]
    pub fn process() -> Self {
        let scrubber = Arc::new(Scrubber::default());
        Self {
            kinds: kinds(),
            secrets: Arc::new(Learning::new(Arc::new(ProcessSecrets), Arc::clone(&scrubber))),
            scrubber,
            clock: Arc::new(SystemClock),
            seed: rand::random(),
            start_lags: None,
            store_layer: None,
        }
    }
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("kinds", &self.kinds).finish_non_exhaustive()
    }
}

/// Writes the tree's events to the restart log, the metrics and the streams' views.
struct TreeObserver {
    recorder: Arc<telemetry::tree::Recorder>,
    directory: OnceLock<Arc<Directory>>,
}

impl Observer for TreeObserver {
    fn record(&self, event: Event) {
        let event = self.recorder.record(event);
        if let Some(directory) = self.directory.get() {
            observe(directory, &event);
        }
    }

    fn next_incarnation(&self, path: &supervisors::ChildPath) -> u64 {
        self.recorder.restarts.next_incarnation(path.as_str())
    }
}

impl App {
    /// Starts a node. When it returns the API answers; the streams come up behind it.
    ///
    /// # Errors
    /// See [`StartError`]; nothing runs then.
    pub async fn start(settings: Settings, parts: Parts) -> Result<Self, StartError> {
        supervisors::capture_panics();
        let metrics = Metrics::install().map_err(|e| StartError::Telemetry(Box::new(e)))?;
        let state = settings.node.state_dir.clone();
        let unusable =
            |e: Box<dyn std::error::Error + Send + Sync>| StartError::State { path: state.clone(), source: e };
        std::fs::create_dir_all(&state).map_err(|e| unusable(Box::new(e)))?;
        let restarts = RestartLog::open(&state, Arc::clone(&parts.clock)).map_err(|e| unusable(Box::new(e)))?;
        let restarts = Arc::new(restarts);
        let (cache, _) = Cache::open(&state.join("cache"), parts.clock.now_us());
        let layer = parts.store_layer.unwrap_or_else(|| Box::new(|store| store));
        let lake = Lake::open_through(&settings.lake, Arc::clone(&parts.clock), Arc::clone(&parts.secrets), layer)?;
        let feed = Arc::new(Feed::load(cache.clone(), format!("{:016x}", parts.seed)).await);
        let sink: Arc<dyn Sink> = Arc::<Feed>::clone(&feed);
        let node = Arc::new(Node {
            lake,
            feed,
            sinks: vec![sink],
            events: Arc::new(Events::new(Arc::clone(&parts.clock))),
            keep: Arc::new(SledKeep::load(cache.clone()).await),
            cache,
            clock: Arc::clone(&parts.clock),
            resolve: Arc::new(SystemResolve),
            credits: Credits::node(settings.node.queue_bytes),
            epoch: settings.lake.epoch,
            seed: parts.seed,
            scrubber: Arc::clone(&parts.scrubber),
            turns: Turns::default(),
            start_lags: parts.start_lags.clone(),
        });
        let drain = settings.node.drain;
        let api = settings.api.clone();
        let settings = Arc::new(settings);
        let directory = Directory::new(Arc::clone(&node), settings, parts.kinds.clone(), Arc::clone(&parts.secrets));
        let deps = http::Deps {
            streams: Arc::new(DirectoryHandle(Arc::clone(&directory))),
            restarts: Arc::clone(&restarts),
            metrics,
            validate: validator(parts.kinds, parts.secrets),
            clock: Arc::clone(&parts.clock),
        };
        let recorder = telemetry::tree::Recorder::new(Arc::clone(&restarts), Arc::clone(&parts.scrubber));
        let recorder = Arc::new(recorder);
        let observer = Arc::new(TreeObserver { recorder: Arc::clone(&recorder), directory: OnceLock::new() });
        let _ = observer.directory.set(Arc::clone(&directory));
        let bound = Arc::new(OnceLock::new());
        let spec = tree(&directory, api.clone(), deps, recorder, Arc::clone(&bound));
        let options = RootOptions { seed: parts.seed, pacing: Some(STORM_PACE) };
        let root = Root::start_with("lakefeed", spec, observer, options).await.map_err(StartError::Tree)?;
        directory.attach(root.handle());
        let address = bound.get().copied().unwrap_or(api.listen);
        Ok(Self { directory, restarts, address, root, node, drain })
    }

    /// Completes when the tree has ended by itself.
    pub async fn ended(&self) -> RootEnd {
        self.root.ended().await
    }

    /// Drains in order within `node.drain`: workers, committers, announcers, then the tree from the last child to the
    /// first. False where the time was not enough; what was not committed is asked for again at the next start.
    pub async fn stop(&self) -> bool {
        let deadline = Instant::now() + self.drain;
        let quiesced = tokio::time::timeout_at(deadline, self.directory.quiesce()).await.is_ok();
        let report = self.root.stop_within(deadline.saturating_duration_since(Instant::now())).await;
        let flushed = tokio::time::timeout(KILL_GRACE, self.node.cache.flush()).await.is_ok();
        quiesced && flushed && tell(&report)
    }

    /// Applies a changed configuration.
    pub async fn reload(&self, settings: Settings) {
        self.directory.reload(Arc::new(settings)).await;
    }
}

/// Logs how a stop went; false where something had to be killed or was left behind.
fn tell(report: &StopReport) -> bool {
    let forced = |child: &&StoppedChild| matches!(child.stop.outcome, StopOutcome::Killed | StopOutcome::Abandoned);
    let unclean: Vec<_> = report.children.iter().filter(|child| child.stop.outcome != StopOutcome::Clean).collect();
    for child in unclean.iter().take(UNCLEAN_SHOWN) {
        let took_ms = u64::try_from(child.stop.took.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(path = %child.path, outcome = child.stop.outcome.as_str(), took_ms, "did not stop as it should");
    }
    let took_ms = u64::try_from(report.took.as_millis()).unwrap_or(u64::MAX);
    let children = report.children.len() + report.unlisted;
    tracing::info!(took_ms, children, unclean = unclean.len(), abandoned = report.abandoned.len(), "stopped");
    report.children.iter().filter(forced).count() == 0
}

/// The API as a child. It comes back on the address that it first got, also where the port was left open.
fn api(settings: ApiSettings, deps: http::Deps, bound: Arc<OnceLock<SocketAddr>>) -> ChildSpec {
    ChildSpec::start("api", move |ctx| {
        let (mut settings, deps, bound) = (settings.clone(), deps.clone(), Arc::clone(&bound));
        async move {
            settings.listen = bound.get().copied().unwrap_or(settings.listen);
            let stop = async move { ctx.stop.stopped().await };
            let failed = |e: http::ServeError| Failure::new(Class::Resource, "api_not_listening", chain(&e));
            let (address, serving) = http::serve(&settings, deps, stop).await.map_err(failed)?;
            let _ = bound.set(address);
            Ok(Started::task(
                async move { serving.await.map_err(|e| Failure::new(Class::Bug, "api_ended", e.to_string())) },
            ))
        }
    })
    .shutdown(Shutdown::Timeout(API_STOP))
}

/// The top of the tree. Control comes first, so that a node that still recovers, or waits for its lake, can be looked
/// at; it is stopped last.
fn tree(
    directory: &Arc<Directory>,
    settings: ApiSettings,
    deps: http::Deps,
    recorder: Arc<telemetry::tree::Recorder>,
    bound: Arc<OnceLock<SocketAddr>>,
) -> SupervisorSpec {
    let metrics = deps.metrics.clone();
    SupervisorSpec::new(Strategy::OneForOne)
        .intensity(ROOT_RESTARTS_MAX, ROOT_WINDOW)
        .child(control(api(settings, deps, bound)))
        .child(maintenance::supervisor(Arc::clone(directory), metrics, recorder))
        .child(directory.tenants())
}

/// What keeps the node reachable, with growing pauses between the tries.
fn control(api: ChildSpec) -> ChildSpec {
    let patient = RestartPolicy {
        backoff: Some(Backoff { max: API_BACKOFF_MAX, ..Backoff::default() }),
        consecutive_max: Some(API_RESTARTS_MAX),
        ..RestartPolicy::default()
    };
    let again = RestartPolicy {
        backoff: Some(Backoff { reset_after: CONTROL_RESET_AFTER, ..Backoff::default() }),
        consecutive_max: Some(CONTROL_RESTARTS_MAX),
        ..RestartPolicy::default()
    };
    let control = ChildSpec::supervisor("control", move |_| {
        let (api, patient) = (api.clone(), patient.clone());
        async move {
            let spec = SupervisorSpec::new(Strategy::OneForOne).intensity(API_RESTARTS_MAX, API_WINDOW);
            Ok(spec.policy(patient).child(api))
        }
    });
    control.policy(again)
}

/// What `POST /v1/validate` asks.
fn validator(kinds: Vec<Arc<dyn Kind>>, secrets: Arc<dyn SecretSource>) -> http::Validate {
    Arc::new(move |text: &str| {
        let problems = settings::check_text(text, &kinds, secrets.as_ref());
        problems.iter().map(problem_json).collect()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};

    use supervisors::{ChildPath, EventKind};

    use super::*;

    /// The events of a tree with nothing but control in it.
    #[derive(Default)]
    struct Told(Mutex<Vec<Event>>);

    impl Observer for Told {
        fn record(&self, event: Event) {
            self.0.lock().unwrap().push(event);
        }

        fn next_incarnation(&self, _: &ChildPath) -> u64 {
            1
        }
    }

    /// The pauses of an API whose tries after the first are `again`, until the node gives up.
    async fn pauses(again: fn() -> Result<Started, Failure>) -> Vec<Duration> {
        let tries = Arc::new(AtomicU32::new(0));
        let api = ChildSpec::start("api", move |_| {
            let first = tries.fetch_add(1, Ordering::SeqCst) == 0;
            async move { if first { Ok(dying()) } else { again() } }
        });
        let told = Arc::new(Told::default());
        let spec = SupervisorSpec::new(Strategy::OneForOne).intensity(ROOT_RESTARTS_MAX, ROOT_WINDOW);
        let observer: Arc<dyn Observer> = Arc::<Told>::clone(&told);
        let root = Root::start("lakefeed", spec.child(control(api)), observer, 7).await.unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(86_400), root.ended()).await;
        assert!(matches!(ended.expect("it gives up"), RootEnd::GaveUp { .. }));
        let events = told.0.lock().unwrap();
        let api = events.iter().filter(|e| e.kind == EventKind::Restarting && e.path.as_str().ends_with("/api"));
        api.map(|event| event.delay.unwrap()).collect()
    }

    fn dying() -> Started {
        Started::task(async { Err(Failure::new(Class::Bug, "api_ended", "over")) })
    }

    #[tokio::test(start_paused = true)]
    async fn test_control_tries_an_api_that_cannot_listen_with_growing_pauses_for_a_minute_and_gives_up() {
        let pauses = pauses(|| Err(Failure::new(Class::Resource, "api_not_listening", "in use"))).await;
        assert_eq!(pauses.len(), API_RESTARTS_MAX as usize, "{pauses:?}");
        assert!(pauses[0] < Duration::from_millis(300) && pauses[6] >= Duration::from_secs(8), "{pauses:?}");
        assert!(pauses[..6].windows(2).all(|two| two[0] < two[1]), "{pauses:?}");
        let all: Duration = pauses.iter().sum();
        assert!((40..70).contains(&all.as_secs()), "{all:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn test_control_gives_up_on_an_api_that_comes_up_and_dies_for_ever() {
        assert_eq!(pauses(|| Ok(dying())).await.len(), 2 * API_RESTARTS_MAX as usize);
    }
}
