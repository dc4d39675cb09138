//! The small memories of sources, held in memory and written behind.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adapters::contract::Keep;

use super::Cache;
use super::store::{seal, unseal};
use super::trees::Trees;

const TREE: &str = "keep";

/// The contract's limit for one value.
const VALUE_BYTES_MAX: usize = 64 * 1024;

/// A [`Keep`] in sled. Reads never wait for the disk.
pub struct SledKeep {
    inner: Arc<Mutex<Inner>>,
    cache: Cache,
}

#[derive(Default)]
struct Inner {
    values: HashMap<String, Vec<u8>>,
    /// Changed since the last write; at most one entry a key, so the keys bound it.
    dirty: HashMap<String, Option<Vec<u8>>>,
    writing: bool,
}

impl fmt::Debug for SledKeep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SledKeep").field("keys", &lock(&self.inner).values.len()).finish()
    }
}

impl SledKeep {
    /// Loads what the cache has.
    pub async fn load(cache: Cache) -> Self {
        let values = cache
            .run(|trees| {
                let mut values = HashMap::new();
                for (key, sealed) in trees.scan(TREE, b"").unwrap_or_default().into_iter().flatten() {
                    if let (Ok(name), Some(value)) = (std::str::from_utf8(&key), unseal(&key, &sealed)) {
                        values.insert(name.to_owned(), value.to_vec());
                    }
                }
                values
            })
            .await
            .unwrap_or_default();
        Self { inner: Arc::new(Mutex::new(Inner { values, ..Inner::default() })), cache }
    }

    fn change(&self, key: &str, value: Option<Vec<u8>>) {
        let mut inner = lock(&self.inner);
        match &value {
            Some(value) => inner.values.insert(key.to_owned(), value.clone()),
            None => inner.values.remove(key),
        };
        inner.dirty.insert(key.to_owned(), value);
        if inner.writing {
            return;
        }
        inner.writing = true;
        drop(inner);
        let shared = Arc::clone(&self.inner);
        if !self.cache.try_run(move |trees| write_dirty(trees, &shared)) {
            // Where the queue is full the change stays dirty and goes with the next one.
            lock(&self.inner).writing = false;
        }
    }
}

fn write_dirty(trees: &dyn Trees, shared: &Mutex<Inner>) {
    let dirty = {
        let mut inner = lock(shared);
        inner.writing = false;
        std::mem::take(&mut inner.dirty)
    };
    let mut changes: Vec<_> = dirty
        .into_iter()
        .map(|(key, value)| {
            let sealed = value.map(|value| seal(key.as_bytes(), &value));
            (key.into_bytes(), sealed)
        })
        .collect();
    changes.sort();
    if let Err(why) = trees.apply(TREE, changes) {
        tracing::warn!(code = "cache_write_failed", why, "a source's memory was not cached");
    }
    // What a source asked for, a Retry-After above all, holds also after a kill. Changes that come meanwhile go together
    // with the next write, so a busy node does not flush more often than it can.
    if let Err(why) = trees.flush() {
        tracing::warn!(code = "cache_flush_failed", why, "a source's memory may be forgotten by a kill");
    }
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Keep for SledKeep {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        lock(&self.inner).values.get(key).cloned()
    }

    fn put(&self, key: &str, value: &[u8]) {
        if value.len() <= VALUE_BYTES_MAX {
            self.change(key, Some(value.to_vec()));
        } else {
            tracing::warn!(
                code = "keep_too_large",
                key,
                bytes = value.len(),
                "a source's memory is above 64 KiB and was not kept"
            );
        }
    }

    fn remove(&self, key: &str) {
        self.change(key, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn test_values_come_back_from_the_cache() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (cache, _) = Cache::open(&dir.path().join("cache"), 0);
        let keep = SledKeep::load(cache.clone()).await;
        keep.put("a", b"1");
        keep.put("b", b"2");
        keep.remove("a");
        cache.flush().await;
        let again = SledKeep::load(cache).await;
        assert_eq!(again.get("a"), None);
        assert_eq!(again.get("b").as_deref(), Some(&b"2"[..]));
    }
}
