//! Random faults by seed: whatever happens, each record ends up in the table or among the dead letters, once.

use std::collections::BTreeMap;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::memory::InMemory;

use super::*;
use crate::lake::LakeErrorClass;

/// Seeds of one run of the test command.
const SEEDS: u64 = 200;

struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Two nodes that take one stream from each other, restarts, caches of any age, answers lost, commits dropped.
async fn run(seed: u64) -> (Vec<String>, u32) {
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let store = FailingStore::new(Arc::clone(&inner));
    store.seed(seed);
    let mut draw = Draw(seed);
    let nodes = [1, 2].map(|node| lake_on(Arc::new(store.clone()), u128::from(seed) * 10 + node));
    let mut owners: [Option<Owner>; 2] = [None, None];
    let mut pending: [Option<Sealed>; 2] = [None, None];
    let mut caches: Vec<Checkpoint> = Vec::new();
    for step in 0..24 {
        let per_mille = [0, 25, 150, 450][draw.below(4) as usize];
        let faults = vec![(per_mille, Fault::BEFORE), (per_mille, Fault::AFTER)];
        store.set_weather(if step < 20 { Weather { faults, ..Weather::default() } } else { Weather::default() });
        let node = draw.below(2) as usize;
        if draw.below(6) == 0 {
            (owners[node], pending[node]) = (None, None);
        }
        let owner = match &mut owners[node] {
            Some(owner) => owner,
            none => {
                let cache = (draw.below(2) == 0 && !caches.is_empty())
                    .then(|| caches[draw.below(caches.len() as u64) as usize].clone());
                match nodes[node].claim(claim_with(cache)).await {
                    Ok(owner) => none.insert(owner),
                    Err(error) => {
                        assert_eq!(error.class, LakeErrorClass::Transient, "seed {seed}: {error}");
                        continue;
                    }
                }
            }
        };
        let sealed = match pending[node].take() {
            Some(sealed) => sealed,
            None => next_epoch(owner, &["a", "b", "c"][..=draw.below(3) as usize], 1 + draw.below(9)),
        };
        // Dropped at some await, now and then.
        let patience = std::time::Duration::from_millis([100, 1_000_000][usize::from(draw.below(3) > 0)]);
        match tokio::time::timeout(patience, owner.commit(&sealed, "results")).await {
            Ok(Ok(committed)) => caches.push(committed.checkpoint),
            Ok(Err(error)) if error.class == LakeErrorClass::Fenced => owners[node] = None,
            Ok(Err(error)) => {
                assert_eq!(error.class, LakeErrorClass::Transient, "seed {seed}: {error}");
                // Tried again with the same content, or given up for a new generation.
                if draw.below(2) == 0 { pending[node] = Some(sealed) } else { owners[node] = None }
            }
            Err(_) => pending[node] = Some(sealed),
        }
    }
    store.heal();
    let owner = nodes[0].claim(claim_with(caches.pop())).await.unwrap();
    let report = nodes[0].check(None).await.unwrap();
    assert_eq!(report.problems, [], "seed {seed}");
    let judged = judge(inner, "acme/berlin").await;
    let counts: BTreeMap<&str, u64> =
        ["a", "b", "c"].map(|partition| (partition, stands_at(owner.checkpoint(), partition))).into();
    judged.assert_whole(&counts.into_iter().collect::<Vec<_>>());
    (store.log(), store.fired())
}

#[tokio::test(start_paused = true)]
async fn test_random_faults_lose_and_double_nothing() {
    let (mut faults, mut operations) = (0, 0);
    for seed in 0..SEEDS {
        let (log, fired) = run(seed).await;
        faults += fired;
        operations += log.len();
    }
    // The faults that this is about did come.
    assert!(faults > 10 * SEEDS as u32, "{faults} faults in {operations} operations");
}

#[tokio::test(start_paused = true)]
async fn test_the_same_seed_twice_asks_the_store_for_the_same() {
    assert_eq!(run(7).await, run(7).await);
}
