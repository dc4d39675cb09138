//! The state directory is deleted or damaged between kills: it is a cache, so nothing is lost or doubled (G7).

use std::fs;
use std::path::{Path, PathBuf};

use rand::Rng;
use rand::rngs::StdRng;

use crate::crash::kill_and_judge;
use crate::support::Lab;

/// Kills for each kind of damage.
const KILLS: u64 = 6;

/// All files under a folder, sorted.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The folders of sled databases.
fn databases(lab: &Lab) -> Vec<PathBuf> {
    let logs = files(&lab.state()).into_iter().filter(|path| path.file_name().is_some_and(|name| name == "db"));
    logs.filter_map(|path| path.parent().map(Path::to_owned)).collect()
}

async fn judged(test: &str, mut damage: impl FnMut(&Lab, &mut StdRng)) -> String {
    let mut damaged = 0;
    let logs = kill_and_judge(test, KILLS, |lab, rng| {
        damaged += u64::from(!files(&lab.state()).is_empty());
        damage(lab, rng);
    })
    .await;
    assert!(damaged + 1 >= KILLS, "there was no state to damage");
    logs
}

#[tokio::test]
async fn test_state_deleted_loses_and_doubles_nothing() {
    judged("state deleted", |lab, _| match fs::remove_dir_all(lab.state()) {
        // It was killed before it came to making it.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        removed => removed.unwrap(),
    })
    .await;
}

#[tokio::test]
async fn test_state_truncated_loses_and_doubles_nothing() {
    judged("state truncated", |lab, rng| {
        for path in files(&lab.state()) {
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes[..rng.random_range(0..=bytes.len())]).unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn test_state_bit_flipped_loses_and_doubles_nothing() {
    judged("state bit-flipped", |lab, rng| {
        for path in files(&lab.state()) {
            let mut bytes = fs::read(&path).unwrap();
            // A sled log is mostly zeros ahead of its end: flips are dense enough to meet what is not.
            for _ in 0..bytes.len().div_ceil(64) {
                let at = rng.random_range(0..bytes.len());
                bytes[at] ^= 1 << rng.random_range(0..8);
            }
            fs::write(&path, bytes).unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn test_state_leftover_snapshot_loses_and_doubles_nothing() {
    let mut planted = 0;
    let logs = judged("state with a leftover snapshot", |lab, _| {
        for database in databases(lab) {
            fs::write(database.join("snap.0000000000000BEE.generating"), b"half a snapshot").unwrap();
            planted += 1;
        }
    })
    .await;
    assert!(planted > 0, "there was no database to plant it in");
    assert!(logs.contains("cache_damaged"), "the log does not say what became of the cache:\n{logs}");
}
