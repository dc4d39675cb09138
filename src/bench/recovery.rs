//! A node in a process of its own, killed with SIGKILL again and again.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;

use super::machine::{NodeProcess, Scratch};
use super::many::many_streams;
use super::stats::{percentile, round};
use super::{BenchError, node};
use crate::cli::BenchRecoveryArgs;
use crate::oracle::Expected;

pub use super::many::ManyStreams;

/// The table's log is looked at this often; what a figure shows is coarser.
const LOOK: Duration = Duration::from_millis(1);

/// A node that is not back by then has failed.
const BACK_MAX: Duration = Duration::from_secs(60);

/// After its first new epoch a node lives for up to this long: some are killed while they commit, some between.
const LIFE_MAX: Duration = Duration::from_millis(500);

/// The seed of the records, and of the moments of the kills.
const SEED: u64 = 11;

/// Partitions of the source.
const PARTITIONS: u64 = 2;

/// The stream's name.
const STREAM: &str = "load";

/// How to measure.
#[derive(Debug, Clone)]
pub struct RecoveryOptions {
    /// Kills.
    pub kills: u32,
    /// Streams of the second measurement; 0 leaves it out.
    pub streams: u32,
    /// The `lakefeed` to run.
    pub program: PathBuf,
}

impl RecoveryOptions {
    /// What the command line asks for, measured on `program`.
    #[must_use]
    pub fn of(args: &BenchRecoveryArgs, program: PathBuf) -> Self {
        Self { kills: args.kills, streams: args.streams, program }
    }
}

/// `bench recovery`.
#[derive(Debug, Clone, Serialize)]
pub struct Recovery {
    /// `recovery`.
    pub bench: &'static str,
    /// Kills.
    pub kills: u32,
    /// From the start of the process to its first new epoch, ms: the median.
    pub ms_p50: f64,
    /// The same: of 100 starts, 99 took no longer.
    pub ms_p99: f64,
    /// Records of the source that are not in the table.
    pub missing: u64,
    /// Records that are there more than once.
    pub doubled: u64,
    /// The node with many streams, where asked for.
    #[serde(flatten)]
    pub many: Option<ManyStreams>,
}

/// What an operator would write. The short age of an epoch is what is usual for those who want fresh rows; with the
/// default of one second, the first epoch would wait for its age alone.
fn configuration() -> String {
    format!(
        r#"[node]
name = "bench"
state_dir = "state"

[lake]
url = "file:lake"
epoch = {{ max_age = "100ms" }}

[api]
listen = "127.0.0.1:0"

[adapter.BENCH]
kind = "synthetic"
seed = {SEED}
partitions = {PARTITIONS}
rate = 1000

[stream."bench/{STREAM}"]
adapter = "BENCH"
"#
    )
}

/// Follows the log of a table from version to version.
struct Tail {
    log: PathBuf,
    next: u64,
}

impl Tail {
    fn path(&self) -> PathBuf {
        self.log.join(format!("{:020}.json", self.next))
    }

    /// Goes to the end.
    fn skip(&mut self) {
        while self.path().exists() {
            self.next += 1;
        }
    }

    /// Whether an epoch was committed since the last look. A claim is a version without an epoch.
    fn new_epoch(&mut self) -> bool {
        let needle = format!("\"lakefeed/{}/{STREAM}\"", node::TENANT);
        while let Ok(text) = std::fs::read_to_string(self.path()) {
            self.next += 1;
            if text.lines().any(|line| line.starts_with("{\"txn\"") && line.contains(&needle)) {
                return true;
            }
        }
        false
    }
}

/// Starts the node and waits for its first new epoch: how long that took.
async fn start(program: &Path, config: &Path, tail: &mut Tail) -> Result<(NodeProcess, Duration), BenchError> {
    tail.skip();
    let started = Instant::now();
    let mut process = NodeProcess::start(program, config)?;
    while !tail.new_epoch() {
        if started.elapsed() > BACK_MAX {
            return Err(BenchError::Stalled("the first new epoch"));
        }
        process.check()?;
        tokio::time::sleep(LOOK).await;
    }
    Ok((process, started.elapsed()))
}

/// Measures.
///
/// # Errors
/// Where a node does not come back, or the lake is wrong in other ways than missing or doubled records.
pub async fn recovery(options: &RecoveryOptions) -> Result<Recovery, BenchError> {
    let scratch = Scratch::new()?;
    let config = scratch.path().join("lakefeed.toml");
    std::fs::write(&config, configuration()).map_err(BenchError::Folder)?;
    let lake = scratch.path().join("lake");
    let log = lake.join(format!("tables/{}/{STREAM}/_delta_log", node::TENANT));
    let mut tail = Tail { log, next: 0 };
    let mut rng = SmallRng::seed_from_u64(SEED);
    let mut times = Vec::new();
    // The first start makes the table; what is measured begins with the first kill.
    let (mut process, _) = start(&options.program, &config, &mut tail).await?;
    for _ in 0..options.kills {
        tokio::time::sleep(LIFE_MAX.mul_f64(rng.random())).await;
        process.check()?;
        process.kill()?;
        let (next, took) = start(&options.program, &config, &mut tail).await?;
        process = next;
        times.push(took.as_secs_f64() * 1000.0);
    }
    process.kill()?;
    let expected = Expected::Synthetic { seed: SEED, partitions: PARTITIONS, handed_over: BTreeMap::new() };
    let mut verdict = node::verdict(&lake, STREAM, expected).await?;
    let (missing, doubled) = (std::mem::take(&mut verdict.missing), std::mem::take(&mut verdict.doubled));
    node::sound(&verdict)?;
    let many = match options.streams {
        0 => None,
        streams => Some(many_streams(&options.program, streams).await?),
    };
    Ok(Recovery {
        bench: "recovery",
        kills: options.kills,
        ms_p50: round(percentile(&mut times, 0.5), 1),
        ms_p99: round(percentile(&mut times, 0.99), 1),
        missing,
        doubled,
        many,
    })
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kills, ms_p50, ms_p99, missing, doubled, .. } = self;
        writeln!(f, "{kills} kills; from start to the first new epoch: median {ms_p50:.0} ms, p99 {ms_p99:.0} ms")?;
        if let Some(many) = &self.many {
            writeln!(f, "{many}")?;
        }
        write!(f, "{missing} records missing, {doubled} doubled")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_a_claim_is_no_new_epoch() {
        let scratch = Scratch::new().expect("made");
        let mut tail = Tail { log: scratch.path().to_owned(), next: 0 };
        let put = |version: u64, app: &str| {
            let line = format!("{{\"txn\":{{\"appId\":\"{app}/bench/load\",\"version\":1}}}}\n");
            std::fs::write(scratch.path().join(format!("{version:020}.json")), line).expect("written");
        };
        assert!(!tail.new_epoch());
        put(0, "lakefeed");
        tail.skip();
        put(1, "lakefeed-own");
        assert!(!tail.new_epoch());
        put(2, "lakefeed");
        assert!(tail.new_epoch());
        assert!(!tail.new_epoch());
    }
}
