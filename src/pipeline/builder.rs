//! Collects batches into an epoch.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use adapters::contract::{Batch, Decode, Hold, Payload, Position, Rows};
use adapters::json::SCHEMA_CHANGE;
use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::json::LineDelimitedWriter;
use bytes::Bytes;
use thiserror::Error;

use super::dead::Letter;
use super::evolve::{align, merge_columns};
use super::generate::{generate, without_generated};
use super::raw::Kept;
use super::seal::{Moved, Sealed};
use crate::names::StreamId;
use crate::settings::{Generated, OnBadRecord};

/// Everything about an epoch but its content.
pub struct BuilderSpec {
    /// The stream.
    pub id: StreamId,
    /// The adapter's name, for the record.
    pub adapter: String,
    /// This epoch's number.
    pub epoch: u64,
    /// The owner's generation.
    pub generation: u64,
    /// The adapter's columns as the table has them, without the runtime's; `None` while there are none.
    pub schema: Option<SchemaRef>,
    /// Decodes the payloads.
    pub decoder: Arc<dyn Decode>,
    /// The table's partition columns.
    pub partition_by: Vec<String>,
    /// Whether payloads are kept as raw segments.
    pub raw_kept: bool,
    /// Date columns that are computed; the table has them.
    pub generated: Vec<Generated>,
    /// What happens to records that cannot be taken.
    pub on_bad_record: OnBadRecord,
    /// Whether a record that brings what the table's columns do not have parks its partition.
    pub park_on_schema_change: bool,
    /// When collecting began, µs UTC.
    pub started_at_us: i64,
}

impl fmt::Debug for BuilderSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuilderSpec")
            .field("id", &self.id)
            .field("epoch", &self.epoch)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

/// A batch of which nothing was taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{code}: {message}")]
pub struct Refused {
    /// The code of the first record that could not be taken, or `position_gap`.
    pub code: &'static str,
    /// One sentence; no values.
    pub message: String,
}

/// Rows of one run of payloads.
#[derive(Debug)]
pub(crate) struct Piece {
    /// Adapter columns, normalised, in the builder's order as of then.
    pub(crate) batch: RecordBatch,
    /// For each row, its payload in `EpochBuilder::kept`.
    pub(crate) payload: Vec<u32>,
}

/// An epoch being collected. Decodes at once, so that what cannot be taken is known before anything is included.
pub struct EpochBuilder {
    pub(crate) spec: BuilderSpec,
    pub(crate) schema: Option<SchemaRef>,
    pub(crate) partitions: Vec<String>,
    pub(crate) kept: Vec<Kept>,
    pub(crate) pieces: Vec<Piece>,
    pub(crate) letters: Vec<Letter>,
    pub(crate) positions: BTreeMap<String, Moved>,
    pub(crate) bytes_by_partition: BTreeMap<String, u64>,
    pub(crate) watermark_us: Option<i64>,
    pub(crate) newest_by_partition: BTreeMap<String, i64>,
    pub(crate) holds: Vec<Hold>,
    bytes: usize,
}

impl fmt::Debug for EpochBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EpochBuilder")
            .field("spec", &self.spec)
            .field("payloads", &self.kept.len())
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// What a batch decodes to, before anything of it is included.
#[derive(Default)]
struct Decoded {
    schema: Option<SchemaRef>,
    pieces: Vec<Piece>,
    letters: Vec<Letter>,
    watermark_us: Option<i64>,
}

impl EpochBuilder {
    /// An empty epoch.
    #[must_use]
    pub fn new(spec: BuilderSpec) -> Self {
        Self {
            schema: spec.schema.clone(),
            spec,
            partitions: Vec::new(),
            kept: Vec::new(),
            pieces: Vec::new(),
            letters: Vec::new(),
            positions: BTreeMap::new(),
            bytes_by_partition: BTreeMap::new(),
            watermark_us: None,
            newest_by_partition: BTreeMap::new(),
            holds: Vec::new(),
            bytes: 0,
        }
    }

    /// Payloads so far.
    #[must_use]
    pub fn payloads(&self) -> usize {
        self.kept.len()
    }

    /// Bytes of the payloads so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a commit would say nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.positions.is_empty()
    }

    /// Decodes a batch and takes it whole. CPU only.
    ///
    /// # Errors
    /// Where it does not join to the partition's batches before it, or holds a record that cannot be taken while such
    /// records park their partition. Nothing of the batch is included then.
    pub fn push(&mut self, partition: &str, batch: Batch) -> Result<(), Refused> {
        let bytes = batch.bytes();
        let Batch { from, to, payloads, hold } = batch;
        let moved = self.join(partition, from.as_ref(), to.as_ref())?;
        let first = u32::try_from(self.kept.len()).unwrap_or(u32::MAX);
        let decoded = self.decode(&payloads, first);
        let parks = |letter: &&Letter| {
            let schema_change = self.spec.park_on_schema_change && letter.code == SCHEMA_CHANGE;
            schema_change || self.spec.on_bad_record == OnBadRecord::Park
        };
        if let Some(letter) = decoded.letters.iter().find(parks) {
            return Err(Refused { code: letter.code, message: letter.message.clone() });
        }
        let partition_index = self.partition_index(partition);
        for payload in payloads {
            let Payload { position, received_at_us, meta, bytes, .. } = payload;
            // Without raw only what rows refer to has to be kept.
            let (meta, bytes) = if self.spec.raw_kept { (meta, bytes) } else { Default::default() };
            self.kept.push(Kept {
                partition: partition_index,
                position: position.map(|p| p.as_str().to_owned()),
                received_at_us,
                meta,
                bytes,
            });
        }
        self.schema = decoded.schema;
        self.pieces.extend(decoded.pieces);
        self.letters.extend(decoded.letters);
        self.watermark_us = self.watermark_us.max(decoded.watermark_us);
        if let Some(newest) = decoded.watermark_us {
            let known = self.newest_by_partition.entry(partition.to_owned()).or_insert(newest);
            *known = newest.max(*known);
        }
        if let Some(moved) = moved {
            self.positions.insert(partition.to_owned(), moved);
        }
        *self.bytes_by_partition.entry(partition.to_owned()).or_default() += bytes as u64;
        self.bytes += bytes;
        self.holds.push(hold);
        Ok(())
    }

    /// Moves a partition without rows, for an operator's `checkpoint set`. A `to` that is empty means: from the
    /// beginning.
    pub fn set_position(&mut self, partition: &str, from: Option<Position>, to: Position) {
        let from = from.map(|p| p.as_str().to_owned());
        let from = self.positions.get(partition).map_or(from, |moved| moved.0.clone());
        self.positions.insert(partition.to_owned(), (from, to.as_str().to_owned()));
    }

    /// Encodes and names everything. CPU only, seconds for a large epoch: keep it off the async threads.
    ///
    /// `closed_at_us` is when collecting ended, µs UTC.
    #[must_use]
    pub fn seal(self, closed_at_us: i64) -> Sealed {
        super::seal::seal(self, closed_at_us).expect("arrays that were normalised when they came in can be encoded")
    }

    /// The partition's move with this batch, or the refusal of a batch that does not join.
    fn join(&self, partition: &str, from: Option<&Position>, to: Option<&Position>) -> Result<Option<Moved>, Refused> {
        let Some(to) = to.filter(|to| from != Some(*to)) else { return Ok(None) };
        let from = from.map(|p| p.as_str().to_owned());
        let first = match self.positions.get(partition) {
            None => from,
            Some((first, last)) if from.as_deref() == Some(last) => first.clone(),
            Some(_) => {
                return Err(Refused {
                    code: "position_gap",
                    message: "the batch does not begin where the partition's last one ended".to_owned(),
                });
            }
        };
        Ok(Some((first, to.as_str().to_owned())))
    }

    fn partition_index(&mut self, partition: &str) -> u32 {
        let index = self.partitions.iter().position(|p| p == partition).unwrap_or_else(|| {
            self.partitions.push(partition.to_owned());
            self.partitions.len() - 1
        });
        u32::try_from(index).unwrap_or(u32::MAX)
    }

    /// Decodes the runs between payloads that the source has already given up.
    fn decode(&self, payloads: &[Payload], first: u32) -> Decoded {
        let mut decoded = Decoded { schema: self.schema.clone(), ..Decoded::default() };
        let mut start = 0;
        while start < payloads.len() {
            let base = first + u32::try_from(start).unwrap_or(u32::MAX);
            if let Some(mark) = &payloads[start].dead {
                let bytes = payloads[start].bytes.clone();
                decoded.letters.push(Letter { payload: base, code: mark.code, message: mark.message.clone(), bytes });
                start += 1;
                continue;
            }
            let length = payloads[start..].iter().take_while(|p| p.dead.is_none()).count();
            let run = &payloads[start..start + length];
            let known = without_generated(decoded.schema.as_ref(), &self.spec.generated);
            let rows = self.spec.decoder.decode(run, known.as_ref());
            decoded.take(rows, run, base, &self.spec.generated);
            start += length;
        }
        decoded
    }
}

impl Decoded {
    fn take(&mut self, rows: Rows, run: &[Payload], base: u32, generated: &[Generated]) {
        for record in rows.dead {
            let whole = run.get(record.payload as usize).map(|p| p.bytes.clone()).unwrap_or_default();
            let bytes = record.bytes.map_or(whole, Bytes::from);
            self.letters.push(Letter {
                payload: base + record.payload,
                code: record.code,
                message: record.message,
                bytes,
            });
        }
        let mut payload: Vec<u32> = rows.payload.iter().map(|p| base + p).collect();
        let mut times = rows.event_time_us;
        let (schema, unfit) = merge_columns(self.schema.as_ref(), &rows.batch.schema());
        let mut batch = rows.batch;
        if !unfit.is_empty() {
            let keep = self.refuse_unfit(&batch, &unfit, &payload);
            payload = retain(payload, &keep);
            times = retain(times, &keep);
            batch = filter_record_batch(&batch, &keep).unwrap_or_else(|_| batch.slice(0, 0));
        }
        if !generated.is_empty() {
            let indexes: Vec<u32> = payload.iter().map(|p| p - base).collect();
            batch = generate(&batch, generated, &times, &indexes, run).unwrap_or(batch);
        }
        let Ok(batch) = align(&batch, &schema) else {
            // The types agree in kind, so only a value out of range comes here (text above 2 GiB); none may be dropped.
            for (row, payload) in payload.into_iter().enumerate() {
                let message = "a value does not fit the table's column".to_owned();
                let bytes = row_as_json(&batch, row);
                self.letters.push(Letter { payload, code: "type_mismatch", message, bytes });
            }
            return;
        };
        self.watermark_us = self.watermark_us.max(times.into_iter().flatten().max());
        self.schema = Some(schema);
        if batch.num_rows() > 0 {
            self.pieces.push(Piece { batch, payload });
        }
    }

    /// Rows with a value in an unfit column become dead letters; gives which rows stay.
    fn refuse_unfit(&mut self, batch: &RecordBatch, unfit: &[(String, &'static str)], payload: &[u32]) -> BooleanArray {
        let mut keep = vec![true; batch.num_rows()];
        for (name, code) in unfit {
            let Some(column) = batch.column_by_name(name) else { continue };
            for (row, kept) in keep.iter_mut().enumerate() {
                if *kept && column.is_valid(row) {
                    *kept = false;
                    let message = match *code {
                        "type_mismatch" => format!("field {name:?} has another type than the table's column"),
                        _ => format!("field {name:?} cannot be a column of the table"),
                    };
                    let bytes = row_as_json(batch, row);
                    self.letters.push(Letter { payload: payload[row], code, message, bytes });
                }
            }
        }
        BooleanArray::from(keep)
    }
}

fn retain<T>(values: Vec<T>, keep: &BooleanArray) -> Vec<T> {
    values.into_iter().zip(keep.values()).filter_map(|(value, keep)| keep.then_some(value)).collect()
}

fn row_as_json(batch: &RecordBatch, row: usize) -> Bytes {
    let mut json = Vec::new();
    let mut writer = LineDelimitedWriter::new(&mut json);
    let written = writer.write(&batch.slice(row, 1)).and_then(|()| writer.finish());
    drop(writer);
    if written.is_err() {
        json.clear();
    }
    while json.last() == Some(&b'\n') {
        json.pop();
    }
    json.into()
}
