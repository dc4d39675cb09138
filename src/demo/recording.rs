//! A kind around a kind: records what its sources hand over, and panics now and then where asked to.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use adapters::contract::config::Reader;
use adapters::contract::{
    Batch, Cadence, Credits, Decode, Env, Kind, Mount, Partition, Position, Pull, Replay, Source, SourceError,
};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use tokio::sync::watch;

/// What the sources handed over, by `<tenant>/<stream>/<partition>`.
#[derive(Debug, Default)]
pub struct Ledger {
    partitions: Mutex<BTreeMap<String, Handed>>,
    panics: AtomicU64,
}

/// What one partition handed over.
#[derive(Debug, Clone, Default)]
pub struct Handed {
    /// The position after the last batch.
    pub to: Option<Position>,
    /// Payloads that were no junk.
    pub payloads: u64,
    /// Junk payloads.
    pub dead: u64,
    /// The payloads as JSON, where they are kept.
    pub bodies: Vec<Value>,
}

impl Ledger {
    /// A copy as of now.
    #[must_use]
    pub fn partitions(&self) -> BTreeMap<String, Handed> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often a worker was made to panic.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    fn take(&self, scope: &str, batch: &Batch, bodies: bool) {
        let mut partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        let handed = partitions.entry(scope.to_owned()).or_default();
        if batch.to.is_some() {
            handed.to.clone_from(&batch.to);
        }
        for payload in &batch.payloads {
            if payload.dead.is_some() {
                handed.dead += 1;
                continue;
            }
            handed.payloads += 1;
            if bodies && let Ok(body) = serde_json::from_slice(&payload.bytes) {
                handed.bodies.push(body);
            }
        }
    }
}

/// How a recording kind behaves.
#[derive(Debug, Clone)]
pub struct Behaviour {
    /// Where to record.
    pub ledger: Arc<Ledger>,
    /// Keeps the payloads themselves: for sources that cannot be asked again.
    pub bodies: bool,
    /// The chance of a panic at each pull.
    pub panic_chance: f64,
    /// True when nothing more is to be handed over.
    pub quiet: watch::Receiver<bool>,
}

/// A kind that records what another one hands over.
#[derive(Debug)]
pub struct Recording {
    inner: Arc<dyn Kind>,
    behaviour: Behaviour,
}

impl Recording {
    /// Around `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Kind>, behaviour: Behaviour) -> Self {
        Self { inner, behaviour }
    }
}

impl Kind for Recording {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn read(&self, adapter: &Reader<'_>) -> Option<Arc<dyn Mount>> {
        let inner = self.inner.read(adapter)?;
        Some(Arc::new(RecordingMount { inner, behaviour: self.behaviour.clone() }))
    }
}

#[derive(Debug)]
struct RecordingMount {
    inner: Arc<dyn Mount>,
    behaviour: Behaviour,
}

#[async_trait]
impl Mount for RecordingMount {
    fn replay(&self) -> Replay {
        self.inner.replay()
    }

    fn cadence(&self) -> Cadence {
        self.inner.cadence()
    }

    fn partitions(&self) -> Vec<Partition> {
        self.inner.partitions()
    }

    fn schema(&self) -> Option<SchemaRef> {
        self.inner.schema()
    }

    fn decoder(&self) -> Arc<dyn Decode> {
        self.inner.decoder()
    }

    async fn open(
        &self,
        partition: &Partition,
        position: Option<&Position>,
        env: Env,
    ) -> Result<Box<dyn Source>, SourceError> {
        let scope = env.scope.clone();
        let opened = self.behaviour.ledger.panics.load(Ordering::Relaxed);
        let rng = SmallRng::seed_from_u64(env.seed ^ opened);
        let inner = self.inner.open(partition, position, env).await?;
        Ok(Box::new(RecordingSource { inner, behaviour: self.behaviour.clone(), scope, rng }))
    }
}

struct RecordingSource {
    inner: Box<dyn Source>,
    behaviour: Behaviour,
    scope: String,
    rng: SmallRng,
}

impl fmt::Debug for RecordingSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordingSource").field("scope", &self.scope).finish_non_exhaustive()
    }
}

#[async_trait]
impl Source for RecordingSource {
    async fn next(&mut self, credits: &Credits) -> Result<Pull, SourceError> {
        if *self.behaviour.quiet.borrow() {
            // A continuous source waits where it has nothing to give; a polled one says so.
            if self.behaviour.bodies {
                return Ok(Pull::Idle);
            }
            return std::future::pending().await;
        }
        if self.behaviour.panic_chance > 0.0 && self.rng.random_bool(self.behaviour.panic_chance) {
            self.behaviour.ledger.panics.fetch_add(1, Ordering::Relaxed);
            panic!("the demo makes this worker panic now and then");
        }
        let pulled = self.inner.next(credits).await?;
        if let Pull::Batch(batch) = &pulled {
            self.behaviour.ledger.take(&self.scope, batch, self.behaviour.bodies);
        }
        Ok(pulled)
    }

    async fn acknowledge(&mut self, position: &Position) -> Result<(), SourceError> {
        self.inner.acknowledge(position).await
    }

    fn workload_failed(&mut self) -> Option<Batch> {
        let batch = self.inner.workload_failed()?;
        self.behaviour.ledger.take(&self.scope, &batch, self.behaviour.bodies);
        Some(batch)
    }
}
