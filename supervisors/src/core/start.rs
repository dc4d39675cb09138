//! Bringing one child up.

use std::sync::Arc;
use std::time::Duration;

use ractor::ActorCell;
use serde_json::Value;
use tokio::time::Instant;

use super::state::{Process, Stage, State, Task, Via, Why};
use super::{Place, Supervisor, Tree, spawn};
use crate::event::EventKind;
use crate::handle::{ManageError, SupervisorHandle, killed};
use crate::life::{ChildContext, Fence, Life, Progress, Seq, StopToken};
use crate::message::{Exit, Msg, Origin, Trouble};
use crate::panics::{Caught, caught};
use crate::policy::{Class, Failure};
use crate::spec::{Launched, Restart, StartHow, Started, SupervisorSpec};
use crate::timers::{Due, later};

/// Reports the end of a task or thread, however it comes about.
struct EndGuard {
    life: Arc<Life>,
    exit: Option<Exit>,
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        let exit = self.exit.take().unwrap_or(Exit::Cancelled);
        self.life.let_go();
        self.life.tell(Msg::Ended { seq: self.life.seq, life: self.life.number, exit });
    }
}

/// Reports the outcome of a start function, however it comes about.
struct StartGuard {
    life: Arc<Life>,
    result: Option<Result<Started, Trouble>>,
}

impl Drop for StartGuard {
    fn drop(&mut self) {
        let result = self.result.take().unwrap_or_else(|| Err(killed().into()));
        let (seq, life) = (self.life.seq, self.life.number);
        self.life.let_go();
        self.life.tell(Msg::StartDone { seq, life, result: Box::new(result) });
    }
}

fn exit_of(result: Result<(), Trouble>) -> Exit {
    result.map_or_else(Exit::trouble, |()| Exit::Clean)
}

/// Runs a child's future; its end is told after the future is dropped, so that what it held is free by then.
fn run_task(life: Arc<Life>, future: futures::future::BoxFuture<'static, Result<(), Failure>>) -> Process {
    life.hold();
    let guard = EndGuard { life, exit: None };
    let task = tokio::spawn(async move {
        let mut guard = guard;
        guard.exit = Some(exit_of(Caught(future).await));
    });
    Process::Task(Task(task.abort_handle()))
}

fn run_thread(life: Arc<Life>, function: Box<dyn FnOnce() -> Result<(), Failure> + Send>) -> Process {
    life.hold();
    let guard = EndGuard { life, exit: None };
    tokio::task::spawn_blocking(move || {
        let mut guard = guard;
        guard.exit = Some(exit_of(caught(function).and_then(|result| result.map_err(Trouble::from))));
    });
    Process::Thread
}

/// What a nested supervisor's start needs besides its context.
struct Nesting {
    tree: Arc<Tree>,
    parent: Result<ActorCell, Failure>,
    origin: Option<Origin>,
}

async fn start_nested(
    life: Arc<Life>,
    spec: futures::future::BoxFuture<'static, Result<SupervisorSpec, Failure>>,
    place: Place,
    nesting: Nesting,
) -> Result<Started, Trouble> {
    let spec = Caught(spec).await?;
    if spec.ignore {
        return Ok(Started::ignore());
    }
    let spawned = spawn(nesting.tree, place, spec, Some(nesting.parent?), nesting.origin).await?;
    life.tell(Msg::Nested { seq: life.seq, life: life.number, handle: spawned.handle.clone() });
    match spawned.began.await {
        Ok(Ok(())) => Ok(Started { what: Launched::Supervisor(spawned.handle), info: Value::Null }),
        Ok(Err(trouble)) => Err(trouble),
        Err(_) => Err(killed().into()),
    }
}

impl Supervisor {
    /// Begins a start. Tasks run when this returns; everything else reports back.
    pub(super) fn begin_start(&mut self, seq: Seq, via: Via) {
        let Some(child) = self.children.get_mut(&seq) else { return };
        self.next_life += 1;
        let life = Life::new(seq, self.next_life, self.myself.clone(), Arc::clone(&self.tree));
        child.incarnation = self.tree.next_incarnation(&child.path);
        child.life = Some(Arc::clone(&life));
        let context = ChildContext {
            path: child.path.clone(),
            incarnation: child.incarnation,
            attempt: child.attempt(),
            supervisor: self.myself.clone(),
            stop: StopToken(Arc::clone(&life)),
            progress: Progress(Arc::clone(&life)),
            fence: Fence(Arc::clone(&life)),
        };
        let timeout = child.spec.start_timeout;
        let how = child.spec.how.clone();
        let timer = timeout.map(|limit| self.timers.add(later(Instant::now(), limit), Due::StartTimeout(seq)));
        self.set_state(seq, State::Starting { via, timer });
        match how {
            StartHow::Task(make) => match caught(|| make(context)) {
                Ok(future) => self.launched(seq, Started { what: Launched::Task(future), info: Value::Null }),
                // By message, so that a function that always panics cannot recurse here.
                Err(trouble) => drop(StartGuard { life, result: Some(Err(trouble)) }),
            },
            StartHow::Function(start) => self.spawn_start(life, async move {
                let start = caught(|| start(context))?;
                Caught(start).await
            }),
            StartHow::Supervisor(spec) => {
                let (tree, parent) = (Arc::clone(&self.tree), self.myself.cell());
                let nesting = Nesting { tree, parent, origin: self.origin_for(seq) };
                let inner = Arc::clone(&life);
                self.spawn_start(life, async move {
                    let place = Place { path: context.path.clone(), incarnation: context.incarnation };
                    let spec = caught(|| spec(context))?;
                    start_nested(inner, spec, place, nesting).await
                });
            }
            StartHow::Forgotten => {
                let failure = Failure::new(Class::Bug, "forgotten", "a temporary child cannot be started again");
                drop(StartGuard { life, result: Some(Err(failure.into())) });
            }
        }
    }

    fn spawn_start(&mut self, life: Arc<Life>, start: impl Future<Output = Result<Started, Trouble>> + Send + 'static) {
        let seq = life.seq;
        life.hold();
        let guard = StartGuard { life, result: None };
        let start: futures::future::BoxFuture<'static, _> = Box::pin(start);
        let task = tokio::spawn(async move {
            let mut guard = guard;
            guard.result = Some(start.await);
        });
        if let Some(child) = self.children.get_mut(&seq) {
            child.process = Process::Start(Task(task.abort_handle()), None);
        }
    }

    /// The incident that a nested supervisor is restarted because of.
    fn origin_for(&self, seq: Seq) -> Option<Origin> {
        let child = self.children.get(&seq)?;
        let record = child.record()?;
        let because_of = record.because_of.clone().unwrap_or_else(|| child.path.clone());
        Some(Origin { incident: record.incident.clone()?, because_of })
    }

    pub(super) fn nested(&mut self, seq: Seq, life: u64, handle: SupervisorHandle) {
        let wanted = self.start_pending(seq, life);
        let Some(child) = self.children.get_mut(&seq).filter(|_| wanted) else {
            handle.cast(Msg::Shutdown);
            return;
        };
        if let (Process::Start(_, slot), Ok(cell)) = (&mut child.process, handle.cell()) {
            self.actors.insert(cell.get_id(), (seq, life));
            *slot = Some(handle.clone());
        }
        if let State::Stopping { stage, .. } = child.state {
            handle.cast(Msg::Shutdown);
            if stage == Stage::Kill
                && let Ok(cell) = handle.cell()
            {
                cell.kill();
            }
        }
    }

    /// A start function's result. If the child is being stopped meanwhile, what was started is stopped too.
    pub(super) fn start_done(&mut self, seq: Seq, life: u64, result: Result<Started, Trouble>) {
        if !self.start_pending(seq, life) {
            self.zombie_gone(life);
            if let Ok(started) = result {
                put_down(started);
            }
            return;
        }
        let Some(child) = self.children.get_mut(&seq) else { return };
        match (&child.state, result) {
            (State::Stopping { .. }, Ok(started)) => self.launched_too_late(seq, life, started),
            (State::Stopping { .. }, Err(_)) => self.ended(seq, life, Exit::Clean),
            (_, Ok(started)) => self.launched(seq, started),
            (_, Err(trouble)) => self.start_failed(seq, trouble),
        }
    }

    fn launched_too_late(&mut self, seq: Seq, life: u64, started: Started) {
        let cell = match &started.what {
            Launched::Actor(cell) => Some(cell.clone()),
            Launched::Supervisor(handle) => handle.cell().ok(),
            _ => None,
        };
        let gone = cell.as_ref().is_none_or(|cell| self.adopt(seq, life, cell).is_some());
        let Some(child) = self.children.get_mut(&seq) else { return };
        if let State::Stopping { starting, stage, .. } = &mut child.state {
            *starting = false;
            self.starting -= 1;
            if let (Stage::Kill, Some(cell)) = (*stage, &cell) {
                cell.kill();
            }
        }
        match started.what {
            Launched::Actor(cell) => child.process = Process::Actor(cell),
            Launched::Supervisor(handle) => child.process = Process::Supervisor(handle),
            _ => child.process = Process::None,
        }
        if let Some(cell) = child.process.actor().filter(|_| !gone) {
            match child.process.supervisor() {
                Some(handle) => handle.cast(Msg::Shutdown),
                None => cell.stop(None),
            }
        }
        if gone {
            self.ended(seq, life, Exit::Clean);
        }
    }

    /// Takes charge of an actor; gives its exit if it has ended already.
    fn adopt(&mut self, seq: Seq, life: u64, cell: &ActorCell) -> Option<Exit> {
        let id = cell.get_id();
        self.actors.insert(id, (seq, life));
        if let Some(exit) = self.early.remove(&id) {
            return Some(exit);
        }
        let me = self.myself.cell().ok()?;
        cell.link(me.clone());
        let linked = cell.try_get_supervisor().is_some_and(|supervisor| supervisor.get_id() == me.get_id());
        if linked {
            return None;
        }
        Some(Exit::failed(Failure::new(Class::Transient, "ended_early", "ended before its supervisor could watch it")))
    }

    /// The child runs (or has nothing to run).
    fn launched(&mut self, seq: Seq, started: Started) {
        let Some(child) = self.children.get_mut(&seq) else { return };
        let Some(life) = child.life.clone() else { return };
        let Started { what, info } = started;
        let mut exit = None;
        let process = match what {
            Launched::Task(future) => run_task(Arc::clone(&life), future),
            Launched::Thread(function) => run_thread(Arc::clone(&life), function),
            Launched::Actor(cell) => {
                exit = self.adopt(seq, life.number, &cell);
                Process::Actor(cell)
            }
            Launched::Supervisor(handle) => {
                exit = handle.cell().ok().and_then(|cell| self.adopt(seq, life.number, &cell));
                Process::Supervisor(handle)
            }
            Launched::Ignore => return self.ignored(seq, &info),
        };
        if let Some(child) = self.children.get_mut(&seq) {
            child.process = process;
        }
        self.up(seq, info);
        if let Some(exit) = exit {
            let exit = self.nested_exit(seq).unwrap_or(exit);
            self.ended(seq, life.number, exit);
        }
    }

    fn up(&mut self, seq: Seq, info: Value) {
        let now = Instant::now();
        let first = self.children.get(&seq).is_some_and(|child| child.state.is_first_start());
        self.set_state(seq, State::Running { since: now });
        let strategy = self.flags.strategy;
        let Some(child) = self.children.get_mut(&seq) else { return };
        let again = child.record().is_some_and(|record| record.down_since.is_some() || record.incident.is_some());
        let mut event = child.event(if again { EventKind::Restarted } else { EventKind::Started });
        if again {
            let paced = std::mem::take(&mut child.record_mut().paced);
            event.paced = (paced > Duration::ZERO).then_some(paced);
            event.strategy = Some(strategy);
            event.recovered_in = child.record_mut().down_since.take().map(|down| now.duration_since(down));
        } else if let Some(origin) = self.inherited.as_ref().filter(|_| first) {
            event.kind = EventKind::Restarted;
            event.incident = Some(Arc::clone(&origin.incident));
            event.because_of = Some(origin.because_of.clone());
        }
        event.info = (!info.is_null()).then(|| info.clone());
        child.reply_started(&Ok(info));
        if child.spec.restart == Restart::Temporary {
            child.spec.how = StartHow::Forgotten;
        }
        self.tree.record(event);
    }

    /// Nothing needed to run.
    fn ignored(&mut self, seq: Seq, info: &Value) {
        self.set_state(seq, State::Down);
        let Some(child) = self.children.get_mut(&seq) else { return };
        child.process = Process::None;
        child.life = None;
        child.forgive();
        child.reply_started(&Ok(info.clone()));
        if child.spec.restart == Restart::Temporary || self.flags.dynamic {
            self.remove(seq);
        }
    }

    /// A start came to nothing. What follows depends on who wanted it.
    pub(super) fn start_failed(&mut self, seq: Seq, trouble: Trouble) {
        let Some(child) = self.children.get_mut(&seq) else { return };
        let via = match &child.state {
            State::Starting { via, .. } => *via,
            State::Stopping { why: Why::StartTimeout(via, _), .. } => *via,
            _ => Via::Restart,
        };
        if let Some(actor) = child.process.actor() {
            self.actors.remove(&actor.get_id());
            self.early.remove(&actor.get_id());
        }
        self.clear_life(seq);
        self.set_state(seq, State::Down);
        let failure = trouble.failure.clone();
        self.note_failure(seq, trouble, None);
        match via {
            Via::Initial if self.flags.initial_failure == crate::spec::InitialFailure::Fail => {
                self.initial_failed(seq, failure);
            }
            Via::New => self.remove(seq),
            Via::Request => {}
            Via::Initial | Via::Restart if self.is_temporary(seq) && self.ending.is_none() => self.gone_for_good(seq),
            Via::Initial | Via::Restart => self.decide(seq, failure),
        }
    }

    /// Ends what belongs to a life that is over.
    pub(super) fn clear_life(&mut self, seq: Seq) {
        let Some(child) = self.children.get_mut(&seq) else { return };
        child.process = Process::None;
        if let Some(timer) = child.watch.take() {
            self.timers.cancel(timer);
        }
        if let Some(life) = child.life.take() {
            life.revoke();
            if !self.moved.is_empty() {
                self.moved.remove(&life.number);
            }
        }
    }

    pub(super) fn start_timed_out(&mut self, seq: Seq) {
        let Some(child) = self.children.get_mut(&seq) else { return };
        let limit = child.spec.start_timeout.unwrap_or_default();
        if let State::Starting { via, timer } = &mut child.state {
            *timer = None;
            let via = *via;
            let failure = Failure::new(Class::Hung, "start_timeout", format!("did not start within {limit:?}"));
            self.begin_stop(seq, Why::StartTimeout(via, Box::new(failure)));
        }
    }
}

/// Stops what was started for nobody.
fn put_down(started: Started) {
    match started.what {
        Launched::Actor(cell) => cell.stop(None),
        Launched::Supervisor(handle) => handle.cast(Msg::Shutdown),
        Launched::Task(_) | Launched::Thread(_) | Launched::Ignore => {}
    }
}

/// The answer to whoever waited for a start that failed.
pub(super) fn not_started(failure: &Failure) -> Result<Value, ManageError> {
    Err(ManageError::StartFailed(failure.clone()))
}
