//! What the control room may ask, answered.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::api::{Desired, Page, Refusal, StartRequest, StreamView, Streams, TreeQuery};
use super::desired::Control;
use super::directory::{Directory, Entry};
use super::live;
use super::manager::ManagerMessage;
use super::positions;
use super::shared::Shared;
use super::view::view;
use crate::announce::Sink;
use crate::faults;
use crate::lake::{Created, LakeError};
use crate::names::StreamId;

/// Streams named in one answer of readiness: enough for a person, bounded for ten thousand.
const STREAMS_SHOWN_MAX: usize = 1000;

/// Streams that do not run and are asked of the lake at once, for a list.
const ACQUAINTED_AT_ONCE: usize = 32;

/// Writers that may win the next version before this request gives up.
const VERSION_TRIES_MAX: usize = 4;

fn unknown(id: &StreamId) -> Refusal {
    Refusal::new(404, "unknown_stream", format!("there is no stream {id}"))
}

fn unknown_partition(id: &StreamId) -> Refusal {
    Refusal::new(404, "unknown_partition", format!("the stream {id} has no worker for this partition"))
}

fn lake_refusal(error: &LakeError) -> Refusal {
    if error.code == "invalid_cursor" {
        return Refusal::new(400, "invalid_cursor", error.message.clone()).field("after");
    }
    Refusal::new(409, error.code, format!("the lake did not answer: {}", error.message))
}

fn version_conflict(has: u64) -> Refusal {
    Refusal::new(409, "version_conflict", format!("the stream has version {has}; read it again"))
}

impl Directory {
    /// Before the desired states are read nothing can be changed.
    fn recovered(&self) -> Result<(), Refusal> {
        if self.is_recovered() {
            Ok(())
        } else {
            Err(Refusal::new(409, "recovering", "the node still reads the desired states from the lake; try again"))
        }
    }

    fn known(&self, id: &StreamId) -> Result<Arc<Entry>, Refusal> {
        self.recovered()?;
        self.entry(id).ok_or_else(|| unknown(id))
    }

    /// Writes the next version of a desired state. When it returns, the lake has it.
    async fn store(&self, id: &StreamId, mut control: Control) -> Result<Control, Refusal> {
        for _ in 0..VERSION_TRIES_MAX {
            let version = control.version + 1;
            if faults::bug("answer_before_stored") {
                return Ok(Control { version, ..control });
            }
            let document = control.to_document(id, version, self.key.as_deref(), self.node.clock.now_us());
            let created = self.node.lake.control_create(id, version, &document).await.map_err(|e| lake_refusal(&e))?;
            control.version = version;
            if matches!(created, Created::Yes) {
                if faults::fails("control.stored") {
                    return Err(Refusal::new(409, "crash_point", "armed to fail"));
                }
                self.cache_control(id, version, &document).await;
                return Ok(control);
            }
        }
        Err(version_conflict(control.version))
    }

    /// The control that a change starts from, if the caller has seen its version.
    fn current(
        &self,
        id: &StreamId,
        entry: Option<&Entry>,
        if_version: Option<u64>,
    ) -> Result<Option<Control>, Refusal> {
        let current = match entry {
            Some(entry) => Some(entry.control()),
            // A deleted stream keeps its versions in the lake, and the next one goes on from there.
            None => self.buried(id).map(|version| Control {
                version,
                deleted: true,
                ..Control::configured("", Desired::Stopped)
            }),
        };
        let has = current.as_ref().filter(|c| !c.deleted).map_or(0, |c| c.version.max(1));
        match if_version {
            Some(wanted) if wanted != has => Err(version_conflict(has)),
            _ => Ok(current),
        }
    }
}

/// The request laid into a control of the next version.
fn requested(control: Option<Control>, adapter: &str, request: &StartRequest) -> Control {
    let base = control.unwrap_or_else(|| Control::configured(adapter, Desired::Running));
    let mut overrides = request.overrides.clone();
    base.unmask(&mut overrides);
    Control {
        adapter: adapter.to_owned(),
        desired: Desired::Running,
        deleted: false,
        overrides,
        bucket: request.bucket_name.clone().unwrap_or_else(|| crate::names::DEFAULT_BUCKET.to_owned()),
        secret_lost: false,
        version: base.version,
    }
}

#[async_trait]
impl Streams for DirectoryHandle {
    async fn list(&self) -> Vec<StreamView> {
        let entries = self.0.entries();
        let mut idle = entries.clone();
        idle.retain(|entry| entry.desired() != Desired::Running || entry.shared.job.borrow().is_none());
        let asked = idle.into_iter().map(|entry| async move { entry.shared.acquaint().await });
        futures::stream::iter(asked).buffer_unordered(ACQUAINTED_AT_ONCE).collect::<Vec<()>>().await;
        entries.iter().map(|entry| view(entry)).collect()
    }

    async fn get(&self, id: &StreamId) -> Result<StreamView, Refusal> {
        let entry = self.0.known(id)?;
        entry.shared.acquaint().await;
        Ok(view(&entry))
    }

    async fn start(&self, id: &StreamId, adapter: &str, request: StartRequest) -> Result<StreamView, Refusal> {
        let directory = &self.0;
        directory.recovered()?;
        if !directory.settings().adapters.contains_key(adapter) {
            return Err(Refusal::new(404, "unknown_adapter", format!("there is no adapter {adapter}")).field("adapter"));
        }
        let mut creating = None;
        if directory.entry(id).is_none() {
            creating = Some(directory.creating.lock().await);
        }
        let existing = directory.entry(id);
        let turn = match &existing {
            Some(entry) => Some(entry.changing.lock().await),
            None => None,
        };
        let current = directory.current(id, existing.as_deref(), request.if_version)?;
        if let Some(other) = current.as_ref().filter(|c| !c.deleted && c.adapter != adapter) {
            let text =
                format!("the stream {id} uses the adapter {}; its positions mean nothing to another", other.adapter);
            return Err(Refusal::new(409, "adapter_mismatch", text).field("adapter"));
        }
        let control = requested(current.clone(), adapter, &request);
        if control.has_mask() {
            let text = "the secret that *** stands for is not known any more; send the secret itself";
            return Err(Refusal::new(409, "secret_lost", text));
        }
        let job = Arc::new(directory.job(id, &control)?);
        if let Some(entry) = existing.as_ref().filter(|_| control.version > 0 && current.as_ref() == Some(&control)) {
            // The same again changes nothing, but what does not run although it should is looked after.
            entry.reconcile().await?;
            return Ok(view(entry));
        }
        let control = directory.store(id, control).await?;
        let entry = match existing.as_ref() {
            Some(entry) => {
                let same_work = current.as_ref().is_some_and(|c| c.overrides == control.overrides && !c.secret_lost);
                entry.set_control(control);
                entry.shared.set_waits_for(None);
                if !same_work || entry.shared.job.borrow().is_none() {
                    entry.shared.job.send_replace(Some(job));
                }
                entry.reconcile().await?;
                Arc::clone(entry)
            }
            None => {
                let entry = Entry::new(Shared::new(id.clone(), Arc::clone(&directory.node)), control);
                entry.shared.job.send_replace(Some(job));
                directory.plant(&entry).await?;
                entry
            }
        };
        drop((turn, creating));
        Ok(view(&entry))
    }

    async fn set_desired(
        &self,
        id: &StreamId,
        adapter: Option<&str>,
        desired: Desired,
        if_version: Option<u64>,
    ) -> Result<(), Refusal> {
        self.0.recovered()?;
        if let Some(adapter) = adapter.filter(|name| !self.0.settings().adapters.contains_key(*name)) {
            return Err(Refusal::new(404, "unknown_adapter", format!("there is no adapter {adapter}")).field("adapter"));
        }
        let entry = match self.0.entry(id) {
            Some(entry) => entry,
            // To stop what was never started is what was asked for.
            None if desired == Desired::Stopped && adapter.is_some() => return Ok(()),
            None => return Err(unknown(id)),
        };
        let _turn = entry.changing.lock().await;
        let current = entry.control();
        if if_version.is_some_and(|wanted| wanted != current.version.max(1)) {
            return Err(version_conflict(current.version.max(1)));
        }
        if let Some(adapter) = adapter.filter(|name| *name != current.adapter) {
            let text = format!("the stream {id} uses the adapter {}, not {adapter}", current.adapter);
            return Err(Refusal::new(409, "adapter_mismatch", text).field("adapter"));
        }
        // What a message asked for outlives the configuration, also where both say the same today.
        if current.desired != desired || current.version == 0 {
            let control = self.0.store(id, Control { desired, ..current }).await?;
            entry.set_control(control);
        }
        entry.reconcile().await
    }

    async fn interrupt(&self, id: &StreamId, partition: Option<&str>) -> Result<(), Refusal> {
        if self.0.known(id)?.shared.interrupt(partition) {
            return Ok(());
        }
        Err(unknown_partition(id))
    }

    async fn restart(&self, id: &StreamId, partition: Option<&str>) -> Result<(), Refusal> {
        let entry = self.0.known(id)?;
        let job = entry.shared.job.borrow().clone();
        if let (Some(wanted), Some(job)) = (partition, job)
            && !job.mount.partitions().iter().any(|known| known.name == wanted)
        {
            return Err(unknown_partition(id));
        }
        let manager = entry
            .manager()
            .await
            .ok_or_else(|| Refusal::new(409, "stream_restarting", "the stream is being restarted"))?;
        let partition = partition.map(str::to_owned);
        match ractor::call!(manager, |reply| ManagerMessage::Restart(partition, reply)) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => Err(Refusal::new(409, "not_restarted", why)),
            Err(_) => Err(Refusal::new(409, "stream_restarting", "the stream is being restarted")),
        }
    }

    async fn delete(&self, id: &StreamId, if_version: Option<u64>) -> Result<(), Refusal> {
        let entry = self.0.known(id)?;
        let _turn = entry.changing.lock().await;
        let current = entry.control();
        if if_version.is_some_and(|wanted| wanted != current.version.max(1)) {
            return Err(version_conflict(current.version.max(1)));
        }
        let buried = Control { desired: Desired::Stopped, deleted: true, overrides: serde_json::Map::new(), ..current };
        let buried = self.0.store(id, buried).await?;
        self.0.uproot(id, Some(buried.version)).await;
        Ok(())
    }

    async fn checkpoint(&self, id: &StreamId) -> Result<Value, Refusal> {
        self.0.known(id)?;
        let checkpoint = self.0.node.lake.last_checkpoint(id).await.map_err(|e| lake_refusal(&e))?;
        Ok(match checkpoint {
            Some(c) => json!({"epoch": c.epoch, "generation": c.generation, "positions": c.positions}),
            None => json!({"epoch": 0, "generation": 0, "positions": {}}),
        })
    }

    async fn set_checkpoint(
        &self,
        id: &StreamId,
        positions: Option<BTreeMap<String, String>>,
    ) -> Result<Value, Refusal> {
        let entry = self.0.known(id)?;
        let _turn = entry.changing.lock().await;
        if entry.desired() != Desired::Stopped {
            return Err(Refusal::new(
                409,
                "not_stopped",
                "positions are set while the stream is stopped; stop it first",
            ));
        }
        // Whatever was still being committed is, when the manager has answered.
        entry.reconcile().await?;
        let job = entry.shared.job.borrow().clone();
        let job = job.ok_or_else(|| Refusal::new(409, "no_job", "the stream has no job"))?;
        if let Some(wanted) = &positions {
            let known = self.0.node.lake.last_checkpoint(id).await.map_err(|e| lake_refusal(&e))?;
            positions::check(&entry, &job, wanted, known.as_ref().map(|checkpoint| &checkpoint.positions)).await?;
        }
        positions::set(&entry, &job, positions).await.map_err(|e| lake_refusal(&e))?;
        self.checkpoint(id).await
    }

    async fn dead(&self, id: &StreamId, after: &str, limit: usize) -> Result<Page, Refusal> {
        self.0.known(id)?;
        let (items, next) = self.0.node.lake.dead_letters(id, after, limit).await.map_err(|e| lake_refusal(&e))?;
        Ok(Page { items, next })
    }

    async fn records(&self, id: &StreamId, after: &str, limit: usize) -> Result<Page, Refusal> {
        self.0.known(id)?;
        let (items, next) = self.0.node.lake.records(id, after, limit).await.map_err(|e| lake_refusal(&e))?;
        Ok(Page { items, next })
    }

    async fn references(
        &self,
        id: Option<&StreamId>,
        after: &str,
        limit: usize,
        wait: Duration,
    ) -> Result<Page, Refusal> {
        let feed = &self.0.node.feed;
        let until = Instant::now() + wait;
        let mut seen = feed.watch();
        loop {
            let (items, next) = match id {
                Some(id) => self.references_of(id, after, limit).await?,
                None => feed
                    .after(after, limit)
                    .map_err(|e| Refusal::new(400, "invalid_cursor", e.to_string()).field("after"))?,
            };
            let left = until.saturating_duration_since(Instant::now());
            if !items.is_empty() || left.is_zero() || !feed.published(&mut seen, left).await {
                return Ok(Page { items, next });
            }
        }
    }

    async fn events(&self, after: &str, limit: usize, wait: Duration) -> Result<Page, Refusal> {
        let page = self.0.node.events.page(after, limit, wait).await;
        let (items, next) = page.map_err(|_| {
            Refusal::new(400, "invalid_cursor", "give the \"next\" of an earlier answer, or nothing").field("after")
        })?;
        Ok(Page { items, next })
    }

    async fn tree(&self, query: &TreeQuery) -> Value {
        live::tree(&self.0, query).await
    }

    async fn nodes(&self, paths: &[String]) -> Vec<Option<Value>> {
        live::nodes(&self.0, paths).await
    }

    async fn ready(&self) -> Result<Value, Value> {
        if !self.0.is_recovered() {
            let reason = "the desired states are being read from the lake";
            return Err(json!({"ready": false, "reason": reason, "waits_for": self.0.recovery_waits_for()}));
        }
        let mut waiting = Vec::new();
        let mut starting = HashSet::new();
        for entry in self.0.entries() {
            let shared = &entry.shared;
            if entry.desired() != Desired::Running || shared.intake.borrow().is_some() {
                continue;
            }
            match shared.waits_for() {
                Some(reason) => waiting.push(json!({"stream": shared.id, "reason": reason})),
                None if !shared.parked().is_empty() => waiting.push(json!({"stream": shared.id, "reason": "parked"})),
                None => {
                    starting.insert(shared.id.to_string());
                }
            }
        }
        waiting.truncate(STREAMS_SHOWN_MAX);
        if starting.is_empty() {
            return Ok(json!({"ready": true, "waiting": waiting}));
        }
        let some: Vec<_> = starting.iter().take(STREAMS_SHOWN_MAX).collect();
        Err(json!({"ready": false, "starting": starting.len(), "streams": some, "waiting": waiting}))
    }
}

/// The directory as the control room sees it.
#[derive(Debug, Clone)]
pub struct DirectoryHandle(pub Arc<Directory>);

impl DirectoryHandle {
    async fn references_of(&self, id: &StreamId, after: &str, limit: usize) -> Result<(Vec<Value>, String), Refusal> {
        let entry = self.0.known(id)?;
        entry.shared.acquaint().await;
        let text = if after.is_empty() { "0" } else { after };
        let after: u64 = text
            .parse()
            .map_err(|_| Refusal::new(400, "invalid_cursor", "with a stream, after is an epoch").field("after"))?;
        let feed = &self.0.node.feed;
        let committed = entry.shared.progress.borrow().epoch;
        // Nobody announces for a stream that does not run, but what it committed is there.
        let last = feed.announced(id).max(if entry.shared.intake.borrow().is_none() { committed } else { 0 });
        let last = last.min(after.saturating_add(limit as u64));
        let mut items = Vec::new();
        for epoch in after.saturating_add(1)..=last {
            let data = match feed.recent(id, epoch) {
                Some(data) => Some(data),
                None => self.0.node.lake.reference(id, epoch).await.map_err(|e| lake_refusal(&e))?,
            };
            items.extend(data);
        }
        Ok((items, after.max(last).to_string()))
    }
}
