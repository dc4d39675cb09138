//! Published references against the epochs in the lake.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::log::Log;
use super::{OracleError, Place, records};

/// What is wrong with the references of a stream. `again` alone is allowed: at least once is the promise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ReferencesVerdict {
    /// Distinct epochs published.
    pub epochs: u64,
    /// Committed epochs that were never published.
    pub missing: u64,
    /// Published before their predecessor was.
    pub disorder: u64,
    /// Published while not committed.
    pub before_commit: u64,
    /// With a file, version, id or count that is not the epoch's.
    pub wrong: u64,
    /// Published more than once.
    pub again: u64,
    /// Findings in words, at most one a reference.
    pub messages: Vec<String>,
}

impl ReferencesVerdict {
    /// Nothing is wrong.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.missing + self.disorder + self.before_commit + self.wrong == 0
    }
}

/// Judges `published` (the `data` of the events of one stream, in the order in which they came) against the lake as
/// it is now.
///
/// # Errors
/// Where the table's log or a record cannot be read.
pub fn references(
    published: &[Value],
    lake: &Path,
    tenant: &str,
    stream: &str,
) -> Result<ReferencesVerdict, OracleError> {
    let place = Place { lake, tenant, stream };
    let log = Log::read(&place, &place.under("tables"))?.unwrap_or_default();
    let records = records::read_all(&place)?;
    let epoch_id = place.txn("lakefeed");
    let last = log.txns.get(&epoch_id).and_then(|epoch| u64::try_from(*epoch).ok()).unwrap_or_default();
    let mut verdict = ReferencesVerdict::default();
    let mut next = 1;
    for data in published {
        let epoch = data.get("epoch").and_then(Value::as_u64).unwrap_or_default();
        let mut finding = None;
        if epoch > last {
            verdict.before_commit += 1;
            finding = Some(format!("epoch {epoch} was published, committed is {last}"));
        } else if epoch > next {
            verdict.disorder += 1;
            finding = Some(format!("epoch {epoch} was published before {next}"));
        }
        if epoch < next {
            verdict.again += 1;
        } else {
            verdict.epochs += 1;
            next = epoch + 1;
        }
        if let Some(what) = wrong_in(data, &place, &log, &records).filter(|_| epoch <= last) {
            verdict.wrong += 1;
            finding = Some(format!("epoch {epoch}: {what}"));
        }
        verdict.messages.extend(finding);
    }
    let published: std::collections::BTreeSet<u64> =
        published.iter().filter_map(|data| data.get("epoch")?.as_u64()).collect();
    for epoch in (1..=last).filter(|epoch| !published.contains(epoch)) {
        verdict.missing += 1;
        verdict.messages.push(format!("epoch {epoch} was never published"));
    }
    Ok(verdict)
}

fn wrong_in(data: &Value, place: &Place<'_>, log: &Log, records: &[records::EpochRecord]) -> Option<String> {
    let number = |name: &str| data.get(name).and_then(Value::as_u64);
    let (epoch, generation) = (number("epoch")?, number("generation"));
    let filename = data.pointer("/payload/filename").and_then(Value::as_str).unwrap_or_default();
    let Some(record) = records.iter().find(|record| record.path == filename) else {
        return Some(format!("its filename {filename:?} is no epoch record"));
    };
    let url = format!("lakefeed:{}/{}/{epoch}", place.tenant, place.stream);
    let id = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, url.as_bytes()).to_string();
    let commit =
        log.commits.iter().find(|commit| commit.txns.get(&place.txn("lakefeed")) == Some(&(epoch.cast_signed())));
    let checks = [
        ("the record's epoch", record.epoch == epoch),
        ("generation", generation == Some(record.generation)),
        ("rows", number("rows") == Some(record.rows)),
        ("dead", number("dead") == Some(record.dead)),
        ("id", data.pointer("/payload/id").and_then(Value::as_str) == Some(id.as_str())),
        ("table", data.get("table").and_then(Value::as_str) == Some(place.under("tables").as_str())),
        (
            "version",
            number("version").is_none() || commit.is_none_or(|commit| number("version") == Some(commit.version)),
        ),
        (
            "the committing generation",
            commit.is_none_or(|commit| {
                commit.txns.get(&place.txn("lakefeed-own")).map(|own| own.cast_unsigned()) == generation
            }),
        ),
    ];
    let wrong: Vec<&str> = checks.iter().filter(|(_, right)| !right).map(|(name, _)| *name).collect();
    (!wrong.is_empty()).then(|| format!("wrong in its reference: {}", wrong.join(", ")))
}
