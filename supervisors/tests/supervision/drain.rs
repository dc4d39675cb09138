//! Drain before stop, with a deadline and a word on what was left.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use serde_json::json;
use supervisors::{ChildSpec, EventKind, NodeState, Stop, StopOutcome, Strategy, SupervisorSpec};
use tokio::time::Instant;

use crate::support::{Stage, pass, quiet, seconds};

/// Works off `backlog` items of a second each once it is asked to drain, and says what is left.
fn worker(id: &str, backlog: u64) -> ChildSpec {
    ChildSpec::task(id.to_owned(), move |ctx| async move {
        ctx.stop.draining().await;
        for left in (0..backlog).rev() {
            ctx.left(json!({ "records": left + 1 }));
            tokio::select! {
                () = tokio::time::sleep(seconds(1)) => {}
                () = ctx.stop.stopped() => return Ok(()),
            }
        }
        Ok(())
    })
}

fn stop_of(stage: &Stage, id: &str) -> Stop {
    let path = format!("root/{id}");
    let stopped = stage.log.of(EventKind::Stopped);
    stopped.into_iter().rfind(|event| event.path.as_str() == path).unwrap().stop.unwrap()
}

#[tokio::test(start_paused = true)]
async fn test_drain_ends_when_the_child_is_done_or_the_deadline_is_over() {
    let stage = Stage::default();
    let spec = SupervisorSpec::default()
        .child(worker("quick", 3).drain(seconds(10)))
        .child(worker("late", 30).drain(seconds(10)));
    let root = stage.start(spec).await;
    let handle = root.handle();
    let before = Instant::now();
    handle.terminate_child("quick").await.unwrap();
    assert_eq!(before.elapsed(), seconds(3));
    let left = stop_of(&stage, "quick");
    assert_eq!((left.outcome, left.drained, left.took), (StopOutcome::Clean, Some(true), seconds(3)));

    let (asked, late) = (handle.clone(), Instant::now());
    let terminated = tokio::spawn(async move { asked.terminate_child("late").await });
    pass(seconds(2)).await;
    assert_eq!(handle.snapshot().await.children[1].state, NodeState::Draining);
    terminated.await.unwrap().unwrap();
    assert_eq!(late.elapsed(), seconds(10));
    let stop = stop_of(&stage, "late");
    assert_eq!((stop.outcome, stop.drained), (StopOutcome::Clean, Some(false)));
    assert_eq!(stop.left.as_deref(), Some(&json!({ "records": 20 })), "what it had not finished by then");
}

#[tokio::test(start_paused = true)]
async fn test_drain_comes_before_a_bounce_a_siblings_restart_and_the_end() {
    let stage = Stage::default();
    let group = SupervisorSpec::new(Strategy::OneForAll).intensity(10, seconds(60));
    let root = stage.start(group.child(worker("w", 2).drain(seconds(10))).child(stage.puppet("p"))).await;
    let times = |stage: &Stage| stage.log.of(EventKind::Restarted).len();
    stage.crash("p").await;
    assert_eq!(times(&stage), 0, "the sibling drains");
    pass(seconds(2)).await;
    assert_eq!(times(&stage), 2);
    assert_eq!(stop_of(&stage, "w").drained, Some(true));
    let before = Instant::now();
    root.handle().bounce_child("w").await.unwrap();
    assert_eq!(before.elapsed(), seconds(2));
    root.stop().await;
    assert_eq!(before.elapsed(), seconds(4));
}

#[tokio::test(start_paused = true)]
async fn test_drain_of_one_that_never_listens_costs_its_deadline_and_its_shutdown() {
    let stage = Stage::default();
    let deaf = ChildSpec::task("deaf", |_| std::future::pending()).drain(seconds(10));
    let root = stage.start(SupervisorSpec::default().child(deaf)).await;
    let before = Instant::now();
    root.handle().terminate_child("deaf").await.unwrap();
    assert_eq!(before.elapsed(), seconds(15));
    assert_eq!(stop_of(&stage, "deaf").outcome, StopOutcome::Killed);
}

struct Slow(Arc<Mutex<Vec<u32>>>, Arc<Mutex<Option<ActorRef<u32>>>>);

impl Actor for Slow {
    type Msg = u32;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<u32>, (): ()) -> Result<(), ActorProcessingErr> {
        *self.1.lock().unwrap() = Some(myself);
        Ok(())
    }

    async fn handle(&self, _: ActorRef<u32>, message: u32, (): &mut ()) -> Result<(), ActorProcessingErr> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.0.lock().unwrap().push(message);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn test_drain_of_an_actor_is_ractors_own() {
    let stage = Stage::default();
    let (done, myself) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(None)));
    let (seen, me) = (Arc::clone(&done), Arc::clone(&myself));
    let actor = ChildSpec::actor("actor", move |_| (Slow(Arc::clone(&seen), Arc::clone(&me)), ()));
    let root = stage.start(SupervisorSpec::default().child(actor.drain(seconds(10)))).await;
    let actor: ActorRef<u32> = myself.lock().unwrap().clone().unwrap();
    for message in 0..4 {
        actor.send_message(message).unwrap();
    }
    let handle = root.handle();
    let terminated = tokio::spawn(async move { handle.terminate_child("actor").await });
    quiet().await;
    assert!(actor.send_message(9).is_err(), "takes no more");
    terminated.await.unwrap().unwrap();
    assert_eq!(*done.lock().unwrap(), [0, 1, 2, 3]);
    let stop = stop_of(&stage, "actor");
    assert_eq!((stop.outcome, stop.drained), (StopOutcome::Clean, Some(true)));
}

#[tokio::test(start_paused = true)]
async fn test_drain_note_that_is_too_long_is_replaced_by_its_length() {
    let stage = Stage::default();
    let talker = ChildSpec::task("talker", |ctx| async move {
        ctx.left(json!("x".repeat(100_000)));
        ctx.stop.stopped().await;
        Ok(())
    });
    let root = stage.start(SupervisorSpec::default().child(talker)).await;
    root.handle().terminate_child("talker").await.unwrap();
    assert_eq!(stop_of(&stage, "talker").left.as_deref(), Some(&json!({ "too_long_bytes": 100_002 })));
}
