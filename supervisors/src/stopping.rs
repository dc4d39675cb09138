//! How children came to their end when they were asked to: what a stop is told of and what it reports.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::event::Event;
use crate::path::ChildPath;
use crate::root::RootEnd;
use crate::zombies::AbandonedLife;

/// Time between the kill of a child and its abandonment. A task that awaits is dropped within microseconds; one that
/// holds a thread for this long is not going to be dropped soon.
pub const KILL_GRACE: Duration = Duration::from_secs(1);

/// What a child says it left may be this long as JSON: it is a note for people, not the thing itself.
pub const LEFT_BYTES_MAX: usize = 4_096;

/// Clean ends that a [`StopReport`] lists; more are only counted. All others are listed.
pub const STOP_REPORT_MAX: usize = 10_000;

/// How a child that was asked to stop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StopOutcome {
    /// By itself, in time.
    Clean,
    /// By force: its time was over, or its spec gives it none.
    Killed,
    /// Not at all: it is fenced, and nobody waits for it any more.
    Abandoned,
    /// By itself, but with a failure.
    Failed,
}

/// How a child was stopped.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stop {
    /// From the request (to drain, if it drains) until it was down or given up.
    #[serde(rename = "took_ms", serialize_with = "as_millis")]
    pub took: Duration,
    /// How it ended.
    pub outcome: StopOutcome,
    /// Whether it was done within its time to drain; `None` if it was not asked to.
    pub drained: Option<bool>,
    /// What it left undone, as it said itself by [`ChildContext::left`](crate::ChildContext::left).
    pub left: Option<Arc<Value>>,
}

/// A child in a [`StopReport`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StoppedChild {
    /// Where it stood.
    pub path: ChildPath,
    /// Which life of it was stopped.
    pub incarnation: u64,
    /// How.
    #[serde(flatten)]
    pub stop: Stop,
}

/// What became of a tree that was asked to stop.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StopReport {
    /// How the tree ended.
    pub end: RootEnd,
    /// From the request to the end.
    #[serde(rename = "took_ms", serialize_with = "as_millis")]
    pub took: Duration,
    /// The children that ran, in the order in which they ended; a supervisor comes after its children. See
    /// [`STOP_REPORT_MAX`].
    pub children: Vec<StoppedChild>,
    /// Clean ends that are not listed.
    pub unlisted: usize,
    /// Abandoned lives that still run, also such as had been abandoned before.
    pub abandoned: Vec<AbandonedLife>,
}

impl StopOutcome {
    /// The name used in logs and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Killed => "killed",
            Self::Abandoned => "abandoned",
            Self::Failed => "failed",
        }
    }
}

impl StopReport {
    /// Whether every child ended by itself, in time, without failure, and left nothing.
    pub fn is_clean(&self) -> bool {
        self.abandoned.is_empty() && self.children.iter().all(|child| child.stop.is_clean())
    }
}

impl Stop {
    fn is_clean(&self) -> bool {
        self.outcome == StopOutcome::Clean && self.left.is_none() && self.drained != Some(false)
    }
}

/// Durations are whole milliseconds in JSON.
pub(crate) fn as_millis<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// What is kept of what a child said it left.
pub(crate) fn bounded_left(left: Value) -> Value {
    let bytes = left.to_string().len();
    if bytes > LEFT_BYTES_MAX { json!({ "too_long_bytes": bytes }) } else { left }
}

/// Collects the stops of a tree from when it is asked to stop.
#[derive(Default)]
pub(crate) struct StopLog(Mutex<Option<(Vec<StoppedChild>, usize)>>);

impl StopLog {
    pub(crate) fn begin(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default();
    }

    /// Notes an event if it tells of a stop.
    pub(crate) fn note(&self, event: &Event) {
        let Some(stop) = &event.stop else { return };
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((listed, unlisted)) = &mut *log else { return };
        if listed.len() >= STOP_REPORT_MAX && stop.is_clean() {
            *unlisted += 1;
        } else {
            let (path, incarnation, stop) = (event.path.clone(), event.incarnation, stop.clone());
            listed.push(StoppedChild { path, incarnation, stop });
        }
    }

    pub(crate) fn collected(&self) -> (Vec<StoppedChild>, usize) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_default()
    }
}
