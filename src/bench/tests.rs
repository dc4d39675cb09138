//! Every benchmark in small. What is asserted is that it measures the right thing, never how fast it was.

use serde_json::Value;

use super::*;

fn keys(report: &impl Serialize) -> Vec<String> {
    let value = serde_json::to_value(report).expect("JSON");
    value.as_object().expect("an object").keys().cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn test_ingest_gives_what_the_interface_says() {
    let options = IngestOptions { records: 4000, record_bytes: 250, partitions: 2, rounds: 1, place: None };
    let report = ingest(&options).await.expect("measured");
    assert_eq!((report.records, report.record_bytes), (6144, 250));
    assert!(report.bare.records_per_s > 0.0 && report.raw_off.ratio_wall > 0.0 && report.raw_keep.ratio_wall > 0.0);
    for key in ["bench", "records", "record_bytes", "bare", "raw_off", "raw_keep"] {
        assert!(keys(&report).contains(&key.to_owned()), "{key}");
    }
    for side in [&report.raw_off, &report.raw_keep] {
        let mut found = keys(side);
        found.sort();
        assert_eq!(found, ["cpu_s", "ratio_cpu", "ratio_wall", "records_per_s"]);
    }
    assert!(report.to_string().contains("raw keep"));
}

#[tokio::test(flavor = "multi_thread")]
async fn test_polls_are_counted_and_keep_their_promises() {
    let options = PollsOptions { partitions: 40, factor: 60, beats: 4 };
    let report = polls(&options).await.expect("measured");
    // Each partition at least once; how many of its beats a busy machine skips is its own affair.
    assert!(report.polls >= 40, "{report:?}");
    assert_eq!((report.overlaps, report.in_retry_after), (0, 0), "{report:?}");
    let found = keys(&report);
    for key in [
        "bench",
        "partitions",
        "interval_s",
        "start_lag_ms_p50",
        "start_lag_ms_p99",
        "overlaps",
        "in_retry_after",
        "cpu_s",
    ] {
        assert!(found.contains(&key.to_owned()), "{key}");
    }
    assert!(report.to_string().contains("40 partitions"));
}

#[tokio::test(flavor = "multi_thread")]
async fn test_memory_presses_on_the_lake_and_loses_nothing() {
    let second = std::time::Duration::from_secs(1);
    let options = MemoryOptions { duration: second, stalled: second, workers: 0, program: PathBuf::new() };
    let report = memory(&options).await.expect("measured");
    assert!(report.pressure >= 50.0, "{report:?}");
    assert!(report.rss_mib_max >= report.rss_mib_stalled && report.rss_mib_stalled > 1.0 && report.bound_mib > 1.0);
    assert_eq!(serde_json::to_value(&report).expect("JSON")["idle_worker_bytes"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn test_streams_are_counted_and_lose_nothing() {
    let options = StreamsOptions { streams: 3, duration: std::time::Duration::from_secs(3), raw: true };
    let report = streams(&options).await.expect("measured");
    assert!(report.commits_per_s > 0.0 && report.lag_ms_p99 >= report.lag_ms_p50, "{report:?}");
    // Raw segment, data file, record, log entry.
    assert!(report.puts_per_commit >= 4.0, "{report:?}");
    let found = keys(&report);
    for key in ["bench", "streams", "commits_per_s", "lag_ms_p50", "lag_ms_p99", "cpu", "puts_per_commit"] {
        assert!(found.contains(&key.to_owned()), "{key}");
    }
    assert!(report.to_string().contains("3 streams"));
}

#[test]
fn test_results_are_one_json_document_or_lines_and_an_exit_code() {
    #[derive(Serialize)]
    struct Report {
        bench: &'static str,
    }
    impl Display for Report {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("for people")
        }
    }
    let mut out = Vec::new();
    assert_eq!(print(&Report { bench: "x" }, true, true, &mut out).expect("printed"), exit::DONE);
    assert_eq!(print(&Report { bench: "x" }, false, false, &mut out).expect("printed"), exit::FAILED);
    assert_eq!(String::from_utf8_lossy(&out), "{\"bench\":\"x\"}\nfor people\n");
}
