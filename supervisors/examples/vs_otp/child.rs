//! The children of the comparison, and how they tell the driver what they do.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use supervisors::{ChildContext, ChildSpec, Class, Failure};
use tokio::sync::{Notify, watch};

/// What a child is made of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A future: this crate's normal worker, against a process without a behaviour.
    Task,
    /// A ractor actor, against a `gen_server`.
    Actor,
}

/// Between the driver and the children of one scenario.
pub(crate) struct Signals {
    /// Makes all tasks crash.
    all: watch::Sender<()>,
    /// Makes the first task crash.
    first: Notify,
    /// The newest life of every actor, by number.
    actors: Mutex<Vec<Option<ActorRef<Crash>>>>,
    crashed_at: Mutex<Option<Instant>>,
    /// From the first child's last crash to its successor's first step.
    gap: watch::Sender<Option<Duration>>,
    lives: AtomicUsize,
    wanted: usize,
    all_up: Notify,
}

/// Makes an actor crash.
pub(crate) struct Crash;

impl Signals {
    /// For `count` children; [`Signals::all_up`] waits for `wanted` starts.
    pub(crate) fn new(count: usize, wanted: usize) -> Arc<Self> {
        Arc::new(Self {
            all: watch::Sender::new(()),
            first: Notify::new(),
            actors: Mutex::new((0..count).map(|_| None).collect()),
            crashed_at: Mutex::new(None),
            gap: watch::Sender::new(None),
            lives: AtomicUsize::new(0),
            wanted,
            all_up: Notify::new(),
        })
    }

    pub(crate) fn crash_first(&self, kind: Kind) {
        match kind {
            Kind::Task => self.first.notify_one(),
            Kind::Actor => {
                let actors = self.actors.lock().unwrap_or_else(PoisonError::into_inner);
                let _ = actors.first().and_then(Option::as_ref).map(|actor| actor.cast(Crash));
            }
        }
    }

    pub(crate) fn crash_all(&self, kind: Kind) {
        match kind {
            Kind::Task => {
                self.all.send_replace(());
            }
            Kind::Actor => {
                let actors = self.actors.lock().unwrap_or_else(PoisonError::into_inner).clone();
                for actor in actors.iter().flatten() {
                    let _ = actor.cast(Crash);
                }
            }
        }
    }

    /// From the first child's next crash to its successor's first step.
    pub(crate) async fn crash_and_measure(&self, kind: Kind) -> Duration {
        let mut gap = self.gap.subscribe();
        gap.mark_unchanged();
        self.crash_first(kind);
        let _ = gap.changed().await;
        let gap = *gap.borrow();
        gap.unwrap_or_default()
    }

    pub(crate) async fn all_up(&self) {
        self.all_up.notified().await;
    }

    fn running(&self, number: usize) {
        if number == 0
            && let Some(at) = self.crashed_at.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            self.gap.send_replace(Some(at.elapsed()));
        }
        if self.lives.fetch_add(1, Ordering::Relaxed) + 1 == self.wanted {
            self.all_up.notify_one();
        }
    }

    fn crashing(&self, number: usize) -> Failure {
        if number == 0 {
            *self.crashed_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        Failure::new(Class::Transient, "crash", "as asked")
    }
}

/// A child that crashes when told to.
pub(crate) fn crashing(kind: Kind, number: usize, signals: &Arc<Signals>) -> ChildSpec {
    let signals = Arc::clone(signals);
    match kind {
        Kind::Task => ChildSpec::task(number.to_string(), move |ctx| {
            // Subscribed before it runs, so that it misses nothing.
            task(ctx, signals.all.subscribe(), number, Arc::clone(&signals))
        }),
        Kind::Actor => ChildSpec::actor(number.to_string(), move |ctx| (Worker, (ctx, number, Arc::clone(&signals)))),
    }
}

async fn task(
    ctx: ChildContext,
    mut all: watch::Receiver<()>,
    number: usize,
    signals: Arc<Signals>,
) -> Result<(), Failure> {
    if !ctx.fence.is_current() {
        return Ok(());
    }
    signals.running(number);
    tokio::select! {
        () = ctx.stop.stopped() => Ok(()),
        Ok(()) = all.changed() => Err(signals.crashing(number)),
        () = signals.first.notified(), if number == 0 => Err(signals.crashing(number)),
    }
}

/// A child that only waits for its end.
pub(crate) fn idle(kind: Kind, number: usize) -> ChildSpec {
    match kind {
        Kind::Task => ChildSpec::task(number.to_string(), |ctx| async move {
            ctx.stop.stopped().await;
            Ok(())
        }),
        Kind::Actor => ChildSpec::actor(number.to_string(), |ctx| (Idle, ctx)),
    }
}

struct Worker;

impl Actor for Worker {
    type Msg = Crash;
    type State = (ChildContext, usize, Arc<Signals>);
    type Arguments = Self::State;

    async fn pre_start(&self, myself: ActorRef<Crash>, state: Self::State) -> Result<Self::State, ActorProcessingErr> {
        let (_, number, signals) = &state;
        if let Some(place) = signals.actors.lock().unwrap_or_else(PoisonError::into_inner).get_mut(*number) {
            *place = Some(myself);
        }
        signals.running(*number);
        Ok(state)
    }

    async fn handle(&self, _: ActorRef<Crash>, _: Crash, state: &mut Self::State) -> Result<(), ActorProcessingErr> {
        let (_, number, signals) = state;
        Err(signals.crashing(*number).into())
    }
}

struct Idle;

impl Actor for Idle {
    type Msg = Crash;
    type State = ChildContext;
    type Arguments = ChildContext;

    async fn pre_start(&self, _: ActorRef<Crash>, context: ChildContext) -> Result<ChildContext, ActorProcessingErr> {
        Ok(context)
    }
}
