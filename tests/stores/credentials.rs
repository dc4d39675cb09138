//! Keys of the lake that change while the node runs: a server that knows the new ones only, files that say them later.

use std::fs;

use super::{back, ends_sound, logged, nothing_failed};
use crate::support::Synthetic;
use crate::support::servers::{ACCESS_KEY, S3, SECRET_KEY, minio, versitygw};

const STREAM: Synthetic = Synthetic { seed: 61, partitions: 1, total: 1_000_000, rate: 60 };
const NEW_ACCESS: &str = "rotated-access";
const NEW_SECRET: &str = "rotated-secret-canary";

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
    let home = tempfile::tempdir().unwrap();
    let (access, secret) = (home.path().join("access"), home.path().join("secret"));
    let write = |key: &str, word: &str| {
        fs::write(&access, format!("{key}\n")).unwrap();
        fs::write(&secret, format!("{word}\n")).unwrap();
    };
    write(ACCESS_KEY, SECRET_KEY);
    let reference = |path: &std::path::Path| format!("\"file:{}\"", path.display());
    let lab = server.lab_with(&STREAM.config(), &server.endpoint(), &reference(&access), &reference(&secret));
    // At its most talkative: what the libraries say counts, too.
    let mut node = lab.start_with(&[("LAKEFEED_LOG", "trace")]);
    lab.epoch_after(Synthetic::STREAM, 1).await;
    server.kill();
    server.change_keys(NEW_ACCESS, NEW_SECRET);
    server.start_again().await;
    logged("lake_denied", &node).await;
    write(NEW_ACCESS, NEW_SECRET);
    back(&lab, &node, "keys that were changed").await;
    assert!(node.log().contains("lake_credentials_renewed"), "{}", node.log());
    nothing_failed(&node).await;
    ends_sound(&lab, &STREAM, &mut node, "rotated keys").await;
    for word in [ACCESS_KEY, SECRET_KEY, NEW_ACCESS, NEW_SECRET] {
        assert!(!node.log().contains(word), "{word} is in the log");
    }
}
