//! The restart log: what a supervisor tells its observer.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::backtraces::PanicReport;
use crate::flap::FlapUse;
use crate::path::ChildPath;
use crate::policy::Reason;
use crate::spec::Strategy;
use crate::stopping::Stop;
use crate::window::WindowUse;

/// Receives every event of a tree and numbers the lives of its children.
pub trait Observer: Send + Sync {
    /// Takes an event. Called from the supervisors' message loops, in the order of what happens under each of them: it
    /// must not block for long, nor panic. Time stamps are its own business.
    fn record(&self, event: Event);

    /// The number of the life that is about to begin, counted from 1. Called before the child's start function runs,
    /// so that the number can be made durable first.
    fn next_incarnation(&self, path: &ChildPath) -> u64;
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A child runs for the first time, or again at somebody's request.
    Started,
    /// A child ended abnormally, did not start, or hangs.
    Failed,
    /// A restart was decided; it happens after `delay`.
    Restarting,
    /// A child runs again.
    Restarted,
    /// A child is not restarted until a probe or somebody tries it again.
    Parked,
    /// A parked child is tried again.
    Probed,
    /// A child could not be killed. Its life is fenced; whatever it still does does not count.
    Abandoned,
    /// A child was stopped or ended by itself. A `reason` says what was wrong with its end, if anything.
    Stopped,
    /// A supervisor's limit is reached: it stops its children and ends, with the reason of the child that failed.
    Escalated,
}

impl EventKind {
    /// The name used in logs and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Failed => "failed",
            Self::Restarting => "restarting",
            Self::Restarted => "restarted",
            Self::Parked => "parked",
            Self::Probed => "probed",
            Self::Abandoned => "abandoned",
            Self::Stopped => "stopped",
            Self::Escalated => "escalated",
        }
    }
}

/// One entry of the restart log.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The incident that it belongs to: 16 hex digits, the same from a first failure through every restart and
    /// escalation that it causes. `None` where nothing failed.
    pub incident: Option<Arc<str>>,
    /// Whom it is about.
    pub path: ChildPath,
    /// Which life of it; 0 if it has not lived.
    pub incarnation: u64,
    /// What happened.
    pub kind: EventKind,
    /// What was wrong. On the upper levels of an escalation, still the original reason.
    pub reason: Option<Reason>,
    /// The strategy under which a restart happens.
    pub strategy: Option<Strategy>,
    /// Failures in a row so far.
    pub attempt: u32,
    /// How long a restart is put off; for a parked child, until its next probe.
    pub delay: Option<Duration>,
    /// What the start function had to say, see [`Started::with_info`](crate::Started::with_info).
    pub info: Option<Value>,
    /// From the child's end until it ran again.
    pub recovered_in: Option<Duration>,
    /// The child whose failure made this one be stopped and restarted, or its supervisor end.
    pub because_of: Option<ChildPath>,
    /// On `restarting`: why it is put off, if it is.
    pub wait: Option<WaitReason>,
    /// How long the storm limiter puts the restart off (on `restarting`), or did in all (on `restarted`).
    pub paced: Option<Duration>,
    /// On `restarting`: how much of the allowance of restarts is used.
    pub window: Option<WindowUse>,
    /// On `restarting`: how often the child has been restarted lately.
    pub flap: Option<FlapUse>,
    /// On `failed`: where it panicked, if it did.
    pub panic: Option<Arc<PanicReport>>,
    /// On `stopped`: how the child ended that was asked to; `None` if it ended by itself or did not run.
    pub stop: Option<Stop>,
}

/// Why a restart waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitReason {
    /// Its policy's back-off.
    Backoff,
    /// The failure itself said when to try again.
    RetryAfter,
    /// The storm limiter, see [`Pacing`](crate::Pacing).
    Paced,
}

impl WaitReason {
    /// The name used in logs and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Backoff => "backoff",
            Self::RetryAfter => "retry_after",
            Self::Paced => "paced",
        }
    }
}

impl Event {
    /// An event with nothing but its subject.
    pub(crate) fn plain(path: ChildPath, incarnation: u64, kind: EventKind) -> Self {
        Self {
            incident: None,
            path,
            incarnation,
            kind,
            reason: None,
            strategy: None,
            attempt: 0,
            delay: None,
            info: None,
            recovered_in: None,
            because_of: None,
            wait: None,
            paced: None,
            window: None,
            flap: None,
            panic: None,
            stop: None,
        }
    }
}
