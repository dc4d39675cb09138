//! Disks that are full, fail, or may not be written: the intake waits, nothing is lost, and it goes on by itself.

use std::path::Path;
use std::process::Command;

use super::{back, ends_sound, logged, nothing_failed, struck};
use crate::crash::kill_and_judge;
use crate::support::mounts::Mounted;
use crate::support::servers::skipped;
use crate::support::tracer::Tracer;
use crate::support::{Lab, Node, Synthetic};

/// Never at its end; small enough for a small disk.
const STREAM: Synthetic = Synthetic { seed: 41, partitions: 2, total: 1_000_000, rate: 60 };
/// Holds what the stream brings in a minute.
const DISK_MIB: u32 = 24;

fn mounted() -> Option<Mounted> {
    Mounted::tmpfs(DISK_MIB).map_err(|why| skipped("a small disk", &why)).ok()
}

async fn started(lab: &Lab) -> Node {
    let node = lab.start();
    lab.epoch_after(Synthetic::STREAM, 2).await;
    node
}

#[tokio::test]
async fn test_disk_full_under_the_lake_is_waited_out() {
    let Some(disk) = mounted() else { return };
    let home = tempfile::tempdir().unwrap();
    let lab = Lab::within(&STREAM.config(), &disk.path().join("lake"), &home.path().join("state"));
    let mut node = started(&lab).await;
    disk.fill();
    struck("disk_full in the log", &node, async || {
        disk.fill();
        node.log().contains("disk_full")
    })
    .await;
    let full = lab.epoch(Synthetic::STREAM);
    struck("something to alert on", &node, async || node.metric_sum("lakefeed_waiting").await == 1.0).await;
    assert!(lab.epoch(Synthetic::STREAM) <= full + 1, "it commits on a full disk");
    disk.clear();
    back(&lab, &node, "a full disk").await;
    struck("the end of the alert", &node, async || node.metric_sum("lakefeed_waiting").await == 0.0).await;
    nothing_failed(&node).await;
    ends_sound(&lab, &STREAM, &mut node, "a full disk under the lake").await;
}

/// The state directory is a cache: without space for it the node goes on, and starts.
#[tokio::test]
async fn test_disk_full_under_the_state_loses_nothing() {
    let Some(disk) = mounted() else { return };
    let home = tempfile::tempdir().unwrap();
    let lab = Lab::within(&STREAM.config(), &home.path().join("lake"), &disk.path().join("state"));
    let mut node = started(&lab).await;
    disk.fill();
    struck("a failing cache", &node, async || {
        disk.fill();
        node.log().contains("cache_") || node.metric_sum("lakefeed_restart_log_failures_total").await > 0.0
    })
    .await;
    back(&lab, &node, "a full state directory").await;
    node.kill();
    let mut node = lab.start();
    node.ready().await;
    back(&lab, &node, "a start with a full state directory").await;
    disk.clear();
    back(&lab, &node, "a state directory that has space again").await;
    nothing_failed(&node).await;
    ends_sound(&lab, &STREAM, &mut node, "a full disk under the state").await;
    let mut node = lab.start();
    back(&lab, &node, "a start after it").await;
    ends_sound(&lab, &STREAM, &mut node, "a start after a full disk").await;
}

/// A lake that somebody remounts read-only, as a kernel does with a disk that it does not trust any more.
#[tokio::test]
async fn test_disk_read_only_is_waited_out() {
    let Some(disk) = mounted() else { return };
    let home = tempfile::tempdir().unwrap();
    let lab = Lab::within(&STREAM.config(), &disk.path().join("lake"), &home.path().join("state"));
    let mut node = started(&lab).await;
    // Refused as long as a put has its file open.
    struck("a read-only disk", &node, async || disk.remount("ro").is_ok()).await;
    logged("disk_read_only", &node).await;
    disk.remount("rw").unwrap();
    back(&lab, &node, "a read-only disk").await;
    nothing_failed(&node).await;
    ends_sound(&lab, &STREAM, &mut node, "a read-only disk").await;
}

/// Calls of the node that fail, some at first and then all for a while.
async fn failing_calls(calls: &str, context: &str) {
    let home = tempfile::tempdir().unwrap();
    let lab = Lab::within(&STREAM.config(), &home.path().join("lake"), &home.path().join("state"));
    let mut node = started(&lab).await;
    for inject in ["error=EIO:when=1+7", "error=EIO"] {
        let tracer = match Tracer::inject(&node, calls, inject, lab.folder()).await {
            Ok(tracer) => tracer,
            Err(why) => return skipped(context, &why),
        };
        struck(&format!("{calls} that fail"), &node, async || tracer.injected() >= 12).await;
        drop(tracer);
        back(&lab, &node, context).await;
    }
    nothing_failed(&node).await;
    ends_sound(&lab, &STREAM, &mut node, context).await;
}

#[tokio::test]
async fn test_disk_that_fails_to_sync_loses_nothing() {
    failing_calls("fsync,fdatasync", "a failing fsync").await;
}

#[tokio::test]
async fn test_disk_that_fails_to_name_files_loses_nothing() {
    failing_calls("link,linkat,rename,renameat,renameat2", "failing links and renames").await;
}

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    assert!(Command::new("cp").arg("-r").args([from, to]).status().unwrap().success());
}

#[tokio::test]
async fn test_disk_with_an_older_copy_of_the_state_doubles_nothing() {
    let kept = tempfile::tempdir().unwrap();
    let (copied, mut kills) = (kept.path().join("state"), 0);
    kill_and_judge("an older copy of the state", 6, |lab, _| {
        kills += 1;
        if kills == 2 {
            copy(&lab.state(), &copied);
        } else if kills > 2 {
            copy(&copied, &lab.state());
        }
    })
    .await;
}
