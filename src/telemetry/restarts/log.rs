//! The log as the node uses it: one writer's lock, readers beside it, a thread that syncs.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use adapters::contract::Clock;
use metrics::counter;
use thiserror::Error;
use tokio::sync::watch;

use super::incarnations::{Fold, Incarnations};
use super::record::Sieve;
use super::segments::Segments;
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
    segments: Segments,
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
#[derive(Debug)]
pub struct RestartLog {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
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
        let (segments, repaired) = Segments::open(&dir, base, &mut counts).map_err(RestartLogError::Open)?;
        for what in repaired {
            tracing::warn!(code = "restart_log_repaired", "{what}");
        }
        let grown = watch::Sender::new(segments.newest());
        let state = State { segments, counts, refused: false, dirty: false, closing: false };
        let shared = Arc::new(Shared { clock, state: Mutex::new(state), wake: Condvar::new(), grown });
        let thread = std::thread::Builder::new()
            .name("restart-log-sync".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || sync_until_closed(&shared)
            })
            .map_err(RestartLogError::Thread)?;
        Ok(Self { shared, thread: Some(thread) })
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
        record.complete(self.shared.clock.now_us());
        let Ok(mut line) = serde_json::to_vec(&record) else { return };
        line.push(b'\n');
        let number = {
            let mut state = self.shared.lock();
            let noted = state.counts.note(&record.path, record.incarnation);
            let (number, written) = state.segments.append(line);
            state.dirty = true;
            state.note(&noted.and(written));
            state.segments.trim();
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
        let sieve = Sieve::new(filter);
        let (extents, pending, newest) = {
            let state = self.shared.lock();
            let (extents, pending) = state.segments.after(filter.after);
            (extents, pending, state.segments.newest())
        };
        let after = if filter.after > newest { 0 } else { filter.after };
        let mut found = Vec::new();
        let mut last = newest;
        let mut look = |number: u64, line: &str| {
            if number > after {
                found.extend(sieve.pick(line));
            }
            if found.len() < limit {
                return ControlFlow::Continue(());
            }
            last = number;
            ControlFlow::Break(())
        };
        let mut done = ControlFlow::Continue(());
        for extent in &extents {
            let text = extent.read().map_err(RestartLogError::Read)?;
            done = text.lines().zip(extent.first..).try_for_each(|(line, number)| look(number, line));
            if done.is_break() {
                break;
            }
        }
        if done.is_continue() {
            let _full = pending.iter().try_for_each(|(number, line)| look(*number, &String::from_utf8_lossy(line)));
        }
        Ok((found, last))
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
        if let Some(thread) = self.thread.take() {
            let _its_panic_ends_here = thread.join();
        }
    }
}

fn sync_until_closed(shared: &Shared) {
    let mut closing = false;
    while !closing {
        let (file, fold) = {
            let state = shared.lock();
            let waited = shared.wake.wait_timeout_while(state, SYNC_EVERY, |state| !state.closing);
            let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            closing = state.closing;
            if state.refused {
                let written = state.segments.flush_pending();
                state.note(&written);
            }
            state.counts.reopen_if_lost();
            let file = state.segments.needs_sync();
            (std::mem::take(&mut state.dirty).then_some(file).flatten(), state.counts.begin_fold())
        };
        // Without the lock, both: a slow disk must not hold up those who append.
        let synced = file.map_or(Ok(()), |file| file.sync_data());
        if let Err(error) = synced.and_then(|()| fold.map_or(Ok(()), Fold::finish)) {
            tracing::warn!(code = "restart_log_sync", error = %error.kind(), "the restart log was not synced");
        }
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
