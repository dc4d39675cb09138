//! The same on a local disk: the protocol on the store that nodes start with.

use std::sync::Arc;
use std::time::Instant;

use super::*;
use crate::lake::file_store::FileStore;

fn open(folder: &tempfile::TempDir) -> Arc<dyn ObjectStore> {
    Arc::new(FileStore::open(folder.path(), NOON_US).unwrap())
}

#[tokio::test]
async fn test_a_local_lake_survives_reopening_and_two_owners() {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake_on(open(&folder), 1);
    let mut owner = lake.claim(claim_with(None)).await.unwrap();
    for _ in 0..5 {
        owner.commit(&next_epoch(&owner, &["a", "b"], 7), "results").await.unwrap();
    }
    let late = next_epoch(&owner, &["a"], 7);
    let other = lake_on(open(&folder), 2);
    let mut new = other.claim(claim_with(None)).await.unwrap();
    assert_eq!(owner.commit(&late, "results").await.unwrap_err().code, "fenced");
    other.checkpoint_log(&id()).await.unwrap();
    new.commit(&next_epoch(&new, &["a"], 7), "results").await.unwrap();
    let again = lake_on(open(&folder), 3);
    assert_eq!(again.last_checkpoint(&id()).await.unwrap().unwrap(), *new.checkpoint());
    judge(open(&folder), "acme/berlin").await.assert_whole(&[("a", 42), ("b", 35)]);
    let report = again.check(None).await.unwrap();
    // What the fenced owner had staged is left: a file, a file of dead letters, a record. His segment is the new owner's
    // too, because it has the same content.
    assert_eq!((report.problems, report.orphans), (Vec::new(), 3));
}

/// Run by hand for the figures: `cargo test --lib lake::tests::local -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "prints figures of this machine"]
#[allow(clippy::print_stdout, reason = "the figures")]
async fn test_figures_of_a_local_lake() {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake_on(open(&folder), 1);
    let mut owner = lake.claim(claim_with(None)).await.unwrap();
    let (mut seals, mut commits) = (Vec::new(), Vec::new());
    for _ in 0..200 {
        let start = Instant::now();
        let sealed = next_epoch(&owner, &["a"], 6);
        seals.push(start.elapsed());
        let start = Instant::now();
        owner.commit(&sealed, "results").await.unwrap();
        commits.push(start.elapsed());
    }
    commits.sort();
    seals.sort();
    println!("seal p50 {:?}, commit p50 {:?} p99 {:?}", seals[100], commits[100], commits[197]);
    let start = Instant::now();
    let streams = 300;
    for number in 0..streams {
        let id = StreamId::new("many", &format!("s{number}")).unwrap();
        lake.claim(Claim { id, ..claim_with(None) }).await.unwrap();
    }
    println!("first claim {:?} each", start.elapsed() / streams);
    let start = Instant::now();
    for number in 0..streams {
        let id = StreamId::new("many", &format!("s{number}")).unwrap();
        lake.claim(Claim { id, ..claim_with(None) }).await.unwrap();
    }
    println!("second claim {:?} each", start.elapsed() / streams);
    lake.checkpoint_log(&id()).await.unwrap();
    let start = Instant::now();
    for _ in 0..50 {
        lake.claim(claim_with(None)).await.unwrap();
    }
    println!("claim of 200 epochs from a checkpoint {:?}", start.elapsed() / 50);
}
