//! A node and a real S3 server with a proxy in between that does what networks do.

use super::{back, ends_sound, logged, nothing_failed, struck};
use crate::support::servers::s3::ENV;
use crate::support::servers::{Proxy, S3, SECRET_KEY, Toxic, minio, toxiproxy, versitygw};
use crate::support::{Lab, Node, PATIENCE, Synthetic, wait_for};

/// Slow enough that it outlives the faults, and never at its end.
const STREAM: Synthetic = Synthetic { seed: 31, partitions: 2, total: 1_000_000, rate: 60 };

const FAILURES: &str = "lakefeed_lake_failures_total";

/// One fault: until `times` requests have failed by it. Then the stream is back in time.
async fn endure(lab: &Lab, node: &Node, proxy: &Proxy<'_>, toxic: Toxic, times: f64) {
    let before = node.metric_sum(FAILURES).await;
    proxy.poison(toxic).await;
    let what = format!("{times} requests that fail by {toxic:?}");
    struck(&what, node, async || node.metric_sum(FAILURES).await >= before + times).await;
    proxy.cure().await;
    back(lab, node, &format!("{toxic:?}")).await;
}

async fn endure_all(server: &mut S3, toxics: &[(Toxic, f64)], context: &str) {
    let Some(toxiproxy) = toxiproxy().await else { return };
    let proxy = toxiproxy.before(context, server.address()).await;
    let lab = server.lab(&STREAM, &proxy.endpoint());
    let mut node = lab.start_with(&ENV);
    lab.epoch_after(Synthetic::STREAM, 1).await;
    // Late answers are no failures, only slow ones.
    let epoch = lab.epoch(Synthetic::STREAM);
    proxy.poison(Toxic::Latency(150)).await;
    lab.epoch_after(Synthetic::STREAM, epoch + 1).await;
    proxy.cure().await;
    for (toxic, times) in toxics {
        endure(&lab, &node, &proxy, *toxic, *times).await;
    }
    // Nobody there, long enough that the circuit opens.
    proxy.enable(false).await;
    logged("lake_circuit_open", &node).await;
    proxy.enable(true).await;
    back(&lab, &node, "refused connections").await;
    assert!(node.log().contains("lake_circuit_closed"), "{}", node.log());
    struck("the end of the alert", &node, async || node.metric_sum("lakefeed_lake_circuit_open").await == 0.0).await;
    // The server itself.
    let before = node.metric_sum(FAILURES).await;
    server.kill();
    struck("requests to a dead server", &node, async || node.metric_sum(FAILURES).await > before + 1.0).await;
    server.start_again().await;
    back(&lab, &node, "a server that was killed").await;
    nothing_failed(&node).await;
    ends_sound(&lab, &STREAM, &mut node, context).await;
    assert!(!node.log().contains(SECRET_KEY));
}

#[tokio::test]
async fn test_outages_between_node_and_versitygw_lose_and_double_nothing() {
    let Some(mut server) = versitygw().await else { return };
    let toxics = [(Toxic::CutUp(3_000), 2.0), (Toxic::CutDown(60), 3.0), (Toxic::Reset, 2.0), (Toxic::HoleDown, 1.0)];
    endure_all(&mut server, &toxics, "versitygw").await;
}

#[tokio::test]
async fn test_outages_between_node_and_minio_lose_and_double_nothing() {
    let Some(mut server) = minio().await else { return };
    let toxics = [(Toxic::CutDown(200), 3.0), (Toxic::CutUp(700), 2.0), (Toxic::Reset, 2.0), (Toxic::HoleUp, 1.0)];
    endure_all(&mut server, &toxics, "minio").await;
}

/// Many streams wait together for one store that is away: they do not ask it a hundred times each, and all are back.
#[tokio::test]
async fn test_outages_of_many_streams_cost_few_requests() {
    const STREAMS: usize = 12;
    let Some(mut server) = versitygw().await else { return };
    let mut config = STREAM.config();
    for n in 0..STREAMS {
        config += &format!("[stream.\"acme/s{n}\"]\nadapter = \"SYN\"\n");
    }
    let lab = server.lab_of(&config, &server.endpoint());
    let mut node = lab.start_with(&ENV);
    let last = format!("acme/s{}", STREAMS - 1);
    lab.epoch_after(&last, 1).await;
    lab.epoch_after(Synthetic::STREAM, 1).await;
    server.kill();
    logged("lake_circuit_open", &node).await;
    let before = node.metric_sum(FAILURES).await;
    // Long enough that each stream has given up waiting and come back.
    let waits = || node.log().matches("the lake is waited for").count();
    wait_for("all streams to wait", PATIENCE, async || (waits() >= STREAMS).then_some(())).await;
    let asked = node.metric_sum(FAILURES).await - before;
    // What was under way when it opened, raw, data and record of each, and the probes.
    assert!(asked <= (4 * STREAMS + 30) as f64, "{asked} requests to a store that is away");
    server.start_again().await;
    for n in 0..STREAMS {
        let stream = format!("acme/s{n}");
        let epoch = lab.epoch(&stream);
        lab.epoch_after(&stream, epoch).await;
    }
    nothing_failed(&node).await;
    ends_sound(&lab, &STREAM, &mut node, "many streams").await;
}
