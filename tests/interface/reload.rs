//! SIGHUP.

use std::fs;

use tempfile::TempDir;

use crate::support::scripted::{Answer, Scripted};
use crate::support::{Lab, PATIENCE, wait_for};

#[tokio::test]
async fn test_hangup_takes_over_a_rotated_secret() {
    let folder = TempDir::new().unwrap();
    let key = folder.path().join("key");
    fs::write(&key, "first-token").unwrap();
    let source = Scripted::start(Answer::record(1)).await;
    let auth = format!("auth = {{ type = \"bearer\", token = {:?} }}", format!("file:{}", key.display()));
    let lab = Lab::new(&source.config(&auth));
    let mut node = lab.start();
    node.ready().await;
    assert_eq!(source.asked_after(0).await.headers["authorization"], "Bearer first-token");
    fs::write(&key, "second-token").unwrap();
    node.signal("HUP");
    wait_for("the second token", PATIENCE, async || {
        source.asked().last().filter(|asked| asked.headers["authorization"] == "Bearer second-token").map(|_| ())
    })
    .await;
}
