//! The same on a local disk: the protocol on the store that nodes start with.

use std::sync::Arc;

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
