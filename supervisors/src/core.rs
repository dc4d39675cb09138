//! The supervisor itself: one state machine, driven by messages, that never waits.
//!
//! Whatever takes time (start functions, children that stop, delays) happens in tasks or timers that report back, so a
//! supervisor answers at once in any state. `state` holds what it knows, `start` and `stop` bring one child up and down,
//! `fail` decides what follows a failure, `group` runs ordered restarts and the end, `manage` answers requests, `order`
//! gives children new places.

mod fail;
mod group;
mod manage;
mod order;
mod start;
mod state;
mod stop;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ractor::concurrency::JoinHandle;
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::actor::actor_trouble;
use crate::check::SpecError;
use crate::event::{Event, Observer};
use crate::handle::{SupervisorExit, SupervisorHandle, killed};
use crate::life::Seq;
use crate::message::{Exit, Msg, Origin, Trouble};
use crate::pacing::Pacer;
use crate::path::ChildPath;
use crate::policy::{Class, Failure, Intensity, RestartPolicy};
use crate::root::RootOptions;
use crate::spec::{AutoShutdown, ChildSpec, InitialFailure, OnLimit, Strategy, SupervisorSpec};
use crate::stopping::StopLog;
use crate::timers::{Due, Timers};
use crate::window::Window;
use crate::zombies::Zombies;

use group::{EVERYBODY, Ending, Plan};
use state::{Child, State};

/// What all supervisors of a tree share.
pub(crate) struct Tree {
    observer: Arc<dyn Observer>,
    random: Mutex<StdRng>,
    /// The point in time from which all its numbers count.
    pub(crate) epoch: Instant,
    pacer: Option<Pacer>,
    pub(crate) zombies: Zombies,
    pub(crate) stops: StopLog,
}

impl Tree {
    pub(crate) fn new(observer: Arc<dyn Observer>, options: RootOptions) -> Result<Arc<Self>, SpecError> {
        let epoch = Instant::now();
        Ok(Arc::new(Self {
            observer,
            random: Mutex::new(StdRng::seed_from_u64(options.seed)),
            epoch,
            pacer: options.pacing.map(|pacing| Pacer::new(pacing, epoch)).transpose()?,
            zombies: Zombies::default(),
            stops: StopLog::default(),
        }))
    }

    pub(crate) fn record(&self, event: Event) {
        self.stops.note(&event);
        self.observer.record(event);
    }

    /// Takes a restart's token and says how long it has to wait for it; nothing where restarts are not paced.
    fn pace(&self, now: Instant) -> Duration {
        self.pacer.as_ref().map_or(Duration::ZERO, |pacer| pacer.take(now))
    }

    pub(crate) fn next_incarnation(&self, path: &ChildPath) -> u64 {
        self.observer.next_incarnation(path)
    }

    pub(crate) fn incident(&self) -> Arc<str> {
        let number: u64 = self.random.lock().unwrap_or_else(PoisonError::into_inner).random();
        format!("{number:016x}").into()
    }

    fn fraction(&self) -> f64 {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).random()
    }
}

/// The flags of a [`SupervisorSpec`], without its children.
struct Flags {
    strategy: Strategy,
    intensity: Intensity,
    on_limit: OnLimit,
    auto_shutdown: AutoShutdown,
    policy: Arc<RestartPolicy>,
    dynamic: bool,
    max_children: Option<usize>,
    initial_failure: InitialFailure,
}

impl Flags {
    fn of(spec: SupervisorSpec) -> (Self, Vec<ChildSpec>) {
        let flags = Self {
            strategy: spec.strategy,
            intensity: spec.intensity,
            on_limit: spec.on_limit,
            auto_shutdown: spec.auto_shutdown,
            policy: Arc::new(spec.policy),
            dynamic: spec.dynamic,
            max_children: spec.max_children,
            initial_failure: spec.initial_failure,
        };
        (flags, spec.children)
    }
}

/// State of a supervisor's actor.
pub(crate) struct Supervisor {
    tree: Arc<Tree>,
    myself: SupervisorHandle,
    incarnation: u64,
    flags: Flags,
    /// By place in the start order.
    children: BTreeMap<Seq, Child>,
    ids: HashMap<Arc<str>, Seq>,
    /// Which child an actor is, and which of its lives.
    actors: HashMap<ActorId, (Seq, u64)>,
    /// Ends of actors that arrived before their start function's result; kept only while something is starting.
    early: HashMap<ActorId, Exit>,
    /// Lives whose child has got another place in the order, and which one.
    moved: HashMap<u64, Seq>,
    /// Abandoned lives that still run.
    zombies: HashMap<u64, Seq>,
    /// Children with something alive behind them.
    live: usize,
    /// Of them, those whose start function runs.
    starting: usize,
    window: Window,
    timers: Timers,
    plan: Option<Plan>,
    ending: Option<Ending>,
    /// Ends that are looked at once the first start is through.
    deferred: Vec<(Seq, u64, Exit)>,
    began: Option<oneshot::Sender<Result<(), Trouble>>>,
    began_at: Instant,
    /// The incident because of which this supervisor was restarted.
    inherited: Option<Origin>,
    next_seq: Seq,
    next_life: u64,
}

pub(crate) struct Arguments {
    tree: Arc<Tree>,
    myself: SupervisorHandle,
    incarnation: u64,
    spec: SupervisorSpec,
    began: oneshot::Sender<Result<(), Trouble>>,
    inherited: Option<Origin>,
}

/// Which life of which supervisor is to be spawned.
pub(crate) struct Place {
    pub(crate) path: ChildPath,
    pub(crate) incarnation: u64,
}

/// A supervisor that was spawned and is about to start its children.
pub(crate) struct Spawned {
    pub(crate) handle: SupervisorHandle,
    /// Tells how the first start went.
    pub(crate) began: oneshot::Receiver<Result<(), Trouble>>,
    pub(crate) actor: JoinHandle<()>,
}

/// Spawns a supervisor's actor, linked to its parent's if it has one.
pub(crate) async fn spawn(
    tree: Arc<Tree>,
    place: Place,
    spec: SupervisorSpec,
    parent: Option<ActorCell>,
    inherited: Option<Origin>,
) -> Result<Spawned, Failure> {
    spec.check()?;
    let handle = SupervisorHandle::new(place.path);
    let (began, outcome) = oneshot::channel();
    let incarnation = place.incarnation;
    let arguments = Box::new(Arguments { tree, myself: handle.clone(), incarnation, spec, began, inherited });
    let spawned = match parent {
        Some(parent) => SupervisorActor::spawn_linked(None, SupervisorActor, arguments, parent).await,
        None => SupervisorActor::spawn(None, SupervisorActor, arguments).await,
    };
    let (_, actor) = spawned.map_err(|error| Failure::new(Class::Bug, "not_spawned", error.to_string()))?;
    handle.cast(Msg::Begin);
    Ok(Spawned { handle, began: outcome, actor })
}

struct SupervisorActor;

impl Actor for SupervisorActor {
    type Msg = Msg;
    type State = Supervisor;
    type Arguments = Box<Arguments>;

    async fn pre_start(
        &self,
        myself: ActorRef<Msg>,
        arguments: Box<Arguments>,
    ) -> Result<Supervisor, ActorProcessingErr> {
        arguments.myself.set_actor(myself);
        Ok(Supervisor::new(*arguments))
    }

    async fn handle(&self, _: ActorRef<Msg>, message: Msg, state: &mut Supervisor) -> Result<(), ActorProcessingErr> {
        state.handle(message);
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Msg>,
        event: SupervisionEvent,
        state: &mut Supervisor,
    ) -> Result<(), ActorProcessingErr> {
        let (actor, exit) = match event {
            SupervisionEvent::ActorTerminated(actor, _, reason) => (actor, actor_exit(reason)),
            SupervisionEvent::ActorFailed(actor, error) => (actor, Exit::trouble(actor_trouble(error))),
            _ => return Ok(()),
        };
        state.actor_ended(&actor, exit);
        Ok(())
    }
}

/// OTP's classification: normal and shutdown are clean, anything else is not. Ractor reports a kill as a termination.
fn actor_exit(reason: Option<String>) -> Exit {
    match reason.as_deref() {
        None | Some("normal" | "shutdown" | "Drained") => Exit::Clean,
        Some(reason) if reason.starts_with("shutdown:") => Exit::Clean,
        Some("killed") => Exit::failed(killed()),
        Some(other) => Exit::failed(Failure::new(Class::Transient, "stopped", format!("stopped itself: {other}"))),
    }
}

impl Exit {
    fn failed(failure: Failure) -> Self {
        Self::trouble(failure.into())
    }

    fn trouble(trouble: Trouble) -> Self {
        Self::Failed(Box::new(trouble))
    }
}

impl Supervisor {
    fn new(arguments: Arguments) -> Self {
        let Arguments { tree, myself, incarnation, spec, began, inherited } = arguments;
        let (flags, children) = Flags::of(spec);
        let mut new = Self {
            tree,
            myself,
            incarnation,
            flags,
            children: BTreeMap::new(),
            ids: HashMap::new(),
            actors: HashMap::new(),
            early: HashMap::new(),
            moved: HashMap::new(),
            zombies: HashMap::new(),
            live: 0,
            starting: 0,
            window: Window::default(),
            timers: Timers::default(),
            plan: None,
            ending: None,
            deferred: Vec::new(),
            began: Some(began),
            began_at: Instant::now(),
            inherited,
            next_seq: EVERYBODY + 1,
            next_life: 0,
        };
        for child in children {
            new.insert(child);
        }
        new
    }

    fn handle(&mut self, message: Msg) {
        if self.myself.exit().is_some() {
            return;
        }
        match message {
            Msg::Begin => self.plan = Some(Plan::initial(self.children.keys().copied())),
            Msg::Ended { seq, life, exit } => self.ended(self.now_at(seq, life), life, exit),
            Msg::StartDone { seq, life, result } => self.start_done(self.now_at(seq, life), life, *result),
            Msg::Nested { seq, life, handle } => self.nested(self.now_at(seq, life), life, handle),
            Msg::Watch { seq, life } => self.watch(self.now_at(seq, life), life),
            Msg::Tick => self.tick(),
            Msg::Manage(manage) => self.manage(*manage),
            Msg::Shutdown => self.end(SupervisorExit::Clean, None),
            Msg::Hurry => self.hurry(),
        }
        self.settle();
    }

    /// Does everything that can be done now, then sees to the next alarm.
    fn settle(&mut self) {
        self.drive();
        if self.starting == 0 {
            self.early.clear();
        }
        self.timers.arm(&self.myself);
    }

    fn tick(&mut self) {
        self.timers.rang();
        let now = Instant::now();
        self.end_clock(now);
        while let Some(due) = self.timers.pop(now) {
            match due {
                Due::Restart(seq) => self.restart_paced(seq),
                Due::Probe(seq) => self.probe_paced(seq),
                Due::PacedProbe(seq) => self.probe(seq),
                Due::StopStage(seq) => self.next_stage(seq),
                Due::EndStage(at) => self.next_stage_together(at),
                Due::StartTimeout(seq) => self.start_timed_out(seq),
                Due::Progress(seq, life) => self.check_progress(seq, life),
            }
        }
    }

    fn actor_ended(&mut self, actor: &ActorCell, exit: Exit) {
        if self.myself.exit().is_some() {
            return;
        }
        let id = actor.get_id();
        match self.actors.get(&id).copied() {
            Some((seq, life)) if !self.start_pending(seq, life) => {
                let exit = self.nested_exit(seq).unwrap_or(exit);
                self.ended(seq, life, exit);
            }
            _ if self.starting > 0 => {
                self.early.insert(id, exit);
            }
            _ => {}
        }
        self.settle();
    }

    /// What a nested supervisor itself says of its end, if the child is one and had the time to say it.
    fn nested_exit(&self, seq: Seq) -> Option<Exit> {
        let supervisor = self.children.get(&seq)?.process.supervisor()?;
        Some(match supervisor.exit()? {
            SupervisorExit::Clean => Exit::Clean,
            SupervisorExit::GaveUp { failure, origin } => {
                Exit::trouble(Trouble::new(failure.clone(), Some(origin.clone())))
            }
        })
    }

    fn insert(&mut self, spec: ChildSpec) -> Seq {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.ids.insert(Arc::clone(&spec.id), seq);
        self.children.insert(seq, Child::new(self.myself.path().join(&spec.id), spec));
        seq
    }

    /// Forgets a child that does not run.
    fn remove(&mut self, seq: Seq) {
        self.set_state(seq, State::Down);
        if let Some(child) = self.children.remove(&seq) {
            self.ids.remove(&child.spec.id);
        }
    }

    /// The only place where a child's state changes: keeps the counters right and the old state's timer from ringing.
    fn set_state(&mut self, seq: Seq, state: State) {
        let Some(child) = self.children.get_mut(&seq) else { return };
        let (live, starting) = (state.is_live(), state.is_starting());
        let old = std::mem::replace(&mut child.state, state);
        if let Some(timer) = old.timer() {
            self.timers.cancel(timer);
        }
        self.live = self.live + usize::from(live) - usize::from(old.is_live());
        self.starting = self.starting + usize::from(starting) - usize::from(old.is_starting());
    }
}
