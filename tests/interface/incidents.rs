//! What somebody on call sees: the restart log, the story of an incident, the live tree.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::cli::{Following, document, printed};
use crate::support::scripted::{Answer, Scripted};
use crate::support::{Lab, Node, PATIENCE, Synthetic, wait_for};

/// A worker that fails at once and may be restarted twice.
fn crash_loop(source: &Scripted, keys: &str) -> Lab {
    // Not retried within the workload, so that what fails does not wait for a timeout.
    let fail = "on_response = [ { status = [500], action = \"fail\", class = \"transient\" } ]";
    let config = source.config(&format!("timeout = \"10s\"\nmax_failed_workloads = 1\n{fail}\n{keys}"));
    Lab::new(&config.replace("[supervision]\n", "[supervision]\nmax_restarts = 2\nmax_seconds = 3600\n"))
}

async fn parked(node: &Node) -> Value {
    node.status_until(Scripted::STREAM, "parked", |status| status["actual"] == "parked").await;
    node.restart_where("parked worker", |line| line["event"] == "parked").await
}

fn words<'v>(story: &'v Value, key: &str) -> Vec<&'v str> {
    story["records"].as_array().unwrap().iter().map(|record| record[key].as_str().unwrap_or("")).collect()
}

#[tokio::test]
async fn test_incident_of_a_crash_loop_is_one_story() {
    let source = Scripted::start(Answer::status(500)).await;
    let lab = crash_loop(&source, "");
    let mut node = lab.start();
    node.ready().await;
    let last = parked(&node).await;
    let id = last["incident"].as_str().unwrap().to_owned();
    let story = document(&node, &["incident", &id]).await;
    let round = ["failed", "restarting", "restarted"];
    assert_eq!(words(&story, "event"), [&round[..], &round, &["failed", "parked"]].concat(), "{story:#}");
    let path = "lakefeed/tenants/acme/src/workers/main";
    assert!(words(&story, "path").iter().all(|of| *of == path), "nobody else was touched: {story:#}");
    assert_eq!(story["outcome"], "parked");
    assert_eq!(story["cause"], story["records"][0]);
    assert_eq!(story["cause"]["reason"]["class"], "transient");
    assert_eq!(story["records"][1]["strategy"], "one_for_one");
    assert_eq!(story["records"][2]["resumed_from"]["epoch"], 0);
    let child = &story["affected"][0];
    assert_eq!((child["failures"].as_u64(), child["restarts"].as_u64()), (Some(3), Some(2)), "{child:#}");
    assert_eq!(child["now"]["state"], "parked");
    assert_eq!(child["now"]["failed_workloads"], 3, "the count outlives restarts");
    assert!(child["now"]["probe_at"].is_string(), "{child:#}");
    let text = printed(&node, &["incident", &id]).await;
    let reason = story["cause"]["reason"]["message"].as_str().unwrap();
    let target = "lakefeed restart acme/src/main";
    for part in
        ["First cause", reason, "under one_for_one", "is parked and tried again in 60 min", "What to do", target]
    {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    // What the story says to do does what it says.
    source.say(Answer::record(1));
    printed(&node, &["restart", "acme/src/main"]).await;
    lab.epoch_after(Scripted::STREAM, 0).await;
    let story = document(&node, &["incident", &id]).await;
    assert_eq!(story["affected"][0]["now"]["state"], "running", "{story:#}");
}

#[tokio::test]
async fn test_restarts_filters_prints_and_follows() {
    let source = Scripted::start(Answer::status(500)).await;
    let lab = crash_loop(&source, "");
    let mut node = lab.start();
    node.live().await;
    let mut following = Following::start(&node, &["restarts", "--follow", "--event", "failed,parked", "--json"]);
    let mut seen = Vec::new();
    while seen.last().is_none_or(|event| event != "parked") {
        let line = following.line("event", |_| true).await;
        let record: Value = serde_json::from_str(&line).expect("JSON lines");
        seen.push(record["event"].as_str().unwrap().to_owned());
    }
    assert_eq!(seen, ["failed", "failed", "failed", "parked"], "what came before it began and what came later");
    let count = async |arguments: &[&str]| printed(&node, &[&["restarts"], arguments].concat()).await.lines().count();
    assert_eq!(count(&["--event", "failed"]).await, 3);
    assert_eq!(count(&["--event", "failed", "--stream", "acme/other"]).await, 0);
    assert_eq!(count(&["--event", "failed", "--until", "1h"]).await, 0);
    assert_eq!(count(&["--event", "failed", "--since", "1h", "--class", "transient"]).await, 3);
    // Nothing starts any more between two looks.
    node.ready().await;
    let all = document(&node, &["restarts"]).await;
    let all = all["restarts"].as_array().unwrap();
    assert!(all.iter().any(|record| record["event"] == "started" && record["incident"].is_null()), "{all:#?}");
    let long = printed(&node, &["restarts", "--event", "parked", "--format", "long"]).await;
    assert!(long.contains("\n    why        transient ") && long.contains("\n    to do      "), "{long}");
    let lines = printed(&node, &["restarts", "--format", "json"]).await;
    assert_eq!(lines.lines().count(), all.len());
}

#[tokio::test]
async fn test_restart_log_survives_a_kill_and_a_torn_end() {
    let source = Scripted::start(Answer::status(500)).await;
    let lab = crash_loop(&source, "");
    let mut node = lab.start();
    node.ready().await;
    let id = parked(&node).await["incident"].as_str().unwrap().to_owned();
    node.kill();
    let log = fs::read_dir(lab.state().join("restarts")).unwrap();
    let is_log = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("restarts-"));
    let file = log.map(|entry| entry.unwrap().path()).find(is_log).unwrap();
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() - 7]).unwrap();
    let mut node = lab.start();
    node.ready().await;
    let story = document(&node, &["incident", &id]).await;
    assert_eq!(words(&story, "event").len(), 7, "only the torn record is gone: {story:#}");
    let again = node
        .restart_where("another failure", |line| line["event"] == "failed" && line["incident"] != id.as_str())
        .await;
    assert!(again["incarnation"].as_u64() > Some(3), "incarnations go on: {again}");
    let all = node.restarts().await;
    let times: Vec<_> = all.iter().map(|record| record["ts"].as_str().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[tokio::test]
async fn test_tree_shows_what_workers_do_and_only_what_is_asked_for() {
    let source = Scripted::start(Answer::status(401)).await;
    let stream = Synthetic { seed: 3, partitions: 2, total: 1_000_000, rate: 500 };
    let own = stream.config();
    let (_, own) = own.split_at(own.find("[adapter.SYN]").unwrap());
    let lab = Lab::new(&format!("{}{own}", source.config("")));
    let mut node = lab.start();
    node.ready().await;
    parked(&node).await;
    lab.epoch_after(Synthetic::STREAM, 0).await;
    let worker = wait_for("a worker that has committed", PATIENCE, async || {
        let (_, tree) = node.get("/v1/tree?stream=acme/syn").await;
        let worker = find(&tree, "lakefeed/tenants/acme/syn/workers/0")?.clone();
        worker["lag_seconds"].is_number().then_some(worker)
    })
    .await;
    assert_eq!((worker["state"].as_str(), worker["phase"].as_str()), (Some("running"), Some("working")), "{worker:#}");
    assert!(worker["position"].is_string() && worker["queue_bytes"].is_u64(), "{worker:#}");
    let (_, tree) = node.get("/v1/tree?stream=acme/syn").await;
    let stream = find(&tree, "lakefeed/tenants/acme/syn").unwrap();
    assert!(stream["epoch"].as_u64() > Some(0) && stream["desired"] == "running", "{stream:#}");
    assert!(find(&tree, "lakefeed/tenants/acme/src").is_none());
    let text = printed(&node, &["tree", "--only", "parked"]).await;
    let last = text.lines().last().unwrap();
    assert!(last.contains("main  parked: auth http_401") && last.contains("tried again "), "{text}");
    assert!(!text.contains("syn"), "{text}");
    let few = document(&node, &["tree", "--limit", "6"]).await;
    assert!(find(&few, "lakefeed/tenants/acme/src/workers/main").is_some(), "trouble comes first: {few:#}");
    assert_eq!(node.get("/v1/tree?only=broken").await.0, 400);
    let mut watching = Following::start(&node, &["tree", "--watch", "--every", "50ms", "--depth", "1"]);
    for _ in 0..3 {
        watching.line("separator", |line| line.starts_with("--- ")).await;
        let root = watching.line("root", |line| !line.is_empty()).await;
        assert!(root.starts_with("lakefeed  running "), "{root}");
    }
}

/// The node at `path`.
fn find<'v>(tree: &'v Value, path: &str) -> Option<&'v Value> {
    if tree["path"] == path {
        return Some(tree);
    }
    tree["children"].as_array()?.iter().find_map(|child| find(child, path))
}

#[tokio::test]
async fn test_secret_is_in_nothing_that_tells_of_failures() {
    const CANARY: &str = "canary-d41d8cd98f00b204";
    let echo = Answer { body: format!("{{\"error\":\"the key {CANARY} is unknown\"}}"), ..Answer::status(401) };
    let source = Scripted::start(echo).await;
    let auth = "auth = { type = \"api_key\", in = \"query\", name = \"key\", value = \"env:SRC_KEY\" }";
    let lab = crash_loop(&source, auth);
    let mut node = lab.start_with(&[("SRC_KEY", CANARY), ("LAKEFEED_LOG", "trace")]);
    node.ready().await;
    let id = parked(&node).await["incident"].as_str().unwrap().to_owned();
    assert!(source.asked()[0].query.contains(CANARY), "the source gets it");
    for arguments in [&["restarts"][..], &["tree"], &["incident", &id], &["status"]] {
        assert!(!printed(&node, arguments).await.contains(CANARY), "{arguments:?}");
        assert!(!document(&node, arguments).await.to_string().contains(CANARY), "{arguments:?}");
    }
    for entry in fs::read_dir(lab.state().join("restarts")).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains(CANARY));
    }
    assert!(!node.log().contains(CANARY));
}
