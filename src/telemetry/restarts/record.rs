//! One record of the restart log, and what to look for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::names::StreamId;
use crate::times::timestamp;

/// The values of [`RestartRecord::event`].
pub const EVENTS: [&str; 9] =
    ["started", "failed", "restarting", "restarted", "parked", "probed", "abandoned", "stopped", "escalated"];

/// The values of [`Reason::class`].
pub const CLASSES: [&str; 9] =
    ["transient", "rate_limited", "config", "auth", "data", "resource", "bug", "fenced", "hung"];

/// A message longer than this is cut: a record is one line that somebody reads.
const MESSAGE_CHARS_MAX: usize = 2_000;

/// Positions beyond this are left out of a record; the checkpoint itself has them all.
const POSITIONS_MAX: usize = 100;

/// Why something failed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reason {
    /// transient, rate_limited, config, auth, data, resource, bug, fenced, hung.
    pub class: String,
    /// A stable name in snake case.
    pub code: String,
    /// One sentence; no payload, no secret.
    pub message: String,
}

/// The checkpoint from which a child went on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ResumedFrom {
    /// The last committed epoch, 0 before the first.
    pub epoch: u64,
    /// Positions by partition.
    pub positions: BTreeMap<String, String>,
}

/// An allowance of restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Window {
    /// Restarts within it.
    pub used: u32,
    /// Restarts that are allowed.
    pub limit: u32,
}

/// One event in a supervised child's life, as interface §5 has it. Every key is in the JSON, `null` where it does not
/// apply.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RestartRecord {
    /// As [`timestamp`] writes it; the log fills it in where it is empty.
    pub ts: String,
    /// Common to a failure and all that followed from it; `None` for what no failure caused.
    pub incident: Option<String>,
    /// As in the tree.
    pub path: String,
    /// Which start of the child this is about, from 1.
    pub incarnation: u64,
    /// One of [`EVENTS`].
    pub event: String,
    /// What failed.
    pub reason: Option<Reason>,
    /// The strategy or policy that decided what happens next.
    pub strategy: Option<String>,
    /// Which try to bring the child back, from 1.
    pub attempt: Option<u32>,
    /// Until the child is started again.
    pub delay_ms: Option<u64>,
    /// Where the child went on.
    pub resumed_from: Option<ResumedFrom>,
    /// From the failure to a child that is up.
    pub recovered_in_ms: Option<u64>,
    /// The path of the child whose failure made this one be stopped and restarted, or its supervisor give up; `None`
    /// where it is itself the first cause.
    pub because_of: Option<String>,
    /// Of a panic: the calls that led there, one a line, the innermost first. It comes a moment after the record. Of a
    /// storm of panics at one place only some have one.
    pub backtrace: Option<String>,
    /// Of a restart: how much of the allowance of restarts is used, this one included.
    pub window: Option<Window>,
    /// Of a restart: restarts per hour of this child, decayed.
    pub flap_score: Option<f64>,
    /// Of what was asked to stop: how it ended, `{took_ms, outcome, drained, left}`.
    pub stop: Option<serde_json::Value>,
    /// What the person on call can do. The log fills it in from the reason where it is `None`.
    pub remedy: Option<String>,
}

impl RestartRecord {
    /// Whether it tells of a start or a stop that no failure caused.
    pub(super) fn is_plain_life(&self) -> bool {
        self.incident.is_none() && self.reason.is_none() && matches!(self.event.as_str(), "started" | "stopped")
    }

    /// Bounds what came from outside and fills in what the log knows.
    pub(super) fn complete(&mut self, now_us: i64) {
        if self.ts.is_empty() {
            self.ts = timestamp(now_us);
        }
        if let Some(reason) = &mut self.reason {
            cut(&mut reason.message, MESSAGE_CHARS_MAX);
            if self.remedy.is_none() {
                self.remedy = Some(super::remedy(&reason.class, &reason.code).to_owned());
            }
        }
        if let Some(resumed) = &mut self.resumed_from {
            while resumed.positions.len() > POSITIONS_MAX {
                resumed.positions.pop_last();
            }
        }
    }
}

fn cut(text: &mut String, chars: usize) {
    if let Some((at, _)) = text.char_indices().nth(chars) {
        text.truncate(at);
    }
}

/// What to look for in the log. The default finds everything, from the oldest, one page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Not before this time, µs since the epoch.
    pub since_us: Option<i64>,
    /// Not after this time, µs since the epoch.
    pub until_us: Option<i64>,
    /// Only these of [`EVENTS`]; empty = all.
    pub events: Vec<String>,
    /// Only the stream's own children.
    pub stream: Option<StreamId>,
    /// Only failures of this class.
    pub class: Option<String>,
    /// Only one incident.
    pub incident: Option<String>,
    /// A cursor that an answer gave as `next`; 0 = from the oldest.
    pub after: u64,
    /// Records of one answer.
    pub limit: usize,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            since_us: None,
            until_us: None,
            events: Vec::new(),
            stream: None,
            class: None,
            incident: None,
            after: 0,
            limit: 100,
        }
    }
}

impl Filter {
    /// Whether what it asks for can only stand among failures and what followed from them.
    pub(super) fn wants_failures_only(&self) -> bool {
        let lives = |event: &String| event == "started" || event == "stopped";
        let other_events = !self.events.is_empty() && !self.events.iter().any(lives);
        self.class.is_some() || self.incident.is_some() || other_events
    }
}

/// A [`Filter`] made ready to look at many lines.
#[derive(Debug)]
pub(super) struct Sieve<'a> {
    filter: &'a Filter,
    since: Option<String>,
    until: Option<String>,
    stream: Option<String>,
}

impl<'a> Sieve<'a> {
    pub(super) fn new(filter: &'a Filter) -> Self {
        let stream = filter.stream.as_ref().map(|id| format!("lakefeed/tenants/{}/{}", id.tenant(), id.stream()));
        Self { filter, since: filter.since_us.map(timestamp), until: filter.until_us.map(timestamp), stream }
    }

    /// The record in `line`, if it is asked for.
    pub(super) fn pick(&self, line: &str) -> Option<RestartRecord> {
        // Looking for the text first spares parsing most lines; parsing then decides.
        let needles = [self.stream.as_deref(), self.filter.incident.as_deref(), self.filter.class.as_deref()];
        let escaped = |needle: &str| needle.contains(['"', '\\']) || !needle.is_ascii();
        if needles.into_iter().flatten().any(|needle| !escaped(needle) && !line.contains(needle)) {
            return None;
        }
        let record: RestartRecord = serde_json::from_str(line).ok()?;
        let stream = self.stream.as_deref().is_none_or(|prefix| {
            record.path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        let class = self.filter.class.as_deref();
        let class = class.is_none_or(|class| record.reason.as_ref().is_some_and(|reason| reason.class == class));
        let incident = self.filter.incident.as_deref();
        let incident = incident.is_none_or(|incident| record.incident.as_deref() == Some(incident));
        let since = self.since.as_deref().is_none_or(|since| record.ts.as_str() >= since);
        let until = self.until.as_deref().is_none_or(|until| record.ts.as_str() <= until);
        let event = self.filter.events.is_empty() || self.filter.events.contains(&record.event);
        (stream && class && incident && since && until && event).then_some(record)
    }
}
