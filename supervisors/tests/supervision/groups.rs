//! one_for_all and rest_for_one: points 5 and 7.

use supervisors::{Backoff, Class, EventKind, Failure, RestartPolicy, Strategy, SupervisorSpec};

use crate::support::{Opening, Order, Stage, broken, pass, quiet, seconds};

fn three(stage: &Stage, strategy: Strategy) -> SupervisorSpec {
    let spec = SupervisorSpec::new(strategy).intensity(5, seconds(5));
    spec.child(stage.starter("a")).child(stage.starter("b")).child(stage.starter("c"))
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
