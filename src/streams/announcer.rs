//! The announcer: publishes the reference of every committed epoch, in order, at least once.
//!
//! It keeps nothing of its own: what is committed and what each sink has are compared, and the difference is read
//! back from the lake where memory no longer has it.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Label, counter};
use serde_json::Value;
use supervisors::{ChildContext, Failure};
use tokio::time::sleep;

use super::shared::Shared;
use crate::announce::Sink;
use crate::faults;
use crate::telemetry::metrics::{REFERENCES_TOTAL, stream_labels};

/// Epochs that are announced again after a sink has forgotten everything (the state directory was lost). Older ones
/// are still served from the lake by their epoch.
const REDERIVED_MAX: u64 = 10_000;

/// Pauses between tries of a sink or a read of the lake.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Announces until stopped; at the stop, what is committed by then. A sink that cannot be reached does not hold the stop
/// up: the supervisor's patience ends, and the next start announces what is missing.
pub(super) async fn run(shared: Arc<Shared>, ctx: ChildContext) -> Result<(), Failure> {
    let mut committed = shared.progress.subscribe();
    loop {
        let stopped = ctx.stop.is_stopped();
        let epoch = committed.borrow_and_update().epoch;
        for sink in &shared.node.sinks {
            announce(&shared, sink.as_ref(), epoch).await;
        }
        ctx.progress.healthy();
        ctx.progress.idle();
        if stopped {
            return Ok(());
        }
        tokio::select! {
            biased;
            changed = committed.changed() => if changed.is_err() { return Ok(()) },
            () = ctx.stop.stopped() => {}
        }
    }
}

/// Brings `sink` to `epoch`.
async fn announce(shared: &Shared, sink: &dyn Sink, epoch: u64) {
    let from = sink.announced(&shared.id).max(epoch.saturating_sub(REDERIVED_MAX));
    for next in from + 1..=epoch {
        let mut pause = PAUSE_MIN;
        loop {
            match publish(shared, sink, next).await {
                Ok(()) => break,
                Err(why) => {
                    tracing::warn!(stream = %shared.id, epoch = next, sink = sink.name(), why, "a reference waits")
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

async fn publish(shared: &Shared, sink: &dyn Sink, epoch: u64) -> Result<(), String> {
    let Some(data) = reference(shared, epoch).await? else {
        return Err("the lake has no record of this epoch".to_owned());
    };
    if faults::fails("announce.before") {
        return Err("crash point".to_owned());
    }
    sink.publish(&shared.id, epoch, &data).await.map_err(|e| e.to_string())?;
    if faults::fails("announce.after") {
        return Err("crash point".to_owned());
    }
    let mut labels = stream_labels(shared.id.tenant(), shared.id.stream());
    labels.push(Label::new("sink", sink.name()));
    counter!(REFERENCES_TOTAL, labels).increment(1);
    shared.node.events.push("data-streams:results", data.clone());
    Ok(())
}

async fn reference(shared: &Shared, epoch: u64) -> Result<Option<Value>, String> {
    if let Some(data) = shared.recent(epoch) {
        return Ok(Some(data));
    }
    shared.node.lake.reference(&shared.id, epoch).await.map_err(|e| e.to_string())
}
