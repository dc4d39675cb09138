//! The positions of streams as of some committed epoch, and other values by name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Cache;
use super::store::{seal, unseal};
use crate::faults;

const TREE: &str = "positions";

/// A stream's progress as the cache has it: as of an epoch that may be older than the newest, never newer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedPositions {
    /// What the positions are as of.
    pub meta: Meta,
    /// Position by partition.
    pub positions: BTreeMap<String, String>,
}

/// What positions are as of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The Delta table's id: positions of another table are worth nothing.
    pub table_id: String,
    /// The epoch.
    pub epoch: u64,
    /// The generation that committed it.
    pub generation: u64,
    /// The newest event time committed, µs.
    pub newest_event_us: Option<i64>,
}

/// What one epoch changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// As of.
    pub meta: Meta,
    /// The partitions that moved.
    pub positions: Vec<(String, String)>,
}

fn partition_key(stream: &str, partition: &str) -> Vec<u8> {
    [stream.as_bytes(), b"\0", partition.as_bytes()].concat()
}

impl Cache {
    /// The progress of `stream` (`<tenant>/<stream>`), if all of it is whole.
    pub async fn positions(&self, stream: &str) -> Option<CachedPositions> {
        let stream = stream.to_owned();
        self.run(move |trees| {
            let sealed = trees.get(TREE, stream.as_bytes()).ok()??;
            let meta = serde_json::from_slice(unseal(stream.as_bytes(), &sealed)?).ok()?;
            let prefix = partition_key(&stream, "");
            let mut positions = BTreeMap::new();
            for item in trees.scan(TREE, &prefix).ok()? {
                let (key, sealed) = item.ok()?;
                let position = String::from_utf8(unseal(&key, &sealed)?.to_vec()).ok()?;
                positions.insert(String::from_utf8(key[prefix.len()..].to_vec()).ok()?, position);
            }
            Some(CachedPositions { meta, positions })
        })
        .await?
    }

    /// Takes over what an epoch moved, all or nothing. `whole` replaces everything the cache had for the stream.
    pub async fn store_positions(&self, stream: &str, moved: Moved, whole: bool) {
        let stream = stream.to_owned();
        let stored = self
            .run(move |trees| -> Result<(), String> {
                if faults::fails("cache.before") {
                    return Err("crash point".to_owned());
                }
                let mut changes = Vec::new();
                if whole {
                    for item in trees.scan(TREE, &partition_key(&stream, ""))? {
                        changes.push((item?.0, None));
                    }
                }
                for (partition, position) in &moved.positions {
                    let key = partition_key(&stream, partition);
                    let sealed = seal(&key, position.as_bytes());
                    changes.push((key, Some(sealed)));
                }
                let meta = serde_json::to_vec(&moved.meta).map_err(|e| e.to_string())?;
                changes.push((stream.as_bytes().to_vec(), Some(seal(stream.as_bytes(), &meta))));
                trees.apply(TREE, changes)?;
                if faults::fails("cache.after") {
                    return Err("crash point".to_owned());
                }
                Ok(())
            })
            .await;
        match stored {
            Some(Ok(())) => {}
            Some(Err(why)) => {
                tracing::warn!(code = "cache_write_failed", why, "the cache lags; the lake holds the truth")
            }
            None => tracing::debug!("no cache; the lake holds the truth"),
        }
    }

    /// Forgets the progress of `stream`.
    pub async fn forget_positions(&self, stream: &str) {
        let stream = stream.to_owned();
        self.run(move |trees| {
            let Ok(known) = trees.scan(TREE, &partition_key(&stream, "")) else { return };
            let mut changes: Vec<_> = known.into_iter().flatten().map(|(key, _)| (key, None)).collect();
            changes.push((stream.into_bytes(), None));
            if let Err(why) = trees.apply(TREE, changes) {
                tracing::warn!(code = "cache_write_failed", why, "old progress stays in the cache; the lake decides");
            }
        })
        .await;
    }

    /// A value of `tree` by `key`.
    pub async fn value(&self, tree: &'static str, key: &str) -> Option<Vec<u8>> {
        let key = key.to_owned();
        self.run(move |trees| {
            let sealed = trees.get(tree, key.as_bytes()).ok()??;
            unseal(key.as_bytes(), &sealed).map(<[u8]>::to_vec)
        })
        .await?
    }

    /// All values of `tree`.
    pub async fn values(&self, tree: &'static str) -> Vec<(String, Vec<u8>)> {
        self.run(move |trees| {
            let known = trees.scan(tree, b"").unwrap_or_default().into_iter().flatten();
            known
                .filter_map(|(key, sealed)| {
                    let value = unseal(&key, &sealed)?.to_vec();
                    Some((String::from_utf8(key).ok()?, value))
                })
                .collect()
        })
        .await
        .unwrap_or_default()
    }

    /// Stores values in `tree` and removes keys from it, in one step.
    pub async fn store_values(&self, tree: &'static str, values: Vec<(String, Vec<u8>)>, removed: Vec<String>) {
        self.run(move |trees| {
            let mut changes = Vec::with_capacity(values.len() + removed.len());
            for (key, value) in values {
                let sealed = seal(key.as_bytes(), &value);
                changes.push((key.into_bytes(), Some(sealed)));
            }
            changes.extend(removed.into_iter().map(|key| (key.into_bytes(), None)));
            if let Err(why) = trees.apply(tree, changes) {
                tracing::warn!(code = "cache_write_failed", why, "the cache lags; the lake holds the truth");
            }
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(epoch: u64, positions: &[(&str, &str)]) -> Moved {
        let positions = positions.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        Moved { meta: Meta { table_id: "t".to_owned(), epoch, generation: 1, newest_event_us: None }, positions }
    }

    #[tokio::test]
    async fn test_positions_accumulate_over_epochs_and_streams_do_not_mix() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (cache, _) = Cache::open(&dir.path().join("cache"), 0);
        cache.store_positions("a/s", moved(1, &[("0", "5"), ("1", "7")]), false).await;
        cache.store_positions("a/s", moved(2, &[("1", "9")]), false).await;
        cache.store_positions("a/s2", moved(1, &[("0", "1")]), false).await;
        let cached = cache.positions("a/s").await.expect("cached");
        assert_eq!(cached.meta.epoch, 2);
        assert_eq!(cached.positions, [("0", "5"), ("1", "9")].map(|(a, b)| (a.to_owned(), b.to_owned())).into());
        cache.store_positions("a/s", moved(9, &[("x", "1")]), true).await;
        assert_eq!(cache.positions("a/s").await.expect("cached").positions.len(), 1);
        cache.forget_positions("a/s").await;
        assert_eq!(cache.positions("a/s").await, None);
        assert!(cache.positions("a/s2").await.is_some());
    }
}
