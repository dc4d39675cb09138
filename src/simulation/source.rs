//! The synthetic kind with troubles: records that cannot be decoded, errors, panics, hangs.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adapters::contract::config::Reader;
use adapters::contract::{
    Batch, Cadence, Credits, Decode, Env, ErrorClass, Kind, Mount, Partition, Payload, Position, Pull, Replay, Source,
    SourceError,
};
use adapters::synthetic::{Synthetic, check};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use tokio::time::sleep;

use super::draw::Draw;
use super::store::Gate;
use super::truth::Truth;

/// How the sources are for a while: of 1000 pulls so many meet each.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mood {
    pub(crate) error: u64,
    pub(crate) limited: u64,
    pub(crate) panic: u64,
    pub(crate) hang: u64,
    /// The source cannot be told what is committed.
    pub(crate) deaf: u64,
}

/// The troubles of all sources.
#[derive(Debug)]
pub(crate) struct Troubles {
    state: Mutex<(Draw, Mood)>,
    panics: AtomicU32,
}

enum Trouble {
    None,
    Error(SourceError),
    Panic,
    Hang(Duration),
}

impl Troubles {
    pub(crate) fn new(draw: Draw) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new((draw, Mood::default())), panics: AtomicU32::new(0) })
    }

    pub(crate) fn set(&self, mood: Mood) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1 = mood;
    }

    /// How often a source has panicked.
    pub(crate) fn panics(&self) -> u32 {
        self.panics.load(Ordering::SeqCst)
    }

    fn next(&self) -> Trouble {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (draw, mood) = &mut *state;
        let drawn = draw.below(1000);
        let error = |class, code| Trouble::Error(SourceError::new(class, code, "the source is in a mood"));
        if drawn < mood.error {
            let class = *draw.pick(&[ErrorClass::Transient, ErrorClass::Data, ErrorClass::Resource]);
            return error(class, "source_error");
        }
        if drawn < mood.error + mood.limited {
            let wait = Duration::from_millis(draw.below(2000));
            let error = SourceError::new(ErrorClass::RateLimited, "source_limited", "the source asks for patience");
            return Trouble::Error(error.after(wait));
        }
        if drawn < mood.error + mood.limited + mood.panic {
            self.panics.fetch_add(1, Ordering::SeqCst);
            return Trouble::Panic;
        }
        if drawn < mood.error + mood.limited + mood.panic + mood.hang {
            return Trouble::Hang(Duration::from_millis(draw.below(3000)));
        }
        Trouble::None
    }

    fn is_deaf(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (draw, mood) = &mut *state;
        mood.deaf > 0 && draw.below(1000) < mood.deaf
    }
}

/// What a simulated kind needs.
#[derive(Debug, Clone)]
pub(crate) struct Simulated {
    pub(crate) truth: Arc<Truth>,
    pub(crate) troubles: Arc<Troubles>,
    pub(crate) gate: Gate,
    /// The seed of all adapters.
    pub(crate) seed: u64,
    /// One record of so many cannot be decoded; 0: none.
    pub(crate) junk_every: u64,
    /// Polled rather than continuous.
    pub(crate) polled: bool,
}

impl Kind for Simulated {
    fn name(&self) -> &'static str {
        "synthetic"
    }

    fn read(&self, adapter: &Reader<'_>) -> Option<Arc<dyn Mount>> {
        let inner = Synthetic::default().read(adapter)?;
        Some(Arc::new(SimulatedMount { inner, simulated: self.clone() }))
    }
}

#[derive(Debug)]
struct SimulatedMount {
    inner: Arc<dyn Mount>,
    simulated: Simulated,
}

#[async_trait]
impl Mount for SimulatedMount {
    fn replay(&self) -> Replay {
        self.inner.replay()
    }

    fn cadence(&self) -> Cadence {
        match self.simulated.polled {
            true => Cadence::Polled {
                interval: Duration::from_millis(700),
                jitter: Duration::from_millis(100),
                timeout: Duration::from_secs(5),
            },
            false => Cadence::Continuous,
        }
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
        let id = env.scope.rsplit_once('/').map(|(id, _)| id.to_owned()).unwrap_or_default();
        let inner = self.inner.open(partition, position, env).await?;
        let simulated = self.simulated.clone();
        Ok(Box::new(SimulatedSource { inner, simulated, id, partition: partition.name.clone(), given: false }))
    }
}

struct SimulatedSource {
    inner: Box<dyn Source>,
    simulated: Simulated,
    id: String,
    partition: String,
    given: bool,
}

impl SimulatedSource {
    /// Spoils some of the records: their time is none, their identity stays.
    fn spoil(&self, batch: &mut Batch) {
        let Ok(partition) = self.partition.parse::<u64>() else { return };
        let every = self.simulated.junk_every;
        let seq = |payload: &Payload| payload.position.as_ref().and_then(|p| p.as_str().parse::<u64>().ok());
        for payload in &mut batch.payloads {
            let Some(seq) = seq(payload) else { continue };
            if every > 0 && (seq ^ partition).wrapping_mul(0x9e37_79b9).is_multiple_of(every) {
                let check = check(self.simulated.seed, partition, seq);
                let text = format!(r#"{{"partition":{partition},"seq":{seq},"ts":"never","check":"{check}"}}"#);
                payload.bytes = text.into();
            }
        }
    }
}

#[async_trait]
impl Source for SimulatedSource {
    async fn next(&mut self, credits: &Credits) -> Result<Pull, SourceError> {
        self.simulated.gate.pass().await;
        if self.simulated.polled && std::mem::take(&mut self.given) {
            return Ok(Pull::Idle);
        }
        match self.simulated.troubles.next() {
            Trouble::None => {}
            Trouble::Error(error) => return Err(error),
            Trouble::Panic => panic!("the source panics"),
            Trouble::Hang(time) => sleep(time).await,
        }
        let mut pull = self.inner.next(credits).await?;
        if self.simulated.gate.is_closed() {
            self.simulated.gate.pass().await;
        }
        if let Pull::Batch(batch) = &mut pull {
            self.spoil(batch);
            self.given = true;
            if let Some(seq) = batch.to.as_ref().and_then(|to| to.as_str().parse().ok()) {
                self.simulated.truth.handed(&self.id, &self.partition, seq);
            }
        }
        Ok(pull)
    }

    async fn acknowledge(&mut self, position: &Position) -> Result<(), SourceError> {
        self.simulated.gate.pass().await;
        if self.simulated.troubles.is_deaf() {
            return Err(SourceError::new(ErrorClass::Transient, "source_deaf", "the source does not listen"));
        }
        if let Ok(seq) = position.as_str().parse() {
            self.simulated.truth.acknowledged(&self.id, &self.partition, seq);
        }
        Ok(())
    }
}
