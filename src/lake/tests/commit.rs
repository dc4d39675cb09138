//! One owner, two owners, and commits whose answers are lost.

use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use object_store::memory::InMemory;

use super::*;
use crate::lake::LakeErrorClass;

#[tokio::test]
async fn test_commit_makes_everything_that_the_interface_names() {
    let (store, lake) = lake();
    let mut owner = lake.claim(claim_with(None)).await.unwrap();
    assert_eq!((owner.generation(), owner.checkpoint().epoch), (1, 0));
    let committed = owner.commit(&next_epoch(&owner, &["a", "b"], 10), "results").await.unwrap();
    assert_eq!((committed.epoch, committed.version, committed.rows, committed.dead), (1, 1, 18, 2));
    assert_eq!(committed.dead_codes, [("not_json".to_owned(), 2)].into());
    let again = owner.commit(&next_epoch(&owner, &["a"], 5), "results").await.unwrap();
    assert_eq!((again.epoch, again.version), (2, 2));
    assert_eq!(
        again.checkpoint.positions,
        [("a".to_owned(), "15".to_owned()), ("b".to_owned(), "10".to_owned())].into()
    );
    let judged = judge(store, "acme/berlin").await;
    judged.assert_whole(&[("a", 15), ("b", 10)]);
    assert_eq!((judged.rows, judged.dead, judged.epoch, judged.own), (22, 3, 2, 1));
}

#[tokio::test]
async fn test_reference_is_exactly_what_the_interface_shows() {
    let (_, lake) = lake();
    let mut owner = lake.claim(claim_with(None)).await.unwrap();
    let committed = owner.commit(&next_epoch(&owner, &["a"], 8), "results").await.unwrap();
    let id = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, b"lakefeed:acme/berlin/1").to_string();
    let expected = serde_json::json!({
        "adapter": "TEST",
        "payload": {"id": id, "filename": "results/acme/berlin/00000000000000000001-1.json"},
        "timestamp": "1714564801", "tenant": "acme", "stream": "berlin", "epoch": 1, "generation": 1,
        "table": "tables/acme/berlin", "version": 1, "rows": 7, "dead": 1,
    });
    assert_eq!(committed.reference, expected);
    assert_eq!(lake.reference(&super::id(), 1).await.unwrap(), Some(expected));
    assert_eq!(lake.reference(&super::id(), 2).await.unwrap(), None);
}

#[tokio::test]
async fn test_older_owner_is_fenced_and_a_newer_one_goes_on() {
    let (store, lake) = lake();
    let other = lake_on(Arc::clone(&store) as Arc<dyn ObjectStore>, 2);
    let mut old = lake.claim(claim_with(None)).await.unwrap();
    old.commit(&next_epoch(&old, &["a"], 5), "results").await.unwrap();
    let late = next_epoch(&old, &["a"], 5);
    let mut new = other.claim(claim_with(None)).await.unwrap();
    assert_eq!((new.generation(), new.checkpoint().epoch), (2, 1));
    let error = old.commit(&late, "results").await.unwrap_err();
    assert_eq!((error.class, error.code), (LakeErrorClass::Fenced, "fenced"));
    new.commit(&next_epoch(&new, &["a"], 3), "results").await.unwrap();
    // Also once the newer one has gone on, and however often it is tried.
    assert_eq!(old.commit(&late, "results").await.unwrap_err().class, LakeErrorClass::Fenced);
    judge(store, "acme/berlin").await.assert_whole(&[("a", 8)]);
}

#[tokio::test(start_paused = true)]
async fn test_lost_answers_and_failures_at_every_step_leave_one_epoch() {
    let steps = [
        "raw/",
        "tables/acme/berlin/part",
        "dead/acme/berlin/part",
        "results/",
        "_delta_log/",
        "dead/acme/berlin/_delta",
    ];
    for step in steps {
        for fault in [Fault::BEFORE, Fault::AFTER] {
            let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            let store = FailingStore::new(Arc::clone(&inner));
            let lake = lake_on(Arc::new(store.clone()), 1);
            let mut owner = lake.claim(claim_with(None)).await.unwrap();
            store.arm(Fail::put(step, fault));
            let first = owner.commit(&next_epoch(&owner, &["a"], 9), "results").await.unwrap();
            assert_eq!(first.epoch, 1);
            owner.commit(&next_epoch(&owner, &["a"], 9), "results").await.unwrap();
            assert_eq!(store.fired(), 1, "{step}");
            judge(inner, "acme/berlin").await.assert_whole(&[("a", 18)]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn test_commit_after_an_outage_is_called_again_with_the_same_epoch() {
    for fault in [Fault::BEFORE, Fault::AFTER] {
        for step in ["raw/", "results/", "tables/acme/berlin/_delta_log/", "dead/acme/berlin/_delta_log/"] {
            let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            let store = FailingStore::new(Arc::clone(&inner));
            let lake = lake_on(Arc::new(store.clone()), 1);
            let mut owner = lake.claim(claim_with(None)).await.unwrap();
            let sealed = next_epoch(&owner, &["a"], 9);
            // Longer than the commit tries by itself, and the look after it fails too.
            store.arm(Fail { times: 1000, ..Fail::put(step, fault) });
            store.arm(Fail { operation: "get", path: step, fault, skip: 0, times: 1000 });
            let error = owner.commit(&sealed, "results").await.unwrap_err();
            assert_eq!(error.class, LakeErrorClass::Transient, "{step}");
            store.heal();
            assert_eq!(owner.commit(&sealed, "results").await.unwrap().epoch, 1);
            judge(inner, "acme/berlin").await.assert_whole(&[("a", 9)]);
        }
    }
}

#[tokio::test]
async fn test_dropped_commit_can_be_called_again() {
    // Dropped after every number of polls that it takes.
    for polls in 0.. {
        let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let store = Arc::new(yielding::YieldingStore(Arc::clone(&inner)));
        let lake = lake_on(store, 1);
        let mut owner = lake.claim(claim_with(None)).await.unwrap();
        let sealed = next_epoch(&owner, &["a"], 9);
        let done = {
            let mut commit = Box::pin(owner.commit(&sealed, "results"));
            let mut done = false;
            for _ in 0..polls {
                if futures::poll!(&mut commit).is_ready() {
                    done = true;
                    break;
                }
                // Lets the runtime deliver the wake-ups.
                tokio::task::yield_now().await;
            }
            done
        };
        if done {
            assert!(polls > 5, "{polls}");
            return;
        }
        owner.commit(&sealed, "results").await.unwrap();
        owner.commit(&next_epoch(&owner, &["a"], 2), "results").await.unwrap();
        judge(inner, "acme/berlin").await.assert_whole(&[("a", 11)]);
    }
}

#[tokio::test]
async fn test_epochs_that_do_not_follow_are_refused() {
    let (_, lake) = lake();
    let mut owner = lake.claim(claim_with(None)).await.unwrap();
    let first = next_epoch(&owner, &["a"], 5);
    owner.commit(&first, "results").await.unwrap();
    assert_eq!(owner.commit(&first, "results").await.unwrap_err().code, "epoch_out_of_order");
    let mut gap = builder(&owner);
    gap.push("a", batch("a", 7, 2, false)).unwrap();
    assert_eq!(owner.commit(&gap.seal(NOON_US), "results").await.unwrap_err().code, "position_gap");
}

#[tokio::test]
async fn test_another_content_under_the_same_epoch_and_generation_is_refused() {
    let (store, lake) = lake();
    let mut owner = lake.claim(claim_with(None)).await.unwrap();
    let record = super::super::record::EpochRecord::of(&next_epoch(&owner, &["a"], 5), None);
    let path = object_store::path::Path::from("results/acme/berlin/00000000000000000001-1.json");
    object_store::ObjectStoreExt::put(&*store, &path, record.to_bytes().unwrap().into()).await.unwrap();
    let error = owner.commit(&next_epoch(&owner, &["a"], 6), "results").await.unwrap_err();
    assert_eq!((error.class, error.code), (LakeErrorClass::Bug, "record_differs"));
    // A new generation takes over.
    let mut owner = lake.claim(claim_with(None)).await.unwrap();
    owner.commit(&next_epoch(&owner, &["a"], 6), "results").await.unwrap();
    judge(store, "acme/berlin").await.assert_whole(&[("a", 6)]);
}

#[tokio::test]
async fn test_eight_claims_at_once_give_eight_generations_and_one_owner() {
    let store = Arc::new(InMemory::new());
    let claims = (0..8).map(|seed| {
        let lake = lake_on(Arc::clone(&store) as Arc<dyn ObjectStore>, seed);
        tokio::spawn(async move { lake.claim(claim_with(None)).await.unwrap() })
    });
    let mut owners = futures::future::try_join_all(claims).await.unwrap();
    let generations: BTreeSet<_> = owners.iter().map(Owner::generation).collect();
    assert_eq!(generations, (1..=8).collect());
    let mut committed = 0;
    for owner in &mut owners {
        let sealed = next_epoch(owner, &["a"], 4);
        match owner.commit(&sealed, "results").await {
            Ok(_) => committed += 1,
            Err(error) => assert_eq!(error.class, LakeErrorClass::Fenced),
        }
    }
    assert_eq!(committed, 1);
    judge(store, "acme/berlin").await.assert_whole(&[("a", 4)]);
}

#[tokio::test(start_paused = true)]
async fn test_owner_that_slept_looks_before_it_fills_a_cleaned_up_log() {
    let (store, lake) = lake();
    let mut zombie = lake.claim(claim_with(None)).await.unwrap();
    zombie.commit(&next_epoch(&zombie, &["a"], 5), "results").await.unwrap();
    let late = next_epoch(&zombie, &["a"], 5);
    let mut new = lake.claim(claim_with(None)).await.unwrap();
    new.commit(&next_epoch(&new, &["a"], 3), "results").await.unwrap();
    lake.checkpoint_log(&super::id()).await.unwrap();
    // The zombie's next version is free again.
    for version in 0..=2 {
        let path = object_store::path::Path::from(format!("tables/acme/berlin/_delta_log/{version:020}.json"));
        object_store::ObjectStoreExt::delete(&*store, &path).await.unwrap();
    }
    tokio::time::advance(Duration::from_secs(7200)).await;
    assert_eq!(zombie.commit(&late, "results").await.unwrap_err().class, LakeErrorClass::Fenced);
}
