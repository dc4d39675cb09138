//! The numbers of `docs/choosing-limits.md`, found by letting supervisors run into their limits.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use supervisors::{
    Backoff, ChildPath, ChildSpec, Event, EventKind, Observer, OnLimit, RestartPolicy, Root, RootEnd, Strategy,
    SupervisorSpec,
};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::support::{Recorder, broken, seconds};

const PAGE: &str = include_str!("../../docs/choosing-limits.md");

/// Longer than any limit that is reached at all takes.
const PATIENCE: Duration = Duration::from_secs(600);

fn failing(id: &str, lifetime: Duration) -> ChildSpec {
    ChildSpec::task(id, move |_| async move {
        tokio::time::sleep(lifetime).await;
        Err(broken())
    })
}

fn default_backoff() -> Backoff {
    Backoff { jitter: 0.0, ..Backoff::default() }
}

/// Notes when the child was parked, and that it failed.
#[derive(Default)]
struct Marks {
    failed_at: OnceLock<Instant>,
    parked: Notify,
}

impl Observer for Marks {
    fn record(&self, event: Event) {
        match event.kind {
            EventKind::Failed => drop(self.failed_at.set(Instant::now())),
            EventKind::Parked => self.parked.notify_one(),
            _ => {}
        }
    }

    fn next_incarnation(&self, _: &ChildPath) -> u64 {
        1
    }
}

/// From the first failure until a child that always fails after `lifetime` is parked; none within [`PATIENCE`].
async fn parked_after(policy: RestartPolicy, lifetime: Duration) -> Option<Duration> {
    let marks = Arc::new(Marks::default());
    let spec = SupervisorSpec::default()
        .intensity(5, seconds(30))
        .on_limit(OnLimit::ParkChild)
        .policy(policy)
        .child(failing("a", lifetime));
    let root = Root::start("root", spec, Arc::<Marks>::clone(&marks), 1).await.unwrap();
    let parked = tokio::time::timeout(PATIENCE, marks.parked.notified()).await;
    let after = marks.failed_at.get().unwrap().elapsed();
    root.stop().await;
    parked.ok().map(|()| after)
}

fn cell(after: Option<Duration>) -> String {
    after.map_or_else(|| "never".to_owned(), |after| format!("{:.1} s", after.as_secs_f64()))
}

/// Rows of a table must be in the page to the letter.
#[track_caller]
fn assert_rows(rows: &[String]) {
    let missing: Vec<_> = rows.iter().filter(|row| !PAGE.lines().any(|line| line == *row)).collect();
    assert!(missing.is_empty(), "docs/choosing-limits.md lacks {missing:#?}");
}

#[tokio::test(start_paused = true)]
async fn test_page_on_limits_says_when_a_crash_loop_ends_parked() {
    let mut rows = Vec::new();
    for lifetime in [Duration::ZERO, seconds(1), seconds(5), seconds(10), seconds(20)] {
        let at_once = parked_after(RestartPolicy::default(), lifetime).await;
        let window_only = parked_after(RestartPolicy::default().backoff(default_backoff()), lifetime).await;
        let both = RestartPolicy::default().backoff(default_backoff()).consecutive_max(5);
        let both = parked_after(both, lifetime).await;
        let lifetime = format!("{} s", lifetime.as_secs());
        rows.push(format!("| {lifetime} | {} | {} | {} |", cell(at_once), cell(window_only), cell(both)));
    }
    assert_rows(&rows);
}

#[test]
fn test_page_on_limits_lists_the_delays_of_the_default_backoff() {
    let backoff = default_backoff();
    let (mut sum, mut rows) = (Duration::ZERO, Vec::new());
    for attempt in 1..=9 {
        let delay = backoff.delay(attempt, 0.5);
        sum += delay;
        rows.push(format!("| {attempt} | {:.1} s | {:.1} s |", delay.as_secs_f64(), sum.as_secs_f64()));
    }
    assert_rows(&rows);
}

/// Lives of a worker that fails at once until a tree of `levels` gives up.
async fn lives(levels: &[u32]) -> usize {
    let (outer, inner) = levels.split_first().unwrap();
    let mut spec = SupervisorSpec::new(Strategy::OneForOne).intensity(*inner.first().unwrap_or(outer), PATIENCE);
    spec = spec.child(failing("worker", Duration::from_millis(1)));
    if !inner.is_empty() {
        let below = ChildSpec::supervisor("inner", move |_| {
            let spec = spec.clone();
            async move { Ok(spec) }
        });
        spec = SupervisorSpec::new(Strategy::OneForOne).intensity(*outer, PATIENCE).child(below);
    }
    let log = Arc::new(Recorder::default());
    let root = Root::start("root", spec, Arc::<Recorder>::clone(&log), 1).await.unwrap();
    assert!(matches!(root.ended().await, RootEnd::GaveUp { .. }));
    let failed = |event: &&Event| event.path.as_str().ends_with("worker");
    log.of(EventKind::Failed).iter().filter(failed).count()
}

#[tokio::test(start_paused = true)]
async fn test_page_on_limits_says_how_levels_multiply() {
    let mut rows = Vec::new();
    for levels in [&[5][..], &[5, 5], &[10, 10], &[2, 10], &[0, 10]] {
        let shown = levels.iter().map(u32::to_string).collect::<Vec<_>>().join(" above ");
        rows.push(format!("| {shown} | {} |", lives(levels).await));
    }
    assert_rows(&rows);
}
