//! Children that are not plain tasks: ractor actors and threads, and what cannot be killed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use supervisors::{
    ChildPath, ChildSpec, Class, Event, EventKind, Failure, NodeState, Observer, Restart, Root, Shutdown, Started,
    SupervisorSpec,
};

use crate::support::{Stage, broken, quiet, seconds};

#[derive(Debug)]
enum Say {
    Fail,
    Panic,
    StopClean,
    StopOdd,
}

struct Worker {
    start: Result<(), Failure>,
    refs: Arc<Mutex<Vec<ActorRef<Say>>>>,
}

impl Actor for Worker {
    type Msg = Say;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Say>, (): ()) -> Result<(), ActorProcessingErr> {
        self.start.clone()?;
        self.refs.lock().unwrap().push(myself);
        Ok(())
    }

    async fn handle(&self, myself: ActorRef<Say>, message: Say, (): &mut ()) -> Result<(), ActorProcessingErr> {
        match message {
            Say::Fail => return Err(Box::new(Failure::new(Class::Auth, "denied", "no"))),
            Say::Panic => panic!("actor panics"),
            Say::StopClean => myself.stop(None),
            Say::StopOdd => myself.stop(Some("odd".to_owned())),
        }
        Ok(())
    }
}

type Refs = Arc<Mutex<Vec<ActorRef<Say>>>>;

fn actor(refs: &Refs) -> ChildSpec {
    let refs = Arc::clone(refs);
    ChildSpec::actor("a", move |_| (Worker { start: Ok(()), refs: Arc::clone(&refs) }, ()))
}

fn last(refs: &Refs) -> ActorRef<Say> {
    refs.lock().unwrap().last().unwrap().clone()
}

fn one(child: ChildSpec) -> SupervisorSpec {
    SupervisorSpec::default().intensity(5, seconds(5)).child(child)
}

#[tokio::test(start_paused = true)]
async fn test_actor_that_fails_panics_or_is_killed_is_restarted_with_its_reason() {
    let (stage, refs) = (Stage::default(), Refs::default());
    let root = stage.start(one(actor(&refs).restart(Restart::Transient))).await;
    last(&refs).send_message(Say::Fail).unwrap();
    quiet().await;
    last(&refs).send_message(Say::Panic).unwrap();
    quiet().await;
    last(&refs).kill();
    quiet().await;
    last(&refs).send_message(Say::StopOdd).unwrap();
    quiet().await;
    let reasons: Vec<_> = stage.log.of(EventKind::Failed).into_iter().map(|event| event.reason.unwrap()).collect();
    let codes: Vec<_> = reasons.iter().map(|reason| (reason.class, reason.code.as_str())).collect();
    let expected =
        [(Class::Auth, "denied"), (Class::Bug, "panic"), (Class::Bug, "killed"), (Class::Transient, "stopped")];
    assert_eq!(codes, expected);
    assert!(reasons[1].message.starts_with("actor panics (at "), "{}", reasons[1]);
    assert_eq!(refs.lock().unwrap().len(), 5);
    last(&refs).send_message(Say::StopClean).unwrap();
    quiet().await;
    assert_eq!(root.handle().which_children().await[0].state, NodeState::Stopped);
}

#[tokio::test(start_paused = true)]
async fn test_actor_is_stopped_with_its_supervisor() {
    let (stage, refs) = (Stage::default(), Refs::default());
    let root = stage.start(one(actor(&refs))).await;
    root.stop().await;
    assert_eq!(last(&refs).get_status(), ractor::ActorStatus::Stopped);
    assert_eq!(stage.log.of(EventKind::Failed).len(), 0);
}

#[tokio::test(start_paused = true)]
async fn test_actor_whose_pre_start_fails_is_a_failed_start() {
    let (stage, refs) = (Stage::default(), Refs::default());
    let child = ChildSpec::actor("a", move |_| (Worker { start: Err(broken()), refs: Arc::clone(&refs) }, ()));
    assert_eq!(stage.try_start(one(child)).await.unwrap_err(), broken());
}

#[tokio::test(start_paused = true)]
async fn test_foreign_actor_is_watched_once_it_is_handed_over() {
    let (stage, refs) = (Stage::default(), Refs::default());
    let held = Arc::clone(&refs);
    let child = ChildSpec::start("a", move |_| {
        let refs = Arc::clone(&held);
        async move {
            let worker = Worker { start: Ok(()), refs };
            let (actor, _) = Actor::spawn(None, worker, ()).await.map_err(|_| broken())?;
            Ok(Started::actor(actor.get_cell()))
        }
    });
    let _root = stage.start(one(child)).await;
    last(&refs).send_message(Say::Fail).unwrap();
    quiet().await;
    assert_eq!(refs.lock().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn test_actor_that_ends_while_its_start_still_runs_is_noticed() {
    let (stage, refs) = (Stage::default(), Refs::default());
    let held = Arc::clone(&refs);
    let child = ChildSpec::start("a", move |ctx| {
        let refs = Arc::clone(&held);
        async move {
            let first = refs.lock().unwrap().is_empty();
            let parent = ctx.supervisor.actor().unwrap();
            let worker = Worker { start: Ok(()), refs };
            let (actor, _) = Actor::spawn_linked(None, worker, (), parent).await.map_err(|_| broken())?;
            if first {
                actor.send_message(Say::Fail).unwrap();
                tokio::time::sleep(seconds(1)).await;
            }
            Ok(Started::actor(actor.get_cell()))
        }
    });
    let root = stage.start(one(child)).await;
    assert_eq!(stage.log.of(EventKind::Failed)[0].reason.as_ref().unwrap().code, "denied");
    assert_eq!(root.handle().count_children().await.active, 1);
    assert_eq!(refs.lock().unwrap().len(), 2);
}

/// Time moves only by hand while a thread runs.
async fn advance(time: Duration) {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    tokio::time::advance(time).await;
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn test_thread_that_does_not_stop_is_abandoned_fenced_and_replaced() {
    let stage = Stage::default();
    let (release, blocked) = mpsc::channel::<()>();
    let blocked = Arc::new(Mutex::new(Some(blocked)));
    let (tell, told) = mpsc::channel::<bool>();
    let (lend, fences) = mpsc::channel();
    let child = ChildSpec::thread("t", move |ctx| {
        let first = blocked.lock().unwrap().take();
        let _ = lend.send(ctx.fence.clone());
        if let Some(blocked) = first {
            let _ = blocked.recv();
            let _ = tell.send(ctx.fence.is_current());
        }
        while !ctx.stop.is_stopped() {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    });
    supervisors::capture_panics();
    let observer: Arc<dyn Observer> = Arc::clone(&stage.log) as _;
    let child = child.shutdown(Shutdown::Timeout(seconds(5)));
    let root = Root::start("root", SupervisorSpec::default().child(child), observer, 1).await.unwrap();
    let handle = root.handle();
    let fence = fences.recv().unwrap();
    let bounced = tokio::spawn(async move { handle.bounce_child("t").await });
    advance(seconds(4)).await;
    assert!(fence.is_current(), "while it is asked to stop it may still finish its work");
    advance(seconds(1)).await;
    assert!(!fence.is_current(), "fenced from the kill on");
    assert!(stage.log.of(EventKind::Abandoned).is_empty());
    advance(seconds(1)).await;
    assert_eq!(stage.log.of(EventKind::Abandoned).len(), 1);
    bounced.await.unwrap().unwrap();
    let view = root.handle().snapshot().await.children.remove(0);
    assert_eq!((view.state, view.incarnation, view.abandoned), (NodeState::Running, 2, 1));
    release.send(()).unwrap();
    assert!(!told.recv().unwrap(), "the abandoned life is fenced");
    while root.handle().snapshot().await.children[0].abandoned > 0 {
        tokio::task::yield_now().await;
    }
    root.stop().await;
}

/// Tells a channel of every event.
struct Wire(mpsc::Sender<Event>);

impl Observer for Wire {
    fn record(&self, event: Event) {
        let _ = self.0.send(event);
    }

    fn next_incarnation(&self, _: &ChildPath) -> u64 {
        1
    }
}

/// On real threads and real time, since nothing else can hold a thread.
#[test]
fn test_task_that_never_awaits_is_abandoned_while_its_siblings_run_on() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let free = Arc::new(AtomicBool::new(false));
    let (spin, late) = (Arc::clone(&free), Arc::new(Mutex::new(None)));
    let verdict = Arc::clone(&late);
    let child = ChildSpec::task("stuck", move |ctx| {
        let (spin, verdict) = (Arc::clone(&spin), Arc::clone(&verdict));
        async move {
            ctx.progress.busy(Duration::from_millis(50));
            if ctx.attempt == 0 {
                while !spin.load(Ordering::SeqCst) {
                    std::hint::spin_loop();
                }
                *verdict.lock().unwrap() = Some(ctx.fence.is_current());
            }
            ctx.progress.idle();
            ctx.stop.stopped().await;
            Ok(())
        }
    });
    let (send, events) = mpsc::channel();
    let root = runtime.block_on(Root::start("root", one(child), Arc::new(Wire(send)), 1)).unwrap();
    let mut kinds = Vec::new();
    while let Ok(event) = events.recv_timeout(seconds(60)) {
        kinds.push(event.kind);
        if event.kind == EventKind::Restarted {
            break;
        }
    }
    free.store(true, Ordering::SeqCst);
    let expected = [EventKind::Started, EventKind::Started, EventKind::Failed, EventKind::Abandoned];
    assert_eq!(kinds[..4.min(kinds.len())], expected);
    runtime.block_on(root.stop());
    drop(runtime);
    assert_eq!(*late.lock().unwrap(), Some(false), "its late work is refused");
}
