//! Starts: caches that lag, lead or lie, notes of positions, dead letters that were left behind.

use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::*;
use crate::lake::layout;
use crate::lake::recover::POSITIONS_EVERY;

async fn commit(owner: &mut Owner, partitions: &[&str], count: u64) -> Checkpoint {
    let sealed = next_epoch(owner, partitions, count);
    owner.commit(&sealed, "results").await.unwrap().checkpoint
}

#[tokio::test]
async fn test_caches_that_lag_are_brought_up_and_others_are_discarded() {
    let (_, lake) = lake();
    let mut owner = lake.claim(claim_with(None)).await.unwrap();
    let mut checkpoints = Vec::new();
    for epoch in 0..6 {
        let partition = if epoch % 2 == 0 { "a" } else { "b" };
        checkpoints.push(commit(&mut owner, &[partition], 3).await);
    }
    let truth = checkpoints[5].clone();
    assert_eq!(lake.last_checkpoint(&id()).await.unwrap(), Some(truth.clone()));
    let changed = |change: &dyn Fn(&mut Checkpoint)| {
        let mut cache = truth.clone();
        change(&mut cache);
        cache
    };
    let mut caches = checkpoints.clone();
    caches.push(changed(&|c| c.epoch = 7));
    caches.push(changed(&|c| c.table_id = "another".to_owned()));
    caches.push(changed(&|c| c.generation = 9));
    caches.push(changed(&|c| c.positions = [("b".to_owned(), "100".to_owned())].into()));
    caches.push(changed(&|c| c.newest_event_us = Some(1)));
    caches.push(changed(&|c| c.epoch = 0));
    for cache in caches {
        let owner = lake.claim(claim_with(Some(cache.clone()))).await.unwrap();
        assert_eq!(owner.checkpoint(), &truth, "{cache:?}");
    }
}

#[tokio::test]
async fn test_a_cache_at_the_last_epoch_costs_no_listing_and_few_reads() {
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let store = FailingStore::new(Arc::clone(&inner));
    let lake = lake_on(Arc::new(store.clone()), 1);
    let mut owner = lake.claim(claim_with(None)).await.unwrap();
    let before = store.log().len();
    assert!(before <= 6, "{:?}", store.log());
    let mut cache = None;
    for _ in 0..5 {
        cache = Some(commit(&mut owner, &["a"], 3).await);
    }
    let before = store.log().len();
    lake.claim(claim_with(cache)).await.unwrap();
    let asked = store.log().split_off(before);
    assert!(!asked.iter().any(|operation| operation.starts_with("list")), "{asked:?}");
}

#[tokio::test]
async fn test_positions_are_found_from_a_note_after_the_log_was_cleaned_up() {
    let (store, lake) = lake();
    let mut owner = lake.claim(claim_with(None)).await.unwrap();
    commit(&mut owner, &["once"], 2).await;
    let epochs = 2 * POSITIONS_EVERY + 5;
    while owner.checkpoint().epoch < epochs {
        commit(&mut owner, &["a"], 1).await;
    }
    let truth = owner.checkpoint().clone();
    assert_eq!(truth.positions["once"], "2");
    let other = lake_on(Arc::clone(&store) as Arc<dyn ObjectStore>, 5);
    assert_eq!(other.last_checkpoint(&id()).await.unwrap(), Some(truth.clone()));
    // The log forgets everything before its checkpoint, and the records before the note are never asked for.
    lake.checkpoint_log(&id()).await.unwrap();
    for version in 0..epochs {
        store.delete(&Path::from(layout::log_entry("tables/acme/berlin", version))).await.unwrap();
    }
    for epoch in 1..=2 * POSITIONS_EVERY {
        store.delete(&Path::from(layout::record("results", &id(), epoch, 1))).await.unwrap();
    }
    assert_eq!(other.last_checkpoint(&id()).await.unwrap(), Some(truth.clone()));
    // A damaged note is passed over; with the records gone, what is missing is named.
    store.put(&Path::from(layout::positions(&id(), 2 * POSITIONS_EVERY, 1)), "{".into()).await.unwrap();
    assert_eq!(other.last_checkpoint(&id()).await.unwrap_err().code, "record_missing");
    // And the table goes on from its checkpoint.
    let mut next = other.claim(claim_with(Some(truth))).await.unwrap();
    assert_eq!(next.generation(), 2);
    commit(&mut next, &["a"], 1).await;
}

#[tokio::test]
async fn test_records_in_other_buckets_are_found() {
    let (store, lake) = lake();
    let mut owner = lake.claim(claim_with(None)).await.unwrap();
    for bucket in ["results", "archive", "archive", "results", "zoo"] {
        let sealed = next_epoch(&owner, &["a"], 2);
        owner.commit(&sealed, bucket).await.unwrap();
    }
    let truth = owner.checkpoint().clone();
    lake.checkpoint_log(&id()).await.unwrap();
    for version in 0..=5 {
        store.delete(&Path::from(layout::log_entry("tables/acme/berlin", version))).await.unwrap();
    }
    let other = lake_on(Arc::clone(&store) as Arc<dyn ObjectStore>, 5);
    assert_eq!(other.last_checkpoint(&id()).await.unwrap(), Some(truth));
    let reference = other.reference(&id(), 3).await.unwrap().unwrap();
    assert_eq!(reference["payload"]["filename"], "archive/acme/berlin/00000000000000000003-1.json");
    assert_eq!(reference.get("version"), None);
}

#[tokio::test]
async fn test_a_left_record_of_an_older_generation_is_not_taken_for_the_committed_one() {
    let (store, lake) = lake();
    let owner = lake.claim(claim_with(None)).await.unwrap();
    // Generation 1 comes as far as its record, with more rows than are committed later.
    let record = crate::lake::EpochRecord::of(&next_epoch(&owner, &["a"], 50), None);
    let path = Path::from(layout::record("results", &id(), 1, 1));
    store.put(&path, record.to_bytes().unwrap().into()).await.unwrap();
    let mut owner = lake.claim(claim_with(None)).await.unwrap();
    commit(&mut owner, &["a"], 3).await;
    let owner = lake.claim(claim_with(None)).await.unwrap();
    assert_eq!(owner.checkpoint().positions["a"], "3");
    // Also when the log does not tell.
    lake.checkpoint_log(&id()).await.unwrap();
    for version in 0..=3 {
        store.delete(&Path::from(layout::log_entry("tables/acme/berlin", version))).await.unwrap();
    }
    assert_eq!(lake.last_checkpoint(&id()).await.unwrap().unwrap().positions["a"], "3");
}

#[tokio::test(start_paused = true)]
async fn test_dead_letters_left_behind_are_completed_by_the_next_owner() {
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let store = FailingStore::new(Arc::clone(&inner));
    let lake = lake_on(Arc::new(store.clone()), 1);
    let mut owner = lake.claim(claim_with(None)).await.unwrap();
    commit(&mut owner, &["a"], 8).await;
    store.arm(Fail { times: 1000, ..Fail::put("dead/acme/berlin/_delta_log", Fault::BEFORE) });
    let sealed = next_epoch(&owner, &["a"], 8);
    assert!(owner.commit(&sealed, "results").await.is_err());
    let report = lake.check(None).await.unwrap();
    assert_eq!(report.problems.iter().map(|p| p.code).collect::<Vec<_>>(), ["dead_behind"]);
    store.heal();
    let owner = lake.claim(claim_with(None)).await.unwrap();
    assert_eq!(owner.checkpoint().epoch, 2);
    // A zombie that wakes up in the middle of it changes nothing.
    let error = lake.claim(claim_with(None)).await.map(|o| o.generation());
    assert_eq!(error, Ok(3));
    judge(inner, "acme/berlin").await.assert_whole(&[("a", 16)]);
    assert_eq!(lake.check(None).await.unwrap().problem_count, 0);
}

#[tokio::test]
async fn test_operator_sets_and_resets_positions_by_an_epoch_without_rows() {
    let (_, lake) = lake();
    let mut owner = lake.claim(claim_with(None)).await.unwrap();
    commit(&mut owner, &["a", "b"], 5).await;
    let mut set = builder(&owner);
    assert!(set.is_empty());
    set.set_position("a", Some(Position::new("5")), Position::new("3"));
    set.set_position("b", Some(Position::new("5")), Position::new(""));
    assert!(!set.is_empty());
    let committed = owner.commit(&set.seal(NOON_US), "results").await.unwrap();
    assert_eq!((committed.rows, committed.checkpoint.positions), (0, [("a".to_owned(), "3".to_owned())].into()));
    let mut owner = lake.claim(claim_with(None)).await.unwrap();
    assert_eq!(owner.checkpoint().positions, [("a".to_owned(), "3".to_owned())].into());
    commit(&mut owner, &["b"], 2).await;
    assert_eq!(lake.check(None).await.unwrap().problem_count, 0);
}

#[tokio::test]
async fn test_missing_record_of_a_committed_epoch_is_named() {
    let (store, lake) = lake();
    let mut owner = lake.claim(claim_with(None)).await.unwrap();
    commit(&mut owner, &["a"], 5).await;
    store.delete(&Path::from(layout::record("results", &id(), 1, 1))).await.unwrap();
    let error = lake.claim(claim_with(None)).await.unwrap_err();
    assert_eq!(error.code, "record_missing");
}
