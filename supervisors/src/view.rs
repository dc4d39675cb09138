//! What a tree looks like at one moment.

use serde::Serialize;
use std::sync::Arc;

use crate::event::WaitReason;
use crate::path::ChildPath;
use crate::policy::Reason;
use crate::spec::{ChildKind, Restart};

/// The state of a child.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum NodeState {
    /// It runs.
    Running,
    /// Its start function runs.
    Starting,
    /// It failed and is restarted later.
    Waiting {
        /// Milliseconds from now until the restart.
        until_ms: u64,
        /// Failures in a row.
        attempt: u32,
        /// What it waits for.
        why: WaitReason,
    },
    /// It is not restarted until a probe or somebody tries.
    Parked {
        /// Why.
        reason: Reason,
    },
    /// It was asked to finish what it has before it is stopped.
    Draining,
    /// It was asked to stop.
    Stopping,
    /// It could not be killed, is fenced, and has no successor.
    Abandoned,
    /// It does not run, and nothing is about to change that.
    Stopped,
}

/// A child with everything below it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeView {
    /// Where it stands.
    pub path: ChildPath,
    /// Worker or supervisor.
    pub kind: ChildKind,
    /// What it does.
    #[serde(flatten)]
    pub state: NodeState,
    /// Which life; 0 if none yet.
    pub incarnation: u64,
    /// Milliseconds since it runs; 0 if it does not.
    pub uptime_ms: u64,
    /// Restarts counted in the window that it is measured by: a supervisor's own, or the child's under
    /// [`OnLimit::ParkChild`](crate::OnLimit::ParkChild).
    pub restarts_in_window: u32,
    /// Restarts left before that limit is reached; `None` for a worker that shares its supervisor's window.
    pub restarts_left: Option<u32>,
    /// Half of that limit or more is used.
    pub restarts_warning: bool,
    /// Its restarts since its supervisor started.
    pub restarts: u64,
    /// Former lives that were abandoned and still run.
    pub abandoned: u32,
    /// What it last failed with.
    pub last_error: Option<Reason>,
    /// Milliseconds since then.
    pub last_error_ms: Option<u64>,
    /// Restarts per hour, decayed; see [`Flapping`](crate::Flapping).
    pub flap_score: f64,
    /// It counts as flapping.
    pub flapping: bool,
    /// The children of a supervisor, in start order.
    pub children: Vec<NodeView>,
}

/// Numbers of children, as OTP's `count_children`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Specs known.
    pub specs: usize,
    /// Children with something alive behind them.
    pub active: usize,
    /// Supervisors among the specs.
    pub supervisors: usize,
    /// Workers among the specs.
    pub workers: usize,
}

/// One line of `which_children`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChildInfo {
    /// Its id.
    pub id: Arc<str>,
    /// Worker or supervisor.
    pub kind: ChildKind,
    /// When it is restarted.
    pub restart: Restart,
    /// What it does.
    pub state: NodeState,
    /// Which life.
    pub incarnation: u64,
}

impl NodeView {
    /// What is shown of a supervisor that does not answer any more.
    pub(crate) fn gone(path: ChildPath) -> Self {
        Self {
            path,
            kind: ChildKind::Supervisor,
            state: NodeState::Stopped,
            incarnation: 0,
            uptime_ms: 0,
            restarts_in_window: 0,
            restarts_left: None,
            restarts_warning: false,
            restarts: 0,
            abandoned: 0,
            last_error: None,
            last_error_ms: None,
            flap_score: 0.0,
            flapping: false,
            children: Vec::new(),
        }
    }
}
