//! How long restarts take and how much a child weighs: `cargo run --release -p supervisors --example speed`.
//!
//! Prints one JSON object: `restart_us` (one crash until the child runs again, median), the same among 10,000 siblings,
//! `storm_10000_s` (10,000 children crash at once until all run), `start_stop_100000_s` (start and stop of 100,000
//! dynamic children), `group_1000_s` (a one_for_all restart of 1,000), `idle_bytes` (resident bytes of an idle child, its future included).
#![allow(clippy::print_stdout, reason = "the figures")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use supervisors::{
    ChildContext, ChildPath, ChildSpec, Class, Event, EventKind, Failure, Observer, Root, Strategy, SupervisorSpec,
};
use tokio::sync::{Notify, watch};

/// Counts what runs, as a restart log would.
#[derive(Default)]
struct Counter {
    up: AtomicUsize,
    lives: AtomicU64,
    changed: Notify,
}

impl Observer for Counter {
    fn record(&self, event: Event) {
        if matches!(event.kind, EventKind::Started | EventKind::Restarted) {
            self.up.fetch_add(1, Ordering::SeqCst);
            self.changed.notify_one();
        }
    }

    fn next_incarnation(&self, _: &ChildPath) -> u64 {
        self.lives.fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl Counter {
    async fn reaches(&self, count: usize) {
        while self.up.load(Ordering::SeqCst) < count {
            self.changed.notified().await;
        }
    }
}

/// What makes children crash.
#[derive(Clone)]
struct Trigger {
    all: watch::Sender<()>,
    one: Arc<Notify>,
}

/// `all` was subscribed to before the child counted as started, so that it misses nothing.
async fn child(ctx: ChildContext, mut all: watch::Receiver<()>, one: Arc<Notify>) -> Result<(), Failure> {
    let special = ctx.path.as_str() == "root/0";
    let crash = || Err(Failure::new(Class::Transient, "crash", "as asked"));
    tokio::select! {
        () = ctx.stop.stopped() => Ok(()),
        Ok(()) = all.changed() => crash(),
        () = one.notified(), if special => crash(),
    }
}

struct Rig {
    root: Root,
    counter: Arc<Counter>,
    trigger: Trigger,
}

async fn rig(mut spec: SupervisorSpec, children: usize) -> Result<Rig, Failure> {
    let (counter, trigger) =
        (Arc::new(Counter::default()), Trigger { all: watch::Sender::new(()), one: Arc::default() });
    for number in 0..children {
        let trigger = trigger.clone();
        spec = spec.child(ChildSpec::task(number.to_string(), move |ctx| {
            child(ctx, trigger.all.subscribe(), Arc::clone(&trigger.one))
        }));
    }
    let spec = spec.intensity(u32::MAX, Duration::from_millis(1));
    let root = Root::start("root", spec, Arc::<Counter>::clone(&counter), 1).await?;
    counter.reaches(children + 1).await;
    Ok(Rig { root, counter, trigger })
}

/// Median microseconds from a crash until the child runs again.
async fn restart(siblings: usize) -> Result<f64, Failure> {
    const ROUNDS: usize = 2_000;
    let rig = rig(SupervisorSpec::default(), siblings + 1).await?;
    let mut times = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS {
        let start = Instant::now();
        rig.trigger.one.notify_one();
        rig.counter.reaches(siblings + 3 + round).await;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    rig.root.stop().await;
    times.sort_by(f64::total_cmp);
    Ok(times[ROUNDS / 2])
}

async fn storm(count: usize, strategy: Strategy) -> Result<f64, Failure> {
    let rig = rig(SupervisorSpec::new(strategy), count).await?;
    let start = Instant::now();
    match strategy {
        Strategy::OneForOne => {
            rig.trigger.all.send_replace(());
        }
        Strategy::OneForAll | Strategy::RestForOne => rig.trigger.one.notify_one(),
    }
    rig.counter.reaches(2 * count + 1).await;
    let took = start.elapsed().as_secs_f64();
    rig.root.stop().await;
    Ok(took)
}

fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

/// Seconds to start and stop, and resident bytes a child.
async fn start_stop(count: usize) -> Result<(f64, usize), Failure> {
    let before = resident_bytes();
    let start = Instant::now();
    let rig = rig(SupervisorSpec::dynamic(), count).await?;
    let bytes = resident_bytes().saturating_sub(before) / count;
    rig.root.stop().await;
    Ok((start.elapsed().as_secs_f64(), bytes))
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let (start_stop, idle_bytes) = start_stop(100_000).await?;
    let figures = json!({
        "restart_us": restart(0).await?,
        "restart_among_10000_us": restart(10_000).await?,
        "storm_10000_s": storm(10_000, Strategy::OneForOne).await?,
        "group_1000_s": storm(1_000, Strategy::OneForAll).await?,
        "start_stop_100000_s": start_stop,
        "idle_bytes": idle_bytes,
    });
    println!("{figures}");
    Ok(())
}
