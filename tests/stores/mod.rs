//! The lake under faults of what it stands on: object stores, networks, disks, the power.

mod clouds;
mod credentials;
mod disk;
mod full;
mod names;
mod outages;
mod power;
mod second_reader;
mod stalled;

use std::path::Path;
use std::time::Duration;

use lakefeed::oracle;
use serde_json::Value;

use crate::support::lab::assert_sound;
use crate::support::{Lab, Node, PATIENCE, Synthetic, wait_for};

/// Waits for what a fault does to the node: so that it is known to have struck.
pub(crate) async fn struck(what: &str, node: &Node, look: impl AsyncFn() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, wait_for(what, Duration::MAX, async || look().await.then_some(())));
    assert!(waited.await.is_ok(), "{what} does not come; the log:\n{}", node.log());
}

/// The log says `word`.
pub(crate) async fn logged(word: &str, node: &Node) {
    struck(&format!("{word} in the log"), node, async || node.log().contains(word)).await;
}

/// The fault is over: a record that was not there yet is committed, without anybody's help. That it is within 30 s (G4)
/// the simulation holds the node to, on a clock that no busy machine slows down.
pub(crate) async fn back(lab: &Lab, node: &Node, after: &str) -> u64 {
    let (stream, known) = (Synthetic::STREAM, lab.epoch(Synthetic::STREAM));
    // The epoch that was under way holds what was read before the fault; the one after it is fresh.
    let fresh =
        wait_for("a fresh epoch", Duration::MAX, async || Some(lab.epoch(stream)).filter(|now| *now > known + 1));
    match tokio::time::timeout(PATIENCE, fresh).await {
        Ok(epoch) => epoch,
        Err(_) => panic!("{after}: no fresh epoch after {known}; the log:\n{}", node.log()),
    }
}

/// No child failed: what was wrong outside is back-pressure and no failure.
pub(crate) async fn nothing_failed(node: &Node) {
    let failed: Vec<_> = node.restarts().await.into_iter().filter(|event| event["event"] == "failed").collect();
    assert!(failed.is_empty(), "{failed:?}; the log:\n{}", node.log());
}

/// Ends the node in order; then the lake is whole up to its last record, and every reference leads to what it says.
pub(crate) async fn ends_sound(lab: &Lab, stream: &Synthetic, node: &mut Node, context: &str) -> oracle::Verdict {
    node.ready().await;
    let published = node.references(Synthetic::STREAM).await;
    assert_eq!(node.terminate().await, Some(0), "{context}: it does not end in order:\n{}", node.log());
    let verdict = lab.judge(Synthetic::STREAM, &stream.so_far());
    assert_sound(&verdict, context);
    refers(&published, lab.lake(), context);
    eprintln!("{context}: {}", verdict.summary());
    verdict
}

/// References up to the last one published lead to commits that are there.
#[track_caller]
pub(crate) fn refers(published: &[Value], lake: &Path, context: &str) {
    let verdict = oracle::references(published, lake, "acme", "syn").unwrap();
    // Epochs of the drain are published after the page was read; nothing else may be wrong.
    assert_eq!((verdict.before_commit, verdict.wrong), (0, 0), "{context}: {verdict:?}");
}
