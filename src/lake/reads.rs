//! Reading back: records, references, rows and dead letters.

use serde_json::Value;

use super::error::LakeError;
use super::log::{Apps, Entry, Log, Told};
use super::record::{EpochRecord, FileEntry};
use super::recover::{Checkpoint, Found, Records, recover};
use super::{Lake, layout, rows};
use crate::names::StreamId;

/// Rows of one page at most, whatever is asked for.
const PAGE_ROWS_MAX: usize = 10_000;
/// Steps of a search in a log: far more than halving needs, so that a damaged log cannot hold a reader.
const SEARCH_STEPS_MAX: usize = 4096;

/// A place in the rows of a stream: after row `row` of epoch `epoch`, both counted from 1; 0 is before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cursor {
    epoch: u64,
    row: u64,
}

impl Cursor {
    fn parse(text: &str) -> Result<Self, LakeError> {
        if text.is_empty() {
            return Ok(Self { epoch: 1, row: 0 });
        }
        let (epoch, row) = text.split_once('.').unwrap_or((text, "0"));
        match (epoch.parse(), row.parse()) {
            (Ok(epoch), Ok(row)) => Ok(Self { epoch, row }),
            _ => Err(LakeError::config("invalid_cursor", "after is not a cursor that this lake gave")),
        }
    }

    fn show(self) -> String {
        format!("{}.{}", self.epoch, self.row)
    }
}

fn table_apps(id: &StreamId) -> Apps {
    Apps { own: Some(layout::own_app(id)), epoch: layout::epoch_app(id) }
}

impl Lake {
    /// Where a stream stands, without claiming it; `None` for a stream that never had a table.
    ///
    /// # Errors
    /// As [`Lake::claim`].
    pub async fn last_checkpoint(&self, id: &StreamId) -> Result<Option<Checkpoint>, LakeError> {
        let log = Log::open(&self.io, layout::table(id), table_apps(id)).await?;
        let Some(state) = &log.state else { return Ok(None) };
        Ok(Some(recover(&self.io, id, state, None).await?.0))
    }

    /// The record of a committed epoch; `None` for one that is not committed.
    ///
    /// # Errors
    /// `data` where a committed epoch has none; else the store's.
    pub async fn record(&self, id: &StreamId, epoch: u64) -> Result<Option<EpochRecord>, LakeError> {
        Ok(self.find(id, epoch).await?.map(|(found, _)| found.record))
    }

    /// The reference of a committed epoch, as [`super::Committed::reference`]; without `version` where log clean-up has
    /// forgotten it.
    ///
    /// # Errors
    /// As [`Lake::record`].
    pub async fn reference(&self, id: &StreamId, epoch: u64) -> Result<Option<Value>, LakeError> {
        Ok(self.find(id, epoch).await?.map(|(found, version)| found.record.reference(&found.path, version)))
    }

    /// Rows of the table, in the order (epoch, file, row), after the cursor; and the cursor after the last. `""` is
    /// before the first.
    ///
    /// # Errors
    /// `config` `invalid_cursor`; else as [`Lake::record`].
    pub async fn records(&self, id: &StreamId, after: &str, limit: usize) -> Result<(Vec<Value>, String), LakeError> {
        let mut cursor = Cursor::parse(after)?;
        let limit = limit.min(PAGE_ROWS_MAX);
        let mut page = Vec::new();
        while page.len() < limit {
            let Some((found, _)) = self.find(id, cursor.epoch.max(1)).await? else { break };
            cursor.epoch = found.record.epoch;
            self.page(id, layout::table(id), &found.record.files, &mut cursor, limit, &mut page).await?;
            if page.len() < limit {
                cursor = Cursor { epoch: cursor.epoch + 1, row: 0 };
            }
        }
        Ok((page, cursor.show()))
    }

    /// Dead letters as [`Lake::records`] gives rows; `bytes` is text where it is UTF-8, else `bytes_base64`.
    ///
    /// # Errors
    /// As [`Lake::records`].
    pub async fn dead_letters(
        &self,
        id: &StreamId,
        after: &str,
        limit: usize,
    ) -> Result<(Vec<Value>, String), LakeError> {
        let mut cursor = Cursor::parse(after)?;
        let limit = limit.min(PAGE_ROWS_MAX);
        let mut page = Vec::new();
        let apps = Apps { own: None, epoch: layout::dead_app(id) };
        let log = Log::open(&self.io, layout::dead(id), apps).await?;
        while page.len() < limit {
            let Some((epoch, _)) = self.search(&log, cursor.epoch, None).await? else { break };
            if epoch != cursor.epoch {
                cursor = Cursor { epoch, row: 0 };
            }
            let Some((found, _)) = self.find(id, epoch).await? else { break };
            let (known, first) = (page.len(), cursor.row);
            self.page(id, layout::dead(id), &found.record.dead_files, &mut cursor, limit, &mut page).await?;
            for (row, letter) in (first..).zip(&mut page[known..]) {
                letter["id"] = format!("{epoch}.{row}").into();
            }
            if page.len() < limit {
                cursor = Cursor { epoch: epoch + 1, row: 0 };
            }
        }
        Ok((page, cursor.show()))
    }

    /// Adds rows of one epoch after the cursor to `page` and moves the cursor behind them.
    async fn page(
        &self,
        id: &StreamId,
        table: String,
        files: &[FileEntry],
        cursor: &mut Cursor,
        limit: usize,
        page: &mut Vec<Value>,
    ) -> Result<(), LakeError> {
        let mut first = 0;
        for file in files {
            let skip = cursor.row.saturating_sub(first);
            first += file.rows;
            if skip >= file.rows || page.len() >= limit {
                continue;
            }
            let path = format!("{table}/{}", file.path);
            let gone = || LakeError::data("file_missing", format!("{path} is committed but missing"));
            let object = self.io.get(&path).await?.ok_or_else(gone)?;
            let (offset, room) = (usize::try_from(skip).unwrap_or(usize::MAX), limit - page.len());
            let read = tokio::task::spawn_blocking(move || rows::as_json(&path, object, offset, room)).await;
            let mut read = read.map_err(|_| LakeError::bug("reader_panicked", "reading a file panicked"))??;
            if file.path.contains('/') {
                let log = Log::open(&self.io, table.clone(), table_apps(id)).await?;
                let schema =
                    log.state.map(|state| state.schema).unwrap_or_else(|| crate::pipeline::table_columns(None));
                let values = rows::partition_values(file, &schema);
                for row in read.iter_mut().filter_map(Value::as_object_mut) {
                    row.extend(values.clone());
                }
            }
            cursor.row += read.len() as u64;
            page.append(&mut read);
        }
        Ok(())
    }

    /// The record of a committed epoch and the version that holds it, where the log still knows.
    async fn find(&self, id: &StreamId, epoch: u64) -> Result<Option<(Found, Option<u64>)>, LakeError> {
        if epoch == 0 {
            return Ok(None);
        }
        // A version that is known from a later epoch saves reading the log's end.
        if let Some((last, version)) = self.remembered(id).filter(|(last, _)| *last >= epoch) {
            let log = Log { table: layout::table(id), apps: table_apps(id), state: None };
            if let Some((at, told)) = self.search(&log, epoch, Some(version - (last - epoch))).await?
                && at == epoch
                && let Some(path) = told.record
                && let Some(bytes) = self.io.get(&path).await?
            {
                let record = EpochRecord::from_bytes(&path, &bytes)?;
                return Ok(Some((Found { path, record }, Some(told.version))));
            }
        }
        let log = Log::open(&self.io, layout::table(id), table_apps(id)).await?;
        let Some(state) = log.state.as_ref().filter(|state| epoch <= state.epoch) else { return Ok(None) };
        if let Some(told) = state.told.get(&state.epoch) {
            self.remember(id, state.epoch, told.version);
        }
        let version = self.search(&log, epoch, None).await?.filter(|(at, _)| *at == epoch);
        let found = Records::new(&self.io, id, state).find(epoch).await?;
        Ok(Some((found, version.map(|(_, told)| told.version))))
    }

    /// The first entry whose epoch is `epoch` or later, by halving. `newest` is a version that is not before it, where
    /// one is known; else the log must be open. `None` where there is none, or clean-up has removed it.
    async fn search(&self, log: &Log, epoch: u64, newest: Option<u64>) -> Result<Option<(u64, Told)>, LakeError> {
        let Some(newest) = newest.or_else(|| log.state.as_ref().map(|state| state.version)) else { return Ok(None) };
        // Everything before `low` is before the epoch; `best` is not.
        let (mut low, mut high, mut best) = (0, newest + 1, None);
        // Epoch e cannot be told before version e; in a main table it mostly is soon after.
        if log.apps.own.is_some() {
            low = epoch.min(newest);
        }
        for _ in 0..SEARCH_STEPS_MAX {
            if low >= high {
                break;
            }
            let middle = low + (high - low) / 2;
            // Entries that tell of no epoch belong to the next that does.
            let mut at = middle;
            let told = loop {
                let Some(entry) = self.entry(log, at).await? else { break None };
                if let Some(epoch) = entry.epoch {
                    break Some((epoch, Told { version: at, record: entry.record }));
                }
                at += 1;
                if at >= high {
                    break None;
                }
            };
            match told {
                Some((found, told)) if found >= epoch => {
                    best = Some((found, told));
                    high = middle;
                }
                Some(_) => low = at + 1,
                // Either cleaned up, and so is all before it; or nothing but claims up to the end.
                None if at >= high => high = middle,
                None => low = at + 1,
            }
        }
        Ok(best)
    }

    async fn entry(&self, log: &Log, version: u64) -> Result<Option<Entry>, LakeError> {
        let path = layout::log_entry(&log.table, version);
        let Some(bytes) = self.io.get(&path).await? else { return Ok(None) };
        Entry::parse(&path, &bytes, &log.apps).map(Some)
    }
}
