//! Each point once, with each kind of failure that it can have.

use futures::StreamExt;
use serde_json::json;

use super::{By, CELLS_AT_ONCE, Kind, POINTS, Point, feed, fired, judge, provoke, start};
use crate::support::{Lab, PATIENCE, Synthetic, wait_for};

/// The passes at which to fire.
fn hits() -> Vec<u64> {
    let hits = std::env::var("LAKEFEED_CRASH_HITS").unwrap_or_else(|_| "1".to_owned());
    hits.split(',').map(|hit| hit.trim().parse().unwrap()).collect()
}

/// One cell: the point, the pass at which it fires, and how.
async fn cell(point: &Point, hit: u64, kind: Kind) {
    let spec = format!("{}:{hit}:{}", point.name, kind.name());
    let feed = feed().await;
    let lab = Lab::new(&feed.config());
    let mut node = start(&lab, &spec);
    provoke(&mut node, &feed, point, 1, &spec).await;
    if kind == Kind::Abort {
        assert!(!node.ended().await.success(), "{spec}");
        node = start(&lab, "");
    }
    judge(&lab, &feed, &mut node, &spec).await;
    assert_eq!(fired(&node, point), usize::from(kind != Kind::Abort), "{spec}");
}

async fn all(kind: Kind) {
    let points = POINTS.iter().filter(|point| kind != Kind::Err || point.errs);
    let cells = hits().into_iter().flat_map(|hit| points.clone().map(move |point| cell(point, hit, kind)));
    let done = futures::stream::iter(cells).buffer_unordered(CELLS_AT_ONCE).count().await;
    assert!(done > 0);
    eprintln!("{done} cells of {}", kind.name());
}

#[tokio::test]
async fn test_crash_points_abort() {
    all(Kind::Abort).await;
}

#[tokio::test]
async fn test_crash_points_panic() {
    all(Kind::Panic).await;
}

#[tokio::test]
async fn test_crash_points_err() {
    all(Kind::Err).await;
}

/// A stop message whose sender saw the node die: either it had no effect, or it is remembered; told again, it holds.
#[tokio::test]
async fn test_crash_points_of_a_message() {
    const STREAM: Synthetic = Synthetic { seed: 3, partitions: 2, total: 1_000_000, rate: 400 };
    for point in POINTS.iter().filter(|point| point.by == By::Message && point.name.starts_with("control.")) {
        let lab = Lab::new(&STREAM.config());
        let mut node = lab.start();
        node.ready().await;
        lab.epoch_after(Synthetic::STREAM, 1).await;
        node.kill();
        // The second pass of `control.applied` is the message's; the first is the start's.
        let nth = if point.name == "control.applied" { 2 } else { 1 };
        let mut node = lab.start_with(&[("LAKEFEED_CRASH", &format!("{}:{nth}:abort", point.name))]);
        node.ready().await;
        let data = json!({"adapter": "SYN", "tenant": "acme", "stream": "syn"});
        let answer = node.try_message("worker:stop", data.clone()).await;
        if point.name == "control.stored" {
            assert!(answer.is_none(), "{}: answered before it was done: {answer:?}", point.name);
        }
        node.ended().await;
        wait_for("the fault", PATIENCE, async || (fired(&node, point) > 0).then_some(())).await;

        let mut node = lab.start();
        node.ready().await;
        let desired = node.status(Synthetic::STREAM).await["desired"].clone();
        assert_eq!(desired, "stopped", "{}: what was stored is remembered", point.name);
        let (status, answer) = node.message("worker:stop", data).await;
        assert_eq!((status, &answer["success"]), (200, &json!(true)));
        let at = lab.epoch(Synthetic::STREAM);
        assert_eq!(node.terminate().await, Some(0));
        assert_eq!(lab.epoch(Synthetic::STREAM), at, "a stopped stream has nothing to commit");
    }
}
