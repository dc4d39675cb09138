//! An observer that remembers, and children that do as they are told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use supervisors::{
    ChildContext, ChildPath, ChildSpec, Class, Event, EventKind, Failure, Observer, Root, RootEnd, Started,
    SupervisorSpec,
};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Longer than anything takes, so that a test fails where it would hang.
const LONG: Duration = Duration::from_secs(10_000_000);

/// No test comes near it. A supervisor that never comes to rest is ended by the panic, so that no test hangs.
pub(crate) const MOST_EVENTS: usize = 5_000;

/// Remembers every event.
#[derive(Default)]
pub(crate) struct Recorder {
    events: Mutex<Vec<Event>>,
    lives: Mutex<HashMap<String, u64>>,
}

impl Observer for Recorder {
    fn record(&self, event: Event) {
        let count = {
            let mut events = self.events.lock().unwrap();
            events.push(event);
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

impl Recorder {
    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }

    pub(crate) fn clear(&self) {
        self.events.lock().unwrap().clear();
    }

    pub(crate) fn of(&self, kind: EventKind) -> Vec<Event> {
        self.events().into_iter().filter(|event| event.kind == kind).collect()
    }

    /// `kind path` without the root, one word pair an event.
    pub(crate) fn trace(&self) -> Vec<String> {
        let short = |event: &Event| {
            let path = event.path.as_str();
            format!("{} {}", event.kind.as_str(), path.strip_prefix("root/").unwrap_or(path))
        };
        self.events().iter().map(short).collect()
    }
}

/// What a puppet is told to do.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    Fail(Failure),
    Finish,
    Panic,
    /// Ignores its stop token from now on.
    Deaf,
    Busy(Duration),
    Idle,
    Healthy,
}

/// How a puppet's start goes.
#[derive(Clone, Debug)]
pub(crate) enum Opening {
    Fail(Failure),
    Ignore,
    Hang,
    Slow(Duration),
}

/// A tree of puppets with its strings.
#[derive(Clone, Default)]
pub(crate) struct Stage {
    pub(crate) log: Arc<Recorder>,
    orders: Arc<Mutex<HashMap<String, mpsc::Sender<Order>>>>,
    openings: Arc<Mutex<HashMap<String, Vec<Opening>>>>,
    /// `up id` and `down id` as the puppets themselves see it.
    diary: Arc<Mutex<Vec<String>>>,
}

struct Bow(String, Arc<Mutex<Vec<String>>>);

impl Drop for Bow {
    fn drop(&mut self) {
        self.1.lock().unwrap().push(format!("down {}", self.0));
    }
}

impl Stage {
    /// A task child called `id`.
    pub(crate) fn puppet(&self, id: &str) -> ChildSpec {
        let stage = self.clone();
        ChildSpec::task(id, move |ctx| stage.clone().play(ctx))
    }

    /// A child whose start function follows the openings set for its path.
    pub(crate) fn starter(&self, id: &str) -> ChildSpec {
        let stage = self.clone();
        ChildSpec::start(id, move |ctx| {
            let stage = stage.clone();
            async move {
                let opening = stage.openings.lock().unwrap().get_mut(ctx.path.as_str()).and_then(Vec::pop);
                match opening {
                    Some(Opening::Fail(failure)) => return Err(failure),
                    Some(Opening::Ignore) => return Ok(Started::ignore()),
                    Some(Opening::Hang) => std::future::pending().await,
                    Some(Opening::Slow(time)) => tokio::time::sleep(time).await,
                    None => {}
                }
                Ok(Started::task(stage.play(ctx)))
            }
        })
    }

    /// Sets how the next starts of the child at `path` go, the first first.
    pub(crate) fn opening(&self, path: &str, mut openings: Vec<Opening>) {
        openings.reverse();
        self.openings.lock().unwrap().insert(format!("root/{path}"), openings);
    }

    async fn play(self, ctx: ChildContext) -> Result<(), Failure> {
        let (send, mut receive) = mpsc::channel(16);
        self.orders.lock().unwrap().insert(ctx.path.to_string(), send);
        let id = ctx.path.as_str().trim_start_matches("root/").to_owned();
        self.diary.lock().unwrap().push(format!("up {id}"));
        let _bow = Bow(id, Arc::clone(&self.diary));
        let mut deaf = false;
        loop {
            tokio::select! {
                () = ctx.stop.stopped(), if !deaf => return Ok(()),
                order = receive.recv() => match order {
                    Some(Order::Fail(failure)) => return Err(failure),
                    Some(Order::Finish) => return Ok(()),
                    Some(Order::Panic) => panic!("as told"),
                    Some(Order::Deaf) => deaf = true,
                    Some(Order::Busy(limit)) => ctx.progress.busy(limit),
                    Some(Order::Idle) => ctx.progress.idle(),
                    Some(Order::Healthy) => ctx.progress.healthy(),
                    None => std::future::pending().await,
                },
            }
        }
    }

    /// Gives an order without letting anything happen yet.
    pub(crate) fn order(&self, path: &str, order: Order) {
        let sender = self.orders.lock().unwrap().get(&format!("root/{path}")).cloned();
        sender.expect("puppet exists").try_send(order).expect("puppet listens");
    }

    /// Gives an order and waits until everything that follows at once has happened.
    pub(crate) async fn tell(&self, path: &str, order: Order) {
        self.order(path, order);
        quiet().await;
    }

    pub(crate) async fn crash(&self, path: &str) {
        self.tell(path, Order::Fail(broken())).await;
    }

    pub(crate) async fn start(&self, spec: SupervisorSpec) -> Root {
        self.try_start(spec).await.expect("starts")
    }

    pub(crate) async fn try_start(&self, spec: SupervisorSpec) -> Result<Root, Failure> {
        supervisors::capture_panics();
        let started = timeout(LONG, Root::start("root", spec, Arc::<Recorder>::clone(&self.log), 7)).await;
        quiet().await;
        started.expect("a root comes up or does not")
    }

    pub(crate) fn diary(&self) -> Vec<String> {
        std::mem::take(&mut self.diary.lock().unwrap())
    }
}

/// Waits for the end of a tree that is about to end.
pub(crate) async fn end_of(root: &Root) -> RootEnd {
    timeout(LONG, root.ended()).await.expect("the tree ends")
}

pub(crate) async fn stop(root: &Root) {
    timeout(LONG, root.stop()).await.expect("the tree can be stopped");
}

/// Waits until nothing more happens by itself: the paused clock moves only when every task is idle.
pub(crate) async fn quiet() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

pub(crate) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
    quiet().await;
}

pub(crate) fn broken() -> Failure {
    Failure::new(Class::Transient, "broken", "the connection broke")
}

pub(crate) const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}
