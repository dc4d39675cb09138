//! The judgement: what the lake says about itself, and against what was handed over.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use arrow::array::Array;

use super::expected::{Expected, Tally};
use super::facts::raw_objects;
use super::log::{Commit, Log};
use super::raw::{Segments, hash_of};
use super::records::{self, EpochRecord};
use super::scan::{Chunk, rows};
use super::{OracleError, Place, Verdict};

/// Columns that every row has.
const OWN_COLUMNS: [&str; 5] = ["_lf_epoch", "_lf_partition", "_lf_position", "_lf_raw", "_lf_received_at"];

/// Judges a stream. Whatever cannot be read is counted and told, so there is always a verdict. Positions that an
/// operator set by hand show as gaps.
#[must_use]
pub fn judge(lake: &Path, tenant: &str, stream: &str, expected: &Expected) -> Verdict {
    let place = Place { lake, tenant, stream };
    let mut verdict = Verdict::default();
    match Case::open(place) {
        Ok(case) => case.run(Tally::new(expected), &mut verdict),
        Err(error) => {
            Tally::new(expected).finish(&mut verdict);
            unreadable(&mut verdict, &error);
        }
    }
    verdict
}

fn unreadable(verdict: &mut Verdict, error: &OracleError) {
    verdict.unreadable += 1;
    verdict.say(|| error.chain());
}

struct Case<'a> {
    place: Place<'a>,
    table: Log,
    dead: Option<Log>,
    records: Vec<EpochRecord>,
    last: u64,
}

/// What the commits that are still in the log tell about an epoch.
struct Known<'a> {
    generation: u64,
    commit: &'a Commit,
}

impl<'a> Case<'a> {
    fn open(place: Place<'a>) -> Result<Self, OracleError> {
        let table = Log::read(&place, &place.under("tables"))?.unwrap_or_default();
        let last = table.txns.get(&place.txn("lakefeed")).copied().unwrap_or_default();
        Ok(Self {
            dead: Log::read(&place, &place.under("dead"))?,
            records: records::read_all(&place)?,
            last: u64::try_from(last).unwrap_or_default(),
            table,
            place,
        })
    }

    fn run(&self, mut tally: Tally, verdict: &mut Verdict) {
        verdict.epochs = self.last;
        for fault in self.table.faults.iter().chain(self.dead.iter().flat_map(|log| &log.faults)) {
            verdict.unreadable += 1;
            verdict.say(|| fault.clone());
        }
        let known = self.commits(verdict);
        let committed = self.committed_records(&known, verdict);
        self.positions(&committed, verdict);
        self.raw_objects(&committed, verdict);
        self.staged_files(verdict);
        let mut segments = Segments::default();
        let row_counts = self.rows(&committed, &mut segments, &mut tally, verdict);
        let dead_counts = self.dead_letters(&mut segments, &mut tally, verdict);
        for (epoch, record) in &committed {
            let rows = row_counts.get(epoch).copied().unwrap_or_default();
            let dead = dead_counts.get(epoch).copied().unwrap_or_default();
            if (record.rows, record.dead) != (rows, dead) {
                verdict.records_wrong += 1;
                verdict.say(|| {
                    let (told, told_dead) = (record.rows, record.dead);
                    format!(
                        "epoch {epoch}: its record tells {told} rows and {told_dead} dead, found are {rows} and {dead}"
                    )
                });
            }
        }
        tally.finish(verdict);
    }

    /// Epochs in the commits: 1, 2, 3 …, each once, each by the newest owner.
    fn commits(&self, verdict: &mut Verdict) -> BTreeMap<u64, Known<'_>> {
        let (epoch_id, own_id) = (self.place.txn("lakefeed"), self.place.txn("lakefeed-own"));
        let mut known = BTreeMap::new();
        let (mut last_epoch, mut owner) = (self.table.complete.then_some(0), 0);
        for commit in &self.table.commits {
            let own = commit.txns.get(&own_id).copied();
            if own.is_some_and(|own| own < owner) || (own.is_none() && commit.txns.contains_key(&epoch_id)) {
                verdict.stale_commits += 1;
                verdict.say(|| {
                    format!("version {} was committed by generation {own:?} after {owner} had claimed", commit.version)
                });
            }
            owner = owner.max(own.unwrap_or_default());
            let Some(epoch) = commit.txns.get(&epoch_id).and_then(|epoch| u64::try_from(*epoch).ok()) else { continue };
            if last_epoch.is_some_and(|last: u64| epoch != last + 1) {
                verdict.epoch_gaps += 1;
                verdict.say(|| format!("version {} commits epoch {epoch} after {last_epoch:?}", commit.version));
            }
            last_epoch = Some(epoch);
            let generation = own.and_then(|own| u64::try_from(own).ok()).unwrap_or_default();
            known.insert(epoch, Known { generation, commit });
        }
        known
    }

    /// The record of each committed epoch; the others are left-overs of owners that died before their commit.
    fn committed_records(
        &self,
        known: &BTreeMap<u64, Known<'_>>,
        verdict: &mut Verdict,
    ) -> BTreeMap<u64, &EpochRecord> {
        let mut committed: BTreeMap<u64, &EpochRecord> = BTreeMap::new();
        for record in &self.records {
            match known.get(&record.epoch) {
                _ if record.epoch > self.last || record.epoch == 0 => verdict.orphans += 1,
                Some(commit) if commit.generation != record.generation => verdict.orphans += 1,
                // Without the entry the newest generation counts: an epoch that was committed is never staged again.
                Some(_) => {
                    committed.insert(record.epoch, record);
                }
                None if self.table.complete => {
                    verdict.records_without_commit += 1;
                    verdict.say(|| format!("{} has no commit, though epoch {} has", record.path, self.last));
                }
                None => {
                    if committed.insert(record.epoch, record).is_some() {
                        verdict.orphans += 1;
                    }
                }
            }
        }
        for epoch in 1..=self.last {
            match (committed.get(&epoch), known.get(&epoch)) {
                (None, _) => {
                    verdict.commits_without_record += 1;
                    verdict.say(|| format!("epoch {epoch} is committed and has no record"));
                }
                (Some(record), Some(known)) => {
                    let told: BTreeSet<(&str, u64)> = record.files.iter().map(|f| (f.path.as_str(), f.bytes)).collect();
                    let added: BTreeSet<_> = known.commit.adds.iter().map(|a| (a.path.as_str(), a.size)).collect();
                    if told != added {
                        verdict.records_wrong += 1;
                        verdict
                            .say(|| format!("{} names other files than version {}", record.path, known.commit.version));
                    }
                }
                (Some(_), None) => {}
            }
        }
        committed
    }

    fn positions(&self, committed: &BTreeMap<u64, &EpochRecord>, verdict: &mut Verdict) {
        let mut at: BTreeMap<&str, Option<&str>> = BTreeMap::new();
        for (epoch, record) in committed {
            for (partition, span) in &record.positions {
                let before = at.insert(partition, span.to.as_deref()).flatten();
                if span.from.as_deref() != before {
                    verdict.position_gaps += 1;
                    verdict.say(|| {
                        format!(
                            "epoch {epoch}, partition {partition}: from {:?}, but before it stood at {before:?}",
                            span.from
                        )
                    });
                }
            }
        }
    }

    fn raw_objects(&self, committed: &BTreeMap<u64, &EpochRecord>, verdict: &mut Verdict) {
        let named: BTreeSet<&str> = committed.values().flat_map(|record| &record.raw).map(String::as_str).collect();
        for path in &named {
            let name = path.rsplit('/').next().unwrap_or_default();
            match hash_of(&self.place, path) {
                Err(error) => unreadable(verdict, &error),
                Ok(None) => {
                    verdict.raw_missing += 1;
                    verdict.say(|| format!("{path} is not there"));
                }
                Ok(Some(hash)) if name.strip_suffix(".parquet") != Some(hash.as_str()) => {
                    verdict.raw_hash_wrong += 1;
                    verdict.say(|| format!("{path} has the hash {hash}"));
                }
                Ok(Some(_)) => {}
            }
        }
        match raw_objects(&self.place) {
            Ok(found) => {
                verdict.orphans += found.iter().filter(|path| !named.contains(path.as_str())).count() as u64;
            }
            Err(error) => unreadable(verdict, &error),
        }
    }

    /// Files beside the tables' live and tombstoned ones.
    fn staged_files(&self, verdict: &mut Verdict) {
        for (top, log) in [("tables", Some(&self.table)), ("dead", self.dead.as_ref())] {
            let table = self.place.under(top);
            match files_under(&self.place, &table, "") {
                Ok(found) => {
                    let unknown = found.iter().filter(|path| log.is_none_or(|log| !log.known.contains(path.as_str())));
                    verdict.orphans += unknown.count() as u64;
                }
                Err(error) => unreadable(verdict, &error),
            }
        }
    }

    fn rows(
        &self,
        committed: &BTreeMap<u64, &EpochRecord>,
        segments: &mut Segments,
        tally: &mut Tally,
        verdict: &mut Verdict,
    ) -> BTreeMap<u64, u64> {
        let table = self.place.under("tables");
        let columns: Option<Vec<&str>> = tally.columns().map(|own| [&OWN_COLUMNS[..], own].concat());
        let mut counts = BTreeMap::new();
        for add in self.table.live.values() {
            let read = rows(&self.place, &table, add, columns.as_deref(), |chunk| {
                self.count_epochs(chunk, &mut counts, verdict)?;
                self.raw_references(chunk, committed, segments, tally.raw_witness(), verdict)?;
                tally.take(chunk, verdict)
            });
            if let Err(error) = read {
                unreadable(verdict, &error);
            }
        }
        counts
    }

    fn count_epochs(
        &self,
        chunk: &Chunk<'_>,
        counts: &mut BTreeMap<u64, u64>,
        verdict: &mut Verdict,
    ) -> Result<(), OracleError> {
        verdict.rows += chunk.len() as u64;
        for epoch in chunk.longs("_lf_epoch")?.values() {
            let epoch = u64::try_from(*epoch).unwrap_or_default();
            *counts.entry(epoch).or_default() += 1;
            if epoch == 0 || epoch > self.last {
                verdict.foreign += 1;
                verdict.say(|| format!("a row of epoch {epoch}, which is not committed"));
            }
        }
        Ok(())
    }

    /// Each `_lf_raw` leads to the payload of the same partition and position, in a segment of the row's own epoch.
    fn raw_references(
        &self,
        chunk: &Chunk<'_>,
        committed: &BTreeMap<u64, &EpochRecord>,
        segments: &mut Segments,
        witness: Option<&str>,
        verdict: &mut Verdict,
    ) -> Result<(), OracleError> {
        let (epochs, partitions) = (chunk.longs("_lf_epoch")?, chunk.texts("_lf_partition")?);
        let (positions, raws) = (chunk.texts_or_null("_lf_position")?, chunk.texts_or_null("_lf_raw")?);
        let witnesses = witness.map(|name| chunk.texts(name)).transpose()?;
        // The rows of a segment follow each other, so the record and the segment are looked up once for all of them.
        let mut current = (0, String::new(), None);
        for i in (0..chunk.len()).filter(|i| raws.is_valid(*i)) {
            let epoch = epochs.value(i).cast_unsigned();
            let position = positions.is_valid(i).then(|| positions.value(i));
            let witness = witnesses.as_ref().map(|texts| texts.value(i));
            let fits = raws.value(i).rsplit_once('#').is_some_and(|(path, row)| {
                if (current.0, current.1.as_str()) != (epoch, path) {
                    let listed = committed.get(&epoch).is_some_and(|record| record.raw.iter().any(|raw| raw == path));
                    current = (epoch, path.to_owned(), listed.then(|| segments.get(&self.place, path)).flatten());
                }
                let (Some(segment), Ok(row)) = (&current.2, row.parse()) else { return false };
                segment.fits(row, partitions.value(i), position, witness)
            });
            if !fits {
                verdict.raw_ref_wrong += 1;
                verdict.say(|| format!("epoch {epoch}: {} does not lead to the row's payload", raws.value(i)));
            }
        }
        Ok(())
    }

    fn dead_letters(&self, segments: &mut Segments, tally: &mut Tally, verdict: &mut Verdict) -> BTreeMap<u64, u64> {
        let mut counts = BTreeMap::new();
        let Some(dead) = &self.dead else { return counts };
        let followed = dead.txns.get(&self.place.txn("lakefeed-dead")).copied().unwrap_or_default();
        if u64::try_from(followed).unwrap_or_default() > self.last {
            verdict.dead_leads += 1;
            verdict.say(|| format!("the dead table is at epoch {followed}, the table at {}", self.last));
        }
        let table = self.place.under("dead");
        for add in dead.live.values() {
            let read = rows(&self.place, &table, add, None, |chunk| {
                verdict.dead += chunk.len() as u64;
                let (epochs, partitions) = (chunk.longs("_lf_epoch")?, chunk.texts("_lf_partition")?);
                let (raws, bytes) = (chunk.texts_or_null("_lf_raw")?, chunk.bytes("bytes")?);
                for i in 0..chunk.len() {
                    let epoch = u64::try_from(epochs.value(i)).unwrap_or_default();
                    *counts.entry(epoch).or_default() += 1;
                    if epoch > self.last {
                        verdict.dead_leads += 1;
                        verdict.say(|| format!("a dead letter of epoch {epoch}, which is not committed"));
                    }
                    let segment = raws.is_valid(i).then(|| raws.value(i)).and_then(|raw| raw.rsplit_once('#'));
                    let segment = segment
                        .and_then(|(path, row)| Some((segments.get(&self.place, path)?, row.parse::<usize>().ok()?)));
                    let own = bytes.is_valid(i).then(|| bytes.value(i));
                    let raw = segment.as_ref().and_then(|(segment, row)| segment.bytes(*row));
                    if raws.is_valid(i) && raw.is_none() {
                        verdict.raw_ref_wrong += 1;
                        verdict.say(|| format!("epoch {epoch}: the dead letter's {} leads to nothing", raws.value(i)));
                    }
                    tally.take_dead(partitions.value(i), own.or(raw), verdict);
                }
                Ok(())
            });
            if let Err(error) = read {
                unreadable(verdict, &error);
            }
        }
        counts
    }
}

/// Paths relative to the table of everything under it but its log.
fn files_under(place: &Place<'_>, table: &str, below: &str) -> Result<Vec<String>, OracleError> {
    let mut found = Vec::new();
    for name in place.names(&format!("{table}/{below}"))? {
        if below.is_empty() && name == "_delta_log" {
            continue;
        }
        let path = format!("{below}{name}");
        if place.lake.join(table).join(&path).is_dir() {
            found.extend(files_under(place, table, &format!("{path}/"))?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}
