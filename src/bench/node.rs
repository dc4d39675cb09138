//! A node in this process, for as long as one measurement takes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::BenchError;
use crate::app::{App, Parts};
use crate::names::StreamId;
use crate::oracle::{Expected, Verdict, judge};
use crate::run::from_text;
use crate::settings::Settings;
use crate::streams::DirectoryHandle;
use crate::streams::api::{StreamView, Streams};

/// The tenant of all benchmarks' streams.
pub(super) const TENANT: &str = "bench";

/// Nothing new for so long: the node has failed. An epoch of 64 MiB takes a second or two.
const STALLED_AFTER: Duration = Duration::from_secs(120);

/// How often the node is asked how far it is: below what a figure shows, and its cost is none of the node's figures'.
const LOOK: Duration = Duration::from_millis(10);

/// The settings that `toml` says, its relative paths resolved against `folder`.
pub(super) fn settings(toml: &str, folder: &Path, parts: &Parts) -> Result<Settings, BenchError> {
    from_text(toml, folder, parts).map_err(BenchError::Settings)
}

/// The id of a stream of the benchmarks.
pub(super) fn stream(name: &str) -> StreamId {
    format!("{TENANT}/{name}").parse().expect("benchmarks name their streams well")
}

/// Waits until the stream's view is as wanted, or nothing new was committed for [`STALLED_AFTER`].
pub(super) async fn wait(
    app: &App,
    id: &StreamId,
    what: &'static str,
    wanted: impl Fn(&StreamView) -> bool,
) -> Result<(), BenchError> {
    let streams = DirectoryHandle(Arc::clone(&app.directory));
    let (mut epoch, mut since) = (0, Instant::now());
    loop {
        if let Ok(view) = streams.get(id).await {
            if wanted(&view) {
                return Ok(());
            }
            if view.status.epoch > epoch {
                (epoch, since) = (view.status.epoch, Instant::now());
            }
        }
        if since.elapsed() > STALLED_AFTER {
            return Err(BenchError::Stalled(what));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What the oracle says of a synthetic stream.
pub(super) async fn verdict(lake: &Path, name: &str, expected: Expected) -> Result<Verdict, BenchError> {
    let (lake, name) = (lake.to_owned(), name.to_owned());
    let judged = tokio::task::spawn_blocking(move || judge(&lake, TENANT, &name, &expected)).await;
    judged.map_err(|e| BenchError::Wrong(e.to_string()))
}

/// The verdict's faults as an error.
pub(super) fn sound(verdict: &Verdict) -> Result<(), BenchError> {
    if verdict.ok() { Ok(()) } else { Err(BenchError::Wrong(verdict.summary())) }
}
