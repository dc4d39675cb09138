//! A closed epoch: everything encoded and named, nothing written yet.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use adapters::contract::Hold;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, StringBuilder, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::builder::{EpochBuilder, Piece};
use super::columns::table_columns;
use super::dead::{self, Letter};
use super::encode::{Encoder, properties_for};
use super::evolve::align;
use super::raw::{Kept, RawRefs, segments};
use super::split::{Key, partition_name, split, values};
use super::stats::delta_stats;
use crate::names::StreamId;

/// Rows that are handed to the Parquet writer at a time: enough to make its work per call vanish, few enough that the
/// text of their raw references stays small.
const WRITE_ROWS: usize = 16 * 1024;

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

/// What the five common columns of a row are made of.
struct Origins<'a> {
    epoch: i64,
    partitions: &'a [String],
    kept: &'a [Kept],
    segments: Vec<&'a str>,
    refs: &'a RawRefs,
}

impl Origins<'_> {
    /// The columns `_lf_*` for rows of these payloads.
    fn columns(&self, payloads: &[u32]) -> Vec<ArrayRef> {
        let (mut partition, mut position, mut raw) = (StringBuilder::new(), StringBuilder::new(), StringBuilder::new());
        let mut text = String::new();
        for &payload in payloads {
            let kept = &self.kept[payload as usize];
            partition.append_value(&self.partitions[kept.partition as usize]);
            position.append_option(kept.position.as_deref());
            match self.refs.get(payload as usize) {
                None => raw.append_null(),
                Some((segment, row)) => {
                    text.clear();
                    text.push_str(self.segments[*segment as usize]);
                    text.push('#');
                    text.push_str(&row.to_string());
                    raw.append_value(&text);
                }
            }
        }
        let received = payloads.iter().map(|p| self.kept[*p as usize].received_at_us);
        vec![
            Arc::new(Int64Array::from(vec![self.epoch; payloads.len()])),
            Arc::new(partition.finish()),
            Arc::new(position.finish()),
            Arc::new(raw.finish()),
            Arc::new(TimestampMicrosecondArray::from_iter_values(received).with_timezone("UTC")),
        ]
    }
}

pub(crate) fn seal(builder: EpochBuilder, closed_at_us: i64) -> Result<Sealed, ArrowError> {
    let EpochBuilder {
        spec,
        schema,
        partitions,
        kept,
        pieces,
        letters,
        positions,
        bytes_by_partition,
        watermark_us,
        newest_by_partition,
        holds,
        ..
    } = builder;
    let (raw, refs) = match spec.raw_kept {
        true => segments(&spec.id, closed_at_us, &partitions, &kept)?,
        false => Default::default(),
    };
    let origins = Origins {
        epoch: i64::try_from(spec.epoch).unwrap_or(i64::MAX),
        partitions: &partitions,
        kept: &kept,
        segments: raw.iter().map(|s| s.path.as_str()).collect(),
        refs: &refs,
    };
    let namer = Namer { epoch: spec.epoch, generation: spec.generation };
    let rows = pieces.iter().map(|p| p.batch.num_rows() as u64).sum();
    let files = match &schema {
        Some(schema) => data_files(&namer, &origins, schema, &pieces, &spec.partition_by)?,
        None => Vec::new(),
    };
    let dead_files = dead_letter_files(&namer, &origins, &letters)?;
    let mut dead_codes = BTreeMap::new();
    for letter in &letters {
        *dead_codes.entry(letter.code.to_owned()).or_default() += 1;
    }
    Ok(Sealed {
        rows,
        dead: letters.len() as u64,
        dead_codes,
        id: spec.id,
        adapter: spec.adapter,
        epoch: spec.epoch,
        generation: spec.generation,
        schema,
        positions,
        watermark_us,
        started_at_us: spec.started_at_us,
        closed_at_us,
        raw,
        files,
        dead_files,
        bytes_by_partition,
        newest_by_partition,
        partition_by: spec.partition_by,
        holds,
    })
}

/// Names files by epoch, generation and content: the same file staged twice is the same object, two different ones
/// never are.
struct Namer {
    epoch: u64,
    generation: u64,
}

impl Namer {
    fn name(&self, folder: &str, bytes: &[u8]) -> String {
        // The folder is hashed too: files of two partition values may have the same content.
        let hash = hex::encode(Sha256::new().chain_update(folder).chain_update(bytes).finalize());
        let name = format!("part-{}-{}-{}.parquet", self.epoch, self.generation, &hash[..32]);
        if folder.is_empty() { name } else { format!("{folder}/{name}") }
    }
}

fn dead_letter_files(namer: &Namer, origins: &Origins<'_>, letters: &[Letter]) -> Result<Vec<DataFile>, ArrowError> {
    if letters.is_empty() {
        return Ok(Vec::new());
    }
    let payloads: Vec<u32> = letters.iter().map(|l| l.payload).collect();
    let mut files = Files::new(namer, &[]);
    files.write(&dead::rows(origins.columns(&payloads), letters)?)?;
    files.finish()
}

fn data_files(
    namer: &Namer,
    origins: &Origins<'_>,
    schema: &SchemaRef,
    pieces: &[Piece],
    partition_by: &[String],
) -> Result<Vec<DataFile>, ArrowError> {
    let table = table_columns(Some(schema));
    let mut files = Files::new(namer, partition_by);
    let mut start = 0;
    while start < pieces.len() {
        let mut rows = 0;
        let mut end = start;
        while end < pieces.len() && (end == start || rows + pieces[end].batch.num_rows() <= WRITE_ROWS) {
            rows += pieces[end].batch.num_rows();
            end += 1;
        }
        let group = &pieces[start..end];
        let batches = group.iter().map(|p| align(&p.batch, schema)).collect::<Result<Vec<_>, _>>()?;
        let batch = match &batches[..] {
            [one] => one.clone(),
            many => concat_batches(schema, many)?,
        };
        let payloads: Vec<u32> = group.iter().flat_map(|p| p.payload.iter().copied()).collect();
        // One large piece is still written in slices.
        for first in (0..batch.num_rows()).step_by(WRITE_ROWS) {
            let length = WRITE_ROWS.min(batch.num_rows() - first);
            let mut columns = batch.slice(first, length).columns().to_vec();
            columns.extend(origins.columns(&payloads[first..first + length]));
            let options = RecordBatchOptions::new().with_row_count(Some(length));
            files.write(&RecordBatch::try_new_with_options(Arc::clone(&table), columns, &options)?)?;
        }
        start = end;
    }
    files.finish()
}

/// The files of one table, one for each value of its partition columns.
struct Files<'a> {
    namer: &'a Namer,
    partition_by: &'a [String],
    open: HashMap<Key, (SchemaRef, usize, Encoder)>,
    order: Vec<Key>,
}

impl<'a> Files<'a> {
    fn new(namer: &'a Namer, partition_by: &'a [String]) -> Self {
        Self { namer, partition_by, open: HashMap::new(), order: Vec::new() }
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        if self.partition_by.is_empty() {
            return self.write_key(Key::new(), batch);
        }
        for (key, batch) in split(batch, self.partition_by)? {
            self.write_key(key, &batch)?;
        }
        Ok(())
    }

    fn write_key(&mut self, key: Key, batch: &RecordBatch) -> Result<(), ArrowError> {
        if !self.open.contains_key(&key) {
            let encoder = Encoder::new(batch.schema(), properties_for(batch))?;
            self.order.push(key.clone());
            self.open.insert(key.clone(), (batch.schema(), 0, encoder));
        }
        if let Some((_, rows, encoder)) = self.open.get_mut(&key) {
            *rows += batch.num_rows();
            encoder.write(batch)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<DataFile>, ArrowError> {
        let mut files = Vec::with_capacity(self.order.len());
        for key in std::mem::take(&mut self.order) {
            let Some((schema, rows, encoder)) = self.open.remove(&key) else { continue };
            let (bytes, metadata) = encoder.finish()?;
            let folder = partition_name(self.partition_by, &key);
            files.push(DataFile {
                path: self.namer.name(&folder, &bytes),
                stats: delta_stats(&schema, &metadata),
                bytes,
                rows,
                partition_values: values(self.partition_by, &key),
            });
        }
        Ok(files)
    }
}
