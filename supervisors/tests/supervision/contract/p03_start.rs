//! Point 3: how children are started, and what an unsuccessful start means.

use serde_json::json;
use supervisors::{
    ChildSpec, Class, EventKind, Failure, Restart, RootEnd, Shutdown, Started, Strategy, SupervisorSpec,
};

use crate::support::{Opening, Stage, broken, end_of, seconds, stop};

fn one_for_one() -> SupervisorSpec {
    SupervisorSpec::new(Strategy::OneForOne).intensity(3, seconds(5))
}

#[tokio::test(start_paused = true)]
async fn test_point_03_start_is_in_order_and_stop_in_reverse() {
    let stage = Stage::default();
    stage.opening("a", vec![Opening::Slow(seconds(3))]);
    let spec = one_for_one().child(stage.starter("a")).child(stage.puppet("b")).child(stage.puppet("c"));
    let root = stage.start(spec).await;
    assert_eq!(stage.diary(), ["up a", "up b", "up c"]);
    stop(&root).await;
    assert_eq!(stage.diary(), ["down c", "down b", "down a"]);
    assert_eq!(end_of(&root).await, RootEnd::Stopped);
    let all = "started a,started b,started c,started root,stopped c,stopped b,stopped a,stopped root";
    assert_eq!(stage.log.trace().join(","), all);
    assert!(!root.handle().is_alive());
}

#[tokio::test(start_paused = true)]
async fn test_point_03_initial_failure_stops_what_was_started_and_fails() {
    let stage = Stage::default();
    stage.opening("c", vec![Opening::Fail(broken())]);
    let spec = one_for_one().child(stage.puppet("a")).child(stage.puppet("b")).child(stage.starter("c"));
    let failure = stage.try_start(spec.child(stage.puppet("d"))).await.unwrap_err();
    assert_eq!(failure, broken());
    assert_eq!(stage.diary(), ["up a", "up b", "down b", "down a"]);
    assert_eq!(stage.log.trace().join(","), "started a,started b,failed c,stopped b,stopped a");
}

#[tokio::test(start_paused = true)]
async fn test_point_03_start_function_that_panics_is_a_failed_start() {
    let stage = Stage::default();
    let child = ChildSpec::start("a", |_| async { panic!("no luck") });
    let failure = stage.try_start(one_for_one().child(child)).await.unwrap_err();
    assert_eq!((failure.reason.class, failure.reason.code.as_str()), (Class::Bug, "panic"));
    assert!(failure.reason.message.starts_with("no luck (at "), "{failure}");
    let child = ChildSpec::task("a", |_| -> std::future::Ready<Result<(), Failure>> { panic!("none") });
    assert_eq!(stage.try_start(one_for_one().child(child)).await.unwrap_err().reason.code, "panic");
}

#[tokio::test(start_paused = true)]
async fn test_point_03_ignored_start_keeps_the_spec_unless_temporary() {
    let stage = Stage::default();
    stage.opening("a", vec![Opening::Ignore]);
    stage.opening("b", vec![Opening::Ignore]);
    let temporary = stage.starter("b").restart(Restart::Temporary);
    let root = stage.start(one_for_one().child(stage.starter("a")).child(temporary)).await;
    let counts = root.handle().count_children().await;
    assert_eq!((counts.specs, counts.active), (1, 0));
    root.handle().restart_child("a").await.unwrap();
    assert_eq!(root.handle().count_children().await.active, 1);
}

#[tokio::test(start_paused = true)]
async fn test_point_03_start_info_reaches_caller_and_log() {
    let stage = Stage::default();
    let child = || {
        ChildSpec::start("a", |ctx| async move {
            let run = async move {
                ctx.stop.stopped().await;
                Ok(())
            };
            Ok(Started::task(run).with_info(json!({"epoch": 4})))
        })
    };
    let root = stage.start(one_for_one()).await;
    assert_eq!(root.handle().start_child(child()).await.unwrap(), json!({"epoch": 4}));
    root.handle().bounce_child("a").await.unwrap();
    assert_eq!(stage.log.of(EventKind::Restarted)[0].info, Some(json!({"epoch": 4})));
}

#[tokio::test(start_paused = true)]
async fn test_point_03_start_timeout_is_a_failed_start() {
    let stage = Stage::default();
    stage.opening("a", vec![Opening::Hang]);
    let child = stage.starter("a").start_timeout(seconds(2)).shutdown(Shutdown::Brutal);
    let failure = stage.try_start(one_for_one().child(child)).await.unwrap_err();
    assert_eq!((failure.reason.class, failure.reason.code.as_str()), (Class::Hung, "start_timeout"));
}

#[tokio::test(start_paused = true)]
async fn test_point_03_ignored_start_under_a_dynamic_supervisor_keeps_nothing() {
    let stage = Stage::default();
    let root = stage.start(SupervisorSpec::dynamic()).await;
    stage.opening("a", vec![Opening::Ignore]);
    assert_eq!(root.handle().start_child(stage.starter("a")).await, Ok(json!(null)));
    assert_eq!(root.handle().count_children().await.specs, 0);
}

#[tokio::test(start_paused = true)]
async fn test_point_03_initial_failure_in_every_place_stops_in_reverse() {
    for failing in 0..3 {
        let stage = Stage::default();
        let ids = ["a", "b", "c"];
        stage.opening(ids[failing], vec![Opening::Fail(broken())]);
        let spec = ids.iter().fold(one_for_one(), |spec, id| spec.child(stage.starter(id)));
        assert_eq!(stage.try_start(spec).await.unwrap_err(), broken());
        let ups = ids[..failing].iter().map(|id| format!("up {id}"));
        let downs = ids[..failing].iter().rev().map(|id| format!("down {id}"));
        assert_eq!(stage.diary(), ups.chain(downs).collect::<Vec<_>>());
    }
}
