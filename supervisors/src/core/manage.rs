//! Requests from outside, with OTP's outcomes.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::state::{Child, Stage, State, Via, Waiter, Why};
use super::{Flags, Supervisor};
use crate::check::{SpecError, check_child};
use crate::event::EventKind;
use crate::handle::{ManageError, SupervisorHandle};
use crate::life::Seq;
use crate::message::{LocalView, Manage, Reply};
use crate::spec::{ChildKind, ChildSpec, OnLimit, Restart, StartHow, SupervisorSpec};
use crate::view::{ChildInfo, Counts, NodeState, NodeView};
use crate::window::half_used;

impl Supervisor {
    pub(super) fn manage(&mut self, request: Manage) {
        match request {
            Manage::Start(spec, reply) => self.start_child(spec, reply),
            Manage::Terminate(id, reply) => self.terminate_child(&id, reply),
            Manage::Restart(id, reply) => self.restart_child(&id, reply),
            Manage::Bounce(id, reply) => self.bounce_child(&id, reply),
            Manage::Delete(id, reply) => {
                let _ = reply.send(self.delete_child(&id));
            }
            Manage::Change(spec, reply) => {
                let _ = reply.send(self.change(spec));
            }
            Manage::Which(reply) => {
                let _ = reply.send(self.children.values().map(child_info).collect());
            }
            Manage::Count(reply) => {
                let _ = reply.send(self.counts());
            }
            Manage::Spec(id, reply) => {
                let child = self.ids.get(&id).and_then(|seq| self.children.get(seq));
                let _ = reply.send(child.map(|child| child.spec.clone()));
            }
            Manage::Supervisor(id, reply) => {
                let _ = reply.send(self.nested_handle(&id));
            }
            Manage::Snapshot(reply) => {
                let _ = reply.send(self.view());
            }
        }
    }

    fn start_child(&mut self, spec: ChildSpec, reply: Reply<serde_json::Value>) {
        let refusal = self.refuse_start(&spec);
        if let Some(refusal) = refusal {
            let _ = reply.send(Err(refusal));
            return;
        }
        let seq = self.insert(spec);
        if let Some(child) = self.children.get_mut(&seq) {
            child.waiters.push(Waiter::Started(reply));
        }
        self.begin_start(seq, Via::New);
    }

    fn refuse_start(&self, spec: &ChildSpec) -> Option<ManageError> {
        if self.ending.is_some() {
            return Some(ManageError::ShuttingDown);
        }
        if let Err(error) = check_child(spec, self.flags.auto_shutdown) {
            return Some(ManageError::Invalid(error));
        }
        if let Some(seq) = self.ids.get(&spec.id) {
            let live = self.is_live(*seq);
            return Some(if live { ManageError::AlreadyStarted } else { ManageError::AlreadyPresent });
        }
        let limit = self.flags.max_children?;
        (self.children.len() >= limit).then_some(ManageError::MaxChildren { limit })
    }

    fn terminate_child(&mut self, id: &Arc<str>, reply: Reply<()>) {
        let Some(seq) = self.ids.get(id).copied() else {
            let _ = reply.send(Err(ManageError::NotFound));
            return;
        };
        self.leave_out(seq);
        let Some(child) = self.children.get_mut(&seq) else { return };
        child.waiters.push(Waiter::Stopped(reply));
        match &mut child.state {
            State::Running { .. } | State::Starting { .. } => self.begin_stop(seq, Why::Terminate),
            // The supervisor's own end goes on as it does.
            State::Stopping { why: Why::Shutdown, .. } => {}
            State::Stopping { why, .. } => *why = Why::Terminate,
            State::Down | State::Waiting { .. } | State::Parked { .. } => self.call_off(seq),
        }
    }

    /// Ends whatever a child that does not run was waiting for.
    fn call_off(&mut self, seq: Seq) {
        let Some(child) = self.children.get_mut(&seq) else { return };
        if !matches!(child.state, State::Down) {
            self.tree.record(child.event(EventKind::Stopped));
        }
        child.rest();
        let forget = child.spec.restart == Restart::Temporary || self.flags.dynamic;
        if forget {
            self.remove(seq);
        } else {
            self.set_state(seq, State::Down);
        }
    }

    fn restart_child(&mut self, id: &Arc<str>, reply: Reply<serde_json::Value>) {
        let Some(seq) = self.ids.get(id).copied() else {
            let _ = reply.send(Err(ManageError::NotFound));
            return;
        };
        let Some(child) = self.children.get_mut(&seq) else { return };
        let refusal = match &child.state {
            _ if self.ending.is_some() => Some(ManageError::ShuttingDown),
            State::Running { .. } => Some(ManageError::Running),
            State::Starting { .. } | State::Stopping { .. } => Some(ManageError::Restarting),
            State::Down | State::Waiting { .. } | State::Parked { .. } => None,
        };
        if let Some(refusal) = refusal {
            let _ = reply.send(Err(refusal));
            return;
        }
        child.waiters.push(Waiter::Started(reply));
        self.try_now(seq);
    }

    /// Starts a child that is down, or cuts short what it waits for.
    fn try_now(&mut self, seq: Seq) {
        if self.hurry_plan(seq) {
            return;
        }
        match self.children.get(&seq).map(|child| &child.state) {
            Some(State::Down) => {
                self.take_in(seq);
                self.begin_start(seq, Via::Request);
            }
            Some(State::Waiting { .. }) => self.restart_due(seq),
            Some(State::Parked { .. }) => self.probe(seq),
            _ => {}
        }
    }

    fn bounce_child(&mut self, id: &Arc<str>, reply: Reply<serde_json::Value>) {
        let Some(seq) = self.ids.get(id).copied().filter(|_| self.ending.is_none()) else {
            let ending = self.ending.is_some();
            let _ = reply.send(Err(if ending { ManageError::ShuttingDown } else { ManageError::NotFound }));
            return;
        };
        let Some(child) = self.children.get_mut(&seq) else { return };
        match child.state {
            State::Running { .. } if child.spec.restart == Restart::Temporary => {
                let _ = reply.send(Err(ManageError::Running));
            }
            State::Running { .. } => {
                child.waiters.push(Waiter::Started(reply));
                self.begin_stop(seq, Why::Bounce);
            }
            State::Starting { .. } | State::Stopping { .. } => {
                let _ = reply.send(Err(ManageError::Restarting));
            }
            State::Down | State::Waiting { .. } | State::Parked { .. } => {
                child.waiters.push(Waiter::Started(reply));
                self.try_now(seq);
            }
        }
    }

    fn delete_child(&mut self, id: &Arc<str>) -> Result<(), ManageError> {
        let seq = *self.ids.get(id).ok_or(ManageError::NotFound)?;
        let child = self.children.get(&seq).ok_or(ManageError::NotFound)?;
        match child.state {
            State::Running { .. } => Err(ManageError::Running),
            State::Starting { .. } | State::Stopping { .. } | State::Waiting { .. } => Err(ManageError::Restarting),
            State::Down if self.plan.as_ref().is_some_and(|plan| plan.will_start(seq)) => Err(ManageError::Restarting),
            State::Down | State::Parked { .. } => {
                self.leave_out(seq);
                self.remove(seq);
                Ok(())
            }
        }
    }

    fn change(&mut self, spec: SupervisorSpec) -> Result<(), ManageError> {
        if self.ending.is_some() {
            return Err(ManageError::ShuttingDown);
        }
        if spec.ignore {
            return Ok(());
        }
        spec.check().map_err(ManageError::Invalid)?;
        if spec.dynamic != self.flags.dynamic {
            return Err(ManageError::Invalid(SpecError::BadCombination));
        }
        let (flags, children) = Flags::of(spec);
        let added = children.iter().filter(|child| !self.ids.contains_key(&child.id)).count();
        if let Some(limit) = flags.max_children.filter(|most| self.children.len() + added > *most) {
            return Err(ManageError::MaxChildren { limit });
        }
        // Children that are kept must make sense under the new flags too.
        let renewed: HashSet<&Arc<str>> = children.iter().map(|child| &child.id).collect();
        for (id, seq) in &self.ids {
            let kept = self.children.get(seq).filter(|_| !renewed.contains(id));
            let checked = kept.map_or(Ok(()), |child| check_child(&child.spec, flags.auto_shutdown));
            checked.map_err(ManageError::Invalid)?;
        }
        self.flags = flags;
        let first_new = self.next_seq;
        let mut order = Vec::with_capacity(self.children.len() + added);
        for spec in children {
            order.push(self.renew(spec));
        }
        if !self.flags.dynamic {
            let renewed: HashSet<Seq> = order.iter().copied().collect();
            order.extend(self.children.keys().filter(|seq| !renewed.contains(seq)));
            self.reorder(&order, first_new);
        }
        Ok(())
    }

    /// Takes a new spec for a child, or a new child.
    fn renew(&mut self, spec: ChildSpec) -> Seq {
        let Some(seq) = self.ids.get(&spec.id).copied() else { return self.insert(spec) };
        if let Some(child) = self.children.get_mut(&seq) {
            // What a temporary child was started by was let go and is not taken up again.
            let forgotten = matches!(child.spec.how, StartHow::Forgotten) && spec.restart == Restart::Temporary;
            child.spec = if forgotten { ChildSpec { how: StartHow::Forgotten, ..spec } } else { spec };
        }
        seq
    }

    fn counts(&self) -> Counts {
        let supervisors = self.children.values().filter(|child| child.spec.kind == ChildKind::Supervisor).count();
        let specs = self.children.len();
        Counts { specs, active: self.live, supervisors, workers: specs - supervisors }
    }

    fn nested_handle(&self, id: &Arc<str>) -> Option<SupervisorHandle> {
        let child = self.children.get(self.ids.get(id)?)?;
        child.process.supervisor().cloned()
    }

    fn view(&self) -> LocalView {
        let now = Instant::now();
        let limit = self.flags.intensity;
        let mut node = NodeView::gone(self.myself.path().clone());
        node.state = match (&self.ending, &self.began) {
            (Some(_), _) => NodeState::Stopping,
            (None, Some(_)) => NodeState::Starting,
            (None, None) => NodeState::Running,
        };
        node.incarnation = self.incarnation;
        node.uptime_ms = millis(now.duration_since(self.began_at));
        if self.flags.on_limit == OnLimit::Escalate {
            node.restarts_in_window = self.window.count(limit, now);
            node.restarts_left = Some(limit.max_restarts.saturating_sub(node.restarts_in_window));
            node.restarts_warning = half_used(node.restarts_in_window, limit);
        }
        let mut nested = Vec::new();
        for child in self.children.values() {
            if let Some(handle) = child.process.supervisor() {
                nested.push((node.children.len(), handle.clone()));
            }
            node.children.push(self.child_view(child, now));
        }
        LocalView { node, nested }
    }

    fn child_view(&self, child: &Child, now: Instant) -> NodeView {
        let limit = self.flags.intensity;
        let record = child.record();
        let own_window = self.flags.on_limit == OnLimit::ParkChild;
        let policy = child.spec.policy.as_ref().unwrap_or(&self.flags.policy);
        let used = record.filter(|_| own_window).map_or(0, |record| record.window.count(limit, now));
        NodeView {
            path: child.path.clone(),
            kind: child.spec.kind,
            state: node_state(child, now),
            incarnation: child.incarnation,
            uptime_ms: millis(child.uptime(now)),
            restarts_in_window: used,
            restarts_left: own_window.then(|| limit.max_restarts.saturating_sub(used)),
            restarts_warning: own_window && half_used(used, limit),
            restarts: record.map_or(0, |record| record.restarts),
            abandoned: record.map_or(0, |record| record.abandoned),
            last_error: record.and_then(|record| record.last_error.clone()),
            last_error_ms: record.and_then(|record| record.last_failure).map(|at| millis(now.duration_since(at))),
            flap_score: record.map_or(0.0, |record| record.flap.score(now)),
            flapping: record.is_some_and(|record| record.flap.is_flapping(policy.flapping.as_ref(), now)),
            children: Vec::new(),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn node_state(child: &Child, now: Instant) -> NodeState {
    let record = child.record();
    match &child.state {
        State::Running { .. } => NodeState::Running,
        State::Starting { .. } => NodeState::Starting,
        State::Stopping { stage: Stage::Drain, .. } => NodeState::Draining,
        State::Stopping { .. } => NodeState::Stopping,
        State::Waiting { until, why, .. } => {
            let until_ms = millis(until.saturating_duration_since(now));
            NodeState::Waiting { until_ms, attempt: child.attempt(), why: *why }
        }
        State::Parked { .. } => match record.and_then(|record| record.last_error.clone()) {
            Some(reason) => NodeState::Parked { reason },
            None => NodeState::Stopped,
        },
        State::Down if record.is_some_and(|record| record.abandoned > 0) => NodeState::Abandoned,
        State::Down => NodeState::Stopped,
    }
}

fn child_info(child: &Child) -> ChildInfo {
    ChildInfo {
        id: Arc::clone(&child.spec.id),
        kind: child.spec.kind,
        restart: child.spec.restart,
        state: node_state(child, Instant::now()),
        incarnation: child.incarnation,
    }
}
