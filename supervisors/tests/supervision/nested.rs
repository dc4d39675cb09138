//! Supervisors below supervisors: escalation, order, snapshots.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use supervisors::{ChildSpec, EventKind, NodeState, RootEnd, Strategy, SupervisorSpec};

use crate::support::{Opening, Order, Stage, broken, end_of, quiet, seconds, stop};

/// `root/sup/{x,y}` beside `root/z`; the lower level allows one restart, the upper two.
fn two_levels(stage: &Stage) -> SupervisorSpec {
    let lower = stage.clone();
    let sup = ChildSpec::supervisor("sup", move |_| {
        let lower = lower.clone();
        async move {
            let spec = SupervisorSpec::new(Strategy::OneForOne).intensity(1, seconds(5));
            Ok(spec.child(lower.starter("x")).child(lower.puppet("y")))
        }
    });
    SupervisorSpec::new(Strategy::OneForOne).intensity(2, seconds(60)).child(sup).child(stage.puppet("z"))
}

#[tokio::test(start_paused = true)]
async fn test_escalation_keeps_incident_and_reason_on_every_level() {
    let stage = Stage::default();
    let root = stage.start(two_levels(&stage)).await;
    stage.log.clear();
    stage.crash("sup/x").await;
    stage.crash("sup/x").await;
    let trace = [
        "failed sup/x",
        "restarting sup/x",
        "restarted sup/x",
        "failed sup/x",
        "escalated sup",
        "stopped sup/y",
        "failed sup",
        "restarting sup",
        "restarted sup/x",
        "restarted sup/y",
        "restarted sup",
    ];
    assert_eq!(stage.log.trace(), trace);
    let events = stage.log.events();
    assert!(events.iter().all(|event| event.incident == events[0].incident));
    assert_eq!(events[6].reason, Some(broken().reason));
    assert_eq!(events[6].because_of.as_ref().unwrap().as_str(), "root/sup/x");
    assert_eq!(root.handle().count_children().await.active, 2);
}

#[tokio::test(start_paused = true)]
async fn test_escalation_to_the_top_ends_the_tree_with_the_first_reason() {
    let stage = Stage::default();
    let root = stage.start(two_levels(&stage)).await;
    for _ in 0..6 {
        stage.crash("sup/x").await;
    }
    let incident = stage.log.of(EventKind::Failed)[0].incident.clone().unwrap();
    assert_eq!(end_of(&root).await, RootEnd::GaveUp { incident, reason: broken().reason });
    assert_eq!(stage.diary().iter().filter(|line| line.starts_with("down z")).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn test_stop_goes_down_the_tree_in_reverse() {
    let stage = Stage::default();
    let root = stage.start(two_levels(&stage)).await;
    stage.diary();
    stop(&root).await;
    assert_eq!(stage.diary(), ["down z", "down sup/y", "down sup/x"]);
}

#[tokio::test(start_paused = true)]
async fn test_spec_of_a_nested_supervisor_is_computed_at_every_start() {
    let stage = Stage::default();
    let count = Arc::new(AtomicUsize::new(1));
    let (shared, lower) = (Arc::clone(&count), stage.clone());
    let sup = ChildSpec::supervisor("sup", move |_| {
        let children = (0..shared.load(Ordering::SeqCst)).map(|n| lower.puppet(&n.to_string())).collect();
        async move { Ok(SupervisorSpec { children, ..SupervisorSpec::default() }) }
    });
    let root = stage.start(SupervisorSpec::default().child(sup)).await;
    let first = root.handle().supervisor("sup").await.unwrap();
    count.store(3, Ordering::SeqCst);
    root.handle().bounce_child("sup").await.unwrap();
    assert!(!first.is_alive());
    let second = root.handle().supervisor("sup").await.unwrap();
    assert_eq!(second.count_children().await.active, 3);
}

#[tokio::test(start_paused = true)]
async fn test_initial_failure_below_fails_the_start_above() {
    let stage = Stage::default();
    stage.opening("sup/x", vec![Opening::Fail(broken())]);
    assert_eq!(stage.try_start(two_levels(&stage)).await.unwrap_err(), broken());
}

#[tokio::test(start_paused = true)]
async fn test_snapshot_shows_the_whole_tree() {
    let stage = Stage::default();
    let root = stage.start(two_levels(&stage)).await;
    stage.crash("sup/x").await;
    let view = root.handle().snapshot().await;
    assert_eq!(view.state, NodeState::Running);
    let sup = &view.children[0];
    assert_eq!((sup.path.as_str(), sup.restarts_in_window, sup.restarts_left), ("root/sup", 1, Some(0)));
    let x = &sup.children[0];
    assert_eq!((x.path.as_str(), x.incarnation, x.restarts), ("root/sup/x", 2, 1));
    assert_eq!(x.last_error, Some(broken().reason));
    let json = serde_json::to_value(&view).unwrap();
    assert_eq!(json["children"][0]["children"][0]["state"], "running");
}

#[tokio::test(start_paused = true)]
async fn test_killed_supervisor_leaves_no_task_behind_and_comes_back() {
    let stage = Stage::default();
    let root = stage.start(two_levels(&stage)).await;
    stage.diary();
    stage.tell("sup/y", Order::Deaf).await;
    let sup = root.handle().supervisor("sup").await.unwrap();
    sup.actor().expect("runs").kill();
    quiet().await;
    let diary = stage.diary();
    assert!(diary.contains(&"down sup/x".to_owned()) && diary.contains(&"down sup/y".to_owned()), "{diary:?}");
    assert_eq!(diary.iter().filter(|line| line.starts_with("up")).count(), 2);
    assert_eq!(stage.log.of(EventKind::Failed)[0].reason.as_ref().unwrap().code, "killed");
}
