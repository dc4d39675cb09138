//! Bringing one child down, and noticing that it went down by itself.

use std::sync::Arc;
use std::time::Duration;

use ractor::ActorCell;
use tokio::time::Instant;

use super::Supervisor;
use super::state::{Process, Stage, State, Why};
use crate::event::EventKind;
use crate::handle::{ManageError, SupervisorExit, killed};
use crate::life::{Life, Seq};
use crate::message::{Exit, Msg};
use crate::policy::{Class, Failure, Reason};
use crate::spec::{AutoShutdown, Restart, Shutdown};
use crate::stopping::{KILL_GRACE, Stop, StopOutcome};
use crate::timers::{Due, later};

impl Supervisor {
    /// Begins to stop a live child: asks it to drain, or to stop, or kills it, as its spec says.
    pub(super) fn begin_stop(&mut self, seq: Seq, why: Why) {
        let Some(child) = self.children.get(&seq) else { return };
        let starting = child.state.is_starting();
        let drain = child.spec.drain.filter(|_| !starting);
        let since = Instant::now();
        self.set_state(seq, State::Stopping { why, timer: None, stage: Stage::Ask, starting, since });
        // It may have ended before, and the news be put off: then there is nothing to wait for.
        if let Some(at) = self.deferred.iter().position(|(ended, ..)| *ended == seq) {
            let (seq, life, exit) = self.deferred.swap_remove(at);
            return self.ended(seq, life, exit);
        }
        match drain {
            Some(limit) => self.drain(seq, limit),
            None => self.ask(seq),
        }
    }

    fn drain(&mut self, seq: Seq, limit: Duration) {
        let Some(child) = self.children.get(&seq) else { return };
        if let Some(life) = &child.life {
            life.ask_to_drain();
        }
        if let Process::Actor(cell) = &child.process {
            // It fails only if the actor has ended, which is told anyway.
            let _ = cell.drain();
        }
        self.enter(seq, Stage::Drain, Some(limit));
    }

    fn ask(&mut self, seq: Seq) {
        let Some(child) = self.children.get(&seq) else { return };
        if let Some(life) = &child.life {
            life.ask_to_stop();
        }
        match &child.process {
            Process::Actor(cell) => cell.stop(None),
            Process::Supervisor(handle) | Process::Start(_, Some(handle)) => handle.cast(Msg::Shutdown),
            Process::None | Process::Task(_) | Process::Thread | Process::Start(_, None) => {}
        }
        match child.spec.shutdown {
            Shutdown::Timeout(limit) => self.enter(seq, Stage::Ask, Some(limit)),
            Shutdown::Infinity => self.enter(seq, Stage::Ask, None),
            Shutdown::Brutal => self.kill(seq),
        }
    }

    /// Ends a child that is being stopped by force. From here on it is fenced.
    pub(super) fn kill(&mut self, seq: Seq) {
        let Some(child) = self.children.get(&seq) else { return };
        if !matches!(child.state, State::Stopping { .. }) {
            return;
        }
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
        self.enter(seq, Stage::Kill, Some(KILL_GRACE));
    }

    /// Brings a stop to a stage that has this much time. Children that are stopped together share their timers.
    fn enter(&mut self, seq: Seq, to: Stage, limit: Option<Duration>) {
        let shared = self.ending.as_mut().filter(|_| self.flags.dynamic);
        let own = match (limit, shared) {
            (Some(limit), Some(ending)) => {
                if let Some(at) = ending.share(seq, to, limit) {
                    self.timers.add(at, Due::EndStage(at));
                }
                None
            }
            (Some(limit), None) => Some(self.timers.add(later(Instant::now(), limit), Due::StopStage(seq))),
            (None, _) => None,
        };
        let Some(State::Stopping { stage, timer, .. }) = self.children.get_mut(&seq).map(|child| &mut child.state)
        else {
            return;
        };
        *stage = to;
        if let Some(old) = std::mem::replace(timer, own) {
            self.timers.cancel(old);
        }
    }

    /// The time of a stop's stage is over.
    pub(super) fn next_stage(&mut self, seq: Seq) {
        let Some(State::Stopping { stage, .. }) = self.children.get(&seq).map(|child| &child.state) else { return };
        match stage {
            Stage::Drain => self.ask(seq),
            Stage::Ask => self.kill(seq),
            Stage::Kill => self.abandon(seq),
        }
    }

    /// So is that of several which are stopped together.
    pub(super) fn next_stage_together(&mut self, at: Instant) {
        let due = self.ending.as_mut().map(|ending| ending.due(at)).unwrap_or_default();
        for (seq, stage) in due {
            let state = self.children.get(&seq).map(|child| &child.state);
            if matches!(state, Some(State::Stopping { stage: now, .. }) if *now == stage) {
                self.next_stage(seq);
            }
        }
    }

    /// Ends everything by force and at once. Supervisors below do the same, so that each still tells what became of
    /// its children.
    pub(super) fn hurry(&mut self) {
        self.end(SupervisorExit::Clean, None);
        self.end_clock(Instant::now());
        let live: Vec<_> =
            self.children.iter().filter(|(_, child)| child.state.is_live()).map(|(seq, _)| *seq).collect();
        for seq in live {
            self.stop_for_end(seq);
            let Some(child) = self.children.get(&seq) else { continue };
            match (child.process.supervisor(), &child.state) {
                (Some(handle), _) => handle.cast(Msg::Hurry),
                (None, State::Stopping { stage: Stage::Drain | Stage::Ask, .. }) => self.kill(seq),
                _ => {}
            }
        }
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
            if let Some(cell) = actor.clone() {
                hold_until_gone(Arc::clone(life), cell);
            }
            life.abandon(child.path.clone(), child.incarnation);
        }
        if let Some(cell) = actor {
            self.actors.remove(&cell.get_id());
            if let Ok(me) = self.myself.cell() {
                cell.unlink(me);
            }
        }
        let left = child.life.clone();
        self.clear_life(seq);
        self.tree.record(event);
        self.stopped(seq, None, left.as_deref());
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
            self.stopped(seq, Some(exit), Some(&current));
        }
    }

    fn ended_itself(&mut self, seq: Seq, exit: Exit, lived: (&Life, Duration)) {
        self.set_state(seq, State::Down);
        let Some(child) = self.children.get(&seq) else { return };
        let absorbed = self.ending.is_some() || self.stops_anyway(seq);
        let trouble = match exit {
            Exit::Clean => None,
            Exit::Cancelled => Some(killed().into()),
            Exit::Failed(trouble) => Some(*trouble),
        };
        match (child.spec.restart, trouble) {
            (_, trouble) if absorbed => self.went_down(seq, trouble.map(|trouble| trouble.failure.reason), None),
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
            self.end(SupervisorExit::Clean, None);
        }
    }

    /// A child that was asked to stop is down; `exit` is unknown for one that was abandoned.
    pub(super) fn stopped(&mut self, seq: Seq, exit: Option<Exit>, life: Option<&Life>) {
        let Some(child) = self.children.get_mut(&seq) else { return };
        let State::Stopping { why, stage, since, .. } = &child.state else { return };
        let (why, stage, took) = (why.clone(), *stage, since.elapsed());
        let outcome = match &exit {
            None => StopOutcome::Abandoned,
            Some(_) if stage == Stage::Kill => StopOutcome::Killed,
            Some(Exit::Clean) => StopOutcome::Clean,
            Some(Exit::Cancelled | Exit::Failed(_)) => StopOutcome::Failed,
        };
        let reason = match (exit, child.spec.shutdown) {
            (Some(Exit::Failed(trouble)), _) if stage != Stage::Kill => Some(trouble.failure.reason),
            (_, Shutdown::Timeout(limit)) if stage == Stage::Kill => Some(Reason {
                class: Class::Hung,
                code: "killed".to_owned(),
                message: format!("did not stop within {limit:?} and was killed"),
            }),
            _ => None,
        };
        let drained = life.filter(|life| life.was_drained()).map(|_| stage == Stage::Drain);
        let stop = Stop { took, outcome, drained, left: life.and_then(Life::take_left) };
        match why {
            Why::StartTimeout(_, failure) => return self.start_failed(seq, (*failure).into()),
            Why::Hung(failure) => {
                self.set_state(seq, State::Down);
                return self.decide(seq, *failure);
            }
            _ => {}
        }
        self.set_state(seq, State::Down);
        match why {
            Why::Terminate => self.terminated(seq, reason, stop),
            Why::Bounce => {
                // Somebody's wish, not a failure: it belongs to no incident.
                if let Some(child) = self.children.get_mut(&seq) {
                    child.forgive();
                }
                self.went_down(seq, reason, Some(stop));
                self.bounced(seq);
            }
            _ => self.went_down(seq, reason, Some(stop)),
        }
    }

    /// Stopped at somebody's request: it stays down.
    fn terminated(&mut self, seq: Seq, reason: Option<Reason>, stop: Stop) {
        let Some(child) = self.children.get_mut(&seq) else { return };
        let mut event = child.event(EventKind::Stopped);
        event.reason = reason;
        event.stop = Some(stop);
        child.rest();
        let forget = child.spec.restart == Restart::Temporary || self.flags.dynamic;
        if forget {
            self.remove(seq);
        }
        self.tree.record(event);
    }

    /// Stopped on account of others (a sibling's restart, the supervisor's end) or for a restart of its own.
    fn went_down(&mut self, seq: Seq, reason: Option<Reason>, stop: Option<Stop>) {
        self.put_blame(seq);
        let Some(child) = self.children.get_mut(&seq) else { return };
        let mut event = child.event(EventKind::Stopped);
        if let Some((incident, because_of)) = self.ending.as_ref().and_then(super::group::Ending::blame) {
            event.incident = Some(incident);
            event.because_of = Some(because_of);
        }
        event.reason = reason;
        event.stop = stop;
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

/// An abandoned actor tells nobody of its end: somebody has to wait for it.
fn hold_until_gone(life: Arc<Life>, cell: ActorCell) {
    life.hold();
    tokio::spawn(async move {
        let _ = cell.wait(None).await;
        life.let_go();
        life.tell(Msg::Ended { seq: life.seq, life: life.number, exit: Exit::Clean });
    });
}
