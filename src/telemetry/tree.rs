//! From the tree's events to the restart log, the metrics and the log lines.

use metrics::{counter, gauge};
use supervisors::{Event, EventKind};

use super::metrics::{PARKED, RESTARTS_TOTAL, stream_labels};
use super::restarts::{Reason, RestartLog, RestartRecord};

/// Takes an event over, in all three.
pub fn record(restarts: &RestartLog, event: &Event) {
    count(event);
    log(event);
    restarts.append(to_record(event));
}

fn to_record(event: &Event) -> RestartRecord {
    let millis = |d: std::time::Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    RestartRecord {
        incident: event.incident.as_deref().map(str::to_owned),
        path: event.path.as_str().to_owned(),
        incarnation: event.incarnation,
        event: event.kind.as_str().to_owned(),
        reason: event.reason.as_ref().map(|reason| Reason {
            class: reason.class.as_str().to_owned(),
            code: reason.code.clone(),
            message: reason.message.clone(),
        }),
        strategy: event.strategy.map(|strategy| strategy.as_str().to_owned()),
        attempt: (event.attempt > 0).then_some(event.attempt),
        delay_ms: event.delay.map(millis),
        resumed_from: event.info.as_ref().and_then(|info| serde_json::from_value(info.clone()).ok()),
        recovered_in_ms: event.recovered_in.map(millis),
        because_of: event.because_of.as_ref().map(|path| path.as_str().to_owned()),
        ..RestartRecord::default()
    }
}

fn count(event: &Event) {
    let mut segments = event.path.as_str().split('/').skip(1);
    let place = (segments.next(), segments.next(), segments.next());
    let mut labels = match place {
        (Some("tenants"), Some(tenant), Some(stream)) => stream_labels(tenant, stream),
        _ => stream_labels("", ""),
    };
    match event.kind {
        EventKind::Parked => gauge!(PARKED, labels).increment(1.0),
        EventKind::Probed => gauge!(PARKED, labels).decrement(1.0),
        EventKind::Restarting => {
            let class = event.reason.as_ref().map_or("bug", |reason| reason.class.as_str());
            labels.push(metrics::Label::new("class", class));
            counter!(RESTARTS_TOTAL, labels).increment(1);
        }
        _ => {}
    }
}

fn log(event: &Event) {
    let reason = event.reason.as_ref();
    let (class, code) = reason.map_or(("", ""), |r| (r.class.as_str(), r.code.as_str()));
    let message = reason.map_or("", |r| r.message.as_str());
    let incident = event.incident.as_deref().unwrap_or("");
    let path = event.path.as_str();
    match event.kind {
        EventKind::Started | EventKind::Stopped => {
            tracing::debug!(path, incarnation = event.incarnation, "{}", event.kind.as_str())
        }
        EventKind::Restarted | EventKind::Restarting | EventKind::Probed => {
            tracing::info!(path, incident, class, code, attempt = event.attempt, "{}", event.kind.as_str());
        }
        EventKind::Failed => tracing::warn!(path, incident, class, code, message, "failed"),
        EventKind::Parked | EventKind::Abandoned | EventKind::Escalated => {
            tracing::error!(path, incident, class, code, message, "{}", event.kind.as_str());
        }
    }
}
