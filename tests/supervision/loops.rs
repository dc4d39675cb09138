//! Crash loops end parked, heal when their cause is gone, and nobody beside them notices.

use lakefeed::oracle;
use serde_json::{Value, json};

use crate::support::lab::{assert_sound, stream};
use crate::support::{ENDLESS, Lab, Node, PATIENCE, Synthetic, wait_for};

/// Per second and partition.
const RATE: u64 = 100;
/// Records per partition.
const TOTAL: u64 = 1_500;
const STREAM: Synthetic = Synthetic { seed: 43, partitions: 3, total: TOTAL, rate: RATE };
const RESTARTS: u64 = 4;
/// A part of a hundred by which siblings may differ from a run without the loop.
const DIFFERENCE_MAX: f64 = 0.05;

/// Records of each partition in the lake.
fn rows(lab: &Lab, stream: &str) -> Vec<u64> {
    let (tenant, stream) = stream.split_once('/').unwrap();
    let facts = oracle::read_stream(lab.lake(), tenant, stream).unwrap();
    let mut rows = vec![0; STREAM.partitions as usize];
    for row in &facts.rows {
        rows[row.columns["partition"].as_u64().unwrap() as usize] += 1;
    }
    rows
}

/// When the records of one partition in the lake were made.
fn made_by(lab: &Lab, stream: &str, partition: u64) -> Vec<i64> {
    let (tenant, stream) = stream.split_once('/').unwrap();
    let facts = oracle::read_stream(lab.lake(), tenant, stream).unwrap();
    let own = facts.rows.iter().filter(|row| row.columns["partition"].as_u64() == Some(partition));
    let mut made: Vec<i64> = own.filter_map(|row| time_of(&row.columns["ts"])).collect();
    made.sort_unstable();
    made
}

async fn count(node: &Node, path: &str, event: &str) -> u64 {
    node.restarts_under(path).await.iter().filter(|line| line["event"] == event).count() as u64
}

/// Records a second. From one hand-over to another, as each brings all that is due by then: so it does not matter when
/// somebody was looked at, nor that a busy machine made it late.
fn pace(made: &[i64], since: i64, until: i64) -> f64 {
    let within: Vec<i64> = made.iter().copied().filter(|at| (since..=until).contains(at)).collect();
    let (first, last) = (within[0], within[within.len() - 1]);
    let after = within.iter().filter(|at| **at > first).count();
    after as f64 * 1e6 / (last - first) as f64
}

/// Both made their records equally fast, in the time of which both tell.
fn assert_alike(one: &[i64], other: &[i64], what: &str) {
    let (since, until) = (one[0].max(other[0]), one[one.len() - 1].min(other[other.len() - 1]));
    let (one, other) = (pace(one, since, until), pace(other, since, until));
    let ratio = one / other;
    assert!((ratio - 1.0).abs() <= DIFFERENCE_MAX, "{what}: {one} to {other} a second, {ratio:.3}");
}

/// The loop and a run without it side by side, from sources with the same rate, over the same time.
#[tokio::test]
async fn test_supervision_crash_loop_ends_parked_with_siblings_untouched_and_a_probe_heals_it() {
    const LOOP: &str = "lakefeed/tenants/acme/loop/workers/0";
    let lab = Lab::new(&format!(
        "[supervision]\nmax_restarts = {RESTARTS}\nmax_seconds = 3600\nprobe = \"2s\"\n\
         backoff = {{ min = \"50ms\", max = \"400ms\" }}\n{}{}{}",
        STREAM.adapter("SYN"),
        stream("acme/loop", "SYN"),
        stream("acme/calm", "SYN"),
    ));
    let cause = lab.signal_file("cause");
    std::fs::write(&cause, "").unwrap();
    let mut node = lab.start_with(&[
        ("LAKEFEED_CRASH", "worker.delivering@acme/loop/0:2+:panic"),
        ("LAKEFEED_CRASH_WHILE", cause.to_str().unwrap()),
    ]);
    node.ready().await;
    let parked = node.restart_where("parked worker", |line| line["event"] == "parked").await;
    assert_eq!((&parked["path"], &parked["reason"]["class"]), (&json!(LOOP), &json!("bug")), "{parked}");
    assert!(parked["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{parked}");
    assert_eq!((count(&node, LOOP, "restarting").await, count(&node, LOOP, "failed").await), (RESTARTS, RESTARTS + 1));
    let labels = [("tenant", "acme"), ("stream", "loop")];
    let restarts = node.metric("lakefeed_restarts_total", &labels).await;
    assert_eq!(restarts, Some(RESTARTS as f64));
    assert!(node.log().lines().any(|line| line.contains("\"ERROR\"") && line.contains("parked")), "{}", node.log());

    // A probe while the cause lasts parks it again, and is no restart.
    node.restart_where("failed probe", |line| line["event"] == "probed").await;
    wait_for("parked again", PATIENCE, async || (count(&node, LOOP, "parked").await >= 2).then_some(())).await;
    assert_eq!(count(&node, LOOP, "restarting").await, RESTARTS, "a probe is no restart");

    // Siblings, and the same partitions where nothing loops.
    wait_for("two thirds of the calm stream", PATIENCE, async || {
        (rows(&lab, "acme/calm").iter().sum::<u64>() >= STREAM.partitions * TOTAL * 2 / 3).then_some(())
    })
    .await;
    let (beside, calm) = (rows(&lab, "acme/loop"), rows(&lab, "acme/calm"));
    for partition in 1..STREAM.partitions {
        let (one, other) = (made_by(&lab, "acme/loop", partition), made_by(&lab, "acme/calm", partition));
        assert_alike(&one, &other, "a sibling of the loop");
    }
    assert!(beside[0] < calm[0] / 2, "the loop did not hold its own partition: {beside:?} {calm:?}");

    std::fs::remove_file(&cause).unwrap();
    for name in ["acme/loop", "acme/calm"] {
        assert_sound(&STREAM.whole_of(name, &lab, &node).await, name);
    }
    wait_for("nothing parked", PATIENCE, async || {
        (node.metric("lakefeed_parked", &labels).await == Some(0.0)).then_some(())
    })
    .await;
    assert_eq!(count(&node, LOOP, "restarting").await, RESTARTS);
    // Now that no probe comes between two looks.
    let fired = node.log().matches("crash point worker.delivering fired").count() as u64;
    assert_eq!(fired, count(&node, LOOP, "failed").await);
    for line in node.restarts().await {
        assert!(line["path"] == LOOP || matches!(line["event"].as_str(), Some("started" | "stopped")), "{line}");
    }
    assert_eq!(node.terminate().await, Some(0));
}

/// Every record of a partition says when it was made; a source that was held up lets time pass.
fn made_at(lab: &Lab, tenant: &str) -> Vec<i64> {
    let facts = oracle::read_stream(lab.lake(), tenant, "syn").unwrap();
    let mut made: Vec<i64> = facts.rows.iter().filter_map(|row| time_of(&row.columns["ts"])).collect();
    made.sort_unstable();
    made
}

/// µs.
fn time_of(ts: &Value) -> Option<i64> {
    match ts {
        Value::Number(us) => us.as_i64(),
        text => Some(chrono::DateTime::parse_from_rfc3339(text.as_str()?).ok()?.timestamp_micros()),
    }
}

/// A tenant whose streams cannot be kept up at any level uses up all that it may; two other tenants go on.
#[tokio::test]
async fn test_supervision_tenant_that_uses_up_its_intensity_leaves_other_tenants_untouched() {
    const BAD: &str = "lakefeed/tenants/bad";
    let one = Synthetic { partitions: 1, total: ENDLESS, ..STREAM };
    let names = ["bad/one", "bad/two", "good/syn", "fine/syn"];
    let streams: String = names.iter().map(|name| stream(name, "SYN")).collect();
    let lab = Lab::new(&format!(
        "[supervision]\nmax_restarts = 2\nmax_seconds = 3600\nbackoff = {{ min = \"20ms\", max = \"100ms\" }}\n{}{streams}",
        one.adapter("SYN"),
    ));
    let mut node = lab.start_with(&[("LAKEFEED_CRASH", "committer.closing@bad:1+:panic")]);
    node.live().await;
    let parked = async |stream: &str| count(&node, &format!("{BAD}/{stream}"), "parked").await > 0;
    wait_for("both bad streams parked", PATIENCE, async || (parked("one").await && parked("two").await).then_some(()))
        .await;
    // The committer's limit was reached, the stream's restarts too, and there it ended.
    for path in ["one", "two"].map(|stream| format!("{BAD}/{stream}")) {
        assert!(count(&node, &path, "escalated").await > 1, "{path}");
        assert!(count(&node, &path, "restarting").await > 2, "{path}");
    }
    let (fired, noticed) = (node.log().matches("crash point committer.closing fired").count(), node.restarts().await);
    let failed = |line: &&Value| line["event"] == "failed" && line["path"].as_str().unwrap().ends_with("/committer");
    assert_eq!(noticed.iter().filter(failed).count(), fired);
    let mut at = Vec::new();
    for tenant in ["good", "fine"] {
        let name = format!("{tenant}/syn");
        at.push((name.clone(), lab.epoch_after(&name, lab.epoch(&name) + 2).await));
        assert_eq!(node.status(&name).await["actual"], "running");
    }
    for line in node.restarts().await {
        let path = line["path"].as_str().unwrap();
        let calm = matches!(line["event"].as_str(), Some("started" | "stopped"));
        assert!(calm || path.starts_with(&format!("{BAD}/")), "{line}");
        assert!(line["event"] != "stopped" || path.starts_with(BAD), "{line}");
    }
    // The same records in the same time: nobody was slower than the other.
    assert_alike(&made_at(&lab, "good"), &made_at(&lab, "fine"), "two tenants beside the bad one");
    for name in ["good/syn", "fine/syn"] {
        assert_sound(&lab.judge(name, &oracle::Expected::Any), name);
    }
    assert!(at.iter().all(|(_, epoch)| *epoch > 2), "{at:?}");
    assert_eq!(node.terminate().await, Some(0));
}
