//! Partitioned supervisors: one handle, several message loops.

use std::collections::HashSet;

use supervisors::{ManageError, PartitionedHandle, Root, SpecError, SupervisorSpec, default_partitions};

use crate::support::{Stage, quiet, seconds};

async fn divided(stage: &Stage, partitions: usize) -> (Root, PartitionedHandle) {
    let make = |_| SupervisorSpec::dynamic().intensity(1, seconds(60));
    let spec = SupervisorSpec::partitioned(partitions, make).unwrap().intensity(3, seconds(60));
    let root = stage.start(spec).await;
    let handle = PartitionedHandle::new(root.handle(), partitions).unwrap();
    (root, handle)
}

fn ids() -> Vec<String> {
    (0..40).map(|number| format!("child-{number}")).collect()
}

async fn start_all(stage: &Stage, handle: &PartitionedHandle) {
    for id in ids() {
        handle.start_child(stage.puppet(&id)).await.unwrap();
    }
    quiet().await;
}

#[tokio::test(start_paused = true)]
async fn test_partitions_share_the_children_by_their_ids_alone() {
    let stage = Stage::default();
    let (root, handle) = divided(&stage, 4).await;
    start_all(&stage, &handle).await;
    assert_eq!(handle.count_children().await.active, 40);
    assert_eq!(handle.which_children().await.len(), 40);
    let used: HashSet<usize> = ids().iter().map(|id| handle.partition_of(id)).collect();
    assert_eq!(used.len(), 4, "all partitions get some");
    assert_eq!(
        handle.partition_of("child-0"),
        PartitionedHandle::new(root.handle(), 4).unwrap().partition_of("child-0")
    );
    let home = root.handle().supervisor(&handle.partition_of("child-7").to_string()).await.unwrap();
    assert!(home.child_spec("child-7").await.is_some());
    assert_eq!(handle.start_child(stage.puppet("child-7")).await, Err(ManageError::AlreadyStarted));
    assert_eq!(handle.restart_child("child-7").await, Err(ManageError::Running));
    handle.terminate_child("child-7").await.unwrap();
    assert_eq!(handle.terminate_child("child-7").await, Err(ManageError::NotFound));
    assert_eq!(handle.count_children().await.active, 39);
}

#[tokio::test(start_paused = true)]
async fn test_partitions_fail_one_by_one_and_their_new_lives_are_found() {
    let stage = Stage::default();
    let (root, handle) = divided(&stage, 4).await;
    start_all(&stage, &handle).await;
    let broken = handle.partition_of("child-7");
    let path = format!("{broken}/child-7");
    stage.crash(&path).await;
    stage.crash(&path).await;
    let left = ids().iter().filter(|id| handle.partition_of(id) != broken).count();
    assert_eq!(handle.count_children().await.active, left, "its children went with it, the others run on");
    handle.start_child(stage.puppet("child-7")).await.unwrap();
    assert_eq!(handle.count_children().await.active, left + 1);
    root.stop().await;
    assert_eq!(handle.start_child(stage.puppet("x")).await, Err(ManageError::Restarting));
}

#[tokio::test(start_paused = true)]
async fn test_partitions_are_resized_within_what_was_made_and_nothing_is_started_twice() {
    let stage = Stage::default();
    let (_root, handle) = divided(&stage, 4).await;
    start_all(&stage, &handle).await;
    let kept = ids().iter().filter(|id| handle.partition_of(id) < 2).count();
    handle.resize(2).await.unwrap();
    assert_eq!((handle.partitions(), handle.count_children().await.active), (2, kept));
    for id in ids() {
        let started = handle.start_child(stage.puppet(&id)).await;
        assert!(matches!(started, Ok(_) | Err(ManageError::AlreadyStarted)), "{started:?}");
    }
    assert_eq!(handle.count_children().await.active, 40);
    handle.resize(4).await.unwrap();
    for id in ids() {
        assert_eq!(handle.start_child(stage.puppet(&id)).await, Err(ManageError::AlreadyStarted));
    }
    for wrong in [0, 5] {
        let refused = ManageError::Invalid(SpecError::InvalidPartitions(wrong));
        assert_eq!(handle.resize(wrong).await, Err(refused));
    }
    let none = SupervisorSpec::partitioned(0, |_| SupervisorSpec::dynamic());
    assert_eq!(none.unwrap_err(), SpecError::InvalidPartitions(0));
    assert!(default_partitions() >= 1);
}
