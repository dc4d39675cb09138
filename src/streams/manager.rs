//! The manager: the actor that owns one stream and makes what is into what should be.
//!
//! It keeps no truth: the desired state is in the lake and in its [`Entry`]. So a manager that crashed, and every
//! start of the node, does the same one thing: compare and act.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use serde_json::json;
use supervisors::{ChildContext, Class, ManageError, NodeState, SupervisorHandle};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::api::{Desired, Parked};
use super::directory::Entry;
use super::tree;
use crate::settings::Job;

/// Pauses before a stream that could not be brought up is tried again; they double. What was a moment's trouble costs
/// a moment, and what needs somebody's hand is not asked for in a loop.
const BRING_UP_PAUSE_MIN: Duration = Duration::from_millis(500);
const BRING_UP_PAUSE_MAX: Duration = Duration::from_secs(30);

/// How often a child is terminated that group restarts bring back. Each costs a failure of an earlier sibling at that
/// moment, and the stream's own limit of restarts is reached sooner.
const TERMINATE_TRIES: usize = 100;

/// How often a committer is looked for that was on its way when what stands behind it was to be started.
const COMMITTER_LOOK: Duration = Duration::from_secs(1);

/// Owns one stream.
#[derive(Debug)]
pub(super) struct Manager;

/// What a manager is told.
#[derive(Debug)]
pub(super) enum ManagerMessage {
    /// The desired state or the job may have changed. Replies when no request to the source can start any more that
    /// the desired state forbids.
    Reconcile(Option<RpcReplyPort<()>>),
    /// Restarts one worker or all, waiting and parked ones too.
    Restart(Option<String>, RpcReplyPort<Result<(), String>>),
    /// Stops everything below, in the order that lets the last epoch be committed and announced.
    Quiesce(RpcReplyPort<()>),
    /// Bringing up what is missing has panicked.
    Broken,
}

/// What the manager knows.
#[derive(Debug)]
pub(super) struct ManagerState {
    myself: ActorRef<ManagerMessage>,
    entry: Arc<Entry>,
    ctx: ChildContext,
    /// Brings up what is missing, whenever `again` rings. It ends with this state, after a panic too: two of them would
    /// start what the other one's manager has stopped.
    bringing_up: JoinSet<()>,
    again: Arc<Notify>,
}

impl Actor for Manager {
    type Msg = ManagerMessage;
    type State = ManagerState;
    type Arguments = (Arc<Entry>, ChildContext);

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        (entry, ctx): Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        myself.cast(ManagerMessage::Reconcile(None))?;
        entry.set_manager(Some(myself.clone()));
        Ok(ManagerState { myself, entry, ctx, bringing_up: JoinSet::new(), again: Arc::default() })
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ManagerMessage::Reconcile(reply) => state.reconcile(reply).await,
            ManagerMessage::Restart(partition, reply) => {
                let done = state.restart(partition.as_deref()).await;
                let _ = reply.send(done);
            }
            ManagerMessage::Quiesce(reply) => {
                state.stop_all(None).await;
                let _ = reply.send(());
            }
            // The supervisor knows what follows from a failure; this actor starts nothing again by itself.
            ManagerMessage::Broken => return Err("bringing up what is missing has panicked".into()),
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Self::Msg>, state: &mut Self::State) -> Result<(), ActorProcessingErr> {
        state.entry.set_manager(None);
        Ok(())
    }
}

impl ManagerState {
    async fn reconcile(&mut self, reply: Option<RpcReplyPort<()>>) {
        let runnable = self.entry.shared.job.borrow().is_some();
        match self.entry.desired() {
            Desired::Running if runnable => {
                self.bring_up();
                if let Some(reply) = reply {
                    let _ = reply.send(());
                }
            }
            Desired::Running => {
                self.announce_available();
                self.stop_all(reply).await;
            }
            Desired::Paused => {
                self.stop_workers().await;
                if let Some(reply) = reply {
                    let _ = reply.send(());
                }
            }
            Desired::Stopped => self.stop_all(reply).await,
        }
        crate::faults::point("control.applied");
    }

    /// Starts what is missing, in order, in a task of its own: a lake that cannot be reached must not make the
    /// manager deaf to a stop. A round under way is not cut short by the next: its children would start out of order.
    fn bring_up(&mut self) {
        self.again.notify_one();
        if self.bringing_up.is_empty() {
            let round = keep_up(Arc::clone(&self.entry), self.ctx.supervisor.clone(), Arc::clone(&self.again));
            let manager = self.myself.clone();
            self.bringing_up.spawn(async move {
                if AssertUnwindSafe(round).catch_unwind().await.is_err() {
                    let _ = manager.cast(ManagerMessage::Broken);
                }
            });
        }
    }

    async fn stop_workers(&mut self) {
        // An aborted task may be in the middle of a step; what it starts then would come after the stop.
        self.bringing_up.shutdown().await;
        terminate(&self.ctx.supervisor, "workers").await;
        self.entry.shared.forget_workers();
        self.entry.shared.forget_parked();
    }

    /// Workers first, so that nothing new comes in; the answer may go out then. The committer commits what it has, the
    /// announcer announces that.
    async fn stop_all(&mut self, reply: Option<RpcReplyPort<()>>) {
        self.stop_workers().await;
        if let Some(reply) = reply {
            let _ = reply.send(());
        }
        terminate(&self.ctx.supervisor, "committer").await;
        terminate(&self.ctx.supervisor, "announcer").await;
    }

    /// `data-streams:worker_available`: the workers of this stream could work and have no job.
    fn announce_available(&self) {
        let id = &self.entry.shared.id;
        let worker = format!("{}/workers", self.ctx.supervisor.path());
        let data =
            json!({"tenant": id.tenant(), "stream": id.stream(), "adapter": self.entry.adapter(), "worker": worker});
        self.entry.shared.node.events.push("data-streams:worker_available", data);
    }

    async fn restart(&mut self, partition: Option<&str>) -> Result<(), String> {
        let stream = &self.ctx.supervisor;
        let Some(workers) = stream.supervisor("workers").await else {
            if self.entry.desired() != Desired::Running {
                return Err("the stream does not run".to_owned());
            }
            self.bring_up();
            return Ok(());
        };
        if !committer_runs(stream).await {
            // With it its workers come back, all of them. Not from here: its claim takes as long as the lake is away.
            self.bring_up();
            return Ok(());
        }
        let ids = match partition {
            Some(partition) => vec![tree::child_id(partition).into()],
            None => workers.which_children().await.into_iter().map(|child| child.id).collect(),
        };
        for id in ids {
            self.entry.shared.worker(&tree::partition_name(&id), |view| view.failed = 0);
            match workers.bounce_child(&id).await {
                Ok(_) => {}
                Err(ManageError::NotFound) => return Err(format!("the stream has no partition {id}")),
                Err(e) => return Err(e.to_string()),
            }
        }
        Ok(())
    }
}

async fn child_state(supervisor: &SupervisorHandle, id: &str) -> Option<NodeState> {
    supervisor.which_children().await.into_iter().find(|child| &*child.id == id).map(|child| child.state)
}

/// A round of starting what is missing whenever `again` rings. A changed job also brings back what was parked under
/// the old one. A round that found the committer still on its way is finished when that is there.
async fn keep_up(entry: Arc<Entry>, supervisor: SupervisorHandle, again: Arc<Notify>) {
    let mut last: Option<Arc<Job>> = None;
    let mut complete = true;
    loop {
        if complete {
            again.notified().await;
        } else if tokio::time::timeout(COMMITTER_LOOK, again.notified()).await.is_err()
            && !committer_runs(&supervisor).await
        {
            continue;
        }
        let job = entry.shared.job.borrow().clone();
        let changed = last.is_some() && !last.iter().zip(&job).all(|(last, job)| Arc::ptr_eq(last, job));
        if changed {
            Box::pin(bring_back(&entry, &supervisor)).await;
        }
        last = job;
        let mut pause = BRING_UP_PAUSE_MIN;
        // Boxed, so that a stream at rest does not hold the room for a start.
        complete = loop {
            let why = match Box::pin(start_missing(&entry, &supervisor)).await {
                Ok(complete) => break complete,
                Err(why) => why,
            };
            tracing::error!(stream = %entry.shared.id, code = why.code, message = why.message, "the stream does not come up");
            entry.shared.set_parked(supervisor.path().as_str(), Some(why));
            tokio::select! {
                biased;
                () = again.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(BRING_UP_PAUSE_MAX);
        };
        entry.shared.set_parked(supervisor.path().as_str(), None);
    }
}

async fn committer_runs(supervisor: &SupervisorHandle) -> bool {
    matches!(child_state(supervisor, "committer").await, Some(NodeState::Running))
}

/// Starts again what was parked: something changed. A fenced committer stays, because no setting gives the stream back.
async fn bring_back(entry: &Entry, supervisor: &SupervisorHandle) {
    if let Some(NodeState::Parked { reason }) = child_state(supervisor, "committer").await
        && reason.class != Class::Fenced
    {
        let _ = supervisor.restart_child("committer").await;
    }
    let Some(workers) = supervisor.supervisor("workers").await else { return };
    for child in workers.which_children().await {
        if matches!(child.state, NodeState::Parked { .. }) {
            entry.shared.worker(&tree::partition_name(&child.id), |view| view.failed = 0);
            let _ = workers.bounce_child(&child.id).await;
        }
    }
}

/// Starts committer, workers and announcer where they are not there; adds workers for new partitions. False where the
/// committer is being restarted: workers without its claim would only fail.
async fn start_missing(entry: &Entry, supervisor: &SupervisorHandle) -> Result<bool, Parked> {
    let shared = &entry.shared;
    if child_state(supervisor, "committer").await.is_none() {
        // What stands behind a committer knows its claim only, and has to come after it in the order of restarts.
        terminate(supervisor, "workers").await;
        terminate(supervisor, "announcer").await;
    }
    start(supervisor, tree::committer(Arc::clone(shared))).await?;
    if !committer_runs(supervisor).await {
        return Ok(false);
    }
    start(supervisor, tree::workers(Arc::clone(shared))).await?;
    start(supervisor, tree::announcer(Arc::clone(shared))).await?;
    let job = shared.job.borrow().clone();
    if let (Some(workers), Some(job)) = (supervisor.supervisor("workers").await, job) {
        let known: std::collections::HashSet<_> =
            workers.which_children().await.into_iter().map(|child| child.id).collect();
        for partition in job.mount.partitions() {
            if !known.contains(tree::child_id(&partition.name).as_str()) {
                start(&workers, tree::worker(Arc::clone(shared), partition, Duration::ZERO)).await?;
            }
        }
    }
    Ok(true)
}

async fn start(supervisor: &SupervisorHandle, spec: supervisors::ChildSpec) -> Result<(), Parked> {
    let id = Arc::clone(&spec.id);
    match supervisor.start_child(spec).await {
        Ok(_) | Err(ManageError::AlreadyStarted | ManageError::Restarting) => Ok(()),
        Err(ManageError::AlreadyPresent) => match supervisor.restart_child(&id).await {
            Ok(_) | Err(ManageError::Running | ManageError::Restarting) => Ok(()),
            Err(e) => Err(parked(&e)),
        },
        Err(e) => Err(parked(&e)),
    }
}

fn parked(error: &ManageError) -> Parked {
    match error {
        ManageError::StartFailed(failure) => Parked {
            class: failure.reason.class.as_str().to_owned(),
            code: failure.reason.code.clone(),
            message: failure.reason.message.clone(),
        },
        other => Parked { class: "bug".to_owned(), code: "not_started".to_owned(), message: other.to_string() },
    }
}

/// Stops a child and forgets it, whatever state it is in.
///
/// Where an earlier sibling fails while the child is being stopped, the group restart takes the child in again, as OTP's
/// would. So it is gone only when the supervisor has let it be deleted.
async fn terminate(supervisor: &SupervisorHandle, id: &str) {
    for _ in 0..TERMINATE_TRIES {
        match supervisor.terminate_child(id).await {
            Ok(()) | Err(ManageError::NotFound) => {}
            Err(e) => {
                tracing::warn!(path = %supervisor.path(), id, error = %e, "a child was not terminated");
                return;
            }
        }
        match supervisor.delete_child(id).await {
            Err(ManageError::Restarting | ManageError::Running) => {}
            Ok(()) | Err(_) => return,
        }
    }
    tracing::warn!(path = %supervisor.path(), id, "a child came back each time it was terminated");
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Mutex;
    use std::time::Duration;

    use supervisors::{ChildPath, Class, Event, Failure, Observer, Root, Shutdown, Strategy, SupervisorSpec};
    use tokio::sync::watch;

    use super::*;

    /// A child that ends, as `how` says, when it is told to: at once or when it is stopped.
    fn told(id: &str, at_stop: bool, go: &watch::Sender<bool>) -> supervisors::ChildSpec {
        let go = go.subscribe();
        let child = supervisors::ChildSpec::task(id, move |ctx| {
            let mut go = go.clone();
            async move {
                if at_stop {
                    ctx.stop.stopped().await;
                }
                let _ = go.wait_for(|go| *go).await;
                if at_stop || ctx.incarnation > 1 {
                    ctx.stop.stopped().await;
                    return Ok(());
                }
                Err(Failure::new(Class::Transient, "struck", "as the test has it"))
            }
        });
        child.shutdown(Shutdown::Timeout(Duration::from_secs(60)))
    }

    /// Counts lives, so that a child knows its first one.
    #[derive(Default)]
    struct Lives(Mutex<HashMap<ChildPath, u64>>);

    impl Observer for Lives {
        fn record(&self, _: Event) {}

        fn next_incarnation(&self, path: &ChildPath) -> u64 {
            let mut lives = self.0.lock().expect("no panic");
            let lives = lives.entry(path.clone()).or_default();
            *lives += 1;
            *lives
        }
    }

    async fn until(supervisor: &SupervisorHandle, id: &str, fits: impl Fn(&NodeState) -> bool) {
        while !child_state(supervisor, id).await.is_some_and(|state| fits(&state)) {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn test_terminated_child_stays_away_where_a_group_restart_begins_meanwhile() {
        let (strike, let_go) = (watch::Sender::new(false), watch::Sender::new(false));
        let spec = SupervisorSpec::new(Strategy::RestForOne)
            .child(told("first", false, &strike))
            .child(told("second", true, &let_go));
        let root = Root::start("root", spec, Arc::<Lives>::default(), 1).await.expect("tree");
        let supervisor = root.handle();
        let terminating = tokio::spawn({
            let supervisor = supervisor.clone();
            async move { terminate(&supervisor, "second").await }
        });
        until(&supervisor, "second", |state| matches!(state, NodeState::Stopping)).await;
        strike.send_replace(true);
        until(&supervisor, "first", |state| !matches!(state, NodeState::Running)).await;
        let_go.send_replace(true);
        terminating.await.expect("no panic");
        assert!(child_state(&supervisor, "second").await.is_none(), "it was told to be gone");
        until(&supervisor, "first", |state| matches!(state, NodeState::Running)).await;
        assert!(child_state(&supervisor, "second").await.is_none(), "it came back");
        root.stop().await;
    }
}
