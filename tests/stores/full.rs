//! An S3 server whose disk is full.

use super::{back, ends_sound, nothing_failed, struck};
use crate::support::Synthetic;
use crate::support::mounts::{Mounted, image};
use crate::support::servers::s3::{ENV, minio_on, versitygw_on};
use crate::support::servers::{S3, skipped};

const STREAM: Synthetic = Synthetic { seed: 51, partitions: 1, total: 1_000_000, rate: 60 };
/// The bucket's, beside nothing else.
const DISK_MIB: u32 = 24;

async fn filled(server: S3, disk: &Mounted, context: &str) {
    let lab = server.lab(&STREAM, &server.endpoint());
    let mut node = lab.start_with(&ENV);
    lab.epoch_after(Synthetic::STREAM, 2).await;
    struck("lake_full in the log", &node, async || {
        disk.fill();
        node.log().contains("lake_full")
    })
    .await;
    disk.clear();
    back(&lab, &node, context).await;
    nothing_failed(&node).await;
    ends_sound(&lab, &STREAM, &mut node, context).await;
}

#[tokio::test]
async fn test_full_versitygw_is_waited_out() {
    let disk = match Mounted::tmpfs(DISK_MIB) {
        Ok(disk) => disk,
        Err(why) => return skipped("a small disk", &why),
    };
    let Some(server) = versitygw_on(disk.path()).await else { return };
    filled(server, &disk, "a full versitygw").await;
}

#[tokio::test]
async fn test_full_minio_is_waited_out() {
    let folder = tempfile::tempdir().unwrap();
    let mounted = image("ext4", folder.path()).and_then(|image| Mounted::image(&image, &folder.path().join("disk")));
    let disk = match mounted {
        Ok(disk) => disk,
        Err(why) => return skipped("a small disk", &why),
    };
    let data = disk.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let Some(server) = minio_on(&data).await else { return };
    filled(server, &disk, "a full MinIO").await;
}
