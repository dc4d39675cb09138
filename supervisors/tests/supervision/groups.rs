//! one_for_all and rest_for_one: points 5 and 7.

use supervisors::{Backoff, Class, EventKind, Failure, Restart, RestartPolicy, Strategy, SupervisorSpec};

use crate::support::{Opening, Order, Stage, broken, pass, quiet, seconds};

fn three(stage: &Stage, strategy: Strategy) -> SupervisorSpec {
    let spec = SupervisorSpec::new(strategy).intensity(5, seconds(5));
    spec.child(stage.starter("a")).child(stage.starter("b")).child(stage.starter("c"))
}

#[tokio::test(start_paused = true)]
async fn test_one_for_all_stops_in_reverse_and_starts_in_order() {
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
async fn test_rest_for_one_leaves_earlier_children_alone() {
    let stage = Stage::default();
    let _root = stage.start(three(&stage, Strategy::RestForOne)).await;
    stage.diary();
    stage.crash("b").await;
    assert_eq!(stage.diary(), ["down b", "down c", "up b", "up c"]);
}

#[tokio::test(start_paused = true)]
async fn test_simultaneous_crashes_are_one_restart() {
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
async fn test_temporary_siblings_are_not_restarted_and_trigger_nothing() {
    let stage = Stage::default();
    let temporary = stage.puppet("t").restart(Restart::Temporary);
    let root = stage.start(three(&stage, Strategy::OneForAll).child(temporary)).await;
    stage.log.clear();
    stage.crash("a").await;
    assert_eq!(root.handle().count_children().await.specs, 3);
    let again = stage.puppet("t").restart(Restart::Temporary);
    root.handle().start_child(again).await.unwrap();
    stage.log.clear();
    stage.crash("t").await;
    assert_eq!(stage.log.trace(), ["failed t"]);
}

#[tokio::test(start_paused = true)]
async fn test_group_restart_starts_those_that_were_terminated_or_had_finished() {
    let stage = Stage::default();
    let finished = stage.puppet("d").restart(Restart::Transient);
    let root = stage.start(three(&stage, Strategy::OneForAll).child(finished)).await;
    root.handle().terminate_child("a").await.unwrap();
    stage.tell("d", Order::Finish).await;
    assert_eq!(root.handle().count_children().await.active, 2);
    stage.crash("b").await;
    assert_eq!(root.handle().count_children().await.active, 4);
}

#[tokio::test(start_paused = true)]
async fn test_failed_restart_resumes_at_the_failed_child_or_redoes_all() {
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
async fn test_delay_delays_the_whole_group_and_management_is_served() {
    let stage = Stage::default();
    let policy = RestartPolicy::default().backoff(Backoff { min: seconds(4), jitter: 0.0, ..Backoff::default() });
    let root = stage.start(three(&stage, Strategy::RestForOne).policy(policy)).await;
    stage.diary();
    stage.crash("b").await;
    assert_eq!(stage.diary(), ["down b", "down c"]);
    assert_eq!(root.handle().count_children().await.active, 1);
    pass(seconds(3)).await;
    assert!(stage.diary().is_empty());
    pass(seconds(1)).await;
    assert_eq!(stage.diary(), ["up b", "up c"]);
    stage.crash("b").await;
    stage.diary();
    root.handle().restart_child("b").await.unwrap();
    quiet().await;
    assert_eq!(stage.diary(), ["up b", "up c"], "retry now");
}

#[tokio::test(start_paused = true)]
async fn test_terminating_the_cause_lets_the_others_go_on() {
    let stage = Stage::default();
    let policy = RestartPolicy::default().backoff(Backoff { min: seconds(4), ..Backoff::default() });
    let root = stage.start(three(&stage, Strategy::OneForAll).policy(policy)).await;
    stage.crash("b").await;
    stage.diary();
    root.handle().terminate_child("b").await.unwrap();
    quiet().await;
    assert_eq!(stage.diary(), ["up a", "up c"]);
}

#[tokio::test(start_paused = true)]
async fn test_crash_of_an_earlier_child_widens_a_restart_in_progress() {
    let stage = Stage::default();
    let root = stage.start(three(&stage, Strategy::RestForOne)).await;
    stage.opening("c", vec![Opening::Slow(seconds(10))]);
    stage.crash("b").await;
    stage.diary();
    stage.crash("a").await;
    pass(seconds(20)).await;
    assert_eq!(stage.diary(), ["down a", "down b", "up a", "up b", "up c"]);
    assert_eq!(root.handle().count_children().await.active, 3);
}

#[tokio::test(start_paused = true)]
async fn test_parked_child_of_a_group_holds_back_those_after_it() {
    let stage = Stage::default();
    let policy = RestartPolicy::default().park_on([Class::Config]).probe(seconds(60));
    let root = stage.start(three(&stage, Strategy::RestForOne).policy(policy)).await;
    stage.diary();
    stage.tell("b", Order::Fail(Failure::new(Class::Config, "bad_key", "no such key"))).await;
    assert_eq!(stage.diary(), ["down b", "down c"]);
    pass(seconds(59)).await;
    assert!(stage.diary().is_empty());
    pass(seconds(1)).await;
    assert_eq!(stage.diary(), ["up b", "up c"]);
    assert_eq!(root.handle().snapshot().await.restarts_in_window, 0);
}

#[tokio::test(start_paused = true)]
async fn test_bounce_restarts_the_group_without_using_intensity() {
    let stage = Stage::default();
    let root = stage.start(three(&stage, Strategy::RestForOne)).await;
    stage.diary();
    root.handle().bounce_child("b").await.unwrap();
    quiet().await;
    assert_eq!(stage.diary(), ["down b", "down c", "up b", "up c"]);
    assert_eq!(root.handle().snapshot().await.restarts_in_window, 0);
    assert!(stage.log.of(EventKind::Failed).is_empty());
}

#[tokio::test(start_paused = true)]
async fn test_request_during_a_group_restart_is_answered_though_the_childs_turn_is_over() {
    let stage = Stage::default();
    let root = stage.start(three(&stage, Strategy::OneForAll)).await;
    stage.opening("a", vec![Opening::Ignore]);
    stage.opening("c", vec![Opening::Slow(seconds(10))]);
    stage.crash("b").await;
    root.handle().restart_child("a").await.unwrap();
    assert_eq!(root.handle().count_children().await.active, 3);
}

#[tokio::test(start_paused = true)]
async fn test_delay_of_an_absorbed_restart_is_still_kept() {
    let stage = Stage::default();
    let policy = RestartPolicy::default().backoff(Backoff { min: seconds(2), jitter: 0.0, ..Backoff::default() });
    let _root = stage.start(three(&stage, Strategy::RestForOne).policy(policy)).await;
    stage.diary();
    let limited = Failure::new(Class::RateLimited, "http_429", "slow down").retry_after(seconds(60));
    stage.tell("b", Order::Fail(limited)).await;
    stage.crash("a").await;
    pass(seconds(50)).await;
    assert_eq!(stage.diary(), ["down b", "down c", "down a"]);
    pass(seconds(10)).await;
    assert_eq!(stage.diary(), ["up a", "up b", "up c"]);
}

#[tokio::test(start_paused = true)]
async fn test_child_that_ends_during_the_first_start_is_handled_after_it() {
    let stage = Stage::default();
    stage.opening("c", vec![Opening::Slow(seconds(10))]);
    let early = supervisors::ChildSpec::task("b", |ctx| async move {
        if ctx.incarnation == 1 {
            return Err(broken());
        }
        ctx.stop.stopped().await;
        Ok(())
    });
    let spec = SupervisorSpec::new(Strategy::OneForAll).child(stage.puppet("a")).child(early).child(stage.starter("c"));
    let root = stage.start(spec).await;
    assert_eq!(stage.diary(), ["up a", "up c", "down c", "down a", "up a", "up c"]);
    assert_eq!(root.handle().count_children().await.active, 3);
}

#[tokio::test(start_paused = true)]
async fn test_crash_of_a_new_child_does_not_lose_those_still_to_be_started() {
    let stage = Stage::default();
    let root = stage.start(three(&stage, Strategy::RestForOne)).await;
    stage.opening("b", vec![Opening::Slow(seconds(3))]);
    stage.crash("a").await;
    root.handle().start_child(stage.puppet("d")).await.unwrap();
    stage.crash("d").await;
    pass(seconds(20)).await;
    assert_eq!(root.handle().count_children().await.active, 4);
}
