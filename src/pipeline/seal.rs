//! A closed epoch: everything encoded and named, nothing written yet.

use std::collections::BTreeMap;

use adapters::contract::Hold;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;

use crate::names::StreamId;

/// `(from, to]` of a partition. `to` is empty where an operator sent it back to the beginning.
pub type Moved = (Option<String>, String);

/// A raw segment, encoded.
#[derive(Debug, Clone)]
pub struct RawSegment {
    /// Relative to the lake.
    pub path: String,
    /// The object.
    pub bytes: Bytes,
    /// Payloads.
    pub rows: usize,
}

/// A data file or a file of dead letters, encoded.
#[derive(Debug, Clone)]
pub struct DataFile {
    /// Relative to its table.
    pub path: String,
    /// The object.
    pub bytes: Bytes,
    /// Rows.
    pub rows: usize,
    /// Partition columns, as Delta serialises them.
    pub partition_values: BTreeMap<String, Option<String>>,
    /// Delta's statistics, as a JSON string.
    pub stats: String,
}

/// A closed epoch. Committing it twice is committing it once.
#[derive(Debug)]
pub struct Sealed {
    /// The stream.
    pub id: StreamId,
    /// The adapter's name.
    pub adapter: String,
    /// The epoch's number.
    pub epoch: u64,
    /// The owner's generation.
    pub generation: u64,
    /// Rows in the table.
    pub rows: u64,
    /// Dead letters.
    pub dead: u64,
    /// Dead letters by code.
    pub dead_codes: BTreeMap<String, u64>,
    /// The adapter's columns after this epoch, for the next builder.
    pub schema: Option<SchemaRef>,
    /// The partitions that moved.
    pub positions: BTreeMap<String, Moved>,
    /// The newest event time of this epoch, µs UTC.
    pub watermark_us: Option<i64>,
    /// When collecting began, µs UTC.
    pub started_at_us: i64,
    /// When it ended, µs UTC.
    pub closed_at_us: i64,
    /// Raw segments.
    pub raw: Vec<RawSegment>,
    /// Files of the table.
    pub files: Vec<DataFile>,
    /// Files of the dead table.
    pub dead_files: Vec<DataFile>,
    /// Payload bytes by partition.
    pub bytes_by_partition: BTreeMap<String, u64>,
    /// The newest event time of each partition that has one here, µs UTC.
    pub newest_by_partition: BTreeMap<String, i64>,
    /// The table's partition columns.
    pub partition_by: Vec<String>,
    /// Credits of the payloads, until the epoch is committed.
    pub holds: Vec<Hold>,
}

impl Sealed {
    /// Bytes that a commit has to write.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        let raw: usize = self.raw.iter().map(|o| o.bytes.len()).sum();
        let files = self.files.iter().chain(&self.dead_files).map(|o| o.bytes.len()).sum::<usize>();
        raw + files
    }
}
