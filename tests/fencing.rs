//! Two processes on one lake: the older owner is fenced, says so, and commits nothing more (G5).

use crate::support::lab::assert_sound;
use crate::support::{ENDLESS, Lab, PATIENCE, Synthetic, wait_for};

const STREAM: Synthetic = Synthetic { seed: 5, partitions: 2, total: ENDLESS, rate: 300 };

fn is_fenced(line: &serde_json::Value) -> bool {
    line["reason"]["class"] == "fenced"
}

#[tokio::test]
async fn test_fencing_older_owner_is_fenced_and_says_so() {
    let old_lab = Lab::new(&STREAM.config());
    let new_lab = Lab::beside(&old_lab, &STREAM.config());
    let mut old = old_lab.start();
    old.ready().await;
    let before = old_lab.epoch_after(Synthetic::STREAM, 1).await;

    let mut new = new_lab.start();
    new.ready().await;
    let line = old.restart_where("fenced child", is_fenced).await;
    assert!(line["path"].as_str().is_some_and(|path| path.contains("acme/syn")), "{line}");
    assert!(line["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{line}");

    let verdict = STREAM.fresh(&new_lab).await;
    assert_sound(&verdict, "two owners");
    assert!(verdict.epochs > before);
    assert!(!new.restarts().await.iter().any(is_fenced), "the owners claim it from each other in turn");
    // At rest, so that what is published can be compared with what is committed.
    let data = serde_json::json!({"adapter": "SYN", "tenant": "acme", "stream": "syn"});
    assert_eq!(new.message("worker:stop", data).await.0, 200);
    wait_for("all references", PATIENCE, async || {
        let published = new.references(Synthetic::STREAM).await;
        let references = lakefeed::oracle::references(&published, new_lab.lake(), "acme", "syn").unwrap();
        assert_eq!((references.before_commit, references.wrong), (0, 0), "{references:?}");
        references.ok().then_some(())
    })
    .await;
}

#[tokio::test]
async fn test_fencing_zombie_that_wakes_up_cannot_commit() {
    let zombie_lab = Lab::new(&STREAM.config());
    let heir_lab = Lab::beside(&zombie_lab, &STREAM.config());
    let mut zombie = zombie_lab.start();
    zombie.ready().await;
    zombie_lab.epoch_after(Synthetic::STREAM, 1).await;
    zombie.signal("STOP");
    let stopped_at = zombie_lab.epoch(Synthetic::STREAM);

    let mut heir = heir_lab.start();
    heir.ready().await;
    heir_lab.epoch_after(Synthetic::STREAM, stopped_at + 1).await;
    zombie.signal("CONT");
    zombie.restart_where("fenced child", is_fenced).await;
    assert_sound(&STREAM.fresh(&heir_lab).await, "a zombie");
}
