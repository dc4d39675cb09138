//! From the tree's events to the restart log, the metrics and the log lines.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{Label, counter, gauge, histogram};
use supervisors::{Event, EventKind};

use super::metrics::{
    ABANDONED_TOTAL, BACKOFF_SECONDS, ESCALATIONS_TOTAL, PARKED, RECOVERY_SECONDS, RESTARTS_TOTAL, stream_labels,
};
use super::restarts::{Reason, RestartLog, RestartRecord};
use super::secrets::Scrubber;

/// Takes events over, in all three.
#[derive(Debug)]
pub struct Recorder {
    /// The restart log.
    pub restarts: Arc<RestartLog>,
    scrubber: Arc<Scrubber>,
    /// The paths of what is parked now.
    parked: Mutex<BTreeSet<String>>,
}

impl Recorder {
    /// A recorder of a tree in which nothing is parked.
    #[must_use]
    pub fn new(restarts: Arc<RestartLog>, scrubber: Arc<Scrubber>) -> Self {
        Self { restarts, scrubber, parked: Mutex::default() }
    }

    /// Takes an event over; gives it back as it may be told, without secrets.
    pub fn record(&self, mut event: Event) -> Event {
        if let Some(reason) = &mut event.reason {
            self.scrubber.clean(&mut reason.message);
        }
        count(&event);
        self.count_parked(&event);
        log(&event);
        self.restarts.append(to_record(&event));
        event
    }

    /// Something counts as parked until it runs again or is no longer there; a probe that fails does not make the alert
    /// come and go.
    fn count_parked(&self, event: &Event) {
        let path = event.path.as_str();
        let mut parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
        match event.kind {
            EventKind::Parked => {
                if parked.insert(path.to_owned()) {
                    gauge!(PARKED, labels_of(path)).increment(1.0);
                }
            }
            EventKind::Started | EventKind::Restarted | EventKind::Stopped | EventKind::Escalated => {
                // What was parked below a supervisor goes with it.
                let below = format!("{path}/");
                let gone: Vec<String> = parked
                    .range(path.to_owned()..)
                    .take_while(|parked| parked.starts_with(path))
                    .filter(|parked| *parked == path || parked.starts_with(&below))
                    .cloned()
                    .collect();
                for path in gone {
                    parked.remove(&path);
                    gauge!(PARKED, labels_of(&path)).decrement(1.0);
                }
            }
            EventKind::Failed | EventKind::Restarting | EventKind::Probed | EventKind::Abandoned => {}
        }
    }
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

/// The labels of the stream to which the child at `path` belongs; empty ones for what belongs to none.
fn labels_of(path: &str) -> Vec<Label> {
    let mut segments = path.split('/').skip(1);
    match (segments.next(), segments.next(), segments.next()) {
        (Some("tenants"), Some(tenant), Some(stream)) => stream_labels(tenant, stream),
        _ => stream_labels("", ""),
    }
}

fn count(event: &Event) {
    let class = || Label::new("class", event.reason.as_ref().map_or("bug", |reason| reason.class.as_str()));
    let labels = || labels_of(event.path.as_str());
    match event.kind {
        EventKind::Restarting => {
            counter!(RESTARTS_TOTAL, [labels(), vec![class()]].concat()).increment(1);
            let delay = event.delay.unwrap_or_default();
            histogram!(BACKOFF_SECONDS, labels()).record(delay.as_secs_f64());
        }
        EventKind::Restarted => {
            if let Some(recovered) = event.recovered_in {
                histogram!(RECOVERY_SECONDS, labels()).record(recovered.as_secs_f64());
            }
        }
        EventKind::Abandoned => counter!(ABANDONED_TOTAL, labels()).increment(1),
        EventKind::Escalated => counter!(ESCALATIONS_TOTAL, labels()).increment(1),
        EventKind::Started | EventKind::Failed | EventKind::Parked | EventKind::Probed | EventKind::Stopped => {}
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use adapters::contract::SystemClock;
    use supervisors::{ChildPath, Class};

    use super::super::metrics::Metrics;
    use super::super::restarts::Filter;
    use super::*;

    fn event(path: &str, kind: EventKind, message: &str) -> Event {
        let path = path.split('/').skip(1).fold(ChildPath::root("lakefeed"), |path, id| path.join(id));
        let reason = supervisors::Reason { class: Class::Auth, code: "c".to_owned(), message: message.to_owned() };
        Event {
            incident: Some("i".into()),
            path,
            incarnation: 1,
            kind,
            reason: Some(reason),
            strategy: None,
            attempt: 1,
            delay: Some(Duration::from_millis(200)),
            info: None,
            recovered_in: Some(Duration::from_millis(700)),
            because_of: None,
        }
    }

    fn recorder(dir: &std::path::Path) -> Recorder {
        let restarts = RestartLog::open(dir, Arc::new(SystemClock)).expect("opens");
        Recorder::new(Arc::new(restarts), Arc::default())
    }

    fn metric(name: &str) -> Option<String> {
        let text = Metrics::install().expect("installs").render();
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.rsplit(' ').next().map(str::to_owned)
    }

    #[test]
    fn test_recorder_parked_counts_what_is_parked_now_whatever_ends_it() {
        let dir = tempfile::tempdir().expect("folder");
        Metrics::install().expect("installs");
        let recorder = recorder(dir.path());
        let gauge = "lakefeed_parked{tenant=\"t-parked\",stream=\"s\"}";
        let stream = "lakefeed/tenants/t-parked/s";
        let (a, b) = (format!("{stream}/workers/a"), format!("{stream}/workers/b"));
        let steps = [
            (&a, EventKind::Parked, "1"),
            (&b, EventKind::Parked, "2"),
            (&a, EventKind::Probed, "2"),
            (&a, EventKind::Failed, "2"),
            (&a, EventKind::Parked, "2"),
            (&a, EventKind::Restarted, "1"),
            (&a, EventKind::Restarted, "1"),
        ];
        for (path, kind, expected) in steps {
            recorder.record(event(path, kind, "m"));
            assert_eq!(metric(gauge).as_deref(), Some(expected), "{kind:?} {path}");
        }
        recorder.record(event(&format!("{stream}-2"), EventKind::Stopped, "m"));
        assert_eq!(metric(gauge).as_deref(), Some("1"), "a neighbour's end is not its own");
        recorder.record(event(stream, EventKind::Stopped, "m"));
        assert_eq!(metric(gauge).as_deref(), Some("0"), "its supervisor took it along");
    }

    #[test]
    fn test_recorder_measures_back_off_and_recovery() {
        let dir = tempfile::tempdir().expect("folder");
        Metrics::install().expect("installs");
        let recorder = recorder(dir.path());
        for kind in [EventKind::Restarting, EventKind::Restarted, EventKind::Abandoned, EventKind::Escalated] {
            recorder.record(event("lakefeed/tenants/t-times/s/committer", kind, "m"));
        }
        let labels = "{tenant=\"t-times\",stream=\"s\"}";
        for (name, value) in [
            ("backoff_seconds_sum", "0.2"),
            ("recovery_seconds_sum", "0.7"),
            ("abandoned_total", "1"),
            ("escalations_total", "1"),
        ] {
            assert_eq!(metric(&format!("lakefeed_{name}{labels}")).as_deref(), Some(value), "{name}");
        }
        let restarts = "lakefeed_restarts_total{tenant=\"t-times\",stream=\"s\",class=\"auth\"}";
        assert_eq!(metric(restarts).as_deref(), Some("1"));
    }

    #[test]
    fn test_recorder_tells_no_secret() {
        let dir = tempfile::tempdir().expect("folder");
        let recorder = recorder(dir.path());
        recorder.scrubber.learn("canary-4711");
        let told = recorder.record(event("lakefeed/a", EventKind::Failed, "GET /?key=canary-4711 failed"));
        assert_eq!(told.reason.map(|reason| reason.message).as_deref(), Some("GET /?key=*** failed"));
        let (records, _) = recorder.restarts.query(&Filter::default()).expect("reads");
        let text = serde_json::to_string(&records).expect("JSON");
        assert!(text.contains("key=***") && !text.contains("canary"), "{text}");
    }
}
