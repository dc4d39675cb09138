//! Point 4: which ends are clean, and what follows for each restart type.

use std::sync::{Arc, Mutex};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use supervisors::{ChildSpec, EventKind, NodeState, Restart, SupervisorSpec};

use crate::support::{Order, Stage, broken, quiet, seconds};

struct Idler(Arc<Mutex<Option<ActorRef<Say>>>>);

enum Say {
    Fail,
    Panic,
}

impl Actor for Idler {
    type Msg = Say;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Say>, (): ()) -> Result<(), ActorProcessingErr> {
        *self.0.lock().unwrap() = Some(myself);
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Say>, message: Say, (): &mut ()) -> Result<(), ActorProcessingErr> {
        match message {
            Say::Fail => Err(Box::new(broken())),
            // Past the panic hook, which prints what happens in actors.
            Say::Panic => std::panic::resume_unwind(Box::new("no luck")),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum End {
    /// Stops itself, giving this reason.
    Stop(Option<&'static str>),
    Kill,
    Fail,
    Panic,
}

/// Every restart type against every way to end.
#[tokio::test(start_paused = true)]
async fn test_point_04_exit_classification_of_actors() {
    let ends = [
        (End::Stop(None), true),
        (End::Stop(Some("normal")), true),
        (End::Stop(Some("shutdown")), true),
        (End::Stop(Some("shutdown: no more work")), true),
        (End::Stop(Some("Drained")), true),
        (End::Stop(Some("out of luck")), false),
        (End::Stop(Some("killed")), false),
        (End::Kill, false),
        (End::Fail, false),
        (End::Panic, false),
    ];
    for restart in [Restart::Permanent, Restart::Transient, Restart::Temporary] {
        for (end, clean) in ends {
            let (stage, actor) = (Stage::default(), Arc::new(Mutex::new(None)));
            let slot = Arc::clone(&actor);
            let child = ChildSpec::actor("a", move |_| (Idler(Arc::clone(&slot)), ())).restart(restart);
            let root = stage.start(SupervisorSpec::default().child(child)).await;
            stage.log.clear();
            let running: ActorRef<Say> = actor.lock().unwrap().clone().unwrap();
            match end {
                End::Stop(reason) => running.stop(reason.map(str::to_owned)),
                End::Kill => running.kill(),
                End::Fail => running.send_message(Say::Fail).unwrap(),
                End::Panic => running.send_message(Say::Panic).unwrap(),
            }
            quiet().await;
            check(&stage, &root, restart, clean, &format!("{restart:?} {end:?}")).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn test_point_04_exit_classification_of_tasks() {
    for restart in [Restart::Permanent, Restart::Transient, Restart::Temporary] {
        for (order, clean) in [(Order::Finish, true), (Order::Fail(broken()), false), (Order::Panic, false)] {
            let stage = Stage::default();
            let root = stage.start(SupervisorSpec::default().child(stage.puppet("a").restart(restart))).await;
            stage.log.clear();
            stage.tell("a", order.clone()).await;
            check(&stage, &root, restart, clean, &format!("{restart:?} {order:?}")).await;
        }
    }
}

async fn check(stage: &Stage, root: &supervisors::Root, restart: Restart, clean: bool, case: &str) {
    let restarted = restart == Restart::Permanent || (restart == Restart::Transient && !clean);
    let kept = restart != Restart::Temporary;
    let reported = !clean || restart == Restart::Permanent;
    let counts = root.handle().count_children().await;
    assert_eq!((counts.specs == 1, counts.active == 1), (kept, restarted), "{case}");
    let first = if reported { EventKind::Failed } else { EventKind::Stopped };
    assert_eq!(stage.log.events()[0].kind, first, "{case}");
    assert_eq!(stage.log.of(EventKind::Restarted).len(), usize::from(restarted), "{case}");
    if kept && !restarted {
        assert_eq!(root.handle().which_children().await[0].state, NodeState::Stopped, "{case}");
        root.handle().restart_child("a").await.unwrap();
    }
    assert_eq!(root.handle().snapshot().await.restarts_in_window, u32::from(restarted), "{case}");
    quiet().await;
    tokio::time::sleep(seconds(1)).await;
}
