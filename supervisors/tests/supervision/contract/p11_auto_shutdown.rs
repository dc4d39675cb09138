//! Point 11: significant children and auto-shutdown.

use supervisors::{
    AutoShutdown, Backoff, ChildSpec, Class, Failure, Restart, RestartPolicy, RootEnd, Strategy, SupervisorSpec,
};

use crate::support::{Order, Stage, broken, end_of, quiet, seconds};

fn tree(stage: &Stage, auto: AutoShutdown, restart: Restart) -> SupervisorSpec {
    let child = |id| stage.puppet(id).restart(restart).significant(true);
    let spec = SupervisorSpec::new(Strategy::OneForOne).intensity(5, seconds(5)).auto_shutdown(auto);
    spec.child(child("a")).child(child("b")).child(stage.puppet("c"))
}

#[tokio::test(start_paused = true)]
async fn test_point_11_auto_shutdown_in_all_combinations() {
    // (auto-shutdown, restart type, order to a, ends after a, ends after a and b)
    let cases = [
        (AutoShutdown::AnySignificant, Restart::Transient, Order::Finish, true, true),
        (AutoShutdown::AnySignificant, Restart::Transient, Order::Fail(broken()), false, true),
        (AutoShutdown::AnySignificant, Restart::Temporary, Order::Finish, true, true),
        (AutoShutdown::AnySignificant, Restart::Temporary, Order::Fail(broken()), true, true),
        (AutoShutdown::AllSignificant, Restart::Transient, Order::Finish, false, true),
        (AutoShutdown::AllSignificant, Restart::Transient, Order::Fail(broken()), false, false),
        (AutoShutdown::AllSignificant, Restart::Temporary, Order::Finish, false, true),
        (AutoShutdown::AllSignificant, Restart::Temporary, Order::Fail(broken()), false, true),
    ];
    for (auto, restart, order, after_one, after_both) in cases {
        let stage = Stage::default();
        let root = stage.start(tree(&stage, auto, restart)).await;
        stage.tell("a", order.clone()).await;
        assert_eq!(!root.handle().is_alive(), after_one, "{auto:?} {restart:?} {order:?}");
        if !after_one {
            stage.tell("b", Order::Finish).await;
            assert_eq!(!root.handle().is_alive(), after_both, "{auto:?} {restart:?} {order:?}");
        }
        if after_both {
            assert_eq!(end_of(&root).await, RootEnd::Stopped);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn test_point_11_terminating_significant_children_ends_nothing() {
    for auto in [AutoShutdown::AnySignificant, AutoShutdown::AllSignificant] {
        let stage = Stage::default();
        let root = stage.start(tree(&stage, auto, Restart::Transient)).await;
        root.handle().terminate_child("a").await.unwrap();
        root.handle().terminate_child("b").await.unwrap();
        quiet().await;
        assert!(root.handle().is_alive());
    }
}

#[tokio::test(start_paused = true)]
async fn test_point_11_stop_by_a_siblings_restart_ends_nothing() {
    let stage = Stage::default();
    let spec = tree(&stage, AutoShutdown::AnySignificant, Restart::Temporary);
    let root = stage.start(SupervisorSpec { strategy: Strategy::OneForAll, ..spec }).await;
    stage.crash("c").await;
    assert!(root.handle().is_alive());
    assert_eq!(root.handle().count_children().await.specs, 1);
}

#[tokio::test(start_paused = true)]
async fn test_point_11_auto_shutdown_travels_up_through_significant_supervisors() {
    let stage = Stage::default();
    let lower = stage.clone();
    let sup = ChildSpec::supervisor("sup", move |_| {
        let spec = tree(&lower, AutoShutdown::AnySignificant, Restart::Transient);
        async move { Ok(spec) }
    });
    let sup = sup.restart(Restart::Transient).significant(true);
    let root = stage.start(SupervisorSpec::default().auto_shutdown(AutoShutdown::AnySignificant).child(sup)).await;
    stage.tell("sup/a", Order::Finish).await;
    assert_eq!(end_of(&root).await, RootEnd::Stopped);
    assert!(stage.log.of(supervisors::EventKind::Failed).is_empty());
}

/// What became of the other significant child by then, for each way it can be down or up.
#[tokio::test(start_paused = true)]
async fn test_point_11_last_significant_child_ends_the_supervisor_whatever_took_the_others_down() {
    for restart in [Restart::Transient, Restart::Temporary] {
        for others in ["running", "terminated", "finished", "ignored", "waiting", "parked"] {
            // A temporary child neither waits nor is parked: its crash is its end.
            let lasts = others == "running" || restart == Restart::Transient && ["waiting", "parked"].contains(&others);
            let stage = Stage::default();
            if others == "ignored" {
                stage.opening("b", vec![crate::support::Opening::Ignore]);
            }
            let child = |id| stage.starter(id).restart(restart).significant(true);
            let policy = RestartPolicy::default().backoff(Backoff::default()).park_on([Class::Auth]);
            let spec = SupervisorSpec::default().auto_shutdown(AutoShutdown::AllSignificant).policy(policy);
            let root = stage.start(spec.child(child("a")).child(child("b"))).await;
            match others {
                "waiting" => stage.crash("b").await,
                "parked" => stage.tell("b", Order::Fail(Failure::new(Class::Auth, "denied", "no"))).await,
                "terminated" => root.handle().terminate_child("b").await.unwrap(),
                "finished" => stage.tell("b", Order::Finish).await,
                _ => {}
            }
            assert!(root.handle().is_alive(), "{restart:?} {others}");
            stage.tell("a", Order::Finish).await;
            assert_eq!(root.handle().is_alive(), lasts, "{restart:?} {others}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn test_point_11_insignificant_children_end_nothing() {
    for auto in [AutoShutdown::Never, AutoShutdown::AnySignificant, AutoShutdown::AllSignificant] {
        let stage = Stage::default();
        let plain = |id| stage.puppet(id).restart(Restart::Temporary);
        let spec = SupervisorSpec::default().auto_shutdown(auto).child(plain("a")).child(plain("b"));
        let root = stage.start(spec).await;
        stage.tell("a", Order::Finish).await;
        stage.crash("b").await;
        assert!(root.handle().is_alive(), "{auto:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn test_point_11_siblings_are_stopped_in_order_and_nobody_is_to_blame() {
    let stage = Stage::default();
    let root = stage.start(tree(&stage, AutoShutdown::AnySignificant, Restart::Transient)).await;
    stage.log.clear();
    stage.tell("a", Order::Finish).await;
    assert_eq!(end_of(&root).await, RootEnd::Stopped);
    assert_eq!(stage.log.trace(), ["stopped a", "stopped c", "stopped b", "stopped root"]);
    assert!(stage.log.events().iter().all(|event| event.incident.is_none() && event.reason.is_none()));
}

#[tokio::test(start_paused = true)]
async fn test_point_11_permanent_supervisor_that_ends_by_auto_shutdown_is_restarted() {
    let stage = Stage::default();
    let lower = stage.clone();
    let sup = ChildSpec::supervisor("sup", move |_| {
        let spec = tree(&lower, AutoShutdown::AnySignificant, Restart::Transient);
        async move { Ok(spec) }
    });
    let root = stage.start(SupervisorSpec::default().child(sup)).await;
    stage.tell("sup/a", Order::Finish).await;
    quiet().await;
    assert_eq!(root.handle().supervisor("sup").await.unwrap().count_children().await.active, 3);
    assert_eq!(root.handle().snapshot().await.restarts_in_window, 1);
}
