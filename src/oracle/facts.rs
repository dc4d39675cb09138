//! Everything about one stream in memory, for tests and small lakes. [`super::judge()`] does not go this way.

use std::path::Path;

use arrow::array::Array;
use serde_json::{Map, Value};

use super::log::Log;
use super::records::{self, EpochRecord};
use super::scan::{Chunk, rows};
use super::{OracleError, Place};

/// Columns that the runtime adds.
const OWN: [&str; 5] = ["_lf_epoch", "_lf_partition", "_lf_position", "_lf_raw", "_lf_received_at"];

/// A row of the table.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// `_lf_epoch`.
    pub epoch: i64,
    /// `_lf_partition`.
    pub partition: String,
    /// `_lf_position`.
    pub position: Option<String>,
    /// `_lf_raw`.
    pub raw: Option<String>,
    /// `_lf_received_at`, µs since the epoch, UTC.
    pub received_at_us: i64,
    /// All other columns that are not null; times in RFC 3339, bytes in hex.
    pub columns: Map<String, Value>,
}

/// A dead letter.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadRow {
    /// As a row of the table.
    pub row: Row,
    /// `bytes`.
    pub bytes: Option<Vec<u8>>,
}

/// A stream as it lies in the lake.
#[derive(Debug, Clone, Default)]
pub struct StreamFacts {
    /// Rows of the live files.
    pub rows: Vec<Row>,
    /// Dead letters of the live files.
    pub dead: Vec<DeadRow>,
    /// All epoch records, also of epochs that were never committed.
    pub records: Vec<EpochRecord>,
    /// The table's log; `None` before the first claim.
    pub table: Option<Log>,
    /// The dead table's log; `None` before the first dead letter.
    pub dead_table: Option<Log>,
    /// Paths of all raw objects that are there.
    pub raw: Vec<String>,
}

impl StreamFacts {
    /// The last committed epoch, 0 before the first.
    #[must_use]
    pub fn epoch(&self, tenant: &str, stream: &str) -> u64 {
        let id = format!("lakefeed/{tenant}/{stream}");
        let version = self.table.as_ref().and_then(|log| log.txns.get(&id)).copied().unwrap_or_default();
        u64::try_from(version).unwrap_or_default()
    }
}

/// The last committed epoch of a stream, 0 before the first: a look at the log alone.
///
/// # Errors
/// Where the log cannot be read.
pub fn last_epoch(lake: &Path, tenant: &str, stream: &str) -> Result<u64, OracleError> {
    let place = Place { lake, tenant, stream };
    let log = Log::read(&place, &place.under("tables"))?;
    let version = log.and_then(|log| log.txns.get(&place.txn("lakefeed")).copied()).unwrap_or_default();
    Ok(u64::try_from(version).unwrap_or_default())
}

/// Reads a stream whole.
///
/// # Errors
/// Where something that the log names cannot be read.
pub fn read_stream(lake: &Path, tenant: &str, stream: &str) -> Result<StreamFacts, OracleError> {
    let place = Place { lake, tenant, stream };
    let (table, dead) = (place.under("tables"), place.under("dead"));
    let mut facts = StreamFacts {
        records: records::read_all(&place)?,
        table: Log::read(&place, &table)?,
        dead_table: Log::read(&place, &dead)?,
        raw: raw_objects(&place)?,
        ..StreamFacts::default()
    };
    for add in facts.table.iter().flat_map(|log| log.live.values()) {
        rows(&place, &table, add, None, |chunk| {
            facts.rows.extend(rows_of(chunk)?);
            Ok(())
        })?;
    }
    for add in facts.dead_table.iter().flat_map(|log| log.live.values()) {
        rows(&place, &dead, add, None, |chunk| {
            let bytes = chunk.bytes("bytes")?;
            for (i, row) in rows_of(chunk)?.into_iter().enumerate() {
                facts.dead.push(DeadRow { row, bytes: bytes.is_valid(i).then(|| bytes.value(i).to_vec()) });
            }
            Ok(())
        })?;
    }
    Ok(facts)
}

/// Paths of the raw objects of a stream that are there, sorted.
pub(crate) fn raw_objects(place: &Place<'_>) -> Result<Vec<String>, OracleError> {
    let folder = place.under("raw");
    let mut found = Vec::new();
    for day in place.names(&folder)? {
        let day = format!("{folder}/{day}");
        found.extend(place.names(&day)?.into_iter().map(|name| format!("{day}/{name}")));
    }
    Ok(found)
}

fn rows_of(chunk: &Chunk<'_>) -> Result<Vec<Row>, OracleError> {
    let (epochs, partitions) = (chunk.longs("_lf_epoch")?, chunk.texts("_lf_partition")?);
    let (positions, raws) = (chunk.texts_or_null("_lf_position")?, chunk.texts_or_null("_lf_raw")?);
    let received = chunk.times("_lf_received_at")?;
    let rows = columns_of(chunk)?.into_iter().enumerate().map(|(i, columns)| Row {
        epoch: epochs.value(i),
        partition: partitions.value(i).to_owned(),
        position: positions.is_valid(i).then(|| positions.value(i).to_owned()),
        raw: raws.is_valid(i).then(|| raws.value(i).to_owned()),
        received_at_us: received.value(i),
        columns,
    });
    Ok(rows.collect())
}

/// Each row as JSON, without the runtime's own columns.
pub(crate) fn columns_of(chunk: &Chunk<'_>) -> Result<Vec<Map<String, Value>>, OracleError> {
    const PATH: &str = "a table's file";
    let whole = chunk.whole()?;
    let kept: Vec<usize> =
        (0..whole.num_columns()).filter(|i| !OWN.contains(&whole.schema().field(*i).name().as_str())).collect();
    let arrow = |source| OracleError::Arrow { path: PATH.to_owned(), source };
    let mut writer = arrow::json::LineDelimitedWriter::new(Vec::new());
    writer.write(&whole.project(&kept).map_err(arrow)?).map_err(arrow)?;
    writer.finish().map_err(arrow)?;
    let text = writer.into_inner();
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_slice(line).map_err(|source| OracleError::Json { path: PATH.to_owned(), source }))
        .collect()
}
