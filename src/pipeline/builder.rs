//! Collects batches into an epoch.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use adapters::contract::{Batch, Decode, Hold, Payload, Position};
use adapters::json::SCHEMA_CHANGE;
use arrow::datatypes::SchemaRef;
use thiserror::Error;

use super::dead::Letter;
use super::decoded::{Decoded, Known, decode};
use super::objects::{Finished, Objects};
use super::seal::{Moved, Sealed};
use crate::faults;
use crate::names::StreamId;
use crate::settings::{Generated, OnBadRecord};

/// Payloads that are decoded together: enough that what a group costs vanishes beside what its payloads cost. Few in
/// tests, so that small epochs have many groups.
const GROUP_MAX: usize = if cfg!(test) { 4 } else { 8 * 1024 };
/// The same for large payloads; a single larger one is a group of its own.
const GROUP_BYTES: usize = 2 << 20;

/// From this size on a group's raw rows are encoded beside its decoding, by a thread that costs far less than they do.
const BESIDE_BYTES: usize = 256 << 10;

/// Columns are normalised when they come in, and one batch of them stays far below what an array can hold.
const ENCODES: &str = "arrays that were normalised when they came in can be encoded";

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

/// An epoch being collected. What comes in is decoded and encoded in groups while the epoch is still open, so that little
/// is left to do when it closes, and little stands in memory meanwhile: a group of payloads, the rows that wait for the
/// name of their raw segment, and Parquet.
pub struct EpochBuilder {
    spec: BuilderSpec,
    schema: Option<SchemaRef>,
    /// Not decoded yet; always empty where a bad record refuses its batch.
    group: Group,
    objects: Objects,
    positions: BTreeMap<String, Moved>,
    bytes_by_partition: BTreeMap<String, u64>,
    watermark_us: Option<i64>,
    newest_by_partition: BTreeMap<String, i64>,
    holds: Vec<Hold>,
    payloads: usize,
    bytes: usize,
}

impl fmt::Debug for EpochBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EpochBuilder")
            .field("spec", &self.spec)
            .field("payloads", &self.payloads)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// Payloads that are decoded together.
#[derive(Default)]
struct Group {
    payloads: Vec<Payload>,
    /// The partition of each payload.
    partitions: Vec<u32>,
    bytes: usize,
}

impl EpochBuilder {
    /// An empty epoch.
    #[must_use]
    pub fn new(spec: BuilderSpec) -> Self {
        Self {
            schema: spec.schema.clone(),
            objects: Objects::new(&spec),
            spec,
            group: Group::default(),
            positions: BTreeMap::new(),
            bytes_by_partition: BTreeMap::new(),
            watermark_us: None,
            newest_by_partition: BTreeMap::new(),
            holds: Vec::new(),
            payloads: 0,
            bytes: 0,
        }
    }

    /// Payloads so far.
    #[must_use]
    pub fn payloads(&self) -> usize {
        self.payloads
    }

    /// Bytes of the payloads so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a commit would say nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.payloads == 0 && self.positions.is_empty()
    }

    /// Bytes of payload that a push of `batch` would decode and encode before it returns; 0 where it only puts the batch
    /// to the others.
    #[must_use]
    pub fn work(&self, batch: &Batch) -> usize {
        let all = self.group.bytes + batch.bytes();
        let now = self.refuses() || all >= GROUP_BYTES || self.group.payloads.len() + batch.payloads.len() >= GROUP_MAX;
        if now { all } else { 0 }
    }

    /// Takes a batch whole. CPU only; see [`EpochBuilder::work`] for how much.
    ///
    /// # Errors
    /// Where it does not join to the partition's batches before it, or holds a record that cannot be taken while such
    /// records park their partition. Nothing of the batch is included then.
    pub fn push(&mut self, partition: &str, batch: Batch) -> Result<(), Refused> {
        let bytes = batch.bytes();
        let full = self.work(&batch) > 0;
        let Batch { from, to, payloads, hold } = batch;
        let moved = self.join(partition, from.as_ref(), to.as_ref())?;
        let count = payloads.len();
        if self.refuses() {
            let partitions = vec![self.objects.partition(partition); count];
            let decoded = self.decode(&payloads, &partitions);
            if let Some(letter) = decoded.letters.iter().find(|letter| self.parks(letter)) {
                return Err(Refused { code: letter.code, message: letter.message.clone() });
            }
            self.objects.keep(&payloads, &partitions).expect(ENCODES);
            self.include(decoded, payloads, &partitions);
        } else {
            let index = self.objects.partition(partition);
            self.group.partitions.extend(std::iter::repeat_n(index, count));
            self.group.payloads.extend(payloads);
            self.group.bytes += bytes;
            if full {
                self.decode_group();
            }
        }
        if let Some(moved) = moved {
            self.positions.insert(partition.to_owned(), moved);
        }
        *self.bytes_by_partition.entry(partition.to_owned()).or_default() += bytes as u64;
        self.bytes += bytes;
        self.payloads += count;
        self.holds.push(hold);
        Ok(())
    }

    /// Whether a bad record refuses its batch, so that each batch has to be decoded by itself and at once.
    fn refuses(&self) -> bool {
        self.spec.on_bad_record == OnBadRecord::Park || self.spec.park_on_schema_change
    }

    /// Whether this one does.
    fn parks(&self, letter: &Letter) -> bool {
        self.spec.on_bad_record == OnBadRecord::Park || letter.code == SCHEMA_CHANGE
    }

    fn decode(&self, payloads: &[Payload], partitions: &[u32]) -> Decoded {
        decode_by(&self.spec, self.schema.as_ref(), payloads, partitions)
    }

    fn decode_group(&mut self) {
        let Group { payloads, partitions, bytes } = std::mem::take(&mut self.group);
        let decoded = if self.spec.raw_kept && bytes >= BESIDE_BYTES {
            let Self { spec, schema, objects, .. } = self;
            std::thread::scope(|scope| {
                let kept = scope.spawn(|| objects.keep(&payloads, &partitions));
                let decoded = decode_by(spec, schema.as_ref(), &payloads, &partitions);
                kept.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).expect(ENCODES);
                decoded
            })
        } else {
            self.objects.keep(&payloads, &partitions).expect(ENCODES);
            self.decode(&payloads, &partitions)
        };
        self.include(decoded, payloads, &partitions);
    }

    fn include(&mut self, mut decoded: Decoded, payloads: Vec<Payload>, partitions: &[u32]) {
        if faults::bug("drop_dead_letters") {
            decoded.letters.clear();
        }
        for (partition, newest) in &decoded.newest {
            self.watermark_us = self.watermark_us.max(Some(*newest));
            let known = self.newest_by_partition.entry(self.objects.partition_name(*partition).to_owned());
            known.and_modify(|known| *known = (*known).max(*newest)).or_insert(*newest);
        }
        self.schema.clone_from(&decoded.schema);
        self.objects.take(decoded, payloads, partitions).expect(ENCODES);
    }

    /// Moves a partition without rows, for an operator's `checkpoint set`. A `to` that is empty means: from the
    /// beginning.
    pub fn set_position(&mut self, partition: &str, from: Option<Position>, to: Position) {
        let from = from.map(|p| p.as_str().to_owned());
        let from = self.positions.get(partition).map_or(from, |moved| moved.0.clone());
        self.positions.insert(partition.to_owned(), (from, to.as_str().to_owned()));
    }

    /// Encodes what is left and names everything. CPU only: keep it off the async threads.
    ///
    /// `closed_at_us` is when collecting ended, µs UTC.
    #[must_use]
    pub fn seal(mut self, closed_at_us: i64) -> Sealed {
        if !self.group.payloads.is_empty() {
            self.decode_group();
        }
        let Finished { raw, files, dead_files, rows, dead, dead_codes } =
            self.objects.finish(self.schema.as_ref()).expect(ENCODES);
        let spec = self.spec;
        Sealed {
            id: spec.id,
            adapter: spec.adapter,
            epoch: spec.epoch,
            generation: spec.generation,
            rows,
            dead,
            dead_codes,
            schema: self.schema,
            positions: self.positions,
            watermark_us: self.watermark_us,
            started_at_us: spec.started_at_us,
            closed_at_us,
            raw,
            files,
            dead_files,
            bytes_by_partition: self.bytes_by_partition,
            newest_by_partition: self.newest_by_partition,
            partition_by: spec.partition_by,
            holds: self.holds,
        }
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
}

fn decode_by(spec: &BuilderSpec, schema: Option<&SchemaRef>, payloads: &[Payload], partitions: &[u32]) -> Decoded {
    let known = Known { schema, generated: &spec.generated };
    decode(spec.decoder.as_ref(), known, payloads, partitions)
}
