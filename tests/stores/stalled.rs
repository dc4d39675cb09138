//! A store that takes nothing, under a source that offers without end.

use super::{ends_sound, nothing_failed, struck};
use crate::support::lab::{QUICK, stream};
use crate::support::servers::s3::ENV;
use crate::support::servers::{Toxic, toxiproxy, versitygw};
use crate::support::{Lab, Node, Synthetic};

const MIB: u64 = 1 << 20;

/// `node.queue`.
const QUEUE: u64 = 64 * MIB;

/// What the README promises for it.
const BOUND: u64 = 64 * MIB + 4 * QUEUE;

const FAILURES: &str = "lakefeed_lake_failures_total";

/// For the oracle; the rate is the configuration's below.
const STREAM: Synthetic = Synthetic { seed: 41, partitions: 2, total: 1_000_000_000, rate: 0 };

/// As many records as the source can make.
fn config() -> String {
    let Synthetic { seed, partitions, total, .. } = STREAM;
    format!(
        "{QUICK}[adapter.SYN]\nkind = \"synthetic\"\nseed = {seed}\npartitions = {partitions}\ntotal = {total}\n\
         bytes = 1000\n{}",
        stream(Synthetic::STREAM, "SYN")
    )
}

/// The queue is as full as it gets: no further batch of a source fits.
async fn full(node: &Node) {
    let held = async || node.metric_sum("lakefeed_queue_bytes").await;
    struck("a full queue", node, async || held().await >= (QUEUE - MIB) as f64).await;
}

#[tokio::test]
async fn test_a_stalled_store_stops_the_source_within_the_memory_that_is_configured() {
    let Some(server) = versitygw().await else { return };
    let Some(toxiproxy) = toxiproxy().await else { return };
    let proxy = toxiproxy.before("stalled", server.address()).await;
    let mut lab: Lab = server.lab_of(&config(), &proxy.endpoint());
    lab.node_with(&format!("queue = \"{}MiB\"", QUEUE / MIB));
    let mut node = lab.start_with(&ENV);
    lab.epoch_after(Synthetic::STREAM, 0).await;
    proxy.poison(Toxic::HoleUp).await;
    full(&node).await;
    // Requests that are given up and made again do not add to it either.
    let before = node.metric_sum(FAILURES).await;
    struck("requests without an answer", &node, async || node.metric_sum(FAILURES).await >= before + 1.0).await;
    full(&node).await;
    let most = node.memory_max();
    assert!(most <= BOUND, "{} MiB of {} MiB; the log:\n{}", most / MIB, BOUND / MIB, node.log());
    let held = lab.epoch(Synthetic::STREAM);
    proxy.cure().await;
    lab.epoch_after(Synthetic::STREAM, held + 1).await;
    nothing_failed(&node).await;
    ends_sound(&lab, &STREAM, &mut node, "stalled").await;
    eprintln!("stalled: {} MiB of {} MiB", most / MIB, BOUND / MIB);
}
