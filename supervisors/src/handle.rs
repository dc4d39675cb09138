//! How the outside talks to a supervisor.

use std::fmt;
use std::sync::{Arc, OnceLock};

use futures::future::BoxFuture;
use ractor::{ActorCell, ActorRef};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::check::SpecError;
use crate::message::{LocalView, Manage, Msg, Origin};
use crate::path::ChildPath;
use crate::policy::{Class, Failure, Reason};
use crate::spec::{ChildSpec, SupervisorSpec};
use crate::view::{ChildInfo, Counts, NodeView};

/// Why a management call did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManageError {
    /// No child has this id.
    #[error("no child has this id")]
    NotFound,
    /// The child runs, so it can neither be restarted nor deleted.
    #[error("the child is running")]
    Running,
    /// The child is being started, stopped or restarted.
    #[error("the child is being restarted")]
    Restarting,
    /// A child with this id exists but does not run.
    #[error("a child with this id exists already, but does not run")]
    AlreadyPresent,
    /// A child with this id runs.
    #[error("a child with this id is already running")]
    AlreadyStarted,
    /// The supervisor has as many children as it takes.
    #[error("the supervisor takes at most {limit} children")]
    MaxChildren {
        /// The most it takes.
        limit: usize,
    },
    /// The spec makes no sense.
    #[error("the child's specification is invalid")]
    Invalid(#[source] SpecError),
    /// The child did not start.
    #[error("the child did not start")]
    StartFailed(#[source] Failure),
    /// The child was stopped before it had started.
    #[error("the child was stopped before it had started")]
    Stopped,
    /// The supervisor is stopping its children.
    #[error("the supervisor is shutting down")]
    ShuttingDown,
    /// The supervisor does not exist any more.
    #[error("the supervisor has ended")]
    Gone,
}

/// How a supervisor ended.
#[derive(Clone, Debug)]
pub(crate) enum SupervisorExit {
    /// Asked to, or because its significant children ended.
    Clean,
    GaveUp {
        failure: Failure,
        origin: Origin,
    },
}

struct Inner {
    path: ChildPath,
    /// Set before anybody else sees the handle.
    actor: OnceLock<ActorRef<Msg>>,
    exit: OnceLock<SupervisorExit>,
}

/// Talks to one life of one supervisor. Cloning costs one reference count. When the supervisor is restarted the handle
/// stays with the old life: ask the parent for the new one.
#[derive(Clone)]
pub struct SupervisorHandle(Arc<Inner>);

impl fmt::Debug for SupervisorHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SupervisorHandle").field(&self.0.path.as_str()).finish()
    }
}

impl SupervisorHandle {
    pub(crate) fn new(path: ChildPath) -> Self {
        Self(Arc::new(Inner { path, actor: OnceLock::new(), exit: OnceLock::new() }))
    }

    pub(crate) fn set_actor(&self, actor: ActorRef<Msg>) {
        let _ = self.0.actor.set(actor);
    }

    pub(crate) fn cell(&self) -> Result<ActorCell, Failure> {
        let actor = self.0.actor.get();
        actor.map(ActorRef::get_cell).ok_or_else(|| Failure::new(Class::Bug, "no_supervisor", "no supervisor runs"))
    }

    pub(crate) fn set_exit(&self, exit: SupervisorExit) {
        let _ = self.0.exit.set(exit);
    }

    /// How it ended; `None` if it runs, or was killed without a chance to say.
    pub(crate) fn exit(&self) -> Option<&SupervisorExit> {
        self.0.exit.get()
    }

    /// Sends, and does not care if the supervisor is gone: then nobody waits for the effect either.
    pub(crate) fn cast(&self, message: Msg) {
        if let Some(actor) = self.0.actor.get() {
            let _ = actor.send_message(message);
        }
    }

    async fn ask<T>(&self, manage: Manage, answer: oneshot::Receiver<T>) -> Result<T, ManageError> {
        self.cast(Msg::Manage(Box::new(manage)));
        answer.await.map_err(|_| ManageError::Gone)
    }

    /// Starts a new child at the end of the order and gives what its start function had to say (null if nothing).
    ///
    /// # Errors
    /// [`ManageError::AlreadyStarted`], [`AlreadyPresent`](ManageError::AlreadyPresent),
    /// [`MaxChildren`](ManageError::MaxChildren), [`Invalid`](ManageError::Invalid); after
    /// [`StartFailed`](ManageError::StartFailed) the spec is not kept.
    pub async fn start_child(&self, spec: ChildSpec) -> Result<Value, ManageError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Manage::Start(spec, reply), answer).await?
    }

    /// Stops a child, or whatever restart it waits for. Fine if it does not run. The spec is kept, unless the child is
    /// temporary or the supervisor dynamic.
    pub async fn terminate_child(&self, id: &str) -> Result<(), ManageError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Manage::Terminate(id.into(), reply), answer).await?
    }

    /// Starts a child that does not run. One that waits for its restart or is parked is tried now.
    ///
    /// # Errors
    /// [`ManageError::Running`], [`Restarting`](ManageError::Restarting), [`NotFound`](ManageError::NotFound),
    /// [`StartFailed`](ManageError::StartFailed).
    pub async fn restart_child(&self, id: &str) -> Result<Value, ManageError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Manage::Restart(id.into(), reply), answer).await?
    }

    /// Stops a running child and starts it again, with the siblings that the strategy names. Uses up no intensity. A
    /// child that does not run is started.
    pub async fn bounce_child(&self, id: &str) -> Result<Value, ManageError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Manage::Bounce(id.into(), reply), answer).await?
    }

    /// Forgets a child that does not run.
    ///
    /// # Errors
    /// [`ManageError::Running`], [`Restarting`](ManageError::Restarting), [`NotFound`](ManageError::NotFound).
    pub async fn delete_child(&self, id: &str) -> Result<(), ManageError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Manage::Delete(id.into(), reply), answer).await?
    }

    /// Takes new flags and specs without touching what runs, by the rules of OTP's `code_change`: all or nothing. A
    /// child that is in both keeps its life and is treated, and next started, by the new spec. One that only the new
    /// specs have is not started; one that they lack is kept. The order becomes that of the new specs, followed by what
    /// is kept in its old order. What is counted so far still counts, under the new limits.
    /// [`SupervisorSpec::ignore`] changes nothing.
    ///
    /// # Errors
    /// [`ManageError::Invalid`], and nothing has changed. A supervisor cannot become dynamic or cease to be.
    pub async fn change(&self, spec: SupervisorSpec) -> Result<(), ManageError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Manage::Change(spec, reply), answer).await?
    }

    /// All children in start order; none if the supervisor has ended.
    pub async fn which_children(&self) -> Vec<ChildInfo> {
        let (reply, answer) = oneshot::channel();
        self.ask(Manage::Which(reply), answer).await.unwrap_or_default()
    }

    /// Numbers of children; zeros if the supervisor has ended.
    pub async fn count_children(&self) -> Counts {
        let (reply, answer) = oneshot::channel();
        self.ask(Manage::Count(reply), answer).await.unwrap_or_default()
    }

    /// The spec of a child.
    pub async fn child_spec(&self, id: &str) -> Option<ChildSpec> {
        let (reply, answer) = oneshot::channel();
        self.ask(Manage::Spec(id.into(), reply), answer).await.ok().flatten()
    }

    /// The handle of a nested supervisor that runs or is starting its children.
    pub async fn supervisor(&self, id: &str) -> Option<SupervisorHandle> {
        let (reply, answer) = oneshot::channel();
        self.ask(Manage::Supervisor(id.into(), reply), answer).await.ok().flatten()
    }

    /// This supervisor with everything below it. Levels are asked one after another, so a tree in motion may be caught
    /// between two states. A supervisor that has ended shows as stopped.
    pub async fn snapshot(&self) -> NodeView {
        self.look().await.unwrap_or_else(|| NodeView::gone(self.path().clone()))
    }

    fn look(&self) -> BoxFuture<'_, Option<NodeView>> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            let LocalView { mut node, nested } = self.ask(Manage::Snapshot(reply), answer).await.ok()?;
            for (index, supervisor) in nested {
                let below = supervisor.look().await;
                if let (Some(child), Some(below)) = (node.children.get_mut(index), below) {
                    child.restarts_in_window = below.restarts_in_window;
                    child.restarts_left = below.restarts_left;
                    child.restarts_warning = below.restarts_warning;
                    child.children = below.children;
                }
            }
            Some(node)
        })
    }

    /// The supervisor's own actor, for linking and monitoring. Stop it through its parent, not through this.
    pub fn actor(&self) -> Option<ActorCell> {
        self.0.actor.get().map(ActorRef::get_cell)
    }

    /// Where it stands.
    pub fn path(&self) -> &ChildPath {
        &self.0.path
    }

    /// Whether this life of the supervisor still goes on.
    pub fn is_alive(&self) -> bool {
        let status = self.0.actor.get().map(|actor| actor.get_status());
        self.0.exit.get().is_none() && status.is_some_and(|status| status < ractor::ActorStatus::Stopping)
    }
}

/// What a supervisor that was killed from outside is taken to have died of.
pub(crate) fn killed() -> Failure {
    Failure::from(Reason {
        class: Class::Bug,
        code: "killed".to_owned(),
        message: "was killed from outside its supervisor".to_owned(),
    })
}
