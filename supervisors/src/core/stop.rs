//! Bringing one child down, and noticing that it went down by itself.

use std::time::Duration;

use tokio::time::Instant;

use super::Supervisor;
use super::state::{Process, State, Why};
use crate::event::EventKind;
use crate::handle::{ManageError, killed};
use crate::life::Seq;
use crate::message::{Exit, Msg};
use crate::policy::{Class, Failure, Reason};
use crate::spec::{AutoShutdown, Restart, Shutdown};
use crate::timers::{Due, later};

/// Time between the kill of a child and its abandonment. A task that awaits is dropped within microseconds; one that
/// holds a thread for this long is not going to be dropped soon.
const KILL_GRACE: Duration = Duration::from_secs(1);

impl Supervisor {
    /// Asks a live child to stop, or kills it if its spec says so.
    pub(super) fn begin_stop(&mut self, seq: Seq, why: Why) {
        let Some(child) = self.children.get_mut(&seq) else { return };
        if let Some(life) = &child.life {
            life.ask_to_stop();
        }
        let starting = child.state.is_starting();
        match &child.process {
            Process::Actor(cell) => cell.stop(None),
            Process::Supervisor(handle) | Process::Start(_, Some(handle)) => handle.cast(Msg::Shutdown),
            Process::None | Process::Task(_) | Process::Thread | Process::Start(_, None) => {}
        }
        let shutdown = child.spec.shutdown;
        let timer = match shutdown {
            Shutdown::Timeout(limit) => Some(self.timers.add(later(Instant::now(), limit), Due::StopTimeout(seq))),
            Shutdown::Brutal | Shutdown::Infinity => None,
        };
        self.set_state(seq, State::Stopping { why, timer, killed: false, starting });
        // It may have ended before, and the news be put off: then there is nothing to wait for.
        if let Some(at) = self.deferred.iter().position(|(ended, ..)| *ended == seq) {
            let (seq, life, exit) = self.deferred.swap_remove(at);
            self.ended(seq, life, exit);
        } else if shutdown == Shutdown::Brutal {
            self.kill(seq);
        }
    }

    /// Ends a child that is being stopped by force. From here on it is fenced.
    pub(super) fn kill(&mut self, seq: Seq) {
        let Some(child) = self.children.get_mut(&seq) else { return };
        let State::Stopping { why, starting, .. } = &child.state else { return };
        let (why, starting) = (why.clone(), *starting);
        if let Some(life) = &child.life {
            life.ask_to_stop();
            life.revoke();
        }
        match &child.process {
            Process::Start(task, nested) => {
                if let Some(cell) = nested.as_ref().and_then(|handle| handle.cell().ok()) {
                    cell.kill();
                }
                task.0.abort();
            }
            Process::Task(task) => task.0.abort(),
            Process::Actor(cell) => cell.kill(),
            Process::Supervisor(handle) => {
                if let Ok(cell) = handle.cell() {
                    cell.kill();
                }
            }
            Process::None | Process::Thread => {}
        }
        let timer = Some(self.timers.add(later(Instant::now(), KILL_GRACE), Due::KillGrace(seq)));
        self.set_state(seq, State::Stopping { why, timer, killed: true, starting });
    }

    /// Gives up on a child that could not be killed: its life is fenced, and the supervisor goes on without it.
    pub(super) fn abandon(&mut self, seq: Seq) {
        let Some(child) = self.children.get_mut(&seq) else { return };
        let State::Stopping { .. } = &child.state else { return };
        let mut event = child.event(EventKind::Abandoned);
        event.reason = Some(Reason {
            class: Class::Hung,
            code: "not_killable".to_owned(),
            message: "could not be killed: it holds its thread without awaiting".to_owned(),
        });
        child.record_mut().abandoned += 1;
        let actor = child.process.actor();
        if let Some(life) = &child.life {
            self.zombies.insert(life.number, seq);
        }
        if let Some(cell) = actor {
            self.actors.remove(&cell.get_id());
            if let Ok(me) = self.myself.cell() {
                cell.unlink(me);
            }
        }
        self.clear_life(seq);
        self.tree.record(event);
        self.stopped(seq, None);
    }

    /// An abandoned life ended after all.
    pub(super) fn zombie_gone(&mut self, life: u64) {
        let Some(seq) = self.zombies.remove(&life) else { return };
        if let Some(child) = self.children.get_mut(&seq) {
            let record = child.record_mut();
            record.abandoned = record.abandoned.saturating_sub(1);
        }
    }

    /// A life of a child is over.
    pub(super) fn ended(&mut self, seq: Seq, life: u64, exit: Exit) {
        let child = self.children.get(&seq);
        let current = child.and_then(|child| child.life.clone()).filter(|current| current.number == life);
        let (Some(child), Some(current)) = (child, current) else { return self.zombie_gone(life) };
        if matches!(child.state, State::Running { .. }) && self.is_first_group_start() {
            self.deferred.push((seq, life, exit));
            return;
        }
        if let Some(actor) = child.process.actor() {
            self.actors.remove(&actor.get_id());
        }
        let uptime = child.uptime(Instant::now());
        let running = matches!(child.state, State::Running { .. });
        self.clear_life(seq);
        if running {
            self.ended_itself(seq, exit, (&current, uptime));
        } else {
            self.stopped(seq, Some(exit));
        }
    }

    fn ended_itself(&mut self, seq: Seq, exit: Exit, lived: (&crate::life::Life, Duration)) {
        self.set_state(seq, State::Down);
        let Some(child) = self.children.get(&seq) else { return };
        let absorbed = self.ending.is_some() || self.stops_anyway(seq);
        let trouble = match exit {
            Exit::Clean => None,
            Exit::Cancelled => Some(killed().into()),
            Exit::Failed(trouble) => Some(*trouble),
        };
        match (child.spec.restart, trouble) {
            (_, trouble) if absorbed => self.went_down(seq, trouble.map(|trouble| trouble.failure.reason)),
            (Restart::Temporary, Some(trouble)) => {
                self.note_failure(seq, trouble, Some(lived));
                self.gone_for_good(seq);
            }
            (Restart::Temporary | Restart::Transient, None) => {
                self.tree.record(child.event(EventKind::Stopped));
                self.gone_for_good(seq);
            }
            (Restart::Transient | Restart::Permanent, Some(trouble)) => {
                let failure = trouble.failure.clone();
                self.note_failure(seq, trouble, Some(lived));
                self.decide(seq, failure);
            }
            (Restart::Permanent, None) => {
                let message = "ended by itself, although it is permanent";
                let failure = Failure::new(Class::Transient, "ended", message);
                self.note_failure(seq, failure.clone().into(), Some(lived));
                self.decide(seq, failure);
            }
        }
    }

    /// A child that is not restarted: forget it if it is temporary or dynamic, and see whether it was significant.
    pub(super) fn gone_for_good(&mut self, seq: Seq) {
        let Some(child) = self.children.get_mut(&seq) else { return };
        let (significant, temporary) = (child.spec.significant, child.spec.restart == Restart::Temporary);
        child.forgive();
        if temporary || self.flags.dynamic {
            self.remove(seq);
        }
        let end = match self.flags.auto_shutdown {
            AutoShutdown::Never => false,
            AutoShutdown::AnySignificant => significant,
            AutoShutdown::AllSignificant => {
                significant && !self.children.values().any(|child| child.spec.significant && !child.is_down())
            }
        };
        if end {
            self.end(crate::handle::SupervisorExit::Clean, None);
        }
    }

    /// A child that was asked to stop is down; `exit` is unknown for one that was abandoned.
    pub(super) fn stopped(&mut self, seq: Seq, exit: Option<Exit>) {
        let Some(child) = self.children.get_mut(&seq) else { return };
        let State::Stopping { why, killed, .. } = &child.state else { return };
        let (why, was_killed) = (why.clone(), *killed);
        let reason = match (exit, child.spec.shutdown) {
            (Some(Exit::Failed(trouble)), _) if !was_killed => Some(trouble.failure.reason),
            (_, Shutdown::Timeout(limit)) if was_killed => Some(Reason {
                class: Class::Hung,
                code: "killed".to_owned(),
                message: format!("did not stop within {limit:?} and was killed"),
            }),
            _ => None,
        };
        match why {
            Why::StartTimeout(_, failure) => return self.start_failed(seq, failure.into()),
            Why::Hung(failure) => {
                self.set_state(seq, State::Down);
                return self.decide(seq, failure);
            }
            _ => {}
        }
        self.set_state(seq, State::Down);
        match why {
            Why::Terminate => self.terminated(seq, reason),
            Why::Bounce => {
                // Somebody's wish, not a failure: it belongs to no incident.
                if let Some(child) = self.children.get_mut(&seq) {
                    child.forgive();
                }
                self.went_down(seq, reason);
                self.bounced(seq);
            }
            _ => self.went_down(seq, reason),
        }
    }

    /// Stopped at somebody's request: it stays down.
    fn terminated(&mut self, seq: Seq, reason: Option<Reason>) {
        let Some(child) = self.children.get_mut(&seq) else { return };
        let mut event = child.event(EventKind::Stopped);
        event.reason = reason;
        child.rest();
        let forget = child.spec.restart == Restart::Temporary || self.flags.dynamic;
        if forget {
            self.remove(seq);
        }
        self.tree.record(event);
    }

    /// Stopped on account of others (a sibling's restart, the supervisor's end) or for a restart of its own.
    fn went_down(&mut self, seq: Seq, reason: Option<Reason>) {
        self.put_blame(seq);
        let Some(child) = self.children.get_mut(&seq) else { return };
        let mut event = child.event(EventKind::Stopped);
        if let Some((incident, because_of)) = self.ending.as_ref().and_then(super::group::Ending::blame) {
            event.incident = Some(incident);
            event.because_of = Some(because_of);
        }
        event.reason = reason;
        if self.ending.is_none() {
            child.record_mut().down_since = Some(Instant::now());
        }
        child.reply_stopped();
        self.tree.record(event);
        let Some(child) = self.children.get_mut(&seq) else { return };
        if child.spec.restart == Restart::Temporary {
            child.reply_started(&Err(ManageError::Stopped));
            self.remove(seq);
        }
    }
}
