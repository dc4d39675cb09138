//! All streams of the node: what each should be, and the way to its manager.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use adapters::contract::Kind;
use adapters::contract::config::SecretSource;
use futures::StreamExt;
use ractor::ActorRef;
use serde_json::Value;
use supervisors::{ChildSpec, ManageError, OnLimit, SupervisorHandle, SupervisorSpec};
use tokio::sync::watch;

use super::api::{Desired, Refusal};
use super::commit::failure;
use super::desired::Control;
use super::manager::ManagerMessage;
use super::shared::{Node, Shared};
use super::tree;
use crate::lake::{LakeError, LakeErrorClass};
use crate::names::StreamId;
use crate::settings::{Job, RestartSettings, SecretKey, Settings, diff, overlay};

/// Desired states read from the lake at once, at the start.
const CONTROL_READS_MAX: usize = 64;

/// Pauses between tries to read the desired states.
const RECOVER_PAUSE_MIN: Duration = Duration::from_millis(200);
const RECOVER_PAUSE_MAX: Duration = Duration::from_secs(10);

/// Managers asked at once, when all stop.
const QUIESCES_MAX: usize = 64;

/// Rounds of finding or starting a tenant's supervisor before a new stream is left to its next start.
const PLANT_TRIES_MAX: usize = 10;

const TREE_CONTROL: &str = "control";

/// One stream: its parts, its desired state, its manager.
pub struct Entry {
    /// What its parts share.
    pub shared: Arc<Shared>,
    /// Held by whoever changes the desired state: read, write to the lake, apply.
    pub(super) changing: tokio::sync::Mutex<()>,
    control: Mutex<Control>,
    manager: watch::Sender<Option<ActorRef<ManagerMessage>>>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("id", &self.shared.id).finish_non_exhaustive()
    }
}

impl Entry {
    pub(super) fn new(shared: Arc<Shared>, control: Control) -> Arc<Self> {
        shared.set_bucket(&control.bucket);
        Arc::new(Self {
            shared,
            changing: tokio::sync::Mutex::default(),
            control: Mutex::new(control),
            manager: watch::Sender::new(None),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn control(&self) -> Control {
        self.lock().clone()
    }

    pub(super) fn set_control(&self, control: Control) {
        self.shared.set_bucket(&control.bucket);
        *self.lock() = control;
    }

    pub(super) fn desired(&self) -> Desired {
        self.lock().desired
    }

    pub(super) fn adapter(&self) -> String {
        self.lock().adapter.clone()
    }

    pub(super) fn restart_settings(&self) -> RestartSettings {
        self.shared.job.borrow().as_ref().map_or_else(RestartSettings::default, |job| job.restart.clone())
    }

    pub(super) fn set_manager(&self, manager: Option<ActorRef<ManagerMessage>>) {
        self.manager.send_replace(manager);
    }

    /// The manager as soon as there is one.
    pub(super) async fn manager(&self) -> Option<ActorRef<ManagerMessage>> {
        let mut watch = self.manager.subscribe();
        let found = tokio::time::timeout(MANAGER_WAIT, watch.wait_for(Option::is_some)).await;
        found.ok()?.ok()?.clone()
    }

    /// Has the manager make what is into what should be.
    pub(super) async fn reconcile(&self) -> Result<(), Refusal> {
        let gone = || {
            Refusal::new(
                409,
                "stream_restarting",
                "the stream is being restarted; its desired state is stored and will be met",
            )
        };
        let manager = self.manager().await.ok_or_else(gone)?;
        let answer = ractor::call!(manager, |reply| ManagerMessage::Reconcile(Some(reply)));
        answer.map_err(|_| gone())
    }
}

/// How long a request waits for a manager that is being restarted.
const MANAGER_WAIT: Duration = Duration::from_secs(5);

/// All streams of the node.
pub struct Directory {
    pub(super) node: Arc<Node>,
    pub(super) kinds: Vec<Arc<dyn Kind>>,
    pub(super) secrets: Arc<dyn SecretSource>,
    pub(super) key: Option<Arc<SecretKey>>,
    settings: RwLock<Arc<Settings>>,
    entries: RwLock<BTreeMap<StreamId, Arc<Entry>>>,
    /// Deleted streams with the version that says so.
    graves: RwLock<BTreeMap<StreamId, u64>>,
    /// Held while a stream comes into being, so that two requests do not make two of it.
    pub(super) creating: tokio::sync::Mutex<()>,
    recovered: watch::Sender<bool>,
    /// Why the desired states are not known yet, where something stands in the way.
    recovery_waits_for: Mutex<Option<String>>,
    root: OnceLock<SupervisorHandle>,
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory").finish_non_exhaustive()
    }
}

impl Directory {
    /// A directory that knows the configuration; what the lake says of desired states comes with the first start of
    /// [`Directory::tenants`].
    #[must_use]
    pub fn new(
        node: Arc<Node>,
        settings: Arc<Settings>,
        kinds: Vec<Arc<dyn Kind>>,
        secrets: Arc<dyn SecretSource>,
    ) -> Arc<Self> {
        Arc::new(Self {
            node,
            kinds,
            secrets,
            key: settings.node.secrets_key.clone(),
            settings: RwLock::new(settings),
            entries: RwLock::default(),
            graves: RwLock::default(),
            creating: tokio::sync::Mutex::default(),
            recovered: watch::Sender::new(false),
            recovery_waits_for: Mutex::default(),
            root: OnceLock::new(),
        })
    }

    /// Reads what should be from the lake and lays it over the configuration. Starting without could start what a
    /// customer had stopped, so an unreachable lake is waited for. So is one that refuses its key, which may be mended
    /// where the options refer to: no stream is known that could be parked for it, and a node that ends has nobody left who
    /// would say why.
    async fn recover(&self) -> Result<(), LakeError> {
        let mut pause = RECOVER_PAUSE_MIN;
        let documents = loop {
            match self.read_controls().await {
                Ok(documents) => break documents,
                Err(e) if e.may_heal() || e.class == LakeErrorClass::Auth => {
                    tracing::warn!(code = e.code, message = e.message, "the desired states cannot be read yet");
                    self.set_recovery_waits_for(Some(format!("{}: {}", e.code, e.message)));
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RECOVER_PAUSE_MAX);
                }
                Err(e) => return Err(e),
            }
        };
        let settings = self.settings();
        let streams = settings.streams.iter();
        let mut controls: BTreeMap<StreamId, Control> =
            streams.map(|(id, stream)| (id.clone(), Control::configured(&stream.adapter, stream.state))).collect();
        controls.extend(documents);
        let mut entries = BTreeMap::new();
        for (id, control) in controls {
            if control.deleted {
                self.bury(id, control.version);
            } else {
                let entry = Entry::new(Shared::new(id.clone(), Arc::clone(&self.node)), control);
                self.assign_job(&entry);
                entries.insert(id, entry);
            }
        }
        *self.entries.write().unwrap_or_else(PoisonError::into_inner) = entries;
        self.set_recovery_waits_for(None);
        self.recovered.send_replace(true);
        Ok(())
    }

    fn set_recovery_waits_for(&self, reason: Option<String>) {
        *self.recovery_waits_for.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// Why the desired states are not known yet, where something stands in the way.
    pub(super) fn recovery_waits_for(&self) -> Option<String> {
        self.recovery_waits_for.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the desired states are known.
    #[must_use]
    pub fn is_recovered(&self) -> bool {
        *self.recovered.borrow()
    }

    /// Each stream with its last committed epoch.
    #[must_use]
    pub fn epochs(&self) -> Vec<(StreamId, u64)> {
        self.entries().iter().map(|entry| (entry.shared.id.clone(), entry.shared.progress.borrow().epoch)).collect()
    }

    /// The lake.
    #[must_use]
    pub fn lake(&self) -> &crate::lake::Lake {
        &self.node.lake
    }

    /// The newest document of each stream, from the cache where that has just this version.
    async fn read_controls(&self) -> Result<Vec<(StreamId, Control)>, LakeError> {
        let newest = self.node.lake.control_list().await?;
        let cached: std::collections::HashMap<_, _> = self.node.cache.values(TREE_CONTROL).await.into_iter().collect();
        let reads = newest.into_iter().map(|(id, version)| {
            let cached = cached.get(&format!("{id} {version}")).and_then(|bytes| serde_json::from_slice::<Value>(bytes).ok());
            async move {
                let document = match cached {
                    Some(document) => document,
                    None => self.node.lake.control_read(&id, version).await?,
                };
                let control = Control::from_document(document, &id, self.key.as_deref());
                if control.is_none() {
                    tracing::error!(stream = %id, version, code = "control_unreadable", "the desired state is not readable; the configuration decides");
                }
                Ok::<_, LakeError>(control.map(|control| (id, control)))
            }
        });
        let mut all = futures::stream::iter(reads).buffer_unordered(CONTROL_READS_MAX);
        let mut controls = Vec::new();
        while let Some(read) = all.next().await {
            controls.extend(read?);
        }
        Ok(controls)
    }

    /// Caches a document under its version, in place of the one before.
    pub(super) async fn cache_control(&self, id: &StreamId, version: u64, document: &Value) {
        let Ok(bytes) = serde_json::to_vec(document) else { return };
        let old = format!("{id} {}", version.saturating_sub(1));
        self.node.cache.store_values(TREE_CONTROL, vec![(format!("{id} {version}"), bytes)], vec![old]).await;
    }

    /// The configuration in force.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn entry(&self, id: &StreamId) -> Option<Arc<Entry>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    pub(super) fn entries(&self) -> Vec<Arc<Entry>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn entries_of(&self, tenant: &str) -> Vec<Arc<Entry>> {
        self.entries().into_iter().filter(|entry| entry.shared.id.tenant() == tenant).collect()
    }

    /// The job of a stream as `control` wants it.
    pub(super) fn job(&self, id: &StreamId, control: &Control) -> Result<Job, Refusal> {
        let settings = self.settings();
        let adapter = settings.adapters.get(&control.adapter);
        let unknown = || {
            Refusal::new(404, "unknown_adapter", format!("there is no adapter {}", control.adapter)).field("adapter")
        };
        let adapter = adapter.ok_or_else(unknown)?;
        let stream = settings.streams.get(id).filter(|stream| stream.adapter == control.adapter);
        if let Some(stream) = stream.filter(|_| control.overrides.is_empty()) {
            return Ok(stream.job.clone());
        }
        let job = overlay(adapter, &control.overrides, stream.map(|s| &s.table), &self.kinds, self.secrets.as_ref());
        job.map_err(|refused| match refused.first() {
            Some(first) => Refusal::new(first.status(), first.code(), first.to_string()).field(first.field()),
            None => Refusal::new(400, "invalid_value", "the settings cannot be read"),
        })
    }

    /// Gives the entry the job its control wants, or none, saying why.
    pub(super) fn assign_job(&self, entry: &Entry) {
        let control = entry.control();
        if control.secret_lost {
            entry.shared.set_waits_for(Some(
                "no_job: the secret that came by message went with the process that had it; send worker:start again"
                    .to_owned(),
            ));
            entry.shared.job.send_replace(None);
            return;
        }
        match self.job(&entry.shared.id, &control) {
            Ok(job) => {
                entry.shared.set_waits_for(None);
                entry.shared.job.send_replace(Some(Arc::new(job)));
            }
            Err(refusal) => {
                tracing::error!(stream = %entry.shared.id, code = refusal.code, message = refusal.message, "the stream has no job");
                entry.shared.set_waits_for(Some(format!("{}: {}", refusal.code, refusal.message)));
                entry.shared.job.send_replace(None);
            }
        }
    }

    /// The supervisor spec of `tenants`: each tenant with its streams as they are at the (re)start. A tenant that
    /// cannot be kept up is parked and the others run on.
    #[must_use]
    pub fn tenants(self: &Arc<Self>) -> ChildSpec {
        let directory = Arc::clone(self);
        ChildSpec::supervisor("tenants", move |_| {
            let directory = Arc::clone(&directory);
            async move {
                if !directory.is_recovered() {
                    directory.recover().await.map_err(|e| failure(&e))?;
                }
                let mut names: Vec<String> =
                    directory.entries().iter().map(|e| e.shared.id.tenant().to_owned()).collect();
                names.dedup();
                let children = names.iter().map(|name| directory.tenant(name)).collect();
                let limit = RestartSettings::default();
                Ok(SupervisorSpec { children, on_limit: OnLimit::ParkChild, ..SupervisorSpec::dynamic() }
                    .intensity(limit.max_restarts, limit.window))
            }
        })
    }

    fn tenant(self: &Arc<Self>, name: &str) -> ChildSpec {
        let directory = Arc::clone(self);
        let tenant = name.to_owned();
        tree::tenant(name, move || directory.entries_of(&tenant))
    }

    /// Tells where the tree is, once it runs.
    pub fn attach(&self, root: SupervisorHandle) {
        // A second root in one directory would be a bug of the composition; the first one stays.
        let _ = self.root.set(root);
    }

    /// The root of the tree.
    #[must_use]
    pub fn root(&self) -> Option<&SupervisorHandle> {
        self.root.get()
    }

    async fn tenant_handle(&self, tenant: &str) -> Option<SupervisorHandle> {
        self.root()?.supervisor("tenants").await?.supervisor(tenant).await
    }

    /// Puts a new stream into the tree.
    pub(super) async fn plant(self: &Arc<Self>, entry: &Arc<Entry>) -> Result<(), Refusal> {
        let id = entry.shared.id.clone();
        self.entries.write().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), Arc::clone(entry));
        let failed =
            |e: ManageError| Refusal::new(409, "tree_busy", format!("the stream is stored and will be started: {e}"));
        let tenants = match self.root() {
            Some(root) => root.supervisor("tenants").await,
            None => None,
        };
        let tenants = tenants.ok_or_else(|| failed(ManageError::Gone))?;
        // A tenant that starts takes the streams that it sees then; this one may have come a moment later. So the stream
        // is started in any case, and finding it there already is fine.
        for _ in 0..PLANT_TRIES_MAX {
            let Some(tenant) = tenants.supervisor(id.tenant()).await else {
                match tenants.start_child(self.tenant(id.tenant())).await {
                    Ok(_) | Err(ManageError::AlreadyStarted | ManageError::Restarting) => continue,
                    Err(e) => return Err(failed(e)),
                }
            };
            return match tenant.start_child(tree::stream(Arc::clone(entry))).await {
                Ok(_) | Err(ManageError::AlreadyStarted | ManageError::AlreadyPresent) => Ok(()),
                Err(e) => Err(failed(e)),
            };
        }
        Err(failed(ManageError::Restarting))
    }

    fn bury(&self, id: StreamId, version: u64) {
        self.graves.write().unwrap_or_else(PoisonError::into_inner).insert(id, version);
    }

    /// The version under which a stream was deleted.
    pub(super) fn buried(&self, id: &StreamId) -> Option<u64> {
        self.graves.read().unwrap_or_else(PoisonError::into_inner).get(id).copied()
    }

    /// Takes a stream out of the tree; `deleted` is the version that says that it shall stay away.
    pub(super) async fn uproot(&self, id: &StreamId, deleted: Option<u64>) {
        if let Some(version) = deleted {
            self.bury(id.clone(), version);
        }
        let removed = self.entries.write().unwrap_or_else(PoisonError::into_inner).remove(id);
        if let Some(entry) = removed
            && let Some(manager) = entry.manager().await
        {
            let _ = ractor::call!(manager, ManagerMessage::Quiesce);
        }
        if let Some(tenant) = self.tenant_handle(id.tenant()).await {
            let _ = tenant.terminate_child(id.stream()).await;
        }
    }

    /// Stops the work of all streams in the order that lets the last epochs be committed and announced.
    pub async fn quiesce(&self) {
        let all = self.entries().into_iter().map(|entry| async move {
            if let Some(manager) = entry.manager.borrow().clone() {
                let _ = ractor::call!(manager, ManagerMessage::Quiesce);
            }
        });
        futures::stream::iter(all).buffer_unordered(QUIESCES_MAX).collect::<Vec<()>>().await;
    }

    /// Applies a changed configuration: new streams start, removed ones stop, changed ones change at the end of their
    /// interval; what messages have set stays. A secret that a file or variable now holds is a change, too.
    pub async fn reload(self: &Arc<Self>, settings: Arc<Settings>) {
        let old = std::mem::replace(
            &mut *self.settings.write().unwrap_or_else(PoisonError::into_inner),
            Arc::clone(&settings),
        );
        let changes = diff(&old, &settings);
        if !changes.at_next_start.is_empty() {
            let sections = changes.at_next_start.join(", ");
            tracing::warn!(code = "needs_restart", sections, "these sections have changed and count at the next start");
        }
        let mut touched: BTreeSet<StreamId> = &changes.changed | &(&changes.added | &changes.removed);
        for (id, stream) in &settings.streams {
            match self.entry(id) {
                // What a message deleted stays away, whatever the configuration says.
                None if self.buried(id).is_some() => {}
                None => {
                    let control = Control::configured(&stream.adapter, stream.state);
                    let entry = Entry::new(Shared::new(id.clone(), Arc::clone(&self.node)), control);
                    self.assign_job(&entry);
                    touched.remove(id);
                    if let Err(e) = self.plant(&entry).await {
                        tracing::error!(stream = %id, code = e.code, message = e.message, "the new stream is not started");
                    }
                }
                Some(entry) => {
                    let _turn = entry.changing.lock().await;
                    let control = Control::configured(&stream.adapter, stream.state);
                    if entry.control().version == 0 && entry.control() != control {
                        entry.set_control(control);
                        touched.insert(id.clone());
                    }
                }
            }
        }
        for entry in self.entries() {
            let id = &entry.shared.id;
            if !settings.streams.contains_key(id) && entry.control().version == 0 {
                self.uproot(id, None).await;
            } else if touched.contains(id) || changes.adapters.contains(&entry.adapter()) {
                self.assign_job(&entry);
                if let Err(e) = entry.reconcile().await {
                    tracing::warn!(stream = %id, code = e.code, message = e.message, "the change is not yet applied");
                }
            }
        }
    }
}
