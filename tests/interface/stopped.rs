//! What a stopped or paused stream says of itself, also after the state directory was lost.

use serde_json::{Value, json};

use crate::support::{ENDLESS, Lab, Node, PATIENCE, Synthetic, wait_for};

const STREAM: Synthetic = Synthetic { seed: 3, partitions: 2, total: ENDLESS, rate: 200 };

/// What is told once all `epochs` are: the committer of a paused stream and its announcer take a moment to come up.
async fn facts(node: &Node, epochs: u64) -> Vec<Value> {
    let path = format!("/v1/streams/{}", Synthetic::STREAM);
    node.status_until(Synthetic::STREAM, "read back", |status| status["epoch"] == epochs).await;
    wait_for("all references", PATIENCE, async || {
        (node.references(Synthetic::STREAM).await.len() as u64 >= epochs).then_some(())
    })
    .await;
    let mut view = node.get(&path).await.1;
    view["lag_seconds"] = Value::Null;
    let listed = node.get("/v1/streams").await.1["streams"][0]["epoch"].clone();
    let references = json!(node.references(Synthetic::STREAM).await);
    vec![view, listed, references, node.get(&format!("{path}/checkpoint")).await.1]
}

#[tokio::test]
async fn test_stopped_stream_knows_its_epochs_and_references_without_its_state() {
    for verb in ["stop", "pause"] {
        let lab = Lab::new(&STREAM.config());
        let mut node = lab.start();
        node.ready().await;
        lab.epoch_after(Synthetic::STREAM, 3).await;
        assert_eq!(node.send("PUT", &format!("/v1/streams/{}/{verb}", Synthetic::STREAM), &json!({})).await.0, 202);
        // A pause keeps the committer, which commits what it has.
        assert_eq!(node.terminate().await, Some(0));
        let epoch = lab.epoch(Synthetic::STREAM);
        let mut node = lab.start();
        node.ready().await;
        let before = facts(&node, epoch).await;
        node.kill();
        std::fs::remove_dir_all(lab.state()).unwrap();
        let mut node = lab.start();
        node.ready().await;
        assert_eq!(facts(&node, epoch).await, before, "{verb}");
        assert_eq!((&before[0]["epoch"], &before[1]), (&json!(epoch), &json!(epoch)), "{verb}");
        assert_eq!(before[2].as_array().map(Vec::len), Some(epoch as usize), "{verb}");
    }
}

#[tokio::test]
async fn test_a_message_outlives_the_configuration_that_said_the_same() {
    let lab = Lab::new(&STREAM.config());
    let mut node = lab.start();
    node.ready().await;
    let data = json!({"adapter": "SYN", "tenant": "acme", "stream": "syn"});
    assert_eq!(node.message("worker:start", data).await.0, 200);
    let epoch = lab.epoch(Synthetic::STREAM);
    assert!(lab.lake().join("control/streams/acme/syn/00000000000000000001.json").is_file());
    node.kill();
    let without = STREAM.config().replace("[stream.\"acme/syn\"]\nadapter = \"SYN\"\n", "");
    let lab = Lab::beside(&lab, &without);
    let mut node = lab.start();
    node.ready().await;
    lab.epoch_after(Synthetic::STREAM, epoch).await;
}
