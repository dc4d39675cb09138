//! The report of a stop, and a stop with a deadline.

use serde_json::json;
use supervisors::{ChildSpec, KILL_GRACE, RootEnd, Shutdown, StopOutcome, StopReport, SupervisorSpec};
use tokio::time::Instant;

use crate::support::{Stage, broken, seconds};

fn quick(id: &str) -> ChildSpec {
    ChildSpec::task(id.to_owned(), |ctx| async move {
        ctx.stop.stopped().await;
        Ok(())
    })
}

fn slow(id: &str) -> ChildSpec {
    ChildSpec::task(id.to_owned(), |ctx| async move {
        ctx.stop.stopped().await;
        tokio::time::sleep(seconds(3)).await;
        Ok(())
    })
}

fn deaf(id: &str) -> ChildSpec {
    ChildSpec::task(id.to_owned(), |_| std::future::pending())
}

fn lines(report: &StopReport) -> Vec<(&str, StopOutcome, u64)> {
    let line = |child: &supervisors::StoppedChild| (child.stop.outcome, child.stop.took.as_secs());
    let lines = report.children.iter().map(|child| (child.path.as_str(), line(child)));
    lines.map(|(path, (outcome, took))| (path, outcome, took)).collect()
}

#[tokio::test(start_paused = true)]
async fn test_stop_report_says_in_order_who_ended_how_and_what_was_left() {
    let stage = Stage::default();
    let sour = ChildSpec::task("sour", |ctx| async move {
        ctx.stop.stopped().await;
        ctx.left(json!({ "rows": 7 }));
        Err(broken())
    });
    let below = ChildSpec::supervisor("sub", |_| async { Ok(SupervisorSpec::default().child(slow("x"))) });
    let spec = SupervisorSpec::default().child(quick("a")).child(deaf("b")).child(below).child(sour);
    let report = stage.start(spec).await.stop().await;
    let expected = [
        ("root/sour", StopOutcome::Failed, 0),
        ("root/sub/x", StopOutcome::Clean, 3),
        ("root/sub", StopOutcome::Clean, 3),
        ("root/b", StopOutcome::Killed, 5),
        ("root/a", StopOutcome::Clean, 0),
    ];
    assert_eq!(lines(&report), expected);
    assert_eq!(report.children[0].stop.left.as_deref(), Some(&json!({ "rows": 7 })));
    assert_eq!((report.took, report.end.clone(), report.unlisted), (seconds(8), RootEnd::Stopped, 0));
    assert!(!report.is_clean() && report.abandoned.is_empty());
    let shown = serde_json::to_value(&report).unwrap();
    assert_eq!((&shown["children"][3]["outcome"], &shown["children"][3]["took_ms"]), (&json!("killed"), &json!(5_000)));
}

#[tokio::test(start_paused = true)]
async fn test_stop_within_a_deadline_kills_what_is_left_on_every_level() {
    let stage = Stage::default();
    let patient = |id: &str| deaf(id).shutdown(Shutdown::Infinity);
    let below = ChildSpec::supervisor("sub", move |_| async move {
        Ok(SupervisorSpec::default().child(quick("y")).child(patient("x")))
    });
    let spec = SupervisorSpec::default().child(quick("a")).child(patient("b")).child(below).child(quick("c"));
    let root = stage.start(spec).await;
    let before = Instant::now();
    let report = root.stop_within(seconds(20)).await;
    assert!(before.elapsed() <= seconds(20) + KILL_GRACE, "{:?}", before.elapsed());
    let killed: Vec<_> = lines(&report)
        .into_iter()
        .filter(|(_, outcome, _)| *outcome == StopOutcome::Killed)
        .map(|(path, ..)| path)
        .collect();
    assert!(killed.contains(&"root/b") && killed.contains(&"root/sub/x"), "{killed:?}");
    assert_eq!(report.children.len(), 6, "all are accounted for");
    assert_eq!(report.children[0].path.as_str(), "root/c", "until then it was in order");
}

#[tokio::test(start_paused = true)]
async fn test_stop_within_a_deadline_that_is_kept_is_a_plain_stop() {
    let stage = Stage::default();
    let root = stage.start(SupervisorSpec::default().child(quick("a")).child(slow("b"))).await;
    let report = root.stop_within(seconds(20)).await;
    assert!(report.is_clean());
    assert_eq!(report.took, seconds(3));
    assert_eq!(root.stop().await.children, report.children, "asked again, it says the same");
}
