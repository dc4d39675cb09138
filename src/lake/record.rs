//! Epoch records: what an epoch made and where. They survive the clean-up of the log.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::error::LakeError;
use super::layout;
use crate::pipeline::Sealed;
use crate::times::{timestamp, timestamp_us};

/// `(from, to]` of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The position before; `None` at the beginning.
    pub from: Option<String>,
    /// The position after. Empty where an operator sent the partition back to the beginning.
    pub to: String,
}

/// A file of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Relative to its table.
    pub path: String,
    /// Size of the object.
    pub bytes: u64,
    /// Rows.
    pub rows: u64,
    /// Values of the partition columns, which the file itself lacks and of which its path may hold no more than the
    /// beginning; none where the table has no such columns, and in records of before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub partition_values: BTreeMap<String, Option<String>>,
}

/// An epoch record, as it stands in the lake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// The stream's tenant.
    pub tenant: String,
    /// The stream's name.
    pub stream: String,
    /// The adapter's name.
    pub adapter: String,
    /// From 1, without gaps.
    pub epoch: u64,
    /// Of the owner.
    pub generation: u64,
    /// The table's path in the lake.
    pub table: String,
    /// The partitions that moved.
    pub positions: BTreeMap<String, Span>,
    /// Files of the table.
    pub files: Vec<FileEntry>,
    /// Files of the dead table.
    pub dead_files: Vec<FileEntry>,
    /// Raw segments, relative to the lake.
    pub raw: Vec<String>,
    /// Rows in the table.
    pub rows: u64,
    /// Dead letters.
    pub dead: u64,
    /// The newest event time of this epoch and all before it, RFC 3339 UTC.
    pub watermark: Option<String>,
    /// When collecting began, RFC 3339 UTC.
    pub started_at: String,
    /// When it ended, RFC 3339 UTC.
    pub closed_at: String,
    /// Hash of the transform, where there is one.
    pub transform: Option<String>,
}

impl EpochRecord {
    /// The record of `sealed`. `newest_event_us` is the newest event time before it.
    pub(crate) fn of(sealed: &Sealed, newest_event_us: Option<i64>) -> Self {
        let entries = |files: &[crate::pipeline::DataFile]| {
            let entry = |file: &crate::pipeline::DataFile| FileEntry {
                path: file.path.clone(),
                bytes: file.bytes.len() as u64,
                rows: file.rows as u64,
                partition_values: file.partition_values.clone(),
            };
            files.iter().map(entry).collect::<Vec<_>>()
        };
        let span = |(from, to): &(Option<String>, String)| Span { from: from.clone(), to: to.clone() };
        Self {
            tenant: sealed.id.tenant().to_owned(),
            stream: sealed.id.stream().to_owned(),
            adapter: sealed.adapter.clone(),
            epoch: sealed.epoch,
            generation: sealed.generation,
            table: layout::table(&sealed.id),
            positions: sealed.positions.iter().map(|(name, moved)| (name.clone(), span(moved))).collect(),
            files: entries(&sealed.files),
            dead_files: entries(&sealed.dead_files),
            raw: sealed.raw.iter().map(|segment| segment.path.clone()).collect(),
            rows: sealed.rows,
            dead: sealed.dead,
            watermark: newest_event_us.max(sealed.watermark_us).map(timestamp),
            started_at: timestamp(sealed.started_at_us),
            closed_at: timestamp(sealed.closed_at_us),
            transform: None,
        }
    }

    pub(crate) fn to_bytes(&self) -> Result<Bytes, LakeError> {
        let unwritable = |_| LakeError::bug("record_json", "an epoch record cannot be written as JSON");
        serde_json::to_vec(self).map(Bytes::from).map_err(unwritable)
    }

    pub(crate) fn from_bytes(path: &str, bytes: &[u8]) -> Result<Self, LakeError> {
        serde_json::from_slice(bytes)
            .map_err(|_| LakeError::data("record_unreadable", format!("{path} is not an epoch record")))
    }

    /// When collecting ended, in ms since the epoch, for what the log wants.
    pub(crate) fn closed_at_ms(&self) -> i64 {
        timestamp_us(&self.closed_at).unwrap_or(0) / 1000
    }

    /// `data` of the event `data-streams:results`. `path` is where the record stands, `version` the table's version
    /// that holds the epoch where it is still known.
    pub(crate) fn reference(&self, path: &str, version: Option<u64>) -> Value {
        let name = format!("lakefeed:{}/{}/{}", self.tenant, self.stream, self.epoch);
        let seconds = timestamp_us(&self.closed_at).unwrap_or(0).div_euclid(1_000_000);
        let mut reference = json!({
            "adapter": self.adapter,
            "payload": {"id": Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()).to_string(), "filename": path},
            "timestamp": seconds.to_string(),
            "tenant": self.tenant,
            "stream": self.stream,
            "epoch": self.epoch,
            "generation": self.generation,
            "table": self.table,
            "rows": self.rows,
            "dead": self.dead,
        });
        if let Some(version) = version {
            reference["version"] = version.into();
        }
        reference
    }
}
