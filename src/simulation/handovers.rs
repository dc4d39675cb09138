//! Between a manager, its supervisor, a committer and its workers: who is gone leaves nobody behind who acts for him.

use std::collections::BTreeMap;
use std::time::Duration;

use supervisors::SupervisorHandle;
use tokio::time::sleep;

use super::refusals::{assert_commits, within};
use super::source::Mood;
use super::store::Weather;
use super::world::{Armed, Blow, World};
use crate::checkpoint::{Kept, Trees};
use crate::names::StreamId;
use crate::streams::DirectoryHandle;
use crate::streams::api::{Desired, StartRequest, Streams};

/// The supervisor of a stream.
async fn supervisor(world: &World, id: &StreamId) -> SupervisorHandle {
    let tenants = world.nodes[0].up().unwrap().root.handle().supervisor("tenants").await.unwrap();
    tenants.supervisor(id.tenant()).await.unwrap().supervisor(id.stream()).await.unwrap()
}

fn handed(world: &World, id: &StreamId) -> BTreeMap<String, u64> {
    world.truth.stream(&id.to_string(), |s| s.handed.clone())
}

#[test]
fn test_workers_whose_committer_is_gone_make_room_for_new_ones() {
    within(7, async |world| {
        let id = world.streams[0].clone();
        let stream = supervisor(world, &id).await;
        stream.terminate_child("committer").await.unwrap();
        stream.delete_child("committer").await.unwrap();
        let streams = DirectoryHandle(world.nodes[0].up().unwrap().directory);
        streams.restart(&id, None).await.unwrap();
        assert_commits(world, Duration::from_secs(20)).await;
    });
}

#[test]
fn test_manager_that_panics_leaves_nobody_behind_who_starts_a_stopped_stream() {
    within(8, async |world| {
        let id = world.streams[0].clone();
        let streams = DirectoryHandle(world.nodes[0].up().unwrap().directory);
        let start = async || streams.start(&id, &adapter(&streams, &id).await, StartRequest::default()).await;
        streams.set_desired(&id, None, Desired::Stopped, None).await.unwrap();
        sleep(Duration::from_secs(5)).await;
        // A claim takes longer than the story.
        world.store.set_weather(Weather { latency_ms: 3_000..3_001, ..Weather::default() });
        world.arm(Some(Armed { point: "control.applied", passes: 1, blow: Blow::Panic }));
        start().await.unwrap();
        let _ = start().await;
        assert!(world.until(Duration::from_secs(60), |world| !world.struck().is_empty()).await, "no panic");
        world.calm();
        // Refused while the stream is being restarted, and stored all the same.
        let _ = streams.set_desired(&id, None, Desired::Stopped, None).await;
        sleep(Duration::from_secs(5)).await;
        let before = handed(world, &id);
        sleep(Duration::from_secs(120)).await;
        assert_eq!(handed(world, &id), before, "a stopped stream is worked on");
        let children = supervisor(world, &id).await.which_children().await;
        assert!(children.iter().all(|child| &*child.id == "manager"), "{children:?}");
    });
}

async fn adapter(streams: &DirectoryHandle, id: &StreamId) -> String {
    streams.get(id).await.unwrap().adapter
}

#[test]
fn test_source_that_was_told_to_wait_has_its_memory_flushed() {
    within(9, async |world| {
        world.troubles.set(Mood { limited: 1000, ..Mood::default() });
        sleep(Duration::from_secs(10)).await;
        let disk = &world.nodes[0].state.disk;
        let cached = || disk.scan("positions", b"").unwrap().len();
        let before = cached();
        assert!(before > 0);
        disk.die(Kept::Flushed(0));
        assert_eq!(cached(), before, "a kill takes back what was before the wait");
    });
}
