//! This crate's side of the comparison: one scenario a process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use supervisors::{Failure, Root, Strategy, SupervisorSpec};

use crate::child::{Kind, Signals, crashing, idle};
use crate::ring::Ring;
use crate::scenario::{Scenario, What};

/// More restarts than any scenario makes within the window, so that none ends the supervisor. Same on the other side.
const RESTARTS_MAX: u32 = 1_000_000;
const WINDOW: Duration = Duration::from_secs(1);

/// How restarts are measured one after another. Same on the other side.
struct Pace {
    bursts: usize,
    /// Before each burst.
    pause: Duration,
    restarts: usize,
    /// Before each restart.
    rest: Duration,
}

/// One right after the other, with pauses in which OTP's period passes: its check of the intensity walks over all
/// restarts of the period.
const AT_ONCE: Pace = Pace { bursts: 3, pause: Duration::from_millis(2_100), restarts: 100, rest: Duration::ZERO };

/// Each after a rest, in which others take the processor and its caches.
const RESTED: Pace = Pace { bursts: 1, pause: Duration::ZERO, restarts: 300, rest: Duration::from_millis(2) };

/// OTP has a scheduler for each core; this is for the two-core machine that the goals are for.
const WORKER_THREADS: usize = 2;

/// The figure of one scenario.
pub(crate) fn measure(scenario: Scenario) -> Result<f64, Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKER_THREADS).enable_all().build()?;
    // On a worker like the children, as OTP's driver runs on a scheduler.
    let figure = runtime.block_on(runtime.spawn(run(scenario)))??;
    Ok(figure)
}

async fn run(scenario: Scenario) -> Result<f64, Failure> {
    let Scenario { kind, count, .. } = scenario;
    match scenario.what {
        What::Restart => restart(kind, count, AT_ONCE).await,
        What::Rested => restart(kind, count, RESTED).await,
        What::Storm => burst(Strategy::OneForOne, kind, count).await,
        What::Group => burst(Strategy::OneForAll, kind, count).await,
        What::StartStop => start_stop(kind, count).await,
        What::Idle => bytes(kind, count).await,
    }
}

async fn start(spec: SupervisorSpec) -> Result<Root, Failure> {
    Root::start("root", spec.intensity(RESTARTS_MAX, WINDOW), Arc::new(Ring::default()), 1).await
}

async fn crashable(strategy: Strategy, kind: Kind, count: usize, signals: &Arc<Signals>) -> Result<Root, Failure> {
    let children = (0..count).map(|number| crashing(kind, number, signals)).collect();
    start(SupervisorSpec { children, ..SupervisorSpec::new(strategy) }).await
}

/// Median microseconds from one child's crash to its successor's first step.
async fn restart(kind: Kind, siblings: usize, pace: Pace) -> Result<f64, Failure> {
    let signals = Signals::new(siblings + 1, siblings + 1);
    let root = crashable(Strategy::OneForOne, kind, siblings + 1, &signals).await?;
    signals.all_up().await;
    let mut times = Vec::with_capacity(pace.bursts * pace.restarts);
    for _ in 0..pace.bursts {
        tokio::time::sleep(pace.pause).await;
        for _ in 0..pace.restarts {
            if !pace.rest.is_zero() {
                tokio::time::sleep(pace.rest).await;
            }
            times.push(signals.crash_and_measure(kind).await);
        }
    }
    root.stop().await;
    times.sort();
    Ok(times[times.len() / 2].as_secs_f64() * 1e6)
}

/// Seconds from the crash (of all at once, or of one whose group is restarted) until all run again.
async fn burst(strategy: Strategy, kind: Kind, count: usize) -> Result<f64, Failure> {
    let signals = Signals::new(count, 2 * count);
    let root = crashable(strategy, kind, count, &signals).await?;
    let start = Instant::now();
    match strategy {
        Strategy::OneForOne => signals.crash_all(kind),
        Strategy::OneForAll | Strategy::RestForOne => signals.crash_first(kind),
    }
    signals.all_up().await;
    let took = start.elapsed();
    root.stop().await;
    Ok(took.as_secs_f64())
}

async fn dynamic(kind: Kind, count: usize) -> Result<Root, Failure> {
    let root = start(SupervisorSpec::dynamic()).await?;
    let handle = root.handle();
    for number in 0..count {
        let started = handle.start_child(idle(kind, number)).await;
        started.map_err(|error| Failure::new(supervisors::Class::Bug, "not_started", error.to_string()))?;
    }
    Ok(root)
}

async fn start_stop(kind: Kind, count: usize) -> Result<f64, Failure> {
    let start = Instant::now();
    dynamic(kind, count).await?.stop().await;
    Ok(start.elapsed().as_secs_f64())
}

/// Resident bytes a child: the process's, before and after.
async fn bytes(kind: Kind, count: usize) -> Result<f64, Failure> {
    let before = resident_bytes();
    let root = dynamic(kind, count).await?;
    let bytes = (resident_bytes() - before) / count as f64;
    root.stop().await;
    Ok(bytes)
}

fn resident_bytes() -> f64 {
    const PAGE: f64 = 4096.0;
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|pages| pages.parse::<f64>().ok()).unwrap_or(0.0) * PAGE
}
