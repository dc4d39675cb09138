//! Point 5: who is stopped and started with whom, and in which order.

use std::time::Duration;

use supervisors::{EventKind, Restart, Shutdown, Strategy, SupervisorSpec};

use crate::support::{Order, Stage, broken, quiet, seconds, stop};

fn one_for_one() -> SupervisorSpec {
    SupervisorSpec::new(Strategy::OneForOne).intensity(3, seconds(5))
}

fn three(stage: &Stage, strategy: Strategy) -> SupervisorSpec {
    let spec = SupervisorSpec::new(strategy).intensity(5, seconds(5));
    spec.child(stage.starter("a")).child(stage.starter("b")).child(stage.starter("c"))
}

#[tokio::test(start_paused = true)]
async fn test_point_05_crash_restarts_only_that_child_and_is_told_in_one_incident() {
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
    stop(&root).await;
}

#[tokio::test(start_paused = true)]
async fn test_point_05_one_for_all_is_told_in_one_incident_with_blame() {
    let stage = Stage::default();
    let _root = stage.start(three(&stage, Strategy::OneForAll)).await;
    stage.diary();
    stage.log.clear();
    stage.crash("b").await;
    assert_eq!(stage.diary(), ["down b", "down c", "down a", "up a", "up b", "up c"]);
    let trace = "failed b,restarting b,stopped c,stopped a,restarted a,restarted b,restarted c";
    assert_eq!(stage.log.trace().join(","), trace);
    let events = stage.log.events();
    assert!(events.iter().all(|event| event.incident == events[0].incident && event.incident.is_some()));
    let blamed = |event: &supervisors::Event| event.because_of.as_ref().map(ToString::to_string);
    assert_eq!(blamed(&events[4]).as_deref(), Some("root/b"));
    assert_eq!(blamed(&events[5]), None);
    assert_eq!(events[4].strategy, Some(Strategy::OneForAll));
}

#[tokio::test(start_paused = true)]
async fn test_point_05_simultaneous_crashes_are_one_restart() {
    for strategy in [Strategy::OneForAll, Strategy::RestForOne] {
        let stage = Stage::default();
        let root = stage.start(three(&stage, strategy)).await;
        stage.log.clear();
        stage.order("a", Order::Fail(broken()));
        stage.order("b", Order::Fail(broken()));
        stage.order("c", Order::Fail(broken()));
        quiet().await;
        assert_eq!(stage.log.of(EventKind::Restarting).len(), 1, "{strategy:?}");
        assert_eq!(root.handle().snapshot().await.restarts_in_window, 1);
        assert_eq!(root.handle().count_children().await.active, 3);
    }
}

#[tokio::test(start_paused = true)]
async fn test_point_05_temporary_siblings_are_not_restarted_and_trigger_nothing() {
    let stage = Stage::default();
    let temporary = stage.puppet("t").restart(Restart::Temporary);
    let root = stage.start(three(&stage, Strategy::OneForAll).child(temporary)).await;
    stage.log.clear();
    stage.crash("a").await;
    assert_eq!(root.handle().count_children().await.specs, 3);
    assert_eq!(stage.log.of(EventKind::Failed).len(), 1, "nobody tries to start it");
    let again = stage.puppet("t").restart(Restart::Temporary);
    root.handle().start_child(again).await.unwrap();
    stage.log.clear();
    stage.crash("t").await;
    assert_eq!(stage.log.trace(), ["failed t"]);
}

#[tokio::test(start_paused = true)]
async fn test_point_05_group_restart_starts_those_that_were_terminated_or_had_finished() {
    let stage = Stage::default();
    let finished = stage.puppet("d").restart(Restart::Transient);
    let root = stage.start(three(&stage, Strategy::OneForAll).child(finished)).await;
    root.handle().terminate_child("a").await.unwrap();
    stage.tell("d", Order::Finish).await;
    assert_eq!(root.handle().count_children().await.active, 2);
    stage.crash("b").await;
    assert_eq!(root.handle().count_children().await.active, 4);
}

/// Each strategy with a crash in each place.
#[tokio::test(start_paused = true)]
async fn test_point_05_order_of_stops_and_starts() {
    let cases = [
        (Strategy::OneForOne, "a", "down a,up a"),
        (Strategy::OneForOne, "b", "down b,up b"),
        (Strategy::OneForOne, "d", "down d,up d"),
        (Strategy::OneForAll, "a", "down a,down d,down c,down b,up a,up b,up c,up d"),
        (Strategy::OneForAll, "b", "down b,down d,down c,down a,up a,up b,up c,up d"),
        (Strategy::OneForAll, "d", "down d,down c,down b,down a,up a,up b,up c,up d"),
        (Strategy::RestForOne, "a", "down a,down d,down c,down b,up a,up b,up c,up d"),
        (Strategy::RestForOne, "b", "down b,down d,down c,up b,up c,up d"),
        (Strategy::RestForOne, "c", "down c,down d,up c,up d"),
        (Strategy::RestForOne, "d", "down d,up d"),
    ];
    for (strategy, crashing, expected) in cases {
        let stage = Stage::default();
        let root = stage.start(three(&stage, strategy).child(stage.puppet("d"))).await;
        stage.diary();
        stage.crash(crashing).await;
        assert_eq!(stage.diary().join(","), expected, "{strategy:?} {crashing}");
        assert_eq!(root.handle().snapshot().await.restarts_in_window, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn test_point_05_siblings_are_stopped_one_by_one_each_in_its_own_way() {
    let stage = Stage::default();
    let spec = three(&stage, Strategy::OneForAll)
        .child(stage.puppet("brutal").shutdown(Shutdown::Brutal))
        .child(stage.puppet("patient").shutdown(Shutdown::Timeout(seconds(3))));
    let _root = stage.start(spec).await;
    stage.tell("patient", Order::Deaf).await;
    stage.tell("brutal", Order::Deaf).await;
    stage.diary();
    stage.crash("a").await;
    assert_eq!(stage.diary(), ["down a"], "the patient one is last in the order and holds up the others");
    tokio::time::sleep(seconds(3) - Duration::from_millis(2)).await;
    assert!(stage.diary().is_empty());
    tokio::time::sleep(Duration::from_millis(2)).await;
    let rest = ["down patient", "down brutal", "down c", "down b", "up a", "up b", "up c", "up brutal", "up patient"];
    assert_eq!(stage.diary(), rest);
}

#[tokio::test(start_paused = true)]
async fn test_point_05_simultaneous_crashes_under_one_for_one_are_two_restarts() {
    let stage = Stage::default();
    let root = stage.start(three(&stage, Strategy::OneForOne)).await;
    stage.order("a", Order::Fail(broken()));
    stage.order("b", Order::Fail(broken()));
    quiet().await;
    assert_eq!(root.handle().snapshot().await.restarts_in_window, 2);
}

#[tokio::test(start_paused = true)]
async fn test_point_05_earlier_crash_in_the_same_moment_is_one_more_restart_under_rest_for_one() {
    let stage = Stage::default();
    let root = stage.start(three(&stage, Strategy::RestForOne)).await;
    stage.diary();
    // The end of a is no part of what b sets off: a comes before it.
    stage.order("b", Order::Fail(broken()));
    stage.order("a", Order::Fail(broken()));
    quiet().await;
    assert_eq!(root.handle().snapshot().await.restarts_in_window, 2);
    assert_eq!(root.handle().count_children().await.active, 3);
}
