//! A table's log from its oldest entry to its newest.

use std::collections::BTreeMap;

use deltalake::DeltaTableBuilder;
use serde_json::Value;

use super::{FOREIGN, RESTORE, Report};
use crate::lake::error::LakeError;
use crate::lake::io::Io;
use crate::lake::log::{Apps, Entry};
use crate::lake::rows::unescape;
use crate::lake::{layout, snapshot};

/// A live file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Live {
    pub(super) bytes: u64,
    /// From its statistics.
    pub(super) rows: Option<u64>,
}

/// What one epoch's entry did.
#[derive(Debug, Default)]
pub(super) struct Committed {
    pub(super) generation: Option<u64>,
    pub(super) record: Option<String>,
    pub(super) files: BTreeMap<String, Live>,
}

/// What a log says.
#[derive(Debug, Default)]
pub(super) struct Walked {
    /// Whether there is a table at all.
    pub(super) exists: bool,
    /// Epochs whose entries are still there.
    pub(super) epochs: BTreeMap<u64, Committed>,
    /// Files as of the newest version.
    pub(super) live: BTreeMap<String, Live>,
}

/// Walks the log of `table`. Epochs must follow each other without gap in a main table, and rise in a dead one.
pub(super) async fn walk(io: &Io, table: &str, apps: &Apps, report: &mut Report) -> Result<Walked, LakeError> {
    let mut walked = Walked::default();
    let folder = format!("{table}/_delta_log");
    let (_, names) = io.names(&folder).await?;
    let version = |name: &String| name.strip_suffix(".json").filter(|v| v.len() == 20)?.parse::<u64>().ok();
    let versions: Vec<u64> = names.iter().filter_map(version).collect();
    let checkpointed = names.iter().any(|name| name.contains(".checkpoint."));
    walked.exists = !versions.is_empty() || checkpointed;
    let Some(&first) = versions.first() else { return Ok(walked) };
    let (mut own, mut last) = (0, None);
    for (index, &version) in versions.iter().enumerate() {
        if version != first + index as u64 {
            let what = format!("the log goes from version {} to {version}", versions[index - 1]);
            report.problem("log_gap", &folder, what, RESTORE);
            return Ok(walked);
        }
        let path = layout::log_entry(table, version);
        let Some(bytes) = io.get(&path).await? else { continue };
        let entry = Entry::parse(&path, &bytes, apps)?;
        if let Some(generation) = entry.own {
            if generation < own {
                report.problem("generation_fell", &path, format!("generation {generation} after {own}"), FOREIGN);
            }
            own = own.max(generation);
        }
        let files = apply(&mut walked.live, &bytes, &path, report);
        let Some(epoch) = entry.epoch else { continue };
        let follows = match last {
            None => first > 0 || apps.own.is_none() || epoch == 1,
            Some(last) if apps.own.is_some() => epoch == last + 1,
            Some(last) => epoch > last,
        };
        if !follows {
            let what = format!("epoch {epoch} follows on epoch {}", last.unwrap_or(0));
            report.problem("epoch_gap", &path, what, FOREIGN);
        }
        last = Some(epoch);
        walked.epochs.insert(epoch, Committed { generation: entry.own, record: entry.record, files });
    }
    if first > 0 {
        walked.live = live_from_checkpoint(io, table).await?;
    }
    Ok(walked)
}

/// Takes the entry's adds and removes over; gives its adds.
fn apply(live: &mut BTreeMap<String, Live>, entry: &[u8], path: &str, report: &mut Report) -> BTreeMap<String, Live> {
    let mut added = BTreeMap::new();
    for line in entry.split(|b| *b == b'\n') {
        let Ok(action) = serde_json::from_slice::<Value>(line) else { continue };
        if let Some(name) = action.pointer("/add/path").and_then(Value::as_str) {
            let name = unescape(name);
            let stats = action.pointer("/add/stats").and_then(Value::as_str);
            let stats = stats.and_then(|text| serde_json::from_str::<Value>(text).ok());
            let file = Live {
                bytes: action.pointer("/add/size").and_then(Value::as_u64).unwrap_or(0),
                rows: stats.and_then(|stats| stats.get("numRecords")?.as_u64()),
            };
            // Deletion vectors re-add a file with fewer rows; ours never do.
            let again = live.insert(name.clone(), file).is_some();
            if again && action.pointer("/add/deletionVector").is_none_or(Value::is_null) {
                report.problem("file_twice", path, format!("{name} is added a second time"), FOREIGN);
            }
            added.insert(name, file);
        }
        if let Some(name) = action.pointer("/remove/path").and_then(Value::as_str) {
            live.remove(&unescape(name));
        }
    }
    added
}

/// The files of a table whose oldest entries were cleaned up.
async fn live_from_checkpoint(io: &Io, table: &str) -> Result<BTreeMap<String, Live>, LakeError> {
    let failed = |error| snapshot::failed(table, &error);
    let builder = DeltaTableBuilder::from_url(snapshot::address(table)?).map_err(failed)?;
    let builder = builder.with_storage_backend(io.store(), snapshot::address(table)?);
    let loaded = Box::pin(builder.load()).await.map_err(failed)?;
    let snapshot = loaded.snapshot().map_err(failed)?;
    let files = snapshot.log_data().into_iter().map(|file| {
        let live =
            Live { bytes: u64::try_from(file.size()).unwrap_or(0), rows: file.num_records().map(|rows| rows as u64) };
        (unescape(file.path().as_ref()), live)
    });
    Ok(files.collect())
}
