//! Point 7: restarts that fail.

use supervisors::{ChildSpec, EventKind, ManageError, Strategy, SupervisorSpec};

use crate::support::{Opening, Stage, broken, seconds, stop};

fn three(stage: &Stage, strategy: Strategy) -> SupervisorSpec {
    let spec = SupervisorSpec::new(strategy).intensity(5, seconds(5));
    spec.child(stage.starter("a")).child(stage.starter("b")).child(stage.starter("c"))
}

#[tokio::test(start_paused = true)]
async fn test_point_07_failed_restart_resumes_at_the_failed_child_or_redoes_all() {
    let cases = [
        (Strategy::RestForOne, vec!["down a", "down c", "down b", "up a", "up b", "up c"]),
        (Strategy::OneForAll, vec!["down a", "down c", "down b", "up a", "down a", "up a", "up b", "up c"]),
    ];
    for (strategy, expected) in cases {
        let stage = Stage::default();
        let root = stage.start(three(&stage, strategy)).await;
        stage.diary();
        stage.opening("b", vec![Opening::Fail(broken())]);
        stage.crash("a").await;
        assert_eq!(stage.diary(), expected, "{strategy:?}");
        assert_eq!(root.handle().snapshot().await.restarts_in_window, 2);
        let events = stage.log.of(EventKind::Failed);
        assert_eq!(events[1].incident, events[0].incident, "one incident from the first cause on");
    }
}

#[tokio::test(start_paused = true)]
async fn test_point_07_calls_are_served_while_a_restart_hangs() {
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

/// Where a group restart goes on when one of its children does not start.
#[tokio::test(start_paused = true)]
async fn test_point_07_resume_of_every_strategy_at_every_failed_child() {
    let cases = [
        (Strategy::OneForOne, "a", "a", "down a,up a"),
        (Strategy::RestForOne, "a", "a", "down a,down c,down b,up a,up b,up c"),
        (Strategy::RestForOne, "a", "c", "down a,down c,down b,up a,up b,up c"),
        (Strategy::RestForOne, "b", "c", "down b,down c,up b,up c"),
        (Strategy::OneForAll, "b", "a", "down b,down c,down a,up a,up b,up c"),
        (Strategy::OneForAll, "b", "b", "down b,down c,down a,up a,down a,up a,up b,up c"),
        (Strategy::OneForAll, "a", "c", "down a,down c,down b,up a,up b,down b,down a,up a,up b,up c"),
    ];
    for (strategy, crashing, failing, expected) in cases {
        let stage = Stage::default();
        let root = stage.start(three(&stage, strategy)).await;
        stage.diary();
        stage.opening(failing, vec![Opening::Fail(broken())]);
        stage.crash(crashing).await;
        assert_eq!(stage.diary().join(","), expected, "{strategy:?} {crashing} {failing}");
        assert_eq!(root.handle().snapshot().await.restarts_in_window, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn test_point_07_retry_comes_at_once_and_the_end_of_the_supervisor_between_attempts() {
    let stage = Stage::default();
    let slow = || vec![Opening::Slow(seconds(1)), Opening::Fail(broken()), Opening::Slow(seconds(1))];
    let root = stage.start(SupervisorSpec::default().intensity(9, seconds(60)).child(stage.starter("a"))).await;
    stage.opening("a", slow());
    let before = tokio::time::Instant::now();
    stage.crash("a").await;
    stop(&root).await;
    assert!(before.elapsed() < seconds(2), "no attempt follows once the supervisor ends");
    assert!(!root.handle().is_alive());
}

#[tokio::test(start_paused = true)]
async fn test_point_07_child_started_by_hand_during_a_restart_is_part_of_the_next() {
    let stage = Stage::default();
    let backoff = supervisors::Backoff { min: seconds(4), jitter: 0.0, ..supervisors::Backoff::default() };
    let policy = supervisors::RestartPolicy::default().backoff(backoff);
    let root = stage.start(three(&stage, Strategy::OneForAll).policy(policy)).await;
    stage.crash("a").await;
    root.handle().terminate_child("b").await.unwrap();
    root.handle().restart_child("b").await.unwrap();
    stage.crash("b").await;
    tokio::time::sleep(seconds(60)).await;
    assert_eq!(root.handle().count_children().await.active, 3);
}

#[tokio::test(start_paused = true)]
async fn test_point_07_end_during_a_patient_first_start_is_not_lost() {
    let stage = Stage::default();
    stage.opening("c", vec![Opening::Slow(seconds(1))]);
    stage.opening("d", vec![Opening::Fail(broken())]);
    let early = ChildSpec::task("b", |ctx| async move {
        if ctx.incarnation == 1 {
            return Err(broken());
        }
        ctx.stop.stopped().await;
        Ok(())
    });
    let spec = SupervisorSpec::new(Strategy::RestForOne).intensity(9, seconds(5));
    let spec = spec.initial_failure(supervisors::InitialFailure::Retry).child(early);
    let root = stage.start(spec.child(stage.starter("c")).child(stage.starter("d"))).await;
    assert_eq!(root.handle().count_children().await.active, 3);
}
