//! Dynamic children are stopped together, under one timer.

use std::time::Duration;

use supervisors::{ChildSpec, Shutdown, StopOutcome, SupervisorSpec};
use tokio::time::Instant;

use crate::support::{Stage, seconds};

fn deaf(id: usize) -> ChildSpec {
    ChildSpec::task(id.to_string(), |_| std::future::pending())
}

#[tokio::test(start_paused = true)]
async fn test_dynamic_shutdown_runs_all_limits_from_one_moment() {
    let stage = Stage::default();
    let spec = (0..500).map(deaf).fold(SupervisorSpec::dynamic(), SupervisorSpec::child);
    let root = stage.start(spec).await;
    let report = root.stop().await;
    assert_eq!(report.took, seconds(5), "the limit of one, not the sum");
    assert_eq!(report.children.len(), 500);
    assert!(report.children.iter().all(|child| child.stop.outcome == StopOutcome::Killed));
}

#[tokio::test(start_paused = true)]
async fn test_dynamic_shutdown_honours_each_childs_own_limit() {
    let stage = Stage::default();
    let limit = |id: usize, shutdown| deaf(id).shutdown(shutdown);
    let talkative = ChildSpec::task("late", |ctx| async move {
        ctx.stop.stopped().await;
        tokio::time::sleep(seconds(30)).await;
        Ok(())
    });
    let spec = SupervisorSpec::dynamic()
        .child(limit(0, Shutdown::Brutal))
        .child(limit(1, Shutdown::Timeout(seconds(2))))
        .child(limit(2, Shutdown::Timeout(Duration::ZERO)))
        .child(limit(3, Shutdown::Timeout(seconds(9))).drain(seconds(1)))
        .child(talkative.shutdown(Shutdown::Infinity));
    let before = Instant::now();
    let report = stage.start(spec).await.stop().await;
    let took = |id: &str| {
        let path = format!("root/{id}");
        report.children.iter().find(|child| child.path.as_str() == path).unwrap().stop.took.as_secs()
    };
    assert_eq!([took("0"), took("1"), took("2"), took("3"), took("late")], [0, 2, 0, 10, 30]);
    assert_eq!(before.elapsed().as_secs(), 30);
}
