//! Events as people and logs read them.

use serde_json::json;
use supervisors::{
    Backoff, ChildSpec, Class, Event, EventKind, Failure, Flapping, LINE_CHARS_MAX, REPORT_CHARS_MAX, RestartPolicy,
    Started, SupervisorSpec,
};

use crate::support::{Order, Stage, seconds};

async fn events(failure: Failure) -> (Stage, Vec<Event>) {
    let stage = Stage::default();
    let backoff = Backoff { min: seconds(2), max: seconds(2), factor: 1.0, jitter: 0.0, reset_after: seconds(60) };
    let flapping = Flapping { above: 0.5, below: 0.1, stretch: 1.0 };
    let policy = RestartPolicy::default().backoff(backoff).flapping(flapping);
    let root = stage.start(SupervisorSpec::default().intensity(2, seconds(5)).policy(policy)).await;
    root.handle().start_child(stage.puppet("a")).await.unwrap();
    crate::support::quiet().await;
    stage.tell("a", Order::Fail(failure)).await;
    crate::support::pass(seconds(2)).await;
    root.stop().await;
    let events = stage.log.events();
    (stage, events)
}

fn of(events: &[Event], kind: EventKind) -> &Event {
    events.iter().find(|event| event.kind == kind && event.path.as_str() == "root/a").unwrap()
}

#[tokio::test(start_paused = true)]
async fn test_formats_one_line_tells_the_story_and_stays_one_line() {
    let (_stage, events) = events(Failure::new(Class::Transient, "http_503", "down\nFAILED root/b\u{7}")).await;
    let failed = of(&events, EventKind::Failed);
    let incident = failed.incident.as_deref().unwrap();
    let line = failed.one_line(LINE_CHARS_MAX);
    assert_eq!(
        line,
        format!("failed root/a#1 incident={incident} attempt=1 transient (http_503): down FAILED root/b ")
    );
    let line = of(&events, EventKind::Restarting).one_line(LINE_CHARS_MAX);
    for part in
        ["strategy=one_for_one", "delay=2s", "wait=backoff", "window=1/2 in 5s (half used)", "flapping=0.7/h (begins)"]
    {
        assert!(line.contains(part), "{line} lacks {part}");
    }
    let line = of(&events, EventKind::Restarted).one_line(LINE_CHARS_MAX);
    assert!(line.contains("root/a#2") && line.contains("recovered_in=2s"), "{line}");
    let line = of(&events, EventKind::Stopped).one_line(LINE_CHARS_MAX);
    assert!(line.ends_with("took=0ns outcome=clean"), "{line}");
    assert_eq!(failed.one_line(12), "failed root…");
    assert_eq!(failed.one_line(0), "");
}

#[tokio::test(start_paused = true)]
async fn test_formats_multi_line_has_a_line_for_each_fact_and_the_backtrace() {
    let stage = Stage::default();
    let child = ChildSpec::task("a", |_| async { panic!("formats panic") });
    let _ = stage.try_start(SupervisorSpec::default().child(child)).await;
    let failed = stage.log.of(EventKind::Failed).remove(0);
    let text = failed.multi_line(REPORT_CHARS_MAX);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..2], ["FAILED root/a", "  incarnation   1"]);
    assert!(lines[2].starts_with("  reason        bug (panic): formats panic (at "), "{text}");
    let place = lines.iter().position(|line| line.starts_with("  panicked at   ")).unwrap();
    assert!(lines.len() > place + 1 && lines[place + 1].starts_with("    "), "{text}");
    assert_eq!(failed.multi_line(100).chars().count(), 100);
}

#[tokio::test(start_paused = true)]
async fn test_formats_json_has_the_logs_keys_and_no_payload() {
    let (_stage, events) = events(Failure::new(Class::Transient, "http_503", "x".repeat(10_000))).await;
    let shown = of(&events, EventKind::Restarting).to_json(20);
    assert_eq!(shown["reason"], json!({ "class": "transient", "code": "http_503", "message": "x".repeat(19) + "…" }));
    assert_eq!(
        (&shown["event"], &shown["path"], &shown["incarnation"]),
        (&json!("restarting"), &json!("root/a"), &json!(1))
    );
    assert_eq!((&shown["delay_ms"], &shown["wait"], &shown["attempt"]), (&json!(2_000), &json!("backoff"), &json!(1)));
    assert_eq!(shown["window"], json!({ "used": 1, "limit": 2, "seconds": 5.0, "warning": true }));
    assert_eq!(shown["flap"], json!({ "score": 0.69, "flapping": true, "alert": true }));
    assert!(shown.get("stop").is_none() && shown.get("backtrace").is_none());
    assert_eq!(of(&events, EventKind::Restarted).to_json(20)["recovered_in_ms"], json!(2_000));
    assert_eq!(of(&events, EventKind::Stopped).to_json(20)["stop"]["outcome"], json!("clean"));

    let stage = Stage::default();
    let talker = ChildSpec::start("a", |_| async {
        Ok(Started::task(std::future::pending()).with_info(json!({ "secret": "payload" })))
    });
    let _root = stage.start(SupervisorSpec::default().child(talker)).await;
    let started = &stage.log.of(EventKind::Started)[0];
    assert!(started.info.is_some());
    for text in [started.to_json(99).to_string(), started.one_line(999), started.multi_line(999)] {
        assert!(!text.contains("payload"), "{text}");
    }
}
