//! Each fault does what its name says.

use std::sync::Arc;
use std::time::Duration;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use tokio::time::{sleep, timeout};

use super::{Answer, Fail, FailingStore, Fault, Gate, Weather};

const ENTRY: &str = "tables/a/s/_delta_log/00000000000000000001.json";

/// A put of `path` that meets `fault`: how it ended, if it did, and what is there a minute later.
async fn put(path: &str, fault: Fault) -> (Option<Result<(), Error>>, Option<String>) {
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let store = FailingStore::new(Arc::clone(&inner));
    store.arm(Fail::put("", fault));
    let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    let location = Path::from(path);
    let asked = store.put_opts(&location, "ours".into(), create);
    let ended = timeout(Duration::from_secs(5), asked).await.ok().map(|put| put.map(|_| ()));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(store.fired_by_name(), [(fault.name(), 1)].into());
    let there = match inner.get(&location).await {
        Ok(found) => Some(String::from_utf8(found.bytes().await.unwrap().to_vec()).unwrap()),
        Err(_) => None,
    };
    (ended, there)
}

#[tokio::test(start_paused = true)]
async fn test_puts_meet_each_fault_as_it_is_named() {
    let ours = Some("ours".to_owned());
    for answer in [Answer::Unavailable, Answer::Throttled, Answer::Reset, Answer::Invalid, Answer::TooLarge] {
        let (ended, there) = put("x", Fault::Before(answer)).await;
        assert!(matches!(ended, Some(Err(Error::Generic { .. }))) && there.is_none(), "{answer:?}");
    }
    let (ended, there) = put("x", Fault::Before(Answer::Unauthenticated)).await;
    assert!(matches!(ended, Some(Err(Error::Unauthenticated { .. }))) && there.is_none());
    let (ended, there) = put("x", Fault::Before(Answer::Denied)).await;
    assert!(matches!(ended, Some(Err(Error::PermissionDenied { .. }))) && there.is_none());
    let (ended, there) = put("x", Fault::AFTER).await;
    assert!(matches!(ended, Some(Err(_))) && there == ours);
    let (ended, there) = put("x", Fault::Silent).await;
    assert!(ended.is_none() && there.is_none());
    let (ended, there) = put("x", Fault::SilentDone).await;
    assert!(ended.is_none() && there == ours);
    let (ended, there) = put("x", Fault::Late(Duration::from_secs(30))).await;
    assert!(matches!(ended, Some(Err(_))) && there == ours);
    let (ended, there) = put("x", Fault::Conflict).await;
    assert!(matches!(ended, Some(Err(Error::AlreadyExists { .. }))) && there.is_none());
    let (ended, there) = put(ENTRY, Fault::Overtaken).await;
    assert!(matches!(ended, Some(Err(Error::AlreadyExists { .. }))) && there.is_some() && there != ours);
}

#[tokio::test(start_paused = true)]
async fn test_stale_listings_lack_what_is_new_and_nothing_else() {
    let store = FailingStore::new(Arc::new(InMemory::new()));
    store.put(&Path::from("raw/old"), "1".into()).await.unwrap();
    sleep(Duration::from_secs(60)).await;
    store.put(&Path::from("raw/new"), "2".into()).await.unwrap();
    store.arm(Fail { operation: "list", path: "raw", fault: Fault::Stale, skip: 1, times: 1 });
    let names = async || {
        let listed = store.list_with_delimiter(Some(&Path::from("raw"))).await.unwrap();
        listed.objects.iter().map(|object| object.location.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names().await, ["raw/new", "raw/old"]);
    assert_eq!(names().await, ["raw/old"]);
    assert_eq!(names().await, ["raw/new", "raw/old"]);
}

#[tokio::test(start_paused = true)]
async fn test_torn_upload_leaves_nothing() {
    let store = FailingStore::new(Arc::new(InMemory::new()));
    store.arm(Fail { operation: "multipart", path: "", fault: Fault::Torn, skip: 0, times: 1 });
    let mut upload = store.put_multipart(&Path::from("x")).await.unwrap();
    upload.put_part("1".into()).await.unwrap();
    assert!(upload.complete().await.is_err());
    assert!(store.get(&Path::from("x")).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn test_what_a_dead_node_has_sent_arrives_and_what_it_has_not_sent_does_not() {
    let store = FailingStore::new(Arc::new(InMemory::new()));
    store.seed(1);
    store.set_weather(Weather { latency_ms: 100..200, ..Weather::default() });
    let gate = Gate::default();
    let node = store.for_node("n1", &gate);
    let (sent, late) = (node.clone(), node);
    let sent = tokio::spawn(async move { sent.put(&Path::from("sent"), "1".into()).await });
    sleep(Duration::from_millis(10)).await;
    gate.close();
    let late = tokio::spawn(async move { late.put(&Path::from("late"), "1".into()).await });
    sleep(Duration::from_secs(10)).await;
    assert!(!sent.is_finished() && !late.is_finished(), "the dead hear of nothing");
    assert!(store.get(&Path::from("sent")).await.is_ok());
    assert!(store.get(&Path::from("late")).await.is_err());
}
