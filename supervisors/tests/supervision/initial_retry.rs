//! A failure during the first start that is treated like a crash.

use supervisors::{Backoff, Class, EventKind, Failure, InitialFailure, NodeState, RestartPolicy, SupervisorSpec};

use crate::support::{Opening, Stage, broken, pass, seconds};

fn patient(stage: &Stage, policy: RestartPolicy) -> SupervisorSpec {
    let spec = SupervisorSpec::default().intensity(10, seconds(60)).initial_failure(InitialFailure::Retry);
    spec.policy(policy).child(stage.starter("a")).child(stage.puppet("b"))
}

fn backoff() -> Backoff {
    Backoff { min: seconds(5), max: seconds(60), factor: 2.0, jitter: 0.0, reset_after: seconds(600) }
}

#[tokio::test(start_paused = true)]
async fn test_initial_retry_backs_off_while_the_others_start() {
    let stage = Stage::default();
    stage.opening("a", vec![Opening::Fail(broken()), Opening::Fail(broken())]);
    let root = stage.start(patient(&stage, RestartPolicy::default().backoff(backoff()))).await;
    let state = |view: &supervisors::NodeView, at: usize| view.children[at].state.clone();
    let view = root.handle().snapshot().await;
    assert!(matches!(state(&view, 0), NodeState::Waiting { attempt: 1, .. }), "{view:?}");
    assert_eq!((view.state.clone(), state(&view, 1)), (NodeState::Running, NodeState::Running));
    pass(seconds(5)).await;
    assert!(matches!(state(&root.handle().snapshot().await, 0), NodeState::Waiting { attempt: 2, .. }));
    pass(seconds(10)).await;
    assert_eq!(state(&root.handle().snapshot().await, 0), NodeState::Running);
    let up = stage.log.of(EventKind::Restarted).pop().unwrap();
    assert_eq!(up.incident, stage.log.of(EventKind::Failed)[0].incident, "one incident from the first failure on");
}

#[tokio::test(start_paused = true)]
async fn test_initial_retry_parks_what_cannot_heal() {
    let stage = Stage::default();
    stage.opening("a", vec![Opening::Fail(Failure::new(Class::Config, "no_url", "the url is missing"))]);
    let root = stage.start(patient(&stage, RestartPolicy::default().park_on([Class::Config]))).await;
    let children = root.handle().snapshot().await.children;
    assert!(matches!(&children[0].state, NodeState::Parked { reason } if reason.code == "no_url"));
    assert_eq!(children[1].state, NodeState::Running);
    let strict = patient(&stage, RestartPolicy::default()).initial_failure(InitialFailure::Fail);
    stage.opening("a", vec![Opening::Fail(broken())]);
    assert_eq!(stage.try_start(strict).await.unwrap_err(), broken(), "unless it is to fail");
}
