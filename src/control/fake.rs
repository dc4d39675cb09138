//! Streams that only remember what was asked of them, for the tests of control and client.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::names::StreamId;
use crate::streams::api::{Actual, Desired, Page, Refusal, StartRequest, Status, StreamView, Streams, TreeQuery};

/// The only adapters that exist.
const ADAPTERS: [&str; 2] = ["IQAIR_DAILY", "OTHER"];

#[derive(Debug)]
pub(crate) struct FakeStreams {
    views: Mutex<BTreeMap<StreamId, StreamView>>,
    /// What was asked, one line each.
    pub(crate) asked: Mutex<Vec<String>>,
    items: watch::Sender<Vec<Value>>,
    pub(crate) ready: Mutex<Result<Value, Value>>,
    /// `records` waits for this to turn true.
    pub(crate) gate: watch::Sender<bool>,
}

impl FakeStreams {
    pub(crate) fn new() -> Self {
        Self {
            views: Mutex::default(),
            asked: Mutex::default(),
            items: watch::Sender::new(Vec::new()),
            ready: Mutex::new(Ok(json!({"streams": 0}))),
            gate: watch::Sender::new(true),
        }
    }

    pub(crate) fn publish(&self, item: Value) {
        self.items.send_modify(|items| items.push(item));
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, what: String) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    fn with<T>(&self, id: &StreamId, then: impl FnOnce(&mut StreamView) -> T) -> Result<T, Refusal> {
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        let view = views.get_mut(id).ok_or_else(|| Refusal::new(404, "unknown_stream", "there is no such stream"))?;
        Ok(then(view))
    }

    fn version(&self, id: &StreamId, wanted: Option<u64>) -> Result<(), Refusal> {
        let version = self.with(id, |view| view.version).unwrap_or(0);
        match wanted {
            Some(wanted) if wanted != version => {
                Err(Refusal::new(409, "version_conflict", format!("the stream has version {version}")))
            }
            _ => Ok(()),
        }
    }
}

fn adapter_exists(adapter: &str) -> Result<(), Refusal> {
    if ADAPTERS.contains(&adapter) {
        return Ok(());
    }
    Err(Refusal::new(404, "unknown_adapter", "there is no such adapter").field("adapter"))
}

fn status(desired: Desired) -> Status {
    let actual = if desired == Desired::Running { Actual::Waiting } else { Actual::Stopped };
    Status { desired, actual, epoch: 12, lag_seconds: Some(1.5), next_at: None, parked: None, waits_for: None }
}

#[async_trait]
impl Streams for FakeStreams {
    async fn list(&self) -> Vec<StreamView> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    async fn get(&self, id: &StreamId) -> Result<StreamView, Refusal> {
        self.with(id, |view| view.clone())
    }

    async fn start(&self, id: &StreamId, adapter: &str, request: StartRequest) -> Result<StreamView, Refusal> {
        adapter_exists(adapter)?;
        self.version(id, request.if_version)?;
        let mut settings = request.overrides.clone();
        if let Some(bucket) = &request.bucket_name {
            settings.insert("bucket_name".to_owned(), json!(bucket));
        }
        if settings.contains_key("secret_key") {
            settings.insert("secret_key".to_owned(), json!("***"));
        }
        self.note(format!("start {id} {adapter} {}", Value::Object(request.overrides)));
        let version = self.with(id, |view| view.version).unwrap_or(0) + 1;
        let view = StreamView {
            tenant: id.tenant().to_owned(),
            stream: id.stream().to_owned(),
            adapter: adapter.to_owned(),
            version,
            partitions: vec!["main".to_owned()],
            settings: Value::Object(settings),
            status: status(Desired::Running),
        };
        self.views.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), view.clone());
        Ok(view)
    }

    async fn set_desired(
        &self,
        id: &StreamId,
        adapter: Option<&str>,
        desired: Desired,
        if_version: Option<u64>,
    ) -> Result<(), Refusal> {
        adapter.map_or(Ok(()), adapter_exists)?;
        self.version(id, if_version)?;
        self.note(format!("desire {id} {desired:?}"));
        let known = self.with(id, |view| {
            view.status = status(desired);
            view.version += 1;
        });
        if adapter.is_some() { Ok(()) } else { known }
    }

    async fn interrupt(&self, id: &StreamId, partition: Option<&str>) -> Result<(), Refusal> {
        self.note(format!("interrupt {id} {partition:?}"));
        self.with(id, |_| ())
    }

    async fn restart(&self, id: &StreamId, partition: Option<&str>) -> Result<(), Refusal> {
        self.note(format!("restart {id} {partition:?}"));
        self.with(id, |_| ())
    }

    async fn delete(&self, id: &StreamId, if_version: Option<u64>) -> Result<(), Refusal> {
        self.version(id, if_version)?;
        self.with(id, |_| ())?;
        self.views.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        Ok(())
    }

    async fn checkpoint(&self, id: &StreamId) -> Result<Value, Refusal> {
        self.with(id, |_| json!({"epoch": 12, "generation": 3, "positions": {"main": "7"}}))
    }

    async fn set_checkpoint(
        &self,
        id: &StreamId,
        positions: Option<BTreeMap<String, String>>,
    ) -> Result<Value, Refusal> {
        let desired = self.with(id, |view| view.status.desired)?;
        if desired != Desired::Stopped {
            return Err(Refusal::new(409, "not_stopped", "the stream is not stopped"));
        }
        Ok(json!({"epoch": 13, "generation": 3, "positions": positions.unwrap_or_default()}))
    }

    async fn dead(&self, id: &StreamId, after: &str, _limit: usize) -> Result<Page, Refusal> {
        self.with(id, |_| ())?;
        let letter = json!({"id": "3.0.1", "_lf_epoch": 3, "stage": "decode", "code": "not_json",
            "message": "not JSON", "bytes": "bm8="});
        let items = if after.is_empty() { vec![letter] } else { vec![] };
        Ok(Page { items, next: "3.0.1".to_owned() })
    }

    async fn records(&self, id: &StreamId, after: &str, limit: usize) -> Result<Page, Refusal> {
        self.with(id, |_| ())?;
        let mut gate = self.gate.subscribe();
        let _open = gate.wait_for(|open| *open).await;
        let from: usize = if after.is_empty() { 0 } else { after.parse().map_err(|_| invalid_cursor())? };
        let items = (from..5).take(limit).map(|n| json!({"seq": n, "pad": "ä\u{1b}[31m"})).collect::<Vec<_>>();
        let next = from + items.len();
        Ok(Page { items, next: next.to_string() })
    }

    async fn references(
        &self,
        id: Option<&StreamId>,
        after: &str,
        limit: usize,
        wait: Duration,
    ) -> Result<Page, Refusal> {
        if let Some(id) = id {
            self.with(id, |_| ())?;
        }
        let from: usize = if after.is_empty() { 0 } else { after.parse().map_err(|_| invalid_cursor())? };
        let mut items = self.items.subscribe();
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let found: Vec<Value> = items.borrow_and_update().iter().skip(from).take(limit).cloned().collect();
            if !found.is_empty() || tokio::time::timeout_at(deadline, items.changed()).await.is_err() {
                return Ok(Page { next: (from + found.len()).to_string(), items: found });
            }
        }
    }

    async fn events(&self, after: &str, limit: usize, wait: Duration) -> Result<Page, Refusal> {
        self.references(None, after, limit, wait).await
    }

    async fn tree(&self, query: &TreeQuery) -> Value {
        self.note(format!("tree {query:?}"));
        let worker = |n: u32, state: &str| {
            json!({"path": format!("lakefeed/tenants/acme/berlin/workers/{n}"), "kind": "worker", "state": state,
                "incarnation": n, "uptime_ms": 61_000, "restarts": 0, "children": []})
        };
        let mut parked = worker(2, "parked");
        parked["reason"] = json!({"class": "auth", "code": "http_401", "message": "the key \u{1b}[31m is wrong"});
        json!({"path": "lakefeed", "kind": "supervisor", "state": "running", "incarnation": 1, "uptime_ms": 3_000,
            "restarts": 2, "restarts_in_window": 1, "restarts_left": 4, "below": {"running": 2, "parked": 1}, "hidden": 7,
            "children": [{"path": "lakefeed/tenants", "kind": "supervisor", "state": "running", "incarnation": 1,
                "uptime_ms": 3_000, "children": [worker(1, "running"), parked]}]})
    }

    async fn nodes(&self, paths: &[String]) -> Vec<Option<Value>> {
        paths.iter().map(|path| Some(json!({"path": path, "state": "running", "uptime_ms": 5_000}))).collect()
    }

    async fn ready(&self) -> Result<Value, Value> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn invalid_cursor() -> Refusal {
    Refusal::new(400, "invalid_cursor", "the cursor is not one that an answer gave").field("after")
}
