//! Management calls and their outcomes: point 10.

use supervisors::{
    Backoff, ChildSpec, Class, Failure, ManageError, NodeState, Restart, RestartPolicy, SpecError, Strategy,
    SupervisorSpec, WaitReason,
};

use crate::support::{Opening, Stage, broken, pass, quiet, seconds};

#[tokio::test(start_paused = true)]
async fn test_start_child_outcomes() {
    let stage = Stage::default();
    let root = stage.start(SupervisorSpec::default().max_children(2)).await;
    let handle = root.handle();
    handle.start_child(stage.puppet("a")).await.unwrap();
    assert_eq!(handle.start_child(stage.puppet("a")).await, Err(ManageError::AlreadyStarted));
    handle.terminate_child("a").await.unwrap();
    assert_eq!(handle.start_child(stage.puppet("a")).await, Err(ManageError::AlreadyPresent));
    stage.opening("b", vec![Opening::Fail(broken())]);
    assert_eq!(handle.start_child(stage.starter("b")).await, Err(ManageError::StartFailed(broken())));
    assert_eq!(handle.count_children().await.specs, 1, "a child that did not start is forgotten");
    handle.start_child(stage.starter("b")).await.unwrap();
    assert_eq!(handle.start_child(stage.starter("c")).await, Err(ManageError::MaxChildren { limit: 2 }));
    let bad = ManageError::Invalid(SpecError::InvalidId("x/y".to_owned()));
    assert_eq!(handle.start_child(stage.starter("x/y")).await, Err(bad));
    root.stop().await;
    assert_eq!(handle.start_child(stage.puppet("z")).await, Err(ManageError::Gone));
}

#[tokio::test(start_paused = true)]
async fn test_terminate_restart_delete_outcomes() {
    let stage = Stage::default();
    let root = stage.start(SupervisorSpec::default().child(stage.starter("a"))).await;
    let handle = root.handle();
    assert_eq!(handle.terminate_child("x").await, Err(ManageError::NotFound));
    assert_eq!(handle.restart_child("x").await, Err(ManageError::NotFound));
    assert_eq!(handle.delete_child("x").await, Err(ManageError::NotFound));
    assert_eq!(handle.restart_child("a").await, Err(ManageError::Running));
    assert_eq!(handle.delete_child("a").await, Err(ManageError::Running));
    handle.terminate_child("a").await.unwrap();
    handle.terminate_child("a").await.unwrap();
    assert_eq!(handle.which_children().await[0].state, NodeState::Stopped);
    stage.opening("a", vec![Opening::Fail(broken())]);
    assert_eq!(handle.restart_child("a").await, Err(ManageError::StartFailed(broken())));
    pass(seconds(1)).await;
    assert_eq!(handle.which_children().await[0].state, NodeState::Stopped, "a failed request is not retried");
    handle.restart_child("a").await.unwrap();
    handle.terminate_child("a").await.unwrap();
    handle.delete_child("a").await.unwrap();
    assert!(handle.child_spec("a").await.is_none());
}

#[tokio::test(start_paused = true)]
async fn test_waiting_child_can_be_hurried_terminated_and_not_deleted() {
    let stage = Stage::default();
    let policy = RestartPolicy::default().backoff(Backoff { min: seconds(20), jitter: 0.0, ..Backoff::default() });
    let spec = SupervisorSpec::default().intensity(10, seconds(5)).policy(policy);
    let root = stage.start(spec.child(stage.puppet("a"))).await;
    let handle = root.handle();
    stage.crash("a").await;
    let waiting = NodeState::Waiting { until_ms: 19_999, attempt: 1, why: WaitReason::Backoff };
    assert_eq!(handle.which_children().await[0].state, waiting);
    assert_eq!(handle.delete_child("a").await, Err(ManageError::Restarting));
    handle.restart_child("a").await.unwrap();
    assert_eq!(handle.which_children().await[0].state, NodeState::Running);
    stage.crash("a").await;
    handle.terminate_child("a").await.unwrap();
    pass(seconds(100)).await;
    assert_eq!(handle.which_children().await[0].state, NodeState::Stopped, "the delayed restart is cancelled");
}

#[tokio::test(start_paused = true)]
async fn test_calls_are_served_while_a_restart_hangs() {
    let stage = Stage::default();
    let root = stage.start(SupervisorSpec::default().child(stage.starter("a"))).await;
    stage.opening("a", vec![Opening::Hang]);
    stage.crash("a").await;
    let handle = root.handle();
    assert_eq!(handle.restart_child("a").await, Err(ManageError::Restarting));
    assert_eq!(handle.delete_child("a").await, Err(ManageError::Restarting));
    handle.start_child(stage.puppet("b")).await.unwrap();
    handle.terminate_child("a").await.unwrap();
    handle.restart_child("a").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn test_dynamic_supervisor_forgets_what_is_terminated_or_done() {
    let stage = Stage::default();
    let root = stage.start(SupervisorSpec::dynamic()).await;
    let handle = root.handle();
    for id in ["a", "b", "c"] {
        handle.start_child(stage.puppet(id).restart(Restart::Transient)).await.unwrap();
    }
    handle.terminate_child("a").await.unwrap();
    stage.tell("b", crate::support::Order::Finish).await;
    assert_eq!(handle.count_children().await.specs, 1);
    handle.start_child(stage.puppet("a")).await.unwrap();
    assert_eq!(handle.restart_child("a").await, Err(ManageError::Running));
    root.stop().await;
}

#[tokio::test(start_paused = true)]
async fn test_dynamic_children_stop_all_at_once() {
    let stage = Stage::default();
    let slow = |id: &str| {
        ChildSpec::task(id.to_owned(), |ctx| async move {
            ctx.stop.stopped().await;
            tokio::time::sleep(seconds(3)).await;
            Ok(())
        })
    };
    let root = stage.start(SupervisorSpec::dynamic().child(slow("a")).child(slow("b")).child(slow("c"))).await;
    let before = tokio::time::Instant::now();
    root.stop().await;
    assert_eq!(before.elapsed(), seconds(3));
}

#[tokio::test(start_paused = true)]
async fn test_malformed_specs_are_refused() {
    let stage = Stage::default();
    let two = SupervisorSpec::default().child(stage.puppet("a")).child(stage.puppet("a"));
    assert_eq!(two.check(), Err(SpecError::DuplicateChildName("a".to_owned())));
    assert_eq!(SupervisorSpec::default().intensity(1, seconds(0)).check(), Err(SpecError::InvalidPeriod));
    let significant = SupervisorSpec::default().child(stage.puppet("a").significant(true));
    assert_eq!(significant.check(), Err(SpecError::InvalidSignificant("a".to_owned())));
    let ordered = SupervisorSpec { strategy: Strategy::RestForOne, ..SupervisorSpec::dynamic() };
    assert_eq!(ordered.check(), Err(SpecError::BadCombination));
    let policy = RestartPolicy::default().backoff(Backoff { factor: 0.5, ..Backoff::default() });
    assert_eq!(SupervisorSpec::default().policy(policy).check(), Err(SpecError::InvalidBackoff));
    let failure = stage.try_start(two).await.unwrap_err();
    let expected = Failure::new(Class::Config, "invalid_spec", "two children are called `a`");
    assert_eq!(failure, expected);
    quiet().await;
}

#[tokio::test(start_paused = true)]
async fn test_change_of_specs_is_all_or_nothing_and_touches_nothing_that_runs() {
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
    assert_eq!(shown, [("a", true), ("c", false), ("b", true)]);
    assert!(children.iter().all(|child| child.incarnation == u64::from(child.state == NodeState::Running)));
    stage.tell("a", crate::support::Order::Finish).await;
    assert_eq!(handle.which_children().await[0].state, NodeState::Stopped, "transient by now");
    stage.crash("b").await;
    stage.crash("b").await;
    assert!(handle.is_alive(), "three restarts are allowed by now");
    handle.restart_child("c").await.unwrap();
}
