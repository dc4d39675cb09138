//! Objects: raw segments by their hash, Parquet files by their rows.

use std::collections::HashMap;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use sha2::{Digest, Sha256};

use super::walk::Live;
use super::{FOREIGN, RESTORE, Report};
use crate::lake::error::LakeError;
use crate::lake::io::Io;
use crate::names::StreamId;
use crate::pipeline::{LF_EPOCH, LF_RAW};

/// Raw segments whose row counts are remembered. Files refer to the segments of their own epoch, so a few suffice.
const SEGMENTS_REMEMBERED: usize = 16_384;

/// Reads objects and remembers what rows point to.
pub(super) struct Files<'a> {
    io: &'a Io,
    id: &'a StreamId,
    last: u64,
    /// Rows of raw segments; `None` for one that is missing or cannot be read.
    segments: HashMap<String, Option<u64>>,
}

/// What a data file's rows refer to.
struct Referred {
    rows: u64,
    /// The smallest and the greatest epoch.
    epochs: Option<(i64, i64)>,
    /// Of each raw segment the greatest row.
    raw: HashMap<String, u64>,
    /// References that are none.
    malformed: u64,
}

impl<'a> Files<'a> {
    pub(super) fn new(io: &'a Io, id: &'a StreamId, last: u64) -> Self {
        Self { io, id, last, segments: HashMap::new() }
    }

    /// A raw segment is there and is what its name says.
    pub(super) async fn raw(&mut self, path: &str, report: &mut Report) -> Result<(), LakeError> {
        let Some(bytes) = self.io.get(path).await? else {
            report.problem("raw_missing", path, "a committed epoch names this raw segment", RESTORE);
            self.remember(path, None);
            return Ok(());
        };
        let (hash, rows) = off_thread(move || (hex::encode(Sha256::digest(&bytes)), count(bytes))).await?;
        let name = path.rsplit('/').next().unwrap_or_default();
        if name.strip_suffix(".parquet") != Some(&hash) {
            report.problem("raw_hash", path, format!("its content has the hash {hash}"), RESTORE);
        }
        self.remember(path, rows);
        Ok(())
    }

    /// A data file is there, whole, of committed epochs, and its raw references resolve. Gives its rows.
    pub(super) async fn data(&mut self, path: &str, live: Live, report: &mut Report) -> Result<u64, LakeError> {
        let Some(bytes) = self.io.get(path).await? else {
            report.problem("file_missing", path, "the table holds this file", RESTORE);
            return Ok(0);
        };
        if bytes.len() as u64 != live.bytes {
            let what = format!("it has {} bytes, the log says {}", bytes.len(), live.bytes);
            report.problem("file_size", path, what, RESTORE);
        }
        let Some(referred) = off_thread(move || refer(bytes)).await? else {
            report.problem("file_unreadable", path, "it is no Parquet file of this table", RESTORE);
            return Ok(0);
        };
        if live.rows.is_some_and(|rows| rows != referred.rows) {
            let what = format!("it has {} rows, the log says {:?}", referred.rows, live.rows);
            report.problem("file_rows", path, what, RESTORE);
        }
        let last = i64::try_from(self.last).unwrap_or(i64::MAX);
        if let Some((least, greatest)) = referred.epochs.filter(|(least, greatest)| *least < 1 || *greatest > last) {
            let what = format!("it holds rows of the epochs {least} to {greatest}, the table stands at {last}");
            report.problem("row_epoch", path, what, FOREIGN);
        }
        let mut dangling = referred.malformed;
        let own = format!("raw/{}/", self.id);
        for (segment, row) in referred.raw {
            let rows = if segment.starts_with(&own) { self.segment(&segment).await? } else { None };
            dangling += u64::from(rows.is_none_or(|rows| row >= rows));
        }
        if dangling > 0 {
            let what = format!("{dangling} of its references to raw segments lead nowhere");
            report.problem("raw_reference", path, what, RESTORE);
        }
        Ok(referred.rows)
    }

    async fn segment(&mut self, path: &str) -> Result<Option<u64>, LakeError> {
        if let Some(rows) = self.segments.get(path) {
            return Ok(*rows);
        }
        let rows = match self.io.get(path).await? {
            Some(bytes) => off_thread(move || count(bytes)).await?,
            None => None,
        };
        self.remember(path, rows);
        Ok(rows)
    }

    fn remember(&mut self, path: &str, rows: Option<u64>) {
        if self.segments.len() >= SEGMENTS_REMEMBERED {
            self.segments.clear();
        }
        self.segments.insert(path.to_owned(), rows);
    }
}

async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, LakeError> {
    let failed = |_| LakeError::data("file_unreadable", "reading an object panicked");
    tokio::task::spawn_blocking(work).await.map_err(failed)
}

fn count(bytes: Bytes) -> Option<u64> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).ok()?;
    u64::try_from(builder.metadata().file_metadata().num_rows()).ok()
}

fn refer(bytes: Bytes) -> Option<Referred> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).ok()?;
    let columns = ProjectionMask::columns(builder.parquet_schema(), [LF_EPOCH, LF_RAW]);
    let mut referred = Referred { rows: 0, epochs: None, raw: HashMap::new(), malformed: 0 };
    for batch in builder.with_projection(columns).build().ok()? {
        refer_batch(&batch.ok()?, &mut referred)?;
    }
    Some(referred)
}

fn refer_batch(batch: &RecordBatch, referred: &mut Referred) -> Option<()> {
    referred.rows += batch.num_rows() as u64;
    // A table may be partitioned by them; then they stand in the path.
    if let Some(epochs) = batch.column_by_name(LF_EPOCH) {
        for epoch in epochs.as_primitive_opt::<Int64Type>()?.iter() {
            let epoch = epoch.unwrap_or(0);
            let (least, greatest) = referred.epochs.unwrap_or((epoch, epoch));
            referred.epochs = Some((least.min(epoch), greatest.max(epoch)));
        }
    }
    if let Some(raw) = batch.column_by_name(LF_RAW) {
        for reference in raw.as_string_opt::<i32>()?.iter().flatten() {
            let parsed = reference.split_once('#').and_then(|(path, row)| Some((path, row.parse::<u64>().ok()?)));
            let Some((path, row)) = parsed else {
                referred.malformed += 1;
                continue;
            };
            match referred.raw.get_mut(path) {
                Some(greatest) => *greatest = row.max(*greatest),
                None => {
                    referred.raw.insert(path.to_owned(), row);
                }
            }
        }
    }
    Some(())
}
