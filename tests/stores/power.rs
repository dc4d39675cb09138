//! Power loss: the disk is copied at a random moment, without what the kernel still holds for it, and a node starts on
//! the copy. Whatever had been told to the outside is there.
//!
//! `LAKEFEED_POWER_ROUNDS` sets the rounds on each file system (3), `LAKEFEED_CRASH_SEED` repeats a run.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use serde_json::Value;

use super::{ends_sound, refers};
use crate::crash::seeded;
use crate::support::mounts::{Mounted, copy_image, image};
use crate::support::servers::skipped;
use crate::support::wait::strike_after;
use crate::support::{Lab, Node, PATIENCE, Synthetic, wait_for};

const ROUNDS: u64 = 3;
/// Rounds within which a lake that does not fsync has to be found out.
const ROUNDS_OF_BUG: u64 = 6;
const STREAM: Synthetic = Synthetic { seed: 71, partitions: 2, total: 1_000_000, rate: 400 };

/// One disk after the other, each made of what was left of the one before.
struct Machine {
    folder: tempfile::TempDir,
    disk: Option<Mounted>,
    image: PathBuf,
    copies: u64,
    lab: Lab,
}

impl Machine {
    fn new(kind: &str) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let image = image(kind, folder.path())?;
        let at = folder.path().join("disk");
        let disk = Some(Mounted::image(&image, &at)?);
        let lab = Lab::within(&STREAM.config(), &at.join("lake"), &at.join("state"));
        Ok(Self { folder, disk, image, copies: 0, lab })
    }

    /// Takes the power away: stops the node, leaves the kernel no time to write what it holds, and puts a disk in that
    /// has what was written.
    fn lose_power(&mut self, node: &mut Node) -> Result<(), String> {
        node.signal("STOP");
        self.copies += 1;
        let copy = self.folder.path().join(format!("{}.img", self.copies));
        copy_image(&self.image, &copy);
        node.kill();
        self.disk = None;
        std::fs::remove_file(&self.image).map_err(|error| error.to_string())?;
        self.image = copy;
        self.disk = Some(Mounted::image(&self.image, &self.folder.path().join("disk"))?);
        Ok(())
    }
}

/// What was published, by epoch.
async fn published(node: &Node) -> Vec<Value> {
    node.references(Synthetic::STREAM).await
}

/// What of `told` is not in the lake as it was told.
fn lost(told: &[Value], lake: &Path) -> Result<Vec<u64>, String> {
    let committed = lakefeed::oracle::last_epoch(lake, "acme", "syn").map_err(|error| error.chain())?;
    let there = |one: &&Value| {
        let record = one["payload"]["filename"].as_str().and_then(|path| std::fs::read(lake.join(path)).ok());
        let record = record.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok()).unwrap_or_default();
        one["epoch"].as_u64() <= Some(committed) && record["rows"] == one["rows"] && record["epoch"] == one["epoch"]
    };
    Ok(told.iter().filter(|one| !there(one)).filter_map(|one| one["epoch"].as_u64()).collect())
}

fn checked(lab: &Lab) -> Result<(), String> {
    let check = Command::new(env!("CARGO_BIN_EXE_lakefeed"))
        .args(["lake", "check", "-c"])
        .arg(lab.config())
        .output()
        .map_err(|error| error.to_string())?;
    let said = [check.stdout, check.stderr].concat();
    if check.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&said).into_owned()) }
}

/// One round: a node at work, no power, what is left.
async fn round(machine: &mut Machine, env: &[(&str, &str)], rng: &mut StdRng) -> Result<u64, String> {
    let before = machine.lab.epoch(Synthetic::STREAM);
    let mut node = machine.lab.start_with(env);
    machine.lab.epoch_after(Synthetic::STREAM, before + 1).await;
    strike_after(Duration::from_millis(rng.random_range(0..400))).await;
    let told =
        wait_for("a reference", PATIENCE, async || Some(published(&node).await).filter(|told| !told.is_empty())).await;
    machine.lose_power(&mut node)?;
    let lost = lost(&told, machine.lab.lake())?;
    if !lost.is_empty() {
        return Err(format!("of {} epochs that were told {lost:?} are lost", told.len()));
    }
    let verdict = machine.lab.judge(Synthetic::STREAM, &STREAM.so_far());
    if !verdict.ok() {
        return Err(format!("{}\n{}", verdict.summary(), verdict.messages.join("\n")));
    }
    checked(&machine.lab)?;
    let epochs: BTreeSet<_> = told.iter().filter_map(|one| one["epoch"].as_u64()).collect();
    Ok(epochs.len() as u64)
}

async fn rounds(kind: &str) {
    let mut machine = match Machine::new(kind) {
        Ok(machine) => machine,
        Err(why) => return skipped(&format!("power loss on {kind}"), &why),
    };
    let mut rng = seeded(&format!("power loss on {kind}"));
    let rounds = std::env::var("LAKEFEED_POWER_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(ROUNDS);
    let mut told = 0;
    for n in 0..rounds {
        match round(&mut machine, &[], &mut rng).await {
            Ok(epochs) => told = epochs,
            Err(why) => panic!("power loss on {kind}, round {n}: {why}"),
        }
    }
    // The last copy is a lake like any other: it goes on and ends in order.
    let before = machine.lab.epoch(Synthetic::STREAM);
    let mut node = machine.lab.start();
    machine.lab.epoch_after(Synthetic::STREAM, before).await;
    node.ready().await;
    refers(&published(&node).await, machine.lab.lake(), kind);
    ends_sound(&machine.lab, &STREAM, &mut node, &format!("power loss on {kind}, {rounds} rounds, {told} epochs"))
        .await;
    checked(&machine.lab).unwrap();
}

#[tokio::test]
async fn test_power_loss_on_ext4_loses_nothing_that_was_told() {
    rounds("ext4").await;
}

#[tokio::test]
async fn test_power_loss_on_xfs_loses_nothing_that_was_told() {
    rounds("xfs").await;
}

/// A lake that leaves fsync out is found out; so the silence of the others means something.
#[tokio::test]
async fn test_power_loss_finds_a_lake_without_fsync() {
    let mut rng = seeded("power loss without fsync");
    for n in 0..ROUNDS_OF_BUG {
        let mut machine = match Machine::new("ext4") {
            Ok(machine) => machine,
            Err(why) => return skipped("power loss without fsync", &why),
        };
        if let Err(why) = round(&mut machine, &[("LAKEFEED_BUG", "no_fsync")], &mut rng).await {
            eprintln!("found in round {n}: {why}");
            return;
        }
    }
    panic!("a lake without fsync was not found out in {ROUNDS_OF_BUG} rounds");
}
