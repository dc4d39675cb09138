//! The benchmarks that run the built binary, in small.

use std::path::PathBuf;
use std::time::Duration;

use lakefeed::bench::{MemoryOptions, RecoveryOptions, memory, recovery};

fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_lakefeed"))
}

#[tokio::test(flavor = "multi_thread")]
async fn test_bench_recovery_kills_and_loses_nothing() {
    let report = recovery(&RecoveryOptions { kills: 3, streams: 20, program: program() }).await.unwrap();
    assert_eq!((report.kills, report.missing, report.doubled), (3, 0, 0));
    assert!(report.ms_p50 > 0.0 && report.ms_p99 >= report.ms_p50);
    let many = report.many.as_ref().unwrap();
    assert!(many.ready_ms >= many.api_up_ms && many.ready_again_ms >= many.api_up_again_ms, "{many:?}");
    let json = serde_json::to_value(&report).unwrap();
    for key in ["bench", "kills", "ms_p50", "ms_p99", "missing", "doubled", "streams", "api_up_ms", "ready_ms"] {
        assert!(!json[key].is_null(), "{key}");
    }
    assert!(report.to_string().contains("20 streams"));
}

#[tokio::test(flavor = "multi_thread")]
async fn test_bench_memory_tells_what_an_idle_worker_takes() {
    let moment = Duration::from_millis(200);
    let options = MemoryOptions { duration: moment, stalled: moment, workers: 200, program: program() };
    let report = memory(&options).await.unwrap();
    assert!(report.idle_worker_bytes.is_some(), "{report:?}");
}
