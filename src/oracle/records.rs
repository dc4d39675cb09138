//! Epoch records: `<bucket>/<tenant>/<stream>/<epoch>-<generation>.json`, in whatever bucket they were written.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{OracleError, Place};

/// First segments of a lake that hold something else.
const OTHER_TOPS: [&str; 4] = ["tables", "dead", "raw", "control"];

/// `(from, to]` of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Span {
    /// `None` at the very beginning.
    pub from: Option<String>,
    /// The position after the epoch; `None` where there is still none.
    pub to: Option<String>,
}

/// A data file as its record names it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct FileEntry {
    /// Relative to the table.
    pub path: String,
    /// Size.
    pub bytes: u64,
    /// Rows in it.
    pub rows: u64,
}

/// One epoch record.
#[derive(Debug, Clone, Deserialize)]
pub struct EpochRecord {
    /// Where it lies in the lake; not a part of the record itself.
    #[serde(skip)]
    pub path: String,
    /// From 1.
    pub epoch: u64,
    /// The owner that wrote it.
    pub generation: u64,
    /// By partition.
    pub positions: BTreeMap<String, Span>,
    /// Files of the table.
    pub files: Vec<FileEntry>,
    /// Files of the dead table.
    #[serde(default)]
    pub dead_files: Vec<FileEntry>,
    /// Raw objects, paths in the lake.
    #[serde(default)]
    pub raw: Vec<String>,
    /// Rows in all files.
    pub rows: u64,
    /// Rows in all dead files.
    pub dead: u64,
}

/// All records of a stream, in order of epoch and generation.
pub(crate) fn read_all(place: &Place<'_>) -> Result<Vec<EpochRecord>, OracleError> {
    let mut records = Vec::new();
    for top in place.names("")? {
        if OTHER_TOPS.contains(&top.as_str()) || !place.lake.join(&top).is_dir() {
            continue;
        }
        let folder = place.under(&top);
        for name in place.names(&folder)? {
            let Some((epoch, generation)) = parsed(&name) else { continue };
            let path = format!("{folder}/{name}");
            let mut record: EpochRecord = serde_json::from_slice(&place.read(&path)?)
                .map_err(|source| OracleError::Json { path: path.clone(), source })?;
            if (record.epoch, record.generation) != (epoch, generation) {
                return Err(OracleError::layout(
                    &path,
                    "its name and its content tell different epochs or generations",
                ));
            }
            record.path = path;
            records.push(record);
        }
    }
    records.sort_by_key(|record| (record.epoch, record.generation));
    Ok(records)
}

fn parsed(name: &str) -> Option<(u64, u64)> {
    let (epoch, generation) = name.strip_suffix(".json")?.split_once('-')?;
    (epoch.len() == 20).then(|| Some((epoch.parse().ok()?, generation.parse().ok()?))).flatten()
}
