//! Point 10: management calls and their outcomes.

use supervisors::{
    Backoff, ChildKind, ChildSpec, Class, Failure, ManageError, NodeState, Restart, RestartPolicy, Shutdown, SpecError,
    SupervisorHandle, SupervisorSpec,
};

use crate::support::{Opening, Order, Stage, broken, pass, quiet, seconds, stop};

#[tokio::test(start_paused = true)]
async fn test_point_10_start_child_outcomes() {
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
    stop(&root).await;
    assert_eq!(handle.start_child(stage.puppet("z")).await, Err(ManageError::Gone));
}

#[tokio::test(start_paused = true)]
async fn test_point_10_terminate_restart_delete_outcomes() {
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
async fn test_point_10_dynamic_supervisor_forgets_what_is_terminated_or_done() {
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
    stop(&root).await;
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Is {
    Absent,
    Running,
    Stopped,
    Finished,
    Waiting,
    Parked,
    Starting,
    Stopping,
}

/// A supervisor whose child `a` is in this state.
async fn child_in(stage: &Stage, state: Is) -> supervisors::Root {
    let backoff = Backoff { min: seconds(20), jitter: 0.0, ..Backoff::default() };
    let policy = RestartPolicy::default().backoff(backoff).park_on([Class::Auth]);
    let spec = SupervisorSpec::default().intensity(10, seconds(5)).policy(policy);
    let child = stage.starter("a").restart(Restart::Transient).shutdown(Shutdown::Timeout(seconds(5)));
    let root = stage.start(if state == Is::Absent { spec } else { spec.child(child) }).await;
    match state {
        Is::Absent | Is::Running => {}
        Is::Stopped => root.handle().terminate_child("a").await.unwrap(),
        Is::Finished => stage.tell("a", Order::Finish).await,
        Is::Waiting => stage.crash("a").await,
        Is::Parked => stage.tell("a", Order::Fail(Failure::new(Class::Auth, "denied", "no"))).await,
        Is::Starting => {
            root.handle().terminate_child("a").await.unwrap();
            stage.opening("a", vec![Opening::Slow(seconds(3))]);
            ask(root.handle(), "restart").await;
        }
        Is::Stopping => {
            stage.tell("a", Order::Deaf).await;
            ask(root.handle(), "terminate").await;
        }
    }
    root
}

/// Asks without waiting for the answer.
async fn ask(handle: SupervisorHandle, what: &'static str) {
    tokio::spawn(async move {
        let _ = match what {
            "restart" => handle.restart_child("a").await.map(drop),
            _ => handle.terminate_child("a").await,
        };
    });
    quiet().await;
}

/// Every call against every state.
#[tokio::test(start_paused = true)]
async fn test_point_10_outcome_of_every_call_in_every_state() {
    use ManageError::{AlreadyPresent, AlreadyStarted, NotFound, Restarting, Running};
    let ok = || Ok(());
    // (state, start_child, terminate_child, restart_child, delete_child, bounce_child)
    let cases = [
        (Is::Absent, ok(), Err(NotFound), Err(NotFound), Err(NotFound), Err(NotFound)),
        (Is::Running, Err(AlreadyStarted), ok(), Err(Running), Err(Running), ok()),
        (Is::Stopped, Err(AlreadyPresent), ok(), ok(), ok(), ok()),
        (Is::Finished, Err(AlreadyPresent), ok(), ok(), ok(), ok()),
        (Is::Waiting, Err(AlreadyPresent), ok(), ok(), Err(Restarting), ok()),
        (Is::Parked, Err(AlreadyPresent), ok(), ok(), ok(), ok()),
        (Is::Starting, Err(AlreadyStarted), ok(), Err(Restarting), Err(Restarting), Err(Restarting)),
        (Is::Stopping, Err(AlreadyStarted), ok(), Err(Restarting), Err(Restarting), Err(Restarting)),
    ];
    for (state, start, terminate, restart, delete, bounce) in cases {
        let stage = Stage::default();
        let handle = |root: &supervisors::Root| root.handle();
        let root = child_in(&stage, state).await;
        assert_eq!(handle(&root).start_child(stage.starter("a")).await.map(drop), start, "start {state:?}");
        let root = child_in(&stage, state).await;
        assert_eq!(handle(&root).terminate_child("a").await, terminate, "terminate {state:?}");
        let view = handle(&root).which_children().await;
        assert!(view.iter().all(|child| child.state == NodeState::Stopped), "terminate {state:?}: {view:?}");
        pass(seconds(100)).await;
        assert_eq!(handle(&root).count_children().await.active, 0, "it stays down");
        let root = child_in(&stage, state).await;
        assert_eq!(handle(&root).restart_child("a").await.map(drop), restart, "restart {state:?}");
        let root = child_in(&stage, state).await;
        assert_eq!(handle(&root).delete_child("a").await, delete, "delete {state:?}");
        if delete.is_ok() {
            assert!(handle(&root).child_spec("a").await.is_none());
        }
        let root = child_in(&stage, state).await;
        assert_eq!(handle(&root).bounce_child("a").await.map(drop), bounce, "bounce {state:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn test_point_10_which_count_and_get_tell_what_is() {
    let stage = Stage::default();
    let below = ChildSpec::supervisor("s", |_| async { Ok(SupervisorSpec::default()) });
    let spec = SupervisorSpec::default().child(stage.puppet("a")).child(below).child(stage.puppet("b"));
    let root = stage.start(spec).await;
    root.handle().terminate_child("a").await.unwrap();
    let counts = root.handle().count_children().await;
    assert_eq!((counts.specs, counts.active, counts.supervisors, counts.workers), (3, 2, 1, 2));
    let shown = root.handle().which_children().await;
    let ids: Vec<_> = shown.iter().map(|child| (&*child.id, child.kind, child.state.clone())).collect();
    let expected = [
        ("a", ChildKind::Worker, NodeState::Stopped),
        ("s", ChildKind::Supervisor, NodeState::Running),
        ("b", ChildKind::Worker, NodeState::Running),
    ];
    assert_eq!(ids, expected);
    assert_eq!(&*root.handle().child_spec("b").await.unwrap().id, "b");
    assert!(root.handle().child_spec("x").await.is_none());
}

#[tokio::test(start_paused = true)]
async fn test_point_10_terminated_temporary_child_is_forgotten() {
    let stage = Stage::default();
    let root = stage.start(SupervisorSpec::default().child(stage.puppet("a").restart(Restart::Temporary))).await;
    root.handle().terminate_child("a").await.unwrap();
    assert_eq!(root.handle().count_children().await.specs, 0);
    assert_eq!(root.handle().restart_child("a").await, Err(ManageError::NotFound));
}
