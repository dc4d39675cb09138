//! What a supervisor knows of one child.

use std::sync::Arc;
use std::time::Duration;

use ractor::ActorCell;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::Supervisor;
use crate::event::{Event, EventKind, WaitReason};
use crate::flap::FlapScore;
use crate::handle::{ManageError, SupervisorHandle};
use crate::life::{Life, Seq};
use crate::path::ChildPath;
use crate::policy::{Failure, Reason, RestartPolicy};
use crate::spec::{ChildSpec, Restart};
use crate::timers::TimerKey;
use crate::window::Window;

/// On whose behalf a start happens, which decides what its failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    /// The supervisor's own first start.
    Initial,
    /// `start_child`: on failure the child is forgotten.
    New,
    /// `restart_child`: on failure it stays down.
    Request,
    /// A restart: a failure counts as another one.
    Restart,
}

/// Why a child is being stopped, which decides what follows.
#[derive(Clone, Debug)]
pub(super) enum Why {
    /// Somebody asked.
    Terminate,
    /// Somebody asked for a restart.
    Bounce,
    /// A sibling's restart includes it.
    Group,
    /// The supervisor ends.
    Shutdown,
    /// It made no progress; already reported as failed.
    Hung(Box<Failure>),
    /// Its start function took too long.
    StartTimeout(Via, Box<Failure>),
}

/// How far a stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Asked to finish what it has.
    Drain,
    /// Asked to stop.
    Ask,
    /// Ended by force; from here on it is fenced.
    Kill,
}

#[derive(Debug)]
pub(super) enum State {
    Down,
    Starting { via: Via, timer: Option<TimerKey> },
    Running { since: Instant },
    Waiting { until: Instant, timer: TimerKey, why: WaitReason },
    Parked { timer: Option<TimerKey> },
    Stopping { why: Why, timer: Option<TimerKey>, stage: Stage, starting: bool, since: Instant },
}

impl State {
    /// Whether something runs, or may run, behind it.
    pub(super) fn is_live(&self) -> bool {
        matches!(self, Self::Starting { .. } | Self::Running { .. } | Self::Stopping { .. })
    }

    /// Whether a start function's result is still to come.
    pub(super) fn is_starting(&self) -> bool {
        matches!(self, Self::Starting { .. } | Self::Stopping { starting: true, .. })
    }

    /// Whether it is being started with its supervisor.
    pub(super) fn is_first_start(&self) -> bool {
        matches!(self, Self::Starting { via: Via::Initial, .. })
    }

    pub(super) fn timer(&self) -> Option<TimerKey> {
        match self {
            Self::Down | Self::Running { .. } => None,
            Self::Waiting { timer, .. } => Some(*timer),
            Self::Starting { timer, .. } | Self::Parked { timer } | Self::Stopping { timer, .. } => *timer,
        }
    }
}

/// What runs behind a child. Dropping it ends tasks, so that a supervisor that is killed leaves none behind.
#[derive(Debug, Default)]
pub(super) enum Process {
    #[default]
    None,
    /// A start function, and the nested supervisor that it is waiting for.
    Start(Task, Option<SupervisorHandle>),
    Task(Task),
    Thread,
    Actor(ActorCell),
    Supervisor(SupervisorHandle),
}

#[derive(Debug)]
pub(super) struct Task(pub(super) AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Process {
    pub(super) fn supervisor(&self) -> Option<&SupervisorHandle> {
        match self {
            Self::Supervisor(handle) | Self::Start(_, Some(handle)) => Some(handle),
            _ => None,
        }
    }

    pub(super) fn actor(&self) -> Option<ActorCell> {
        match self {
            Self::Actor(cell) => Some(cell.clone()),
            other => other.supervisor().and_then(|handle| handle.cell().ok()),
        }
    }
}

/// What is remembered of a child's failures. Most children have none, so it is kept apart.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) incident: Option<Arc<str>>,
    pub(super) because_of: Option<ChildPath>,
    /// Failures in a row.
    pub(super) consecutive: u32,
    pub(super) last_failure: Option<Instant>,
    pub(super) down_since: Option<Instant>,
    pub(super) last_error: Option<Reason>,
    /// It was parked and is being tried: the next failure parks it again at once.
    pub(super) half_open: bool,
    /// Its own restarts, where they are counted child by child.
    pub(super) window: Window,
    pub(super) restarts: u64,
    /// Its lives that were abandoned and still run.
    pub(super) abandoned: u32,
    pub(super) flap: FlapScore,
    /// How long the storm limiter puts off the restart in progress.
    pub(super) paced: Duration,
}

pub(super) enum Waiter {
    Stopped(oneshot::Sender<Result<(), ManageError>>),
    Started(oneshot::Sender<Result<Value, ManageError>>),
}

pub(super) struct Child {
    pub(super) spec: ChildSpec,
    pub(super) path: ChildPath,
    pub(super) state: State,
    pub(super) process: Process,
    pub(super) life: Option<Arc<Life>>,
    pub(super) incarnation: u64,
    /// The timer of its promised sign of life.
    pub(super) watch: Option<TimerKey>,
    record: Option<Box<Record>>,
    pub(super) waiters: Vec<Waiter>,
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(life) = &self.life {
            life.ask_to_stop();
            life.revoke();
        }
    }
}

impl Child {
    pub(super) fn new(path: ChildPath, spec: ChildSpec) -> Self {
        let (state, process) = (State::Down, Process::None);
        Self { spec, path, state, process, life: None, incarnation: 0, watch: None, record: None, waiters: Vec::new() }
    }

    pub(super) fn record(&self) -> Option<&Record> {
        self.record.as_deref()
    }

    pub(super) fn record_mut(&mut self) -> &mut Record {
        self.record.get_or_insert_default()
    }

    pub(super) fn attempt(&self) -> u32 {
        self.record().map_or(0, |record| record.consecutive)
    }

    /// Forgets its troubles, except what is counted over its whole time.
    pub(super) fn forgive(&mut self) {
        let Some(record) = &mut self.record else { return };
        let (restarts, abandoned, flap) = (record.restarts, record.abandoned, record.flap);
        let kept = Record { restarts, abandoned, flap, ..Record::default() };
        if kept.restarts == 0 && kept.abandoned == 0 {
            self.record = None;
        } else {
            **record = kept;
        }
    }

    pub(super) fn is_down(&self) -> bool {
        matches!(self.state, State::Down)
    }

    /// An event about this child with what its record knows filled in.
    pub(super) fn event(&self, kind: EventKind) -> Event {
        let mut event = Event::plain(self.path.clone(), self.incarnation, kind);
        if let Some(record) = self.record() {
            event.incident = record.incident.clone();
            event.attempt = record.consecutive;
            event.because_of = record.because_of.clone();
        }
        event
    }

    pub(super) fn uptime(&self, now: Instant) -> Duration {
        match self.state {
            State::Running { since } => now.duration_since(since),
            _ => Duration::ZERO,
        }
    }

    pub(super) fn reply_started(&mut self, result: &Result<Value, ManageError>) {
        for waiter in self.take_waiters(|waiter| matches!(waiter, Waiter::Started(_))) {
            if let Waiter::Started(reply) = waiter {
                let _ = reply.send(result.clone());
            }
        }
    }

    pub(super) fn reply_stopped(&mut self) {
        for waiter in self.take_waiters(|waiter| matches!(waiter, Waiter::Stopped(_))) {
            if let Waiter::Stopped(reply) = waiter {
                let _ = reply.send(Ok(()));
            }
        }
    }

    /// It stays down because somebody asked for it: nothing is held against it, and whoever waited is told.
    pub(super) fn rest(&mut self) {
        self.forgive();
        self.reply_started(&Err(ManageError::Stopped));
        self.reply_stopped();
    }

    fn take_waiters(&mut self, wanted: impl Fn(&Waiter) -> bool) -> Vec<Waiter> {
        let (taken, kept) = std::mem::take(&mut self.waiters).into_iter().partition(wanted);
        self.waiters = kept;
        taken
    }
}

impl Supervisor {
    pub(super) fn policy(&self, seq: Seq) -> Arc<RestartPolicy> {
        let own = self.children.get(&seq).and_then(|child| child.spec.policy.as_ref());
        Arc::clone(own.unwrap_or(&self.flags.policy))
    }

    /// Time without failure after which the ones before are forgotten.
    pub(super) fn reset_after(&self, policy: &RestartPolicy) -> Duration {
        policy.backoff.as_ref().map_or(self.flags.intensity.window, |backoff| backoff.reset_after)
    }

    /// Whether this life of the child still waits for its start function.
    pub(super) fn start_pending(&self, seq: Seq, life: u64) -> bool {
        let child = self.children.get(&seq);
        child.is_some_and(|child| {
            child.state.is_starting() && child.life.as_ref().is_some_and(|current| current.number == life)
        })
    }

    pub(super) fn is_temporary(&self, seq: Seq) -> bool {
        self.children.get(&seq).is_some_and(|child| child.spec.restart == Restart::Temporary)
    }

    pub(super) fn is_live(&self, seq: Seq) -> bool {
        self.children.get(&seq).is_some_and(|child| child.state.is_live())
    }
}
