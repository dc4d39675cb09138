//! A small HTTP source with a cursor, whose records are those of a synthetic stream, some of them spoilt.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use lakefeed::oracle::{Expected, Verdict, check_of};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::lab::{Lab, QUICK};
use super::{Node, PATIENCE, aside, wait_for};

const SEED: u64 = 21;
/// Every so many-th record has a `ts` that is no time.
const BAD_EVERY: u64 = 7;
/// Records on a page.
const PAGE: u64 = 10;

struct Shared {
    total: AtomicU64,
    requests: AtomicU64,
    delay_ms: AtomicU64,
}

/// The running source. It ends when dropped.
pub(crate) struct Feed {
    address: String,
    partitions: u64,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

#[derive(Deserialize)]
struct Asked {
    since: i64,
}

async fn page(State(shared): State<Arc<Shared>>, Path(partition): Path<u64>, Query(asked): Query<Asked>) -> Response {
    shared.requests.fetch_add(1, Ordering::SeqCst);
    super::wait::strike_after(Duration::from_millis(shared.delay_ms.load(Ordering::SeqCst))).await;
    let first = u64::try_from(asked.since + 1).unwrap_or_default();
    let seqs = first..shared.total.load(Ordering::SeqCst).min(first + PAGE);
    let data: Vec<Value> = seqs.map(|seq| record(partition, seq)).collect();
    ([("content-type", "application/json")], json!({"data": data}).to_string()).into_response()
}

fn is_bad(seq: u64) -> bool {
    seq % BAD_EVERY == BAD_EVERY - 1
}

fn record(partition: u64, seq: u64) -> Value {
    let ts = if is_bad(seq) { "never" } else { "2026-01-02T03:04:05Z" };
    json!({"partition": partition, "seq": seq, "ts": ts, "check": check_of(SEED, partition, seq), "pad": "x"})
}

impl Feed {
    pub(crate) const STREAM: &'static str = "acme/feed";

    /// `total` records in each of `partitions`.
    pub(crate) async fn start(partitions: u64, total: u64) -> Self {
        let shared =
            Arc::new(Shared { total: AtomicU64::new(total), requests: AtomicU64::new(0), delay_ms: AtomicU64::new(0) });
        let router = Router::new().route("/feed/{partition}", get(page)).with_state(Arc::clone(&shared));
        let (address, server) = aside::serve(async move |listener| axum::serve(listener, router).await.unwrap());
        Self { address, partitions, shared, server }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Waits until every request that was sent before is counted: a connection of the test's own comes behind them.
    pub(crate) async fn caught_up(&self) {
        let beside = format!("http://{}/beside", self.address);
        let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
        // Twice, as the first may be looked at in the same round as what came just before it.
        for _ in 0..2 {
            assert_eq!(http.get(&beside).send().await.unwrap().status(), 404);
        }
    }

    /// Answers come so much later from now on.
    pub(crate) fn slow(&self, delay: Duration) {
        self.shared.delay_ms.store(delay.as_millis() as u64, Ordering::SeqCst);
    }

    /// The configuration of `acme/feed`, polled every 50 ms.
    pub(crate) fn config(&self) -> String {
        self.config_with(&self.address, "50ms")
    }

    /// The same by way of another address, at another interval.
    pub(crate) fn config_with(&self, address: &str, interval: &str) -> String {
        let partitions: Vec<String> = (0..self.partitions).map(|p| format!("{{ name = \"{p}\" }}")).collect();
        format!(
            "{QUICK}[adapter.FEED]\nkind = \"http_poll\"\nbase_url = \"http://{address}\"\ninterval = \"{interval}\"\n\
             timeout = \"10s\"\ncursor = {{ field = \"seq\", start = \"-1\" }}\npartitions = [{}]\n\
             table = {{ schema = {{ partition = \"long\", seq = \"long\", ts = \"timestamp\", check = \"string\", pad = \"string\" }} }}\n\
             [adapter.FEED.request]\npath = \"/feed/{{part.name}}\"\nquery = {{ since = \"{{cursor}}\" }}\n\
             [adapter.FEED.records]\nselect = \"$.data\"\nkey = [\"partition\", \"seq\"]\nevent_time = \"ts\"\n\
             [stream.\"acme/feed\"]\nadapter = \"FEED\"\n",
            partitions.join(", ")
        )
    }

    /// So many more records in each partition.
    pub(crate) fn grow(&self, records: u64) {
        self.shared.total.fetch_add(records, Ordering::SeqCst);
    }

    /// Waits for the node's end, handing over a page more whenever it has committed the one before: so that it comes to
    /// as many epochs as it takes, each with spoilt records in it.
    pub(crate) async fn grow_until_ended(&self, lab: &Lab, node: &mut Node) {
        let mut wanted = 0;
        wait_for("the node's end", PATIENCE, || {
            let epoch = lab.epoch(Self::STREAM);
            if epoch >= wanted {
                self.grow(PAGE);
                wanted = epoch + 1;
            }
            std::future::ready(node.exited())
        })
        .await;
    }

    /// Records in each partition.
    pub(crate) fn total(&self) -> u64 {
        self.shared.total.load(Ordering::SeqCst)
    }

    /// Spoilt records in all partitions.
    pub(crate) fn bad_total(&self) -> u64 {
        self.partitions * (0..self.total()).filter(|seq| is_bad(*seq)).count() as u64
    }

    /// Everything was handed over.
    pub(crate) fn expected(&self) -> Expected {
        let handed_over: BTreeMap<_, _> = (0..self.partitions).map(|p| (p, Some(self.total() - 1))).collect();
        Expected::Synthetic { seed: SEED, partitions: self.partitions, handed_over }
    }

    /// Waits until all of it is in the lake and judges it.
    pub(crate) async fn whole(&self, lab: &Lab, node: &Node) -> Verdict {
        let (expected, all) = (self.expected(), self.partitions * self.total());
        let last = std::cell::RefCell::new(Verdict::default());
        let waited = tokio::time::timeout(
            PATIENCE,
            wait_for("the whole feed", Duration::MAX, async || {
                let verdict = lab.judge(Self::STREAM, &expected);
                last.replace(verdict.clone());
                (verdict.rows + verdict.dead >= all).then_some(verdict)
            }),
        );
        waited.await.unwrap_or_else(|_| {
            let last = last.borrow();
            let said = last.messages.join("\n");
            panic!("the feed does not come to its end: {}\n{said}\nthe log:\n{}", last.summary(), node.log())
        })
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.server.abort();
    }
}
