//! What OTP lacks: back-off, parking, probes, the watchdog, abandonment.

use std::time::Duration;

use supervisors::{
    Backoff, ChildSpec, Class, EventKind, Failure, ManageError, NodeState, OnLimit, RestartPolicy, Shutdown, Started,
    SupervisorSpec,
};

use crate::support::{Order, Stage, broken, pass, quiet, seconds, stop};

fn doubling() -> Backoff {
    Backoff { min: seconds(1), max: seconds(8), factor: 2.0, jitter: 0.0, reset_after: seconds(30) }
}

fn generous(stage: &Stage, policy: RestartPolicy) -> SupervisorSpec {
    let spec = SupervisorSpec::default().intensity(100, seconds(1)).policy(policy);
    spec.child(stage.puppet("a")).child(stage.puppet("b"))
}

fn delays(stage: &Stage) -> Vec<u64> {
    stage.log.of(EventKind::Restarting).iter().map(|event| event.delay.unwrap().as_secs()).collect()
}

#[tokio::test(start_paused = true)]
async fn test_backoff_doubles_is_capped_and_resets_after_a_healthy_period() {
    let stage = Stage::default();
    let _root = stage.start(generous(&stage, RestartPolicy::default().backoff(doubling()))).await;
    for _ in 0..5 {
        stage.crash("a").await;
        pass(seconds(9)).await;
    }
    assert_eq!(delays(&stage), [1, 2, 4, 8, 8]);
    pass(seconds(31)).await;
    stage.log.clear();
    stage.crash("a").await;
    assert_eq!(delays(&stage), [1]);
}

#[tokio::test(start_paused = true)]
async fn test_backoff_of_a_reporting_child_resets_only_after_it_was_healthy() {
    let stage = Stage::default();
    let _root = stage.start(generous(&stage, RestartPolicy::default().backoff(doubling()))).await;
    stage.crash("a").await;
    pass(seconds(2)).await;
    stage.tell("a", Order::Idle).await;
    pass(seconds(100)).await;
    stage.crash("a").await;
    pass(seconds(3)).await;
    stage.tell("a", Order::Healthy).await;
    stage.crash("a").await;
    assert_eq!(delays(&stage), [1, 2, 4], "healthy, but too soon after the last failure");
    pass(seconds(5)).await;
    stage.tell("a", Order::Healthy).await;
    pass(seconds(30)).await;
    let before = stage.log.of(EventKind::Failed)[0].incident.clone();
    stage.log.clear();
    stage.crash("a").await;
    assert_eq!(delays(&stage), [1]);
    assert_ne!(stage.log.events()[0].incident, before, "a new incident");
}

#[tokio::test(start_paused = true)]
async fn test_retry_after_is_a_minimum() {
    let stage = Stage::default();
    let _root = stage.start(generous(&stage, RestartPolicy::default().backoff(doubling()))).await;
    let limited = Failure::new(Class::RateLimited, "http_429", "slow down").retry_after(seconds(77));
    stage.tell("a", Order::Fail(limited)).await;
    assert_eq!(delays(&stage), [77]);
    pass(seconds(76)).await;
    assert!(stage.log.of(EventKind::Restarted).is_empty());
    pass(seconds(1)).await;
    assert_eq!(stage.log.of(EventKind::Restarted)[0].recovered_in, Some(seconds(77)));
}

#[tokio::test(start_paused = true)]
async fn test_waiting_child_does_not_hold_up_its_siblings_or_the_end() {
    let stage = Stage::default();
    let policy = RestartPolicy::default().backoff(Backoff { min: seconds(8), ..doubling() });
    let root = stage.start(generous(&stage, policy)).await;
    stage.crash("a").await;
    let policy_free = ChildSpec::task("c", |ctx| async move {
        ctx.stop.stopped().await;
        Ok(())
    });
    root.handle().start_child(policy_free).await.unwrap();
    let before = tokio::time::Instant::now();
    stop(&root).await;
    assert_eq!(before.elapsed(), Duration::ZERO);
    pass(seconds(100)).await;
    assert!(stage.log.of(EventKind::Restarted).is_empty());
}

#[tokio::test(start_paused = true)]
async fn test_class_that_cannot_heal_is_parked_at_once_and_probed_half_open() {
    let stage = Stage::default();
    let policy = RestartPolicy::default().park_on([Class::Auth]).probe(seconds(900));
    let root = stage.start(generous(&stage, policy)).await;
    stage.log.clear();
    let denied = || Order::Fail(Failure::new(Class::Auth, "http_401", "denied"));
    stage.tell("a", denied()).await;
    assert_eq!(stage.log.trace(), ["failed a", "parked a"]);
    let state = root.handle().snapshot().await.children[0].state.clone();
    assert!(matches!(state, NodeState::Parked { reason } if reason.code == "http_401"));
    stage.log.clear();
    pass(seconds(900)).await;
    assert_eq!(stage.log.trace(), ["probed a", "restarted a"]);
    stage.log.clear();
    stage.crash("a").await;
    assert_eq!(stage.log.trace(), ["failed a", "parked a"], "one failure of a probe parks again");
    root.handle().restart_child("a").await.unwrap();
    stage.tell("a", Order::Healthy).await;
    stage.log.clear();
    stage.crash("a").await;
    assert_eq!(stage.log.trace(), ["failed a", "restarting a", "restarted a"], "the probe had succeeded");
    assert_eq!(root.handle().snapshot().await.restarts_in_window, 1);
}

#[tokio::test(start_paused = true)]
async fn test_parked_child_that_says_when_to_try_again_is_probed_then() {
    let stage = Stage::default();
    let policy = RestartPolicy::default().park_on([Class::Auth, Class::Fenced]);
    let _root = stage.start(generous(&stage, policy)).await;
    let denied = Failure::new(Class::Auth, "denied", "denied").retry_after(seconds(60));
    stage.tell("a", Order::Fail(denied)).await;
    stage.log.clear();
    pass(seconds(59)).await;
    assert!(stage.log.trace().is_empty());
    pass(seconds(1)).await;
    assert_eq!(stage.log.trace(), ["probed a", "restarted a"]);
    stage.tell("a", Order::Healthy).await;
    stage.tell("a", Order::Fail(Failure::new(Class::Fenced, "fenced", "fenced"))).await;
    stage.log.clear();
    pass(seconds(100_000)).await;
    assert!(stage.log.trace().is_empty(), "who does not say is not probed");
}

#[tokio::test(start_paused = true)]
async fn test_limit_parks_only_the_child_that_reached_it() {
    let stage = Stage::default();
    let spec = SupervisorSpec::default().intensity(2, seconds(60)).on_limit(OnLimit::ParkChild);
    let root = stage.start(spec.child(stage.puppet("a")).child(stage.puppet("b"))).await;
    for _ in 0..3 {
        stage.crash("a").await;
    }
    stage.crash("b").await;
    let view = root.handle().snapshot().await;
    assert!(matches!(view.children[0].state, NodeState::Parked { .. }));
    assert_eq!(view.children[1].state, NodeState::Running);
    assert_eq!((view.children[1].restarts_in_window, view.children[1].restarts_left), (1, Some(1)));
    pass(seconds(100_000)).await;
    assert_eq!(stage.log.of(EventKind::Probed).len(), 0, "no probe was configured");
    root.handle().terminate_child("a").await.unwrap();
    root.handle().restart_child("a").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn test_consecutive_failures_reach_the_limit_though_the_window_does_not() {
    let stage = Stage::default();
    let policy = RestartPolicy::default().backoff(Backoff { reset_after: seconds(600), ..doubling() });
    let spec = SupervisorSpec::default().intensity(100, seconds(1)).on_limit(OnLimit::ParkChild);
    let root = stage.start(spec.policy(policy.consecutive_max(3)).child(stage.puppet("a"))).await;
    for _ in 0..4 {
        stage.crash("a").await;
        pass(seconds(60)).await;
    }
    assert_eq!(stage.log.of(EventKind::Restarting).len(), 3);
    assert!(matches!(root.handle().snapshot().await.children[0].state, NodeState::Parked { .. }));
}

#[tokio::test(start_paused = true)]
async fn test_child_without_progress_is_killed_and_restarted_as_hung() {
    let stage = Stage::default();
    let _root = stage.start(generous(&stage, RestartPolicy::default())).await;
    stage.tell("a", Order::Busy(seconds(10))).await;
    pass(seconds(8)).await;
    stage.tell("a", Order::Busy(seconds(10))).await;
    pass(seconds(8)).await;
    assert!(stage.log.of(EventKind::Failed).is_empty());
    pass(seconds(3)).await;
    let failed = stage.log.of(EventKind::Failed);
    assert_eq!(failed[0].reason.as_ref().unwrap().class, Class::Hung);
    assert_eq!(stage.log.of(EventKind::Restarted).len(), 1);
    stage.tell("a", Order::Busy(seconds(10))).await;
    stage.tell("a", Order::Idle).await;
    pass(seconds(100)).await;
    stage.tell("a", Order::Busy(seconds(10))).await;
    pass(seconds(5)).await;
    stage.tell("a", Order::Healthy).await;
    pass(seconds(100)).await;
    assert_eq!(stage.log.of(EventKind::Failed).len(), 1, "idle and healthy children owe nothing");
}

#[tokio::test(start_paused = true)]
async fn test_start_that_breaks_its_promise_of_progress_is_a_failed_start() {
    let stage = Stage::default();
    let root = stage.start(generous(&stage, RestartPolicy::default())).await;
    let child = |last: u64| {
        ChildSpec::start("c", move |ctx| async move {
            // As long as it keeps its promises it may take as long as it likes.
            for step in 1..=last {
                ctx.progress.busy(seconds(10));
                pass(seconds(if step == 5 { 3_600 } else { 8 })).await;
            }
            ctx.progress.idle();
            Ok(Started::ignore())
        })
        .shutdown(Shutdown::Infinity)
    };
    root.handle().start_child(child(4)).await.unwrap();
    root.handle().delete_child("c").await.unwrap();
    let Err(ManageError::StartFailed(failure)) = root.handle().start_child(child(5)).await else {
        panic!("it came up")
    };
    assert_eq!((failure.reason.class, failure.reason.code.as_str()), (Class::Hung, "no_progress"));
    assert_eq!(stage.log.of(EventKind::Abandoned).len(), 0);
}

#[tokio::test(start_paused = true)]
async fn test_promise_that_is_sooner_than_the_one_before_is_held_to() {
    let stage = Stage::default();
    let _root = stage.start(generous(&stage, RestartPolicy::default())).await;
    stage.tell("a", Order::Busy(seconds(3_600))).await;
    stage.tell("a", Order::Busy(seconds(10))).await;
    pass(seconds(10)).await;
    assert_eq!(stage.log.of(EventKind::Failed).len(), 1, "hung after ten seconds, not after an hour");
    stage.tell("a", Order::Busy(seconds(3_600))).await;
    stage.tell("a", Order::Idle).await;
    stage.tell("a", Order::Busy(seconds(10))).await;
    pass(seconds(9)).await;
    assert_eq!(stage.log.of(EventKind::Failed).len(), 1);
    pass(seconds(1)).await;
    assert_eq!(stage.log.of(EventKind::Failed).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn test_panic_is_a_bug_with_text_and_place() {
    let stage = Stage::default();
    let _root = stage.start(generous(&stage, RestartPolicy::default())).await;
    stage.tell("a", Order::Panic).await;
    let reason = stage.log.of(EventKind::Failed)[0].reason.clone().unwrap();
    assert_eq!((reason.class, reason.code.as_str()), (Class::Bug, "panic"));
    assert!(reason.message.starts_with("as told (at ") && reason.message.contains("support.rs:"), "{reason}");
    quiet().await;
    stage.crash("b").await;
    assert_eq!(stage.log.of(EventKind::Failed)[1].reason, Some(broken().reason));
}
