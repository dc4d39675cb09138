//! Starting, ending, restarting and stopping under one_for_one: points 2 to 9 of OTP's contract.

use std::time::Duration;

use serde_json::json;
use supervisors::{
    ChildSpec, Class, EventKind, Failure, Restart, RootEnd, Shutdown, Started, Strategy, SupervisorSpec,
};

use crate::support::{Opening, Order, Stage, broken, pass, quiet, seconds};

fn one_for_one() -> SupervisorSpec {
    SupervisorSpec::new(Strategy::OneForOne).intensity(3, seconds(5))
}

#[tokio::test(start_paused = true)]
async fn test_start_is_in_order_and_stop_in_reverse() {
    let stage = Stage::default();
    stage.opening("a", vec![Opening::Slow(seconds(3))]);
    let spec = one_for_one().child(stage.starter("a")).child(stage.puppet("b")).child(stage.puppet("c"));
    let root = stage.start(spec).await;
    assert_eq!(stage.diary(), ["up a", "up b", "up c"]);
    root.stop().await;
    assert_eq!(stage.diary(), ["down c", "down b", "down a"]);
    assert_eq!(root.ended().await, RootEnd::Stopped);
    let all = "started a,started b,started c,started root,stopped c,stopped b,stopped a,stopped root";
    assert_eq!(stage.log.trace().join(","), all);
    assert!(!root.handle().is_alive());
}

#[tokio::test(start_paused = true)]
async fn test_initial_failure_stops_what_was_started_and_fails() {
    let stage = Stage::default();
    stage.opening("c", vec![Opening::Fail(broken())]);
    let spec = one_for_one().child(stage.puppet("a")).child(stage.puppet("b")).child(stage.starter("c"));
    let failure = stage.try_start(spec.child(stage.puppet("d"))).await.unwrap_err();
    assert_eq!(failure, broken());
    assert_eq!(stage.diary(), ["up a", "up b", "down b", "down a"]);
    assert_eq!(stage.log.trace().join(","), "started a,started b,failed c,stopped b,stopped a");
}

#[tokio::test(start_paused = true)]
async fn test_start_function_that_panics_is_a_failed_start() {
    let stage = Stage::default();
    let child = ChildSpec::start("a", |_| async { panic!("no luck") });
    let failure = stage.try_start(one_for_one().child(child)).await.unwrap_err();
    assert_eq!((failure.reason.class, failure.reason.code.as_str()), (Class::Bug, "panic"));
    assert!(failure.reason.message.starts_with("no luck (at "), "{failure}");
    let child = ChildSpec::task("a", |_| -> std::future::Ready<Result<(), Failure>> { panic!("none") });
    assert_eq!(stage.try_start(one_for_one().child(child)).await.unwrap_err().reason.code, "panic");
}

#[tokio::test(start_paused = true)]
async fn test_ignored_start_keeps_the_spec_unless_temporary() {
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
async fn test_start_info_reaches_caller_and_log() {
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

/// Ends a child of each restart type in each way; true = it was restarted, then whether its spec is kept.
#[tokio::test(start_paused = true)]
async fn test_restart_types_and_exit_classes() {
    let cases = [
        (Restart::Permanent, Order::Finish, true, true),
        (Restart::Permanent, Order::Fail(broken()), true, true),
        (Restart::Permanent, Order::Panic, true, true),
        (Restart::Transient, Order::Finish, false, true),
        (Restart::Transient, Order::Fail(broken()), true, true),
        (Restart::Transient, Order::Panic, true, true),
        (Restart::Temporary, Order::Finish, false, false),
        (Restart::Temporary, Order::Fail(broken()), false, false),
        (Restart::Temporary, Order::Panic, false, false),
    ];
    for (restart, order, restarted, kept) in cases {
        let stage = Stage::default();
        let root = stage.start(one_for_one().child(stage.puppet("a").restart(restart))).await;
        stage.tell("a", order.clone()).await;
        let counts = root.handle().count_children().await;
        assert_eq!((counts.active == 1, counts.specs == 1), (restarted, kept), "{restart:?} {order:?}");
        let clean = matches!((restart, &order), (Restart::Transient | Restart::Temporary, Order::Finish));
        let first = stage.log.events().into_iter().find(|event| event.kind != EventKind::Started).unwrap();
        assert_eq!(first.kind, if clean { EventKind::Stopped } else { EventKind::Failed }, "{restart:?} {order:?}");
        root.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn test_crash_restarts_only_that_child_and_is_told_in_one_incident() {
    let stage = Stage::default();
    let root = stage.start(one_for_one().child(stage.puppet("a")).child(stage.puppet("b"))).await;
    stage.log.clear();
    stage.crash("a").await;
    assert_eq!(stage.log.trace(), ["failed a", "restarting a", "restarted a"]);
    let events = stage.log.events();
    let incident = events[0].incident.clone().expect("incident");
    assert_eq!(incident.len(), 16);
    assert!(incident.chars().all(|c| c.is_ascii_hexdigit()));
    assert!(events.iter().all(|event| event.incident.as_ref() == Some(&incident)));
    assert_eq!(events[0].reason, Some(broken().reason));
    assert_eq!((events[0].incarnation, events[2].incarnation), (1, 2));
    assert_eq!(events[2].recovered_in, Some(Duration::ZERO));
    root.stop().await;
}

#[tokio::test(start_paused = true)]
async fn test_intensity_is_a_sliding_inclusive_window() {
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
    let end = root.ended().await;
    let incident = stage.log.of(EventKind::Escalated)[0].incident.clone().unwrap();
    assert_eq!(end, RootEnd::GaveUp { incident, reason: broken().reason });
    assert_eq!(stage.log.trace(), ["failed a", "escalated root", "stopped b", "stopped root"]);
}

#[tokio::test(start_paused = true)]
async fn test_failed_restarts_count_as_restarts() {
    let stage = Stage::default();
    let root = stage.start(one_for_one().child(stage.starter("a"))).await;
    stage.opening("a", vec![Opening::Fail(broken()); 10]);
    stage.crash("a").await;
    assert!(matches!(root.ended().await, RootEnd::GaveUp { .. }));
    assert_eq!(stage.log.of(EventKind::Restarting).len(), 3);
    assert_eq!(stage.log.of(EventKind::Failed).len(), 4);
}

#[tokio::test(start_paused = true)]
async fn test_shutdown_times_are_kept_and_late_children_killed() {
    let stage = Stage::default();
    let spec = one_for_one()
        .child(stage.puppet("patient").shutdown(Shutdown::Timeout(seconds(4))))
        .child(stage.puppet("brutal").shutdown(Shutdown::Brutal));
    let root = stage.start(spec).await;
    stage.tell("patient", Order::Deaf).await;
    stage.tell("brutal", Order::Deaf).await;
    let before = tokio::time::Instant::now();
    root.stop().await;
    assert_eq!(before.elapsed(), seconds(4));
    assert_eq!(stage.diary(), ["up patient", "up brutal", "down brutal", "down patient"]);
    let stopped = stage.log.of(EventKind::Stopped);
    assert_eq!(stopped[0].reason, None, "a brutal kill is what was asked for");
    assert_eq!(stopped[1].reason.as_ref().unwrap().code, "killed");
}

#[tokio::test(start_paused = true)]
async fn test_infinite_shutdown_waits() {
    let stage = Stage::default();
    let child = ChildSpec::task("a", |ctx| async move {
        ctx.stop.stopped().await;
        tokio::time::sleep(seconds(100_000)).await;
        Ok(())
    });
    let root = stage.start(one_for_one().child(child.shutdown(Shutdown::Infinity))).await;
    let before = tokio::time::Instant::now();
    root.stop().await;
    assert_eq!(before.elapsed(), seconds(100_000));
}

#[tokio::test(start_paused = true)]
async fn test_stop_ends_a_start_that_hangs() {
    let stage = Stage::default();
    let root = stage.start(one_for_one().child(stage.puppet("a"))).await;
    stage.opening("b", vec![Opening::Hang]);
    let handle = root.handle();
    let child = stage.starter("b");
    let caller = tokio::spawn(async move { handle.start_child(child).await });
    quiet().await;
    assert_eq!(root.handle().count_children().await.active, 2, "answers while a child is starting");
    let before = tokio::time::Instant::now();
    root.stop().await;
    assert_eq!(before.elapsed(), seconds(5));
    assert!(caller.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn test_start_timeout_is_a_failed_start() {
    let stage = Stage::default();
    stage.opening("a", vec![Opening::Hang]);
    let child = stage.starter("a").start_timeout(seconds(2)).shutdown(Shutdown::Brutal);
    let failure = stage.try_start(one_for_one().child(child)).await.unwrap_err();
    assert_eq!((failure.reason.class, failure.reason.code.as_str()), (Class::Hung, "start_timeout"));
}
