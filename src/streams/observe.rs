//! What the tree's events mean for the view of a stream.

use std::time::Duration;

use supervisors::{Event, EventKind};

use super::api::Parked;
use super::directory::{Directory, Entry};
use super::shared::Phase;
use super::tree;
use crate::names::StreamId;

/// So long from now, µs since the epoch.
fn after(entry: &Entry, delay: Duration) -> i64 {
    let delay_us = i64::try_from(delay.as_micros()).unwrap_or(i64::MAX);
    entry.shared.node.clock.now_us().saturating_add(delay_us)
}

/// Takes over what an event says about a stream: parked children, workers that wait for their restart.
pub fn observe(directory: &Directory, event: &Event) {
    let path = event.path.as_str();
    let mut segments = path.split('/').skip(1);
    if segments.next() != Some("tenants") {
        return;
    }
    let (Some(tenant), Some(stream)) = (segments.next(), segments.next()) else { return };
    let Ok(id) = StreamId::new(tenant, stream) else { return };
    let Some(entry) = directory.entry(&id) else { return };
    let worker = path.split_once("/workers/").map(|(_, id)| tree::partition_name(id));
    match event.kind {
        EventKind::Parked => {
            let reason = event.reason.as_ref();
            let parked = Parked {
                class: reason.map_or("bug", |r| r.class.as_str()).to_owned(),
                code: reason.map(|r| r.code.clone()).unwrap_or_default(),
                message: reason.map(|r| r.message.clone()).unwrap_or_default(),
            };
            entry.shared.set_parked(path, Some(parked));
            if let Some(delay) = event.delay {
                entry.shared.set_probe(path, after(&entry, delay));
            }
        }
        EventKind::Started | EventKind::Restarted | EventKind::Stopped => entry.shared.set_parked(path, None),
        EventKind::Restarting => {
            if let (Some(partition), Some(delay)) = (worker, event.delay) {
                let at = after(&entry, delay);
                entry.shared.worker(&partition, |view| view.phase = Phase::Waiting(at));
            }
        }
        EventKind::Failed | EventKind::Probed | EventKind::Abandoned | EventKind::Escalated => {}
    }
}
