//! The owner of a stream, and how an epoch commits: stage, record, commit, dead letters.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::claim::info;
use super::delta::{add, add_recorded, line, metadata, protocol, txn};
use super::error::{LakeError, LakeErrorClass, crash};
use super::evolution::evolution;
use super::io::{Io, Put};
use super::log::{Apps, Log, RECORD_KEY, Step, TableState};
use super::record::EpochRecord;
use super::recover::{Checkpoint, write_note};
use super::{Lake, layout};
use crate::faults;
use crate::names::StreamId;
use crate::pipeline::{self, DataFile, RawSegment, Sealed};

/// Objects of one epoch that are put at once.
const PUTS_AT_ONCE: usize = 8;
/// How long a commit may take longer for the note of all positions that is due now and then.
const NOTE_MAX: Duration = Duration::from_secs(2);

/// A committed epoch.
#[derive(Debug, Clone)]
pub struct Committed {
    /// Its number.
    pub epoch: u64,
    /// The table's version that holds it.
    pub version: u64,
    /// Where the stream stands now.
    pub checkpoint: Checkpoint,
    /// `data` of the event `data-streams:results`.
    pub reference: Value,
    /// Rows in the table.
    pub rows: u64,
    /// Dead letters.
    pub dead: u64,
    /// Dead letters by code.
    pub dead_codes: BTreeMap<String, u64>,
}

/// The owner of a stream, as long as nobody else claims it.
pub struct Owner {
    lake: Arc<Lake>,
    /// The lake's, with this owner's signs of life.
    io: Io,
    id: StreamId,
    generation: u64,
    log: Log,
    /// Opened with the first dead letters.
    dead: Option<Log>,
    checkpoint: Checkpoint,
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owner")
            .field("id", &self.id)
            .field("generation", &self.generation)
            .field("epoch", &self.checkpoint.epoch)
            .finish_non_exhaustive()
    }
}

impl Owner {
    pub(crate) fn new(lake: Arc<Lake>, io: Io, id: &StreamId, log: Log, checkpoint: Checkpoint) -> Self {
        let generation = log.state.as_ref().map_or(0, |state| state.own);
        Self { lake, io, id: id.clone(), generation, log, dead: None, checkpoint }
    }

    /// Where the stream stands.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The generation of this owner.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The adapter's columns as the table has them; `None` while it has none.
    #[must_use]
    pub fn schema(&self) -> Option<SchemaRef> {
        let state = self.log.state.as_ref()?;
        let columns = pipeline::adapter_columns(&state.schema);
        (!columns.fields().is_empty()).then_some(columns)
    }

    /// Commits an epoch: when it returns, the epoch is in the lake whole.
    ///
    /// After an error, or when its future was dropped, it may be called again with the same epoch; what was done is
    /// found and not done twice. Errors that may heal are tried again for a while within.
    ///
    /// # Errors
    /// `fenced` when another owner has claimed the stream; `bug` for an epoch that does not follow on this owner's last;
    /// `config` when the table was changed so that the epoch's columns no longer fit; else the store's.
    pub async fn commit(&mut self, sealed: &Sealed, bucket: &str) -> Result<Committed, LakeError> {
        self.check(sealed)?;
        let record = EpochRecord::of(sealed, self.checkpoint.newest_event_us);
        let path = layout::record(bucket, &self.id, sealed.epoch, sealed.generation);
        if faults::bug("commit_before_stage") {
            self.commit_table(sealed, &path).await?;
        }
        self.stage(sealed, &path, &record).await?;
        if faults::bug("dead_before_commit") {
            self.finish_dead(&record).await?;
        }
        crash("lake.commit.before")?;
        if faults::fails("silent_commit") {
            std::future::pending::<()>().await;
        }
        let version = self.commit_table(sealed, &path).await?;
        crash("lake.commit.after")?;
        self.finish_dead(&record).await?;
        self.checkpoint.apply(&record);
        // Only a later start is slower without it, so neither its failure nor its slowness is the commit's.
        let _ = timeout(NOTE_MAX, write_note(&self.io, &self.id, &self.checkpoint)).await;
        self.lake.remember(&self.id, sealed.epoch, version);
        Ok(Committed {
            epoch: sealed.epoch,
            version,
            checkpoint: self.checkpoint.clone(),
            reference: record.reference(&path, Some(version)),
            rows: sealed.rows,
            dead: sealed.dead,
            dead_codes: sealed.dead_codes.clone(),
        })
    }

    /// Whether `sealed` is this owner's next epoch and joins to the last.
    fn check(&self, sealed: &Sealed) -> Result<(), LakeError> {
        let expected = (&self.id, self.generation, self.checkpoint.epoch + 1);
        let given = (&sealed.id, sealed.generation, sealed.epoch);
        if given != expected {
            let message = format!("expected (stream, generation, epoch) {expected:?}, was given {given:?}");
            return Err(LakeError::bug("epoch_out_of_order", message));
        }
        for (partition, (from, _)) in &sealed.positions {
            if from.as_ref() != self.checkpoint.positions.get(partition) {
                let message = format!("partition {partition:?} does not go on from where the checkpoint has it");
                return Err(LakeError::bug("position_gap", message));
            }
        }
        Ok(())
    }

    /// Puts everything that the epoch consists of, its record too, side by side: nothing of it counts before the commit,
    /// so only all of it together has to be there by then. Names stand for contents, so a second time changes nothing.
    async fn stage(&self, sealed: &Sealed, path: &str, record: &EpochRecord) -> Result<(), LakeError> {
        let put = |path: String, bytes: Bytes| async move { self.io.put_same(&path, bytes).await };
        let raw = async {
            crash("lake.raw.before")?;
            let segment = |segment: &RawSegment| put(self.raw_name(&segment.path), segment.bytes.clone());
            let puts: Vec<_> = sealed.raw.iter().map(segment).collect();
            futures::stream::iter(puts).buffer_unordered(PUTS_AT_ONCE).try_collect::<()>().await?;
            crash("lake.raw.after")?;
            Ok(())
        };
        let data = async {
            crash("lake.data.before")?;
            let (table, dead) = (layout::table(&self.id), layout::dead(&self.id));
            let file = |table: &str, file: &DataFile| put(format!("{table}/{}", file.path), file.bytes.clone());
            let files = sealed.files.iter().map(|f| file(&table, f));
            let puts: Vec<_> = files.chain(sealed.dead_files.iter().map(|f| file(&dead, f))).collect();
            futures::stream::iter(puts).buffer_unordered(PUTS_AT_ONCE).try_collect::<()>().await?;
            crash("lake.data.after")?;
            Ok(())
        };
        futures::try_join!(raw, data, self.write_record(path, record)).map(|_| ())
    }

    /// The segment's path, unless the bug is on that gives it another.
    fn raw_name(&self, path: &str) -> String {
        if faults::bug("random_raw_name") { path.replace(".parquet", "0.parquet") } else { path.to_owned() }
    }

    async fn write_record(&self, path: &str, record: &EpochRecord) -> Result<(), LakeError> {
        if faults::bug("record_gap") && record.epoch.is_multiple_of(3) {
            return Ok(());
        }
        let put = self.io.put_or_compare(path, record.to_bytes()?).await?;
        if put == Put::Exists {
            // This generation has sealed another content for this epoch before. Which of the two is committed cannot
            // be told apart by the record any more, so a new generation has to take over.
            let message = format!("{path} holds another content of the same generation; claim the stream again");
            return Err(LakeError::bug("record_differs", message));
        }
        crash("lake.record.after")?;
        Ok(())
    }

    async fn commit_table(&mut self, sealed: &Sealed, record: &str) -> Result<u64, LakeError> {
        let generation = self.generation;
        let now_ms = sealed.closed_at_us / 1000;
        let parameters = json!({
            "outputMode": "Append", "queryId": sealed.id.to_string(), "epochId": sealed.epoch.to_string(),
        });
        let info = info("STREAMING UPDATE", &parameters, now_ms, &[(RECORD_KEY, record)]);
        let txns = txn(&layout::epoch_app(&sealed.id), sealed.epoch, now_ms)
            + &txn(&layout::own_app(&sealed.id), generation, now_ms);
        let adds: String = sealed.files.iter().map(|file| add(file, now_ms)).collect();
        let decide = |state: Option<&TableState>| {
            let gone = || LakeError::data("table_missing", format!("the table of {} is gone", sealed.id));
            let state = state.ok_or_else(gone)?;
            if state.own != generation && !faults::bug("skip_own_check") {
                return Err(LakeError::fenced(generation, i64::try_from(state.own).unwrap_or(i64::MAX)));
            }
            // The owner is this one, so the epoch is too.
            if state.epoch == sealed.epoch && !faults::bug("blind_retry") {
                let told = state.told.get(&sealed.epoch).map_or(state.version, |told| told.version);
                return Ok(Step::Done(told));
            }
            let follows = state.epoch + 1 == sealed.epoch;
            if !follows && !faults::bug("skip_own_check") && !faults::bug("blind_retry") {
                let message = format!("the table stands at epoch {}, epoch {} was given", state.epoch, sealed.epoch);
                return Err(LakeError::bug("epoch_out_of_order", message));
            }
            let mut body = info.clone();
            body += &evolve(state, sealed)?;
            Ok(Step::Write(body + &txns + &adds))
        };
        self.log.append(&self.io, "lake.commit.sent", decide).await
    }

    /// Brings the dead table up to `record`, whose epoch is committed.
    ///
    /// The dead table follows and never leads, and misses at most the last epoch: an owner goes on to the next one only
    /// after this, and a new owner comes here before anything else.
    pub(crate) async fn finish_dead(&mut self, record: &EpochRecord) -> Result<(), LakeError> {
        if record.dead == 0 {
            return Ok(());
        }
        crash("lake.dead.before")?;
        let table = layout::dead(&self.id);
        let app = layout::dead_app(&self.id);
        if self.dead.is_none() {
            let apps = Apps { own: None, epoch: app.clone() };
            self.dead = Some(Log::open(&self.io, table.clone(), apps).await?);
        }
        let Some(log) = &mut self.dead else { return Ok(()) };
        let now_ms = record.closed_at_ms();
        let table_id = self.lake.token(&self.id);
        let parameters = json!({
            "outputMode": "Append", "queryId": self.id.to_string(), "epochId": record.epoch.to_string(),
        });
        let epoch = record.epoch;
        let decide = |state: Option<&TableState>| {
            let mut body = info("STREAMING UPDATE", &parameters, now_ms, &[]);
            match state {
                Some(state) if state.epoch >= epoch => {
                    let told = state.told.get(&epoch).map_or(state.version, |told| told.version);
                    return Ok(Step::Done(told));
                }
                Some(_) => {}
                None => {
                    let made = metadata(&table_id, &pipeline::dead_columns(), &[], now_ms)?;
                    body = body + &line("protocol", &protocol()) + &line("metaData", &made);
                }
            }
            body += &txn(&app, epoch, now_ms);
            Ok(Step::Write(record.dead_files.iter().fold(body, |body, file| body + &add_recorded(file, now_ms))))
        };
        log.append(&self.io, "lake.dead.sent", decide).await?;
        crash("lake.dead.after")?;
        Ok(())
    }
}

/// The lines that take the epoch's columns in, if the table lacks some.
fn evolve(state: &TableState, sealed: &Sealed) -> Result<String, LakeError> {
    if state.partition_by != sealed.partition_by {
        let message = "the table's partitioning was changed under its owner".to_owned();
        return Err(LakeError::config("partitioning_changed", message));
    }
    match &sealed.schema {
        // Somebody else's column came between the choice of a name and its commit. A new owner, who knows the column,
        // chooses another.
        Some(columns) => evolution(state, &pipeline::table_columns(Some(columns)), LakeErrorClass::Data),
        None => Ok(String::new()),
    }
}
