//! A store that counts what is asked of it, and how long records waited for the commits that go through it.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use adapters::contract::{Clock, SystemClock};
use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};

use crate::times::timestamp_us;

/// What was counted.
#[derive(Debug, Default)]
pub(super) struct Meter {
    puts: AtomicU64,
    gets: AtomicU64,
    lists: AtomicU64,
    /// By table, when the epoch whose record was put began to collect, µs.
    collecting: Mutex<HashMap<String, i64>>,
    /// From the moment an epoch began to collect, which is when its oldest record came, to its commit; ms.
    lags: Mutex<Vec<f64>>,
}

/// The counts at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Count {
    pub(super) puts: u64,
    pub(super) gets: u64,
    pub(super) lists: u64,
}

impl Meter {
    pub(super) fn count(&self) -> Count {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Count { puts: read(&self.puts), gets: read(&self.gets), lists: read(&self.lists) }
    }

    /// The lags of the commits since this was asked last, one for each.
    pub(super) fn take_lags(&self) -> Vec<f64> {
        std::mem::take(&mut *self.lags.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn collecting(&self) -> std::sync::MutexGuard<'_, HashMap<String, i64>> {
        self.collecting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers of an epoch record when the epoch began.
    fn look(&self, path: &str, payload: &PutPayload) {
        if !path.starts_with("results/") {
            return;
        }
        let bytes: Vec<u8> = payload.iter().flat_map(|part| part.iter().copied()).collect();
        let record: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let (table, began) = (record["table"].as_str(), record["started_at"].as_str().and_then(timestamp_us));
        if let (Some(table), Some(began)) = (table, began) {
            self.collecting().insert(table.to_owned(), began);
        }
    }

    /// A log entry of a table is there; if it is an epoch's, its records have arrived.
    fn committed(&self, path: &str) {
        let Some((table, _)) = path.split_once("/_delta_log/") else { return };
        let Some(began) = self.collecting().remove(table) else { return };
        #[allow(clippy::cast_precision_loss, reason = "a time of seconds in µs")]
        let lag = (SystemClock.now_us() - began) as f64 / 1000.0;
        self.lags.lock().unwrap_or_else(PoisonError::into_inner).push(lag);
    }
}

/// The store that is counted.
#[derive(Debug)]
pub(super) struct Metered {
    inner: Arc<dyn ObjectStore>,
    meter: Arc<Meter>,
}

impl Metered {
    pub(super) fn new(inner: Arc<dyn ObjectStore>, meter: Arc<Meter>) -> Self {
        Self { inner, meter }
    }
}

impl fmt::Display for Metered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metered({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Metered {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.meter.puts.fetch_add(1, Ordering::Relaxed);
        self.meter.look(location.as_ref(), &payload);
        let put = self.inner.put_opts(location, payload, opts).await?;
        self.meter.committed(location.as_ref());
        Ok(put)
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.meter.puts.fetch_add(1, Ordering::Relaxed);
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.meter.gets.fetch_add(1, Ordering::Relaxed);
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.meter.lists.fetch_add(1, Ordering::Relaxed);
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.meter.lists.fetch_add(1, Ordering::Relaxed);
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn test_commits_of_epochs_are_told_from_other_log_entries() {
        let meter = Arc::new(Meter::default());
        let store = Metered::new(Arc::new(InMemory::new()), Arc::clone(&meter));
        let put = async |path: &str, text: &'static str| store.put(&Path::from(path), text.into()).await.expect("put");
        put("tables/a/b/_delta_log/0.json", "claim").await;
        put("results/a/b/1-1.json", r#"{"table":"tables/a/b","started_at":"2024-05-01T12:00:00Z"}"#).await;
        assert!(meter.take_lags().is_empty(), "nothing is committed yet");
        put("tables/a/c/_delta_log/1.json", "another stream's").await;
        put("tables/a/b/_delta_log/1.json", "epoch").await;
        put("tables/a/b/_delta_log/2.json", "claim").await;
        let lags = meter.take_lags();
        assert!(lags.len() == 1 && lags[0] > 0.0, "{lags:?}");
        store.get(&Path::from("results/a/b/1-1.json")).await.expect("there");
        let Count { puts, gets, lists } = meter.count();
        assert_eq!((puts, gets, lists), (5, 1, 0));
    }
}
