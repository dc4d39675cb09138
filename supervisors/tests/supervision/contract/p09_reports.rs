//! Point 9: what is reported. OTP's four kinds of supervisor report and its progress report are kinds of events here; how
//! they are written is up to the observer.

use supervisors::{EventKind, OnLimit, Strategy, SupervisorSpec};

use crate::support::{Opening, Order, Stage, broken, end_of, seconds};

/// `start_error`, `child_terminated`, `shutdown`, `shutdown_error` and progress, with whom they are about.
#[tokio::test(start_paused = true)]
async fn test_point_09_every_report_of_otp_is_an_event() {
    let stage = Stage::default();
    let spec = SupervisorSpec::new(Strategy::OneForOne).intensity(1, seconds(5));
    let root = stage.start(spec.child(stage.starter("a")).child(stage.puppet("b"))).await;
    let started = stage.log.of(EventKind::Started);
    assert_eq!(started.iter().map(|event| event.path.as_str()).collect::<Vec<_>>(), ["root/a", "root/b", "root"]);
    assert!(started.iter().all(|event| event.incarnation == 1 && event.incident.is_none() && event.reason.is_none()));
    stage.log.clear();
    stage.opening("a", vec![Opening::Fail(broken())]);
    stage.tell("b", Order::Deaf).await;
    stage.crash("a").await;
    end_of(&root).await;
    let events = stage.log.events();
    let told: Vec<_> = events.iter().map(|event| (event.kind, event.path.as_str(), event.incarnation)).collect();
    let expected = [
        (EventKind::Failed, "root/a", 1),
        (EventKind::Restarting, "root/a", 1),
        (EventKind::Failed, "root/a", 2),
        (EventKind::Escalated, "root", 1),
        (EventKind::Stopped, "root/b", 1),
        (EventKind::Stopped, "root", 1),
    ];
    assert_eq!(told, expected);
    assert_eq!(events[4].reason.as_ref().unwrap().code, "killed", "OTP's shutdown_error");
    assert!([0, 1, 2, 3, 5].iter().all(|at| events[*at].reason.as_ref() == Some(&broken().reason)));
    assert!(events.iter().all(|event| event.incident == events[0].incident));
    assert_eq!(events.iter().map(|event| event.attempt).collect::<Vec<_>>(), [1, 1, 2, 2, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn test_point_09_starts_by_request_are_told_apart_from_restarts() {
    let stage = Stage::default();
    let root = stage.start(SupervisorSpec::default().on_limit(OnLimit::ParkChild).child(stage.puppet("a"))).await;
    stage.log.clear();
    root.handle().start_child(stage.puppet("b")).await.unwrap();
    root.handle().terminate_child("a").await.unwrap();
    root.handle().restart_child("a").await.unwrap();
    assert_eq!(stage.log.trace(), ["started b", "stopped a", "started a"]);
    stage.log.clear();
    stage.crash("a").await;
    assert_eq!(stage.log.trace(), ["failed a", "restarting a", "restarted a"]);
}
