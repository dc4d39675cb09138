//! Deliberate bugs: each one is switched on and must be found by the check that is there for it. Without the bug the same
//! scenario passes the same check, so it is the bug that is found.

use lakefeed::oracle::{self, Verdict};
use serde_json::Value;

use crate::support::feed::Feed;
use crate::support::lab::assert_sound;
use crate::support::rude::{Manner, Rude};
use crate::support::{ENDLESS, Lab, Node, PATIENCE, Synthetic, wait_for};

const STREAM: Synthetic = Synthetic { seed: 13, partitions: 1, total: ENDLESS, rate: 300 };
/// Enough rows to show a bug.
const ROWS: u64 = 600;

/// The environment of a node with the bug, and one more variable.
fn armed<'a>(bug: &'a str, crash: &'a str) -> Vec<(&'a str, &'a str)> {
    [("LAKEFEED_BUG", bug), ("LAKEFEED_CRASH", crash)].into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

/// Waits until `done`.
async fn until(what: &str, done: impl FnMut() -> bool) {
    let done = std::cell::RefCell::new(done);
    wait_for(what, PATIENCE, async || (done.borrow_mut())().then_some(())).await;
}

/// Runs the stream, killing once after some epochs, and judges what there is when there are many rows, half an epoch
/// or none being in nobody's way.
async fn killed_once(bug: &str) -> Verdict {
    let lab = Lab::new(&STREAM.config());
    let mut node = lab.start_with(&armed(bug, ""));
    lab.epoch_after(Synthetic::STREAM, 4).await;
    node.kill();
    let _node = lab.start_with(&armed(bug, ""));
    let killed_at = lab.epoch(Synthetic::STREAM);
    lab.epoch_after(Synthetic::STREAM, killed_at + 1).await;
    let judge = || lab.judge(Synthetic::STREAM, &STREAM.so_far());
    until("many rows", || judge().rows >= ROWS).await;
    judge()
}

fn assert_caught(bug: &str, with: &Verdict, without: &Verdict, found: impl Fn(&Verdict) -> u64) {
    assert!(without.ok(), "without {bug}: {}", without.summary());
    assert!(found(with) > 0, "{bug} was not caught: {}", with.summary());
}

#[tokio::test]
async fn test_bug_random_raw_name_is_caught() {
    let (with, without) = (killed_once("random_raw_name").await, killed_once("").await);
    assert_caught("random_raw_name", &with, &without, |v| v.raw_hash_wrong + v.raw_missing);
}

#[tokio::test]
async fn test_bug_record_gap_is_caught() {
    // Without a kill: who starts behind an epoch that has no record cannot go on.
    let run = async |bug: &str| {
        let lab = Lab::new(&STREAM.config());
        let _node = lab.start_with(&armed(bug, ""));
        lab.epoch_after(Synthetic::STREAM, 3).await;
        lab.judge(Synthetic::STREAM, &STREAM.so_far())
    };
    let (with, without) = (run("record_gap").await, run("").await);
    assert_caught("record_gap", &with, &without, |v| v.commits_without_record);
}

#[tokio::test]
async fn test_bug_double_delivery_is_caught() {
    let (with, without) = (killed_once("double_delivery").await, killed_once("").await);
    assert_caught("double_delivery", &with, &without, |v| v.doubled);
}

/// The node stands still right before a commit; what it has published by then is compared with the lake.
async fn published_before_commit(bug: &str) -> oracle::ReferencesVerdict {
    let lab = Lab::new(&STREAM.config());
    let mut node = lab.start_with(&armed(bug, "lake.commit.before:3:stop"));
    node.live().await;
    until("the crash point", || node.log().contains("crash point lake.commit.before fired")).await;
    // Both epochs before the one that stands still are published sooner or later.
    let published = wait_for("two references", PATIENCE, async || {
        Some(node.references(Synthetic::STREAM).await).filter(|list| list.len() >= 2)
    })
    .await;
    oracle::references(&published, lab.lake(), "acme", "syn").unwrap()
}

#[tokio::test]
async fn test_bug_announce_before_commit_is_caught() {
    let without = published_before_commit("").await;
    assert!(without.ok(), "{without:?}");
    wait_for("the bug", PATIENCE, async || {
        let with = published_before_commit("announce_before_commit").await;
        (with.before_commit > 0).then_some(())
    })
    .await;
}

/// The epoch that the cache in the state directory has, read from a copy of it while the node stands still.
async fn cached_epoch(lab: &Lab) -> u64 {
    let copy = tempfile::tempdir().unwrap();
    let status = std::process::Command::new("cp").arg("-r").arg(lab.state()).arg(copy.path()).status().unwrap();
    assert!(status.success());
    let (cache, _) = lakefeed::checkpoint::Cache::open(&copy.path().join("state/cache"), 0);
    cache.positions(Synthetic::STREAM).await.map_or(0, |cached| cached.meta.epoch)
}

/// The node stands still right before a commit; the cache must not be ahead of the lake.
async fn cache_leads(bug: &str) -> bool {
    let lab = Lab::new(&STREAM.config());
    let node = lab.start_with(&armed(bug, "lake.commit.before:3:stop"));
    until("the crash point", || node.log().contains("crash point lake.commit.before fired")).await;
    assert_eq!(lab.epoch(Synthetic::STREAM), 2);
    // sled writes behind: what the cache was told shows on the disk some time later.
    let cached = wait_for("the cache", PATIENCE, async || {
        Some(cached_epoch(&lab).await).filter(|epoch| *epoch >= if bug.is_empty() { 2 } else { 3 })
    })
    .await;
    cached > lab.epoch(Synthetic::STREAM)
}

#[tokio::test]
async fn test_bug_sled_before_commit_is_caught() {
    assert!(!cache_leads("").await);
    assert!(cache_leads("sled_before_commit").await);
}

/// The node dies right before the third commit of an epoch with dead letters; the judge sees the lake as it is then.
async fn died_before_commit(bug: &str) -> Verdict {
    let source = Feed::start(1, 0).await;
    let lab = Lab::new(&source.config());
    let mut node = lab.start_with(&armed(bug, "lake.commit.before:3:abort"));
    source.grow_until_ended(&lab, &mut node).await;
    lab.judge(Feed::STREAM, &oracle::Expected::Any)
}

#[tokio::test]
async fn test_bug_dead_before_commit_is_caught() {
    let (with, without) = (died_before_commit("dead_before_commit").await, died_before_commit("").await);
    assert_eq!((without.dead_leads, without.epochs), (0, 2));
    assert!(with.dead_leads > 0, "{}", with.summary());
}

/// An owner with the bug is stopped, another takes over and commits, the first wakes up and goes on for a while.
/// Judged are the lake, and the references that the first published.
async fn zombie(bug: &str) -> (Verdict, oracle::ReferencesVerdict, bool) {
    let (old_lab, new_config) = (Lab::new(&STREAM.config()), STREAM.config());
    let new_lab = Lab::beside(&old_lab, &new_config);
    let mut old = old_lab.start_with(&armed(bug, ""));
    old.ready().await;
    let at = old_lab.epoch_after(Synthetic::STREAM, 1).await;
    old.signal("STOP");
    let mut new = new_lab.start();
    new.ready().await;
    new_lab.epoch_after(Synthetic::STREAM, at + 2).await;
    new.kill();
    old.signal("CONT");
    let is_fenced = |lines: &[Value]| lines.iter().any(|line| line["reason"]["class"] == "fenced");
    let published = async |node: &Node| node.references(Synthetic::STREAM).await;
    let before = published(&old).await.len();
    let fenced = wait_for("the zombie's next step", PATIENCE, async || {
        let lines = old.restarts().await;
        let wrong = !old_lab.judge(Synthetic::STREAM, &oracle::Expected::Any).ok();
        (is_fenced(&lines) || wrong || published(&old).await.len() > before + 2).then(|| is_fenced(&lines))
    })
    .await;
    let published = published(&old).await;
    old.kill();
    let verdict = old_lab.judge(Synthetic::STREAM, &oracle::Expected::Any);
    (verdict, oracle::references(&published, old_lab.lake(), "acme", "syn").unwrap(), fenced)
}

#[tokio::test]
async fn test_bug_skip_own_check_is_caught() {
    let (verdict, _, fenced) = zombie("").await;
    assert!(verdict.ok() && fenced, "{}", verdict.summary());
    let (verdict, ..) = zombie("skip_own_check").await;
    assert!(verdict.stale_commits > 0, "{}", verdict.summary());
}

#[tokio::test]
async fn test_bug_ignore_conflict_is_caught() {
    // A fenced owner does not publish the epochs of the next one: those it lacks are no fault of its own.
    let false_ones = |references: &oracle::ReferencesVerdict| references.before_commit + references.wrong;
    let (verdict, references, fenced) = zombie("").await;
    assert!(verdict.ok() && false_ones(&references) == 0 && fenced, "{} {references:?}", verdict.summary());
    let (verdict, references, _) = zombie("ignore_conflict").await;
    assert!(!verdict.ok() || false_ones(&references) > 0, "{} {references:?}", verdict.summary());
}

/// What the source was told before a kill right before the raw segment was put, against what the lake has.
async fn told_too_early(bug: &str) -> bool {
    let lab = Lab::new(&STREAM.config());
    let told = tempfile::NamedTempFile::new().unwrap();
    let mut env = armed(bug, "lake.raw.before:5:abort");
    let path = told.path().to_str().unwrap().to_owned();
    env.push(("LAKEFEED_ACKNOWLEDGED", &path));
    let mut node = lab.start_with(&env);
    node.ended().await;
    let facts = oracle::read_stream(lab.lake(), "acme", "syn").unwrap();
    let committed = facts.rows.iter().filter_map(|row| row.columns["seq"].as_u64()).max();
    let lines = std::fs::read_to_string(told.path()).unwrap();
    let told = lines.lines().filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).max();
    assert!(told.is_some(), "nothing was ever acknowledged: the check would see nothing");
    told > committed
}

#[tokio::test]
async fn test_bug_acknowledge_before_raw_is_caught() {
    assert!(!told_too_early("").await);
    // The worker tells its source some moments after it has handed over, which the abort may come before.
    wait_for("the bug", PATIENCE, async || told_too_early("acknowledge_before_raw").await.then_some(())).await;
}

/// The restart log of a worker that never comes up for long.
async fn delays(bug: &str) -> Vec<u64> {
    let source = Feed::start(1, 10).await;
    let rude = Rude::start(source.address()).await;
    rude.behave(Manner::Status(500, "x-none: 1"));
    let config = source.config_with(rude.address(), "20ms").replace(
        "timeout = \"10s\"\n",
        "timeout = \"50ms\"\nmax_failed_workloads = 1\nrestart = { max_restarts = 5, max_seconds = 3600, \
         backoff = { min = \"50ms\", max = \"5s\", factor = 2.0, jitter = 0.0 } }\n",
    );
    let lab = Lab::new(&config);
    let mut node = lab.start_with(&armed(bug, ""));
    node.live().await;
    node.restart_where("parked worker", |line| line["event"] == "parked").await;
    let lines = node.restarts().await;
    lines.iter().filter(|line| line["event"] == "restarting").filter_map(|line| line["delay_ms"].as_u64()).collect()
}

#[tokio::test]
async fn test_bug_backoff_reset_at_spawn_is_caught() {
    let grows = |delays: &[u64]| delays.len() == 5 && delays.windows(2).all(|pair| pair[1] > pair[0]);
    let without = delays("").await;
    assert!(grows(&without), "{without:?}");
    let with = delays("backoff_reset_at_spawn").await;
    assert!(!grows(&with), "{with:?}");
}

/// Waits until the restart log tells of a batch that does not join to what was taken over before.
async fn gap_is_found(node: &Node) {
    let line = node.restart_where("gap", |line| line["reason"]["code"] == "position_gap").await;
    assert_eq!(line["reason"]["class"], "bug", "{line}");
}

/// The intake takes over only what joins, so a batch that was dropped on its way is found and handed over again.
#[tokio::test]
async fn test_bug_drop_on_interrupt_is_caught() {
    let lab = Lab::new(&STREAM.config());
    let mut node = lab.start_with(&armed("drop_on_interrupt", ""));
    node.live().await;
    gap_is_found(&node).await;
    assert_sound(&STREAM.fresh(&lab).await, "what was dropped is handed over again");
    let lab = Lab::new(&STREAM.config());
    let mut node = lab.start();
    node.live().await;
    until("as many hand-overs", || lab.judge(Synthetic::STREAM, &STREAM.so_far()).rows >= ROWS).await;
    assert_sound(&STREAM.fresh(&lab).await, "without the bug");
    assert!(!node.restarts().await.iter().any(|line| line["reason"]["code"] == "position_gap"));
}

/// A worker that starts from the beginning after a kill is found before anything of it is committed again.
#[tokio::test]
async fn test_bug_resume_from_zero_is_caught() {
    for bug in ["", "resume_from_zero"] {
        let lab = Lab::new(&STREAM.config());
        let mut node = lab.start_with(&armed(bug, ""));
        lab.epoch_after(Synthetic::STREAM, 2).await;
        node.kill();
        let epoch = lab.epoch(Synthetic::STREAM);
        let mut node = lab.start_with(&armed(bug, ""));
        node.live().await;
        if bug.is_empty() {
            assert_sound(&STREAM.fresh(&lab).await, "without the bug");
        } else {
            gap_is_found(&node).await;
            assert!(lab.epoch(Synthetic::STREAM) <= epoch + 1, "it goes on all the same");
        }
        assert_sound(&lab.judge(Synthetic::STREAM, &oracle::Expected::Any), bug);
    }
}
