//! What the demo comes to.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::recording::{Handed, Ledger};
use crate::oracle::{Expected, Verdict, judge};
use crate::telemetry::restarts::{Filter, RestartLog, RestartRecord};

/// Records of the restart log read at once.
const PAGE: usize = 1000;

/// The demo's result, as `--json` prints it.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Nothing is missing, doubled or otherwise wrong.
    pub ok: bool,
    /// How long it took.
    pub seconds: f64,
    /// Where the lake is.
    pub lake: String,
    /// Stream by stream.
    pub streams: Vec<StreamOutcome>,
    /// Restarts in all.
    pub restarts: u64,
    /// Incidents in all.
    pub incidents: u64,
    /// Faults that happened, by name.
    pub faults: BTreeMap<String, u64>,
    /// What is wrong, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<String>,
}

/// One stream's part.
#[derive(Debug, Clone, Serialize)]
pub struct StreamOutcome {
    /// Its tenant.
    pub tenant: String,
    /// Its name.
    pub stream: String,
    /// Its adapter.
    pub adapter: String,
    /// Records that its source handed over, junk left out.
    pub handed_over: u64,
    /// Rows in its table.
    pub rows: u64,
    /// Its dead letters.
    pub dead: u64,
    /// Handed over, but not there.
    pub missing: u64,
    /// There more than once, or never handed over.
    pub doubled: u64,
    /// Committed epochs.
    pub epochs: u64,
    /// Restarts of its workers and other parts.
    pub restarts: u64,
    /// Children that are parked at the end.
    pub parked: u64,
}

impl Outcome {
    /// For people: the table, what happened, and where the lake is.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!(
            "\n{:<18} {:>11} {:>9} {:>6} {:>8} {:>8} {:>7} {:>9} {:>7}\n",
            "stream", "handed over", "rows", "dead", "missing", "doubled", "epochs", "restarts", "parked"
        );
        for s in &self.streams {
            let name = format!("{}/{}", s.tenant, s.stream);
            text.push_str(&format!(
                "{name:<18} {:>11} {:>9} {:>6} {:>8} {:>8} {:>7} {:>9} {:>7}\n",
                s.handed_over, s.rows, s.dead, s.missing, s.doubled, s.epochs, s.restarts, s.parked
            ));
        }
        let faults: Vec<_> = self.faults.iter().map(|(name, count)| format!("{name} {count}")).collect();
        text.push_str(&format!("\nfaults: {}\n", faults.join(", ")));
        text.push_str(&format!("{} restarts in {} incidents, {} s\n", self.restarts, self.incidents, self.seconds));
        for finding in &self.findings {
            text.push_str(&format!("WRONG: {finding}\n"));
        }
        let verdict = if self.ok { "nothing was lost and nothing doubled" } else { "the promise was broken" };
        text.push_str(&format!("{verdict}; the lake is {}", self.lake));
        text
    }
}

/// Reads the lake back and compares.
pub(super) fn judge_all(
    lake: &Path,
    seed: u64,
    ledger: &Ledger,
    faults: &BTreeMap<&'static str, u64>,
    restarts: &RestartLog,
    elapsed: Duration,
) -> Outcome {
    let log = all(restarts);
    let handed = ledger.partitions();
    let mut findings = Vec::new();
    let streams: Vec<_> = [("air", "IQAIR_DEMO"), ("synthetic", "SYNTHETIC_DEMO")]
        .into_iter()
        .map(|(stream, adapter)| {
            let prefix = format!("demo/{stream}/");
            let own: BTreeMap<_, _> =
                handed.iter().filter_map(|(scope, h)| Some((scope.strip_prefix(&prefix)?, h))).collect();
            let expected = if stream == "air" { observations(&own) } else { synthetic(seed, &own) };
            let verdict = judge(lake, "demo", stream, &expected);
            outcome(stream, adapter, &own, &verdict, &log, &mut findings)
        })
        .collect();
    let mut faults: BTreeMap<String, u64> = faults.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    faults.insert("worker_panic".to_owned(), ledger.panics());
    let mut incidents: Vec<_> = log.iter().filter_map(|r| r.incident.as_deref()).collect();
    incidents.sort_unstable();
    incidents.dedup();
    Outcome {
        ok: findings.is_empty(),
        seconds: (elapsed.as_secs_f64() * 10.0).round() / 10.0,
        lake: lake.display().to_string(),
        streams,
        restarts: count(&log, "", "restarted"),
        incidents: incidents.len() as u64,
        faults,
        findings,
    }
}

fn outcome(
    stream: &str,
    adapter: &str,
    own: &BTreeMap<&str, &Handed>,
    verdict: &Verdict,
    log: &[RestartRecord],
    findings: &mut Vec<String>,
) -> StreamOutcome {
    let path = format!("lakefeed/tenants/demo/{stream}");
    let dead: u64 = own.values().map(|h| h.dead).sum();
    if !verdict.ok() {
        findings.push(format!("demo/{stream}: {}", verdict.summary()));
        findings.extend(verdict.messages.iter().map(|message| format!("demo/{stream}: {message}")));
    }
    if stream == "air" && dead != verdict.dead {
        findings
            .push(format!("demo/{stream}: {dead} junk payloads were handed over, {} are dead letters", verdict.dead));
    }
    let synthetic_records =
        own.values().filter_map(|h| h.to.as_ref()?.as_str().parse::<u64>().ok()).map(|last| last + 1).sum();
    StreamOutcome {
        tenant: "demo".to_owned(),
        stream: stream.to_owned(),
        adapter: adapter.to_owned(),
        handed_over: if stream == "air" { own.values().map(|h| h.payloads).sum() } else { synthetic_records },
        rows: verdict.rows,
        dead: verdict.dead,
        missing: verdict.missing,
        doubled: verdict.doubled + verdict.foreign,
        epochs: verdict.epochs,
        restarts: count(log, &path, "restarted"),
        parked: parked(log, &path),
    }
}

fn observations(own: &BTreeMap<&str, &Handed>) -> Expected {
    Expected::Observations(
        own.iter().map(|(partition, handed)| ((*partition).to_owned(), handed.bodies.clone())).collect(),
    )
}

fn synthetic(seed: u64, own: &BTreeMap<&str, &Handed>) -> Expected {
    let last = |handed: &Handed| handed.to.as_ref().and_then(|to| to.as_str().parse().ok());
    let handed_over: BTreeMap<u64, Option<u64>> =
        own.iter().filter_map(|(partition, handed)| Some((partition.parse().ok()?, last(handed)))).collect();
    Expected::Synthetic { seed, partitions: 2, handed_over }
}

fn all(restarts: &RestartLog) -> Vec<RestartRecord> {
    let mut filter = Filter { limit: PAGE, ..Filter::default() };
    let mut log = Vec::new();
    while let Ok((page, next)) = restarts.query(&filter) {
        if page.is_empty() {
            break;
        }
        log.extend(page);
        filter.after = next;
    }
    log
}

fn count(log: &[RestartRecord], path: &str, event: &str) -> u64 {
    log.iter().filter(|record| record.path.starts_with(path) && record.event == event).count() as u64
}

/// Children whose last word is that they are parked. Stopping the node ends with `stopped`, so that does not count.
fn parked(log: &[RestartRecord], path: &str) -> u64 {
    let mut last: BTreeMap<&str, &str> = BTreeMap::new();
    for record in log.iter().filter(|record| record.path.starts_with(path) && record.event != "stopped") {
        last.insert(&record.path, &record.event);
    }
    last.values().filter(|event| **event == "parked").count() as u64
}
