//! Panics of every kind of child carry message, location and, not too often, a backtrace.

use std::future::Future;
use std::process::Command;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use supervisors::{BACKTRACE_CHARS_MAX, ChildSpec, Event, EventKind, Started, SupervisorSpec};

use crate::support::{Stage, pass, seconds};

struct Clumsy(&'static str);

impl Actor for Clumsy {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, me: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        assert_ne!(self.0, "pre_start", "clumsy");
        me.send_message(())?;
        Ok(())
    }

    async fn post_start(&self, _: ActorRef<()>, (): &mut ()) -> Result<(), ActorProcessingErr> {
        assert_ne!(self.0, "post_start", "clumsy");
        Ok(())
    }

    async fn handle(&self, _: ActorRef<()>, (): (), (): &mut ()) -> Result<(), ActorProcessingErr> {
        deep_inside_the_handler(self.0);
        Ok(())
    }
}

#[inline(never)]
fn deep_inside_the_handler(place: &str) {
    assert_ne!(place, "handle", "clumsy");
}

/// Set in a process that runs one test only.
const ALONE: &str = "SUPERVISION_TEST_ALONE";

/// Runs a test in a process of its own: how often a backtrace is taken is counted for the whole process, and the other
/// tests in it panic by clocks of their own.
fn alone(test: &str, body: impl Future<Output = ()>) {
    if std::env::var_os(ALONE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        return runtime.block_on(body);
    }
    let name = format!("panic_backtrace::{test}");
    let run = Command::new(std::env::current_exe().unwrap()).args([&name, "--exact"]).env(ALONE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && said.contains("1 passed"), "{said}");
}

/// What is told of a child that panics, restarted once.
async fn failed(child: ChildSpec) -> Vec<Event> {
    let stage = Stage::default();
    let _ = stage.try_start(SupervisorSpec::default().child(child)).await;
    stage.log.of(EventKind::Failed)
}

#[test]
fn test_panic_backtrace_of_an_actor_names_the_place_in_every_phase() {
    alone("test_panic_backtrace_of_an_actor_names_the_place_in_every_phase", actor_in_every_phase());
}

async fn actor_in_every_phase() {
    for place in ["pre_start", "post_start", "handle"] {
        let event = failed(ChildSpec::actor("a", move |_| (Clumsy(place), ()))).await.remove(0);
        let reason = event.reason.unwrap();
        assert_eq!(reason.code, "panic", "{place}: {reason}");
        let panic = event.panic.unwrap();
        assert!(panic.location().contains("tests/supervision/panic_backtrace.rs:"), "{place}: {}", panic.location());
        assert!(reason.message.contains(panic.location()), "{place}: {reason}");
        if place == "handle" {
            let trace = panic.backtrace().unwrap();
            assert!(trace.contains("deep_inside_the_handler"), "{trace}");
            assert!(trace.chars().count() <= BACKTRACE_CHARS_MAX && !trace.contains(" at /"), "{trace}");
        }
    }
}

#[test]
fn test_panic_backtrace_of_a_task_a_thread_and_a_start_function() {
    alone("test_panic_backtrace_of_a_task_a_thread_and_a_start_function", task_thread_and_start_function());
}

async fn task_thread_and_start_function() {
    let task = ChildSpec::task("a", |_| async { panic!("task") });
    let start = ChildSpec::start("a", |_| async {
        let broken = std::hint::black_box(true);
        assert!(!broken, "start");
        Ok(Started::ignore())
    });
    for child in [task, start] {
        let event = failed(child).await.remove(0);
        assert!(event.panic.unwrap().backtrace().is_some_and(|trace| trace.contains("panic_backtrace.rs")));
    }
    let stage = Stage::default();
    let root = stage.start(SupervisorSpec::default().intensity(0, seconds(1))).await;
    root.handle().start_child(ChildSpec::thread("t", |_| panic!("thread"))).await.unwrap();
    root.ended().await;
    assert!(stage.log.of(EventKind::Failed)[0].panic.as_ref().unwrap().backtrace().is_some());
}

#[test]
fn test_panic_backtrace_is_taken_once_a_second_in_a_storm() {
    alone("test_panic_backtrace_is_taken_once_a_second_in_a_storm", storm());
}

async fn storm() {
    let stage = Stage::default();
    let storm = |id: usize| ChildSpec::task(id.to_string(), |_| async { panic!("storm") });
    let spec = (0..200).map(storm).fold(SupervisorSpec::default().intensity(500, seconds(600)), SupervisorSpec::child);
    let _root = stage.start(spec).await;
    let failed = stage.log.of(EventKind::Failed);
    assert!(failed.len() >= 500);
    assert!(failed.iter().all(|event| event.panic.is_some()), "the place is always known");
    let traced = |events: &[Event]| events.iter().filter(|e| e.panic.as_ref().unwrap().backtrace().is_some()).count();
    assert_eq!(traced(&failed), 1);
    pass(seconds(1)).await;
    assert!(stage.log.of(EventKind::Escalated).len() == 1);
}
