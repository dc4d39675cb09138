//! A Delta log, replayed from its JSON entries, and from the newest checkpoint where entries are gone.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, AsArray, MapArray, StructArray};
use serde::Deserialize;

use super::scan::{as_longs, as_texts, batches};
use super::{OracleError, Place};

/// A file that an entry added.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Add {
    /// Relative to the table, percent-decoded.
    pub path: String,
    /// Values of the columns that do not stand in the file.
    #[serde(default)]
    pub partition_values: BTreeMap<String, Option<String>>,
    /// Bytes.
    pub size: u64,
    /// False where a compaction only moved rows.
    #[serde(default = "yes")]
    pub data_change: bool,
}

const fn yes() -> bool {
    true
}

/// One JSON entry.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// The table's version that it made.
    pub version: u64,
    /// `txn` actions: id → version.
    pub txns: BTreeMap<String, i64>,
    /// Files added.
    pub adds: Vec<Add>,
    /// Paths removed.
    pub removes: Vec<String>,
}

/// The table as of its newest version.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// The newest version.
    pub version: u64,
    /// Every entry from 0 is still there as JSON, so [`Log::commits`] is the whole history.
    pub complete: bool,
    /// Entries that are still there, in order.
    pub commits: Vec<Commit>,
    /// Live files by path.
    pub live: BTreeMap<String, Add>,
    /// Every path that the readable log ever named.
    pub known: BTreeSet<String>,
    /// Newest `txn` version of each id.
    pub txns: BTreeMap<String, i64>,
    /// Against the rules of a log, but not in the way of reading it: a file added or removed twice.
    pub faults: Vec<String>,
}

#[derive(Deserialize)]
struct PathOnly {
    path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Txn {
    app_id: String,
    version: i64,
}

#[derive(Deserialize, Default)]
struct Action {
    add: Option<Add>,
    remove: Option<PathOnly>,
    txn: Option<Txn>,
}

impl Log {
    /// Replays the log of the table at `table` (a path in the lake). `None` where there is no table.
    ///
    /// # Errors
    /// Unreadable entries, and versions that are neither in JSON nor in a checkpoint.
    pub(crate) fn read(place: &Place<'_>, table: &str) -> Result<Option<Self>, OracleError> {
        let folder = format!("{table}/_delta_log");
        let names = place.names(&folder)?;
        let entries: Vec<u64> = names.iter().filter_map(|name| entry_version(name)).collect();
        let mut log = Self::default();
        let mut next = 0;
        match entries.first() {
            Some(0) => log.complete = true,
            first => {
                let Some((version, parts)) = newest_checkpoint(&names) else {
                    return match first {
                        None => Ok(None),
                        Some(first) => Err(OracleError::layout(
                            &folder,
                            format!("starts at version {first} and has no checkpoint"),
                        )),
                    };
                };
                for part in parts {
                    log.read_checkpoint(place, &format!("{folder}/{part}"))?;
                }
                log.version = version;
                next = version + 1;
            }
        }
        let first = entries.first().copied().unwrap_or(next);
        for (expected, version) in (first..).zip(entries) {
            if version != expected {
                return Err(OracleError::layout(&folder, format!("version {expected} is missing before {version}")));
            }
            let commit = read_entry(place, &format!("{folder}/{version:020}.json"), version)?;
            if version >= next {
                if version > next {
                    return Err(OracleError::layout(&folder, format!("version {next} is missing before {version}")));
                }
                log.apply(&commit);
                log.version = version;
                next = version + 1;
            }
            log.known.extend(commit.adds.iter().map(|add| add.path.clone()));
            log.commits.push(commit);
        }
        Ok(Some(log))
    }

    fn apply(&mut self, commit: &Commit) {
        for path in &commit.removes {
            if self.live.remove(path).is_none() {
                self.faults.push(format!("version {} removes {path}, which is not live", commit.version));
            }
            self.known.insert(path.clone());
        }
        for add in &commit.adds {
            if self.live.insert(add.path.clone(), add.clone()).is_some() || self.known.contains(&add.path) {
                self.faults.push(format!("version {} adds {}, which was there before", commit.version, add.path));
            }
        }
        self.txns.extend(commit.txns.iter().map(|(id, version)| (id.clone(), *version)));
    }

    fn read_checkpoint(&mut self, place: &Place<'_>, path: &str) -> Result<(), OracleError> {
        for batch in batches(place, path, None)? {
            let batch = batch?;
            if batch.column_by_name("sidecar").is_some_and(|column| column.null_count() < column.len()) {
                return Err(OracleError::layout(path, "a checkpoint with sidecars; only the classic form is read"));
            }
            if let Some(add) = group(&batch, "add") {
                self.checkpoint_adds(path, add)?;
            }
            if let Some(remove) = group(&batch, "remove") {
                let paths = as_texts(path, field(path, remove, "path")?)?;
                self.known.extend((0..remove.len()).filter(|i| paths.is_valid(*i)).map(|i| decoded(paths.value(i))));
            }
            if let Some(txn) = group(&batch, "txn") {
                let ids = as_texts(path, field(path, txn, "appId")?)?;
                let versions = as_longs(path, field(path, txn, "version")?)?;
                for i in (0..txn.len()).filter(|i| ids.is_valid(*i)) {
                    self.txns.insert(ids.value(i).to_owned(), versions.value(i));
                }
            }
        }
        Ok(())
    }

    fn checkpoint_adds(&mut self, path: &str, add: &StructArray) -> Result<(), OracleError> {
        let paths = as_texts(path, field(path, add, "path")?)?;
        let sizes = as_longs(path, field(path, add, "size")?)?;
        let values = add.column_by_name("partitionValues").and_then(|column| column.as_map_opt());
        for i in (0..add.len()).filter(|i| paths.is_valid(*i)) {
            let name = decoded(paths.value(i));
            let partition_values = values.map_or_else(|| Ok(BTreeMap::new()), |map| map_row(path, map, i))?;
            let size = u64::try_from(sizes.value(i)).unwrap_or_default();
            self.known.insert(name.clone());
            self.live.insert(name.clone(), Add { path: name, partition_values, size, data_change: false });
        }
        Ok(())
    }
}

fn entry_version(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".json")?;
    (digits.len() == 20).then(|| digits.parse().ok()).flatten()
}

/// The newest classic checkpoint of which every part is there.
fn newest_checkpoint(names: &[String]) -> Option<(u64, Vec<String>)> {
    let mut parts: BTreeMap<(u64, usize), Vec<String>> = BTreeMap::new();
    for name in names {
        let Some(stem) = name.strip_suffix(".parquet") else { continue };
        let mut pieces = stem.split('.');
        let (Some(digits), Some("checkpoint")) = (pieces.next(), pieces.next()) else { continue };
        let Ok(version) = digits.parse() else { continue };
        let total = match (pieces.next(), pieces.next()) {
            (None, _) => 1,
            (Some(_part), Some(total)) => total.parse().unwrap_or(0),
            (Some(_uuid), None) => 1,
        };
        parts.entry((version, total)).or_default().push(name.clone());
    }
    let whole = parts.into_iter().rev().find(|((_, total), names)| names.len() == *total);
    whole.map(|((version, _), names)| (version, names))
}

fn read_entry(place: &Place<'_>, path: &str, version: u64) -> Result<Commit, OracleError> {
    let bytes = place.read(path)?;
    let mut commit = Commit { version, ..Commit::default() };
    let mut lines = 0;
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        lines += 1;
        let action: Action =
            serde_json::from_slice(line).map_err(|source| OracleError::Json { path: path.to_owned(), source })?;
        if let Some(mut add) = action.add {
            add.path = decoded(&add.path);
            commit.adds.push(add);
        }
        if let Some(remove) = action.remove {
            commit.removes.push(decoded(&remove.path));
        }
        if let Some(txn) = action.txn {
            commit.txns.insert(txn.app_id, txn.version);
        }
    }
    if lines == 0 { Err(OracleError::layout(path, "the entry is empty")) } else { Ok(commit) }
}

/// Undoes percent-encoding; a stray `%` stays as it is.
fn decoded(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let code = (bytes[i] == b'%').then(|| path.get(i + 1..i + 3)).flatten();
        if let Some(byte) = code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            out.push(byte);
            i += 3;
        } else {
            out.push(bytes[i]);
            i += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn group<'a>(batch: &'a arrow::record_batch::RecordBatch, name: &str) -> Option<&'a StructArray> {
    batch.column_by_name(name).and_then(|column| column.as_struct_opt())
}

fn field<'a>(path: &str, group: &'a StructArray, name: &str) -> Result<&'a dyn Array, OracleError> {
    let column = group.column_by_name(name).ok_or_else(|| OracleError::layout(path, format!("no field {name}")))?;
    Ok(column.as_ref())
}

fn map_row(path: &str, map: &MapArray, row: usize) -> Result<BTreeMap<String, Option<String>>, OracleError> {
    if map.is_null(row) {
        return Ok(BTreeMap::new());
    }
    let entries = map.value(row);
    let (keys, values) = (as_texts(path, entries.column(0))?, as_texts(path, entries.column(1))?);
    Ok((0..entries.len())
        .map(|i| (keys.value(i).to_owned(), values.is_valid(i).then(|| values.value(i).to_owned())))
        .collect())
}
