//! The objects of an epoch that collects: raw segments, data files, dead letters. Rows are encoded as soon as they know
//! where their raw payload stands, which with raw kept is when its segment is closed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use adapters::contract::Payload;
use arrow::array::{
    ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, StringBuilder, TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;

use super::builder::BuilderSpec;
use super::columns::table_columns;
use super::dead::{self, Letter};
use super::decoded::{Decoded, Piece};
use super::evolve::align;
use super::files::{Files, Namer};
use super::raw::Segments;
use super::seal::{DataFile, RawSegment};

/// Rows that are handed to the Parquet writer at a time: enough to make its work per call vanish, few enough that the
/// text of their raw references stays small. Few in tests, so that small epochs are written in many turns.
const WRITE_ROWS: usize = if cfg!(test) { 3 } else { 8 * 1024 };

/// What is known of a payload when its bytes are gone.
#[derive(Debug)]
struct Origin {
    /// Index into the partitions' names.
    partition: u32,
    position: Option<String>,
    received_at_us: i64,
}

/// Origins of payloads that still have rows to be written.
#[derive(Debug, Default)]
struct Origins {
    epoch: i64,
    partitions: Vec<String>,
    known: Vec<Origin>,
    /// The payload of the first of `known`.
    first: u32,
}

pub(crate) struct Objects {
    origins: Origins,
    index: HashMap<String, u32>,
    /// Not written yet, in order.
    pieces: Vec<Piece>,
    pieces_rows: usize,
    letters: Vec<Letter>,
    /// Payloads up to here have been looked at by the last write.
    written: u32,
    raw: Option<Segments>,
    files: Files,
    dead_files: Files,
    rows: u64,
    dead: u64,
    dead_codes: BTreeMap<String, u64>,
}

/// All objects of an epoch.
pub(crate) struct Finished {
    pub(crate) raw: Vec<RawSegment>,
    pub(crate) files: Vec<DataFile>,
    pub(crate) dead_files: Vec<DataFile>,
    pub(crate) rows: u64,
    pub(crate) dead: u64,
    pub(crate) dead_codes: BTreeMap<String, u64>,
}

impl Objects {
    pub(crate) fn new(spec: &BuilderSpec) -> Self {
        let namer = Namer { epoch: spec.epoch, generation: spec.generation };
        Self {
            origins: Origins { epoch: i64::try_from(spec.epoch).unwrap_or(i64::MAX), ..Origins::default() },
            index: HashMap::new(),
            pieces: Vec::new(),
            pieces_rows: 0,
            letters: Vec::new(),
            written: 0,
            raw: spec.raw_kept.then(|| Segments::new(&spec.id, spec.started_at_us)),
            files: Files::new(namer, &spec.partition_by),
            dead_files: Files::new(namer, &[]),
            rows: 0,
            dead: 0,
            dead_codes: BTreeMap::new(),
        }
    }

    /// The number that stands for a partition's name.
    pub(crate) fn partition(&mut self, name: &str) -> u32 {
        if let Some(index) = self.index.get(name) {
            return *index;
        }
        let index = u32::try_from(self.origins.partitions.len()).unwrap_or(u32::MAX);
        self.origins.partitions.push(name.to_owned());
        self.index.insert(name.to_owned(), index);
        index
    }

    /// The name that a number stands for.
    pub(crate) fn partition_name(&self, index: u32) -> &str {
        self.origins.partitions.get(index as usize).map_or("", String::as_str)
    }

    /// Puts payloads, each of one of `partitions`, into raw segments, if they are kept.
    pub(crate) fn keep(&mut self, payloads: &[Payload], partitions: &[u32]) -> Result<(), ArrowError> {
        let Some(raw) = &mut self.raw else { return Ok(()) };
        raw.take(payloads, |index| self.origins.partitions[partitions[index] as usize].as_str())
    }

    /// Takes payloads, each of one of `partitions`, with what they decoded to. They have been given to
    /// [`Objects::keep`] before.
    pub(crate) fn take(
        &mut self,
        decoded: Decoded,
        payloads: Vec<Payload>,
        partitions: &[u32],
    ) -> Result<(), ArrowError> {
        let base = self.origins.end();
        for mut piece in decoded.pieces {
            piece.payload.iter_mut().for_each(|payload| *payload += base);
            self.pieces_rows += piece.batch.num_rows();
            self.rows += piece.batch.num_rows() as u64;
            self.pieces.push(piece);
        }
        for letter in decoded.letters {
            self.dead += 1;
            *self.dead_codes.entry(letter.code.to_owned()).or_default() += 1;
            self.letters.push(Letter { payload: letter.payload + base, ..letter });
        }
        self.origins.known.reserve(payloads.len());
        for (payload, partition) in payloads.into_iter().zip(partitions) {
            let Payload { position, received_at_us, .. } = payload;
            let position = position.map(adapters::contract::Position::into_text);
            self.origins.known.push(Origin { partition: *partition, position, received_at_us });
        }
        let placed = self.raw.as_ref().map_or(self.origins.end(), Segments::placed);
        if self.pieces_rows >= WRITE_ROWS && placed > self.written {
            self.write(decoded.schema.as_ref(), placed)?;
        }
        Ok(())
    }

    /// Closes everything.
    pub(crate) fn finish(mut self, schema: Option<&SchemaRef>) -> Result<Finished, ArrowError> {
        if let Some(raw) = &mut self.raw {
            raw.close()?;
        }
        self.write(schema, self.origins.end())?;
        Ok(Finished {
            raw: self.raw.map(Segments::into_closed).unwrap_or_default(),
            files: self.files.finish()?,
            dead_files: self.dead_files.finish()?,
            rows: self.rows,
            dead: self.dead,
            dead_codes: self.dead_codes,
        })
    }

    /// Writes what is made of payloads before `placed` alone, and forgets those payloads.
    fn write(&mut self, schema: Option<&SchemaRef>, placed: u32) -> Result<(), ArrowError> {
        let ready = self.pieces.iter().position(|piece| piece.payload.iter().any(|payload| *payload >= placed));
        let rest = self.pieces.split_off(ready.unwrap_or(self.pieces.len()));
        let ready = std::mem::replace(&mut self.pieces, rest);
        self.pieces_rows = self.pieces.iter().map(|piece| piece.batch.num_rows()).sum();
        if let Some(schema) = schema.filter(|_| !ready.is_empty()) {
            self.write_pieces(schema, ready)?;
        }
        let (ready, rest): (Vec<_>, Vec<_>) = self.letters.drain(..).partition(|letter| letter.payload < placed);
        self.letters = rest;
        if !ready.is_empty() {
            let payloads: Vec<u32> = ready.iter().map(|letter| letter.payload).collect();
            let common = self.origins.columns(&payloads, self.raw.as_ref());
            self.dead_files.write(&dead::rows(common, &ready)?)?;
        }
        self.written = placed;
        let waiting = self.pieces.iter().flat_map(|piece| &piece.payload).min().copied();
        self.origins.forget(waiting.map_or(placed, |waiting| waiting.min(placed)));
        Ok(())
    }

    fn write_pieces(&mut self, schema: &SchemaRef, pieces: Vec<Piece>) -> Result<(), ArrowError> {
        let table = table_columns(Some(schema));
        let mut pieces = pieces.into_iter().peekable();
        while let Some(Piece { batch, mut payload }) = pieces.next() {
            let mut batches = vec![align(&batch, schema)?];
            while let Some(next) = pieces.next_if(|next| payload.len() + next.payload.len() <= WRITE_ROWS) {
                batches.push(align(&next.batch, schema)?);
                payload.extend(next.payload);
            }
            let batch = match &batches[..] {
                [one] => one.clone(),
                many => concat_batches(schema, many)?,
            };
            // One large piece is still written in slices.
            for first in (0..batch.num_rows()).step_by(WRITE_ROWS) {
                let length = WRITE_ROWS.min(batch.num_rows() - first);
                let mut columns = batch.slice(first, length).columns().to_vec();
                columns.extend(self.origins.columns(&payload[first..first + length], self.raw.as_ref()));
                let options = RecordBatchOptions::new().with_row_count(Some(length));
                self.files.write(&RecordBatch::try_new_with_options(Arc::clone(&table), columns, &options)?)?;
            }
        }
        Ok(())
    }
}

impl Origins {
    /// The payload after the last known one.
    fn end(&self) -> u32 {
        self.first + u32::try_from(self.known.len()).unwrap_or(u32::MAX)
    }

    fn forget(&mut self, before: u32) {
        let count = before.saturating_sub(self.first) as usize;
        self.known.drain(..count.min(self.known.len()));
        self.first = self.first.max(before);
    }

    /// The columns `_lf_*` for rows of these payloads.
    fn columns(&self, payloads: &[u32], segments: Option<&Segments>) -> Vec<ArrayRef> {
        let origin = |payload: u32| &self.known[(payload - self.first) as usize];
        let rows = payloads.len();
        let mut partition = StringBuilder::with_capacity(rows, rows);
        let mut position = StringBuilder::with_capacity(rows, rows * 8);
        for &payload in payloads {
            let origin = origin(payload);
            partition.append_value(&self.partitions[origin.partition as usize]);
            position.append_option(origin.position.as_deref());
        }
        let raw: ArrayRef = match segments {
            Some(segments) => Arc::new(segments.references(payloads)),
            None => new_null_array(&DataType::Utf8, rows),
        };
        let received = payloads.iter().map(|payload| origin(*payload).received_at_us);
        vec![
            Arc::new(Int64Array::from(vec![self.epoch; rows])),
            Arc::new(partition.finish()),
            Arc::new(position.finish()),
            raw,
            Arc::new(TimestampMicrosecondArray::from_iter_values(received).with_timezone("UTC")),
        ]
    }
}
