//! The log as the node uses it: one writer's lock, readers beside it, a thread that syncs.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use adapters::contract::Clock;
use metrics::counter;
use thiserror::Error;
use tokio::sync::watch;

use super::backtraces::Backtraces;
use super::incarnations::{Fold, Incarnations};
use super::record::Sieve;
use super::segments::{Extent, FAILURES, LIFECYCLE, Segments, line_of};
use super::{Filter, RestartRecord, Story};
use crate::telemetry::metrics::RESTART_LOG_FAILURES_TOTAL;

/// The folder in the state directory.
const FOLDER: &str = "restarts";

/// How long the machine (not the process) may lose records by losing power.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// Records of one answer, whatever is asked for.
const PAGE_MAX: usize = 1_000;

/// Records of one story. An incident that took 10,000 children down has some 30,000; its beginning tells the cause.
const STORY_MAX: usize = 10_000;

/// Backtraces that wait for their names. The crate takes at most 16 a second; what does not fit is left out.
const TRACES_WAITING_MAX: usize = 64;

/// The log's folder cannot be used.
#[derive(Debug, Error)]
pub enum RestartLogError {
    /// Creating, reading or repairing the folder failed.
    #[error("the restart log in the state directory cannot be opened")]
    Open(#[source] io::Error),
    /// The operating system gives no thread.
    #[error("the restart log's thread cannot be started")]
    Thread(#[source] io::Error),
    /// Reading records failed.
    #[error("the restart log cannot be read")]
    Read(#[source] io::Error),
}

#[derive(Debug)]
struct State {
    failures: Segments,
    lifecycle: Segments,
    /// The number of the next line, over both lanes.
    next: u64,
    backtraces: Backtraces,
    counts: Incarnations,
    /// The disk refused the last write; told once until it takes one again.
    refused: bool,
    /// Something was written since the last sync.
    dirty: bool,
    closing: bool,
}

#[derive(Debug)]
struct Shared {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    wake: Condvar,
    grown: watch::Sender<u64>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The restart log. Cheap to share; the last one dropped syncs and ends the thread.
///
/// A record is with the operating system when [`RestartLog::append`] returns, so it survives the process's death, and
/// on the disk a second later. Where the disk refuses it (full), it waits in memory and is readable all the same:
/// supervision goes on.
pub struct RestartLog {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    traces: Option<SyncSender<Trace>>,
}

impl std::fmt::Debug for RestartLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RestartLog").field("shared", &self.shared).finish_non_exhaustive()
    }
}

/// A backtrace to be looked up for a life of a child.
struct Trace {
    path: String,
    incarnation: u64,
    look_up: Box<dyn FnOnce() -> Option<String> + Send>,
}

impl RestartLog {
    /// Opens or creates the log in the state directory `state_dir`. Torn ends are cut, damaged files moved aside.
    ///
    /// # Errors
    /// Where the folder cannot be created or read.
    pub fn open(state_dir: &Path, clock: Arc<dyn Clock>) -> Result<Self, RestartLogError> {
        let dir = state_dir.join(FOLDER);
        std::fs::create_dir_all(&dir).map_err(RestartLogError::Open)?;
        let (mut counts, damaged) = Incarnations::open(&dir).map_err(RestartLogError::Open)?;
        if damaged.is_some() {
            tracing::warn!(code = "restart_log_repaired", "the file of incarnations was damaged and moved aside");
        }
        // Numbers start at the clock, so that a cursor from before the folder was lost lies before all that is new.
        let base = u64::try_from(clock.now_us()).unwrap_or(0).max(1);
        let (failures, repaired) = Segments::open(FAILURES, &dir, &mut counts).map_err(RestartLogError::Open)?;
        let (lifecycle, also) = Segments::open(LIFECYCLE, &dir, &mut counts).map_err(RestartLogError::Open)?;
        for what in repaired.into_iter().chain(also) {
            tracing::warn!(code = "restart_log_repaired", "{what}");
        }
        let newest = failures.newest().max(lifecycle.newest());
        let next = if newest == 0 { base } else { newest + 1 };
        let grown = watch::Sender::new(next - 1);
        let state = State {
            failures,
            lifecycle,
            next,
            backtraces: Backtraces::open(&dir),
            counts,
            refused: false,
            dirty: false,
            closing: false,
        };
        let shared = Arc::new(Shared { clock, state: Mutex::new(state), wake: Condvar::new(), grown });
        let thread = |name: &str, work: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.to_owned()).spawn(work).map_err(RestartLogError::Thread)
        };
        let (traces, waiting) = sync_channel(TRACES_WAITING_MAX);
        let (syncs, looks) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = vec![
            thread("restart-log-sync", Box::new(move || sync_until_closed(&syncs)))?,
            thread("restart-log-traces", Box::new(move || look_up_all(&looks, &waiting)))?,
        ];
        Ok(Self { shared, threads, traces: Some(traces) })
    }

    /// Takes a backtrace for what is told of this life of the child at `path`. `look_up` gives its text and may take
    /// its time; where too many wait already, this one is left out.
    pub fn trace(&self, path: &str, incarnation: u64, look_up: impl FnOnce() -> Option<String> + Send + 'static) {
        if let Some(traces) = &self.traces {
            let _left_out = traces.try_send(Trace { path: path.to_owned(), incarnation, look_up: Box::new(look_up) });
        }
    }

    /// The next incarnation of the child at `path`, from 1; never the same twice. It is with the operating system when
    /// this returns, so also the process's next life goes on from it.
    #[must_use]
    pub fn next_incarnation(&self, path: &str) -> u64 {
        let mut state = self.shared.lock();
        let (next, written) = state.counts.next(path);
        if written.is_err() {
            state.note(&written);
        }
        next
    }

    /// Adds a record. It is written to the operating system when this returns; takes some µs.
    pub fn append(&self, mut record: RestartRecord) {
        let number = {
            let mut state = self.shared.lock();
            // Under the lock, so that times rise with the numbers.
            record.complete(self.shared.clock.now_us());
            let Ok(json) = serde_json::to_vec(&record) else { return };
            let noted = state.counts.note(&record.path, record.incarnation);
            let number = state.next;
            state.next += 1;
            let lane = if record.is_plain_life() { &mut state.lifecycle } else { &mut state.failures };
            let written = lane.append(number, line_of(number, &json));
            lane.trim();
            state.dirty = true;
            state.note(&noted.and(written));
            number
        };
        // Two appends may come here out of order; the newest number counts.
        self.shared.grown.send_if_modified(|newest| {
            let newer = number > *newest;
            *newest = number.max(*newest);
            newer
        });
    }

    /// Up to `filter.limit` (at most 1,000) records in order, and the cursor to go on from. Reads files: not for async
    /// threads, see [`RestartLog::page`].
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn query(&self, filter: &Filter) -> Result<(Vec<RestartRecord>, u64), RestartLogError> {
        self.collect(filter, filter.limit.clamp(1, PAGE_MAX))
    }

    fn collect(&self, filter: &Filter, limit: usize) -> Result<(Vec<RestartRecord>, u64), RestartLogError> {
        let (lanes, after, newest) = {
            let state = self.shared.lock();
            let newest = state.next - 1;
            // A cursor beyond the newest is not from this log: everything is new to its holder.
            let after = if filter.after > newest { 0 } else { filter.after };
            let mut lanes = vec![state.failures.after(after)];
            if !filter.wants_failures_only() {
                lanes.push(state.lifecycle.after(after));
            }
            (lanes, after, newest)
        };
        let sieve = Sieve::new(filter);
        let mut found = Vec::new();
        let mut whole = true;
        for (extents, pending) in &lanes {
            whole &= scan(extents, pending, after, limit, &sieve, &mut found)?;
        }
        found.sort_unstable_by_key(|(number, _)| *number);
        whole &= found.len() <= limit;
        found.truncate(limit);
        let last = found.last().filter(|_| !whole).map_or(newest, |(number, _)| *number);
        let mut records: Vec<RestartRecord> = found.into_iter().map(|(_, record)| record).collect();
        let state = self.shared.lock();
        if !state.backtraces.is_empty() {
            for record in records.iter_mut().filter(|record| record.event == "failed") {
                record.backtrace = state.backtraces.get(&record.path, record.incarnation).map(str::to_owned);
            }
        }
        Ok((records, last))
    }

    /// As [`RestartLog::query`], beside the async threads; waits up to `wait` for the first record.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub async fn page(
        self: &Arc<Self>,
        mut filter: Filter,
        wait: Duration,
    ) -> Result<(Vec<RestartRecord>, u64), RestartLogError> {
        let deadline = tokio::time::Instant::now() + wait;
        let mut grown = self.shared.grown.subscribe();
        loop {
            let log = Arc::clone(self);
            let asked = filter.clone();
            let (found, next) = blocking(move || log.query(&asked)).await?;
            if !found.is_empty() || tokio::time::timeout_at(deadline, grown.changed()).await.is_err() {
                return Ok((found, next));
            }
            filter.after = next;
        }
    }

    /// The story of an incident, in order; `None` where the log does not know it (any more).
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub async fn incident(self: &Arc<Self>, id: &str) -> Result<Option<Story>, RestartLogError> {
        let log = Arc::clone(self);
        let filter = Filter { incident: Some(id.to_owned()), ..Filter::default() };
        let (records, _) = blocking(move || log.collect(&filter, STORY_MAX)).await?;
        Ok(Story::of(id, records, STORY_MAX))
    }
}

/// Adds up to `limit` records of one lane to `found`; false where it stopped before the lane's end.
fn scan(
    extents: &[Extent],
    pending: &[(u64, Vec<u8>)],
    after: u64,
    limit: usize,
    sieve: &Sieve<'_>,
    found: &mut Vec<(u64, RestartRecord)>,
) -> Result<bool, RestartLogError> {
    let most = found.len() + limit;
    let mut look = |number: u64, line: &str| {
        if number > after {
            found.extend(sieve.pick(line).map(|record| (number, record)));
        }
        if found.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    for extent in extents {
        let text = extent.read().map_err(RestartLogError::Read)?;
        if extent.lines(&text).try_for_each(|(number, line)| look(number, line)).is_break() {
            return Ok(false);
        }
    }
    let rest = pending.iter().try_for_each(|(number, line)| look(*number, &String::from_utf8_lossy(line)));
    Ok(rest.is_continue())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RestartLogError> + Send + 'static,
) -> Result<T, RestartLogError> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|error| RestartLogError::Read(io::Error::other(error)))?
}

impl State {
    /// Tells of a refused write once, and when it is over.
    fn note(&mut self, written: &io::Result<()>) {
        match written {
            Err(error) => {
                counter!(RESTART_LOG_FAILURES_TOTAL).increment(1);
                if !self.refused {
                    tracing::error!(
                        code = "restart_log_refused",
                        error = %error.kind(),
                        "the disk refuses the restart log; records wait in memory"
                    );
                }
                self.refused = true;
            }
            Ok(()) => {
                if self.refused {
                    tracing::info!(code = "restart_log_recovered", "the restart log is on disk again");
                }
                self.refused = false;
            }
        }
    }
}

impl Drop for RestartLog {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.wake.notify_all();
        self.traces = None;
        for thread in self.threads.drain(..) {
            let _its_panic_ends_here = thread.join();
        }
    }
}

fn look_up_all(shared: &Shared, waiting: &Receiver<Trace>) {
    while let Ok(Trace { path, incarnation, look_up }) = waiting.recv() {
        if let Some(text) = look_up() {
            let mut state = shared.lock();
            let written = state.backtraces.add(&path, incarnation, &text);
            state.note(&written);
        }
    }
}

fn sync_until_closed(shared: &Shared) {
    let mut closing = false;
    while !closing {
        let (files, fold) = {
            let state = shared.lock();
            let waited = shared.wake.wait_timeout_while(state, SYNC_EVERY, |state| !state.closing);
            let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            closing = state.closing;
            if state.refused {
                let written = state.failures.flush_pending().and(state.lifecycle.flush_pending());
                state.note(&written);
            }
            state.counts.reopen_if_lost();
            let files = [state.failures.needs_sync(), state.lifecycle.needs_sync()];
            (std::mem::take(&mut state.dirty).then_some(files), state.counts.begin_fold())
        };
        // Without the lock, both: a slow disk must not hold up those who append.
        let synced = files.into_iter().flatten().flatten().try_for_each(|file| file.sync_data());
        if let Err(error) = synced.and_then(|()| fold.map_or(Ok(()), Fold::finish)) {
            tracing::warn!(code = "restart_log_sync", error = %error.kind(), "the restart log was not synced");
        }
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
