//! `panic = "unwind"` in the built binary: a panicking worker is one child's failure.

use crate::support::lab::assert_sound;
use crate::support::{ENDLESS, Lab, Synthetic};

#[tokio::test]
async fn test_panic_of_a_worker_restarts_it_and_nothing_else() {
    let stream = Synthetic { seed: 4, partitions: 2, total: ENDLESS, rate: 400 };
    let lab = Lab::new(&stream.config());
    let mut node = lab.start_with(&[("LAKEFEED_CRASH", "worker.pulled:9:panic")]);
    node.live().await;
    node.restart_where("restart", |line| line["event"] == "restarted").await;
    assert!(node.log().contains("crash point worker.pulled fired"));
    assert_sound(&stream.fresh(&lab).await, "a panicking worker");
    let failed: Vec<_> = node.restarts().await.into_iter().filter(|line| line["event"] == "failed").collect();
    assert_eq!(failed.len(), 1, "{failed:#?}");
    assert!(failed[0]["path"].as_str().unwrap().starts_with("lakefeed/tenants/acme/syn/workers/"), "{failed:?}");
    assert_eq!(failed[0]["reason"]["class"], "bug");
    let restarted = node.restart_where("restart", |line| line["event"] == "restarted").await;
    assert_eq!(restarted["incident"], failed[0]["incident"]);
    assert!(restarted["recovered_in_ms"].is_number(), "{restarted}");
    // The names of the calls are looked up beside the restart.
    let told = node.restart_where("backtrace", |line| line["backtrace"].is_string()).await;
    let backtrace = told["backtrace"].as_str().unwrap();
    assert!(backtrace.contains("worker") && backtrace.contains("src/"), "{backtrace}");
    assert!(!backtrace.contains(env!("CARGO_MANIFEST_DIR")) && !backtrace.contains(".cargo/"), "{backtrace}");
    assert_eq!(told["incarnation"], failed[0]["incarnation"]);
    let (_, story) = node.get(&format!("/v1/incidents/{}", failed[0]["incident"].as_str().unwrap())).await;
    assert_eq!(story["cause"]["backtrace"], told["backtrace"]);
    assert_eq!(node.terminate().await, Some(0));
}

#[test]
fn test_panic_unwinds_in_every_profile() {
    let manifest = include_str!("../Cargo.toml");
    for profile in ["[profile.dev]", "[profile.release]"] {
        let section = manifest.split(profile).nth(1).and_then(|rest| rest.split("\n[").next()).unwrap();
        assert!(section.contains("panic = \"unwind\""), "{profile}");
    }
    assert!(!manifest.contains("\"abort\""));
}
