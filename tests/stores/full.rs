//! An S3 server whose disk is full.

use super::{back, ends_sound, nothing_failed, struck};
use crate::support::Synthetic;
use crate::support::mounts::Mounted;
use crate::support::servers::s3::{ENV, versitygw_on};
use crate::support::servers::skipped;

const STREAM: Synthetic = Synthetic { seed: 51, partitions: 1, total: 1_000_000, rate: 60 };
/// The bucket's, beside nothing else.
const DISK_MIB: u32 = 24;

#[tokio::test]
async fn test_full_server_is_waited_out() {
    let disk = match Mounted::tmpfs(DISK_MIB) {
        Ok(disk) => disk,
        Err(why) => return skipped("a small disk", &why),
    };
    let Some(server) = versitygw_on(disk.path()).await else { return };
    let lab = server.lab(&STREAM, &server.endpoint());
    let mut node = lab.start_with(&ENV);
    lab.epoch_after(Synthetic::STREAM, 2).await;
    struck("lake_full in the log", &node, async || {
        disk.fill();
        node.log().contains("lake_full")
    })
    .await;
    disk.clear();
    back(&lab, &node, "a full server").await;
    nothing_failed(&node).await;
    ends_sound(&lab, &STREAM, &mut node, "a full server").await;
    drop((node, server));
}
