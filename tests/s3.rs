//! The main path onto a real S3 server, whose objects are files that the oracle can read.

use crate::support::lab::assert_sound;
use crate::support::servers::s3::ENV;
use crate::support::servers::{SECRET_KEY, versitygw};
use crate::support::{ENDLESS, PATIENCE, Synthetic, wait_for};

#[tokio::test]
async fn test_s3_kill_in_the_middle_loses_and_doubles_nothing() {
    let Some(server) = versitygw().await else { return };
    let stream = Synthetic { seed: 17, partitions: 2, total: ENDLESS, rate: 300 };
    let lab = server.lab(&stream, &server.endpoint());
    let mut node = lab.start_with(&ENV);
    lab.epoch_after(Synthetic::STREAM, 2).await;
    node.kill();
    assert!(!node.log().contains(SECRET_KEY));
    let mut node = lab.start_with(&ENV);
    let verdict = stream.fresh(&lab).await;
    assert_sound(&verdict, "a lake on S3");
    node.ready().await;
    assert_eq!(node.terminate().await, Some(0));
    assert_sound(&lab.judge(Synthetic::STREAM, &stream.so_far()), "what was under way at the end");
    assert!(!node.log().contains(SECRET_KEY));
}

/// An outage of the lake slows the sources and is nothing else: no failure, no restart, nothing lost, nothing doubled.
#[tokio::test]
async fn test_s3_outage_is_waited_out_without_a_restart() {
    let Some(mut server) = versitygw().await else { return };
    let stream = Synthetic { seed: 18, partitions: 2, total: ENDLESS, rate: 300 };
    let lab = server.lab(&stream, &server.endpoint());
    let mut node = lab.start_with(&ENV);
    let before = lab.epoch_after(Synthetic::STREAM, 2).await;
    server.kill();
    wait_for("an epoch that waits for the lake", PATIENCE, async || {
        node.log().contains("the lake is waited for").then_some(())
    })
    .await;
    server.start_again().await;
    lab.epoch_after(Synthetic::STREAM, before).await;
    let verdict = stream.fresh(&lab).await;
    assert_sound(&verdict, "a lake that was away");
    let failed: Vec<_> = node.restarts().await.into_iter().filter(|event| event["event"] == "failed").collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(node.terminate().await, Some(0));
}
