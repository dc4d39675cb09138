//! A node whose lake is away.

use serde_json::json;

use crate::support::lab::free_address;
use crate::support::{Lab, PATIENCE, Synthetic, wait_for};

const STREAM: Synthetic = Synthetic { seed: 1, partitions: 1, total: 100, rate: 100 };

#[tokio::test]
async fn test_nothing_is_promised_before_the_desired_states_are_read_and_sigterm_is_heard() {
    let options = format!(
        "{{ endpoint = \"http://{}\", region = \"us-east-1\", access_key_id = \"id\", secret_access_key = \"none\" }}",
        free_address()
    );
    let lab = Lab::on_store(&STREAM.config(), "s3://bucket/prefix", &options);
    let mut node = lab.start();
    node.live().await;
    let data = json!({"adapter": "SYN", "tenant": "acme", "stream": "syn"});
    for pattern in ["worker:stop", "worker:start", "worker:status", "worker:interrupt"] {
        let (status, answer) = node.message(pattern, data.clone()).await;
        assert_eq!((status, answer["code"].as_str()), (409, Some("recovering")), "{pattern}: {answer}");
    }
    let waits = wait_for("the reason", PATIENCE, async || {
        let (status, answer) = node.get("/health/ready").await;
        assert_eq!(status, 503);
        answer["detail"]["waits_for"].as_str().map(str::to_owned)
    });
    assert!(waits.await.starts_with("lake_"));
    assert_eq!(node.terminate().await, Some(0), "{}", node.log());
}
