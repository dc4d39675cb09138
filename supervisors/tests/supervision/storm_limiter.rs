//! The storm limiter: mass restarts are paced over the whole tree.

use std::sync::Arc;

use supervisors::{
    Backoff, ChildSpec, Class, Event, EventKind, Failure, NodeState, Observer, Pacing, RestartPolicy, Root,
    RootOptions, Strategy, SupervisorSpec, WaitReason,
};
use tokio::time::Instant;

use crate::support::{Order, Stage, pass, quiet, seconds};

/// One restart at once, then one a second.
const SLOW: Pacing = Pacing { burst: 1, per_second: 1.0 };

async fn paced(stage: &Stage, spec: SupervisorSpec, pacing: Pacing) -> Root {
    let observer: Arc<dyn Observer> = Arc::clone(&stage.log) as _;
    let options = RootOptions { seed: 7, pacing: Some(pacing) };
    let root = Root::start_with("root", spec, observer, options).await.unwrap();
    quiet().await;
    root
}

fn many() -> SupervisorSpec {
    SupervisorSpec::default().intensity(1_000, seconds(1))
}

fn restarted(stage: &Stage) -> Vec<String> {
    let name = |event: Event| event.path.as_str().trim_start_matches("root/").to_owned();
    stage.log.of(EventKind::Restarted).into_iter().map(name).collect()
}

#[tokio::test(start_paused = true)]
async fn test_storm_limiter_paces_all_supervisors_of_the_tree_in_order_of_failure() {
    let stage = Stage::default();
    let inner = stage.clone();
    let below = ChildSpec::supervisor("sub", move |_| {
        let spec = many().child(inner.puppet("x")).child(inner.puppet("y"));
        async move { Ok(spec) }
    });
    let spec = many().child(stage.puppet("a")).child(stage.puppet("b")).child(below);
    let root = paced(&stage, spec, Pacing { burst: 2, per_second: 1.0 }).await;
    for path in ["sub/x", "a", "sub/y", "b"] {
        stage.crash(path).await;
    }
    assert_eq!(restarted(&stage), ["sub/x", "a"], "the burst");
    let view = root.handle().snapshot().await;
    let state = &view.children[1].state;
    assert!(matches!(state, NodeState::Waiting { why: WaitReason::Paced, attempt: 1, .. }), "{state:?}");
    let delays: Vec<_> = stage.log.of(EventKind::Restarting).iter().map(|e| (e.wait, e.delay == e.paced)).collect();
    assert_eq!(
        delays,
        [(None, false), (None, false), (Some(WaitReason::Paced), true), (Some(WaitReason::Paced), true)]
    );
    pass(seconds(1)).await;
    assert_eq!(restarted(&stage), ["sub/x", "a", "sub/y"], "first failed, first restarted");
    pass(seconds(1)).await;
    assert_eq!(restarted(&stage), ["sub/x", "a", "sub/y", "b"]);
    let last = stage.log.of(EventKind::Restarted).pop().unwrap();
    assert!(last.paced.is_some() && last.recovered_in >= last.paced, "{last:?}");
}

#[tokio::test(start_paused = true)]
async fn test_storm_limiter_holds_a_thousand_to_the_rate() {
    let stage = Stage::default();
    let ids: Vec<String> = (0..1_000).map(|number| number.to_string()).collect();
    let spec = ids.iter().fold(many(), |spec, id| spec.child(stage.puppet(id)));
    let root = paced(&stage, spec, Pacing { burst: 50, per_second: 100.0 }).await;
    for id in &ids {
        stage.order(id, Order::Fail(crate::support::broken()));
    }
    let before = Instant::now();
    let mut most = 50;
    while restarted(&stage).len() < 1_000 {
        pass(seconds(1)).await;
        let up = restarted(&stage).len();
        assert!(up <= most + 101, "{up} after {:?}", before.elapsed());
        most += 101;
    }
    assert!(before.elapsed() >= seconds(9), "950 at 100 a second");
    assert_eq!(root.handle().count_children().await.active, 1_000);
}

#[tokio::test(start_paused = true)]
async fn test_storm_limiter_wait_is_cancelled_by_terminate_and_cut_short_by_restart() {
    let stage = Stage::default();
    let spec = ["a", "b", "c", "d"].into_iter().fold(many(), |spec, id| spec.child(stage.puppet(id)));
    let root = paced(&stage, spec, SLOW).await;
    for id in ["a", "b", "c", "d"] {
        stage.crash(id).await;
    }
    let handle = root.handle();
    handle.terminate_child("b").await.unwrap();
    handle.restart_child("d").await.unwrap();
    assert_eq!(restarted(&stage), ["a", "d"]);
    pass(seconds(10)).await;
    assert_eq!(restarted(&stage), ["a", "d", "c"]);
    stage.crash("a").await;
    stage.crash("c").await;
    let before = Instant::now();
    root.stop().await;
    assert_eq!(before.elapsed(), seconds(0), "the end does not wait for a place");
}

#[tokio::test(start_paused = true)]
async fn test_storm_limiter_comes_after_the_back_off() {
    let stage = Stage::default();
    let backoff = Backoff { min: seconds(5), max: seconds(5), factor: 1.0, jitter: 0.0, reset_after: seconds(60) };
    let spec = many().policy(RestartPolicy::default().backoff(backoff));
    let root = paced(&stage, spec.child(stage.puppet("a")).child(stage.puppet("b")), SLOW).await;
    stage.order("a", Order::Fail(crate::support::broken()));
    stage.crash("b").await;
    let waits: Vec<_> = stage.log.of(EventKind::Restarting).iter().map(|e| (e.wait, e.delay, e.paced)).collect();
    assert_eq!(waits, [(Some(WaitReason::Backoff), Some(seconds(5)), None); 2]);
    pass(seconds(5)).await;
    assert_eq!(restarted(&stage), ["a"]);
    let state = root.handle().snapshot().await.children[1].state.clone();
    assert!(matches!(state, NodeState::Waiting { why: WaitReason::Paced, .. }), "{state:?}");
    pass(seconds(1)).await;
    assert_eq!(stage.log.of(EventKind::Restarted)[1].paced, Some(seconds(1)));
}

#[tokio::test(start_paused = true)]
async fn test_storm_limiter_counts_a_group_once_and_paces_probes() {
    let stage = Stage::default();
    let group = SupervisorSpec::new(Strategy::OneForAll).intensity(100, seconds(1));
    let spec = ["a", "b", "c"].into_iter().fold(group, |spec, id| spec.child(stage.puppet(id)));
    let root = paced(&stage, spec, SLOW).await;
    stage.crash("b").await;
    assert_eq!(restarted(&stage), ["a", "b", "c"], "one token for the three");
    stage.crash("c").await;
    assert_eq!(restarted(&stage).len(), 3);
    pass(seconds(1)).await;
    assert_eq!(restarted(&stage).len(), 6);
    root.stop().await;

    let stage = Stage::default();
    let policy = RestartPolicy::default().park_on([Class::Auth]).probe(seconds(60));
    let spec = ["a", "b"].into_iter().fold(many().policy(policy), |spec, id| spec.child(stage.puppet(id)));
    let _root = paced(&stage, spec, Pacing { burst: 1, per_second: 0.1 }).await;
    for id in ["a", "b"] {
        stage.order(id, Order::Fail(Failure::new(Class::Auth, "http_401", "denied")));
    }
    pass(seconds(61)).await;
    assert_eq!(stage.log.of(EventKind::Probed).len(), 1);
    pass(seconds(10)).await;
    assert_eq!(stage.log.of(EventKind::Probed).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn test_storm_limiter_is_off_unless_asked_for_and_refuses_nonsense() {
    let stage = Stage::default();
    let ids: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    let _root = stage.start(ids.iter().fold(many(), |spec, id| spec.child(stage.puppet(id)))).await;
    for id in &ids {
        stage.order(id, Order::Fail(crate::support::broken()));
    }
    pass(seconds(0)).await;
    assert_eq!(restarted(&stage).len(), 200);
    let observer: Arc<dyn Observer> = Arc::clone(&stage.log) as _;
    let options = RootOptions { seed: 1, pacing: Some(Pacing { burst: 0, per_second: 1.0 }) };
    let refused = Root::start_with("root", many(), observer, options).await.unwrap_err();
    assert_eq!(refused.reason.code, "invalid_spec");
}
