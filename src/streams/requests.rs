//! What the control room may ask, answered.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use adapters::contract::Position;
use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::api::{Actual, Desired, Page, Parked, Refusal, StartRequest, Status, StreamView, Streams};
use super::desired::Control;
use super::directory::{Directory, Entry};
use super::manager::ManagerMessage;
use super::shared::{Phase, Shared};
use crate::announce::Sink;
use crate::faults;
use crate::lake::{Claim, Created, LakeError};
use crate::names::StreamId;
use crate::pipeline::{BuilderSpec, EpochBuilder};
use crate::times::timestamp;

/// Names of partitions in one view: enough for a person, bounded for ten thousand.
const PARTITIONS_SHOWN_MAX: usize = 1000;

/// Writers that may win the next version before this request gives up.
const VERSION_TRIES_MAX: usize = 4;

fn unknown(id: &StreamId) -> Refusal {
    Refusal::new(404, "unknown_stream", format!("there is no stream {id}"))
}

fn lake_refusal(error: &LakeError) -> Refusal {
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
        self.entry(id).ok_or_else(|| unknown(id))
    }

    /// Writes the next version of a desired state. When it returns, the lake has it.
    async fn store(&self, id: &StreamId, mut control: Control) -> Result<Control, Refusal> {
        for _ in 0..VERSION_TRIES_MAX {
            let version = control.version + 1;
            let document = control.to_document(id, version, self.key.as_deref(), self.node.clock.now_us());
            let created = self.node.lake.control_create(id, version, &document).await.map_err(|e| lake_refusal(&e))?;
            control.version = version;
            if matches!(created, Created::Yes) {
                faults::point("control.stored");
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

fn status(entry: &Entry) -> Status {
    let shared = &entry.shared;
    let desired = entry.desired();
    let parked = shared.parked();
    let phases = shared.phases();
    let progress = shared.progress.borrow().clone();
    let now_us = shared.node.clock.now_us();
    let next_us = phases.iter().filter_map(|p| if let Phase::Waiting(at) = p { Some(*at) } else { None }).min();
    let actual = actual(shared, desired, &parked, &phases);
    #[allow(clippy::cast_precision_loss, reason = "seconds of lag need no microseconds beyond 2^52")]
    let lag_seconds = progress.newest_event_us.map(|newest| (now_us - newest) as f64 / 1e6);
    Status {
        desired,
        actual,
        epoch: progress.epoch,
        lag_seconds,
        next_at: next_us.filter(|_| actual == Actual::Waiting).map(timestamp),
        parked: if actual == Actual::Parked { parked.into_values().next() } else { None },
    }
}

fn actual(
    shared: &Shared,
    desired: Desired,
    parked: &std::collections::HashMap<String, Parked>,
    phases: &[Phase],
) -> Actual {
    if desired != Desired::Running {
        return Actual::Stopped;
    }
    if shared.job.borrow().is_none() {
        return Actual::Waiting;
    }
    let parked_workers = parked.keys().filter(|path| path.contains("/workers/")).count();
    if parked_workers < parked.len() || (parked_workers > 0 && parked_workers >= phases.len()) {
        return Actual::Parked;
    }
    if shared.intake.borrow().is_none() {
        return if shared.waits_for().is_some() { Actual::Waiting } else { Actual::Starting };
    }
    if phases.contains(&Phase::Working) {
        Actual::Running
    } else if phases.iter().any(|p| matches!(p, Phase::Waiting(_) | Phase::Ended)) {
        Actual::Waiting
    } else {
        Actual::Starting
    }
}

fn view(entry: &Entry) -> StreamView {
    let control = entry.control();
    let job = entry.shared.job.borrow().clone();
    let partitions = job.map(|job| job.mount.partitions()).unwrap_or_default();
    StreamView {
        tenant: entry.shared.id.tenant().to_owned(),
        stream: entry.shared.id.stream().to_owned(),
        adapter: control.adapter.clone(),
        version: control.version.max(1),
        partitions: partitions.into_iter().take(PARTITIONS_SHOWN_MAX).map(|p| p.name).collect(),
        settings: control.shown(),
        status: status(entry),
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
        self.0.entries().iter().map(|entry| view(entry)).collect()
    }

    async fn get(&self, id: &StreamId) -> Result<StreamView, Refusal> {
        Ok(view(self.0.known(id)?.as_ref()))
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
        let job = Arc::new(directory.job(id, &control)?);
        if let Some(entry) = existing.as_ref().filter(|_| current.as_ref() == Some(&control)) {
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
        if current.desired != desired {
            let control = self.0.store(id, Control { desired, ..current }).await?;
            entry.set_control(control);
        }
        entry.reconcile().await
    }

    async fn interrupt(&self, id: &StreamId, partition: Option<&str>) -> Result<(), Refusal> {
        if self.0.known(id)?.shared.interrupt(partition) {
            return Ok(());
        }
        Err(Refusal::new(404, "unknown_partition", format!("the stream {id} has no worker for this partition")))
    }

    async fn restart(&self, id: &StreamId, partition: Option<&str>) -> Result<(), Refusal> {
        let entry = self.0.known(id)?;
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
        set_positions(&entry, &job, positions).await.map_err(|e| lake_refusal(&e))?;
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

    async fn tree(&self) -> Value {
        match self.0.root() {
            Some(root) => serde_json::to_value(root.snapshot().await).unwrap_or_default(),
            None => Value::Null,
        }
    }

    async fn ready(&self) -> Result<Value, Value> {
        if !self.0.is_recovered() {
            return Err(json!({"ready": false, "reason": "the desired states are being read from the lake"}));
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
        waiting.truncate(PARTITIONS_SHOWN_MAX);
        if starting.is_empty() {
            return Ok(json!({"ready": true, "waiting": waiting}));
        }
        let some: Vec<_> = starting.iter().take(PARTITIONS_SHOWN_MAX).collect();
        Err(json!({"ready": false, "starting": starting.len(), "streams": some, "waiting": waiting}))
    }
}

/// The directory as the control room sees it.
#[derive(Debug, Clone)]
pub struct DirectoryHandle(pub Arc<Directory>);

impl DirectoryHandle {
    async fn references_of(&self, id: &StreamId, after: &str, limit: usize) -> Result<(Vec<Value>, String), Refusal> {
        self.0.known(id)?;
        let text = if after.is_empty() { "0" } else { after };
        let after: u64 = text
            .parse()
            .map_err(|_| Refusal::new(400, "invalid_cursor", "with a stream, after is an epoch").field("after"))?;
        let feed = &self.0.node.feed;
        let last = feed.announced(id).min(after.saturating_add(limit as u64));
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

/// An epoch without rows that moves the positions.
async fn set_positions(
    entry: &Entry,
    job: &crate::settings::Job,
    positions: Option<BTreeMap<String, String>>,
) -> Result<(), LakeError> {
    let shared = &entry.shared;
    let claim = Claim {
        id: shared.id.clone(),
        adapter: job.adapter.clone(),
        schema: job.schema.clone().or_else(|| job.mount.schema()),
        partition_by: job.partition_by.clone(),
        cache: None,
    };
    let mut owner = shared.node.lake.claim(claim).await?;
    let known = owner.checkpoint().positions.clone();
    // An empty position is the beginning.
    let wanted =
        positions.unwrap_or_else(|| known.keys().map(|partition| (partition.clone(), String::new())).collect());
    let now_us = shared.node.clock.now_us();
    let mut builder = EpochBuilder::new(BuilderSpec {
        id: shared.id.clone(),
        adapter: job.adapter.clone(),
        epoch: owner.checkpoint().epoch + 1,
        generation: owner.generation(),
        schema: owner.schema(),
        decoder: job.mount.decoder(),
        partition_by: job.partition_by.clone(),
        raw_kept: job.raw_kept,
        on_bad_record: job.on_bad_record,
        started_at_us: now_us,
    });
    for (partition, to) in wanted {
        let from = known.get(&partition).map(|position| Position::new(position.clone()));
        builder.set_position(&partition, from, Position::new(to));
    }
    let committed = owner.commit(&builder.seal(now_us), &shared.bucket()).await?;
    shared.node.cache.forget_positions(&shared.id.to_string()).await;
    shared.progress.send_modify(|progress| progress.epoch = committed.epoch);
    Ok(())
}
