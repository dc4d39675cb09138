//! Point 12: what is kept, and what is let go.

use std::sync::Arc;

use supervisors::{ChildSpec, Restart, SupervisorSpec};

use crate::support::{Order, Stage, quiet, stop};

#[tokio::test(start_paused = true)]
async fn test_point_12_what_started_a_temporary_child_is_let_go() {
    for restart in [Restart::Permanent, Restart::Transient, Restart::Temporary] {
        let stage = Stage::default();
        let held = Arc::new(());
        let load = Arc::clone(&held);
        let child = ChildSpec::task("a", move |ctx| {
            let _ = &load;
            async move {
                ctx.stop.stopped().await;
                Ok(())
            }
        });
        let root = stage.start(SupervisorSpec::default()).await;
        root.handle().start_child(child.restart(restart)).await.unwrap();
        let kept = Arc::strong_count(&held) > 1;
        assert_eq!(kept, restart != Restart::Temporary, "{restart:?}");
        stop(&root).await;
    }
}

#[tokio::test(start_paused = true)]
async fn test_point_12_nothing_is_kept_of_children_that_are_gone() {
    let stage = Stage::default();
    let root = stage.start(SupervisorSpec::dynamic()).await;
    let held = Arc::new(());
    for round in 0..100 {
        let load = Arc::clone(&held);
        let id = format!("k{round}");
        let child = ChildSpec::task(id.clone(), move |ctx| {
            let load = Arc::clone(&load);
            async move {
                ctx.stop.stopped().await;
                drop(load);
                Ok(())
            }
        });
        root.handle().start_child(child.restart(Restart::Transient)).await.unwrap();
        root.handle().terminate_child(&id).await.unwrap();
    }
    root.handle().start_child(stage.puppet("z").restart(Restart::Transient)).await.unwrap();
    stage.tell("z", Order::Finish).await;
    quiet().await;
    assert_eq!(Arc::strong_count(&held), 1);
    assert_eq!(root.handle().count_children().await.specs, 0);
    assert!(root.handle().snapshot().await.children.is_empty());
}
