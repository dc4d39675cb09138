//! From the tree's events to the restart log, the metrics and the log lines.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{Label, counter, gauge, histogram};
use supervisors::{Event, EventKind};
use tokio::time::Instant;

use super::metrics::{
    ABANDONED_TOTAL, BACKOFF_SECONDS, ESCALATIONS_TOTAL, PARKED, RECOVERY_SECONDS, RESTART_WARNINGS_TOTAL,
    RESTARTS_LEFT, RESTARTS_TOTAL, stream_labels,
};
use super::restarts::{Reason, RestartLog, RestartRecord, Window};
use super::secrets::Scrubber;

/// Allowances that are looked after: a storm's worth. What comes beyond it is in the tree and in the log.
const WINDOWS_MAX: usize = 10_000;

/// Takes events over, in all three.
#[derive(Debug)]
pub struct Recorder {
    /// The restart log.
    pub restarts: Arc<RestartLog>,
    scrubber: Arc<Scrubber>,
    /// The paths of what is parked now.
    parked: Mutex<BTreeSet<String>>,
    /// The allowances of restarts of which something was used lately, by the path of the child.
    windows: Mutex<BTreeMap<String, Allowance>>,
}

/// What is left of an allowance of restarts, until all of it is back at the latest.
#[derive(Debug, Clone, Copy)]
struct Allowance {
    used: u32,
    limit: u32,
    until: Instant,
}

impl Recorder {
    /// A recorder of a tree in which nothing is parked.
    #[must_use]
    pub fn new(restarts: Arc<RestartLog>, scrubber: Arc<Scrubber>) -> Self {
        Self { restarts, scrubber, parked: Mutex::default(), windows: Mutex::default() }
    }

    /// Takes an event over; gives it back as it may be told, without secrets.
    pub fn record(&self, mut event: Event) -> Event {
        if let Some(reason) = &mut event.reason {
            self.scrubber.clean(&mut reason.message);
        }
        count(&event);
        self.count_parked(&event);
        self.use_window(&event);
        log(&event);
        self.restarts.append(to_record(&event));
        if let Some(panic) = event.panic.clone() {
            let scrubber = Arc::clone(&self.scrubber);
            let look_up = move || panic.backtrace().map(|text| scrubber.scrub(text).into_owned());
            self.restarts.trace(event.path.as_str(), event.incarnation, look_up);
        }
        event
    }

    fn use_window(&self, event: &Event) {
        let Some(window) = event.window else { return };
        let path = event.path.as_str();
        let used = Allowance { used: window.used, limit: window.limit, until: Instant::now() + window.window };
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() < WINDOWS_MAX || windows.contains_key(path) {
            windows.insert(path.to_owned(), used);
        }
        gauge!(RESTARTS_LEFT, labels_of(path)).set(f64::from(least_left(&windows, stream_of(path))));
    }

    /// Gives allowances back whose time is over. To be called every few seconds.
    pub fn refresh(&self) {
        let now = Instant::now();
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let over: Vec<(String, u32)> = windows
            .iter()
            .filter(|(_, allowance)| allowance.until <= now)
            .map(|(path, allowance)| (path.clone(), allowance.limit))
            .collect();
        for (path, limit) in over {
            windows.remove(&path);
            let left = least_left(&windows, stream_of(&path)).min(limit);
            gauge!(RESTARTS_LEFT, labels_of(&path)).set(f64::from(left));
        }
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
        window: event.window.map(|window| Window { used: window.used, limit: window.limit }),
        flap_score: event.flap.map(|flap| flap.score),
        stop: event.stop.as_ref().and_then(|stop| serde_json::to_value(stop).ok()),
        because_of: event.because_of.as_ref().map(|path| path.as_str().to_owned()),
        ..RestartRecord::default()
    }
}

/// The path up to the stream, or all of it where it belongs to none.
fn stream_of(path: &str) -> &str {
    let end = path.match_indices('/').nth(3).map_or(path.len(), |(at, _)| at);
    if path.starts_with("lakefeed/tenants/") { &path[..end] } else { path }
}

/// The least that is left of any allowance at or below `stream`.
fn least_left(windows: &BTreeMap<String, Allowance>, stream: &str) -> u32 {
    let below = format!("{stream}/");
    windows
        .range(stream.to_owned()..)
        .take_while(|(path, _)| path.starts_with(stream))
        .filter(|(path, _)| *path == stream || path.starts_with(&below))
        .map(|(_, allowance)| allowance.limit.saturating_sub(allowance.used))
        .min()
        .unwrap_or(u32::MAX)
}

/// The labels of the stream to which the child at `path` belongs; empty ones for what belongs to none.
fn labels_of(path: &str) -> Vec<Label> {
    let mut segments = path.split('/').skip(1);
    match (segments.next(), segments.next(), segments.next()) {
        (Some("tenants"), Some(tenant), Some(stream)) => stream_labels(tenant, stream),
        _ => stream_labels("", ""),
    }
}

/// Half of the allowance of restarts is used, since this one.
fn warns(event: &Event) -> bool {
    event.window.is_some_and(|window| window.warning)
}

/// The child counts as flapping, since this restart.
fn flaps(event: &Event) -> bool {
    event.flap.is_some_and(|flap| flap.alert)
}

fn count(event: &Event) {
    let class = || Label::new("class", event.reason.as_ref().map_or("bug", |reason| reason.class.as_str()));
    let labels = || labels_of(event.path.as_str());
    match event.kind {
        EventKind::Restarting => {
            counter!(RESTARTS_TOTAL, [labels(), vec![class()]].concat()).increment(1);
            let delay = event.delay.unwrap_or_default();
            histogram!(BACKOFF_SECONDS, labels()).record(delay.as_secs_f64());
            let kinds = [("window", warns(event)), ("flapping", flaps(event))];
            for (kind, _) in kinds.into_iter().filter(|(_, warned)| *warned) {
                counter!(RESTART_WARNINGS_TOTAL, [labels(), vec![Label::new("kind", kind)]].concat()).increment(1);
            }
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
        EventKind::Restarting if flaps(event) => {
            let score = event.flap.map_or(0.0, |flap| flap.score);
            tracing::error!(path, incident, class, code, message, score, "restarting; it is flapping");
        }
        EventKind::Restarting if warns(event) => {
            let (used, limit) = event.window.map_or((0, 0), |window| (window.used, window.limit));
            tracing::warn!(
                path,
                incident,
                class,
                code,
                message,
                used,
                limit,
                "restarting; half of its restarts are used"
            );
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
    use supervisors::{ChildPath, Class, FlapUse, WindowUse};

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
            wait: None,
            paced: None,
            window: None,
            flap: None,
            panic: None,
            stop: None,
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

    #[tokio::test(start_paused = true)]
    async fn test_recorder_tells_what_is_left_of_the_restarts_and_warns() {
        let dir = tempfile::tempdir().expect("folder");
        Metrics::install().expect("installs");
        let recorder = recorder(dir.path());
        let left = "lakefeed_restarts_left{tenant=\"t-left\",stream=\"s\"}";
        let restart = |worker: &str, used: u32| {
            let window = WindowUse { used, limit: 5, window: Duration::from_secs(30), warning: used == 3 };
            let path = format!("lakefeed/tenants/t-left/s/workers/{worker}");
            let flap = Some(FlapUse { score: 6.9, flapping: true, alert: used == 4 });
            recorder.record(Event { window: Some(window), flap, ..event(&path, EventKind::Restarting, "m") });
        };
        for (worker, used, expected) in [("a", 1, "4"), ("b", 3, "2"), ("a", 2, "2"), ("b", 4, "1")] {
            restart(worker, used);
            assert_eq!(metric(left).as_deref(), Some(expected), "{worker} {used}");
        }
        tokio::time::advance(Duration::from_secs(20)).await;
        restart("a", 1);
        tokio::time::advance(Duration::from_secs(11)).await;
        recorder.refresh();
        assert_eq!(metric(left).as_deref(), Some("4"), "what b has used is forgotten");
        tokio::time::advance(Duration::from_secs(30)).await;
        recorder.refresh();
        assert_eq!(metric(left).as_deref(), Some("5"));
        for kind in ["window", "flapping"] {
            let warnings = format!("lakefeed_restart_warnings_total{{tenant=\"t-left\",stream=\"s\",kind=\"{kind}\"}}");
            assert_eq!(metric(&warnings).as_deref(), Some("1"), "{kind}");
        }
        let (records, _) = recorder.restarts.query(&Filter::default()).expect("reads");
        assert_eq!(records[0].window, Some(Window { used: 1, limit: 5 }));
        assert_eq!(records[0].flap_score, Some(6.9));
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
