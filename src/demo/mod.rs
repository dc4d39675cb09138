//! The demo: faulty sources, a node, and at the end the proof that nothing was lost or doubled.
//!
//! Everything runs in this process and one folder. What the sources hand over is recorded where they hand it over;
//! the judge reads the lake with code of its own.

mod live;
pub mod recording;
mod verdict;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use adapters::contract::config::Problem;
use adapters::contract::{Kind, SystemClock};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::app::{App, Parts, StartError};
use crate::run::from_text;
use crate::simulate::iqair::{Faults, Options, StandIn};
use crate::streams::DirectoryHandle;
use crate::streams::api::Streams;

use recording::{Behaviour, Ledger, Recording};
pub use verdict::{Outcome, StreamOutcome};

/// Stations of the stand-in; one of them gets a wrong key.
const STATIONS: usize = 6;

/// What goes wrong with the stand-in, as `simulate iqair --faults` takes it: each fault a few times in half a minute,
/// and most answers whole. A 429 is rare because its Retry-After holds for all stations of the key.
const FAULTS: &str = "slow=0.05,hang=0.01,cut=0.04,http_500=0.06,http_429=0.01,garbage=0.03,wrong_key=1";

/// The chance that the synthetic worker panics at a pull: a few times in half a minute.
const PANIC_CHANCE: f64 = 0.01;

/// How long the last records may take from the source into the lake after the sources fell quiet. Longer than the
/// longest back-off of the demo's own configuration.
const SETTLE_MAX: Duration = Duration::from_secs(20);

/// What to do.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// How long the sources work.
    pub duration: Duration,
    /// Decides which faults come when.
    pub seed: u64,
    /// The folder for everything.
    pub data: PathBuf,
    /// Shows nothing while it runs.
    pub quiet: bool,
}

/// Why there is no outcome.
#[derive(Debug, Error)]
pub enum DemoError {
    /// The stand-in could not listen.
    #[error("the stand-in could not be started")]
    StandIn(#[source] std::io::Error),
    /// The folder holds a lake already, whose rows this demo cannot vouch for.
    #[error("{} holds an earlier demo; choose an empty folder with --data", .0.display())]
    NotEmpty(PathBuf),
    /// The demo's own configuration is wrong.
    #[error("the demo's configuration is wrong: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Settings(Vec<Problem>),
    /// The node did not start.
    #[error("the node did not start")]
    Start(#[from] StartError),
}

/// Runs the demo.
///
/// # Errors
/// Where it could not be run. That something was lost or doubled is no error but an [`Outcome`].
pub async fn run(options: &DemoOptions) -> Result<Outcome, DemoError> {
    let started = Instant::now();
    let lake = options.data.join("lake");
    if lake.exists() {
        return Err(DemoError::NotEmpty(options.data.clone()));
    }
    let faults = FAULTS.parse::<Faults>().unwrap_or_else(|_| Faults::all());
    let stand_in = Options { seed: options.seed, stations: STATIONS, faults, ..Options::default() };
    let stand_in = StandIn::start(stand_in, Arc::new(SystemClock)).await.map_err(DemoError::StandIn)?;
    let (quiet, heard) = watch::channel(false);
    let ledger = Arc::new(Ledger::default());
    let mut parts = Parts::process();
    parts.seed = options.seed;
    parts.kinds = recorded(parts.kinds, &ledger, &heard);
    let settings =
        from_text(&configuration(&stand_in, options.seed), &options.data, &parts).map_err(DemoError::Settings)?;
    let app = App::start(settings, parts).await?;
    live::show(&app, options.duration, options.quiet).await;
    quiet.send_replace(true);
    settle(&app, &ledger).await;
    app.stop().await;
    let faults = stand_in.truth();
    stand_in.stop().await;
    Ok(verdict::judge_all(&lake, options.seed, &ledger, &faults.faults(), &app.restarts, started.elapsed()))
}

/// The demo's kinds: the real ones, recorded.
fn recorded(kinds: Vec<Arc<dyn Kind>>, ledger: &Arc<Ledger>, quiet: &watch::Receiver<bool>) -> Vec<Arc<dyn Kind>> {
    let record = |kind: Arc<dyn Kind>| -> Arc<dyn Kind> {
        let synthetic = kind.name() == "synthetic";
        let behaviour = Behaviour {
            ledger: Arc::clone(ledger),
            bodies: !synthetic,
            panic_chance: if synthetic { PANIC_CHANCE } else { 0.0 },
            quiet: quiet.clone(),
        };
        Arc::new(Recording::new(kind, behaviour))
    };
    kinds.into_iter().map(record).collect()
}

/// What an operator would write for this.
fn configuration(stand_in: &StandIn, seed: u64) -> String {
    let partitions: Vec<String> = stand_in
        .stations()
        .iter()
        .map(|s| {
            format!("  {{ name = \"{}\", lat = {}, lon = {} }},", s.city.to_lowercase().replace(' ', "-"), s.lat, s.lon)
        })
        .collect();
    format!(
        r#"[node]
name = "demo"
state_dir = "state"

[lake]
url = "file:lake"
epoch = {{ max_age = "500ms" }}

[api]
listen = "127.0.0.1:0"

[supervision]
backoff = {{ min = "100ms", max = "2s" }}

[adapter.IQAIR_DEMO]
kind = "iqair"
endpoint = "http://{address}/v2/nearest_city"
secret_key = "demo-key"
interval = "500ms"
timeout = "2s"

[adapter.SYNTHETIC_DEMO]
kind = "synthetic"
seed = {seed}
partitions = 2
rate = 500

[stream."demo/air"]
adapter = "IQAIR_DEMO"
partitions = [
{partitions}
]

[stream."demo/synthetic"]
adapter = "SYNTHETIC_DEMO"
"#,
        address = stand_in.addr(),
        partitions = partitions.join("\n"),
    )
}

/// Waits until everything that was handed over is committed and announced, or nothing moves any more.
async fn settle(app: &App, ledger: &Ledger) {
    let streams = DirectoryHandle(Arc::clone(&app.directory));
    let deadline = Instant::now() + SETTLE_MAX;
    while Instant::now() < deadline {
        let mut behind = false;
        let handed = ledger.partitions();
        for view in streams.list().await {
            let id = format!("{}/{}/", view.tenant, view.stream);
            let Ok(stream) = format!("{}/{}", view.tenant, view.stream).parse() else { continue };
            let Ok(checkpoint) = streams.checkpoint(&stream).await else { continue };
            for (scope, handed) in handed.iter().filter(|(scope, _)| scope.starts_with(&id)) {
                let committed = checkpoint["positions"][&scope[id.len()..]].as_str();
                behind |= handed.to.as_ref().is_some_and(|to| committed != Some(to.as_str()));
            }
        }
        if !behind {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A new folder for a demo that was given none.
#[must_use]
pub fn folder() -> PathBuf {
    let name = format!("lakefeed-demo-{}", uuid::Uuid::new_v4().simple());
    Path::new(&std::env::temp_dir()).join(name)
}
