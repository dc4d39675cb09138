//! A worker that holds its thread and never awaits: declared hung, abandoned, fenced, and survived by its successor.

use std::path::Path;

use lakefeed::oracle::Verdict;
use serde_json::Value;

use crate::support::feed::Feed;
use crate::support::lab::{assert_sound, stream};
use crate::support::{ENDLESS, Lab, Node, PATIENCE, Synthetic, wait_for};

const WORKER: &str = "lakefeed/tenants/acme/feed/workers/0";
const FEED: &str = "lakefeed/tenants/acme/feed";
/// Flows beside it for longer than the test takes.
const OTHER: Synthetic = Synthetic { seed: 41, partitions: 1, total: ENDLESS, rate: 50 };
/// Records in each of the feed's two partitions.
const RECORDS: u64 = 150;

/// A feed whose workload may take a second, so that its worker counts as hung some seconds later, and another stream.
/// Workloads that a busy machine makes too long are no failures here.
fn config(feed: &Feed) -> String {
    let feed = feed.config().replace("timeout = \"10s\"", "timeout = \"1s\"\nmax_failed_workloads = 1000");
    format!("{feed}{}{}", OTHER.adapter("SYN"), stream(Synthetic::STREAM, "SYN"))
}

fn is(event: &str) -> impl Fn(&Value) -> bool {
    move |line| line["event"] == event && line["path"] == WORKER
}

/// Starts a node whose worker holds its thread at its third hand-over, past its own look at the fence, until `let_go` is there.
fn start(lab: &Lab, kind: &str, let_go: &Path, bug: &str) -> Node {
    let crash = format!("worker.delivering@{}/0:3:{kind}", Feed::STREAM);
    let mut env = vec![("LAKEFEED_CRASH", crash.as_str()), ("LAKEFEED_CRASH_UNTIL", let_go.to_str().unwrap())];
    if !bug.is_empty() {
        env.push(("LAKEFEED_BUG", bug));
    }
    lab.start_with(&env)
}

/// Waits for the hang to be noticed, and checks what is told about it.
async fn is_abandoned_and_replaced(lab: &Lab, node: &Node) {
    wait_for("the hang", PATIENCE, async || node.log().contains("crash point worker.delivering fired").then_some(()))
        .await;
    // It hangs, and everything else goes on: the API, the other stream, and soon its own successor.
    assert_eq!(node.get("/health/ready").await.0, 200);
    lab.epoch_after(Synthetic::STREAM, lab.epoch(Synthetic::STREAM) + 3).await;
    let abandoned = node.restart_where("abandoned worker", is("abandoned")).await;
    assert_eq!((&abandoned["incarnation"], &abandoned["reason"]["class"]), (&1.into(), &"hung".into()), "{abandoned}");
    let restarted = node.restart_where("successor", is("restarted")).await;
    assert_eq!(restarted["incarnation"], 2, "{restarted}");
    assert_eq!(restarted["incident"], abandoned["incident"]);
    let at = node.tree_at(WORKER).await;
    assert_eq!((&at["incarnation"], &at["abandoned"]), (&2.into(), &1.into()), "{at}");
    assert_eq!(node.metric("lakefeed_restarts_total", &[("stream", "feed"), ("class", "hung")]).await, Some(1.0));
}

/// Nothing but the hung worker was touched.
async fn assert_only_it(node: &Node) {
    for line in node.restarts().await {
        let touched = !matches!(line["event"].as_str(), Some("started" | "stopped"));
        assert!(!touched || line["path"] == WORKER, "{line}");
    }
    let lines = node.restarts_under(FEED).await;
    let count = |event: &str| lines.iter().filter(|line| line["event"] == event).count();
    assert_eq!([count("failed"), count("abandoned"), count("restarted")], [1, 1, 1], "{lines:#?}");
}

#[tokio::test]
async fn test_supervision_worker_that_spins_is_abandoned_and_its_late_hand_over_refused() {
    let feed = Feed::start(2, RECORDS).await;
    let lab = Lab::new(&config(&feed));
    let let_go = lab.signal_file("let-go");
    let mut node = start(&lab, "spin", &let_go, "");
    node.ready().await;
    is_abandoned_and_replaced(&lab, &node).await;
    // The successor does all the work before the zombie wakes up, so that what it still holds would be doubled.
    let before = feed.whole(&lab, &node).await;
    assert_sound(&before, "the successor's work");
    assert!(!node.log().contains("late_hand_over"));
    std::fs::write(&let_go, "").unwrap();
    wait_for("the refusal", PATIENCE, async || node.log().contains("late_hand_over").then_some(())).await;
    assert!(node.log().contains("crash point worker.delivering over"));
    wait_for("the zombie's end", PATIENCE, async || (node.tree_at(WORKER).await["abandoned"] == 0).then_some(())).await;
    let epoch = lab.epoch(Synthetic::STREAM);
    lab.epoch_after(Synthetic::STREAM, epoch).await;
    let after = lab.judge(Feed::STREAM, &feed.expected());
    assert_sound(&after, "after the zombie's attempt");
    assert_eq!((after.rows, after.epochs), (before.rows, before.epochs));
    assert_only_it(&node).await;
    assert_eq!(node.terminate().await, Some(0));
}

#[tokio::test]
async fn test_supervision_worker_that_blocks_for_ever_is_survived_and_the_node_still_ends() {
    let feed = Feed::start(2, RECORDS).await;
    let lab = Lab::new(&config(&feed));
    let mut node = start(&lab, "stop", &lab.signal_file("never"), "");
    node.ready().await;
    is_abandoned_and_replaced(&lab, &node).await;
    assert_sound(&feed.whole(&lab, &node).await, "the successor's work");
    assert_only_it(&node).await;
    assert_eq!(node.tree_at(WORKER).await["abandoned"], 1);
    assert_eq!(node.terminate().await, Some(0), "a thread that is held keeps the node from ending:\n{}", node.log());
}

/// A committer dies while its commit is under way and held up. Its successor claims the stream and commits the same
/// records; when the commit is let go, it comes too late and is refused.
#[tokio::test]
async fn test_supervision_late_commit_of_a_committer_that_died_is_refused() {
    const STREAM: Synthetic = Synthetic { seed: 45, partitions: 2, total: ENDLESS, rate: 300 };
    let lab = Lab::new(&STREAM.config());
    let let_go = lab.signal_file("let-go");
    let mut node = lab.start_with(&[
        ("LAKEFEED_CRASH", "lake.commit.before:3:stop,committer.taking:1:panic"),
        ("LAKEFEED_CRASH_UNTIL", let_go.to_str().unwrap()),
    ]);
    node.live().await;
    let restarted = node.restart_where("the successor", |line| {
        line["event"] == "restarted" && line["path"] == "lakefeed/tenants/acme/syn/committer"
    });
    assert_eq!(restarted.await["resumed_from"]["epoch"], 2);
    lab.epoch_after(Synthetic::STREAM, 5).await;
    assert!(!node.log().contains("\"fenced\""));
    std::fs::write(&let_go, "").unwrap();
    wait_for("the refusal", PATIENCE, async || {
        let log = node.log();
        log.lines().any(|line| line.contains("not committed") && line.contains("\"fenced\"")).then_some(())
    })
    .await;
    for point in ["lake.commit.before", "committer.taking"] {
        assert!(node.log().contains(&format!("crash point {point} fired")));
    }
    assert!(node.log().contains("crash point lake.commit.before over"));
    assert_sound(&STREAM.fresh(&lab).await, "after the late commit");
    let fenced = node.restarts().await.into_iter().filter(|line| line["reason"]["class"] == "fenced").count();
    assert_eq!(fenced, 0, "the owner is not touched by what its predecessor tries");
    assert_eq!(node.terminate().await, Some(0));
}

const COMMITTER: &str = "lakefeed/tenants/acme/syn/committer";

/// A stream whose committer hangs at `crash`, in a node that does not wait long before it says so. Gives the node once the
/// successor has taken over from the last epoch before and committed what the hung one held.
async fn committer_hangs(lab: &Lab, crash: &str, abandoned: bool) -> (Node, std::path::PathBuf) {
    let let_go = lab.signal_file("let-go");
    let mut node = lab.start_with(&[
        ("LAKEFEED_CRASH", crash),
        ("LAKEFEED_CRASH_UNTIL", let_go.to_str().unwrap()),
        ("LAKEFEED_HURRY", "1"),
    ]);
    node.live().await;
    let at = |event: &'static str| move |line: &Value| line["event"] == event && line["path"] == COMMITTER;
    let restarted = node.restart_where("the successor", at("restarted")).await;
    let lines = node.restarts_under("lakefeed/tenants/acme/syn").await;
    let failed: Vec<_> = lines.iter().filter(|line| line["event"] == "failed").collect();
    assert_eq!(failed.len(), 1, "{lines:#?}");
    assert_eq!((&failed[0]["path"], &failed[0]["incident"]), (&COMMITTER.into(), &restarted["incident"]));
    let reason = &failed[0]["reason"];
    assert_eq!((&reason["class"], &reason["code"]), (&"hung".into(), &"no_progress".into()), "{reason}");
    assert_eq!(lines.iter().any(at("abandoned")), abandoned, "{lines:#?}");
    assert_eq!(node.metric("lakefeed_restarts_total", &[("stream", "syn"), ("class", "hung")]).await, Some(1.0));
    let before = restarted["resumed_from"]["epoch"].as_u64().unwrap();
    lab.epoch_after(Synthetic::STREAM, before + 2).await;
    (node, let_go)
}

/// The commit holds a thread, its committer waits for it. The successor claims the stream and commits the same records;
/// when the thread is let go, what it does is refused.
#[tokio::test]
async fn test_supervision_commit_that_holds_its_thread_is_survived_and_refused_when_it_comes_back() {
    const STREAM: Synthetic = Synthetic { seed: 46, partitions: 2, total: ENDLESS, rate: 300 };
    let lab = Lab::new(&STREAM.config());
    let (mut node, let_go) = committer_hangs(&lab, "lake.commit.before:3:stop", false).await;
    assert_sound(&STREAM.fresh(&lab).await, "the successor's work");
    assert!(!node.log().contains("\"fenced\""));
    std::fs::write(&let_go, "").unwrap();
    wait_for("the refusal", PATIENCE, async || {
        let log = node.log();
        log.lines().any(|line| line.contains("not committed") && line.contains("\"fenced\"")).then_some(())
    })
    .await;
    assert_sound(&STREAM.fresh(&lab).await, "after the late commit");
    assert_eq!(node.tree_at(COMMITTER).await["state"], "running");
    assert_eq!(node.terminate().await, Some(0));
}

/// The commit never comes back. It is dropped, so that what it holds does not stay in memory and on the credits.
#[tokio::test]
async fn test_supervision_commit_that_never_comes_back_is_dropped_and_done_by_the_successor() {
    const STREAM: Synthetic = Synthetic { seed: 47, partitions: 2, total: 6_000, rate: 300 };
    let lab = Lab::new(&STREAM.config());
    let (mut node, _) = committer_hangs(&lab, "silent_commit:3:err", false).await;
    assert_sound(&STREAM.whole_of(Synthetic::STREAM, &lab, &node).await, "the successor's work");
    assert!(node.log().contains("commit_silent"), "what it held is let go");
    wait_for("all credits", PATIENCE, async || (node.tree_at(COMMITTER).await["queue_bytes"] == 0).then_some(())).await;
    assert_eq!(node.terminate().await, Some(0));
}

/// The committer itself holds its thread: it is abandoned, and what it does later counts for nothing.
#[tokio::test]
async fn test_supervision_committer_that_holds_its_thread_is_abandoned_and_counts_no_more() {
    const STREAM: Synthetic = Synthetic { seed: 48, partitions: 2, total: ENDLESS, rate: 300 };
    let lab = Lab::new(&STREAM.config());
    let (mut node, let_go) = committer_hangs(&lab, "committer.closing:3:stop", true).await;
    let before = STREAM.fresh(&lab).await;
    assert_sound(&before, "the successor's work");
    std::fs::write(&let_go, "").unwrap();
    wait_for("the zombie's end", PATIENCE, async || (node.tree_at(COMMITTER).await["abandoned"] == 0).then_some(()))
        .await;
    let after = STREAM.fresh(&lab).await;
    assert_sound(&after, "after the zombie");
    assert_eq!(node.tree_at(COMMITTER).await["incarnation"], 2);
    assert_eq!(node.terminate().await, Some(0));
}

/// As many workers as the runtime has threads hold them: nothing in the process can help any more, so it ends, with the
/// code that tells the node's supervisor to start it again.
#[tokio::test]
async fn test_supervision_node_without_a_free_thread_gives_up_and_goes_on_when_started_again() {
    let threads = std::thread::available_parallelism().unwrap().get().max(2) as u64;
    let feed = Feed::start(threads, RECORDS).await;
    let lab = Lab::new(&feed.config());
    let mut node = lab.start_with(&[("LAKEFEED_CRASH", "worker.delivering:each:stop")]);
    assert_eq!(node.ended().await.code(), Some(70), "{}", node.log());
    assert_eq!(node.log().matches("crash point worker.delivering fired").count() as u64, threads);
    assert!(node.log().contains("runtime_stalled"));
    let mut node = lab.start();
    assert_sound(&feed.whole(&lab, &node).await, "the next start");
    assert_eq!(node.terminate().await, Some(0));
}

/// The fence is what keeps the zombie out: without it, what it holds is in the lake twice, and the judge sees it.
#[tokio::test]
async fn test_bug_unfenced_worker_is_caught() {
    let feed = Feed::start(2, RECORDS).await;
    let lab = Lab::new(&config(&feed));
    let let_go = lab.signal_file("let-go");
    let mut node = start(&lab, "stop", &let_go, "unfenced_worker");
    node.ready().await;
    is_abandoned_and_replaced(&lab, &node).await;
    assert_sound(&feed.whole(&lab, &node).await, "before the zombie wakes up");
    std::fs::write(&let_go, "").unwrap();
    let found = wait_for("what the zombie did", PATIENCE, async || {
        let verdict: Verdict = lab.judge(Feed::STREAM, &feed.expected());
        let gap = node.restarts_under(FEED).await.iter().any(|line| line["reason"]["code"] == "position_gap");
        (!verdict.ok() || gap).then_some((verdict.doubled, gap))
    })
    .await;
    assert!(found.0 > 0 || found.1, "{found:?}");
    assert!(!node.log().contains("late_hand_over"));
}
