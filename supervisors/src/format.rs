//! Events for people and for logs: one line, several lines, JSON.
//!
//! All of them say what failed and what follows, never what a start function or a child had to say in detail beyond
//! what it left; each is bounded by a number of characters.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use crate::backtraces::PanicReport;
use crate::event::Event;
use crate::flap::FlapUse;
use crate::policy::Reason;
use crate::stopping::Stop;

/// Characters of an event in one line unless somebody says otherwise: what a terminal shows without losing the thread.
pub const LINE_CHARS_MAX: usize = 400;

/// Characters of a text in JSON, and of an event in several lines, unless somebody says otherwise: with room for a
/// backtrace.
pub const REPORT_CHARS_MAX: usize = 8_000;

/// Stands for what was cut off.
const CUT: char = '…';

impl Event {
    /// One line without control characters, at most `chars_max` characters: what, who, why, and what follows.
    pub fn one_line(&self, chars_max: usize) -> String {
        let mut line = format!("{} {}#{}", self.kind.as_str(), self.path, self.incarnation);
        for (name, value) in self.fields() {
            let _ = write!(line, " {name}={value}");
        }
        if let Some(reason) = &self.reason {
            let _ = write!(line, " {reason}");
        }
        cut(&printable(&line), chars_max)
    }

    /// A title and a line for everything that is known, at most `chars_max` characters. Only the backtrace has lines of
    /// its own, indented.
    pub fn multi_line(&self, chars_max: usize) -> String {
        let mut text = format!("{} {}", self.kind.as_str().to_uppercase(), printable(self.path.as_str()));
        let mut row = |name: &str, value: &str| {
            let _ = write!(text, "\n  {name:<14}{}", printable(value));
        };
        row("incarnation", &self.incarnation.to_string());
        if let Some(reason) = &self.reason {
            row("reason", &reason.to_string());
        }
        for (name, value) in self.fields() {
            row(name, &value);
        }
        if let Some(panic) = &self.panic {
            row("panicked at", panic.location());
            for call in panic.backtrace().into_iter().flat_map(str::lines) {
                let _ = write!(text, "\n    {}", printable(call));
            }
        }
        cut(&text, chars_max)
    }

    /// One JSON object with the keys of [`EventKind`](crate::EventKind)'s log: absent facts are left out, durations are
    /// whole milliseconds, each text has at most `chars_max` characters.
    pub fn to_json(&self, chars_max: usize) -> serde_json::Value {
        let reason = self.reason.as_ref().map(|reason| Reason {
            class: reason.class,
            code: cut(&reason.code, chars_max),
            message: cut(&reason.message, chars_max),
        });
        let backtrace = self.panic.as_deref().and_then(PanicReport::backtrace).map(|text| cut(text, chars_max));
        let shown = Shown {
            event: self.kind.as_str(),
            incident: self.incident.as_deref(),
            path: cut(self.path.as_str(), chars_max),
            incarnation: self.incarnation,
            reason,
            strategy: self.strategy.map(crate::spec::Strategy::as_str),
            attempt: (self.attempt > 0).then_some(self.attempt),
            delay_ms: self.delay.map(millis),
            wait: self.wait.map(crate::event::WaitReason::as_str),
            paced_ms: self.paced.map(millis),
            window: self.window.map(|window| ShownWindow {
                used: window.used,
                limit: window.limit,
                seconds: window.window.as_secs_f64(),
                warning: window.warning,
            }),
            flap: self.flap.map(|flap| FlapUse { score: (flap.score * 100.0).round() / 100.0, ..flap }),
            recovered_in_ms: self.recovered_in.map(millis),
            because_of: self.because_of.as_ref().map(|path| cut(path.as_str(), chars_max)),
            location: self.panic.as_ref().map(|panic| cut(panic.location(), chars_max)),
            backtrace,
            stop: self.stop.as_ref(),
        };
        serde_json::to_value(shown).unwrap_or_default()
    }

    /// What is known besides kind, path, incarnation and reason, in the order of the story.
    fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = Vec::new();
        let mut put = |name, value: Option<String>| fields.extend(value.map(|value| (name, value)));
        put("incident", self.incident.as_deref().map(str::to_owned));
        put("because_of", self.because_of.as_ref().map(ToString::to_string));
        put("strategy", self.strategy.map(|strategy| strategy.as_str().to_owned()));
        put("attempt", (self.attempt > 0).then(|| self.attempt.to_string()));
        put("delay", self.delay.map(|delay| format!("{delay:?}")));
        put("wait", self.wait.map(|wait| wait.as_str().to_owned()));
        put("paced", self.paced.map(|paced| format!("{paced:?}")));
        put(
            "window",
            self.window.map(|window| {
                let warning = if window.warning { " (half used)" } else { "" };
                format!("{}/{} in {:?}{warning}", window.used, window.limit, window.window)
            }),
        );
        put(
            "flapping",
            self.flap.filter(|flap| flap.flapping).map(|flap| {
                let alert = if flap.alert { " (begins)" } else { "" };
                format!("{:.1}/h{alert}", flap.score)
            }),
        );
        put("recovered_in", self.recovered_in.map(|time| format!("{time:?}")));
        if let Some(stop) = &self.stop {
            put("took", Some(format!("{:?}", stop.took)));
            put("outcome", Some(outcome(stop)));
            put("left", stop.left.as_ref().map(ToString::to_string));
        }
        fields
    }
}

fn outcome(stop: &Stop) -> String {
    let drained = match stop.drained {
        Some(true) => ", drained",
        Some(false) => ", not drained",
        None => "",
    };
    format!("{}{drained}", stop.outcome.as_str())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Text without control characters: a message from outside must not forge a line of its own.
fn printable(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect()
}

fn cut(text: &str, chars_max: usize) -> String {
    if text.chars().nth(chars_max).is_none() {
        return text.to_owned();
    }
    let kept: String = text.chars().take(chars_max.saturating_sub(1)).collect();
    if chars_max == 0 { kept } else { kept + &CUT.to_string() }
}

#[derive(Serialize)]
struct Shown<'a> {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    incident: Option<&'a str>,
    path: String,
    incarnation: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strategy: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wait: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    paced_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<ShownWindow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flap: Option<FlapUse>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered_in_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    because_of: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backtrace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop: Option<&'a Stop>,
}

#[derive(Serialize)]
struct ShownWindow {
    used: u32,
    limit: u32,
    seconds: f64,
    warning: bool,
}
