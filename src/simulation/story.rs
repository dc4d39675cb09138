//! What happens in a world: faults for a while, then peace, then judgement.

use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use tokio::time::sleep;

use super::judge;
use super::node::StateDir;
use super::sink::Service;
use super::source::Mood;
use super::store::{Answer, Fault, KILLED, Kind, Weather};
use super::world::{Armed, Blow, LIVE_WITHIN, Outcome, POINTS, World};
use crate::checkpoint::Kept;
use crate::names::StreamId;
use crate::streams::DirectoryHandle;
use crate::streams::api::{Actual, Desired, Streams, TreeQuery};

/// Things that happen while the world is bad.
const STEPS: u64 = 14;
/// How long a node may take to come up in good weather.
const UP_WITHIN: Duration = Duration::from_secs(30);
/// After this time nothing is on its way any more: the longest delay of a request and of its journey.
const WIRE_EMPTY: Duration = Duration::from_secs(16);
/// How often the operator looks at parked streams.
const OPERATOR_LOOKS_EVERY: Duration = Duration::from_secs(2);
/// The greatest jump of a clock.
const DAY_US: i64 = 86_400_000_000;

/// Tells the story of `seed`.
pub(crate) async fn tell(seed: u64, bug: Option<&str>) -> Outcome {
    let mut world = World::new(seed, bug);
    world.store.set_weather(Weather { latency_ms: 1..20, ..Weather::default() });
    world.start_node(StateDir::default());
    sleep(Duration::from_millis(2000 + world.draw.below(2000))).await;
    for _ in 0..STEPS {
        world.step().await;
        let pause = world.draw.below(2500);
        sleep(Duration::from_millis(pause)).await;
        world.after_blows();
    }
    world.recover().await;
    world.end().await
}

impl World {
    /// One thing goes wrong, or gets better.
    async fn step(&mut self) {
        match self.draw.below(20) {
            0..=6 => self.change_weather(),
            7 | 8 => self.kill_one(),
            9 => self.second_owner(),
            10 | 11 => self.message(),
            12 | 13 => {
                let at = self.draw.below(self.foreign.len() as u64) as usize;
                let mut draw = self.draw.branch();
                let done = self.foreign[at].act(&mut draw).await;
                self.note(format!("foreign {done}"));
                self.count(&format!("foreign {done}"));
            }
            14 => {
                let us = *self.draw.pick(&[-DAY_US, DAY_US, -3_600_000_000, 3_600_000_000, -1_500_000]);
                self.clock.jump(us);
                self.note(format!("clock jumps {us}"));
                self.count("clock");
            }
            15..=17 => self.arm_a_point(),
            18 => self.mood(),
            _ => self.service(),
        }
    }

    fn change_weather(&mut self) {
        let late = Fault::Late(Duration::from_millis(200 + self.draw.below(12_000)));
        let faults = match self.draw.below(12) {
            0 | 1 => vec![],
            2 => vec![(50, Fault::BEFORE), (50, Fault::AFTER)],
            3 => vec![(400, Fault::Before(Answer::Unavailable)), (100, Fault::AFTER)],
            4 => vec![(500, Fault::Before(Answer::Throttled))],
            5 => vec![(1000, Fault::Before(Answer::Reset))],
            6 => vec![(1000, Fault::Before(Answer::Unauthenticated))],
            7 => vec![(60, Fault::Silent), (60, Fault::SilentDone)],
            8 => vec![(300, Fault::Overtaken), (100, Fault::Conflict)],
            9 => vec![(150, late), (50, Fault::AFTER)],
            10 => vec![(300, Fault::AFTER), (200, Fault::Conflict)],
            _ => vec![(400, Fault::Stale), (50, Fault::Before(Answer::Reset))],
        };
        let latency_ms = self.draw.pick(&[1..5, 1..5, 5..60, 50..400, 500..3000]).clone();
        let kinds = if self.draw.one_in(3) { vec![*self.draw.pick(&Kind::ALL)] } else { Vec::new() };
        let names: Vec<_> = faults.iter().map(|(share, fault)| format!("{share} {}", fault.name())).collect();
        self.note(format!("weather {} of {kinds:?} in {latency_ms:?} ms", names.join(", ")));
        self.store.set_weather(Weather { faults, kinds, latency_ms });
    }

    /// A node dies; another one comes up on what is left of its state.
    fn kill_one(&mut self) {
        if self.nodes.is_empty() {
            return;
        }
        let at = self.draw.below(self.nodes.len() as u64) as usize;
        self.bury(at);
    }

    /// Kills the node at `at` and starts one in its place.
    fn bury(&mut self, at: usize) {
        let node = self.nodes.remove(at);
        node.kill();
        let share = self.draw.below(256) as u8;
        let kept = match self.draw.below(4) {
            0 => Kept::All,
            1 => Kept::Flushed(share),
            2 => Kept::Older(share),
            _ => Kept::Nothing,
        };
        node.state.disk.die(kept);
        self.note(format!("{} dies, its state: {kept:?}", node.who));
        self.count("kill");
        let state = if kept == Kept::Nothing { StateDir::default() } else { node.state.clone() };
        self.start_node(state);
    }

    /// What struck at a point has its consequences.
    fn after_blows(&mut self) {
        let struck = self.struck();
        for (point, blow) in &struck {
            self.note(format!("{blow:?} at {point}"));
            self.count(&format!("{blow:?}"));
        }
        if KILLED.replace(false) {
            for _ in 0..self.nodes.len() {
                self.bury(0);
            }
        }
        let failed: Vec<usize> = (0..self.nodes.len()).filter(|at| self.nodes[*at].has_failed()).collect();
        for at in failed.into_iter().rev() {
            let node = self.nodes.remove(at);
            node.kill();
            self.start_node(node.state.clone());
        }
    }

    /// Somebody starts a second node, or one of two goes away for good.
    fn second_owner(&mut self) {
        if self.nodes.len() < 2 {
            self.note("a second owner");
            self.count("second owner");
            self.start_node(StateDir::default());
        } else {
            let at = self.draw.below(2) as usize;
            let node = self.nodes.remove(at);
            node.kill();
            self.note(format!("{} goes", node.who));
        }
    }

    fn a_stream(&mut self) -> StreamId {
        let streams = self.streams.clone();
        self.draw.pick(&streams).clone()
    }

    /// Customers ask for something; the answer may take as long as the lake is away.
    fn message(&mut self) {
        let (id, what) = (self.a_stream(), self.draw.below(5));
        let partition = self.draw.below(self.partitions[&id]).to_string();
        let at = self.draw.below(self.nodes.len().max(1) as u64) as usize;
        let Some(up) = self.nodes.get(at).and_then(|node| node.up()) else { return };
        self.note(format!("message {what} for {id}"));
        self.count("message");
        let truth = Arc::clone(&self.truth);
        tokio::spawn(async move {
            let streams = DirectoryHandle(up.directory);
            let done = match what {
                0 => streams.set_desired(&id, None, Desired::Paused, None).await,
                1 => streams.set_desired(&id, None, Desired::Stopped, None).await,
                2 => streams.set_desired(&id, None, Desired::Running, None).await,
                3 => streams.interrupt(&id, None).await,
                _ => streams.restart(&id, Some(&partition)).await,
            };
            let said = done.map_or_else(|refusal| refusal.code, |()| "done".to_owned());
            truth.journal.note(format!("message {what} for {id}: {said}"));
        });
    }

    fn arm_a_point(&mut self) {
        let blow = *self.draw.pick(&[Blow::Panic, Blow::Fail, Blow::Kill, Blow::Kill]);
        let point = *self.draw.pick(&POINTS);
        let passes = self.draw.below(3);
        self.note(format!("armed {blow:?} at {point} after {passes}"));
        self.arm(Some(Armed { point, passes, blow }));
    }

    fn mood(&mut self) {
        let mood = match self.draw.below(5) {
            0 => Mood { error: 100, ..Mood::default() },
            1 => Mood { limited: 200, ..Mood::default() },
            2 => Mood { panic: 60, ..Mood::default() },
            3 => Mood { hang: 200, deaf: 500, ..Mood::default() },
            _ => Mood::default(),
        };
        self.note(format!("{mood:?}"));
        self.troubles.set(mood);
    }

    fn service(&mut self) {
        let service = match self.draw.below(4) {
            0 => Service { refused: 700, ..Service::default() },
            1 => Service { answer_lost: 500, ..Service::default() },
            2 => Service { slow: 500, refused: 100, ..Service::default() },
            _ => Service { forgetful: true, ..Service::default() },
        };
        self.note(format!("{service:?}"));
        self.broker.set(service);
    }

    /// The faults end, one node is left, and what needs a human gets him. Then a fresh record of each partition must
    /// be committed in time.
    async fn recover(&mut self) {
        self.calm();
        self.after_blows();
        while self.nodes.len() > 1 {
            let at = self.draw.below(self.nodes.len() as u64) as usize;
            self.nodes.remove(at).kill();
        }
        for foreign in &mut self.foreign {
            foreign.leave().await;
        }
        self.note("the faults have ended");
        let began = tokio::time::Instant::now();
        let is_up = |world: &Self| world.nodes.first().is_some_and(|node| node.up().is_some() || node.has_failed());
        if !self.until(UP_WITHIN, is_up).await {
            return self.truth.wrong("the node does not come up".to_owned());
        }
        // A start that failed just before is repeated by whoever keeps the node.
        self.after_blows();
        if !self.until(UP_WITHIN, |world| world.nodes.first().is_some_and(|node| node.up().is_some())).await {
            return self.truth.wrong("the node does not come up again".to_owned());
        }
        self.assert_live(began).await;
        // What a dead owner had sent may claim a stream, or commit to it, even now. When the wire is empty, whoever looks
        // after the node gives back what was taken.
        sleep(WIRE_EMPTY.saturating_sub(began.elapsed())).await;
        self.assert_live(tokio::time::Instant::now()).await;
    }

    /// Every partition commits a fresh record in time, counted from `began`.
    async fn assert_live(&mut self, began: tokio::time::Instant) {
        let fresh: Vec<_> = self.marks();
        let arrived = |world: &Self| {
            fresh.iter().all(|(id, partition, seq)| {
                world.truth.stream(id, |stream| stream.committed.get(partition).is_some_and(|at| at > seq))
            })
        };
        let mut live = false;
        while !live && began.elapsed() < LIVE_WITHIN {
            let whole = self.ask_back().await;
            live = self.until(OPERATOR_LOOKS_EVERY, arrived).await && whole;
            if !whole {
                // What was given back takes its time to claim.
                sleep(OPERATOR_LOOKS_EVERY).await;
            }
        }
        if !live {
            let late = self.late(&fresh).await;
            self.truth.wrong(late);
        }
    }

    /// By stream and partition, what had been handed over at the end of the faults.
    fn marks(&self) -> Vec<(String, String, u64)> {
        let mut marks = Vec::new();
        for (id, count) in &self.partitions {
            for partition in 0..*count {
                let (id, partition) = (id.to_string(), partition.to_string());
                let handed = self.truth.stream(&id, |s| s.committed.get(&partition).copied().unwrap_or_default());
                marks.push((id, partition, handed));
            }
        }
        marks
    }

    async fn late(&self, fresh: &[(String, String, u64)]) -> String {
        let late: Vec<_> = fresh
            .iter()
            .filter(|(id, p, seq)| self.truth.stream(id, |s| s.committed.get(p).is_none_or(|at| at <= seq)))
            .map(|(id, partition, _)| format!("{id}/{partition}"))
            .collect();
        let tree = match self.nodes.first().and_then(|node| node.up()) {
            Some(up) => DirectoryHandle(up.directory).tree(&TreeQuery::default()).await.to_string(),
            None => String::new(),
        };
        format!("no fresh record of {} within {LIVE_WITHIN:?}: {tree}", late.join(", "))
    }

    /// The operator starts what a customer had stopped, and gives streams back that another owner had taken. True where
    /// nothing was parked.
    async fn ask_back(&mut self) -> bool {
        let Some(up) = self.nodes.first().and_then(|node| node.up()) else { return false };
        let mut whole = true;
        let streams = DirectoryHandle(up.directory);
        for id in self.streams.clone() {
            if let Err(refusal) = streams.set_desired(&id, None, Desired::Running, None).await {
                self.note(format!("start of {id}: {refusal}"));
            }
            let Ok(view) = streams.get(&id).await else { continue };
            let parked = view.status.parked.as_ref().map(|parked| parked.class.clone()).unwrap_or_default();
            if view.status.actual == Actual::Parked || parked == "fenced" {
                whole = false;
                self.note(format!("{id} is parked: {parked}"));
                self.count(&format!("parked {parked}"));
                let _ = streams.restart(&id, None).await;
            }
        }
        whole
    }

    /// An outage is back-pressure: nothing is restarted but what was made to fail.
    fn restarts_without_cause(&self) -> Vec<String> {
        let panics = self.troubles.panics() + self.faults.get("Panic").copied().unwrap_or_default();
        let mut caused = 0;
        let mut wrong = Vec::new();
        for (what, count) in self.truth.restarts() {
            match what.split_once(' ').map_or("", |(_, reason)| reason) {
                "bug/panic" | "bug/actor_failed" => caused += count,
                reason if reason.ends_with("/source_error") => {}
                _ => wrong.push(format!("{count} restarts of {what}")),
            }
        }
        if caused > panics {
            wrong.push(format!("{caused} restarts after {panics} panics"));
        }
        wrong
    }

    /// Stops the node in order and judges.
    async fn end(mut self) -> Outcome {
        if let Some(up) = self.nodes.first().and_then(|node| node.up()) {
            up.directory.quiesce().await;
            up.root.stop().await;
        }
        // What was still on its way arrives before anybody looks.
        sleep(Duration::from_secs(60)).await;
        let mut outcome = judge::judge(&self, &(Arc::clone(&self.inner) as Arc<dyn ObjectStore>)).await;
        let judged = std::mem::replace(&mut outcome.wrong, self.truth.take_wrong());
        outcome.wrong.extend(judged);
        outcome.wrong.extend(self.restarts_without_cause());
        outcome.log = self.truth.journal.take();
        for (name, count) in self.store.fired_by_name() {
            *self.faults.entry(name.to_owned()).or_default() += count;
        }
        outcome.faults = std::mem::take(&mut self.faults);
        outcome.acknowledged = self.truth.acknowledgements();
        outcome.restarts = self.truth.restarts();
        outcome.parked = self.truth.parked();
        outcome
    }
}
