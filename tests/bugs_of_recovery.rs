//! More deliberate bugs, most of them in what a start or a retry has to find out. See `bugs`.

use lakefeed::oracle::Verdict;
use serde_json::json;

use crate::support::feed::Feed;
use crate::support::lab::assert_sound;
use crate::support::{ENDLESS, Lab, Node, PATIENCE, Synthetic, wait_for};

const STREAM: Synthetic = Synthetic { seed: 14, partitions: 2, total: ENDLESS, rate: 300 };
/// Rows that come after what a bug did, enough for it to show.
const ROWS: u64 = 300;
/// Records in each partition of a feed.
const RECORDS: u64 = 100;

fn start(lab: &Lab, bug: &str, crash: &str) -> Node {
    lab.start_with(&[("LAKEFEED_BUG", bug), ("LAKEFEED_CRASH", crash)])
}

async fn fired(node: &Node, point: &str) {
    let line = format!("crash point {point} fired");
    wait_for(&line, PATIENCE, async || node.log().contains(&line).then_some(())).await;
}

/// Waits until the stream has at least so many rows, and judges it.
async fn judged(lab: &Lab, name: &str, expected: &lakefeed::oracle::Expected, rows: u64) -> Verdict {
    wait_for(format!("{rows} rows of {name}"), PATIENCE, async || {
        Some(lab.judge(name, expected)).filter(|verdict| verdict.rows >= rows)
    })
    .await
}

fn assert_caught(bug: &str, with: &Verdict, without: &Verdict, found: impl Fn(&Verdict) -> u64) {
    assert!(without.ok(), "without {bug}: {}", without.summary());
    assert!(found(with) > 0, "{bug} was not caught: {}", with.summary());
}

/// A commit whose answer is lost, and is not looked for before it is sent again.
#[tokio::test]
async fn test_bug_blind_retry_is_caught() {
    let run = async |bug: &str| {
        let lab = Lab::new(&STREAM.config());
        let node = start(&lab, bug, "lake.commit.sent:3:err");
        fired(&node, "lake.commit.sent").await;
        STREAM.fresh(&lab).await
    };
    assert_caught("blind_retry", &run("blind_retry").await, &run("").await, |v| v.doubled + v.epoch_gaps);
}

/// A partition that rested in the last epochs before a kill, and whose position is forgotten with it.
#[tokio::test]
async fn test_bug_forget_resting_is_caught() {
    let run = async |bug: &str| {
        let lab = Lab::new(&STREAM.config());
        let mut node = start(&lab, bug, &format!("worker.delivering@{}/0:3:stop", Synthetic::STREAM));
        fired(&node, "worker.delivering").await;
        // All that it had handed over is committed by now, and then some of the other's.
        for _ in 0..3 {
            lab.epoch_after(Synthetic::STREAM, lab.epoch(Synthetic::STREAM)).await;
        }
        node.kill();
        let before = lab.judge(Synthetic::STREAM, &STREAM.so_far()).rows;
        let _node = start(&lab, bug, "");
        // Of either partition, as both have the same rate.
        judged(&lab, Synthetic::STREAM, &STREAM.so_far(), before + 2 * ROWS).await
    };
    assert_caught("forget_resting", &run("forget_resting").await, &run("").await, |v| v.doubled + v.position_gaps);
}

/// A kill between the commit and its dead letters, and a start that does not look whether they are there.
#[tokio::test]
async fn test_bug_skip_dead_at_claim_is_caught() {
    let run = async |bug: &str| {
        let feed = Feed::start(1, 0).await;
        let lab = Lab::new(&feed.config());
        let mut node = start(&lab, bug, "lake.commit.after:3:abort");
        feed.grow_until_ended(&lab, &mut node).await;
        fired(&node, "lake.commit.after").await;
        let _node = start(&lab, bug, "");
        feed.grow(RECORDS);
        // The dead letters of the last epoch follow right after its rows.
        let dead = feed.bad_total();
        let mut verdict = judged(&lab, Feed::STREAM, &feed.expected(), feed.total() - dead).await;
        if bug.is_empty() {
            verdict = wait_for("the last dead letters", PATIENCE, async || {
                Some(lab.judge(Feed::STREAM, &feed.expected())).filter(|verdict| verdict.dead >= dead)
            })
            .await;
        }
        verdict
    };
    let with = run("skip_dead_at_claim").await;
    assert_caught("skip_dead_at_claim", &with, &run("").await, |v| v.missing);
}

/// Records that cannot be taken, and of which nothing is kept.
#[tokio::test]
async fn test_bug_drop_dead_letters_is_caught() {
    let feed = Feed::start(1, RECORDS).await;
    let lab = Lab::new(&feed.config());
    let _node = start(&lab, "drop_dead_letters", "");
    let with = judged(&lab, Feed::STREAM, &feed.expected(), RECORDS - feed.bad_total()).await;
    let beside = Lab::new(&feed.config());
    let node = beside.start();
    let without = feed.whole(&beside, &node).await;
    assert_caught("drop_dead_letters", &with, &without, |v| v.missing);
}

/// Rows that name the raw payload of their neighbour.
#[tokio::test]
async fn test_bug_raw_row_off_is_caught() {
    let run = async |bug: &str| {
        let lab = Lab::new(&STREAM.config());
        let _node = start(&lab, bug, "");
        judged(&lab, Synthetic::STREAM, &STREAM.so_far(), ROWS).await
    };
    assert_caught("raw_row_off", &run("raw_row_off").await, &run("").await, |v| v.raw_ref_wrong);
}

/// A stop message that is answered before it is stored is forgotten with the process.
#[tokio::test]
async fn test_bug_answer_before_stored_is_caught() {
    for (bug, remembered) in [("", true), ("answer_before_stored", false)] {
        let lab = Lab::new(&STREAM.config());
        let mut node = start(&lab, bug, "");
        node.ready().await;
        let data = json!({"adapter": "SYN", "tenant": "acme", "stream": "syn"});
        let (status, answer) = node.message("worker:stop", data).await;
        assert_eq!((status, &answer["success"]), (200, &json!(true)), "{bug}: {answer}");
        node.kill();
        let mut node = lab.start();
        node.ready().await;
        let desired = node.status(Synthetic::STREAM).await["desired"].clone();
        assert_eq!(desired == "stopped", remembered, "{bug}: {desired}");
        if !remembered {
            assert_sound(&STREAM.fresh(&lab).await, "what it does nobody wants any more, but it does it well");
        }
    }
}
