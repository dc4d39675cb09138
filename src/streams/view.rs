//! What a stream is, as seen from outside.

use std::collections::HashMap;

use super::api::{Actual, Desired, Parked, Status, StreamView};
use super::directory::Entry;
use super::shared::{Phase, Shared};
use crate::times::timestamp;

/// Names of partitions in one view: enough for a person, bounded for ten thousand.
const PARTITIONS_SHOWN_MAX: usize = 1000;

fn status(entry: &Entry) -> Status {
    let shared = &entry.shared;
    let desired = entry.desired();
    let parked = shared.parked();
    let phases = shared.phases();
    let progress = shared.progress.borrow().clone();
    let now_us = shared.node.clock.now_us();
    let next_us = phases.iter().filter_map(|p| if let Phase::Waiting(at) = p { Some(*at) } else { None }).min();
    let actual = actual(shared, desired, &parked, &phases);
    #[allow(clippy::cast_precision_loss, reason = "seconds of lag need no microseconds beyond 2^52")]
    let lag_seconds = progress.newest_event_us.map(|newest| (now_us - newest) as f64 / 1e6);
    Status {
        desired,
        actual,
        epoch: progress.epoch,
        lag_seconds,
        next_at: next_us.filter(|_| actual == Actual::Waiting).map(timestamp),
        parked: if actual == Actual::Parked { parked.into_values().next() } else { None },
        waits_for: shared.waits_for().filter(|_| desired == Desired::Running),
    }
}

fn actual(shared: &Shared, desired: Desired, parked: &HashMap<String, Parked>, phases: &[Phase]) -> Actual {
    if desired != Desired::Running {
        return Actual::Stopped;
    }
    if shared.job.borrow().is_none() {
        return Actual::Waiting;
    }
    let parked_workers = parked.keys().filter(|path| path.contains("/workers/")).count();
    if parked_workers < parked.len() || (parked_workers > 0 && parked_workers >= phases.len()) {
        return Actual::Parked;
    }
    if shared.intake.borrow().is_none() {
        return if shared.waits_for().is_some() { Actual::Waiting } else { Actual::Starting };
    }
    if phases.contains(&Phase::Working) {
        Actual::Running
    } else if phases.iter().any(|p| matches!(p, Phase::Waiting(_) | Phase::Ended)) {
        Actual::Waiting
    } else {
        Actual::Starting
    }
}

/// One line of the list of streams.
pub(super) fn view(entry: &Entry) -> StreamView {
    let control = entry.control();
    let job = entry.shared.job.borrow().clone();
    let partitions = job.map(|job| job.mount.partitions()).unwrap_or_default();
    StreamView {
        tenant: entry.shared.id.tenant().to_owned(),
        stream: entry.shared.id.stream().to_owned(),
        adapter: control.adapter.clone(),
        version: control.version.max(1),
        partitions: partitions.into_iter().take(PARTITIONS_SHOWN_MAX).map(|p| p.name).collect(),
        settings: control.shown(),
        status: status(entry),
    }
}
