//! How much memory a node takes when its lake is far slower than its sources, and how much a worker takes that waits.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::machine::{NodeProcess, Scratch, free_port, resident_bytes};
use super::slow::{Line, Slow};
use super::stats::round;
use super::{BenchError, node};
use crate::app::{App, Parts};
use crate::cli::BenchMemoryArgs;
use crate::oracle::Expected;

/// What the lake takes a second.
const LAKE_BYTES_PER_S: u64 = 4 << 20;

/// What the sources offer for each byte that the lake takes.
const PRESSURE: u64 = 100;

/// Streams with one partition each. Together they may hold exactly the queue.
const STREAMS: u64 = 4;

/// The size of a record, the default of the kind.
const RECORD_BYTES: u64 = 250;

/// `node.queue` of the run.
const QUEUE_MIB: u64 = 64;

/// What a node takes without any load: program, threads, caches, the restart log.
const BASE_MIB: u64 = 64;

/// What stands in memory for each byte of the queue, at most: the payload itself with what is known of it (records of
/// 250 bytes cost as much again), its row in Arrow, and both once more as Parquet while their epoch is committed.
const PER_QUEUE_BYTE: u64 = 4;

/// The memory is looked at this often; it does not grow by a MiB in the time.
const LOOK: Duration = Duration::from_millis(10);

/// An idle node does nothing for so long before its memory is read.
const SETTLE: Duration = Duration::from_secs(3);

/// All idle workers are up by then, or something is wrong.
const UP_MAX: Duration = Duration::from_secs(300);

/// The seed of the records.
const SEED: u64 = 5;

/// How to measure.
#[derive(Debug, Clone)]
pub struct MemoryOptions {
    /// How long the sources press on a lake that is slow.
    pub duration: Duration,
    /// How long they press on one that takes nothing, after that.
    pub stalled: Duration,
    /// Idle workers; 0 leaves them out.
    pub workers: u32,
    /// The `lakefeed` to run for the idle workers.
    pub program: PathBuf,
}

impl MemoryOptions {
    /// What the command line asks for, measured on `program`.
    #[must_use]
    pub fn of(args: &BenchMemoryArgs, program: PathBuf) -> Self {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        Self { duration: seconds(args.seconds), stalled: seconds(args.stalled), workers: args.workers, program }
    }
}

/// `bench memory`.
#[derive(Debug, Clone, Serialize)]
pub struct Memory {
    /// `memory`.
    pub bench: &'static str,
    /// The most that was resident, MiB, slow and stalled together.
    pub rss_mib_max: f64,
    /// The most while the lake took nothing, MiB.
    pub rss_mib_stalled: f64,
    /// What the configuration allows, MiB.
    pub bound_mib: f64,
    /// Resident bytes that one idle worker adds; absent where that was left out.
    pub idle_worker_bytes: Option<u64>,
    /// Bytes offered for each byte of payload that was committed under pressure.
    pub pressure: f64,
}

/// What an operator would write.
fn configuration() -> String {
    let rate = LAKE_BYTES_PER_S * PRESSURE / RECORD_BYTES / STREAMS;
    let mut text = format!(
        r#"[node]
name = "bench"
state_dir = "state"
queue = "{QUEUE_MIB}MiB"
drain = "2m"

[lake]
url = "file:lake"
epoch = {{ max_bytes = "{epoch}MiB" }}

[api]
listen = "127.0.0.1:0"

[adapter.BENCH]
kind = "synthetic"
seed = {SEED}
rate = {rate}
bytes = {RECORD_BYTES}
"#,
        // A stream may hold two epochs.
        epoch = QUEUE_MIB / STREAMS / 2,
    );
    for number in 0..STREAMS {
        text.push_str(&format!("\n[stream.\"bench/s{number}\"]\nadapter = \"BENCH\"\n"));
    }
    text
}

/// Looks at this process's memory until dropped.
struct Watcher {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<Result<u64, BenchError>>>,
}

impl Watcher {
    fn start() -> Result<Self, BenchError> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let watch = move || {
            let mut most = 0;
            while !stopped.load(Ordering::Relaxed) {
                most = most.max(resident_bytes(None)?);
                std::thread::sleep(LOOK);
            }
            Ok(most)
        };
        let thread = std::thread::Builder::new().name("memory".to_owned()).spawn(watch).map_err(BenchError::Folder)?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// The most that it saw.
    fn stop(mut self) -> Result<u64, BenchError> {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return Ok(0) };
        thread.join().map_err(|_| BenchError::Stalled("the look at the memory"))?
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Measures.
///
/// # Errors
/// What kept it from running, or a lake that is wrong.
pub async fn memory(options: &MemoryOptions) -> Result<Memory, BenchError> {
    let Pressed { most, stalled, pressure } = under_pressure(options).await?;
    let idle_worker_bytes = match options.workers {
        0 => None,
        workers => Some(idle(&options.program, workers).await?),
    };
    Ok(Memory {
        bench: "memory",
        rss_mib_max: mib(most.max(stalled)),
        rss_mib_stalled: mib(stalled),
        bound_mib: (BASE_MIB + PER_QUEUE_BYTE * QUEUE_MIB) as f64,
        idle_worker_bytes,
        pressure,
    })
}

fn mib(bytes: u64) -> f64 {
    round(bytes as f64 / f64::from(1 << 20), 1)
}

/// What came of the pressure.
struct Pressed {
    /// The most that was resident while the lake was slow.
    most: u64,
    /// The same while it took nothing.
    stalled: u64,
    /// How much more was offered than taken while it was slow.
    pressure: f64,
}

/// Sources that press on a lake that is slow, and then takes nothing.
async fn under_pressure(options: &MemoryOptions) -> Result<Pressed, BenchError> {
    let scratch = Scratch::new()?;
    let line = Arc::new(Line::new(LAKE_BYTES_PER_S));
    let slowed = Arc::clone(&line);
    let parts = Parts { store_layer: Some(Box::new(|store| Arc::new(Slow::new(store, slowed)))), ..Parts::process() };
    let settings = node::settings(&configuration(), scratch.path(), &parts)?;
    let watcher = Watcher::start()?;
    let app = App::start(settings, parts).await?;
    let began = Instant::now();
    tokio::time::sleep(options.duration).await;
    let most = watcher.stop()?;
    let (taken, lasted) = (line.taken(), began.elapsed());
    line.stall();
    let watcher = Watcher::start()?;
    tokio::time::sleep(options.stalled).await;
    let stalled = watcher.stop()?;
    line.lift();
    if !app.stop().await {
        return Err(BenchError::Stalled("the drain of the node"));
    }
    for number in 0..STREAMS {
        let expected = Expected::Synthetic { seed: SEED, partitions: 1, handed_over: BTreeMap::new() };
        let verdict = node::verdict(&scratch.path().join("lake"), &format!("s{number}"), expected).await?;
        node::sound(&verdict)?;
    }
    let offered = (LAKE_BYTES_PER_S * PRESSURE) as f64 * lasted.as_secs_f64();
    Ok(Pressed { most, stalled, pressure: round(offered / taken.max(1) as f64, 1) })
}

/// Bytes that one idle worker adds: a node with `workers` of them against a node with one.
async fn idle(program: &Path, workers: u32) -> Result<u64, BenchError> {
    let one = idle_node(program, 1).await?;
    let all = idle_node(program, workers + 1).await?;
    Ok(all.saturating_sub(one) / u64::from(workers))
}

/// Resident bytes of a node whose workers have given one record each and wait for hours.
async fn idle_node(program: &Path, workers: u32) -> Result<u64, BenchError> {
    let scratch = Scratch::new()?;
    let port = free_port()?;
    let config = scratch.path().join("lakefeed.toml");
    let text = format!(
        r#"[node]
name = "bench"
state_dir = "state"

[lake]
url = "file:lake"

[api]
listen = "127.0.0.1:{port}"

[adapter.BENCH]
kind = "synthetic"
partitions = {workers}
rate = 0.0001

[stream."bench/idle"]
adapter = "BENCH"
"#
    );
    std::fs::write(&config, text).map_err(BenchError::Folder)?;
    let http = reqwest::Client::builder().no_proxy().timeout(UP_MAX).build();
    let http = http.map_err(|e| BenchError::Folder(std::io::Error::other(e)))?;
    let url = format!("http://127.0.0.1:{port}/v1/streams/bench/idle/checkpoint");
    let mut process = NodeProcess::start(program, &config)?;
    let started = Instant::now();
    while positions(&http, &url).await < workers as usize {
        process.check()?;
        if started.elapsed() > UP_MAX {
            return Err(BenchError::Stalled("the first record of every idle worker"));
        }
        tokio::time::sleep(LOOK * 10).await;
    }
    tokio::time::sleep(SETTLE).await;
    let resident = resident_bytes(Some(process.id()))?;
    process.kill()?;
    Ok(resident)
}

/// How many partitions have a committed position.
async fn positions(http: &reqwest::Client, url: &str) -> usize {
    let Ok(answer) = http.get(url).send().await else { return 0 };
    let text = answer.text().await.unwrap_or_default();
    let checkpoint: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    checkpoint["positions"].as_object().map_or(0, serde_json::Map::len)
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rss_mib_max, rss_mib_stalled, bound_mib, idle_worker_bytes, pressure, .. } = self;
        write!(
            f,
            "at most {rss_mib_max:.0} MiB of {bound_mib:.0} MiB, with {pressure:.0} times more offered than taken; \
             {rss_mib_stalled:.0} MiB while nothing was taken"
        )?;
        match idle_worker_bytes {
            Some(bytes) => write!(f, "\n{bytes} bytes for each idle worker"),
            None => Ok(()),
        }
    }
}
