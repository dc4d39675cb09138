//! The end of a story: the oracle reads what is left, without any code of those who wrote it; then `lake check` does,
//! which shares the code and knows the layout to the last object.

use std::collections::BTreeMap;
use std::path::Path as FsPath;
use std::sync::Arc;

use adapters::contract::Clock;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};

use super::node::JumpingClock;
use super::world::{Outcome, World};
use crate::lake::Lake;
use crate::oracle::{self, Expected};

/// Lays the store out as the folder that the oracle reads.
async fn lay_out(store: &Arc<dyn ObjectStore>, folder: &FsPath) {
    let objects: Vec<_> = store.list(None).try_collect().await.expect("a listing");
    for object in objects {
        let bytes = store.get(&object.location).await.expect("an object").bytes().await.expect("its bytes");
        let path = folder.join(object.location.as_ref());
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, bytes).expect("a file");
    }
}

/// Judges all streams.
pub(crate) async fn judge(world: &World, store: &Arc<dyn ObjectStore>) -> Outcome {
    let folder = tempfile::tempdir().expect("a folder");
    lay_out(store, folder.path()).await;
    let mut outcome = Outcome::default();
    for (id, foreign) in world.streams.iter().zip(&world.foreign) {
        let (committed, published) =
            world.truth.stream(&id.to_string(), |stream| (stream.committed.clone(), stream.published.clone()));
        let committed: BTreeMap<u64, u64> =
            committed.iter().filter_map(|(p, seq)| Some((p.parse().ok()?, *seq))).collect();
        let handed_over = (0..world.partitions[id]).filter_map(|p| Some((p, Some(*committed.get(&p)?)))).collect();
        // The seed of the adapters is the world's.
        let expected = Expected::Synthetic { seed: world.seed, partitions: world.partitions[id], handed_over };
        let mut verdict = oracle::judge(folder.path(), id.tenant(), id.stream(), &expected);
        let story = verdict.messages.join("; ");
        // What others deleted is gone, and nothing else.
        if (verdict.missing, verdict.records_wrong) == (foreign.deleted, foreign.epochs.len() as u64) {
            (verdict.missing, verdict.records_wrong) = (0, 0);
        }
        if !verdict.ok() {
            let deleted = foreign.deleted;
            outcome.wrong.push(format!("{id}: {} (others deleted {deleted}): {story}", verdict.summary()));
        }
        let references = oracle::references(&published, folder.path(), id.tenant(), id.stream());
        match references {
            Ok(references) if references.ok() => {}
            Ok(references) => outcome.wrong.push(format!("{id}: references: {}", references.messages.join("; "))),
            Err(error) => outcome.wrong.push(format!("{id}: references: {}", error.chain())),
        }
        outcome.records += verdict.rows;
        outcome.dead += verdict.dead;
        outcome.epochs += verdict.epochs;
    }
    outcome.checked = check(world, store).await;
    outcome.wrong.extend(outcome.checked.iter().cloned());
    outcome
}

/// What `lake check` finds wrong with what is left.
async fn check(world: &World, store: &Arc<dyn ObjectStore>) -> Vec<String> {
    let clock: Arc<dyn Clock> = Arc::<JumpingClock>::clone(&world.clock);
    let lake = Lake::with_seed(Arc::clone(store), "memory:", clock, u128::from(world.seed));
    match lake.check(None).await {
        Ok(report) => report.problems.iter().map(|p| format!("check: {} {}: {}", p.code, p.path, p.what)).collect(),
        Err(error) => vec![format!("check: {error}")],
    }
}
