//! Whole streams on a real folder, with the real cache and the real tree, judged by the oracle.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use adapters::contract::config::MapSecrets;
use adapters::contract::{Clock, Credits, Kind, SystemClock, SystemResolve};
use serde_json::json;
use supervisors::{ChildPath, Event, Observer, Root, Strategy, SupervisorSpec};

use super::api::{Actual, Desired, StartRequest, Streams, TreeQuery};
use super::{Directory, DirectoryHandle, Node, observe};
use crate::announce::{Feed, Sink};
use crate::checkpoint::{Cache, SledKeep};
use crate::lake::Lake;
use crate::names::StreamId;
use crate::oracle::{Expected, judge};
use crate::settings;
use crate::telemetry::events::Events;

/// States are polled for up to this; a test that gets there has failed.
const PATIENCE: Duration = Duration::from_secs(120);

struct Watch(std::sync::OnceLock<Arc<Directory>>, AtomicU64);

impl Observer for Watch {
    fn record(&self, event: Event) {
        if let Some(directory) = self.0.get() {
            observe(directory, &event);
        }
    }

    fn next_incarnation(&self, _: &ChildPath) -> u64 {
        self.1.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// A node without its API.
struct Rig {
    streams: DirectoryHandle,
    root: Root,
    cache: Cache,
}

impl Rig {
    async fn start(dir: &Path, toml: &str) -> Self {
        let path = dir.join("node.toml");
        std::fs::write(&path, toml).expect("config");
        let kinds: Vec<Arc<dyn Kind>> = vec![Arc::new(adapters::synthetic::Synthetic::default())];
        let secrets = Arc::new(MapSecrets::default());
        let (settings, _) = settings::load(&path, &kinds, secrets.as_ref()).expect("valid settings");
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (cache, _) = Cache::open(&dir.join("state/cache"), clock.now_us());
        let feed = Arc::new(Feed::load(cache.clone(), "test".to_owned()).await);
        let node = Arc::new(Node {
            lake: Lake::open(&settings.lake, Arc::clone(&clock)).expect("lake"),
            sinks: vec![Arc::<Feed>::clone(&feed) as Arc<dyn Sink>],
            feed,
            events: Arc::new(Events::new(Arc::clone(&clock))),
            keep: Arc::new(SledKeep::load(cache.clone()).await),
            cache: cache.clone(),
            clock,
            resolve: Arc::new(SystemResolve),
            credits: Credits::node(settings.node.queue_bytes),
            epoch: settings.lake.epoch,
            seed: 1,
            scrubber: Arc::default(),
            turns: super::shared::Turns::default(),
            start_lags: None,
        });
        let directory = Directory::new(node, Arc::new(settings), kinds, secrets);
        let watch = Arc::new(Watch(std::sync::OnceLock::new(), AtomicU64::new(0)));
        let _ = watch.0.set(Arc::clone(&directory));
        let spec = SupervisorSpec::new(Strategy::OneForOne).child(directory.tenants());
        let root = Root::start("lakefeed", spec, watch, 1).await.expect("tree");
        directory.attach(root.handle());
        Self { streams: DirectoryHandle(directory), root, cache }
    }

    async fn wait(&self, id: &StreamId, what: impl Fn(&super::api::StreamView) -> bool) -> super::api::StreamView {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let view = self.streams.get(id).await.expect("stream");
            if what(&view) {
                return view;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "waited for too long: {view:?} {}",
                self.streams.tree(&TreeQuery::default()).await
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until `epoch` is committed, or both partitions are up to `last`: a slow machine makes fewer epochs of a stream.
    async fn reaches(&self, epoch: u64, last: &str) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let positions = json!({"0": last, "1": last});
        loop {
            let at = self.streams.get(&id()).await.expect("stream").status.epoch;
            let checkpoint = self.streams.checkpoint(&id()).await;
            if at >= epoch || checkpoint.as_ref().is_ok_and(|checkpoint| checkpoint["positions"] == positions) {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "waited for too long: epoch {at}, {checkpoint:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn stop(self) {
        self.streams.0.quiesce().await;
        self.root.stop().await;
        self.cache.flush().await;
    }
}

fn toml(total: u64, extra: &str) -> String {
    format!(
        "[node]\nstate_dir = \"state\"\n[lake]\nurl = \"file:lake\"\nepoch = {{ max_age = \"50ms\" }}\n[api]\nlisten = \"127.0.0.1:0\"\n\
         [adapter.SYN]\nkind = \"synthetic\"\nseed = 7\npartitions = 2\ntotal = {total}\n{extra}\n\
         [stream.\"acme/syn\"]\nadapter = \"SYN\"\n"
    )
}

fn id() -> StreamId {
    "acme/syn".parse().expect("id")
}

fn expect(last: u64) -> Expected {
    Expected::Synthetic { seed: 7, partitions: 2, handed_over: [(0, Some(last)), (1, Some(last))].into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn test_a_stream_ends_up_whole_in_the_lake_and_its_references_in_the_feed() {
    let dir = tempfile::tempdir().expect("tempdir");
    let rig = Rig::start(dir.path(), &toml(5000, "")).await;
    let done = rig.wait(&id(), |view| view.status.epoch > 0 && view.status.actual == Actual::Waiting).await;
    let page = rig.streams.references(Some(&id()), "0", 1000, PATIENCE).await.expect("references");
    assert!(!page.items.is_empty());
    rig.stop().await;
    let verdict = judge(&dir.path().join("lake"), "acme", "syn", &expect(4999));
    assert!(verdict.ok(), "{verdict:?}");
    assert!(verdict.epochs >= done.status.epoch);
    assert_eq!(verdict.rows, 10_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn test_stop_start_and_a_lost_state_directory_neither_lose_nor_double() {
    let dir = tempfile::tempdir().expect("tempdir");
    let text = toml(3000, "rate = 3000");
    for round in 0..4 {
        let rig = Rig::start(dir.path(), &text).await;
        let before = rig.streams.get(&id()).await.expect("stream").status.epoch;
        rig.reaches(before + 2, "2999").await;
        rig.streams.set_desired(&id(), Some("SYN"), Desired::Stopped, None).await.expect("stopped");
        assert_eq!(rig.streams.get(&id()).await.expect("stream").status.actual, Actual::Stopped);
        rig.streams.start(&id(), "SYN", StartRequest::default()).await.expect("started");
        rig.reaches(if round == 3 { u64::MAX } else { before + 3 }, "2999").await;
        rig.stop().await;
        if round == 1 {
            std::fs::remove_dir_all(dir.path().join("state")).expect("state directory deleted");
        }
    }
    let rig = Rig::start(dir.path(), &text).await;
    rig.reaches(u64::MAX, "2999").await;
    rig.stop().await;
    let verdict = judge(&dir.path().join("lake"), "acme", "syn", &expect(2999));
    assert!(verdict.ok(), "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn test_starts_at_the_same_moment_make_one_stream_that_works() {
    let dir = tempfile::tempdir().expect("tempdir");
    let rig = Rig::start(dir.path(), &toml(1000, "")).await;
    let ids: Vec<StreamId> = (0..24).map(|n| format!("tenant{}/s{}", n % 3, n % 6).parse().expect("id")).collect();
    let starts = ids.iter().map(|id| rig.streams.start(id, "SYN", StartRequest::default()));
    for started in futures::future::join_all(starts).await {
        started.expect("started");
    }
    for id in &ids {
        let view = rig.wait(id, |view| view.status.epoch > 0).await;
        assert_eq!(view.version, 1, "the same again makes no new version");
    }
    rig.stop().await;
    for n in 0..6 {
        let verdict = judge(&dir.path().join("lake"), &format!("tenant{}", n % 3), &format!("s{n}"), &expect(999));
        assert!(verdict.ok(), "{verdict:?}");
    }
}
