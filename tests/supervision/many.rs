//! A thousand workers that crash within one second: each comes back once, and nobody above them is touched.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::lab::{assert_sound, stream};
use crate::support::{ENDLESS, Lab, PATIENCE, Synthetic, wait_for};

const WORKERS: u64 = 1_000;
/// One record a second from each, so that within a second each one takes up a batch, and crashes.
const STREAM: Synthetic = Synthetic { seed: 42, partitions: WORKERS, total: ENDLESS, rate: 1 };
const PATH: &str = "lakefeed/tenants/acme/syn";
/// The first comes back when many have long crashed.
const SUPERVISION: &str = "[supervision]\nbackoff = { min = \"5s\", max = \"10s\", jitter = 0.2 }\n";

#[tokio::test]
async fn test_supervision_thousand_workers_that_crash_at_once_all_come_back_once() {
    let lab = Lab::new(&format!("{SUPERVISION}{}{}", STREAM.adapter("SYN"), stream(Synthetic::STREAM, "SYN")));
    let armed = lab.signal_file("armed");
    let mut node = lab.start_with(&[
        ("LAKEFEED_CRASH", "worker.delivering:each:panic"),
        ("LAKEFEED_CRASH_WHILE", armed.to_str().unwrap()),
    ]);
    node.ready().await;
    let before = lab.epoch_after(Synthetic::STREAM, 1).await;
    std::fs::write(&armed, "").unwrap();
    wait_for("all crashes", PATIENCE, async || {
        let fired = node.log().matches("crash point worker.delivering fired").count() as u64;
        (fired >= WORKERS).then_some(())
    })
    .await;
    assert_eq!(node.get("/health/live").await.0, 200, "the node is there throughout");
    let lines = wait_for("all restarts", PATIENCE, async || {
        let lines = node.restarts_under(PATH).await;
        let restarted = lines.iter().filter(|line| line["event"] == "restarted").count() as u64;
        (restarted >= WORKERS).then_some(lines)
    })
    .await;
    // One failure, one decision, one restart each, in an incident of its own, and nothing else beyond the start.
    let mut told: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut incidents = BTreeSet::new();
    for line in lines.iter().filter(|line| line["event"] != "started") {
        told.entry(line["path"].as_str().unwrap()).or_default().push(line["event"].as_str().unwrap());
        incidents.insert(line["incident"].as_str().unwrap());
    }
    assert_eq!((told.len() as u64, incidents.len() as u64), (WORKERS, WORKERS));
    for (path, events) in told {
        assert!(path.starts_with(&format!("{PATH}/workers/")), "{path}: {events:?}");
        assert_eq!(events, ["failed", "restarting", "restarted"], "{path}");
    }
    // Far more than any limit allows were down before the first came back; how many more is the machine's choice.
    let down = lines.iter().take_while(|line| line["event"] != "restarted").filter(|line| line["event"] == "failed");
    let down = down.count() as u64;
    assert!(down >= WORKERS / 10, "only {down} were down together");
    let verdict = STREAM.fresh(&lab).await;
    assert_sound(&verdict, "a thousand crashes");
    assert!(verdict.epochs > before);
    assert_eq!(node.metric("lakefeed_restarts_total", &[("stream", "syn"), ("class", "bug")]).await, Some(1000.0));
    assert_eq!(node.terminate().await, Some(0));
}
