//! Many partitions polled on their beats, and how punctual that is.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adapters::contract::SystemClock;
use serde::Serialize;
use tokio::sync::oneshot;

use super::machine::{Scratch, cpu_seconds, thread_cpu_seconds};
use super::stats::{percentile, round};
use super::{BenchError, node};
use crate::app::{App, Parts};
use crate::cli::BenchPollsArgs;
use crate::simulate::iqair::{Faults, Options, StandIn, Station, Truth};

/// The interval that the factor shortens.
const INTERVAL: Duration = Duration::from_secs(60);

/// One partition of so many is on the stand-in that rate-limits. Its own, because the Retry-After of a key holds for
/// all partitions of that key, and the others have to keep the load up.
const LIMITED_PART: usize = 20;

/// Keys, one stream each, of the partitions that are rate-limited.
const KEYS: usize = 5;

/// Each key is told to wait about once in so many beats.
const BEATS_PER_LIMIT: f64 = 2.0;

/// How to measure.
#[derive(Debug, Clone, Copy)]
pub struct PollsOptions {
    /// Partitions.
    pub partitions: usize,
    /// The interval is 60 s divided by this.
    pub factor: u32,
    /// Beats of each partition.
    pub beats: u32,
}

impl From<BenchPollsArgs> for PollsOptions {
    fn from(args: BenchPollsArgs) -> Self {
        Self { partitions: args.partitions as usize, factor: args.factor, beats: args.beats }
    }
}

/// `bench polls`.
#[derive(Debug, Clone, Serialize)]
pub struct Polls {
    /// `polls`.
    pub bench: &'static str,
    /// Partitions.
    pub partitions: usize,
    /// The interval as it was run: 60 s divided by `factor`.
    pub interval_s: f64,
    /// What the interval was shortened by.
    pub factor: u32,
    /// Polls that were started.
    pub polls: usize,
    /// From the beat to the start of the poll, ms: the median.
    pub start_lag_ms_p50: f64,
    /// The same: of 100 polls, 99 started no later.
    pub start_lag_ms_p99: f64,
    /// Requests of a partition while another of it was being answered.
    pub overlaps: u64,
    /// Requests of a partition within a Retry-After that it was given.
    pub in_retry_after: u64,
    /// Answers 429 with a Retry-After that were given.
    pub retry_afters: u64,
    /// CPU seconds of the node, the stand-in left out.
    pub cpu_s: f64,
}

/// The stand-ins on a thread and a runtime of their own, so that neither their work nor their time is the node's.
struct StandIns {
    stop: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<Result<f64, BenchError>>,
    calm: Served,
    limiting: Served,
}

/// What is known of a stand-in from outside of its thread.
struct Served {
    address: std::net::SocketAddr,
    stations: Vec<Station>,
    truth: Arc<Truth>,
}

impl Served {
    fn of(stand_in: &StandIn) -> Self {
        Self { address: stand_in.addr(), stations: stand_in.stations().to_vec(), truth: stand_in.truth() }
    }
}

impl StandIns {
    async fn start(calm: Options, limiting: Options) -> Result<Self, BenchError> {
        let (stop, stopped) = oneshot::channel();
        let (told, served) = oneshot::channel();
        let work = move || -> Result<f64, BenchError> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(BenchError::StandIn)?.block_on(async {
                let clock = Arc::new(SystemClock);
                let calm =
                    StandIn::start(calm, Arc::<SystemClock>::clone(&clock) as _).await.map_err(BenchError::StandIn)?;
                let limiting = StandIn::start(limiting, clock).await.map_err(BenchError::StandIn)?;
                // Whoever asked is gone only where the benchmark itself is.
                let _ = told.send((Served::of(&calm), Served::of(&limiting)));
                let _ = stopped.await;
                let cpu = thread_cpu_seconds()?;
                calm.stop().await;
                limiting.stop().await;
                Ok(cpu)
            })
        };
        let thread =
            std::thread::Builder::new().name("stand-in".to_owned()).spawn(work).map_err(BenchError::StandIn)?;
        match served.await {
            Ok((calm, limiting)) => Ok(Self { stop, thread, calm, limiting }),
            Err(_) => Err(join(thread).err().unwrap_or(BenchError::Stalled("the stand-in"))),
        }
    }

    /// Its CPU seconds.
    fn stop(self) -> Result<f64, BenchError> {
        // A stand-in that has ended already cannot be told; why it ended is what the thread gives.
        let _ = self.stop.send(());
        join(self.thread)
    }
}

fn join(thread: std::thread::JoinHandle<Result<f64, BenchError>>) -> Result<f64, BenchError> {
    thread.join().map_err(|_| BenchError::StandIn(std::io::Error::other("it panicked")))?
}

/// What an operator would write.
fn configuration(calm: &Served, limiting: &Served, interval: Duration) -> String {
    let interval = interval.as_millis();
    let mut text = r#"[node]
name = "bench"
state_dir = "state"

[lake]
url = "file:lake"

[api]
listen = "127.0.0.1:0"
"#
    .to_owned();
    let mut add = |name: &str, served: &Served, stations: &[Station]| {
        let partitions: String =
            stations.iter().map(|s| format!("  {{ lat = {}, lon = {} }},\n", s.lat, s.lon)).collect();
        text.push_str(&format!(
            r#"
[adapter.{adapter}]
kind = "iqair"
endpoint = "http://{address}/v2/nearest_city"
secret_key = "key-of-{name}"
interval = "{interval}ms"
partitions = [
{partitions}]

[stream."bench/{name}"]
adapter = "{adapter}"
"#,
            adapter = name.to_uppercase(),
            address = served.address,
        ));
    };
    add("calm", calm, &calm.stations);
    for (key, stations) in limiting.stations.chunks(limiting.stations.len().div_ceil(KEYS)).enumerate() {
        add(&format!("limited{key}"), limiting, stations);
    }
    text
}

/// Measures.
///
/// # Errors
/// What kept it from running, or a lake that is wrong.
pub async fn polls(options: &PollsOptions) -> Result<Polls, BenchError> {
    let interval = INTERVAL / options.factor.max(1);
    let limited = (options.partitions / LIMITED_PART).max(1);
    let stand_in = Options { seed: 3, tick: interval, stations: options.partitions - limited, ..Options::default() };
    #[allow(clippy::cast_precision_loss, reason = "a share")]
    let share = (KEYS as f64 / (limited as f64 * BEATS_PER_LIMIT)).min(0.2);
    let limiting = Options {
        stations: limited,
        faults: format!("http_429={share}").parse::<Faults>().map_err(|e| BenchError::Bare(e.to_string()))?,
        // Longer than the interval, so that the next beat lies within it.
        retry_after_secs: (interval * 3 / 2).as_secs().max(1),
        ..stand_in.clone()
    };
    let stand_ins = StandIns::start(stand_in, limiting).await?;
    let scratch = Scratch::new()?;
    let lags = Arc::new(Mutex::new(Vec::new()));
    let parts = Parts { start_lags: Some(Arc::clone(&lags)), ..Parts::process() };
    let settings =
        node::settings(&configuration(&stand_ins.calm, &stand_ins.limiting, interval), scratch.path(), &parts)?;
    let cpu = cpu_seconds()?;
    let app = App::start(settings, parts).await?;
    tokio::time::sleep(interval * options.beats).await;
    app.stop().await;
    let cpu = cpu_seconds()? - cpu;
    let truths = [Arc::clone(&stand_ins.calm.truth), Arc::clone(&stand_ins.limiting.truth)];
    // The stand-ins' time before the node started is a few milliseconds.
    let cpu_s = round((cpu - stand_ins.stop()?).max(0.0), 2);
    let lags = std::mem::take(&mut *lags.lock().unwrap_or_else(PoisonError::into_inner));
    let mut lags: Vec<f64> = lags.iter().map(|lag: &Duration| lag.as_secs_f64() * 1000.0).collect();
    if lags.len() < options.partitions {
        return Err(BenchError::Stalled("the first poll of every partition"));
    }
    Ok(Polls {
        bench: "polls",
        partitions: options.partitions,
        interval_s: round(interval.as_secs_f64(), 3),
        factor: options.factor,
        polls: lags.len(),
        start_lag_ms_p50: round(percentile(&mut lags, 0.5), 2),
        start_lag_ms_p99: round(percentile(&mut lags, 0.99), 2),
        overlaps: truths.iter().map(|truth| truth.overlaps()).sum(),
        in_retry_after: truths.iter().map(|truth| truth.in_retry_after()).sum(),
        retry_afters: truths.iter().flat_map(|truth| truth.faults()).filter(|f| f.0 == "http_429").map(|f| f.1).sum(),
        cpu_s,
    })
}

impl fmt::Display for Polls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partitions, interval_s, factor, polls, overlaps, in_retry_after, retry_afters, cpu_s, .. } = self;
        writeln!(f, "{partitions} partitions each {interval_s} s (60 s shortened by {factor}): {polls} polls")?;
        let (p50, p99) = (self.start_lag_ms_p50, self.start_lag_ms_p99);
        writeln!(f, "from the beat to the start: median {p50:.1} ms, p99 {p99:.1} ms; {cpu_s:.1} s of processor time")?;
        write!(f, "{overlaps} overlaps, {in_retry_after} requests within one of {retry_afters} Retry-After windows")
    }
}
