//! A node with many streams: when its API is up, and when all streams have their tables.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::BenchError;
use super::machine::{NodeProcess, Scratch, free_port};
use super::stats::round;

/// How often the node is asked. Coarser than a look into a folder: each is a request to a node that has much to do,
/// and that looks at all its streams to say whether it is ready.
const LOOK: Duration = Duration::from_millis(25);

/// A node that is not ready by then has failed.
const READY_MAX: Duration = Duration::from_secs(600);

/// One question.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// A node with many configured streams.
#[derive(Debug, Clone, Serialize)]
pub struct ManyStreams {
    /// Configured streams.
    pub streams: u32,
    /// From the start of the process to the first answer of its API, ms.
    pub api_up_ms: f64,
    /// From the start to ready, ms: every table is made and claimed.
    pub ready_ms: f64,
    /// The first, after SIGKILL: the tables are there.
    pub api_up_again_ms: f64,
    /// The second, after SIGKILL.
    pub ready_again_ms: f64,
}

/// What an operator would write. Each stream has one record at once and then one in a quarter of an hour.
fn configuration(streams: u32, port: u16) -> String {
    let mut text = format!(
        r#"[node]
name = "bench"
state_dir = "state"

[lake]
url = "file:lake"

[api]
listen = "127.0.0.1:{port}"

[adapter.BENCH]
kind = "synthetic"
rate = 0.001
raw = "off"
"#
    );
    for number in 0..streams {
        text.push_str(&format!("\n[stream.\"bench/s{number}\"]\nadapter = \"BENCH\"\n"));
    }
    text
}

/// Milliseconds from `started` until `url` answers well.
async fn until(
    http: &reqwest::Client,
    url: &str,
    started: Instant,
    process: &mut NodeProcess,
) -> Result<f64, BenchError> {
    loop {
        if http.get(url).send().await.is_ok_and(|answer| answer.status().is_success()) {
            return Ok(round(started.elapsed().as_secs_f64() * 1000.0, 1));
        }
        process.check()?;
        if started.elapsed() > READY_MAX {
            return Err(BenchError::Stalled("the node with many streams"));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Measures a first start and one after SIGKILL.
pub(super) async fn many_streams(program: &Path, streams: u32) -> Result<ManyStreams, BenchError> {
    let scratch = Scratch::new()?;
    let port = free_port()?;
    let config = scratch.path().join("lakefeed.toml");
    std::fs::write(&config, configuration(streams, port)).map_err(BenchError::Folder)?;
    let http = reqwest::Client::builder().timeout(ANSWER_MAX).no_proxy().build();
    let http = http.map_err(|e| BenchError::Folder(std::io::Error::other(e)))?;
    let (live, ready) =
        (format!("http://127.0.0.1:{port}/health/live"), format!("http://127.0.0.1:{port}/health/ready"));
    let mut figures = [(0.0, 0.0); 2];
    for figure in &mut figures {
        let started = Instant::now();
        let mut process = NodeProcess::start(program, &config)?;
        let up = until(&http, &live, started, &mut process).await?;
        *figure = (up, until(&http, &ready, started, &mut process).await?);
        process.kill()?;
    }
    let [(api_up_ms, ready_ms), (api_up_again_ms, ready_again_ms)] = figures;
    Ok(ManyStreams { streams, api_up_ms, ready_ms, api_up_again_ms, ready_again_ms })
}

impl fmt::Display for ManyStreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { streams, api_up_ms, ready_ms, api_up_again_ms, ready_again_ms } = self;
        write!(
            f,
            "{streams} streams: API up after {api_up_ms:.0} ms, ready after {ready_ms:.0} ms; after a kill \
             {api_up_again_ms:.0} ms and {ready_again_ms:.0} ms"
        )
    }
}
