//! What a store can do to a stream without an end: refuse it, be gone, be slow.

use std::time::Duration;

use tokio::time::sleep;

use super::node::StateDir;
use super::store::{Answer, Fault, Kind, Weather};
use super::world::World;
use crate::streams::DirectoryHandle;
use crate::streams::api::{Actual, Streams};

/// Runs `story` in a world with one node that has committed something.
pub(super) fn within(seed: u64, story: impl AsyncFnOnce(&mut World)) {
    super::in_a_runtime(async {
        let mut world = World::new(seed, None);
        world.calm();
        world.start_node(StateDir::default());
        let begun = |world: &World| world.streams.iter().all(|id| world.truth.stream(&id.to_string(), |s| s.epoch > 1));
        assert!(world.until(Duration::from_secs(20), begun).await);
        story(&mut world).await;
        assert_eq!(world.truth.take_wrong(), Vec::<String>::new());
    });
}

/// Every stream commits again within `patience`.
pub(super) async fn assert_commits(world: &World, patience: Duration) {
    let epochs: Vec<_> = world.streams.iter().map(|id| world.truth.stream(&id.to_string(), |s| s.epoch)).collect();
    let moved = |world: &World| {
        let mut all = world.streams.iter().zip(&epochs);
        all.all(|(id, epoch)| world.truth.stream(&id.to_string(), |s| s.epoch > *epoch))
    };
    assert!(world.until(patience, moved).await, "{:?}", world.truth.parked());
}

fn always(answer: Answer, kinds: Vec<Kind>) -> Weather {
    Weather { faults: vec![(1000, Fault::Before(answer))], kinds, latency_ms: 1..5 }
}

#[test]
fn test_refused_credentials_are_waited_for_then_parked_and_tried_again() {
    within(3, async |world| {
        world.store.set_weather(always(Answer::Unauthenticated, vec![]));
        sleep(Duration::from_secs(40)).await;
        assert!(world.truth.parked().is_empty(), "a rotation takes that long");
        world.calm();
        assert_commits(world, Duration::from_secs(10)).await;
        world.store.set_weather(always(Answer::Denied, vec![]));
        sleep(Duration::from_secs(120)).await;
        assert!(world.truth.parked().contains_key("committer auth/lake_denied"), "{:?}", world.truth.parked());
        world.calm();
        // Nobody asks: the probe of the configuration, 10 s, finds it.
        assert_commits(world, Duration::from_secs(20)).await;
        assert_eq!(world.truth.restarts(), [].into());
    });
}

#[test]
fn test_put_that_can_never_succeed_parks_at_once_and_comes_back_when_asked() {
    for (answer, kind, reason) in [
        (Answer::TooLarge, Kind::Data, "committer config/lake_too_large"),
        (Answer::Invalid, Kind::Record, "committer config/lake_refused"),
        (Answer::Invalid, Kind::Entry, "committer config/lake_refused"),
    ] {
        within(4, async |world| {
            world.store.set_weather(always(answer, vec![kind]));
            sleep(Duration::from_secs(8)).await;
            assert!(world.truth.parked().contains_key(reason), "{kind:?}: {:?}", world.truth.parked());
            let up = world.nodes[0].up().unwrap();
            let streams = DirectoryHandle(up.directory);
            let id = world.streams[0].clone();
            let status = streams.get(&id).await.unwrap().status;
            assert_eq!(status.actual, Actual::Parked);
            assert!(status.parked.is_some_and(|parked| reason.contains(&parked.code)));
            world.calm();
            for id in world.streams.clone() {
                streams.restart(&id, None).await.unwrap();
            }
            assert_commits(world, Duration::from_secs(10)).await;
            assert_eq!(world.truth.restarts(), [].into());
        });
    }
}

#[test]
fn test_long_outage_is_back_pressure_and_no_restart() {
    for answer in [Answer::Unavailable, Answer::Reset] {
        within(5, async |world| {
            world.store.set_weather(always(answer, vec![]));
            let handed = |world: &World| {
                let all = world.streams.iter().map(|id| world.truth.stream(&id.to_string(), |s| s.handed.clone()));
                all.collect::<Vec<_>>()
            };
            sleep(Duration::from_secs(300)).await;
            let half = handed(world);
            sleep(Duration::from_secs(300)).await;
            assert_eq!(half, handed(world), "the sources are held back");
            assert_eq!((world.truth.restarts(), world.truth.parked()), ([].into(), [].into()));
            world.calm();
            assert_commits(world, Duration::from_secs(30)).await;
        });
    }
}

/// Epochs and records of all streams in a minute of a store that answers in `latency_ms`.
async fn minute(world: &World, latency_ms: std::ops::Range<u64>) -> (u64, u64) {
    world.store.set_weather(Weather { latency_ms, ..Weather::default() });
    // What collected before is not counted.
    assert_commits(world, Duration::from_secs(60)).await;
    let count = |world: &World| {
        world.streams.iter().fold((0, 0), |(epochs, records), id| {
            let (epoch, committed) =
                world.truth.stream(&id.to_string(), |s| (s.epoch, s.committed.values().sum::<u64>()));
            (epochs + epoch, records + committed)
        })
    };
    let before = count(world);
    sleep(Duration::from_secs(60)).await;
    let after = count(world);
    (after.0 - before.0, after.1 - before.1)
}

#[test]
fn test_slow_store_gets_fewer_and_larger_epochs_and_the_source_is_not_held_back() {
    within(6, async |world| {
        let (quick_epochs, quick_records) = minute(world, 1..5).await;
        let (slow_epochs, slow_records) = minute(world, 900..1100).await;
        eprintln!("{quick_epochs} epochs of {quick_records} records, {slow_epochs} of {slow_records}");
        assert!(slow_epochs * 2 < quick_epochs, "{slow_epochs} epochs, {quick_epochs} on a quick store");
        assert!(slow_records * 10 > quick_records * 9, "{slow_records} records, {quick_records} on a quick store");
        assert_eq!((world.truth.restarts(), world.truth.parked()), ([].into(), [].into()));
    });
}
