//! The warning before the limit of restarts.

use supervisors::{EventKind, OnLimit, SupervisorSpec, WindowUse};

use crate::support::{Stage, pass, seconds};

fn warnings(stage: &Stage) -> Vec<bool> {
    stage.log.of(EventKind::Restarting).iter().map(|event| event.window.unwrap().warning).collect()
}

#[tokio::test(start_paused = true)]
async fn test_intensity_warning_at_half_of_the_window_once_a_crossing() {
    let stage = Stage::default();
    let spec = SupervisorSpec::default().intensity(6, seconds(60)).child(stage.puppet("a")).child(stage.puppet("b"));
    let root = stage.start(spec).await;
    stage.crash("a").await;
    stage.crash("b").await;
    assert!(!root.handle().snapshot().await.restarts_warning);
    stage.crash("a").await;
    stage.crash("a").await;
    assert_eq!(warnings(&stage), [false, false, true, false]);
    let used = stage.log.of(EventKind::Restarting)[2].window.unwrap();
    assert_eq!(used, WindowUse { used: 3, limit: 6, window: seconds(60), warning: true });
    let view = root.handle().snapshot().await;
    assert_eq!((view.restarts_warning, view.restarts_in_window, view.restarts_left), (true, 4, Some(2)));
    pass(seconds(61)).await;
    assert!(!root.handle().snapshot().await.restarts_warning);
    for _ in 0..3 {
        stage.crash("b").await;
    }
    assert_eq!(warnings(&stage)[4..], [false, false, true], "a new crossing, a new warning");
}

#[tokio::test(start_paused = true)]
async fn test_intensity_warning_is_the_childs_own_where_limits_are() {
    let stage = Stage::default();
    let spec = SupervisorSpec::default().intensity(4, seconds(60)).on_limit(OnLimit::ParkChild);
    let root = stage.start(spec.child(stage.puppet("a")).child(stage.puppet("b"))).await;
    for path in ["a", "b", "a"] {
        stage.crash(path).await;
    }
    assert_eq!(warnings(&stage), [false, false, true]);
    let children = root.handle().snapshot().await.children;
    assert_eq!((children[0].restarts_warning, children[1].restarts_warning), (true, false));
}
