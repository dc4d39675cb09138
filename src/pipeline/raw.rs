//! Raw segments: the payloads of an epoch exactly as received, in a few objects named by their hash.

use std::fmt::Write;
use std::sync::{Arc, LazyLock};

use adapters::contract::Payload;
use arrow::array::{
    ArrayRef, BinaryBuilder, MapBuilder, MapFieldNames, RecordBatch, StringArray, StringBuilder,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use parquet::basic::Encoding;
use parquet::file::properties::EnabledStatistics;
use sha2::{Digest, Sha256};

use super::columns::timestamp;
use super::encode::{Encoder, properties};
use super::seal::RawSegment;
use crate::faults;
use crate::names::StreamId;

/// Payload bytes after which a segment is closed. Large enough for few objects, small enough to be written and hashed
/// without a second of silence; a single larger payload has a segment of its own.
const SEGMENT_BYTES_MAX: usize = 16 << 20;

/// The payloads' pages stay below 128 KiB, with [`PAGE_ROWS`] on top: up to there zstd works with smaller tables. Together with
/// the encoding of the lengths a segment costs a seventh to a quarter less CPU time than with the usual MiB, and is as
/// large (docs/performance.md). A reader that wants one payload unpacks less, too.
const PAGE_BYTES: usize = 96 << 10;

/// Payloads that are put into a page before its size is looked at.
const PAGE_ROWS: usize = 128;

/// Columns of a raw segment: partition, position, received_at, meta, bytes.
#[must_use]
pub fn raw_columns() -> SchemaRef {
    static COLUMNS: LazyLock<SchemaRef> = LazyLock::new(|| {
        let pair = vec![Field::new("keys", DataType::Utf8, false), Field::new("values", DataType::Utf8, true)];
        let entries = Arc::new(Field::new("entries", DataType::Struct(pair.into()), false));
        Arc::new(Schema::new(vec![
            Field::new("partition", DataType::Utf8, false),
            Field::new("position", DataType::Utf8, true),
            Field::new("received_at", timestamp(), false),
            Field::new("meta", DataType::Map(entries, false), false),
            Field::new("bytes", DataType::Binary, false),
        ]))
    });
    Arc::clone(&COLUMNS)
}

/// Where the segment with this hash stands, relative to the lake. `started_at_us`, when its epoch began to collect,
/// gives the UTC date.
#[must_use]
pub fn raw_path(id: &StreamId, started_at_us: i64, hash: &str) -> String {
    let date = chrono::DateTime::from_timestamp_micros(started_at_us).unwrap_or_default().format("%Y-%m-%d");
    format!("raw/{}/{}/{date}/{hash}.parquet", id.tenant(), id.stream())
}

/// An epoch's segments in the making.
pub(crate) struct Segments {
    id: StreamId,
    started_at_us: i64,
    closed: Vec<RawSegment>,
    /// For each closed segment the payload in its first row, and at the end that of the open one.
    starts: Vec<u32>,
    open: Option<Open>,
}

struct Open {
    encoder: Encoder,
    rows: usize,
    bytes: usize,
}

impl Segments {
    pub(crate) fn new(id: &StreamId, started_at_us: i64) -> Self {
        Self { id: id.clone(), started_at_us, closed: Vec::new(), starts: vec![0], open: None }
    }

    /// Payloads before this one are in closed segments.
    pub(crate) fn placed(&self) -> u32 {
        self.starts.last().copied().unwrap_or_default()
    }

    /// Takes payloads; `partition` names that of each.
    pub(crate) fn take<'p>(
        &mut self,
        payloads: &[Payload],
        partition: impl Fn(usize) -> &'p str,
    ) -> Result<(), ArrowError> {
        let mut start = 0;
        while start < payloads.len() {
            let (mut bytes, rows) = self.open.as_ref().map_or((0, 0), |open| (open.bytes, open.rows));
            let fitting = payloads[start..].iter().enumerate().take_while(|(index, payload)| {
                let fits = rows + index == 0 || bytes + payload.bytes.len() <= SEGMENT_BYTES_MAX;
                bytes += payload.bytes.len();
                fits
            });
            let end = start + fitting.count();
            if end > start {
                self.write(&payloads[start..end], |index| partition(start + index))?;
            }
            if end < payloads.len() {
                self.close()?;
            }
            start = end;
        }
        Ok(())
    }

    fn write<'p>(&mut self, payloads: &[Payload], partition: impl Fn(usize) -> &'p str) -> Result<(), ArrowError> {
        let open = match &mut self.open {
            Some(open) => open,
            None => self.open.insert(Open { encoder: encoder()?, rows: 0, bytes: 0 }),
        };
        open.encoder.write(&rows(payloads, partition)?)?;
        open.rows += payloads.len();
        open.bytes += payloads.iter().map(|payload| payload.bytes.len()).sum::<usize>();
        Ok(())
    }

    /// Closes the open segment, if there is one.
    pub(crate) fn close(&mut self) -> Result<(), ArrowError> {
        let Some(Open { encoder, rows, .. }) = self.open.take() else { return Ok(()) };
        let (bytes, _) = encoder.finish()?;
        let hash = hex::encode(Sha256::digest(&bytes));
        self.starts.push(self.placed() + u32::try_from(rows).unwrap_or(u32::MAX));
        self.closed.push(RawSegment { path: raw_path(&self.id, self.started_at_us, &hash), bytes, rows });
        Ok(())
    }

    pub(crate) fn into_closed(self) -> Vec<RawSegment> {
        self.closed
    }

    /// `path#row` of payloads that are in closed segments.
    pub(crate) fn references(&self, payloads: &[u32]) -> StringArray {
        let length = self.closed.first().map_or(0, |segment| segment.path.len() + 8);
        let mut references = StringBuilder::with_capacity(payloads.len(), payloads.len() * length);
        // Rows lie in the order of their payloads, so the segment is nearly always the one before.
        let mut segment = usize::MAX;
        let (mut reference, mut row_at) = (String::with_capacity(length), 0);
        for &payload in payloads {
            let range = self.starts.get(segment..).and_then(|starts| starts.get(..2));
            if !range.is_some_and(|range| range[0] <= payload && payload < range[1]) {
                segment = self.starts.partition_point(|start| *start <= payload).saturating_sub(1);
                reference.clear();
                if let Some(place) = self.closed.get(segment) {
                    reference.push_str(&place.path);
                    reference.push('#');
                }
                row_at = reference.len();
            }
            if row_at == 0 {
                references.append_null();
                continue;
            }
            let row = payload - self.starts[segment] + u32::from(faults::bug("raw_row_off"));
            reference.truncate(row_at);
            // Writing into a string cannot fail.
            let _ = write!(reference, "{row}");
            references.append_value(&reference);
        }
        references.finish()
    }
}

fn encoder() -> Result<Encoder, ArrowError> {
    let properties = properties()
        .set_column_dictionary_enabled("bytes".into(), false)
        // All lengths first and then all bytes: nothing stands between two payloads that resemble each other.
        .set_column_encoding("bytes".into(), Encoding::DELTA_LENGTH_BYTE_ARRAY)
        .set_column_data_page_size_limit("bytes".into(), PAGE_BYTES)
        .set_write_batch_size(PAGE_ROWS)
        .set_column_dictionary_enabled("position".into(), false)
        .set_column_encoding("position".into(), Encoding::DELTA_BYTE_ARRAY)
        .set_statistics_enabled(EnabledStatistics::None)
        .build();
    Encoder::new(raw_columns(), properties)
}

fn rows<'p>(payloads: &[Payload], name: impl Fn(usize) -> &'p str) -> Result<RecordBatch, ArrowError> {
    let total: usize = payloads.iter().map(|payload| payload.bytes.len()).sum();
    let mut partition = StringBuilder::with_capacity(payloads.len(), payloads.len());
    let mut position = StringBuilder::with_capacity(payloads.len(), payloads.len() * 8);
    let names = MapFieldNames { entry: "entries".into(), key: "keys".into(), value: "values".into() };
    let mut meta = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
    let mut bytes = BinaryBuilder::with_capacity(payloads.len(), total);
    for (index, payload) in payloads.iter().enumerate() {
        partition.append_value(name(index));
        position.append_option(payload.position.as_ref().map(adapters::contract::Position::as_str));
        for (key, value) in &payload.meta {
            meta.keys().append_value(key);
            meta.values().append_value(value);
        }
        meta.append(true)?;
        bytes.append_value(&payload.bytes);
    }
    let received = TimestampMicrosecondArray::from_iter_values(payloads.iter().map(|payload| payload.received_at_us));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(partition.finish()),
        Arc::new(position.finish()),
        Arc::new(received.with_timezone("UTC")),
        Arc::new(meta.finish()),
        Arc::new(bytes.finish()),
    ];
    RecordBatch::try_new(raw_columns(), columns)
}
