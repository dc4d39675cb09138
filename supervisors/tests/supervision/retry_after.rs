//! A source's own word on when to try again is honoured.

use supervisors::{Backoff, Class, EventKind, Failure, NodeState, RestartPolicy, Strategy, SupervisorSpec, WaitReason};

use crate::support::{Opening, Order, Stage, pass, seconds};

fn busy(wait: u64) -> Failure {
    Failure::new(Class::RateLimited, "http_429", "slow down").retry_after(seconds(wait))
}

fn spec(policy: RestartPolicy) -> SupervisorSpec {
    SupervisorSpec::default().intensity(100, seconds(1)).policy(policy)
}

fn short() -> RestartPolicy {
    let backoff = Backoff { min: seconds(10), max: seconds(10), factor: 1.0, jitter: 0.0, reset_after: seconds(60) };
    RestartPolicy::default().backoff(backoff)
}

#[tokio::test(start_paused = true)]
async fn test_retry_after_is_the_least_that_a_restart_waits() {
    let stage = Stage::default();
    let root = stage.start(spec(short()).child(stage.puppet("a"))).await;
    stage.tell("a", Order::Fail(busy(77))).await;
    let state = root.handle().snapshot().await.children[0].state.clone();
    assert!(matches!(state, NodeState::Waiting { why: WaitReason::RetryAfter, .. }), "{state:?}");
    pass(seconds(76)).await;
    assert!(stage.log.of(EventKind::Restarted).is_empty());
    pass(seconds(1)).await;
    assert_eq!(stage.log.of(EventKind::Restarted)[0].recovered_in, Some(seconds(77)));
    stage.tell("a", Order::Fail(busy(3))).await;
    let last = stage.log.of(EventKind::Restarting).pop().unwrap();
    assert_eq!((last.delay, last.wait), (Some(seconds(10)), Some(WaitReason::Backoff)), "the longer of both");
}

#[tokio::test(start_paused = true)]
async fn test_retry_after_holds_for_failed_starts_groups_and_probes_and_an_operator_may_override_it() {
    let stage = Stage::default();
    stage.opening("a", vec![Opening::Ignore]);
    let group = SupervisorSpec { strategy: Strategy::OneForAll, ..spec(RestartPolicy::default()) };
    let root = stage.start(group.child(stage.starter("s")).child(stage.puppet("p"))).await;
    stage.opening("s", vec![Opening::Fail(busy(40))]);
    stage.crash("s").await;
    pass(seconds(39)).await;
    assert_eq!(stage.log.of(EventKind::Restarted).len(), 0, "the whole group waits");
    pass(seconds(1)).await;
    assert_eq!(stage.log.of(EventKind::Restarted).len(), 2);
    stage.tell("p", Order::Fail(busy(3_600))).await;
    root.handle().restart_child("p").await.unwrap();
    root.stop().await;

    let stage = Stage::default();
    let parking = RestartPolicy::default().park_on([Class::RateLimited]).probe(seconds(10));
    let _root = stage.start(spec(parking).child(stage.puppet("a"))).await;
    stage.tell("a", Order::Fail(busy(100))).await;
    pass(seconds(99)).await;
    assert!(stage.log.of(EventKind::Probed).is_empty());
    pass(seconds(1)).await;
    assert_eq!(stage.log.of(EventKind::Probed).len(), 1);
}
