//! Raw segments: the payloads of an epoch exactly as received, in a few objects named by their hash.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{
    ArrayRef, BinaryBuilder, MapBuilder, MapFieldNames, RecordBatch, StringBuilder, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use bytes::Bytes;
use parquet::basic::Encoding;
use sha2::{Digest, Sha256};

use super::columns::timestamp;
use super::encode::{Encoder, properties};
use super::seal::RawSegment;
use crate::names::StreamId;

/// Payload bytes after which a segment is closed. Large enough for few objects, small enough to be written and hashed
/// without a second of silence; a single larger payload has a segment of its own.
const SEGMENT_BYTES_MAX: usize = 16 << 20;

/// A payload as it is kept for the raw segment.
#[derive(Debug)]
pub(crate) struct Kept {
    /// Index into the builder's partition names.
    pub(crate) partition: u32,
    pub(crate) position: Option<String>,
    pub(crate) received_at_us: i64,
    pub(crate) meta: BTreeMap<String, String>,
    pub(crate) bytes: Bytes,
}

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

/// Where the segment with this hash stands, relative to the lake. `closed_at_us` gives the UTC date.
#[must_use]
pub fn raw_path(id: &StreamId, closed_at_us: i64, hash: &str) -> String {
    let date = chrono::DateTime::from_timestamp_micros(closed_at_us).unwrap_or_default().format("%Y-%m-%d");
    format!("raw/{}/{}/{date}/{hash}.parquet", id.tenant(), id.stream())
}

/// For each kept payload, its segment and its row in it.
pub(crate) type RawRefs = Vec<(u32, u32)>;

/// Encodes all payloads.
pub(crate) fn segments(
    id: &StreamId,
    closed_at_us: i64,
    partitions: &[String],
    kept: &[Kept],
) -> Result<(Vec<RawSegment>, RawRefs), ArrowError> {
    let mut segments = Vec::new();
    let mut refs = Vec::with_capacity(kept.len());
    let mut rest = kept;
    while !rest.is_empty() {
        let mut bytes = 0usize;
        let mut count = 0usize;
        for payload in rest {
            if count > 0 && bytes + payload.bytes.len() > SEGMENT_BYTES_MAX {
                break;
            }
            bytes += payload.bytes.len();
            count += 1;
        }
        let (chunk, after) = rest.split_at(count);
        let number = u32::try_from(segments.len()).unwrap_or(u32::MAX);
        refs.extend((0..chunk.len()).map(|row| (number, u32::try_from(row).unwrap_or(u32::MAX))));
        let object = encode(partitions, chunk)?;
        let hash = hex::encode(Sha256::digest(&object));
        segments.push(RawSegment { path: raw_path(id, closed_at_us, &hash), bytes: object, rows: chunk.len() });
        rest = after;
    }
    Ok((segments, refs))
}

fn encode(partitions: &[String], chunk: &[Kept]) -> Result<Bytes, ArrowError> {
    let total: usize = chunk.iter().map(|k| k.bytes.len()).sum();
    let mut partition = StringBuilder::new();
    let mut position = StringBuilder::new();
    let names = MapFieldNames { entry: "entries".into(), key: "keys".into(), value: "values".into() };
    let mut meta = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
    let mut bytes = BinaryBuilder::with_capacity(chunk.len(), total);
    for kept in chunk {
        partition.append_value(&partitions[kept.partition as usize]);
        position.append_option(kept.position.as_deref());
        for (key, value) in &kept.meta {
            meta.keys().append_value(key);
            meta.values().append_value(value);
        }
        meta.append(true)?;
        bytes.append_value(&kept.bytes);
    }
    let received = TimestampMicrosecondArray::from_iter_values(chunk.iter().map(|k| k.received_at_us));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(partition.finish()),
        Arc::new(position.finish()),
        Arc::new(received.with_timezone("UTC")),
        Arc::new(meta.finish()),
        Arc::new(bytes.finish()),
    ];
    let batch = RecordBatch::try_new(raw_columns(), columns)?;
    let properties = properties()
        .set_column_dictionary_enabled("bytes".into(), false)
        .set_column_dictionary_enabled("position".into(), false)
        .set_column_encoding("position".into(), Encoding::DELTA_BYTE_ARRAY)
        .set_column_statistics_enabled("bytes".into(), parquet::file::properties::EnabledStatistics::None)
        .build();
    let mut encoder = Encoder::new(raw_columns(), properties)?;
    encoder.write(&batch)?;
    Ok(encoder.finish()?.0)
}
