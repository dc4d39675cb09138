//! Keys of the lake that change while the node runs: a server that knows the new ones only, files that say them later.

use std::fs;

use serde_json::{Value, json};

use super::{back, ends_sound, logged, nothing_failed};
use crate::support::cli::printed;
use crate::support::servers::{ACCESS_KEY, S3, SECRET_KEY, minio, versitygw};
use crate::support::{PATIENCE, Synthetic, wait_for};

const STREAM: Synthetic = Synthetic { seed: 61, partitions: 1, total: 1_000_000, rate: 60 };
const NEW_ACCESS: &str = "rotated-access";
const NEW_SECRET: &str = "rotated-secret-canary";

/// Files that hold a key of the lake and its secret.
struct Files {
    home: tempfile::TempDir,
}

impl Files {
    fn new(key: &str, word: &str) -> Self {
        let files = Self { home: tempfile::tempdir().unwrap() };
        files.write(key, word);
        files
    }

    fn write(&self, key: &str, word: &str) {
        fs::write(self.home.path().join("access"), format!("{key}\n")).unwrap();
        fs::write(self.home.path().join("secret"), format!("{word}\n")).unwrap();
    }

    fn references(&self) -> [String; 2] {
        ["access", "secret"].map(|name| format!("\"file:{}\"", self.home.path().join(name).display()))
    }
}

/// A node that starts with a key that the lake refuses can be looked at, says why it is not ready, and comes up when
/// the key is mended where it is referred to. So does a stream whose lake is away: both name what they wait for.
#[tokio::test]
async fn test_node_whose_key_is_refused_at_its_start_says_so_and_comes_up_with_the_right_one() {
    let Some(mut server) = versitygw().await else { return };
    let files = Files::new("nobody-knows-this", "nor-this-secret-canary");
    let [access, secret] = files.references();
    let lab = server.lab_with(&STREAM.config(), &server.endpoint(), &access, &secret);
    // In a hurry, a committer that says nothing for ten seconds counts as hung. One that waits for its lake does not.
    let mut node = lab.start_with(&[("LAKEFEED_HURRY", "1")]);
    node.live().await;
    let waits = wait_for("the reason", PATIENCE, async || {
        let (status, answer) = node.get("/health/ready").await;
        assert_eq!(status, 503, "{answer}");
        answer["detail"]["waits_for"].as_str().map(str::to_owned)
    });
    assert!(waits.await.starts_with("lake_denied"));
    let (status, answer) =
        node.message("worker:status", json!({"adapter": "SYN", "tenant": "acme", "stream": "syn"})).await;
    assert_eq!((status, answer["code"].as_str()), (409, Some("recovering")), "{answer}");
    files.write(ACCESS_KEY, SECRET_KEY);
    node.ready().await;
    let epoch = lab.epoch_after(Synthetic::STREAM, 1).await;
    assert_eq!(node.status(Synthetic::STREAM).await["waits_for"], Value::Null);
    server.kill();
    let named = |status: &Value| status["waits_for"].as_str().is_some_and(|why| why.starts_with("lake_"));
    let status = node.status_until(Synthetic::STREAM, "what it waits for", named).await;
    assert_eq!(node.get(&format!("/v1/streams/{}", Synthetic::STREAM)).await.1["waits_for"], status["waits_for"]);
    let table = printed(&node, &["status"]).await;
    assert!(table.contains("WAITS FOR") && table.contains("lake_"), "{table}");
    server.start_again().await;
    lab.epoch_after(Synthetic::STREAM, epoch + 2).await;
    node.status_until(Synthetic::STREAM, "nothing to wait for", |status| status["waits_for"].is_null()).await;
    nothing_failed(&node).await;
    ends_sound(&lab, &STREAM, &mut node, "a key that was mended").await;
    assert!(!node.log().contains("canary"), "a secret is in the log");
}

#[tokio::test]
async fn test_credentials_in_files_are_followed_when_versitygw_refuses_the_old_ones() {
    let Some(server) = versitygw().await else { return };
    rotated(server).await;
}

#[tokio::test]
async fn test_credentials_in_files_are_followed_when_minio_refuses_the_old_ones() {
    let Some(server) = minio().await else { return };
    rotated(server).await;
}

async fn rotated(mut server: S3) {
    let files = Files::new(ACCESS_KEY, SECRET_KEY);
    let [access, secret] = files.references();
    let lab = server.lab_with(&STREAM.config(), &server.endpoint(), &access, &secret);
    // At its most talkative: what the libraries say counts, too.
    let mut node = lab.start_with(&[("LAKEFEED_LOG", "trace")]);
    lab.epoch_after(Synthetic::STREAM, 1).await;
    server.kill();
    server.change_keys(NEW_ACCESS, NEW_SECRET);
    server.start_again().await;
    logged("lake_denied", &node).await;
    files.write(NEW_ACCESS, NEW_SECRET);
    back(&lab, &node, "keys that were changed").await;
    assert!(node.log().contains("lake_credentials_renewed"), "{}", node.log());
    nothing_failed(&node).await;
    ends_sound(&lab, &STREAM, &mut node, "rotated keys").await;
    for word in [ACCESS_KEY, SECRET_KEY, NEW_ACCESS, NEW_SECRET] {
        assert!(!node.log().contains(word), "{word} is in the log");
    }
}
