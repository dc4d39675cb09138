//! Metric names of interface §5, and the recorder that `GET /metrics` shows.

use std::collections::HashSet;
use std::sync::{Mutex, OnceLock, PoisonError};

use metrics::{Label, Unit, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use thiserror::Error;

/// Records by `tenant, stream, result` (`committed`, `dead`).
pub const RECORDS_TOTAL: &str = "lakefeed_records_total";
/// Payload bytes that were committed, by `tenant, stream`.
pub const BYTES_TOTAL: &str = "lakefeed_bytes_total";
/// Committed epochs by `tenant, stream`.
pub const EPOCHS_TOTAL: &str = "lakefeed_epochs_total";
/// From the close of an epoch to its commit, by `tenant, stream`.
pub const COMMIT_SECONDS: &str = "lakefeed_commit_seconds";
/// Now − newest committed event time, by `tenant, stream`.
pub const LAG_SECONDS: &str = "lakefeed_lag_seconds";
/// Restarts by `tenant, stream, class`.
pub const RESTARTS_TOTAL: &str = "lakefeed_restarts_total";
/// Children that are parked now, by `tenant, stream`.
pub const PARKED: &str = "lakefeed_parked";
/// From the end of a child until it ran again, by `tenant, stream`.
pub const RECOVERY_SECONDS: &str = "lakefeed_recovery_seconds";
/// Delays of restarts, by `tenant, stream`.
pub const BACKOFF_SECONDS: &str = "lakefeed_backoff_seconds";
/// The least that any child of the stream has left of its restarts, by `tenant, stream`; from its first restart on.
pub const RESTARTS_LEFT: &str = "lakefeed_restarts_left";
/// Restarts by which half of an allowance was used, or a child began to flap, by `tenant, stream, kind`.
pub const RESTART_WARNINGS_TOTAL: &str = "lakefeed_restart_warnings_total";
/// Children that could not be killed and were left behind, by `tenant, stream`.
pub const ABANDONED_TOTAL: &str = "lakefeed_abandoned_total";
/// Supervisors that gave up because their restarts were used up, by `tenant, stream`.
pub const ESCALATIONS_TOTAL: &str = "lakefeed_escalations_total";
/// Dead letters by `tenant, stream, code`.
pub const DEAD_LETTERS_TOTAL: &str = "lakefeed_dead_letters_total";
/// Published references by `tenant, stream, sink`.
pub const REFERENCES_TOTAL: &str = "lakefeed_references_total";
/// Workloads by `tenant, stream, outcome`.
pub const POLL_SECONDS: &str = "lakefeed_poll_seconds";
/// Bytes between sources and lake, by `tenant, stream`.
pub const QUEUE_BYTES: &str = "lakefeed_queue_bytes";
/// 1, with the label `version`.
pub const BUILD_INFO: &str = "lakefeed_build_info";
/// Records of the restart log that could not be written to disk.
pub const RESTART_LOG_FAILURES_TOTAL: &str = "lakefeed_restart_log_failures_total";
/// 1 while a stream as a whole waits, mostly for its lake, by `tenant, stream`.
pub const WAITING: &str = "lakefeed_waiting";
/// Requests that the lake's store failed or did not answer in time.
pub const LAKE_FAILURES_TOTAL: &str = "lakefeed_lake_failures_total";
/// 1 while the lake's store fails and is given a rest, else 0.
pub const LAKE_CIRCUIT_OPEN: &str = "lakefeed_lake_circuit_open";
/// Requests to the API by `method, status`.
pub const API_REQUESTS_TOTAL: &str = "lakefeed_api_requests_total";

/// Streams that get labels of their own; those that come later share [`OTHER`]. Each stream costs some twenty series
/// of about 200 bytes in every scrape, so this bounds a scrape at a few MiB whatever tenants create.
pub const STREAM_LABELS_MAX: usize = 1_000;

/// Values of `code` and similar labels that come from outside; beyond it [`OTHER`].
pub const CODE_LABELS_MAX: usize = 200;

/// The label of all that came after the bound was reached.
pub const OTHER: &str = "other";

/// Upper bounds of the histograms' buckets, s: from a local commit to a poll that hangs until its deadline.
const BUCKETS_S: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The recorder could not be set up.
#[derive(Debug, Error)]
#[error("the metrics recorder could not be installed")]
pub struct MetricsError(#[source] metrics_exporter_prometheus::BuildError);

/// The recorder's readable side.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Installs the process's recorder, or hands out the one that this function installed before.
    ///
    /// # Errors
    /// Where another recorder is installed already.
    pub fn install() -> Result<Self, MetricsError> {
        static INSTALLED: Mutex<Option<Metrics>> = Mutex::new(None);
        let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(metrics) = installed.as_ref() {
            return Ok(metrics.clone());
        }
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS_S)
            .map_err(MetricsError)?
            .install_recorder()
            .map_err(MetricsError)?;
        describe();
        gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        Ok(installed.insert(Self(handle)).clone())
    }

    /// All metrics in the Prometheus text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Folds samples of histograms together; without it they pile up between scrapes. To be called every few seconds.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }
}

fn describe() {
    describe_counter!(RECORDS_TOTAL, Unit::Count, "Records taken over, by result (committed, dead)");
    describe_counter!(BYTES_TOTAL, Unit::Bytes, "Payload bytes committed");
    describe_counter!(EPOCHS_TOTAL, Unit::Count, "Epochs committed");
    describe_histogram!(COMMIT_SECONDS, Unit::Seconds, "From the close of an epoch to its commit");
    describe_gauge!(LAG_SECONDS, Unit::Seconds, "Now minus the newest committed event time");
    describe_counter!(RESTARTS_TOTAL, Unit::Count, "Restarts of supervised children, by class of the failure");
    describe_gauge!(PARKED, Unit::Count, "Children that are parked: alert on anything above 0");
    describe_histogram!(RECOVERY_SECONDS, Unit::Seconds, "From the end of a child until it ran again");
    describe_histogram!(BACKOFF_SECONDS, Unit::Seconds, "Delays of restarts");
    describe_counter!(
        ABANDONED_TOTAL,
        Unit::Count,
        "Children that could not be killed: alert on any, a thread is lost"
    );
    describe_gauge!(RESTARTS_LEFT, Unit::Count, "The least that a child of the stream has left of its restarts");
    describe_counter!(
        RESTART_WARNINGS_TOTAL,
        Unit::Count,
        "Children with half of their restarts used, or flapping, by kind"
    );
    describe_counter!(ESCALATIONS_TOTAL, Unit::Count, "Supervisors that gave up because their restarts were used up");
    describe_counter!(DEAD_LETTERS_TOTAL, Unit::Count, "Records that became dead letters, by code");
    describe_counter!(REFERENCES_TOTAL, Unit::Count, "References published, by sink");
    describe_histogram!(POLL_SECONDS, Unit::Seconds, "Workloads with their retries, by outcome");
    describe_gauge!(QUEUE_BYTES, Unit::Bytes, "Bytes held between source and lake");
    describe_gauge!(
        WAITING,
        Unit::Count,
        "1 while a stream as a whole waits, mostly for its lake, whose log lines say why: alert on 1 for minutes"
    );
    describe_counter!(
        LAKE_FAILURES_TOTAL,
        Unit::Count,
        "Requests that the lake's store failed or did not answer in time; each is made again"
    );
    describe_gauge!(
        LAKE_CIRCUIT_OPEN,
        Unit::Count,
        "1 while the lake's store fails and one request at a time asks it: alert on 1 for minutes"
    );
    describe_gauge!(BUILD_INFO, Unit::Count, "1; the label tells the version");
    describe_counter!(RESTART_LOG_FAILURES_TOTAL, Unit::Count, "Writes of the restart log that the disk refused");
    describe_counter!(API_REQUESTS_TOTAL, Unit::Count, "Requests to the API, by method and status");
}

/// Values that have labels of their own, first come first served.
#[derive(Debug)]
struct Known {
    max: usize,
    seen: Mutex<HashSet<String>>,
}

impl Known {
    fn new(max: usize) -> Self {
        Self { max, seen: Mutex::new(HashSet::new()) }
    }

    fn admits(&self, value: &str) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.contains(value) || (seen.len() < self.max && seen.insert(value.to_owned()))
    }
}

/// The labels `tenant, stream`, or `other, other` for streams beyond [`STREAM_LABELS_MAX`]. Takes a lock: hold on to
/// the metric's handle on hot paths.
#[must_use]
pub fn stream_labels(tenant: &str, stream: &str) -> Vec<Label> {
    static STREAMS: OnceLock<Known> = OnceLock::new();
    let known = STREAMS.get_or_init(|| Known::new(STREAM_LABELS_MAX));
    if known.admits(&format!("{tenant}/{stream}")) {
        vec![Label::new("tenant", tenant.to_owned()), Label::new("stream", stream.to_owned())]
    } else {
        vec![Label::new("tenant", OTHER), Label::new("stream", OTHER)]
    }
}

/// `code` as the value of a label, or [`OTHER`] beyond [`CODE_LABELS_MAX`] different ones.
#[must_use]
pub fn code_label(code: &str) -> String {
    static CODES: OnceLock<Known> = OnceLock::new();
    let known = CODES.get_or_init(|| Known::new(CODE_LABELS_MAX));
    if known.admits(code) { code.to_owned() } else { OTHER.to_owned() }
}

#[cfg(test)]
mod tests {
    use metrics::{counter, histogram};

    use super::*;

    #[test]
    fn test_metrics_show_names_texts_and_buckets() {
        let metrics = Metrics::install().expect("first");
        assert!(Metrics::install().is_ok(), "a second call hands out the same recorder");
        let mut labels = stream_labels("acme", "berlin");
        labels.push(Label::new("result", "committed"));
        counter!(RECORDS_TOTAL, labels).increment(3);
        histogram!(COMMIT_SECONDS, stream_labels("acme", "berlin")).record(0.02);
        metrics.upkeep();
        let text = metrics.render();
        assert!(
            text.contains(r#"lakefeed_records_total{tenant="acme",stream="berlin",result="committed"} 3"#),
            "{text}"
        );
        assert!(
            text.contains(r#"lakefeed_commit_seconds_bucket{tenant="acme",stream="berlin",le="0.025"} 1"#),
            "{text}"
        );
        assert!(text.contains("# TYPE lakefeed_commit_seconds histogram"), "{text}");
        assert!(text.contains("# HELP lakefeed_build_info"), "{text}");
    }

    #[test]
    fn test_metrics_labels_are_bounded() {
        let known = Known::new(2);
        assert!(known.admits("a") && known.admits("b") && !known.admits("c") && known.admits("a"));
    }
}
