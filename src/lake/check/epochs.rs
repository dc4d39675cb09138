//! Epochs against their records, and the dead table against both.

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt;

use super::files::Files;
use super::walk::{Live, Walked, walk};
use super::{FOREIGN, RESTART, RESTORE, Report};
use crate::lake::error::LakeError;
use crate::lake::io::Io;
use crate::lake::log::{Apps, Log};
use crate::lake::record::{EpochRecord, FileEntry};
use crate::lake::{layout, recover};
use crate::names::StreamId;

/// Checks one stream.
pub(super) async fn check(io: &Io, id: &StreamId, report: &mut Report) -> Result<(), LakeError> {
    let apps = Apps { own: Some(layout::own_app(id)), epoch: layout::epoch_app(id) };
    let main = walk(io, &layout::table(id), &apps, report).await?;
    let log = Log::open(io, layout::table(id), apps).await?;
    let last = log.state.as_ref().map_or(0, |state| state.epoch);
    let dead_apps = Apps { own: None, epoch: layout::dead_app(id) };
    let dead = walk(io, &layout::dead(id), &dead_apps, report).await?;
    if dead.exists && !main.exists {
        report.problem("table_missing", &layout::table(id), "there are dead letters but no table", RESTORE);
    }
    if let Some((&epoch, _)) = dead.epochs.last_key_value().filter(|(epoch, _)| **epoch > last) {
        let what = format!("it holds epoch {epoch}, the table stands at {last}");
        report.problem("dead_leads", &layout::dead(id), what, FOREIGN);
    }
    report.epochs += last;
    let mut check = Check {
        id,
        last,
        main: &main,
        dead: &dead,
        files: Files::new(io, id, last),
        positions: BTreeMap::new(),
        known: Known::default(),
    };
    check.records(io, report).await?;
    check.live(report).await?;
    check.orphans(io, report).await
}

/// How many objects committed epochs account for.
#[derive(Default)]
struct Known {
    records: u64,
    files: u64,
    raw: u64,
}

struct Check<'a> {
    id: &'a StreamId,
    last: u64,
    main: &'a Walked,
    dead: &'a Walked,
    files: Files<'a>,
    positions: BTreeMap<String, String>,
    known: Known,
}

impl Check<'_> {
    /// Each committed epoch has one record that says what the log says, and all join.
    async fn records(&mut self, io: &Io, report: &mut Report) -> Result<(), LakeError> {
        let paths = committed_records(io, self.id, self.last).await?;
        for epoch in 1..=self.last {
            let folder = format!("results/{}", self.id);
            let Some((generation, found)) = paths.get(&epoch) else {
                let what = format!("epoch {epoch} is committed but has no record");
                report.problem("record_missing", &folder, what, RESTORE);
                continue;
            };
            let mut contents = BTreeSet::new();
            for path in found {
                contents.extend(io.get(path).await?);
            }
            self.known.records += found.len() as u64;
            let path = &found[0];
            if contents.len() > 1 {
                let what = format!("epoch {epoch} of generation {generation} has several records that differ");
                report.problem("record_ambiguous", path, what, FOREIGN);
            }
            let record = contents.first().and_then(|bytes| EpochRecord::from_bytes(path, bytes).ok());
            let Some(record) = record else {
                report.problem("record_unreadable", path, "it is no epoch record", RESTORE);
                continue;
            };
            self.record(path, epoch, *generation, &record, report).await?;
        }
        Ok(())
    }

    async fn record(
        &mut self,
        path: &str,
        epoch: u64,
        generation: u64,
        record: &EpochRecord,
        report: &mut Report,
    ) -> Result<(), LakeError> {
        let named = (record.tenant.as_str(), record.stream.as_str(), record.epoch, record.generation);
        if named != (self.id.tenant(), self.id.stream(), epoch, generation) || record.table != layout::table(self.id) {
            report.problem("record_misplaced", path, "it is the record of another epoch", RESTORE);
        }
        for (partition, span) in &record.positions {
            if span.from.as_ref() != self.positions.get(partition) {
                let what = format!("partition {partition:?} does not go on from where the epoch before left it");
                report.problem("position_gap", path, what, FOREIGN);
            }
            if span.to.is_empty() {
                self.positions.remove(partition);
            } else {
                self.positions.insert(partition.clone(), span.to.clone());
            }
        }
        let rows: u64 = record.files.iter().map(|file| file.rows).sum();
        let dead: u64 = record.dead_files.iter().map(|file| file.rows).sum();
        if (rows, dead) != (record.rows, record.dead) {
            report.problem("record_counts", path, "its files do not add up to its counts", RESTORE);
        }
        if let Some(committed) = self.main.epochs.get(&epoch) {
            if committed.generation != Some(generation) {
                let what = format!("generation {:?} committed this epoch", committed.generation);
                report.problem("record_generation", path, what, FOREIGN);
            }
            if committed
                .record
                .as_ref()
                .is_some_and(|told| told.split_once('/').map(|t| t.1) != path.split_once('/').map(|t| t.1))
            {
                report.problem("record_generation", path, "the log names another record for this epoch", FOREIGN);
            }
            if !same(&record.files, &committed.files) {
                let what = "its files are not those that the log's entry added";
                report.problem("record_differs", path, what, RESTORE);
            }
        }
        self.dead_letters(path, record, report);
        self.known.files += (record.files.len() + record.dead_files.len()) as u64;
        self.known.raw += record.raw.len() as u64;
        report.raw_segments += record.raw.len() as u64;
        for segment in &record.raw {
            self.files.raw(segment, report).await?;
        }
        Ok(())
    }

    /// The dead table holds what the record says, and misses the last epoch at most.
    fn dead_letters(&self, path: &str, record: &EpochRecord, report: &mut Report) {
        let committed = self.dead.epochs.get(&record.epoch);
        match committed {
            Some(_) if record.dead == 0 => {
                let what = format!("the dead table holds epoch {}, whose record has no dead letters", record.epoch);
                report.problem("dead_differs", path, what, FOREIGN);
            }
            Some(committed) if !same(&record.dead_files, &committed.files) => {
                let what = "its dead letters are not those that the dead table's entry added";
                report.problem("dead_differs", path, what, RESTORE);
            }
            None if record.dead > 0 => {
                // Entries before the oldest that is left may have been cleaned up.
                let cleaned = self.dead.epochs.first_key_value().is_some_and(|(first, _)| record.epoch < *first);
                let all_live = record.dead_files.iter().all(|file| self.dead.live.contains_key(&file.path));
                if cleaned && all_live {
                    return;
                }
                let (code, remedy) =
                    if record.epoch == self.last { ("dead_behind", RESTART) } else { ("dead_missing", RESTORE) };
                let what = format!("the dead table lacks the {} dead letters of epoch {}", record.dead, record.epoch);
                report.problem(code, path, what, remedy);
            }
            _ => {}
        }
    }

    /// Each live file is there, whole, and its rows are of committed epochs and resolve.
    async fn live(&mut self, report: &mut Report) -> Result<(), LakeError> {
        for (name, live) in &self.main.live {
            let path = format!("{}/{name}", layout::table(self.id));
            report.rows += self.files.data(&path, *live, report).await?;
        }
        for (name, live) in &self.dead.live {
            let path = format!("{}/{name}", layout::dead(self.id));
            report.dead += self.files.data(&path, *live, report).await?;
        }
        Ok(())
    }

    /// Counts objects that no committed epoch accounts for.
    async fn orphans(&mut self, io: &Io, report: &mut Report) -> Result<(), LakeError> {
        let mut files = 0;
        for table in [layout::table(self.id), layout::dead(self.id)] {
            let mut objects = io.list(&table)?;
            while let Some(object) = objects.try_next().await? {
                let name = object.location.filename().unwrap_or_default();
                files += u64::from(name.starts_with("part-") && name.ends_with(".parquet"));
            }
        }
        let raw = count(io, &format!("raw/{}", self.id)).await?;
        let mut records = 0;
        for bucket in recover::buckets(io).await? {
            records += count(io, &format!("{bucket}/{}", self.id)).await?;
        }
        report.orphans += files.saturating_sub(self.known.files);
        report.orphans += raw.saturating_sub(self.known.raw);
        report.orphans += records.saturating_sub(self.known.records);
        Ok(())
    }
}

async fn count(io: &Io, folder: &str) -> Result<u64, LakeError> {
    io.list(folder)?.try_fold(0, |count, _| async move { Ok(count + 1) }).await
}

fn same(recorded: &[FileEntry], added: &BTreeMap<String, Live>) -> bool {
    recorded.len() == added.len()
        && recorded.iter().all(|file| {
            added
                .get(&file.path)
                .is_some_and(|live| live.bytes == file.bytes && live.rows.is_none_or(|rows| rows == file.rows))
        })
}

/// Of each committed epoch its greatest generation and the records of it, which may stand in several buckets.
async fn committed_records(io: &Io, id: &StreamId, last: u64) -> Result<BTreeMap<u64, (u64, Vec<String>)>, LakeError> {
    let mut records: BTreeMap<u64, (u64, Vec<String>)> = BTreeMap::new();
    for bucket in recover::buckets(io).await? {
        let mut objects = io.list(&format!("{bucket}/{id}"))?;
        while let Some(object) = objects.try_next().await? {
            let name = object.location.filename().unwrap_or_default();
            let Some((epoch, generation)) = layout::parse_record(name).filter(|(epoch, _)| *epoch <= last) else {
                continue;
            };
            let entry = records.entry(epoch).or_default();
            if generation > entry.0 {
                *entry = (generation, vec![object.location.to_string()]);
            } else if generation == entry.0 {
                entry.1.push(object.location.to_string());
            }
        }
    }
    Ok(records)
}
