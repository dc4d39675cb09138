//! What a supervisor's actor is sent. Only control travels here, never data.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::oneshot;

use crate::backtraces::PanicReport;
use crate::handle::{ManageError, SupervisorHandle};
use crate::life::Seq;
use crate::path::ChildPath;
use crate::policy::Failure;
use crate::spec::{ChildSpec, Started, SupervisorSpec};
use crate::view::{ChildInfo, Counts, NodeView};

/// Where trouble comes from: carried upwards so that every level tells the same story.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) incident: Arc<str>,
    pub(crate) because_of: ChildPath,
}

/// A failure together with the incident it already belongs to, and the panic it was.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub(crate) failure: Failure,
    pub(crate) origin: Option<Origin>,
    pub(crate) panic: Option<Arc<PanicReport>>,
}

impl Trouble {
    pub(crate) fn new(failure: Failure, origin: Option<Origin>) -> Self {
        Self { failure, origin, panic: None }
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::new(failure, None)
    }
}

/// How a child ended.
#[derive(Debug)]
pub(crate) enum Exit {
    Clean,
    /// Its task was dropped before it returned.
    Cancelled,
    Failed(Box<Trouble>),
}

pub(crate) type Reply<T> = oneshot::Sender<Result<T, ManageError>>;

pub(crate) enum Manage {
    Start(ChildSpec, Reply<Value>),
    Terminate(Arc<str>, Reply<()>),
    Restart(Arc<str>, Reply<Value>),
    Bounce(Arc<str>, Reply<Value>),
    Delete(Arc<str>, Reply<()>),
    Change(SupervisorSpec, Reply<()>),
    Which(oneshot::Sender<Vec<ChildInfo>>),
    Count(oneshot::Sender<Counts>),
    Spec(Arc<str>, oneshot::Sender<Option<ChildSpec>>),
    Supervisor(Arc<str>, oneshot::Sender<Option<SupervisorHandle>>),
    Snapshot(oneshot::Sender<LocalView>),
}

/// A supervisor's own part of a snapshot: its children, and whom to ask for theirs.
pub(crate) struct LocalView {
    pub(crate) node: NodeView,
    /// Index into `node.children` and the supervisor to ask.
    pub(crate) nested: Vec<(usize, SupervisorHandle)>,
}

pub(crate) enum Msg {
    /// Start the initial children.
    Begin,
    /// A child's task ended.
    Ended {
        seq: Seq,
        life: u64,
        exit: Exit,
    },
    /// A child's start function returned.
    StartDone {
        seq: Seq,
        life: u64,
        result: Box<Result<Started, Trouble>>,
    },
    /// A nested supervisor exists; its children are being started.
    Nested {
        seq: Seq,
        life: u64,
        handle: SupervisorHandle,
    },
    /// A child promised progress for the first time since its last timer.
    Watch {
        seq: Seq,
        life: u64,
    },
    /// The alarm of the earliest timer rang.
    Tick,
    Manage(Box<Manage>),
    /// Stop all children in order, then end.
    Shutdown,
    /// Be done with it: kill what still runs, all at once.
    Hurry,
}
