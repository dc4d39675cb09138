//! Upkeep of the lake's tables: log checkpoints, so that opening a table stays quick however long it has lived.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use supervisors::{ChildContext, ChildSpec, Failure, Strategy, SupervisorSpec};

use crate::faults;
use crate::streams::Directory;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::tree::Recorder;

/// How often tables are looked at.
const EVERY: Duration = Duration::from_secs(30);

/// A table gets a log checkpoint after this many epochs: Delta's own default is 100, and a cold start then reads at
/// most so many small entries.
const EPOCHS_PER_CHECKPOINT: u64 = 100;

/// Samples of histograms are folded together this often; between two scrapes they would pile up.
const METRICS_EVERY: Duration = Duration::from_secs(5);

/// The supervisor `maintenance`.
#[must_use]
pub fn supervisor(directory: Arc<Directory>, metrics: Metrics, recorder: Arc<Recorder>) -> ChildSpec {
    ChildSpec::supervisor("maintenance", move |_| {
        let directory = Arc::clone(&directory);
        let (metrics, recorder) = (metrics.clone(), Arc::clone(&recorder));
        let upkeep = ChildSpec::task("metrics", move |ctx| fold_metrics(metrics.clone(), Arc::clone(&recorder), ctx));
        let checkpoints = ChildSpec::task("log_checkpoints", move |ctx| log_checkpoints(Arc::clone(&directory), ctx));
        async move {
            Ok(SupervisorSpec::new(Strategy::OneForOne)
                .intensity(5, Duration::from_secs(30))
                .child(checkpoints)
                .child(upkeep))
        }
    })
}

async fn log_checkpoints(directory: Arc<Directory>, ctx: ChildContext) -> Result<(), Failure> {
    let (every, epochs) = if faults::hurry() { (EVERY / 100, 3) } else { (EVERY, EPOCHS_PER_CHECKPOINT) };
    let mut done: HashMap<_, u64> = HashMap::new();
    loop {
        for (id, epoch) in directory.epochs() {
            // The first look only notes where a table stands: its own process may have done this one already.
            let last = *done.entry(id.clone()).or_insert(epoch - epoch % epochs);
            if epoch < last + epochs {
                continue;
            }
            match directory.lake().checkpoint_log(&id).await {
                Ok(()) => {
                    done.insert(id, epoch - epoch % epochs);
                }
                Err(e) => {
                    tracing::warn!(stream = %id, code = e.code, message = e.message, "no log checkpoint; the next round tries again")
                }
            }
            if ctx.stop.is_stopped() {
                return Ok(());
            }
        }
        tokio::select! {
            () = ctx.stop.stopped() => return Ok(()),
            () = tokio::time::sleep(every) => {}
        }
    }
}

async fn fold_metrics(metrics: Metrics, recorder: Arc<Recorder>, ctx: ChildContext) -> Result<(), Failure> {
    loop {
        metrics.upkeep();
        recorder.refresh();
        tokio::select! {
            () = ctx.stop.stopped() => return Ok(()),
            () = tokio::time::sleep(METRICS_EVERY) => {}
        }
    }
}
