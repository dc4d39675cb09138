//! The same records through the barest loop and through the whole runtime.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use adapters::contract::Mount;
use serde::Serialize;

use super::bare::Table;
use super::machine::{Scratch, cpu_seconds};
use super::place::{self, Place};
use super::stats::{median, round};
use super::{BenchError, bare, node};
use crate::app::{App, Parts};
use crate::cli::BenchIngestArgs;
use crate::oracle::Expected;

/// Payload bytes of an epoch on both sides: what `lake.epoch.max_bytes` is by default.
const EPOCH_BYTES: u64 = 64 << 20;

/// The seed of the records. Any other would do.
const SEED: u64 = 7;

/// The stream's name.
const STREAM: &str = "ingest";

/// How to measure.
#[derive(Debug, Clone)]
pub struct IngestOptions {
    /// Records in each run, rounded up to whole epochs.
    pub records: u64,
    /// Bytes of one record as JSON.
    pub record_bytes: u64,
    /// Partitions, on both sides.
    pub partitions: u64,
    /// Runs of each side.
    pub rounds: u32,
    /// Where both sides make their lakes; `None` for folders.
    pub place: Option<Place>,
}

impl From<&BenchIngestArgs> for IngestOptions {
    fn from(args: &BenchIngestArgs) -> Self {
        Self {
            records: args.records,
            record_bytes: args.record_bytes.into(),
            partitions: args.partitions.into(),
            rounds: args.rounds,
            place: args.lake.clone().map(|url| Place { url, options: args.lake_options.clone() }),
        }
    }
}

/// `bench ingest`.
#[derive(Debug, Clone, Serialize)]
pub struct Ingest {
    /// `ingest`.
    pub bench: &'static str,
    /// Records in each run.
    pub records: u64,
    /// Bytes of one record as JSON.
    pub record_bytes: u64,
    /// The barest loop.
    pub bare: Bare,
    /// The runtime with `raw = "off"`.
    pub raw_off: Ours,
    /// The runtime with `raw = "keep"`.
    pub raw_keep: Ours,
    /// The source alone, which both sides contain. Not a part of the ratios.
    pub source: Bare,
}

/// A side without a ratio.
#[derive(Debug, Clone, Serialize)]
pub struct Bare {
    /// Records a second, by the median of the wall times.
    pub records_per_s: f64,
    /// The median of the CPU times, s.
    pub cpu_s: f64,
}

/// The runtime's side.
#[derive(Debug, Clone, Serialize)]
pub struct Ours {
    /// Records a second, by the median of the wall times.
    pub records_per_s: f64,
    /// The median of the CPU times, s.
    pub cpu_s: f64,
    /// The bare loop's wall time ÷ ours.
    pub ratio_wall: f64,
    /// The bare loop's CPU time ÷ ours.
    pub ratio_cpu: f64,
}

/// What is fed in, in numbers that come out even.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Records in a run.
    pub(super) records: u64,
    /// Records in an epoch.
    pub(super) epoch_records: u64,
    record_bytes: u64,
    partitions: u64,
}

impl Shape {
    /// Whole epochs of at most [`EPOCH_BYTES`], each made of whole batches of every partition, so that both sides
    /// close the same epochs and the last one is as full as the others.
    fn of(options: &IngestOptions) -> Self {
        // The source's own batches: at most 512 records and 256 KiB.
        let batch = (256 * 1024 / options.record_bytes.max(128)).clamp(1, 512);
        let step = batch * options.partitions;
        let most = (EPOCH_BYTES / options.record_bytes).min(options.records);
        let epoch_records = (most / step).max(1) * step;
        let records = options.records.div_ceil(epoch_records) * epoch_records;
        Self { records, epoch_records, record_bytes: options.record_bytes, partitions: options.partitions }
    }

    fn epochs(&self) -> u64 {
        self.records / self.epoch_records
    }

    /// What an operator would write. Epochs close by their number of records only: the smallest records are twice as
    /// long as asked for, so twice [`EPOCH_BYTES`] is never reached.
    fn configuration(&self, raw: &str, place: Option<&Place>) -> String {
        format!(
            r#"[node]
name = "bench"
state_dir = "state"

[lake]
{lake}
epoch = {{ max_age = "1h", max_bytes = "128MiB", max_rows = {epoch_records} }}

[api]
listen = "127.0.0.1:0"

[adapter.BENCH]
kind = "synthetic"
seed = {SEED}
partitions = {partitions}
total = {total}
bytes = {bytes}
raw = "{raw}"

[stream."bench/{STREAM}"]
adapter = "BENCH"
"#,
            lake = Place::lines(place),
            epoch_records = self.epoch_records,
            partitions = self.partitions,
            total = self.records / self.partitions,
            bytes = self.record_bytes,
        )
    }

    fn expected(&self) -> Expected {
        let last = self.records / self.partitions - 1;
        let handed_over: BTreeMap<_, _> = (0..self.partitions).map(|partition| (partition, Some(last))).collect();
        Expected::Synthetic { seed: SEED, partitions: self.partitions, handed_over }
    }
}

/// Wall and CPU seconds of the runs of one side.
#[derive(Debug, Default)]
struct Times {
    wall: Vec<f64>,
    cpu: Vec<f64>,
}

impl Times {
    fn push(&mut self, (wall, cpu): (f64, f64)) {
        self.wall.push(wall);
        self.cpu.push(cpu);
    }

    /// The medians.
    fn settle(&mut self) -> (f64, f64) {
        (median(&mut self.wall), median(&mut self.cpu))
    }
}

/// Measures; the sides take turns, so that a machine that slows down slows all of them.
///
/// # Errors
/// [`BenchError::Wrong`] where either side does not hold every record exactly once; else what kept it from running.
pub async fn ingest(options: &IngestOptions) -> Result<Ingest, BenchError> {
    let shape = Shape::of(options);
    let scratch = Scratch::new()?;
    let parts = Parts::process();
    let place = options.place.as_ref();
    let settings = node::settings(&shape.configuration("off", None), &scratch.folder("settings")?, &parts)?;
    let job = settings.streams.get(&node::stream(STREAM)).map(|stream| Arc::clone(&stream.job.mount));
    let mount = job.ok_or(BenchError::Stalled("the stream of the benchmark"))?;
    let (mut source, mut bare, mut off, mut keep) =
        (Times::default(), Times::default(), Times::default(), Times::default());
    for _ in 0..options.rounds.max(1) {
        source.push(source_round(&mount, &shape).await?);
        bare.push(bare_round(&mount, &shape, &scratch.folder("bare")?, place).await?);
        off.push(our_round(&shape, "off", &scratch.folder("off")?, place).await?);
        keep.push(our_round(&shape, "keep", &scratch.folder("keep")?, place).await?);
    }
    let (bare, source) = (bare.settle(), source.settle());
    let per_second = |wall: f64| round(shape.records as f64 / wall, 0);
    let plain = |(wall, cpu): (f64, f64)| Bare { records_per_s: per_second(wall), cpu_s: round(cpu, 3) };
    let ours = |(wall, cpu): (f64, f64)| Ours {
        records_per_s: per_second(wall),
        cpu_s: round(cpu, 3),
        ratio_wall: round(bare.0 / wall, 3),
        // A run that is too short for the clock of the CPU times has no ratio.
        ratio_cpu: if cpu > 0.0 { round(bare.1 / cpu, 3) } else { 0.0 },
    };
    Ok(Ingest {
        bench: "ingest",
        records: shape.records,
        record_bytes: shape.record_bytes,
        bare: plain(bare),
        raw_off: ours(off.settle()),
        raw_keep: ours(keep.settle()),
        source: plain(source),
    })
}

/// Runs blocking work and gives its wall and CPU seconds.
async fn timed(work: impl FnOnce() -> Result<(), BenchError> + Send + 'static) -> Result<(f64, f64), BenchError> {
    let (started, cpu) = (Instant::now(), cpu_seconds()?);
    tokio::task::spawn_blocking(work).await.map_err(|e| BenchError::Bare(e.to_string()))??;
    Ok((started.elapsed().as_secs_f64(), cpu_seconds()? - cpu))
}

async fn source_round(mount: &Arc<dyn Mount>, shape: &Shape) -> Result<(f64, f64), BenchError> {
    let (mount, wanted) = (Arc::clone(mount), shape.records);
    timed(move || match bare::source_only(mount.as_ref())? {
        records if records == wanted => Ok(()),
        records => Err(BenchError::Wrong(format!("the source gave {records} of {wanted} records"))),
    })
    .await
}

async fn bare_round(
    mount: &Arc<dyn Mount>,
    shape: &Shape,
    folder: &Path,
    place: Option<&Place>,
) -> Result<(f64, f64), BenchError> {
    let table = match place {
        None => Table::Folder(folder.to_owned()),
        Some(_) => {
            let settings = node::settings(&shape.configuration("off", place), folder, &Parts::process())?;
            Table::Store(place::store(&settings)?, tokio::runtime::Handle::current())
        }
    };
    let (mount, shape, target) = (Arc::clone(mount), *shape, table.clone());
    let times = timed(move || bare::run(mount.as_ref(), &shape, &target)).await?;
    if let Table::Store(store, _) = &table {
        place::take_home(store.as_ref(), folder).await?;
    }
    let rows = bare::rows(folder)?;
    std::fs::remove_dir_all(folder).map_err(BenchError::Folder)?;
    if rows == shape.records {
        return Ok(times);
    }
    Err(BenchError::Wrong(format!("the bare loop's table has {rows} rows of {}", shape.records)))
}

/// From the start of the node to the commit of the last record; the CPU time includes its stop.
async fn our_round(shape: &Shape, raw: &str, folder: &Path, place: Option<&Place>) -> Result<(f64, f64), BenchError> {
    let parts = Parts::process();
    let settings = node::settings(&shape.configuration(raw, place), folder, &parts)?;
    let store = place.map(|_| place::store(&settings)).transpose()?;
    let (started, cpu) = (Instant::now(), cpu_seconds()?);
    let app = App::start(settings, parts).await?;
    let last = shape.epochs();
    node::wait(&app, &node::stream(STREAM), "the last epoch", |view| view.status.epoch >= last).await?;
    let wall = started.elapsed().as_secs_f64();
    app.stop().await;
    let cpu = cpu_seconds()? - cpu;
    if let Some(store) = store {
        place::take_home(store.as_ref(), &folder.join("lake")).await?;
    }
    let verdict = node::verdict(&folder.join("lake"), STREAM, shape.expected()).await?;
    std::fs::remove_dir_all(folder).map_err(BenchError::Folder)?;
    node::sound(&verdict)?;
    if verdict.rows == shape.records && verdict.epochs == last {
        return Ok((wall, cpu));
    }
    Err(BenchError::Wrong(format!("{} rows in {} epochs", verdict.rows, verdict.epochs)))
}

impl fmt::Display for Ingest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} records of {} bytes", self.records, self.record_bytes)?;
        writeln!(f, "{:<10} {:>12} {:>8} {:>11} {:>10}", "", "records/s", "cpu s", "ratio wall", "ratio cpu")?;
        for (name, side) in [("source", &self.source), ("bare", &self.bare)] {
            writeln!(f, "{name:<10} {:>12.0} {:>8.2}", side.records_per_s, side.cpu_s)?;
        }
        for (name, side) in [("raw off", &self.raw_off), ("raw keep", &self.raw_keep)] {
            let Ours { records_per_s, cpu_s, ratio_wall, ratio_cpu } = side;
            writeln!(f, "{name:<10} {records_per_s:>12.0} {cpu_s:>8.2} {ratio_wall:>11.2} {ratio_cpu:>10.2}")?;
        }
        write!(f, "every record is there exactly once; a ratio is bare / ours, so 1 is the limit")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_shapes_come_out_even() {
        for (records, record_bytes, partitions) in
            [(2_097_152, 250, 2), (1, 64, 3), (5000, 4000, 2), (300_000, 65_536, 7)]
        {
            let shape = Shape::of(&IngestOptions { records, record_bytes, partitions, rounds: 1, place: None });
            assert!(shape.records >= records);
            assert_eq!((shape.records % shape.epoch_records, shape.records % partitions), (0, 0), "{shape:?}");
            let per_partition = shape.epoch_records / partitions;
            assert_eq!(per_partition % (256 * 1024 / record_bytes.max(128)).clamp(1, 512), 0, "{shape:?}");
        }
        let usual =
            Shape::of(&IngestOptions { records: 2_097_152, record_bytes: 250, partitions: 2, rounds: 1, place: None });
        assert_eq!((usual.records % 1024, usual.epochs()), (0, 8));
    }
}
