//! Lakes on the other clouds, as far as what stands for them here goes: Azurite for Azure, fake-gcs-server for Google.

use std::fs;
use std::sync::Arc;

use futures::TryStreamExt;
use futures::future::join_all;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions};

use super::{back, ends_sound, logged, nothing_failed};
use crate::owners::{STREAM, fight};
use crate::support::lab::{ENDLESS, assert_sound};
use crate::support::servers::clouds::{Conditions, azure_key, azure_next_key};
use crate::support::servers::{azurite, gcs};
use crate::support::{Lab, Synthetic};

/// Writers that put one key at once, and how often.
const WRITERS: usize = 16;
const ROUNDS: usize = 20;

/// Points of the way of an epoch at which the node dies: the raw segment is there; the record is; the log's entry is,
/// and nobody was told; all was told but the sinks.
const POINTS: [&str; 4] = ["lake.raw.after", "lake.record.after", "lake.commit.sent", "cache.before"];

async fn creates(store: &Arc<dyn ObjectStore>, path: &Path, text: String) -> bool {
    let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    match store.put_opts(path, text.into(), create).await {
        Ok(_) => true,
        Err(Error::AlreadyExists { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

/// What the commit protocol asks of a store: of many who create a key one does, what he put stays, listings are whole.
async fn keeps_the_promise(store: Arc<dyn ObjectStore>) {
    for round in 0..ROUNDS {
        let path = Path::from(format!("race/a b=c%20d/{round:03}.json"));
        let won = join_all((0..WRITERS).map(|writer| creates(&store, &path, writer.to_string()))).await;
        let winners: Vec<_> = (0..WRITERS).filter(|writer| won[*writer]).collect();
        let [winner] = winners[..] else { panic!("round {round}: {winners:?} created the key") };
        assert!(!creates(&store, &path, "late".to_owned()).await);
        let there = store.get(&path).await.unwrap().bytes().await.unwrap();
        assert_eq!(there, winner.to_string());
        assert_eq!(store.head(&path).await.unwrap().size, there.len() as u64);
    }
    store.put(&Path::from("racer"), "x".into()).await.unwrap();
    let folder = Path::from("race/a b=c%20d");
    let all: Vec<_> = store.list(Some(&folder)).try_collect().await.unwrap();
    let names: Vec<_> = all.iter().map(|meta| meta.location.to_string()).collect();
    let expected: Vec<_> = (0..ROUNDS).map(|round| format!("{folder}/{round:03}.json")).collect();
    assert_eq!(names, expected);
    let above = store.list_with_delimiter(Some(&Path::from("race"))).await.unwrap();
    assert_eq!((above.common_prefixes, above.objects.len()), (vec![folder], 0));
    let absent = store.get(&Path::from("race/nobody")).await.unwrap_err();
    assert!(matches!(absent, Error::NotFound { .. }), "{absent}");
}

/// A node dies at each of the points and starts again; in the end the stream is there, whole.
async fn survives_kills(lab: &Lab, stream: &Synthetic) {
    for point in POINTS {
        let mut node = lab.start_with(&[("LAKEFEED_CRASH", &format!("{point}:2:abort"))]);
        assert!(!node.ended().await.success(), "{point}: {}", node.log());
    }
    let mut node = lab.start();
    assert_sound(&stream.fresh(lab).await, "killed at every point");
    assert_eq!(node.terminate().await, Some(0), "{}", node.log());
    assert_sound(&lab.judge(Synthetic::STREAM, &stream.so_far()), "what was under way at the end");
}

const KILLED: Synthetic = Synthetic { seed: 71, partitions: 2, total: ENDLESS, rate: 300 };

#[tokio::test]
async fn test_clouds_azure_lets_one_writer_create_a_key() {
    let Some(server) = azurite().await else { return };
    keeps_the_promise(server.client()).await;
}

#[tokio::test]
async fn test_clouds_google_lets_one_writer_create_a_key() {
    let Some(server) = gcs(Conditions::Kept).await else { return };
    keeps_the_promise(server.client()).await;
}

#[tokio::test]
async fn test_clouds_azure_kills_in_mid_commit_lose_and_double_nothing() {
    let Some(server) = azurite().await else { return };
    survives_kills(&server.lab(&KILLED), &KILLED).await;
}

#[tokio::test]
async fn test_clouds_google_kills_in_mid_commit_lose_and_double_nothing() {
    let Some(server) = gcs(Conditions::Kept).await else { return };
    survives_kills(&server.lab(&KILLED), &KILLED).await;
}

#[tokio::test]
async fn test_clouds_azure_owners_fight_and_commit_one_at_a_time() {
    let Some(server) = azurite().await else { return };
    let labs: Vec<Lab> = (0..2).map(|_| server.lab(&STREAM)).collect();
    fight(&labs, &[]).await;
}

#[tokio::test]
async fn test_clouds_google_owners_fight_and_commit_one_at_a_time() {
    let Some(server) = gcs(Conditions::Kept).await else { return };
    let labs: Vec<Lab> = (0..2).map(|_| server.lab(&STREAM)).collect();
    fight(&labs, &[]).await;
}

/// A store that replaces what must not be replaced is refused before it holds anything.
#[tokio::test]
async fn test_clouds_a_store_without_conditions_is_refused() {
    let Some(server) = gcs(Conditions::Ignored).await else { return };
    let lab = server.lab(&KILLED);
    let mut node = lab.start();
    node.live().await;
    logged("lake_replaces", &node).await;
    let there: Vec<_> = server.client().list(None).try_collect().await.unwrap();
    let there: Vec<_> = there.iter().map(|meta| meta.location.as_ref()).collect();
    assert_eq!(there, ["prefix/control/create-only"]);
    assert_eq!(node.terminate().await, Some(0), "{}", node.log());
}

/// The account's key changes while the node runs; its file says so later.
#[tokio::test]
async fn test_clouds_azure_keys_in_files_are_followed() {
    let Some(mut server) = azurite().await else { return };
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("key");
    fs::write(&file, azure_key()).unwrap();
    let stream = Synthetic { seed: 72, partitions: 1, total: 1_000_000, rate: 60 };
    let mut lab = server.lab_with(&stream, &format!("\"file:{}\"", file.display()));
    let mut node = lab.start_with(&[("LAKEFEED_LOG", "info,object_store=trace,hyper=trace,reqwest=trace")]);
    lab.epoch_after(Synthetic::STREAM, 1).await;
    server.change_key().await;
    logged("lake_denied", &node).await;
    server.read_with_next_key(&mut lab);
    fs::write(&file, azure_next_key()).unwrap();
    back(&lab, &node, "a key that was changed").await;
    assert!(node.log().contains("lake_credentials_renewed"), "{}", node.log());
    nothing_failed(&node).await;
    ends_sound(&lab, &stream, &mut node, "a key that was changed").await;
    for word in [azure_key(), azure_next_key()] {
        assert!(!node.log().contains(&word), "{word} is in the log");
    }
}

/// A container that is not there is a matter of settings, not of waiting.
#[tokio::test]
async fn test_clouds_azure_absent_container_ends_the_start() {
    let Some(server) = azurite().await else { return };
    let lab = server.lab_in("nowhere", &KILLED, &format!("{:?}", azure_key()));
    let mut node = lab.start();
    assert_eq!(node.ended().await.code(), Some(1), "{}", node.log());
    assert!(node.log().contains("lake_bucket_missing"), "{}", node.log());
}
