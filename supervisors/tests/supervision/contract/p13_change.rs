//! Point 13: new flags and specs for a supervisor that runs.

use supervisors::{AutoShutdown, ManageError, NodeState, Restart, Shutdown, SpecError, Strategy, SupervisorSpec};

use crate::support::{Order, Stage, quiet, seconds};

#[tokio::test(start_paused = true)]
async fn test_point_13_change_is_all_or_nothing_and_touches_nothing_that_runs() {
    let stage = Stage::default();
    let flags = || SupervisorSpec::default().intensity(1, seconds(60));
    let root = stage.start(flags().child(stage.puppet("a")).child(stage.puppet("b"))).await;
    let handle = root.handle();
    let bad = flags().child(stage.puppet("a").restart(Restart::Temporary)).child(stage.puppet("x/y"));
    assert!(matches!(handle.change(bad).await, Err(ManageError::Invalid(SpecError::InvalidId(_)))));
    assert_eq!(handle.child_spec("a").await.unwrap().restart, Restart::Permanent);
    let dynamic = handle.change(SupervisorSpec::dynamic()).await;
    assert_eq!(dynamic, Err(ManageError::Invalid(SpecError::BadCombination)));
    let new = SupervisorSpec::default().intensity(3, seconds(60));
    handle.change(new.child(stage.puppet("a").restart(Restart::Transient)).child(stage.puppet("c"))).await.unwrap();
    let children = handle.which_children().await;
    let shown: Vec<_> = children.iter().map(|child| (&*child.id, child.state == NodeState::Running)).collect();
    assert_eq!(shown, [("a", true), ("c", false), ("b", true)], "what is missing comes last");
    assert!(children.iter().filter(|child| &*child.id != "c").all(|child| child.incarnation == 1));
    stage.tell("a", crate::support::Order::Finish).await;
    assert_eq!(handle.which_children().await[0].state, NodeState::Stopped, "transient by now");
    stage.crash("b").await;
    stage.crash("b").await;
    assert!(handle.is_alive(), "three restarts are allowed by now");
    handle.restart_child("c").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn test_point_13_nothing_new_is_no_change() {
    let stage = Stage::default();
    let spec = || SupervisorSpec::default().child(stage.puppet("a")).child(stage.puppet("b"));
    let root = stage.start(spec()).await;
    stage.log.clear();
    stage.diary();
    let before = root.handle().which_children().await;
    root.handle().change(spec()).await.unwrap();
    quiet().await;
    assert_eq!(root.handle().which_children().await, before);
    assert!(stage.log.events().is_empty() && stage.diary().is_empty());
}

#[tokio::test(start_paused = true)]
async fn test_point_13_every_bad_spec_or_flag_rejects_the_whole() {
    let stage = Stage::default();
    let good = || stage.puppet("a").restart(Restart::Temporary);
    let new = || SupervisorSpec::new(Strategy::OneForAll).child(good());
    let bad = [
        new().child(stage.puppet("")),
        new().child(good()),
        new().child(stage.puppet("c").significant(true)),
        new().intensity(1, seconds(0)),
        new().max_children(0),
        SupervisorSpec { dynamic: true, ..new() },
        SupervisorSpec::dynamic().child(good()),
    ];
    let root = stage.start(SupervisorSpec::default().child(stage.puppet("a")).child(stage.puppet("b"))).await;
    for spec in bad {
        assert!(matches!(root.handle().change(spec).await, Err(ManageError::Invalid(_))));
        assert_eq!(root.handle().child_spec("a").await.unwrap().restart, Restart::Permanent);
    }
    let crowded = root.handle().change(new().max_children(1)).await;
    assert_eq!(crowded, Err(ManageError::MaxChildren { limit: 1 }), "b is kept and has no room");
    stage.diary();
    stage.crash("a").await;
    assert_eq!(stage.diary(), ["down a", "up a"], "still one for one");
}

#[tokio::test(start_paused = true)]
async fn test_point_13_kept_children_must_fit_the_new_flags() {
    let stage = Stage::default();
    let significant = stage.puppet("a").restart(Restart::Transient).significant(true);
    let spec = SupervisorSpec::default().auto_shutdown(AutoShutdown::AnySignificant);
    let root = stage.start(spec.child(significant)).await;
    let refused = root.handle().change(SupervisorSpec::default().child(stage.puppet("b"))).await;
    assert_eq!(refused, Err(ManageError::Invalid(SpecError::InvalidSignificant("a".to_owned()))));
    root.handle().change(SupervisorSpec::default().child(stage.puppet("a"))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn test_point_13_new_strategy_and_shutdown_hold_from_then_on() {
    let stage = Stage::default();
    let root = stage.start(SupervisorSpec::default().child(stage.puppet("a")).child(stage.puppet("b"))).await;
    let new = SupervisorSpec::new(Strategy::OneForAll).child(stage.puppet("b").shutdown(Shutdown::Timeout(seconds(2))));
    root.handle().change(new).await.unwrap();
    stage.tell("b", Order::Deaf).await;
    stage.diary();
    let before = tokio::time::Instant::now();
    root.handle().bounce_child("a").await.unwrap();
    quiet().await;
    assert_eq!(stage.diary(), ["down a", "down b", "up b", "up a"], "b comes before a by now");
    assert_eq!(before.elapsed().as_secs(), 2);
}
