//! Ordered work on several children: the first start, group restarts, the end.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Supervisor;
use super::state::{Stage, State, Via, Why};
use crate::handle::{ManageError, SupervisorExit};
use crate::life::Seq;
use crate::message::{Origin, Trouble};
use crate::path::ChildPath;
use crate::policy::{Class, Failure};
use crate::spec::Strategy;
use crate::timers::later;

/// Before the numbers of all children, those to come included.
pub(super) const EVERYBODY: Seq = 0;

/// A first start or a group restart in progress.
pub(super) struct Plan {
    /// Whose failure it is; `None` for the first start.
    cause: Option<(Seq, ChildPath)>,
    incident: Option<Arc<str>>,
    /// The first child that it touches; it touches all that come later.
    first: Seq,
    phase: Phase,
    /// The delay is over.
    due: bool,
    /// Children that somebody terminated while it was in progress: they stay down.
    skip: HashSet<Seq>,
}

enum Phase {
    /// Stops children, the last first.
    Stopping { queue: Vec<Seq>, current: Option<Seq> },
    /// All are down, the delay is not over.
    Waiting,
    /// Starts children in order.
    Starting { queue: VecDeque<Seq>, current: Option<Seq> },
}

impl Plan {
    pub(super) fn initial(all: impl Iterator<Item = Seq>) -> Self {
        let phase = Phase::Starting { queue: all.collect(), current: None };
        Self { cause: None, incident: None, first: EVERYBODY, phase, due: true, skip: HashSet::new() }
    }

    pub(super) fn is_caused_by(&self, seq: Seq) -> bool {
        self.cause.as_ref().is_some_and(|(cause, _)| *cause == seq)
    }

    /// Ends the delay.
    pub(super) fn go(&mut self) {
        self.due = true;
    }

    /// The child whose delay the plan waits for.
    pub(super) fn waits_for(&self) -> Option<Seq> {
        self.cause.as_ref().filter(|_| !self.due).map(|(cause, _)| *cause)
    }

    /// Whether a child that is down will be started by it.
    pub(super) fn will_start(&self, seq: Seq) -> bool {
        match &self.phase {
            Phase::Starting { queue, .. } => queue.contains(&seq),
            Phase::Stopping { .. } | Phase::Waiting => self.touches(seq),
        }
    }

    /// The first child that it has not brought up again.
    fn first_unfinished(&self) -> Seq {
        match &self.phase {
            Phase::Starting { queue, current } => {
                current.iter().chain(queue.front()).copied().min().unwrap_or(Seq::MAX)
            }
            Phase::Stopping { .. } | Phase::Waiting => self.first,
        }
    }

    /// Takes over new numbers of the children; `known` are the old ones. What it still has to do it does in the new
    /// order.
    pub(super) fn renumber(&mut self, new: impl Fn(Seq) -> Seq, known: &[Seq]) {
        if self.first != EVERYBODY {
            let touched = known.iter().filter(|old| **old >= self.first).map(|old| new(*old));
            self.first = touched.min().unwrap_or_else(|| new(self.first));
        }
        if let Some((cause, _)) = &mut self.cause {
            *cause = new(*cause);
        }
        self.skip = self.skip.iter().map(|old| new(*old)).collect();
        let current = match &mut self.phase {
            Phase::Stopping { queue, current } => {
                queue.iter_mut().for_each(|seq| *seq = new(*seq));
                queue.sort_unstable();
                current
            }
            Phase::Starting { queue, current } => {
                queue.iter_mut().for_each(|seq| *seq = new(*seq));
                queue.make_contiguous().sort_unstable();
                current
            }
            Phase::Waiting => return,
        };
        *current = current.map(new);
    }

    pub(super) fn touches(&self, seq: Seq) -> bool {
        self.cause.is_some() && seq >= self.first && !self.skip.contains(&seq)
    }
}

/// A supervisor's end in progress.
pub(super) struct Ending {
    exit: SupervisorExit,
    origin: Option<Origin>,
    /// Still to stop, the last first.
    queue: Vec<Seq>,
    /// What the first start failed with, if that is why it ends.
    pub(super) not_begun: Option<Trouble>,
    /// The moment from which stages that begin now are timed, so that what is stopped together is due together.
    clock: Instant,
    /// Stages of stops that end together, by when.
    shared: BTreeMap<Instant, Vec<(Seq, Stage)>>,
}

impl Ending {
    /// Notes a stage that has this much time; gives the instant if no other ends then.
    pub(super) fn share(&mut self, seq: Seq, stage: Stage, limit: Duration) -> Option<Instant> {
        let at = later(self.clock, limit);
        let stages = self.shared.entry(at).or_default();
        stages.push((seq, stage));
        (stages.len() == 1).then_some(at)
    }

    /// The stages that end at this instant.
    pub(super) fn due(&mut self, at: Instant) -> Vec<(Seq, Stage)> {
        self.shared.remove(&at).unwrap_or_default()
    }

    pub(super) fn blame(&self) -> Option<(Arc<str>, ChildPath)> {
        self.origin.as_ref().map(|origin| (Arc::clone(&origin.incident), origin.because_of.clone()))
    }
}

enum Step {
    /// Something has to report back first.
    Wait,
    Stop(Seq),
    Start(Seq),
    AllDown,
    Done,
}

impl Supervisor {
    /// Carries the plan or the end as far as it goes without waiting.
    pub(super) fn drive(&mut self) {
        while self.ending.is_none() {
            match self.next_step() {
                Step::Wait => return,
                Step::Stop(seq) => self.begin_stop(seq, Why::Group),
                Step::Start(seq) => {
                    let via = if self.is_first_start() { Via::Initial } else { Via::Restart };
                    self.put_blame(seq);
                    self.begin_start(seq, via);
                }
                Step::AllDown => self.start_all(),
                Step::Done => {
                    self.plan = None;
                    self.first_start_done();
                }
            }
        }
        self.drive_end();
    }

    fn next_step(&mut self) -> Step {
        let Some(plan) = &mut self.plan else { return Step::Wait };
        let children = &self.children;
        let live = |seq: Seq| children.get(&seq).is_some_and(|child| child.state.is_live());
        match &mut plan.phase {
            Phase::Stopping { queue, current } => {
                if current.is_some_and(live) {
                    return Step::Wait;
                }
                *current = None;
                while let Some(seq) = queue.pop() {
                    match children.get(&seq).map(|child| &child.state) {
                        Some(State::Stopping { .. }) => {
                            *current = Some(seq);
                            return Step::Wait;
                        }
                        Some(state) if state.is_live() => {
                            *current = Some(seq);
                            return Step::Stop(seq);
                        }
                        _ => {}
                    }
                }
                plan.phase = Phase::Waiting;
                Step::AllDown
            }
            Phase::Waiting if plan.due => Step::AllDown,
            Phase::Waiting => Step::Wait,
            Phase::Starting { queue, current } => {
                let pending = |seq: Seq| {
                    let state = children.get(&seq).map(|child| &child.state);
                    matches!(state, Some(State::Starting { .. } | State::Stopping { .. }))
                };
                if current.is_some_and(pending) {
                    return Step::Wait;
                }
                *current = None;
                while let Some(seq) = queue.pop_front() {
                    if children.contains_key(&seq) && !live(seq) {
                        *current = Some(seq);
                        return Step::Start(seq);
                    }
                    if pending(seq) {
                        *current = Some(seq);
                        return Step::Wait;
                    }
                }
                Step::Done
            }
        }
    }

    /// All that had to stop are down: start them if the delay is over.
    fn start_all(&mut self) {
        let Some(plan) = &mut self.plan else { return };
        if !plan.due {
            return;
        }
        let down = self.children.range(plan.first..).filter(|(_, child)| !child.state.is_live());
        let queue = down.map(|(seq, _)| *seq).filter(|seq| !plan.skip.contains(seq)).collect();
        plan.phase = Phase::Starting { queue, current: None };
    }

    /// Notes in a child's record because of whom it is stopped and started.
    pub(super) fn put_blame(&mut self, seq: Seq) {
        let Some(Plan { cause: Some((cause, culprit)), incident, .. }) = &self.plan else { return };
        let Some(child) = self.children.get_mut(&seq).filter(|_| seq != *cause) else { return };
        let record = child.record_mut();
        record.incident.clone_from(incident);
        record.because_of = Some(culprit.clone());
    }

    /// Plans the restart of a child that is down together with those that the strategy adds. A restart already in
    /// progress is absorbed: what it had stopped is started by this one.
    pub(super) fn replan(&mut self, cause: Seq, due: bool) {
        let Some(child) = self.children.get(&cause) else { return };
        let culprit = (cause, child.path.clone());
        let incident = child.record().and_then(|record| record.incident.clone());
        let mut first = match self.flags.strategy {
            Strategy::OneForOne | Strategy::RestForOne => cause,
            Strategy::OneForAll => EVERYBODY,
        };
        let mut skip = HashSet::new();
        let mut ends_first_start = false;
        if let Some(old) = self.plan.take() {
            first = first.min(old.first_unfinished());
            skip = old.skip;
            ends_first_start = old.cause.is_none();
        }
        skip.remove(&cause);
        let queue = self.children.range(first..).filter(|(_, child)| child.state.is_live());
        let queue = queue.map(|(seq, _)| *seq).collect();
        let phase = Phase::Stopping { queue, current: None };
        self.plan = Some(Plan { cause: Some(culprit), incident, first, phase, due, skip });
        if ends_first_start {
            self.first_start_done();
        }
    }

    /// Whether a child that just ended by itself was about to be stopped by the plan: then its end is part of it.
    pub(super) fn stops_anyway(&self, seq: Seq) -> bool {
        let plan = self.plan.as_ref().filter(|plan| matches!(plan.phase, Phase::Stopping { .. }));
        plan.is_some_and(|plan| plan.touches(seq) && !plan.is_caused_by(seq))
    }

    fn is_first_start(&self) -> bool {
        self.plan.as_ref().is_some_and(|plan| plan.cause.is_none())
    }

    /// Whether the first start of a group is going on: ends of siblings wait until it is through.
    pub(super) fn is_first_group_start(&self) -> bool {
        self.ending.is_none() && self.flags.strategy != Strategy::OneForOne && self.is_first_start()
    }

    fn first_start_done(&mut self) {
        if let Some(began) = self.began.take() {
            let _ = began.send(Ok(()));
        }
        for (seq, life, exit) in std::mem::take(&mut self.deferred) {
            self.ended(seq, life, exit);
        }
    }

    /// Whether a group restart in progress will start this child, and if so without further delay.
    pub(super) fn hurry_plan(&mut self, seq: Seq) -> bool {
        let Some(plan) = self.plan.as_mut().filter(|plan| plan.will_start(seq)) else { return false };
        let Some((cause, _)) = plan.cause.as_ref().filter(|_| !plan.due) else { return true };
        let cause = *cause;
        match self.children.get(&cause).map(|child| &child.state) {
            Some(State::Parked { .. }) => self.probe(cause),
            _ => self.restart_due(cause),
        }
        true
    }

    /// Somebody started this child again: the next restart does not leave it out.
    pub(super) fn take_in(&mut self, seq: Seq) {
        if let Some(plan) = &mut self.plan {
            plan.skip.remove(&seq);
        }
    }

    /// Somebody terminated this child: a restart in progress leaves it out, and goes on if it waited for it.
    pub(super) fn leave_out(&mut self, seq: Seq) {
        let Some(plan) = &mut self.plan else { return };
        plan.skip.insert(seq);
        if let Phase::Starting { queue, .. } = &mut plan.phase {
            queue.retain(|queued| *queued != seq);
        }
        if plan.is_caused_by(seq) {
            plan.go();
        }
    }

    /// The child that was bounced is down: bring it up again with those that the strategy adds.
    pub(super) fn bounced(&mut self, seq: Seq) {
        if self.ending.is_some() {
            return;
        }
        match self.flags.strategy {
            Strategy::OneForOne => self.begin_start(seq, Via::Restart),
            Strategy::OneForAll | Strategy::RestForOne => self.replan(seq, true),
        }
    }

    /// Begins the end: no more restarts, all children are stopped in reverse order (dynamic ones all at once).
    pub(super) fn end(&mut self, exit: SupervisorExit, origin: Option<Origin>) {
        if self.ending.is_some() {
            return;
        }
        self.plan = None;
        let all: Vec<Seq> = self.children.keys().copied().collect();
        for seq in &all {
            if !self.is_live(*seq) {
                self.set_state(*seq, State::Down);
            }
            if let Some(child) = self.children.get_mut(seq) {
                child.reply_started(&Err(ManageError::ShuttingDown));
            }
        }
        let dynamic = self.flags.dynamic;
        let queue = if dynamic { Vec::new() } else { all.clone() };
        let (clock, shared) = (Instant::now(), BTreeMap::new());
        self.ending = Some(Ending { exit, origin, queue, not_begun: None, clock, shared });
        if dynamic {
            for seq in all {
                self.stop_for_end(seq);
            }
        }
        for (seq, life, exit) in std::mem::take(&mut self.deferred) {
            self.ended(seq, life, exit);
        }
    }

    /// Stages of the end that begin from here on are timed from `now`.
    pub(super) fn end_clock(&mut self, now: Instant) {
        if let Some(ending) = &mut self.ending {
            ending.clock = now;
        }
    }

    pub(super) fn stop_for_end(&mut self, seq: Seq) {
        let state = self.children.get(&seq).map(|child| &child.state);
        if matches!(state, Some(State::Running { .. } | State::Starting { .. })) {
            self.begin_stop(seq, Why::Shutdown);
        }
    }

    fn drive_end(&mut self) {
        loop {
            let Some(ending) = &mut self.ending else { return };
            let Some(seq) = ending.queue.last().copied() else { break };
            if self.is_live(seq) {
                self.stop_for_end(seq);
                return;
            }
            if let Some(ending) = &mut self.ending {
                ending.queue.pop();
            }
        }
        if self.live == 0 {
            self.finish();
        }
    }

    /// All children are down: tell how it ended and stop the actor.
    fn finish(&mut self) {
        let Some(Ending { exit, not_begun, .. }) = self.ending.take() else { return };
        if let Some(began) = self.began.take() {
            let _ = began.send(Err(not_begun.unwrap_or_else(|| why_not_begun(&exit))));
        }
        self.myself.set_exit(exit);
        if let Ok(cell) = self.myself.cell() {
            cell.stop(None);
        }
    }
}

/// What a start failed with that was cut short.
fn why_not_begun(exit: &SupervisorExit) -> Trouble {
    match exit {
        SupervisorExit::Clean => Failure::new(Class::Transient, "stopped", "was stopped while starting").into(),
        SupervisorExit::GaveUp { failure, origin } => Trouble::new(failure.clone(), Some(origin.clone())),
    }
}
