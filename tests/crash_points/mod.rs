//! The node dies, panics or errs at every named point of its way, singly and twice; then its normal start-up goes on.
//!
//! `LAKEFEED_CRASH_HITS=1,2,10 cargo test --test integration crash_points` fires at the first, second and tenth pass of
//! each point (default: the first). `LAKEFEED_CRASH_PAIRS=all cargo test --test integration crash_pairs` crashes at each
//! point and then at each other, during the recovery from the first or later (`3/10`: the third of ten parts; default: some,
//! by `LAKEFEED_CRASH_SEED`).

mod pairs;
mod single;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::support::feed::Feed;
use crate::support::lab::assert_sound;
use crate::support::wait::strike_after;
use crate::support::{Lab, Node, PATIENCE, wait_for};

/// What happens at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Abort,
    Panic,
    Err,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Abort => "abort",
            Self::Panic => "panic",
            Self::Err => "err",
        }
    }
}

/// How a node comes to pass a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// With every epoch or some.
    Epoch,
    /// With every claim of the table or message that changes a desired state: the test stops and starts the stream.
    Message,
}

/// A named point.
struct Point {
    name: &'static str,
    /// The step of persistence that it stands for, as the test plan numbers them; empty for steps of its own.
    step: &'static str,
    by: By,
    /// Whether what stands there can fail with an error.
    errs: bool,
}

const fn point(name: &'static str, step: &'static str, by: By, errs: bool) -> Point {
    Point { name, step, by, errs }
}

/// All points. C16 (the swap of a backfill) has no point: there is no backfill yet.
const POINTS: [Point; 31] = [
    point("lake.claim.sent", "C6", By::Message, true),
    point("lake.claim.after", "", By::Message, true),
    point("committer.claimed", "", By::Message, false),
    point("worker.pulled", "", By::Epoch, false),
    point("worker.delivering", "", By::Epoch, false),
    point("worker.delivered", "", By::Epoch, false),
    point("committer.taking", "", By::Epoch, false),
    point("committer.closing", "", By::Epoch, false),
    point("lake.raw.before", "C1", By::Epoch, true),
    point("lake.raw.after", "C2", By::Epoch, true),
    // An object goes out in one put; what a torn multipart upload is to a cloud, a half written file is to a folder.
    point("store.half", "C3", By::Epoch, true),
    // Visible, and not yet told so: what a lost answer is to a cloud.
    point("store.named", "C6", By::Epoch, true),
    point("lake.data.before", "C4", By::Epoch, true),
    // The file of dead letters is among the data.
    point("lake.data.after", "C5 C12", By::Epoch, true),
    point("lake.record.after", "C5", By::Epoch, true),
    point("lake.commit.before", "C5 C12", By::Epoch, true),
    point("lake.commit.sent", "C6", By::Epoch, true),
    point("lake.commit.after", "C7", By::Epoch, true),
    point("lake.dead.before", "C12", By::Epoch, true),
    point("lake.dead.sent", "C12", By::Epoch, true),
    point("lake.dead.after", "C12", By::Epoch, true),
    point("cache.before", "C7", By::Epoch, true),
    // sled writes behind: what it was told is not yet on the disk.
    point("cache.after", "C8", By::Epoch, true),
    point("announce.before", "C9", By::Epoch, true),
    // The feed has the reference; that it was announced is not marked.
    point("announce.unmarked", "C11", By::Epoch, true),
    point("announce.after", "C10", By::Epoch, true),
    point("control.stored", "C13", By::Message, true),
    point("control.applied", "C14", By::Message, false),
    point("upkeep.before", "C15", By::Epoch, true),
    point("upkeep.between", "C15", By::Epoch, true),
    point("upkeep.after", "C15", By::Epoch, true),
];

const PARTITIONS: u64 = 2;
/// Cells that run at once: they wait more than they work.
const CELLS_AT_ONCE: usize = 3;
/// Records in each partition before anything happens, and after.
const RECORDS: u64 = 30;

async fn feed() -> Feed {
    Feed::start(PARTITIONS, RECORDS).await
}

fn start(lab: &Lab, crash: &str) -> Node {
    let env = [("LAKEFEED_HURRY", "1"), ("LAKEFEED_CRASH", crash)];
    lab.start_with(if crash.is_empty() { &env[..1] } else { &env })
}

fn fired(node: &Node, point: &Point) -> usize {
    node.log().matches(&format!("crash point {} fired", point.name)).count()
}

/// Brings the node to pass the point until it has fired so many times. The feed grows meanwhile, so that epochs never run out.
async fn provoke(node: &mut Node, feed: &Feed, point: &Point, times: usize, context: &str) {
    let data = json!({"adapter": "FEED", "tenant": "acme", "stream": "feed"});
    let began = std::time::Instant::now();
    while fired(node, point) < times {
        assert!(began.elapsed() < PATIENCE, "{context}: never came to {}:\n{}", point.name, node.log());
        if node.exited().is_none() {
            // A crash before may have left the stream stopped, as its message asked for.
            let patterns: &[&str] =
                if point.by == By::Message { &["worker:stop", "worker:start"] } else { &["worker:start"] };
            for pattern in patterns {
                let _ = node.try_message(pattern, data.clone()).await;
            }
        }
        feed.grow(2);
        strike_after(Duration::from_millis(20)).await;
    }
}

/// Lets the stream come to its end and judges everything: table, dead letters, references.
async fn judge(lab: &Lab, feed: &Feed, node: &mut Node, context: &str) {
    let data = json!({"adapter": "FEED", "tenant": "acme", "stream": "feed"});
    wait_for(format!("{context}: a start"), PATIENCE, async || {
        node.try_message("worker:start", data.clone()).await.filter(|(status, _)| *status == 200)
    })
    .await;
    let before = lab.epoch(Feed::STREAM);
    feed.grow(RECORDS);
    let verdict = feed.whole(lab, node).await;
    assert_sound(&verdict, context);
    assert!(verdict.epochs > before, "{context}: nothing fresh was committed");
    assert_eq!(verdict.dead, feed.bad_total(), "{context}");
    let references = wait_for(format!("{context}: all references"), PATIENCE, async || {
        let references = node.references(Feed::STREAM).await;
        (references.len() as u64 >= verdict.epochs).then_some(references)
    })
    .await;
    let references = lakefeed::oracle::references(&references, lab.lake(), "acme", "feed").unwrap();
    assert!(references.ok(), "{context}: {references:?}");
    assert_eq!(node.terminate().await, Some(0), "{context}:\n{}", node.log());
}

/// Every literal name of a point below `folder`.
fn named_in(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            named_in(&path, found);
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for call in ["point(\"", "point_of(\"", "fails(\"", "crash(\"", "append(&io, \"", "append(&self.io, \""] {
            let names = text.split(call).skip(1).filter_map(|rest| rest.split('"').next());
            found.extend(names.filter(|name| name.contains('.')).map(str::to_owned));
        }
    }
}

#[test]
fn test_crash_points_are_all_in_the_table_and_all_steps_have_one() {
    let mut named = BTreeSet::new();
    named_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut named);
    let listed: BTreeSet<String> = POINTS.iter().map(|point| point.name.to_owned()).collect();
    assert_eq!(named, listed);
    let steps: BTreeSet<&str> = POINTS.iter().flat_map(|point| point.step.split_whitespace()).collect();
    for step in 1..=15 {
        assert!(steps.contains(format!("C{step}").as_str()), "no point stands for C{step}");
    }
}
