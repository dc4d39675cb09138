//! What the tree shows of each child.

use serde_json::json;
use supervisors::{
    Backoff, ChildSpec, Class, Failure, NodeState, NodeView, OnLimit, RestartPolicy, Root, SupervisorSpec, WaitReason,
};

use crate::support::{Opening, Order, Stage, pass, quiet, seconds};

async fn child(root: &Root, id: &str) -> NodeView {
    let children = root.handle().snapshot().await.children;
    children.into_iter().find(|child| child.path.as_str() == format!("root/{id}")).unwrap()
}

fn spec() -> SupervisorSpec {
    let backoff = Backoff { min: seconds(20), max: seconds(20), factor: 1.0, jitter: 0.0, reset_after: seconds(60) };
    let policy = RestartPolicy::default().backoff(backoff).park_on([Class::Auth]);
    SupervisorSpec::default().intensity(4, seconds(600)).on_limit(OnLimit::ParkChild).policy(policy)
}

#[tokio::test(start_paused = true)]
async fn test_live_view_shows_every_state() {
    let stage = Stage::default();
    stage.opening("slow", vec![Opening::Slow(seconds(100))]);
    let stubborn = ChildSpec::task("stubborn", |_| std::future::pending()).drain(seconds(10));
    let root = stage.start(spec().child(stage.puppet("a")).child(stubborn)).await;
    let handle = root.handle();
    let starting = stage.starter("slow");
    tokio::spawn(async move { handle.start_child(starting).await });
    quiet().await;
    assert_eq!(child(&root, "slow").await.state, NodeState::Starting);
    assert_eq!(child(&root, "a").await.state, NodeState::Running);
    let handle = root.handle();
    tokio::spawn(async move { handle.terminate_child("stubborn").await });
    quiet().await;
    assert_eq!(child(&root, "stubborn").await.state, NodeState::Draining);
    pass(seconds(10)).await;
    assert_eq!(child(&root, "stubborn").await.state, NodeState::Stopping);
    pass(seconds(5)).await;
    assert_eq!(child(&root, "stubborn").await.state, NodeState::Stopped);
    stage.crash("a").await;
    let waiting = NodeState::Waiting { until_ms: 19_999, attempt: 1, why: WaitReason::Backoff };
    assert_eq!(child(&root, "a").await.state, waiting);
    pass(seconds(20)).await;
    stage.tell("a", Order::Fail(Failure::new(Class::Auth, "http_401", "denied"))).await;
    assert!(matches!(child(&root, "a").await.state, NodeState::Parked { reason } if reason.code == "http_401"));
}

#[tokio::test(start_paused = true)]
async fn test_live_view_shows_numbers_and_the_last_error_with_its_time() {
    let stage = Stage::default();
    let root = stage.start(spec().child(stage.puppet("a"))).await;
    let fresh = child(&root, "a").await;
    assert_eq!((fresh.incarnation, fresh.restarts, fresh.last_error, fresh.last_error_ms), (1, 0, None, None));
    for _ in 0..2 {
        stage.crash("a").await;
        pass(seconds(30)).await;
    }
    let view = child(&root, "a").await;
    assert_eq!((view.incarnation, view.restarts, view.uptime_ms / 1_000), (3, 2, 10));
    assert_eq!((view.restarts_in_window, view.restarts_left, view.restarts_warning), (2, Some(2), true));
    assert_eq!(view.last_error.as_ref().unwrap().code, "broken");
    assert_eq!(view.last_error_ms.unwrap() / 1_000, 30);
    assert!(view.flap_score > 1.0 && !view.flapping);
    stage.crash("a").await;
    let shown = serde_json::to_value(child(&root, "a").await).unwrap();
    assert_eq!(
        (&shown["state"], &shown["why"], &shown["until_ms"]),
        (&json!("waiting"), &json!("backoff"), &json!(19_999))
    );
}
