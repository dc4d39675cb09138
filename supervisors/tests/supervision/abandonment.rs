//! Lives that cannot be ended: counted over the whole tree, by name, until they end after all.

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use supervisors::{ChildSpec, Root, Shutdown, StopOutcome, SupervisorSpec};

use crate::support::{Stage, seconds};

/// Time moves only by hand while a thread runs.
async fn advance(time: Duration) {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    tokio::time::advance(time).await;
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// A thread that heeds nothing until it is released.
fn stubborn(id: &str, release: mpsc::Receiver<()>) -> ChildSpec {
    let release = Arc::new(Mutex::new(Some(release)));
    ChildSpec::thread(id.to_owned(), move |_| {
        let release = release.lock().unwrap().take();
        let _ = release.map(|release| release.recv());
        Ok(())
    })
}

async fn until_none_is_left(root: &Root) {
    while !root.abandoned().is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn test_abandonment_is_counted_by_name_until_the_thread_ends_even_after_its_tree() {
    let stage = Stage::default();
    let (release, held) = mpsc::channel();
    let inner = Arc::new(Mutex::new(Some(stubborn("t", held).shutdown(Shutdown::Timeout(seconds(1))))));
    let below = ChildSpec::supervisor("sub", move |_| {
        let child = inner.lock().unwrap().take().unwrap();
        async move { Ok(SupervisorSpec::dynamic().child(child)) }
    });
    let spec = SupervisorSpec::default().child(below);
    let root = Root::start("root", spec, Arc::clone(&stage.log) as _, 1).await.unwrap();
    assert!(root.abandoned().is_empty());
    let stopping = root.clone();
    let report = tokio::spawn(async move { stopping.stop().await });
    advance(seconds(1)).await;
    assert!(root.abandoned().is_empty(), "killed, but its time to be gone is not over");
    advance(seconds(1)).await;
    let report = report.await.unwrap();
    let named: Vec<_> = report.abandoned.iter().map(|life| (life.path.as_str(), life.incarnation)).collect();
    assert_eq!(named, [("root/sub/t", 1)]);
    assert_eq!(report.children[0].stop.outcome, StopOutcome::Abandoned);
    assert!(!report.is_clean());
    assert_eq!(root.abandoned().len(), 1, "the tree is gone, the thread is not");
    release.send(()).unwrap();
    until_none_is_left(&root).await;
}

struct Busy {
    held: Arc<Mutex<Option<mpsc::Receiver<()>>>>,
    me: Arc<Mutex<Option<ActorRef<()>>>>,
}

impl Actor for Busy {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, me: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        *self.me.lock().unwrap() = Some(me);
        Ok(())
    }

    async fn handle(&self, _: ActorRef<()>, (): (), (): &mut ()) -> Result<(), ActorProcessingErr> {
        let held = self.held.lock().unwrap().take();
        let _ = held.map(|held| held.recv());
        Ok(())
    }
}

/// On real threads and real time, since nothing else can hold a thread.
#[test]
fn test_abandonment_of_an_actor_that_blocks_its_thread_ends_with_it() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap();
    let (release, held) = mpsc::channel();
    let (held, me) = (Arc::new(Mutex::new(Some(held))), Arc::new(Mutex::new(None)));
    let (lent, told) = (Arc::clone(&held), Arc::clone(&me));
    let actor = ChildSpec::actor("a", move |_| (Busy { held: Arc::clone(&lent), me: Arc::clone(&told) }, ()));
    let stage = Stage::default();
    let spec = SupervisorSpec::default().child(actor.shutdown(Shutdown::Brutal));
    runtime.block_on(async {
        let root = Root::start("root", spec, Arc::clone(&stage.log) as _, 1).await.unwrap();
        let busy: ActorRef<()> = me.lock().unwrap().clone().unwrap();
        busy.send_message(()).unwrap();
        while held.lock().unwrap().is_some() {
            tokio::task::yield_now().await;
        }
        let report = root.stop().await;
        assert_eq!(report.abandoned.len(), 1);
        release.send(()).unwrap();
        until_none_is_left(&root).await;
    });
}
