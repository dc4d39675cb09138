//! A crash, and another one during the recovery from it or later.

use futures::StreamExt;
use rand::seq::IndexedRandom;

use super::{CELLS_AT_ONCE, Kind, POINTS, Point, feed, fired, judge, provoke, start};
use crate::crash::seeded;
use crate::support::Lab;

/// Pairs of each kind in the test command.
const SAMPLE: usize = 9;

/// The process dies at one point, and the next one at the other.
async fn dies_twice(first: &Point, second: &Point) {
    let context = format!("{}:1:abort, then {}:1:abort", first.name, second.name);
    let feed = feed().await;
    let lab = Lab::new(&feed.config());
    for point in [first, second] {
        let mut node = start(&lab, &format!("{}:1:abort", point.name));
        provoke(&mut node, &feed, point, 1, &context).await;
        assert!(!node.ended().await.success(), "{context}");
    }
    let mut node = start(&lab, "");
    judge(&lab, &feed, &mut node, &context).await;
}

/// The same process panics at one point, and then at the other.
async fn panics_twice(first: &Point, second: &Point) {
    let context = format!("{}:1:panic,{}:1:panic", first.name, second.name);
    let feed = feed().await;
    let lab = Lab::new(&feed.config());
    let mut node = start(&lab, &context);
    let times = if first.name == second.name { 2 } else { 1 };
    provoke(&mut node, &feed, first, 1, &context).await;
    provoke(&mut node, &feed, second, times, &context).await;
    judge(&lab, &feed, &mut node, &context).await;
    assert_eq!((fired(&node, first), fired(&node, second)), (times, times), "{context}");
}

/// All pairs, one of so many equal parts of them (`3/10`), one of them (`FIRST,SECOND`), or some.
fn pairs(test: &str) -> Vec<(&'static Point, &'static Point)> {
    let mut all: Vec<_> = POINTS.iter().flat_map(|first| POINTS.iter().map(move |second| (first, second))).collect();
    let Ok(wanted) = std::env::var("LAKEFEED_CRASH_PAIRS") else {
        return all.choose_multiple(&mut seeded(test), SAMPLE).copied().collect();
    };
    if wanted == "all" {
        return all;
    }
    if let Some(names) = wanted.split_once(',') {
        all.retain(|(first, second)| (first.name, second.name) == names);
        assert!(!all.is_empty(), "{wanted} is no pair");
        return all;
    }
    let (part, parts) = wanted.split_once('/').expect("LAKEFEED_CRASH_PAIRS is all, PART/PARTS or FIRST,SECOND");
    let (part, parts): (usize, usize) = (part.parse().unwrap(), parts.parse().unwrap());
    assert!((1..=parts).contains(&part), "{wanted}");
    all.into_iter().skip(part - 1).step_by(parts).collect()
}

async fn run(kind: Kind) {
    let pairs = pairs(&format!("pairs of {}", kind.name()));
    let cells = pairs.into_iter().map(|(first, second)| async move {
        let began = std::time::Instant::now();
        match kind {
            Kind::Abort => Box::pin(dies_twice(first, second)).await,
            Kind::Panic | Kind::Err => Box::pin(panics_twice(first, second)).await,
        }
        eprintln!("{}, {}: {} in {:?}", first.name, second.name, kind.name(), began.elapsed());
    });
    let done = futures::stream::iter(cells).buffer_unordered(CELLS_AT_ONCE).count().await;
    eprintln!("{done} pairs of {}", kind.name());
}

#[tokio::test]
async fn test_crash_pairs_abort() {
    run(Kind::Abort).await;
}

#[tokio::test]
async fn test_crash_pairs_panic() {
    run(Kind::Panic).await;
}
