//! The crate's side: puppets that live as a case says, and what a tree of them tells.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use supervisors::{
    Backoff, ChildContext, ChildInfo, ChildPath, ChildSpec, Class, Event, EventKind, Failure, InitialFailure,
    NodeState, NodeView, Observer, OnLimit, Progress, RestartPolicy, Root, RootEnd, Started, SupervisorHandle,
    SupervisorSpec,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::case::{Body, Call, Case, End, Fault, Flags, Group, Manner, Op, Opening, Plant, Policy, Then};
use crate::support::MOST_EVENTS;

/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(1000);

pub(crate) struct Report {
    pub(crate) told: Vec<String>,
    pub(crate) answers: Vec<String>,
    pub(crate) end: Option<String>,
}

enum Cue {
    End(End),
    Healthy,
}

enum Strings {
    Task(mpsc::Sender<Cue>),
    Actor(ActorRef<Cue>),
}

struct Play {
    epoch: Instant,
    events: Mutex<Vec<(u64, Event)>>,
    lives: Mutex<HashMap<String, u64>>,
    openings: Mutex<HashMap<(String, u64), Opening>>,
    strings: Mutex<HashMap<String, Strings>>,
    answers: Mutex<Vec<(usize, u64, String)>>,
}

impl Observer for Play {
    fn record(&self, event: Event) {
        let count = {
            let mut events = self.events.lock().unwrap();
            events.push((self.now(), event));
            events.len()
        };
        assert!(count < MOST_EVENTS, "the supervisor runs in a circle");
    }

    fn next_incarnation(&self, path: &ChildPath) -> u64 {
        let mut lives = self.lives.lock().unwrap();
        let life = lives.entry(path.to_string()).or_default();
        *life += 1;
        *life
    }
}

pub(crate) fn perform(case: &Case, times: &[u64]) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let play = Arc::new(Play {
            epoch: Instant::now(),
            events: Mutex::default(),
            lives: Mutex::default(),
            openings: Mutex::default(),
            strings: Mutex::default(),
            answers: Mutex::default(),
        });
        let end = play.perform(case, times).await;
        let mut incidents = Vec::new();
        let events = play.events.lock().unwrap();
        let told = events.iter().filter_map(|(at, event)| told(*at, event, &mut incidents)).collect();
        let mut answers = play.answers.lock().unwrap();
        answers.sort_by_key(|(number, ..)| *number);
        let answers = answers.iter().map(|(number, at, text)| format!("{number} at {at}: {text}")).collect();
        Report { told, answers, end }
    })
}

/// The model's words for an event; `None` for what it knows nothing of.
fn told(at: u64, event: &Event, incidents: &mut Vec<Arc<str>>) -> Option<String> {
    let known = [
        EventKind::Started,
        EventKind::Failed,
        EventKind::Restarting,
        EventKind::Restarted,
        EventKind::Parked,
        EventKind::Probed,
        EventKind::Abandoned,
        EventKind::Stopped,
        EventKind::Escalated,
    ];
    let told = super::Told {
        at,
        kind: known.iter().find(|kind| **kind == event.kind)?.as_str(),
        path: event.path.as_str(),
        incarnation: event.incarnation,
        incident: event.incident.as_ref().map(|id| super::number(incidents, id)),
        because: event.because_of.as_ref().map(ChildPath::as_str),
        row: event.attempt,
        code: event.reason.as_ref().map(|reason| reason.code.as_str()),
        delay: event.delay.map(super::millis),
        strategy: event.strategy.map(supervisors::Strategy::as_str),
        recovered: event.recovered_in.map(super::millis),
    };
    Some(told.to_string())
}

impl Play {
    fn now(&self) -> u64 {
        super::millis(self.epoch.elapsed())
    }

    async fn perform(self: &Arc<Self>, case: &Case, times: &[u64]) -> Option<String> {
        for (path, openings) in &case.openings {
            self.give(path, openings);
        }
        let observer = Arc::<Self>::clone(self);
        let started = timeout(LONG, Root::start("root", self.group(&case.tree), observer, 5)).await;
        let root = match started.expect("a root comes up or does not") {
            Ok(root) => root,
            Err(failure) => {
                sleep(LONG).await;
                return Some(failure.reason.code);
            }
        };
        for (number, ((_, op), at)) in case.ops.iter().zip(times).enumerate() {
            sleep_until(self.epoch + Duration::from_millis(*at)).await;
            self.operate(&root, number, op);
        }
        if let Some(last) = times.last() {
            sleep_until(self.epoch + Duration::from_millis(*last)).await;
        }
        timeout(LONG, root.stop()).await.expect("ends");
        sleep(LONG).await;
        match root.ended().await {
            RootEnd::Stopped => None,
            RootEnd::GaveUp { reason, .. } => Some(reason.code),
        }
    }

    fn give(&self, path: &str, openings: &[Opening]) {
        let lived = self.lives.lock().unwrap().get(path).copied().unwrap_or(0);
        for (incarnation, opening) in (lived + 1..).zip(openings) {
            self.openings.lock().unwrap().insert((path.to_owned(), incarnation), *opening);
        }
    }

    fn operate(self: &Arc<Self>, root: &Root, number: usize, op: &Op) {
        match op {
            Op::End(ends) => {
                let alone = ends.len() == 1;
                for (path, end) in ends {
                    // An actor needs a step more to end than a task, so that its moment is not quite the same.
                    if alone || !matches!(self.strings.lock().unwrap().get(path), Some(Strings::Actor(_))) {
                        self.cue(path, Cue::End(*end));
                    }
                }
            }
            Op::Healthy(path) => self.cue(path, Cue::Healthy),
            Op::Openings(path, openings) => self.give(path, openings),
            Op::Kill(path) => self.kill(root.handle(), path.clone()),
            Op::Look => {
                let (play, handle) = (Arc::clone(self), root.handle());
                tokio::spawn(async move {
                    let view = handle.snapshot().await;
                    let gone = view.state == NodeState::Stopped;
                    play.answer(number, if gone { "gone".to_owned() } else { look(&view) });
                });
            }
            Op::Call(path, call) => {
                let (play, handle, path, call) = (Arc::clone(self), root.handle(), path.clone(), call.clone());
                tokio::spawn(async move {
                    let text = match find(handle, &path).await {
                        Some(handle) => play.call(&handle, &call).await,
                        None => "nobody".to_owned(),
                    };
                    play.answer(number, text);
                });
            }
        }
    }

    fn cue(&self, path: &str, cue: Cue) {
        match self.strings.lock().unwrap().get(path) {
            Some(Strings::Task(sender)) => drop(sender.try_send(cue)),
            Some(Strings::Actor(actor)) => drop(actor.send_message(cue)),
            None => {}
        }
    }

    fn kill(self: &Arc<Self>, root: SupervisorHandle, path: String) {
        let play = Arc::clone(self);
        tokio::spawn(async move {
            let Some((above, id)) = path.rsplit_once('/') else { return };
            let Some(handle) = find(root, above).await else { return };
            let runs = |kid: &ChildInfo| *kid.id == *id && kid.state == NodeState::Running;
            if !handle.which_children().await.iter().any(runs) {
                return;
            }
            if let Some(actor) = handle.supervisor(id).await.and_then(|below| below.actor()) {
                actor.kill();
            } else if let Some(Strings::Actor(actor)) = play.strings.lock().unwrap().get(&path) {
                actor.kill();
            }
        });
    }

    fn answer(&self, number: usize, text: String) {
        self.answers.lock().unwrap().push((number, self.now(), text));
    }

    async fn call(self: &Arc<Self>, handle: &SupervisorHandle, call: &Call) -> String {
        let outcome = match call {
            Call::Start(plant) => handle.start_child(self.plant(plant)).await.map(drop),
            Call::Terminate(id) => handle.terminate_child(id).await,
            Call::Restart(id) => handle.restart_child(id).await.map(drop),
            Call::Bounce(id) => handle.bounce_child(id).await.map(drop),
            Call::Delete(id) => handle.delete_child(id).await,
            Call::Change(group) => handle.change(self.group(group)).await,
            Call::Which => {
                let kids = handle.which_children().await;
                let shown = kids.iter().map(|kid| format!("{} {} #{}", kid.id, state(&kid.state), kid.incarnation));
                return shown.collect::<Vec<_>>().join(", ");
            }
            Call::Count => {
                let counts = handle.count_children().await;
                return format!("{} specs {} active {} groups", counts.specs, counts.active, counts.supervisors);
            }
            Call::Spec(id) => {
                let spec = handle.child_spec(id).await;
                return spec.map_or("none".to_owned(), |spec| super::spec_text(spec.restart, spec.significant));
            }
        };
        super::outcome(&outcome)
    }

    fn opening(&self, ctx: &ChildContext, usual: u64) -> Opening {
        let openings = self.openings.lock().unwrap();
        let given = openings.get(&(ctx.path.to_string(), ctx.incarnation)).copied();
        given.unwrap_or(Opening { after: usual, then: Then::Run })
    }

    fn group(self: &Arc<Self>, group: &Group) -> SupervisorSpec {
        let Flags { strategy, max, window, parks, auto, policy, dynamic, room, retries } = &group.flags;
        let mut spec = SupervisorSpec::new(*strategy)
            .intensity(*max, Duration::from_millis(*window))
            .on_limit(if *parks { OnLimit::ParkChild } else { OnLimit::Escalate })
            .auto_shutdown(*auto)
            .policy(restart_policy(policy))
            .initial_failure(if *retries { InitialFailure::Retry } else { InitialFailure::Fail });
        spec.children = group.kids.iter().map(|plant| self.plant(plant)).collect();
        spec.dynamic = *dynamic;
        spec.max_children = *room;
        spec
    }

    fn plant(self: &Arc<Self>, plant: &Plant) -> ChildSpec {
        let (play, id, usual) = (Arc::clone(self), plant.id.clone(), plant.body.start_time());
        let mut spec = match &plant.body {
            Body::Task(manner) => {
                let manner = *manner;
                ChildSpec::task(id, move |ctx| {
                    let then = play.opening(&ctx, 0).then;
                    Arc::clone(&play).live(ctx, manner, then)
                })
            }
            Body::Slow(_, manner) => {
                let manner = *manner;
                ChildSpec::start(id, move |ctx| {
                    let play = Arc::clone(&play);
                    async move {
                        let opening = play.opening(&ctx, usual);
                        match prologue(opening).await? {
                            Then::Ignore => Ok(Started::ignore()),
                            then => Ok(Started::task(play.live(ctx, manner, then))),
                        }
                    }
                })
            }
            Body::Actor(_) => ChildSpec::start(id, move |ctx| Arc::clone(&play).start_actor(ctx, usual)),
            Body::Group(_, group) => {
                let group = group.clone();
                ChildSpec::supervisor(id, move |ctx| {
                    let (play, group) = (Arc::clone(&play), group.clone());
                    async move {
                        let opening = play.opening(&ctx, usual);
                        prologue(opening).await?;
                        Ok(play.group(&group))
                    }
                })
            }
        };
        spec = spec.restart(plant.restart).significant(plant.significant).shutdown(plant.shutdown);
        if let Some(policy) = &plant.policy {
            spec = spec.policy(restart_policy(policy));
        }
        match plant.start_limit {
            Some(limit) => spec.start_timeout(Duration::from_millis(limit)),
            None => spec,
        }
    }

    async fn start_actor(self: Arc<Self>, ctx: ChildContext, usual: u64) -> Result<Started, Failure> {
        let opening = self.opening(&ctx, usual);
        let then = prologue(opening).await?;
        if then == Then::Ignore {
            return Ok(Started::ignore());
        }
        let supervisor = ctx.supervisor.actor().expect("runs");
        let spawned = Actor::spawn_linked(None, Puppet(ctx.progress), (), supervisor).await;
        let (actor, _) = spawned.map_err(|error| Failure::new(Class::Bug, "no_actor", error.to_string()))?;
        self.strings.lock().unwrap().insert(ctx.path.to_string(), Strings::Actor(actor.clone()));
        if let Then::RunFor(time, end) = then {
            let actor = actor.clone();
            tokio::spawn(async move {
                sleep(Duration::from_millis(time)).await;
                let _ = actor.send_message(Cue::End(end));
            });
        }
        Ok(Started::actor(actor.get_cell()))
    }

    async fn live(self: Arc<Self>, ctx: ChildContext, manner: Manner, then: Then) -> Result<(), Failure> {
        let (send, mut receive) = mpsc::channel(16);
        self.strings.lock().unwrap().insert(ctx.path.to_string(), Strings::Task(send.clone()));
        let mut own_end = std::pin::pin!(async move {
            match then {
                Then::RunFor(time, end) => {
                    sleep(Duration::from_millis(time)).await;
                    end
                }
                _ => std::future::pending().await,
            }
        });
        loop {
            tokio::select! {
                biased;
                () = ctx.stop.stopped() => break,
                end = &mut own_end => return conclude(end),
                cue = receive.recv() => match cue {
                    Some(Cue::End(end)) => return conclude(end),
                    Some(Cue::Healthy) => ctx.progress.healthy(),
                    None => {}
                },
            }
        }
        if manner.after > 0 {
            sleep(Duration::from_millis(manner.after)).await;
        }
        if manner.badly { Err(Failure::new(Class::Transient, "badly", "ends badly")) } else { Ok(()) }
    }
}

/// What a start does before something runs.
async fn prologue(opening: Opening) -> Result<Then, Failure> {
    sleep(Duration::from_millis(opening.after)).await;
    match opening.then {
        Then::Fail(fault) => Err(failure(fault)),
        Then::Panic => panic!("as told"),
        then => Ok(then),
    }
}

fn failure(fault: Fault) -> Failure {
    let failure = Failure::new(fault.class, fault.code(), "as told");
    match fault.retry_after {
        Some(time) => failure.retry_after(Duration::from_millis(time)),
        None => failure,
    }
}

fn conclude(end: End) -> Result<(), Failure> {
    match end {
        End::Clean => Ok(()),
        End::Fail(fault) => Err(failure(fault)),
        End::Panic => panic!("as told"),
    }
}

struct Puppet(Progress);

impl Actor for Puppet {
    type Msg = Cue;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Cue>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, myself: ActorRef<Cue>, cue: Cue, (): &mut ()) -> Result<(), ActorProcessingErr> {
        match cue {
            Cue::Healthy => self.0.healthy(),
            Cue::End(End::Clean) => myself.stop(None),
            // Past the panic hook, which prints what happens in actors.
            Cue::End(End::Panic) => std::panic::resume_unwind(Box::new("as told")),
            Cue::End(end) => conclude(end)?,
        }
        Ok(())
    }
}

fn restart_policy(policy: &Policy) -> RestartPolicy {
    let mut real = RestartPolicy::default().park_on(policy.park.iter().copied());
    if let Some(delays) = policy.backoff {
        real = real.backoff(Backoff {
            min: Duration::from_millis(delays.min),
            max: Duration::from_millis(delays.max),
            factor: 2.0,
            jitter: 0.0,
            reset_after: Duration::from_millis(delays.reset),
        });
    }
    if let Some(most) = policy.in_a_row {
        real = real.consecutive_max(most);
    }
    match policy.probe {
        Some(every) => real.probe(Duration::from_millis(every)),
        None => real,
    }
}

/// The supervisor at a path, if it runs.
async fn find(root: SupervisorHandle, path: &str) -> Option<SupervisorHandle> {
    let mut at = root;
    for id in path.split('/').skip(1) {
        at = at.supervisor(id).await?;
    }
    Some(at)
}

fn state(state: &NodeState) -> String {
    match state {
        NodeState::Running => "running".to_owned(),
        NodeState::Starting => "starting".to_owned(),
        NodeState::Waiting { until_ms, attempt, .. } => format!("waiting {until_ms} after {attempt}"),
        NodeState::Parked { reason } => format!("parked for {}", reason.code),
        NodeState::Stopping => "stopping".to_owned(),
        NodeState::Stopped => "stopped".to_owned(),
        other => format!("{other:?}"),
    }
}

fn look(view: &NodeView) -> String {
    let (used, left) = (view.restarts_in_window, view.restarts_left);
    format!("{} {} used {used} left {left:?} [{}]", view.path, state(&view.state), below(view))
}

fn below(view: &NodeView) -> String {
    let kids = view.children.iter().map(|kid| {
        let id = kid.path.as_str().rsplit('/').next().unwrap_or_default();
        let (up, used, left) = (kid.uptime_ms, kid.restarts_in_window, kid.restarts_left);
        let error = kid.last_error.as_ref().map_or("none", |reason| reason.code.as_str());
        let (state, restarts, below) = (state(&kid.state), kid.restarts, below(kid));
        let life = kid.incarnation;
        format!("{id} {state} #{life} up {up} used {used} left {left:?} restarts {restarts} error {error} [{below}]")
    });
    kids.collect::<Vec<_>>().join(", ")
}
