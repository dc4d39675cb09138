//! Where the restart events go: a bounded ring of JSON lines and the number of every child's newest life, as a runtime's
//! restart log would have them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use serde::Serialize;
use supervisors::{ChildPath, Event, Observer, Reason};

/// As many events as the other side keeps reports.
const RING: usize = 10_000;

#[derive(Default)]
struct Kept {
    lines: VecDeque<Vec<u8>>,
    lives: HashMap<ChildPath, u64>,
}

/// Keeps the newest events.
#[derive(Default)]
pub(crate) struct Ring(Mutex<Kept>);

#[derive(Serialize)]
struct Line<'a> {
    ts_us: u128,
    incident: Option<&'a str>,
    path: &'a str,
    incarnation: u64,
    event: &'static str,
    reason: Option<&'a Reason>,
    strategy: Option<&'static str>,
    attempt: u32,
    delay_ms: Option<u128>,
    recovered_in_us: Option<u128>,
    because_of: Option<&'a str>,
}

impl Observer for Ring {
    fn record(&self, event: Event) {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let line = Line {
            ts_us: since_epoch.as_micros(),
            incident: event.incident.as_deref(),
            path: event.path.as_str(),
            incarnation: event.incarnation,
            event: event.kind.as_str(),
            reason: event.reason.as_ref(),
            strategy: event.strategy.map(|strategy| strategy.as_str()),
            attempt: event.attempt,
            delay_ms: event.delay.map(|delay| delay.as_millis()),
            recovered_in_us: event.recovered_in.map(|took| took.as_micros()),
            because_of: event.because_of.as_ref().map(ChildPath::as_str),
        };
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = if kept.lines.len() < RING { None } else { kept.lines.pop_front() }.unwrap_or_default();
        bytes.clear();
        if serde_json::to_writer(&mut bytes, &line).is_ok() {
            kept.lines.push_back(bytes);
        }
    }

    fn next_incarnation(&self, path: &ChildPath) -> u64 {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let life = kept.lives.entry(path.clone()).or_default();
        *life += 1;
        *life
    }
}
