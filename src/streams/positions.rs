//! Positions set by hand, while a stream is stopped.

use std::collections::BTreeMap;

use adapters::contract::Position;

use super::api::Refusal;
use super::directory::Entry;
use crate::lake::{Beat, Claim, LakeError};
use crate::pipeline::{BuilderSpec, EpochBuilder};
use crate::settings::Job;

/// Refuses what no worker could go on from, before it is in the lake: partitions that the stream neither has nor had,
/// and positions that its adapter cannot read. `known` is where the stream stands.
pub(super) async fn check(
    entry: &Entry,
    job: &Job,
    wanted: &BTreeMap<String, String>,
    known: Option<&BTreeMap<String, String>>,
) -> Result<(), Refusal> {
    let partitions = job.mount.partitions();
    for (name, text) in wanted {
        let field: String = format!("positions.{name}").chars().take(200).collect();
        let Some(partition) = partitions.iter().find(|partition| partition.name == *name) else {
            if known.is_some_and(|known| known.contains_key(name)) {
                continue;
            }
            let message = "the stream has no partition of this name; GET …/checkpoint shows those that it has";
            return Err(Refusal::new(400, "unknown_partition", message).field(&field));
        };
        if text.is_empty() {
            continue;
        }
        let position = Position::new(text.clone());
        let opened = job.mount.open(partition, Some(&position), entry.shared.env(name)).await;
        if let Err(e) = opened {
            return Err(Refusal::new(400, "invalid_value", e.message).field(&field));
        }
    }
    Ok(())
}

/// An epoch without rows that moves the positions.
pub(super) async fn set(
    entry: &Entry,
    job: &Job,
    positions: Option<BTreeMap<String, String>>,
) -> Result<(), LakeError> {
    let shared = &entry.shared;
    let claim = Claim {
        id: shared.id.clone(),
        adapter: job.adapter.clone(),
        schema: job.columns(),
        partition_by: job.partition_by.clone(),
        cache: None,
        beat: Beat::default(),
    };
    let mut owner = shared.node.lake.claim(claim).await?;
    let known = owner.checkpoint().positions.clone();
    // An empty position is the beginning.
    let wanted =
        positions.unwrap_or_else(|| known.keys().map(|partition| (partition.clone(), String::new())).collect());
    let now_us = shared.node.clock.now_us();
    let mut builder = EpochBuilder::new(BuilderSpec {
        id: shared.id.clone(),
        adapter: job.adapter.clone(),
        epoch: owner.checkpoint().epoch + 1,
        generation: owner.generation(),
        schema: owner.schema(),
        decoder: job.mount.decoder(),
        partition_by: job.partition_by.clone(),
        raw_kept: job.raw_kept,
        generated: job.generated.clone(),
        on_bad_record: job.on_bad_record,
        park_on_schema_change: job.park_on_schema_change,
        started_at_us: now_us,
    });
    for (partition, to) in wanted {
        let from = known.get(&partition).map(|position| Position::new(position.clone()));
        builder.set_position(&partition, from, Position::new(to));
    }
    let committed = owner.commit(&builder.seal(now_us), &shared.bucket()).await?;
    shared.node.cache.forget_positions(&shared.id.to_string()).await;
    shared.progress.send_modify(|progress| progress.epoch = committed.epoch);
    Ok(())
}
