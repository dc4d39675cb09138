//! Point 8: how children are stopped.

use ractor::{Actor, ActorProcessingErr, ActorRef};
use supervisors::{ChildSpec, EventKind, Shutdown, Strategy, SupervisorSpec};

use crate::support::{Opening, Order, Stage, broken, quiet, seconds, stop};

fn one_for_one() -> SupervisorSpec {
    SupervisorSpec::new(Strategy::OneForOne).intensity(3, seconds(5))
}

#[tokio::test(start_paused = true)]
async fn test_point_08_shutdown_times_are_kept_and_late_children_killed() {
    let stage = Stage::default();
    let spec = one_for_one()
        .child(stage.puppet("patient").shutdown(Shutdown::Timeout(seconds(4))))
        .child(stage.puppet("brutal").shutdown(Shutdown::Brutal));
    let root = stage.start(spec).await;
    stage.tell("patient", Order::Deaf).await;
    stage.tell("brutal", Order::Deaf).await;
    let before = tokio::time::Instant::now();
    stop(&root).await;
    assert_eq!(before.elapsed(), seconds(4));
    assert_eq!(stage.diary(), ["up patient", "up brutal", "down brutal", "down patient"]);
    let stopped = stage.log.of(EventKind::Stopped);
    assert_eq!(stopped[0].reason, None, "a brutal kill is what was asked for");
    assert_eq!(stopped[1].reason.as_ref().unwrap().code, "killed");
}

#[tokio::test(start_paused = true)]
async fn test_point_08_infinite_shutdown_waits() {
    let stage = Stage::default();
    let child = ChildSpec::task("a", |ctx| async move {
        ctx.stop.stopped().await;
        tokio::time::sleep(seconds(100_000)).await;
        Ok(())
    });
    let root = stage.start(one_for_one().child(child.shutdown(Shutdown::Infinity))).await;
    let before = tokio::time::Instant::now();
    stop(&root).await;
    assert_eq!(before.elapsed(), seconds(100_000));
}

#[tokio::test(start_paused = true)]
async fn test_point_08_stop_ends_a_start_that_hangs() {
    let stage = Stage::default();
    let root = stage.start(one_for_one().child(stage.puppet("a"))).await;
    stage.opening("b", vec![Opening::Hang]);
    let handle = root.handle();
    let child = stage.starter("b");
    let caller = tokio::spawn(async move { handle.start_child(child).await });
    quiet().await;
    assert_eq!(root.handle().count_children().await.active, 2, "answers while a child is starting");
    let before = tokio::time::Instant::now();
    stop(&root).await;
    assert_eq!(before.elapsed(), seconds(5));
    assert!(caller.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn test_point_08_dynamic_children_stop_all_at_once() {
    let stage = Stage::default();
    let slow = |id: &str| {
        ChildSpec::task(id.to_owned(), |ctx| async move {
            ctx.stop.stopped().await;
            tokio::time::sleep(seconds(3)).await;
            Ok(())
        })
    };
    let root = stage.start(SupervisorSpec::dynamic().child(slow("a")).child(slow("b")).child(slow("c"))).await;
    let before = tokio::time::Instant::now();
    stop(&root).await;
    assert_eq!(before.elapsed(), seconds(3));
}

#[tokio::test(start_paused = true)]
async fn test_point_08_unexpected_reason_is_reported_and_a_clean_one_is_not() {
    let stage = Stage::default();
    let ends = |id: &str, badly: bool| {
        ChildSpec::task(id.to_owned(), move |ctx| async move {
            ctx.stop.stopped().await;
            if badly { Err(broken()) } else { Ok(()) }
        })
    };
    let root = stage.start(one_for_one().child(ends("good", false)).child(ends("bad", true))).await;
    stop(&root).await;
    let stopped = stage.log.of(EventKind::Stopped);
    assert_eq!(stopped[0].reason, Some(broken().reason));
    assert_eq!(stopped[1].reason, None);
    assert!(stage.log.of(EventKind::Failed).is_empty());
}

/// An actor that cuts its link to its supervisor, which then hears nothing of its end.
struct Loner;

impl Actor for Loner {
    type Msg = ();
    type State = ();
    type Arguments = ActorRef<()>;

    async fn pre_start(&self, _: ActorRef<()>, _: ActorRef<()>) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn post_start(&self, myself: ActorRef<()>, (): &mut ()) -> Result<(), ActorProcessingErr> {
        if let Some(supervisor) = myself.get_cell().try_get_supervisor() {
            myself.get_cell().unlink(supervisor);
        }
        Ok(())
    }
}

struct Nobody;

impl Actor for Nobody {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn test_point_08_child_that_unlinked_itself_cannot_hang_the_supervisor() {
    let stage = Stage::default();
    let (nobody, _) = Actor::spawn(None, Nobody, ()).await.unwrap();
    let child = ChildSpec::actor("a", move |_| (Loner, nobody.clone()));
    let root = stage.start(one_for_one().child(child)).await;
    quiet().await;
    tokio::time::timeout(seconds(60), stop(&root)).await.expect("ends");
}

#[tokio::test(start_paused = true)]
async fn test_point_08_deaf_dynamic_children_share_their_time() {
    let stage = Stage::default();
    let spec = ["a", "b", "c"].iter().fold(SupervisorSpec::dynamic(), |spec, id| spec.child(stage.puppet(id)));
    let root = stage.start(spec).await;
    for id in ["a", "b", "c"] {
        stage.tell(id, Order::Deaf).await;
    }
    let before = tokio::time::Instant::now();
    stop(&root).await;
    assert_eq!(before.elapsed(), seconds(5));
    assert_eq!(stage.log.of(EventKind::Stopped).iter().filter(|event| event.reason.is_some()).count(), 3);
}
