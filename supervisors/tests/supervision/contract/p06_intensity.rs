//! Point 6: how many restarts are too many.

use std::time::Duration;

use supervisors::{EventKind, RootEnd, Strategy, SupervisorSpec};

use crate::support::{Opening, Stage, broken, end_of, pass, seconds};

fn one_for_one() -> SupervisorSpec {
    SupervisorSpec::new(Strategy::OneForOne).intensity(3, seconds(5))
}

#[tokio::test(start_paused = true)]
async fn test_point_06_intensity_is_a_sliding_window() {
    let stage = Stage::default();
    let spec = SupervisorSpec::new(Strategy::OneForOne).intensity(2, seconds(10));
    let root = stage.start(spec.child(stage.puppet("a")).child(stage.puppet("b"))).await;
    for _ in 0..4 {
        stage.crash("a").await;
        pass(seconds(6)).await;
    }
    assert!(root.handle().is_alive());
    stage.crash("a").await;
    stage.log.clear();
    stage.crash("a").await;
    let end = end_of(&root).await;
    let incident = stage.log.of(EventKind::Escalated)[0].incident.clone().unwrap();
    assert_eq!(end, RootEnd::GaveUp { incident, reason: broken().reason });
    assert_eq!(stage.log.trace(), ["failed a", "escalated root", "stopped b", "stopped root"]);
}

#[tokio::test(start_paused = true)]
async fn test_point_06_failed_restarts_count_as_restarts() {
    let stage = Stage::default();
    let root = stage.start(one_for_one().child(stage.starter("a"))).await;
    stage.opening("a", vec![Opening::Fail(broken()); 10]);
    stage.crash("a").await;
    assert!(matches!(end_of(&root).await, RootEnd::GaveUp { .. }));
    assert_eq!(stage.log.of(EventKind::Restarting).len(), 3);
    assert_eq!(stage.log.of(EventKind::Failed).len(), 4);
}

#[tokio::test(start_paused = true)]
async fn test_point_06_boundary_of_the_window_is_included() {
    for (gap, alive) in [(4999, false), (5000, false), (5001, true)] {
        let stage = Stage::default();
        let root = stage.start(SupervisorSpec::default().intensity(1, seconds(5)).child(stage.puppet("a"))).await;
        // `crash` itself takes the millisecond that it waits afterwards.
        stage.crash("a").await;
        tokio::time::sleep(Duration::from_millis(gap - 1)).await;
        stage.crash("a").await;
        assert_eq!(root.handle().is_alive(), alive, "{gap} ms apart");
    }
}

#[tokio::test(start_paused = true)]
async fn test_point_06_number_of_restarts_allowed_is_exact() {
    for strategy in [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne] {
        for most in 0..4 {
            let stage = Stage::default();
            let spec = SupervisorSpec::new(strategy).intensity(most, seconds(5));
            let root = stage.start(spec.child(stage.puppet("a")).child(stage.puppet("b"))).await;
            for restart in 0..most {
                // One window for all children together.
                stage.crash(if restart % 2 == 0 { "a" } else { "b" }).await;
                assert!(root.handle().is_alive(), "{strategy:?} {most}");
            }
            stage.diary();
            stage.crash("a").await;
            assert!(matches!(end_of(&root).await, RootEnd::GaveUp { .. }), "{strategy:?} {most}");
            assert_eq!(stage.diary(), ["down a", "down b"], "{strategy:?} {most}");
        }
    }
}
