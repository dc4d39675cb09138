//! Specifications: what a child is, how it is started, and how its supervisor treats it.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::TryFutureExt;
use futures::future::BoxFuture;
use ractor::{Actor, ActorCell};
use serde_json::Value;

use crate::actor::start_actor;
use crate::life::ChildContext;
use crate::message::Trouble;
use crate::policy::{Failure, Intensity, RestartPolicy};

/// When a child that ended is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// Always, even after a clean end.
    #[default]
    Permanent,
    /// Only after an abnormal end. Its spec is kept after a clean one (unless the supervisor is dynamic).
    Transient,
    /// Never; its spec is forgotten when it ends.
    Temporary,
}

/// How long a child is given to stop by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// None: killed at once.
    Brutal,
    /// Asked to stop, killed after this time.
    Timeout(Duration),
    /// Asked to stop and waited for, however long. Right for supervisors; dangerous for workers.
    Infinity,
}

/// Whether a child supervises others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChildKind {
    /// Does work.
    Worker,
    /// Supervises children of its own.
    Supervisor,
}

/// Who is restarted when a child fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Only the child that failed.
    #[default]
    OneForOne,
    /// All children.
    OneForAll,
    /// The child that failed and those started after it.
    RestForOne,
}

impl Strategy {
    /// The name used in logs and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OneForOne => "one_for_one",
            Self::OneForAll => "one_for_all",
            Self::RestForOne => "rest_for_one",
        }
    }
}

/// Whether a supervisor ends when its significant children have ended by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AutoShutdown {
    /// It does not.
    #[default]
    Never,
    /// When any of them has.
    AnySignificant,
    /// When all of them have.
    AllSignificant,
}

/// What a supervisor does when the limit of restarts is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnLimit {
    /// Stops all its children and ends with the original reason, as OTP does. The intensity is counted over all
    /// children together.
    #[default]
    Escalate,
    /// Parks the child that failed; its siblings run on. The intensity is counted for each child by itself, so that
    /// one that flaps does not use up the allowance of the others.
    ParkChild,
}

/// What to do when a child fails while its supervisor starts for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum InitialFailure {
    /// The supervisor stops what it had started and fails to start itself, as OTP does.
    #[default]
    Fail,
    /// The failure is treated like a crash of that child: restart policy, back-off, parking.
    Retry,
}

/// Time a child is given to stop unless its spec says otherwise; OTP's default for workers.
pub const DEFAULT_SHUTDOWN: Duration = Duration::from_secs(5);

type TaskFn = dyn Fn(ChildContext) -> BoxFuture<'static, Result<(), Failure>> + Send + Sync;
type StartFn = dyn Fn(ChildContext) -> BoxFuture<'static, Result<Started, Trouble>> + Send + Sync;
type TreeFn = dyn Fn(ChildContext) -> BoxFuture<'static, Result<SupervisorSpec, Failure>> + Send + Sync;

/// How a child comes to life.
#[derive(Clone)]
pub(crate) enum StartHow {
    Task(Arc<TaskFn>),
    Function(Arc<StartFn>),
    Supervisor(Arc<TreeFn>),
    /// A temporary child is never started again, so what its start function holds is let go.
    Forgotten,
}

/// What a child's start function brought to life.
pub struct Started {
    pub(crate) what: Launched,
    pub(crate) info: Value,
}

pub(crate) enum Launched {
    Task(BoxFuture<'static, Result<(), Failure>>),
    Thread(Box<dyn FnOnce() -> Result<(), Failure> + Send>),
    Actor(ActorCell),
    Supervisor(crate::handle::SupervisorHandle),
    Ignore,
}

impl Started {
    /// A future, run as a task of its own; the child lives until it returns.
    pub fn task(future: impl Future<Output = Result<(), Failure>> + Send + 'static) -> Self {
        Self { what: Launched::Task(Box::pin(future)), info: Value::Null }
    }

    /// A blocking function, run on a thread meant for such. It cannot be killed: if it does not heed its
    /// [`StopToken`](crate::StopToken) in time it is abandoned and fenced.
    pub fn thread(function: impl FnOnce() -> Result<(), Failure> + Send + 'static) -> Self {
        Self { what: Launched::Thread(Box::new(function)), info: Value::Null }
    }

    /// A ractor actor that already runs. The supervisor links itself to it.
    pub fn actor(cell: ActorCell) -> Self {
        Self { what: Launched::Actor(cell), info: Value::Null }
    }

    /// Nothing needs to run now; the spec is kept (unless the child is temporary or its supervisor dynamic).
    pub fn ignore() -> Self {
        Self { what: Launched::Ignore, info: Value::Null }
    }

    /// Adds what the log and the caller of `start_child` should know about this start, as OTP's `{ok, Pid, Info}`.
    #[must_use]
    pub fn with_info(mut self, info: Value) -> Self {
        self.info = info;
        self
    }
}

impl fmt::Debug for Started {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match &self.what {
            Launched::Task(_) => "task",
            Launched::Thread(_) => "thread",
            Launched::Actor(_) => "actor",
            Launched::Supervisor(_) => "supervisor",
            Launched::Ignore => "ignore",
        };
        f.debug_struct("Started").field("what", &what).field("info", &self.info).finish()
    }
}

/// What a supervisor needs to know of one child. Cloning is cheap.
#[derive(Clone)]
pub struct ChildSpec {
    /// The child's name among its siblings: not empty, no `/`.
    pub id: Arc<str>,
    /// When it is started again; default permanent.
    pub restart: Restart,
    /// How it is stopped; default 5 s for workers, infinity for supervisors.
    pub shutdown: Shutdown,
    /// Worker or supervisor.
    pub kind: ChildKind,
    /// Whether its end by itself can end its supervisor, see [`AutoShutdown`].
    pub significant: bool,
    /// What happens when it fails; `None` takes the supervisor's.
    pub policy: Option<Arc<RestartPolicy>>,
    /// How long its start function may take; `None` is as long as it likes.
    pub start_timeout: Option<Duration>,
    /// How long it is given to finish what it has and take no more, before it is asked to stop; `None` stops it at
    /// once. Not for supervisors, whose children drain by their own specs.
    pub drain: Option<Duration>,
    pub(crate) how: StartHow,
}

impl ChildSpec {
    fn new(id: impl Into<Arc<str>>, kind: ChildKind, how: StartHow) -> Self {
        let shutdown = match kind {
            ChildKind::Worker => Shutdown::Timeout(DEFAULT_SHUTDOWN),
            ChildKind::Supervisor => Shutdown::Infinity,
        };
        let id = id.into();
        let restart = Restart::Permanent;
        Self { id, restart, shutdown, kind, significant: false, policy: None, start_timeout: None, drain: None, how }
    }

    /// A future supervised directly, without an actor: the cheap worker. `make` is called at every start and must not
    /// block; the child lives until its future returns.
    pub fn task<F, Fut>(id: impl Into<Arc<str>>, make: F) -> Self
    where
        F: Fn(ChildContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        Self::new(id, ChildKind::Worker, StartHow::Task(Arc::new(move |ctx| Box::pin(make(ctx)))))
    }

    /// A worker with a start function of its own. It runs outside the supervisor's message loop, so it may take its
    /// time; siblings that come later in the order wait for it.
    pub fn start<F, Fut>(id: impl Into<Arc<str>>, start: F) -> Self
    where
        F: Fn(ChildContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Started, Failure>> + Send + 'static,
    {
        Self::new(
            id,
            ChildKind::Worker,
            StartHow::Function(Arc::new(move |ctx| Box::pin(start(ctx).map_err(Trouble::from)))),
        )
    }

    /// A blocking function on a thread of its own, see [`Started::thread`].
    pub fn thread<F>(id: impl Into<Arc<str>>, function: F) -> Self
    where
        F: Fn(ChildContext) -> Result<(), Failure> + Send + Sync + 'static,
    {
        let function = Arc::new(function);
        Self::start(id, move |ctx| {
            let function = Arc::clone(&function);
            async move { Ok(Started::thread(move || function(ctx))) }
        })
    }

    /// A supervisor below this one. Its spec is computed at every start, so its children reflect what is configured
    /// by then.
    pub fn supervisor<F, Fut>(id: impl Into<Arc<str>>, spec: F) -> Self
    where
        F: Fn(ChildContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<SupervisorSpec, Failure>> + Send + 'static,
    {
        Self::new(id, ChildKind::Supervisor, StartHow::Supervisor(Arc::new(move |ctx| Box::pin(spec(ctx)))))
    }

    /// A ractor actor: `make` gives the handler and its arguments at every start. An error from the actor that is a
    /// [`Failure`] keeps its class; any other counts as a bug; [`Ignore`](crate::Ignore) from its `pre_start` means that
    /// nothing needs to run. It is asked to drain by ractor's own drain.
    pub fn actor<A, F>(id: impl Into<Arc<str>>, make: F) -> Self
    where
        A: Actor,
        F: Fn(ChildContext) -> (A, A::Arguments) + Send + Sync + 'static,
    {
        let make = Arc::new(make);
        let start = move |ctx| -> BoxFuture<'static, Result<Started, Trouble>> {
            let make = Arc::clone(&make);
            Box::pin(async move { start_actor(ctx, &*make).await })
        };
        Self::new(id, ChildKind::Worker, StartHow::Function(Arc::new(start)))
    }

    /// Sets when it is started again.
    #[must_use]
    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// Sets how it is stopped.
    #[must_use]
    pub fn shutdown(mut self, shutdown: Shutdown) -> Self {
        self.shutdown = shutdown;
        self
    }

    /// Sets what happens when it fails, instead of the supervisor's policy.
    #[must_use]
    pub fn policy(mut self, policy: RestartPolicy) -> Self {
        self.policy = Some(Arc::new(policy));
        self
    }

    /// Marks it as significant for [`AutoShutdown`].
    #[must_use]
    pub fn significant(mut self, significant: bool) -> Self {
        self.significant = significant;
        self
    }

    /// Limits how long its start may take.
    #[must_use]
    pub fn start_timeout(mut self, limit: Duration) -> Self {
        self.start_timeout = Some(limit);
        self
    }

    /// Asks it to drain, for at most this long, whenever it is to be stopped: by a call, by a sibling's restart, with its
    /// supervisor. Its context tells it by [`StopToken::draining`](crate::StopToken::draining).
    #[must_use]
    pub fn drain(mut self, limit: Duration) -> Self {
        self.drain = Some(limit);
        self
    }

    /// Says that an actor or task supervises others, which `which_children` and `count_children` show.
    #[must_use]
    pub fn kind(mut self, kind: ChildKind) -> Self {
        self.kind = kind;
        self
    }
}

impl fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildSpec")
            .field("id", &self.id)
            .field("restart", &self.restart)
            .field("shutdown", &self.shutdown)
            .field("kind", &self.kind)
            .field("significant", &self.significant)
            .finish_non_exhaustive()
    }
}

/// What a supervisor is: its flags and its first children.
#[derive(Clone, Debug, Default)]
pub struct SupervisorSpec {
    /// Who is restarted when a child fails; default one for one.
    pub strategy: Strategy,
    /// How many restarts are allowed; default one in five seconds.
    pub intensity: Intensity,
    /// What follows when they are used up; default escalate.
    pub on_limit: OnLimit,
    /// Whether the end of significant children ends the supervisor; default never.
    pub auto_shutdown: AutoShutdown,
    /// What happens when a child fails whose spec does not say; default: restart at once.
    pub policy: RestartPolicy,
    /// The children to start, in this order; they are stopped in the reverse one.
    pub children: Vec<ChildSpec>,
    /// Children come and go: they have no order, are stopped all at once, and are forgotten when they end for good or
    /// are terminated. Needs one for one.
    pub dynamic: bool,
    /// The most children it takes; `None` is no limit.
    pub max_children: Option<usize>,
    /// What a failure during the first start means; default: the supervisor fails to start.
    pub initial_failure: InitialFailure,
    /// There is nothing to supervise: the start counts as done and no supervisor runs, see [`SupervisorSpec::ignore`].
    pub ignore: bool,
}

impl SupervisorSpec {
    /// A supervisor with this strategy and defaults otherwise.
    pub fn new(strategy: Strategy) -> Self {
        Self { strategy, ..Self::default() }
    }

    /// A dynamic supervisor: one for one, children without order.
    pub fn dynamic() -> Self {
        Self { dynamic: true, ..Self::default() }
    }

    /// What a [`ChildSpec::supervisor`] gives if nothing needs to run now; in a
    /// [`change`](crate::SupervisorHandle::change) it means that nothing changes.
    pub fn ignore() -> Self {
        Self { ignore: true, ..Self::default() }
    }

    /// Adds a child at the end of the order.
    #[must_use]
    pub fn child(mut self, child: ChildSpec) -> Self {
        self.children.push(child);
        self
    }

    /// Allows `max_restarts` within `window`.
    #[must_use]
    pub fn intensity(mut self, max_restarts: u32, window: Duration) -> Self {
        self.intensity = Intensity { max_restarts, window };
        self
    }

    /// Sets what follows when the restarts are used up.
    #[must_use]
    pub fn on_limit(mut self, on_limit: OnLimit) -> Self {
        self.on_limit = on_limit;
        self
    }

    /// Sets whether the end of significant children ends the supervisor.
    #[must_use]
    pub fn auto_shutdown(mut self, auto_shutdown: AutoShutdown) -> Self {
        self.auto_shutdown = auto_shutdown;
        self
    }

    /// Sets what happens when a child fails whose spec does not say.
    #[must_use]
    pub fn policy(mut self, policy: RestartPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Limits the number of children.
    #[must_use]
    pub fn max_children(mut self, most: usize) -> Self {
        self.max_children = Some(most);
        self
    }

    /// Sets what a failure during the first start means.
    #[must_use]
    pub fn initial_failure(mut self, initial_failure: InitialFailure) -> Self {
        self.initial_failure = initial_failure;
        self
    }
}
