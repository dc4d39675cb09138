//! From the lake to a checkpoint: the positions of all partitions as of the last epoch.
//!
//! The truth is in the epoch records, each with the partitions that moved. Every now and then an owner also writes down
//! all positions, so that not all records have to be read; that note may lag and so may the cache that a caller brings.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use super::error::LakeError;
use super::io::Io;
use super::layout;
use super::log::{TableState, Told};
use super::record::EpochRecord;
use crate::faults;
use crate::names::{DEFAULT_BUCKET, StreamId};
use crate::times::timestamp_us;

/// An owner writes all positions down every so many epochs: so many records at most are read at a start.
pub(crate) const POSITIONS_EVERY: u64 = 64;
/// Notes of positions that are kept: one to start from, and some in case the newest is damaged.
const POSITIONS_KEPT: usize = 3;
/// Records that are read at once.
const READ_AT_ONCE: usize = 16;
/// Generations below the newest that are tried by name before the folder is listed.
const GENERATIONS_TRIED: u64 = 4;

/// Where a stream stands: what a cache keeps, and what a start finds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The table's id: positions of another table of the same name mean nothing.
    pub table_id: String,
    /// The last epoch, 0 before the first.
    pub epoch: u64,
    /// The generation that committed it.
    pub generation: u64,
    /// All partitions that ever moved, as of then.
    pub positions: BTreeMap<String, String>,
    /// The newest event time of all epochs, µs UTC.
    pub newest_event_us: Option<i64>,
}

impl Checkpoint {
    /// Moves on by one epoch.
    pub(crate) fn apply(&mut self, record: &EpochRecord) {
        self.epoch = record.epoch;
        self.generation = record.generation;
        for (partition, span) in &record.positions {
            if span.to.is_empty() {
                self.positions.remove(partition);
            } else {
                self.positions.insert(partition.clone(), span.to.clone());
            }
        }
        self.newest_event_us = self.newest_event_us.max(record.watermark.as_deref().and_then(timestamp_us));
    }
}

/// An epoch record and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) path: String,
    pub(crate) record: EpochRecord,
}

/// Finds the records of committed epochs.
///
/// Of several records of one epoch the committed one is that with the greatest generation: epoch e is committed by one
/// generation g. An older one may have left a record of e behind without committing it. A newer one has claimed after g
/// committed e (a claim between g's record and g's commit takes the version that g's commit needed, and g is fenced),
/// so it has seen e committed and writes records of later epochs only.
pub(crate) struct Records<'a> {
    io: &'a Io,
    id: &'a StreamId,
    /// What the log tells of recent epochs.
    told: &'a BTreeMap<u64, Told>,
    /// No record of a committed epoch has a greater generation.
    newest_generation: u64,
    listed: Option<BTreeMap<u64, (u64, String)>>,
}

impl<'a> Records<'a> {
    pub(crate) fn new(io: &'a Io, id: &'a StreamId, state: &'a TableState) -> Self {
        Self { io, id, told: &state.told, newest_generation: state.own, listed: None }
    }

    /// The committed record of `epoch`.
    pub(crate) async fn find(&mut self, epoch: u64) -> Result<Found, LakeError> {
        if let Some(path) = self.told.get(&epoch).and_then(|told| told.record.clone())
            && let Some(found) = read(self.io, path).await?
        {
            return Ok(found);
        }
        let oldest = self.newest_generation.saturating_sub(GENERATIONS_TRIED);
        for generation in (oldest.max(1)..=self.newest_generation).rev() {
            let path = layout::record(DEFAULT_BUCKET, self.id, epoch, generation);
            if let Some(found) = read(self.io, path).await? {
                return Ok(found);
            }
        }
        self.list(epoch).await?;
        let path = self.listed.as_ref().and_then(|listed| listed.get(&epoch)).map(|(_, path)| path.clone());
        let found = match path {
            Some(path) => read(self.io, path).await?,
            None => None,
        };
        found.ok_or_else(|| {
            let message = format!("epoch {epoch} of {} is committed but its record is missing; restore it", self.id);
            LakeError::data("record_missing", message)
        })
    }

    /// The records of `from..=to`, in order.
    pub(crate) async fn range(&mut self, from: u64, to: u64) -> Result<Vec<Found>, LakeError> {
        let all_told = (from..=to).all(|e| self.told.get(&e).is_some_and(|told| told.record.is_some()));
        if !all_told && to - from >= GENERATIONS_TRIED {
            self.list(from).await?;
        }
        let mut paths = Vec::new();
        for epoch in from..=to {
            let told = self.told.get(&epoch).and_then(|told| told.record.clone());
            let listed = || self.listed.as_ref().and_then(|l| l.get(&epoch)).map(|(_, path)| path.clone());
            paths.push((epoch, told.or_else(listed)));
        }
        let io = self.io;
        let reads = paths.into_iter().map(|(epoch, path)| async move {
            let found = match path {
                Some(path) => read(io, path).await?,
                None => None,
            };
            Ok::<_, LakeError>((epoch, found))
        });
        let read: Vec<_> = futures::stream::iter(reads).buffered(READ_AT_ONCE).try_collect().await?;
        let mut found = Vec::with_capacity(read.len());
        for (epoch, one) in read {
            found.push(match one {
                Some(one) => one,
                None => self.find(epoch).await?,
            });
        }
        Ok(found)
    }

    /// Lists the stream's records from `epoch` on, in all buckets: a message may have asked for another one meanwhile.
    async fn list(&mut self, epoch: u64) -> Result<(), LakeError> {
        if self.listed.as_ref().is_some_and(|listed| listed.first_key_value().is_some_and(|(first, _)| *first <= epoch))
        {
            return Ok(());
        }
        let mut listed: BTreeMap<u64, (u64, String)> = BTreeMap::new();
        for bucket in buckets(self.io).await? {
            let folder = format!("{bucket}/{}", self.id);
            let mut objects = self.io.list(&folder)?;
            while let Some(object) = objects.try_next().await? {
                let name = object.location.filename().unwrap_or_default();
                let Some((at, generation)) = layout::parse_record(name).filter(|(at, _)| *at >= epoch) else {
                    continue;
                };
                let entry = listed.entry(at).or_default();
                if generation > entry.0 {
                    *entry = (generation, object.location.to_string());
                }
            }
        }
        self.listed = Some(listed);
        Ok(())
    }
}

/// The first segments under which epoch records may stand; the default one first.
pub(crate) async fn buckets(io: &Io) -> Result<Vec<String>, LakeError> {
    let (folders, _) = io.names("").await?;
    let mut buckets = vec![DEFAULT_BUCKET.to_owned()];
    buckets.extend(folders.into_iter().filter(|f| f != DEFAULT_BUCKET && !layout::RESERVED.contains(&f.as_str())));
    Ok(buckets)
}

async fn read(io: &Io, path: String) -> Result<Option<Found>, LakeError> {
    let Some(bytes) = io.get(&path).await? else { return Ok(None) };
    let record = EpochRecord::from_bytes(&path, &bytes)?;
    Ok(Some(Found { path, record }))
}

/// The checkpoint as of the table's last epoch, and that epoch's record.
pub(crate) async fn recover(
    io: &Io,
    id: &StreamId,
    state: &TableState,
    cache: Option<Checkpoint>,
) -> Result<(Checkpoint, Option<Found>), LakeError> {
    let table_id = state.table_id();
    let mut checkpoint = Checkpoint { table_id, ..Checkpoint::default() };
    if state.epoch == 0 {
        return Ok((checkpoint, None));
    }
    let mut records = Records::new(io, id, state);
    let last = records.find(state.epoch).await?;
    if let Some(trusted) = cache.as_ref().filter(|_| faults::bug("resume_from_cache")) {
        return Ok((Checkpoint { epoch: state.epoch, ..trusted.clone() }, Some(last)));
    }
    if let Some(base) = from_cache(&mut records, &checkpoint, state.epoch, &last, cache).await? {
        checkpoint = base;
    } else if let Some(base) = from_note(io, id, &checkpoint, state.epoch).await? {
        checkpoint = base;
    }
    if checkpoint.epoch + 1 < state.epoch {
        for found in records.range(checkpoint.epoch + 1, state.epoch - 1).await? {
            checkpoint.apply(&found.record);
        }
    }
    if checkpoint.epoch < state.epoch {
        checkpoint.apply(&last.record);
    }
    Ok((checkpoint, Some(last)))
}

/// The cache, if it is of this table, does not lead, and the record of its epoch says the same.
async fn from_cache(
    records: &mut Records<'_>,
    empty: &Checkpoint,
    epoch: u64,
    last: &Found,
    cache: Option<Checkpoint>,
) -> Result<Option<Checkpoint>, LakeError> {
    let Some(cache) = cache.filter(|c| c.table_id == empty.table_id && (1..=epoch).contains(&c.epoch)) else {
        return Ok(None);
    };
    let record = if cache.epoch == epoch { last.record.clone() } else { records.find(cache.epoch).await?.record };
    let agrees = record
        .positions
        .iter()
        .all(|(partition, span)| cache.positions.get(partition).map_or("", String::as_str) == span.to);
    let newest = record.watermark.as_deref().and_then(timestamp_us);
    Ok((agrees && cache.generation == record.generation && cache.newest_event_us == newest).then_some(cache))
}

/// The newest readable note of positions that does not lead.
async fn from_note(io: &Io, id: &StreamId, empty: &Checkpoint, epoch: u64) -> Result<Option<Checkpoint>, LakeError> {
    if epoch < POSITIONS_EVERY {
        return Ok(None);
    }
    let folder = layout::positions_folder(id);
    let (_, names) = io.names(&folder).await?;
    let notes = names.iter().filter(|name| layout::parse_record(name).is_some_and(|(at, _)| at <= epoch));
    for name in notes.rev() {
        let Some(bytes) = io.get(&format!("{folder}/{name}")).await? else { continue };
        let note = serde_json::from_slice::<Checkpoint>(&bytes).ok();
        if let Some(note) = note.filter(|n| n.table_id == empty.table_id && n.epoch <= epoch) {
            return Ok(Some(note));
        }
    }
    Ok(None)
}

/// Writes all positions down, if it is time to, and removes notes that nobody needs any more. A note that fails to be
/// written only makes a later start slower.
pub(crate) async fn write_note(io: &Io, id: &StreamId, checkpoint: &Checkpoint) -> Result<(), LakeError> {
    if !checkpoint.epoch.is_multiple_of(POSITIONS_EVERY) {
        return Ok(());
    }
    let unwritable = |_| LakeError::bug("positions_json", "positions cannot be written as JSON");
    let bytes = serde_json::to_vec(checkpoint).map(Bytes::from).map_err(unwritable)?;
    io.put_same(&layout::positions(id, checkpoint.epoch, checkpoint.generation), bytes).await?;
    let folder = layout::positions_folder(id);
    let (_, names) = io.names(&folder).await?;
    for name in names.iter().rev().skip(POSITIONS_KEPT) {
        io.remove(&format!("{folder}/{name}")).await?;
    }
    Ok(())
}
