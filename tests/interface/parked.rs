//! What is parked, and what a source asked for, across changes and restarts.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::node::next_beat_in;
use crate::support::scripted::{Answer, Scripted};
use crate::support::{Lab, Node};

fn src() -> Value {
    json!({"adapter": "SRC", "tenant": "acme", "stream": "src"})
}

async fn is_parked(node: &Node, class: &str) {
    let status = node.status_until(Scripted::STREAM, "parked", |s| s["actual"] == "parked").await;
    assert_eq!(status["parked"]["class"], class, "{status}");
}

#[tokio::test]
async fn test_parked_worker_comes_back_with_a_changed_job_and_not_with_the_same() {
    let source = Scripted::start(Answer::status(401)).await;
    let lab = Lab::new(&source.config(""));
    let mut node = lab.start();
    node.ready().await;
    is_parked(&node, "auth").await;
    let asked = source.asked().len();
    source.say(Answer::record(1));
    assert_eq!(node.message("worker:start", src()).await.0, 200);
    assert_eq!(node.status(Scripted::STREAM).await["actual"], "parked", "the same message changes nothing");
    assert_eq!(source.asked().len(), asked);
    let mut changed = src();
    changed["interval"] = json!(150);
    assert_eq!(node.message("worker:start", changed).await.0, 200);
    // The probe is an hour away.
    lab.epoch_after(Scripted::STREAM, 0).await;
}

#[tokio::test]
async fn test_retry_after_holds_over_a_kill() {
    let source = Scripted::start(Answer::record(1)).await;
    let lab = Lab::new(&source.config(""));
    let mut node = lab.start();
    node.ready().await;
    lab.epoch_after(Scripted::STREAM, 0).await;
    source.say(Answer { headers: vec![("retry-after", "8".to_owned())], ..Answer::status(429) });
    node.status_until(Scripted::STREAM, "told to wait", |s| {
        s["actual"] == "waiting" && source.asked().len() > 1 && next_beat_in(s) > Duration::from_secs(4)
    })
    .await;
    let told = source.asked().last().unwrap().at;
    let asked = source.asked().len();
    node.kill();
    source.say(Answer::record(2));
    let mut node = lab.start();
    node.ready().await;
    let next = source.asked_after(asked).await;
    assert!(next.at - told >= Duration::from_millis(7900), "asked again after {:?}", next.at - told);
}

#[tokio::test]
async fn test_two_starts_at_once_are_no_failure_of_the_worker() {
    let source = Scripted::start(Answer::record(1)).await;
    let lab = Lab::new(&source.config(""));
    let mut node = lab.start();
    node.ready().await;
    for round in 0..8 {
        let own = json!({"adapter": "SRC", "tenant": "acme", "stream": format!("s{round}")});
        assert_eq!(node.message("worker:start", own.clone()).await.0, 200);
        assert_eq!(node.message("worker:start", own).await.0, 200);
        lab.epoch_after(&format!("acme/s{round}"), 0).await;
    }
    let log = node.restarts().await;
    assert!(!log.iter().any(|line| line["event"] == "failed"), "{log:#?}");
}

#[tokio::test]
async fn test_first_poll_is_at_once_whatever_the_jitter() {
    let source = Scripted::start(Answer::record(1)).await;
    // Four polls that wait for their jitter take far longer than the test is patient.
    let lab = Lab::new(&source.config("jitter = \"12h\"").replace("\"100ms\"", "\"24h\""));
    let mut node = lab.start();
    node.ready().await;
    for round in 0..4 {
        let asked = source.asked().len();
        let own = json!({"adapter": "SRC", "tenant": "acme", "stream": format!("s{round}")});
        assert_eq!(node.message("worker:start", own).await.0, 200);
        source.asked_after(asked).await;
    }
}
