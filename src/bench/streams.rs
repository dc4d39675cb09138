//! Many streams with little to say: what their commits cost, and how long a record waits for its own.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::machine::{Scratch, cpu_seconds, resident_bytes};
use super::meter::{Count, Meter, Metered};
use super::stats::{percentile, round};
use super::{BenchError, node};
use crate::app::{App, Parts};
use crate::cli::BenchStreamsArgs;
use crate::oracle::Expected;
use crate::streams::DirectoryHandle;
use crate::streams::api::Streams;

/// Every stream has committed by then, or something is wrong.
const UP_MAX: Duration = Duration::from_secs(600);

/// The streams are looked at this often while they come up: a look costs as much as a few commits.
const LOOK: Duration = Duration::from_millis(500);

/// What the first commits of all streams at once have piled up is gone after so long.
const SETTLE: Duration = Duration::from_secs(5);

/// The oracle judges this many of the streams, spread over all.
const JUDGED: u32 = 20;

/// The seed of the records.
const SEED: u64 = 13;

/// How to measure.
#[derive(Debug, Clone, Copy)]
pub struct StreamsOptions {
    /// Streams, of one record a second each.
    pub streams: u32,
    /// For how long, once all have come up.
    pub duration: Duration,
    /// Whether payloads are kept.
    pub raw: bool,
}

impl From<&BenchStreamsArgs> for StreamsOptions {
    fn from(args: &BenchStreamsArgs) -> Self {
        Self { streams: args.streams, duration: Duration::from_secs(args.seconds.into()), raw: !args.raw_off }
    }
}

/// `bench streams`.
#[derive(Debug, Clone, Serialize)]
pub struct ManySmall {
    /// `streams`.
    pub bench: &'static str,
    /// Streams, of one record a second each.
    pub streams: u32,
    /// How long it took until each had committed something.
    pub up_s: f64,
    /// How long was measured.
    pub seconds: f64,
    /// Epochs committed each second, all streams together.
    pub commits_per_s: f64,
    /// From the arrival of an epoch's oldest record to its commit, ms: the median over all epochs.
    pub lag_ms_p50: f64,
    /// The same: of 100 epochs, 99 took no longer.
    pub lag_ms_p99: f64,
    /// CPU seconds a second.
    pub cpu: f64,
    /// CPU milliseconds a commit.
    pub cpu_ms_per_commit: f64,
    /// Objects written for each commit, the log entry included.
    pub puts_per_commit: f64,
    /// Objects read for each commit.
    pub gets_per_commit: f64,
    /// Listings for each commit.
    pub lists_per_commit: f64,
    /// Resident at the end, MiB.
    pub rss_mib: f64,
    /// Everything that was collected was committed in the time that the node has for its stop.
    pub drained: bool,
}

/// What an operator would write.
fn configuration(options: &StreamsOptions) -> String {
    let mut text = format!(
        r#"[node]
name = "bench"
state_dir = "state"
drain = "2m"

[lake]
url = "file:lake"

[api]
listen = "127.0.0.1:0"

[adapter.BENCH]
kind = "synthetic"
seed = {SEED}
rate = 1
raw = "{raw}"
"#,
        raw = if options.raw { "keep" } else { "off" },
    );
    for number in 0..options.streams {
        text.push_str(&format!("\n[stream.\"{}\"]\nadapter = \"BENCH\"\n", node::stream(&name(number))));
    }
    text
}

fn name(number: u32) -> String {
    format!("s{number}")
}

/// Measures.
///
/// # Errors
/// What kept it from running, or a lake that is wrong.
pub async fn streams(options: &StreamsOptions) -> Result<ManySmall, BenchError> {
    let scratch = Scratch::new()?;
    let meter = Arc::new(Meter::default());
    let counted = Arc::clone(&meter);
    let parts =
        Parts { store_layer: Some(Box::new(|store| Arc::new(Metered::new(store, counted)))), ..Parts::process() };
    let settings = node::settings(&configuration(options), scratch.path(), &parts)?;
    let app = App::start(settings, parts).await?;
    let began = Instant::now();
    up(&app, options.streams).await?;
    let up_s = began.elapsed().as_secs_f64();
    tokio::time::sleep(SETTLE).await;
    meter.take_lags();
    let (started, before, cpu) = (Instant::now(), meter.count(), cpu_seconds()?);
    tokio::time::sleep(options.duration).await;
    let (seconds, after, cpu) = (started.elapsed().as_secs_f64(), meter.count(), cpu_seconds()? - cpu);
    let mut lags = meter.take_lags();
    let rss = resident_bytes(None)?;
    // Where streams want more than the disk can do, the end of each comes too late for some. Nothing is lost by that.
    let drained = app.stop().await;
    for number in (0..options.streams).step_by(options.streams.div_ceil(JUDGED).max(1) as usize) {
        let expected = Expected::Synthetic { seed: SEED, partitions: 1, handed_over: BTreeMap::new() };
        node::sound(&node::verdict(&scratch.path().join("lake"), &name(number), expected).await?)?;
    }
    let commits = lags.len().max(1) as f64;
    let each = |count: fn(&Count) -> u64| round((count(&after) - count(&before)) as f64 / commits, 2);
    Ok(ManySmall {
        bench: "streams",
        streams: options.streams,
        up_s: round(up_s, 1),
        seconds: round(seconds, 1),
        commits_per_s: round(lags.len() as f64 / seconds, 1),
        lag_ms_p50: round(percentile(&mut lags, 0.5), 0),
        lag_ms_p99: round(percentile(&mut lags, 0.99), 0),
        cpu: round(cpu / seconds, 2),
        cpu_ms_per_commit: round(cpu * 1000.0 / commits, 2),
        puts_per_commit: each(|count| count.puts),
        gets_per_commit: each(|count| count.gets),
        lists_per_commit: each(|count| count.lists),
        rss_mib: round(rss as f64 / f64::from(1 << 20), 1),
        drained,
    })
}

/// Waits until every stream has committed something.
async fn up(app: &App, streams: u32) -> Result<(), BenchError> {
    let directory = DirectoryHandle(Arc::clone(&app.directory));
    let (started, mut next) = (Instant::now(), 0);
    while next < streams {
        let view = directory.get(&node::stream(&name(next))).await;
        if view.is_ok_and(|view| view.status.epoch > 0) {
            next += 1;
            continue;
        }
        if started.elapsed() > UP_MAX {
            return Err(BenchError::Stalled("the first epoch of every stream"));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

impl fmt::Display for ManySmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { streams, commits_per_s, lag_ms_p50, lag_ms_p99, cpu, cpu_ms_per_commit, .. } = self;
        let Self { puts_per_commit, gets_per_commit, lists_per_commit, rss_mib, .. } = self;
        writeln!(
            f,
            "{streams} streams of one record a second: {commits_per_s:.0} commits a second, lag p50 {lag_ms_p50:.0} ms, \
             p99 {lag_ms_p99:.0} ms"
        )?;
        write!(
            f,
            "{cpu:.2} cores, {cpu_ms_per_commit:.2} ms of CPU a commit, {puts_per_commit:.1} puts, {gets_per_commit:.1} \
             gets and {lists_per_commit:.1} lists a commit, {rss_mib:.0} MiB"
        )
    }
}
