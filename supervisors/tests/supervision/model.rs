//! A reference model of one supervisor, written as plain state transitions, and the property that the real one does
//! the same: for any tree and any orders, both give the same trace of events.
//!
//! `SUPERVISION_SEED=7 SUPERVISION_SEQUENCES=10000 cargo test -p supervisors model` runs other sequences, and more of them.

use std::collections::VecDeque;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use supervisors::{ManageError, NodeState, Restart, Strategy as Scheme, SupervisorSpec};

use crate::support::{Opening, Order, Stage, broken, pass, quiet, seconds};

#[derive(Clone, Debug)]
enum Op {
    Crash(usize),
    CrashBoth(usize, usize),
    Finish(usize),
    Terminate(usize),
    Restart(usize),
    Bounce(usize),
    Delete(usize),
    Start(Restart),
    /// The next starts of this child fail, this many of them.
    FailStarts(usize, u32),
    Pass(u64),
}

#[derive(Clone, Debug)]
struct Kid {
    id: String,
    restart: Restart,
    up: bool,
    /// Its next start counts as a restart.
    troubled: bool,
    failing: u32,
}

struct Model {
    scheme: Scheme,
    max: usize,
    window: u64,
    kids: Vec<Kid>,
    restarts: Vec<u64>,
    now: u64,
    born: usize,
    dead: bool,
    /// A child whose end is told in the same moment as the one being handled.
    at_once: Option<String>,
    /// Children whose start functions run.
    starting: VecDeque<String>,
    trace: Vec<String>,
}

impl Model {
    fn new(scheme: Scheme, max: usize, window: u64, kinds: &[Restart]) -> Self {
        let (kids, restarts, trace) = (Vec::new(), Vec::new(), Vec::new());
        let mut model = Self {
            scheme,
            max,
            window,
            kids,
            restarts,
            now: 0,
            born: 0,
            dead: false,
            at_once: None,
            starting: VecDeque::new(),
            trace,
        };
        for kind in kinds {
            model.add(*kind);
        }
        model
    }

    fn add(&mut self, restart: Restart) -> String {
        let id = format!("k{}", self.born);
        self.born += 1;
        self.kids.push(Kid { id: id.clone(), restart, up: true, troubled: false, failing: 0 });
        self.say("started", &id);
        id
    }

    fn say(&mut self, kind: &str, id: &str) {
        self.trace.push(format!("{kind} {id}"));
    }

    fn at(&self, id: &str) -> usize {
        self.kids.iter().position(|kid| kid.id == id).expect("known")
    }

    /// Tries to start a child; false if its start fails.
    fn bring_up(&mut self, id: &str) -> bool {
        let at = self.at(id);
        if self.kids[at].failing > 0 {
            self.kids[at].failing -= 1;
            self.kids[at].troubled = true;
            self.say("failed", id);
            return false;
        }
        self.kids[at].up = true;
        let kind = if self.kids[at].troubled { "restarted" } else { "started" };
        self.say(kind, id);
        true
    }

    fn take_down(&mut self, id: &str) {
        let at = self.at(id);
        self.say("stopped", id);
        self.kids[at].up = false;
        self.kids[at].troubled = true;
        if self.kids[at].restart == Restart::Temporary {
            self.kids.remove(at);
        }
    }

    fn ends(&mut self, id: &str, abnormal: bool) {
        if self.note_end(id, abnormal) {
            self.restart_from(id.to_owned());
        }
    }

    /// Takes a child that ended by itself off; true if it has to be restarted.
    fn note_end(&mut self, id: &str, abnormal: bool) -> bool {
        let at = self.at(id);
        self.kids[at].up = false;
        let failed = abnormal || self.kids[at].restart == Restart::Permanent;
        self.say(if failed { "failed" } else { "stopped" }, id);
        self.kids[at].troubled = failed;
        match self.kids[at].restart {
            Restart::Temporary => {
                self.kids.remove(at);
                false
            }
            Restart::Transient => failed,
            Restart::Permanent => true,
        }
    }

    /// Counts a restart; false if that was one too many, and the supervisor is dead.
    fn allow(&mut self, id: &str) -> bool {
        self.restarts.push(self.now);
        let recent = self.restarts.iter().filter(|at| self.now - **at <= self.window).count();
        if recent <= self.max {
            self.say("restarting", id);
            return true;
        }
        self.say("escalated", "root");
        // Start functions that run by then come through, unless it is their turn to be stopped at once.
        let last = self.kids.iter().rev().find(|kid| kid.up).map(|kid| kid.id.clone());
        for id in std::mem::take(&mut self.starting) {
            if last.as_deref() != Some(&id) && !self.bring_up(&id) {
                let at = self.at(&id);
                self.kids[at].up = false;
            }
        }
        let mut up: Vec<String> = self.kids.iter().rev().filter(|kid| kid.up).map(|kid| kid.id.clone()).collect();
        if let Some(other) = self.at_once.take() {
            up.retain(|id| *id != other);
            up.insert(0, other);
        }
        for kid in up {
            self.say("stopped", &kid);
        }
        self.say("stopped", "root");
        self.dead = true;
        false
    }

    fn restart_from(&mut self, mut cause: String) {
        while self.allow(&cause) {
            match self.group_restart(&cause) {
                Some(failed) => cause = failed,
                None => return,
            }
        }
    }

    fn first_of(&self, cause: &str) -> usize {
        if self.scheme == Scheme::OneForAll { 0 } else { self.at(cause) }
    }

    /// Stops and starts whom the scheme names; gives the child that did not start, if any.
    fn group_restart(&mut self, cause: &str) -> Option<String> {
        if self.scheme == Scheme::OneForOne {
            return (!self.bring_up(cause)).then(|| cause.to_owned());
        }
        let first = self.first_of(cause);
        let range: Vec<(String, bool)> = self.kids[first..].iter().map(|kid| (kid.id.clone(), kid.up)).collect();
        for (id, _) in range.iter().rev().filter(|(_, up)| *up) {
            self.take_down(id);
        }
        for (id, _) in range {
            if let Some(kid) = self.kids.iter_mut().find(|kid| kid.id == id) {
                kid.troubled = true;
                if !self.bring_up(&id) {
                    return Some(id);
                }
            }
        }
        None
    }

    /// Two ends that are told one right after the other, before anything else can happen.
    fn crash_both(&mut self, one: &str, other: &str) {
        if !self.note_end(one, true) {
            return self.ends(other, true);
        }
        let first = self.first_of(one);
        self.at_once = Some(other.to_owned());
        let allowed = self.allow(one);
        self.at_once = None;
        if !allowed {
            return;
        }
        if self.scheme == Scheme::OneForOne {
            return self.two_restarts(one, other);
        }
        let busy = self.kids[first..].iter().any(|kid| kid.up);
        if self.at(other) >= first {
            self.take_down(other);
        } else if !busy {
            // Nothing had to stop, so `one` is being started already when the news of `other` comes.
            return self.crash_during_start(one, other);
        } else if self.note_end(other, true) {
            return self.restart_from(other.to_owned());
        }
        if let Some(failed) = self.group_restart(one) {
            self.restart_from(failed);
        }
    }

    fn crash_during_start(&mut self, one: &str, other: &str) {
        if !self.note_end(other, true) {
            if let Some(failed) = self.group_restart(one) {
                self.restart_from(failed);
            }
            return;
        }
        let at = self.at(one);
        self.kids[at].up = true;
        self.kids[at].failing = self.kids[at].failing.saturating_sub(1);
        self.restart_from(other.to_owned());
    }

    /// Both start functions run side by side.
    fn two_restarts(&mut self, one: &str, other: &str) {
        let at = self.at(one);
        self.starting = VecDeque::from([one.to_owned()]);
        self.kids[at].up = true;
        if self.note_end(other, true) {
            if !self.allow(other) {
                return;
            }
            self.starting.push_back(other.to_owned());
            let at = self.at(other);
            self.kids[at].up = true;
        }
        while let Some(id) = self.starting.pop_front() {
            if !self.bring_up(&id) {
                let at = self.at(&id);
                self.kids[at].up = false;
                if !self.allow(&id) {
                    return;
                }
                self.kids[at].up = true;
                self.starting.push_back(id);
            }
        }
    }

    fn terminate(&mut self, id: &str) {
        let at = self.at(id);
        if self.kids[at].up {
            self.say("stopped", id);
        }
        self.kids[at].up = false;
        self.kids[at].troubled = false;
        if self.kids[at].restart == Restart::Temporary {
            self.kids.remove(at);
        }
    }

    fn bounce(&mut self, id: &str) {
        let at = self.at(id);
        if !self.kids[at].up {
            self.bring_up(id);
            return;
        }
        if self.kids[at].restart == Restart::Temporary {
            return;
        }
        self.take_down(id);
        if let Some(failed) = self.bounce_group(id) {
            self.restart_from(failed);
        }
    }

    fn bounce_group(&mut self, id: &str) -> Option<String> {
        let troubled: Vec<(String, bool)> = self.kids.iter().map(|kid| (kid.id.clone(), kid.troubled)).collect();
        if self.scheme == Scheme::OneForOne {
            return (!self.bring_up(id)).then(|| id.to_owned());
        }
        let first = self.first_of(id);
        let up: Vec<String> = self.kids[first..].iter().rev().filter(|kid| kid.up).map(|kid| kid.id.clone()).collect();
        for id in &up {
            self.take_down(id);
        }
        let range: Vec<String> = self.kids[first..].iter().map(|kid| kid.id.clone()).collect();
        for other in range {
            // Nothing failed: one that was down for good before counts as newly started.
            let before = troubled.iter().any(|(id, before)| *id == other && *before);
            let at = self.at(&other);
            self.kids[at].troubled = before || up.contains(&other) || other == id;
            if !self.bring_up(&other) {
                return Some(other);
            }
        }
        None
    }
}

/// Drives the real supervisor and the model side by side.
struct Pair {
    stage: Stage,
    root: supervisors::Root,
    model: Model,
}

impl Pair {
    fn pick(&self, number: usize) -> Option<Kid> {
        let count = self.model.kids.len();
        (count > 0).then(|| self.model.kids[number % count].clone())
    }

    async fn step(&mut self, op: Op) {
        let handle = self.root.handle();
        match op {
            Op::Pass(time) => pass(seconds(time)).await,
            Op::Start(restart) => {
                let id = self.model.add(restart);
                handle.start_child(self.stage.starter(&id).restart(restart)).await.unwrap();
            }
            Op::CrashBoth(one, other) => {
                let (Some(one), Some(other)) = (self.pick(one), self.pick(other)) else { return };
                if one.id != other.id && one.up && other.up {
                    self.stage.order(&one.id, Order::Fail(broken()));
                    self.stage.order(&other.id, Order::Fail(broken()));
                    self.model.crash_both(&one.id, &other.id);
                }
            }
            Op::FailStarts(kid, times) => {
                let Some(kid) = self.pick(kid) else { return };
                let at = self.model.at(&kid.id);
                self.model.kids[at].failing = times;
                self.stage.opening(&kid.id, vec![Opening::Fail(broken()); times as usize]);
            }
            Op::Crash(number) | Op::Finish(number) => {
                let Some(kid) = self.pick(number).filter(|kid| kid.up) else { return };
                let abnormal = matches!(op, Op::Crash(_));
                self.stage.order(&kid.id, if abnormal { Order::Fail(broken()) } else { Order::Finish });
                self.model.ends(&kid.id, abnormal);
            }
            Op::Terminate(number) => {
                let Some(kid) = self.pick(number) else { return };
                handle.terminate_child(&kid.id).await.unwrap();
                self.model.terminate(&kid.id);
            }
            Op::Restart(number) => {
                let Some(kid) = self.pick(number) else { return };
                let outcome = handle.restart_child(&kid.id).await;
                if kid.up {
                    assert_eq!(outcome, Err(ManageError::Running));
                } else {
                    assert_eq!(outcome.is_ok(), self.model.bring_up(&kid.id));
                }
            }
            Op::Bounce(number) => {
                let Some(kid) = self.pick(number) else { return };
                let _ = handle.bounce_child(&kid.id).await;
                self.model.bounce(&kid.id);
            }
            Op::Delete(number) => {
                let Some(kid) = self.pick(number) else { return };
                let outcome = handle.delete_child(&kid.id).await;
                assert_eq!(outcome, if kid.up { Err(ManageError::Running) } else { Ok(()) });
                if !kid.up {
                    let at = self.model.at(&kid.id);
                    self.model.kids.remove(at);
                }
            }
        }
        quiet().await;
    }

    async fn compare(&mut self) {
        assert_eq!(self.stage.log.trace(), self.model.trace);
        self.stage.log.clear();
        self.model.trace.clear();
        assert_eq!(self.root.handle().is_alive(), !self.model.dead);
        if self.model.dead {
            return;
        }
        let real = self.root.handle().which_children().await;
        let real: Vec<_> = real.iter().map(|kid| (kid.id.to_string(), kid.state == NodeState::Running)).collect();
        let modelled: Vec<_> = self.model.kids.iter().map(|kid| (kid.id.clone(), kid.up)).collect();
        assert_eq!(real, modelled);
    }
}

async fn run(scheme: Scheme, max: u32, window: u64, kinds: Vec<Restart>, ops: Vec<Op>) {
    let stage = Stage::default();
    let mut spec = SupervisorSpec::new(scheme).intensity(max, seconds(window));
    for (number, kind) in kinds.iter().enumerate() {
        spec = spec.child(stage.starter(&format!("k{number}")).restart(*kind));
    }
    let root = stage.start(spec).await;
    let mut model = Model::new(scheme, max as usize, window * 1000, &kinds);
    model.say("started", "root");
    let mut pair = Pair { stage, root, model };
    let epoch = tokio::time::Instant::now();
    pair.compare().await;
    for op in ops {
        pair.model.now = u64::try_from(epoch.elapsed().as_millis()).unwrap();
        pair.step(op).await;
        pair.compare().await;
        if pair.model.dead {
            return;
        }
    }
    pair.root.stop().await;
}

fn kind() -> impl Strategy<Value = Restart> {
    prop_oneof![Just(Restart::Permanent), Just(Restart::Transient), Just(Restart::Temporary)]
}

fn op() -> impl Strategy<Value = Op> {
    let kid = 0..6_usize;
    prop_oneof![
        5 => kid.clone().prop_map(Op::Crash),
        3 => (kid.clone(), kid.clone()).prop_map(|(one, other)| Op::CrashBoth(one, other)),
        2 => kid.clone().prop_map(Op::Finish),
        2 => kid.clone().prop_map(Op::Terminate),
        2 => kid.clone().prop_map(Op::Restart),
        2 => kid.clone().prop_map(Op::Bounce),
        1 => kid.clone().prop_map(Op::Delete),
        1 => kind().prop_map(Op::Start),
        2 => (kid, 1..3_u32).prop_map(|(kid, times)| Op::FailStarts(kid, times)),
        3 => (1..8_u64).prop_map(Op::Pass),
    ]
}

#[test]
fn test_supervisor_does_what_the_model_says() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    let seed = number("SUPERVISION_SEED").unwrap_or(1);
    let cases = number("SUPERVISION_SEQUENCES").unwrap_or(500);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&seed.to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let scheme = prop_oneof![Just(Scheme::OneForOne), Just(Scheme::OneForAll), Just(Scheme::RestForOne)];
    let kinds = prop::collection::vec(kind(), 0..5);
    let input = (scheme, 0..6_u32, 1..20_u64, kinds, prop::collection::vec(op(), 0..25));
    let outcome = TestRunner::new_with_rng(config, random).run(&input, |(scheme, max, window, kinds, ops)| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(run(scheme, max, window, kinds, ops));
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}\nagain: SUPERVISION_SEED={seed} SUPERVISION_SEQUENCES={cases} cargo test -p supervisors model");
    }
}
