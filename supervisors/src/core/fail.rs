//! What follows a failure: restart now, restart later, park, or give up.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::start::not_started;
use super::state::{Stage, State, Via, Why};
use super::{Supervisor, group};
use crate::event::{EventKind, WaitReason};
use crate::handle::SupervisorExit;
use crate::life::{Life, Seq};
use crate::message::{Origin, Trouble};
use crate::policy::{Class, Failure};
use crate::spec::{OnLimit, Strategy};
use crate::timers::{Due, later};

impl Supervisor {
    /// Writes a failure into the child's record and into the log, and tells who waited for its start. `lived` is the
    /// life that ended and how long it ran; `None` if it did not come that far.
    pub(super) fn note_failure(&mut self, seq: Seq, trouble: Trouble, lived: Option<(&Life, Duration)>) {
        let now = Instant::now();
        let policy = self.policy(seq);
        let reset_after = self.reset_after(&policy);
        let inherited = self.inherited.as_ref().filter(|_| now.duration_since(self.began_at) < reset_after);
        let inherited = inherited.map(|origin| Arc::clone(&origin.incident));
        let Some(child) = self.children.get_mut(&seq) else { return };
        let record = child.record_mut();
        if lived.is_some_and(|(life, uptime)| life.was_healthy(uptime, reset_after)) {
            record.half_open = false;
            if record.last_failure.is_none_or(|last| now.duration_since(last) >= reset_after) {
                record.consecutive = 0;
                record.incident = None;
            }
        }
        let Trouble { failure, origin, panic } = trouble;
        match origin {
            Some(Origin { incident, because_of }) => {
                record.incident = Some(incident);
                record.because_of = Some(because_of);
            }
            None => {
                // One that never came up belongs to what it was being restarted because of.
                let fresh = record.consecutive == 0 && lived.is_some();
                record.because_of.take_if(|_| lived.is_some());
                if fresh || record.incident.is_none() {
                    record.incident = Some(inherited.unwrap_or_else(|| self.tree.incident()));
                }
            }
        }
        record.consecutive = record.consecutive.saturating_add(1);
        record.last_failure = Some(now);
        record.down_since.get_or_insert(now);
        record.last_error = Some(failure.reason.clone());
        let mut event = child.event(EventKind::Failed);
        child.reply_started(&not_started(&failure));
        event.reason = Some(failure.reason);
        event.panic = panic;
        self.tree.record(event);
    }

    /// Decides about a child that failed and is down; the failure has been noted.
    pub(super) fn decide(&mut self, seq: Seq, failure: Failure) {
        if self.ending.is_some() {
            return;
        }
        let now = Instant::now();
        let policy = self.policy(seq);
        let (limit, on_limit) = (self.flags.intensity, self.flags.on_limit);
        let Some(child) = self.children.get_mut(&seq) else { return };
        let record = child.record_mut();
        if record.half_open || policy.park_classes.contains(&failure.reason.class) {
            return self.park(seq, failure);
        }
        let window = match on_limit {
            OnLimit::Escalate => &mut self.window,
            OnLimit::ParkChild => &mut record.window,
        };
        let window = window.record(limit, now);
        let used_up = window.used > window.limit || policy.consecutive_max.is_some_and(|max| record.consecutive > max);
        match on_limit {
            OnLimit::Escalate if used_up => return self.escalate(seq, failure),
            OnLimit::ParkChild if used_up => return self.park(seq, failure),
            _ => {}
        }
        record.restarts += 1;
        let flap = record.flap.restarted(policy.flapping.as_ref(), now);
        let backoff = policy.backoff.as_ref().map(|backoff| backoff.delay(record.consecutive, self.tree.fraction()));
        let stretch = policy.flapping.filter(|_| flap.flapping).map_or(1.0, |policy| policy.stretch);
        let backoff = stretched(backoff.unwrap_or_default(), stretch);
        let asked = failure.retry_after.unwrap_or_default();
        let (mut delay, mut why) = (backoff.max(asked), WaitReason::Backoff);
        if asked > backoff {
            why = WaitReason::RetryAfter;
        }
        if delay == Duration::ZERO {
            (delay, why) = (self.tree.pace(now), WaitReason::Paced);
            record.paced = delay;
        }
        let (left, other) = self.group_wait_left(seq);
        if left > delay {
            (delay, why) = (left, other);
        }
        let Some(child) = self.children.get(&seq) else { return };
        let mut event = child.event(EventKind::Restarting);
        event.reason = Some(failure.reason);
        event.strategy = Some(self.flags.strategy);
        event.delay = Some(delay);
        event.wait = (delay > Duration::ZERO).then_some(why);
        event.paced = event.delay.filter(|_| event.wait == Some(WaitReason::Paced));
        event.window = Some(window);
        event.flap = Some(flap);
        self.tree.record(event);
        self.restart_after(seq, delay, why);
    }

    fn restart_after(&mut self, seq: Seq, delay: Duration, why: WaitReason) {
        let grouped = self.flags.strategy != Strategy::OneForOne;
        if delay > Duration::ZERO {
            self.wait(seq, later(Instant::now(), delay), why);
        }
        if grouped {
            self.replan(seq, delay == Duration::ZERO);
        } else if delay == Duration::ZERO {
            self.begin_start(seq, Via::Restart);
        }
    }

    fn wait(&mut self, seq: Seq, until: Instant, why: WaitReason) {
        let timer = self.timers.add(until, Due::Restart(seq));
        self.set_state(seq, State::Waiting { until, timer, why });
    }

    /// The delay of a restart is over: it happens as soon as the storm limiter lets it.
    pub(super) fn restart_paced(&mut self, seq: Seq) {
        // What a sibling's restart has taken into its own goes with that one.
        let own = self.plan.as_ref().is_none_or(|plan| plan.is_caused_by(seq) || !plan.will_start(seq));
        let now = Instant::now();
        let Some(child) = self.children.get_mut(&seq) else { return };
        let leave = matches!(child.state, State::Waiting { why: WaitReason::Paced, .. });
        let hold = if own && !leave { self.tree.pace(now) } else { Duration::ZERO };
        if hold == Duration::ZERO {
            return self.restart_due(seq);
        }
        child.record_mut().paced = hold;
        self.wait(seq, later(now, hold), WaitReason::Paced);
    }

    /// The delay of a restart is over, or somebody cut it short.
    pub(super) fn restart_due(&mut self, seq: Seq) {
        if let Some(child) = self.children.get_mut(&seq)
            && let State::Waiting { until, why: WaitReason::Paced, .. } = child.state
        {
            let record = child.record_mut();
            record.paced = record.paced.saturating_sub(until.saturating_duration_since(Instant::now()));
        }
        let Some(plan) = &mut self.plan else { return self.begin_start(seq, Via::Restart) };
        if plan.is_caused_by(seq) {
            plan.go();
            self.set_state(seq, State::Down);
        } else if plan.will_start(seq) {
            // A later failure took it into its own restart, which decides when.
            self.set_state(seq, State::Down);
        } else {
            self.begin_start(seq, Via::Restart);
        }
    }

    /// Leaves a child down until a probe or somebody tries it. Under a group strategy those that depend on it are
    /// stopped and wait with it.
    pub(super) fn park(&mut self, seq: Seq, failure: Failure) {
        let policy = self.policy(seq);
        // Who says when to try again is tried again then, also where nothing else is probed.
        let wait = policy.probe.max(failure.retry_after);
        let timer = wait.map(|wait| self.timers.add(later(Instant::now(), wait), Due::Probe(seq)));
        self.set_state(seq, State::Parked { timer });
        let Some(child) = self.children.get_mut(&seq) else { return };
        child.record_mut().half_open = false;
        let mut event = child.event(EventKind::Parked);
        event.reason = Some(failure.reason);
        event.delay = wait;
        self.tree.record(event);
        if self.flags.strategy != Strategy::OneForOne {
            self.replan(seq, false);
        }
    }

    /// A probe is due: it happens as soon as the storm limiter lets it.
    pub(super) fn probe_paced(&mut self, seq: Seq) {
        let now = Instant::now();
        let hold = self.tree.pace(now);
        if hold == Duration::ZERO {
            return self.probe(seq);
        }
        let timer = self.timers.add(later(now, hold), Due::PacedProbe(seq));
        self.set_state(seq, State::Parked { timer: Some(timer) });
    }

    /// Tries a parked child: one more failure before it is healthy parks it again, and no restart is counted.
    pub(super) fn probe(&mut self, seq: Seq) {
        let Some(child) = self.children.get_mut(&seq) else { return };
        child.record_mut().half_open = true;
        self.tree.record(child.event(EventKind::Probed));
        self.restart_due(seq);
    }

    /// Gives up: stops all children and ends with this child's reason.
    fn escalate(&mut self, seq: Seq, failure: Failure) {
        let Some(child) = self.children.get(&seq) else { return };
        let (record, path) = (child.record(), child.path.clone());
        let incident = record.and_then(|record| record.incident.clone()).unwrap_or_else(|| self.tree.incident());
        let first = record.and_then(|record| record.because_of.clone()).unwrap_or(path);
        let mut event = child.event(EventKind::Escalated);
        event.path = self.myself.path().clone();
        event.incarnation = self.incarnation;
        event.incident = Some(Arc::clone(&incident));
        event.strategy = Some(self.flags.strategy);
        event.reason = Some(failure.reason.clone());
        event.because_of = Some(first.clone());
        self.tree.record(event);
        let origin = Origin { incident, because_of: first };
        self.end(SupervisorExit::GaveUp { failure, origin: origin.clone() }, Some(origin));
    }

    /// A child failed during the supervisor's first start.
    pub(super) fn initial_failed(&mut self, seq: Seq, failure: Failure) {
        if self.ending.is_some() {
            return;
        }
        let Some(child) = self.children.get(&seq) else { return };
        let record = child.record();
        let incident = record.and_then(|record| record.incident.clone()).unwrap_or_else(|| self.tree.incident());
        let because_of = record.and_then(|record| record.because_of.clone()).unwrap_or_else(|| child.path.clone());
        let origin = Origin { incident, because_of };
        let trouble = Trouble::new(failure.clone(), Some(origin.clone()));
        self.end(SupervisorExit::GaveUp { failure, origin: origin.clone() }, Some(origin));
        if let Some(ending) = &mut self.ending {
            ending.not_begun = Some(trouble);
        }
    }

    /// A child promised progress: watch that it keeps the promise.
    pub(super) fn watch(&mut self, seq: Seq, life: u64) {
        let Some(child) = self.children.get_mut(&seq) else { return };
        let current = child.life.as_ref().filter(|current| current.number == life);
        let Some(current) = current.cloned() else { return };
        if let Some(old) = child.watch.take() {
            self.timers.cancel(old);
        }
        match current.watch() {
            Some(deadline) => child.watch = Some(self.timers.add(deadline, Due::Progress(seq, life))),
            None => {
                if current.unwatch() {
                    self.watch(seq, life);
                }
            }
        }
    }

    /// A promised sign of life is due. A child that is being stopped has its own time limit. One that promised while it
    /// came up fails to start.
    pub(super) fn check_progress(&mut self, seq: Seq, life: u64) {
        let Some(child) = self.children.get(&seq) else { return };
        let current = child.life.as_ref().filter(|current| current.number == life);
        let Some(current) = current.cloned() else { return };
        let now = Instant::now();
        if current.deadline().is_none_or(|deadline| deadline > now) {
            return self.watch(seq, life);
        }
        let failure = Failure::new(Class::Hung, "no_progress", "made no progress within the time it had promised");
        let (why, starting) = match child.state {
            State::Running { since } => {
                self.note_failure(seq, failure.clone().into(), Some((&current, now.duration_since(since))));
                (Why::Hung(Box::new(failure)), false)
            }
            State::Starting { via, .. } => (Why::StartTimeout(via, Box::new(failure)), true),
            _ => return,
        };
        self.set_state(seq, State::Stopping { why, timer: None, stage: Stage::Ask, starting, since: now });
        self.kill(seq);
    }

    /// Time that a group restart in progress, which this child's restart absorbs, still has to wait, and what for.
    fn group_wait_left(&self, seq: Seq) -> (Duration, WaitReason) {
        if self.flags.strategy == Strategy::OneForOne {
            return (Duration::ZERO, WaitReason::Backoff);
        }
        let cause = self.plan.as_ref().and_then(group::Plan::waits_for).filter(|cause| *cause != seq);
        match cause.and_then(|cause| self.children.get(&cause)).map(|child| &child.state) {
            Some(State::Waiting { until, why, .. }) => (until.saturating_duration_since(Instant::now()), *why),
            _ => (Duration::ZERO, WaitReason::Backoff),
        }
    }
}

fn stretched(delay: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(delay.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}
