//! The node dies, panics or errs at every named point of the commit path; then the normal start-up goes on.

use std::time::Duration;

use serde_json::json;

use crate::support::feed::Feed;
use crate::support::lab::assert_sound;
use crate::support::{Lab, Node, Synthetic, wait_for};

/// Points that every epoch passes.
const EPOCH_POINTS: [&str; 14] = [
    "lake.claim.sent",
    "lake.claim.after",
    "lake.raw.before",
    "lake.raw.after",
    "lake.data.before",
    "lake.data.after",
    "lake.record.after",
    "lake.commit.before",
    "lake.commit.sent",
    "lake.commit.after",
    "cache.before",
    "cache.after",
    "announce.before",
    "announce.after",
];
/// Points that only epochs with dead letters pass.
const DEAD_POINTS: [&str; 3] = ["lake.dead.before", "lake.dead.sent", "lake.dead.after"];
/// Points at which a put was applied and its answer is lost: only these can err, the others have nothing that fails.
const SENT_POINTS: [&str; 2] = ["lake.claim.sent", "lake.commit.sent"];
/// Points of a message on its way to its effect.
const CONTROL_POINTS: [&str; 2] = ["control.stored", "control.applied"];

const STREAM: Synthetic = Synthetic { seed: 3, partitions: 2, total: 400, rate: 400 };

/// The point fired, so the fault happened.
async fn fired(node: &Node, point: &str) {
    let line = format!("crash point {point} fired");
    wait_for(&line, Duration::from_secs(30), async || node.log().contains(&line).then_some(())).await;
}

fn nth(point: &str) -> u32 {
    // A claim happens once a start; the others are met when there is already something to lose.
    if point.starts_with("lake.claim") { 1 } else { 3 }
}

/// Dies at the point, starts again without it, and all is there.
async fn dies_at(point: &str) {
    let lab = Lab::new(&STREAM.config());
    let spec = format!("{point}:{}:abort", nth(point));
    let mut node = lab.start_with(&[("LAKEFEED_CRASH", &spec)]);
    let status = node.ended().await;
    assert!(!status.success());
    fired(&node, point).await;
    let node = lab.start();
    assert_sound(&STREAM.whole(&lab, &node).await, &spec);
}

/// Panics or errs at the point, and heals without a new start.
async fn heals_at(point: &str, kind: &str) {
    let lab = Lab::new(&STREAM.config());
    let spec = format!("{point}:{}:{kind}", nth(point));
    let mut node = lab.start_with(&[("LAKEFEED_CRASH", &spec)]);
    let verdict = STREAM.whole(&lab, &node).await;
    fired(&node, point).await;
    assert_sound(&verdict, &spec);
    assert_eq!(node.terminate().await, Some(0), "{spec}:\n{}", node.log());
}

#[tokio::test]
async fn test_crash_points_of_an_epoch_abort() {
    for point in EPOCH_POINTS {
        dies_at(point).await;
    }
}

#[tokio::test]
async fn test_crash_points_of_an_epoch_panic() {
    for point in EPOCH_POINTS {
        heals_at(point, "panic").await;
    }
}

#[tokio::test]
async fn test_crash_points_of_an_epoch_err() {
    for point in SENT_POINTS {
        heals_at(point, "err").await;
    }
}

/// A crash in the recovery from a crash: the claim dies right after an epoch was left half done.
#[tokio::test]
async fn test_crash_points_twice_in_a_row() {
    for point in ["lake.record.after", "lake.commit.after", "cache.before"] {
        let lab = Lab::new(&STREAM.config());
        for (point, nth) in [(point, 2), ("lake.claim.after", 1)] {
            let mut node = lab.start_with(&[("LAKEFEED_CRASH", &format!("{point}:{nth}:abort"))]);
            node.ended().await;
            fired(&node, point).await;
        }
        let node = lab.start();
        assert_sound(&STREAM.whole(&lab, &node).await, point);
    }
}

#[tokio::test]
async fn test_crash_points_of_dead_letters() {
    for point in DEAD_POINTS {
        for kind in ["abort", "panic", "err"] {
            if kind == "err" && point != "lake.dead.sent" {
                continue;
            }
            let feed = Feed::start(2, 200).await;
            let lab = Lab::new(&feed.config());
            let spec = format!("{point}:2:{kind}");
            let mut node = lab.start_with(&[("LAKEFEED_CRASH", &spec)]);
            if kind == "abort" {
                node.ended().await;
                fired(&node, point).await;
                node = lab.start();
            }
            let verdict = feed.whole(&lab, &node).await;
            if kind != "abort" {
                fired(&node, point).await;
            }
            assert_sound(&verdict, &spec);
            assert_eq!(verdict.dead, feed.bad_total(), "{spec}");
        }
    }
}

/// A stop message whose sender saw the node die: either it had no effect, or it is remembered; told again, it holds.
#[tokio::test]
async fn test_crash_points_of_a_message() {
    for point in CONTROL_POINTS {
        let endless = Synthetic { total: 1_000_000, ..STREAM };
        let lab = Lab::new(&endless.config());
        let mut node = lab.start();
        node.ready().await;
        lab.epoch_after(Synthetic::STREAM, 1).await;
        node.kill();
        // The second pass of `control.applied` is the message's; the first is the start's.
        let nth = if point == "control.applied" { 2 } else { 1 };
        let mut node = lab.start_with(&[("LAKEFEED_CRASH", &format!("{point}:{nth}:abort"))]);
        node.ready().await;
        let data = json!({"adapter": "SYN", "tenant": "acme", "stream": "syn"});
        let answer = node.try_message("worker:stop", data.clone()).await;
        if point == "control.stored" {
            assert!(answer.is_none(), "{point}: answered before it was done: {answer:?}");
        }
        node.ended().await;
        fired(&node, point).await;

        let mut node = lab.start();
        node.ready().await;
        let desired = node.status(Synthetic::STREAM).await["desired"].clone();
        assert_eq!(desired, "stopped", "{point}: what was stored is remembered");
        let (status, answer) = node.message("worker:stop", data).await;
        assert_eq!((status, &answer["success"]), (200, &json!(true)));
        let at = lab.epoch(Synthetic::STREAM);
        assert_eq!(node.terminate().await, Some(0));
        assert_eq!(lab.epoch(Synthetic::STREAM), at, "a stopped stream has nothing to commit");
    }
}
