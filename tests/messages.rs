//! The messages of interface §3 over HTTP: exact answers, duplicates, any order, and their effect on a running workload.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::feed::Feed;
use crate::support::lab::assert_sound;
use crate::support::{Lab, Node, PATIENCE, Synthetic, wait_for};

const ENDLESS: Synthetic = Synthetic { seed: 9, partitions: 1, total: 1_000_000, rate: 200 };

fn syn() -> Value {
    json!({"adapter": "SYN", "tenant": "acme", "stream": "syn"})
}

fn feed() -> Value {
    json!({"adapter": "FEED", "tenant": "acme", "stream": "feed"})
}

/// The versions of the desired state in the lake.
fn versions(lab: &Lab, stream: &str) -> usize {
    std::fs::read_dir(lab.lake().join("control/streams").join(stream)).map_or(0, Iterator::count)
}

async fn told(node: &Node, pattern: &str, data: Value, answer: Value) {
    assert_eq!(node.message(pattern, data).await, (200, answer), "{pattern}; the log:\n{}", node.log());
}

#[tokio::test]
async fn test_messages_have_exact_answers_and_duplicates_change_nothing() {
    let lab = Lab::new(&ENDLESS.config());
    let mut node = lab.start();
    node.ready().await;
    let started = json!({"success": true, "message": "Started fetching from adapter SYN."});
    let stopped = json!({"success": true, "message": "Stopped fetching from adapter SYN."});

    told(&node, "worker:start", syn(), started.clone()).await;
    let at = versions(&lab, "acme/syn");
    told(&node, "worker:start", syn(), started.clone()).await;
    assert_eq!(versions(&lab, "acme/syn"), at, "an identical start writes nothing");

    told(&node, "worker:stop", syn(), stopped.clone()).await;
    let at = versions(&lab, "acme/syn");
    told(&node, "worker:stop", syn(), stopped.clone()).await;
    assert_eq!(versions(&lab, "acme/syn"), at, "nor does a second stop");
    let epoch = lab.epoch(Synthetic::STREAM);

    told(&node, "worker:start", syn(), started).await;
    lab.epoch_after(Synthetic::STREAM, epoch).await;
    let (status, answer) = node.message("worker:status", syn()).await;
    assert_eq!(status, 200);
    let keys: Vec<&str> = answer.as_object().unwrap().keys().map(String::as_str).collect();
    for key in ["success", "message", "desired", "actual", "epoch", "lag_seconds", "next_at", "parked"] {
        assert!(keys.contains(&key), "no {key} in {answer}");
    }
    assert_eq!((&answer["success"], &answer["desired"]), (&json!(true), &json!("running")));
    told(&node, "worker:stop", syn(), stopped).await;
    assert_sound(&lab.judge(Synthetic::STREAM, &part(&ENDLESS)), "stopped and started");
}

/// Everything up to what was found: the stream was stopped before its end.
fn part(stream: &Synthetic) -> lakefeed::oracle::Expected {
    lakefeed::oracle::Expected::Synthetic {
        seed: stream.seed,
        partitions: stream.partitions,
        handed_over: std::collections::BTreeMap::new(),
    }
}

#[tokio::test]
async fn test_messages_stop_of_what_does_not_run_succeeds() {
    let lab = Lab::new(&ENDLESS.config());
    let mut node = lab.start();
    node.ready().await;
    let never = json!({"adapter": "SYN", "tenant": "other", "stream": "never"});
    told(&node, "worker:stop", never, json!({"success": true, "message": "Stopped fetching from adapter SYN."})).await;
}

#[tokio::test]
async fn test_messages_refusals_name_what_is_wrong() {
    let lab = Lab::new(&ENDLESS.config());
    let mut node = lab.start();
    node.ready().await;
    let refused = [
        ("worker:start", json!({"adapter": "NOBODY"}), 404),
        ("worker:stop", json!({"adapter": "NOBODY"}), 404),
        ("worker:dance", syn(), 400),
        ("worker:start", json!({}), 400),
        ("worker:start", json!({"adapter": "SYN", "colour": "red"}), 400),
        ("worker:start", json!({"adapter": "SYN", "tenant": "../x"}), 400),
        ("worker:start", json!({"adapter": 7}), 400),
        ("worker:start", json!({"adapter": "SYN", "bucket_name": "tables"}), 400),
        ("worker:start", json!({"adapter": "SYN", "settings": {"seed": 1}}), 403),
        ("worker:start", json!("SYN"), 400),
    ];
    for (pattern, data, wanted) in refused {
        let (status, answer) = node.message(pattern, data.clone()).await;
        assert_eq!(status, wanted, "{pattern} {data}: {answer}");
        assert_eq!(answer["success"], false, "{answer}");
        assert!(answer["code"].is_string() && answer["message"].is_string(), "{answer}");
    }
}

/// Whatever the order in which messages overtake each other, the last one answered holds, and survives the state.
#[tokio::test]
async fn test_messages_reordered_end_where_the_last_one_says() {
    let lab = Lab::new(&ENDLESS.config());
    let mut node = lab.start();
    node.ready().await;
    for last in ["worker:stop", "worker:start"] {
        let (a, b, c, d) = tokio::join!(
            node.message("worker:start", syn()),
            node.message("worker:stop", syn()),
            node.message("worker:stop", syn()),
            node.message("worker:start", syn()),
        );
        assert!([a, b, c, d].iter().all(|(status, _)| *status == 200));
        assert_eq!(node.message(last, syn()).await.0, 200);
        let wanted = if last == "worker:stop" { "stopped" } else { "running" };
        node.status_until(Synthetic::STREAM, wanted, |s| {
            s["desired"] == wanted && (wanted == "running") == (s["actual"] == "running")
        })
        .await;
    }
    assert_eq!(node.message("worker:stop", syn()).await.0, 200);
    node.kill();
    std::fs::remove_dir_all(lab.state()).unwrap();
    let mut node = lab.start();
    node.ready().await;
    assert_eq!(node.status(Synthetic::STREAM).await["desired"], "stopped", "its truth is in the lake");
    assert_sound(&lab.judge(Synthetic::STREAM, &part(&ENDLESS)), "after many messages");
}

#[tokio::test]
async fn test_messages_no_request_starts_after_a_stop_is_answered() {
    let source = Feed::start(2, 1_000_000).await;
    let lab = Lab::new(&source.config());
    let mut node = lab.start();
    node.ready().await;
    lab.epoch_after(Feed::STREAM, 1).await;
    source.slow(Duration::from_millis(300));
    let before = source.requests();
    wait_for("a workload in progress", PATIENCE, async || (source.requests() > before).then_some(())).await;
    assert_eq!(node.message("worker:stop", feed()).await.0, 200);
    // What had been sent by then has come, too, before it is counted.
    source.caught_up().await;
    // What was collected is committed, by the answer or soon after it.
    let (requests, epoch) = (source.requests(), lab.epoch(Feed::STREAM));
    source.slow(Duration::ZERO);
    // Twenty intervals of the stream as the time in which another request would come.
    crate::support::wait::strike_after(Duration::from_secs(1)).await;
    assert_eq!(source.requests(), requests);
    assert!(lab.epoch(Feed::STREAM) <= epoch + 2);
}

#[tokio::test]
async fn test_messages_interrupt_drops_the_workload_and_keeps_the_schedule() {
    let source = Feed::start(1, 50).await;
    // The workload would take longer than the test is patient, or end in another way than by the interrupt.
    let lab = Lab::new(&source.config().replace("timeout = \"10s\"", "timeout = \"20m\""));
    let mut node = lab.start();
    node.ready().await;
    lab.epoch_after(Feed::STREAM, 0).await;
    source.grow(50);
    source.slow(PATIENCE * 3);
    let before = source.requests();
    wait_for("a workload in progress", PATIENCE, async || (source.requests() > before).then_some(())).await;
    source.slow(Duration::ZERO);
    assert_eq!(node.message("worker:interrupt", feed()).await.0, 200);
    wait_for("a workload that ends as interrupted", PATIENCE, async || {
        node.metric("lakefeed_poll_seconds_count", &[("stream", "feed"), ("outcome", "interrupted")]).await
    })
    .await;
    let verdict = source.whole(&lab, &node).await;
    assert_sound(&verdict, "interrupted");
    assert!(!node.restarts().await.iter().any(|line| line["event"] == "failed"), "an interrupt is no failure");
}

#[tokio::test]
async fn test_messages_change_during_a_workload_takes_effect_at_its_interval() {
    let source = Feed::start(1, 1_000_000).await;
    let config = source.config_with(source.address(), "5s");
    let lab = Lab::new(&config);
    let mut node = lab.start();
    node.ready().await;
    lab.epoch_after(Feed::STREAM, 0).await;
    let waiting = node.status_until(Feed::STREAM, "between two workloads", |s| at(s).is_some()).await;
    source.slow(Duration::from_millis(500));
    let before = source.requests();
    wait_for("a workload in progress", PATIENCE, async || (source.requests() > before).then_some(())).await;
    let mut change = feed();
    change["interval"] = json!(100);
    assert_eq!(node.message("worker:start", change).await.0, 200);
    source.slow(Duration::ZERO);
    let during = source.requests();
    let next = node.status_until(Feed::STREAM, "after the workload", |s| at(s) > at(&waiting)).await;
    // The program's own word for when it will be, and that it keeps it, whatever the machine takes for the rest.
    let (beat, next) = (at(&waiting).unwrap(), at(&next).unwrap());
    let beats = (next - beat).as_seconds_f64() / 5.0;
    assert!(beats > 0.8 && (beats - beats.round()).abs() < 0.2, "the change does not wait for the end of the interval");
    wait_for("the next beat", PATIENCE, async || (source.requests() > during).then_some(())).await;
    assert!(chrono::Utc::now() > next - chrono::TimeDelta::seconds(1), "it did not wait until {next}");
    // For so many the old interval takes longer than the test is patient.
    let many = PATIENCE.as_secs() / 5 + 1;
    let from = source.requests();
    wait_for("the new interval", PATIENCE, async || (source.requests() >= from + many).then_some(())).await;
}

/// When the next workload is due, as the status says while the stream waits for it.
fn at(status: &Value) -> Option<chrono::DateTime<chrono::Utc>> {
    let at = chrono::DateTime::parse_from_rfc3339(status["next_at"].as_str()?).unwrap();
    Some(at.to_utc())
}

#[tokio::test]
async fn test_messages_stream_without_a_configuration_survives_everything_but_its_lake() {
    let lab = Lab::new(&ENDLESS.config());
    let mut node = lab.start();
    node.ready().await;
    let data = json!({"adapter": "SYN", "tenant": "beta", "stream": "own", "bucket_name": "elsewhere"});
    assert_eq!(node.message("worker:start", data).await.0, 200);
    let epoch = lab.epoch_after("beta/own", 0).await;
    node.kill();
    std::fs::remove_dir_all(lab.state()).unwrap();
    let mut node = lab.start();
    node.ready().await;
    lab.epoch_after("beta/own", epoch).await;
    assert!(lab.lake().join("elsewhere/beta/own").is_dir(), "its records go where it asked");
    assert_eq!(node.terminate().await, Some(0));
    assert_sound(&lab.judge("beta/own", &part(&ENDLESS)), "a stream of a message");
}
