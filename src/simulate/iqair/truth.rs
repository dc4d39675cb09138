//! What the stand-in handed over, and how it was asked.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::faults::Fault;
use super::stations::Observation;

/// Partitions that are kept apart: as many as the design plans for, and a wild client must not fill the memory.
const PARTITIONS_MAX: usize = 100_000;
/// Distinct observations kept in memory, about 400 bytes each; the file goes on.
const HANDED_MAX: usize = 1_000_000;
/// Arrivals kept in memory, 24 bytes each.
const ARRIVALS_MAX: usize = 4_000_000;
/// A client that gives a request up and asks again may be seen asking before its leaving is seen.
const LEAVING_GRACE: Duration = Duration::from_millis(200);
/// A request this little before the end of a window has kept it: the two clocks round differently.
const WINDOW_TOLERANCE: Duration = Duration::from_millis(5);

/// An observation that was handed over: a whole body with it was written.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Handed {
    /// The number of the station.
    pub station: usize,
    /// The partition, named as a stream names it by the request's values.
    pub partition: String,
    /// The tick whose state it was.
    pub tick: u64,
    /// When its last byte was about to be written, µs since the epoch, UTC.
    pub at_us: i64,
    /// False where the last bytes could not be written or the stand-in was stopped meanwhile, so that the client may
    /// or may not have them.
    pub sent: bool,
    /// What was handed over.
    pub observation: Observation,
}

/// A request's arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// The number of the station that it asked for.
    pub station: usize,
    /// µs since the epoch, UTC.
    pub at_us: i64,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// The whole answer was written while the client was there.
    Whole,
    /// The client went, or could not be written to.
    ClientLeft,
    /// The stand-in itself ended the connection.
    Ended,
}

#[derive(Debug, Default)]
struct Part {
    requests: u64,
    window_end: Option<Instant>,
    open: Vec<Open>,
    /// Where its newest observation stands in `handed`.
    newest: Option<usize>,
}

#[derive(Debug)]
struct Open {
    ticket: u64,
    overlapped: Option<Instant>,
}

#[derive(Debug, Default)]
struct State {
    parts: HashMap<String, Part>,
    handed: Vec<Handed>,
    arrivals: Vec<Arrival>,
    faults: BTreeMap<&'static str, u64>,
    requests: u64,
    overlaps: u64,
    in_retry_after: u64,
    unrecorded: u64,
    tickets: u64,
    file: Option<File>,
    file_error: Option<io::ErrorKind>,
}

/// The record of a stand-in. What it holds can be read at any time and stays readable after the stop.
#[derive(Debug, Default)]
pub struct Truth {
    state: Mutex<State>,
    keep_arrivals: bool,
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct Ticket {
    partition: String,
    number: u64,
    /// How many requests for the partition came before.
    pub(super) nth: u64,
}

/// A hand-over whose last write is under way.
#[derive(Debug)]
pub(super) struct Handing {
    /// Where it stands in memory.
    at: Option<usize>,
    handed: Handed,
}

impl Truth {
    pub(super) fn new(file: Option<&Path>, keep_arrivals: bool) -> io::Result<Self> {
        let file = file.map(File::create).transpose()?;
        Ok(Self { state: Mutex::new(State { file, ..State::default() }), keep_arrivals })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request of `partition` in.
    pub(super) fn arrived(&self, partition: &str, station: Option<usize>, now_us: i64) -> Ticket {
        let now = Instant::now();
        let mut guard = self.state();
        let state = &mut *guard;
        state.requests += 1;
        state.tickets += 1;
        if let (true, Some(station)) = (self.keep_arrivals && state.arrivals.len() < ARRIVALS_MAX, station) {
            state.arrivals.push(Arrival { station, at_us: now_us });
        }
        let number = state.tickets;
        let room = state.parts.len() < PARTITIONS_MAX;
        if !room && !state.parts.contains_key(partition) {
            state.unrecorded += 1;
            return Ticket { partition: String::new(), number, nth: number };
        }
        let part = state.parts.entry(partition.to_owned()).or_default();
        if part.window_end.is_some_and(|end| now + WINDOW_TOLERANCE < end) {
            state.in_retry_after += 1;
        }
        for open in &mut part.open {
            open.overlapped.get_or_insert(now);
        }
        part.open.push(Open { ticket: number, overlapped: None });
        part.requests += 1;
        Ticket { partition: partition.to_owned(), number, nth: part.requests - 1 }
    }

    pub(super) fn fault(&self, fault: Fault) {
        *self.state().faults.entry(fault.name()).or_default() += 1;
    }

    /// The request is over, for whichever call comes first. `window`: until when the client was asked to stay away.
    pub(super) fn ended(&self, ticket: &Ticket, ending: Ending, window: Option<Instant>) {
        let now = Instant::now();
        let mut guard = self.state();
        let state = &mut *guard;
        let Some(part) = state.parts.get_mut(&ticket.partition) else { return };
        let Some(at) = part.open.iter().position(|open| open.ticket == ticket.number) else { return };
        let open = part.open.swap_remove(at);
        let left_in_time = |since: Instant| ending == Ending::ClientLeft && now - since < LEAVING_GRACE;
        if open.overlapped.is_some_and(|since| !left_in_time(since)) {
            state.overlaps += 1;
        }
        if ending == Ending::Whole {
            part.window_end = part.window_end.max(window);
        }
    }

    /// The next write makes a body with an observation whole. Close with [`Truth::handed_over`].
    pub(super) fn handing(&self, handed: Handed) -> Handing {
        let mut guard = self.state();
        let state = &mut *guard;
        let mut at = None;
        if let Some(part) = state.parts.get_mut(&handed.partition) {
            let same = |at: &usize| state.handed[*at].observation == handed.observation;
            at = part.newest.filter(same);
            if at.is_none() && state.handed.len() < HANDED_MAX {
                at = Some(state.handed.len());
                part.newest = at;
                state.handed.push(handed.clone());
            }
        }
        state.unrecorded += u64::from(at.is_none());
        Handing { at, handed }
    }

    /// That write was done, and the client was there or not.
    pub(super) fn handed_over(&self, mut handing: Handing, sent: bool) {
        let mut guard = self.state();
        let state = &mut *guard;
        if let Some(kept) = handing.at.and_then(|at| state.handed.get_mut(at)) {
            kept.sent |= sent;
        }
        handing.handed.sent = sent;
        if let (Some(file), Ok(mut line)) = (&mut state.file, serde_json::to_vec(&handing.handed)) {
            line.push(b'\n');
            if let Err(error) = file.write_all(&line) {
                state.file_error.get_or_insert(error.kind());
            }
        }
    }

    /// What was handed over, in order; an observation that was given several times in a row stands there once, with
    /// the tick and time of the first. `sent` where at least one of them was.
    #[must_use]
    pub fn handed(&self) -> Vec<Handed> {
        self.state().handed.clone()
    }

    /// Every request's arrival, where the options ask for it.
    #[must_use]
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.state().arrivals.clone()
    }

    /// How often each fault happened, by name.
    #[must_use]
    pub fn faults(&self) -> BTreeMap<&'static str, u64> {
        self.state().faults.clone()
    }

    /// Requests that came.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.state().requests
    }

    /// Requests of a partition that came while another of it was being answered.
    #[must_use]
    pub fn overlaps(&self) -> u64 {
        self.state().overlaps
    }

    /// Requests of a partition that came before the end of its last Retry-After.
    #[must_use]
    pub fn in_retry_after(&self) -> u64 {
        self.state().in_retry_after
    }

    /// What did not fit into memory; the judge must not trust a record with any.
    #[must_use]
    pub fn unrecorded(&self) -> u64 {
        self.state().unrecorded
    }

    /// Why the truth file could not be written, if so.
    #[must_use]
    pub fn file_error(&self) -> Option<io::ErrorKind> {
        self.state().file_error
    }
}
