//! A store that takes no more than so many bytes a second, or nothing at all for a while, around a store that takes more.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// What the line does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speed {
    BytesPerS(u64),
    Stalled,
    Free,
}

/// The one line through which all bytes go, and its meter.
#[derive(Debug)]
pub(super) struct Line {
    speed: watch::Sender<Speed>,
    taken: AtomicU64,
    free_at: Mutex<Option<Instant>>,
}

impl Line {
    pub(super) fn new(bytes_per_s: u64) -> Self {
        Self {
            speed: watch::Sender::new(Speed::BytesPerS(bytes_per_s)),
            taken: AtomicU64::new(0),
            free_at: Mutex::default(),
        }
    }

    /// From now on nothing gets through, what is on its way neither.
    pub(super) fn stall(&self) {
        self.speed.send_replace(Speed::Stalled);
    }

    /// From now on there is no limit.
    pub(super) fn lift(&self) {
        self.speed.send_replace(Speed::Free);
    }

    /// Bytes that were put.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Waits until `bytes` are through. Those who come later wait behind those who came before.
    async fn pass(&self, bytes: u64) {
        let mut speed = self.speed.subscribe();
        let now = *speed.borrow();
        if let Speed::BytesPerS(rate) = now {
            let until = {
                let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
                let now = Instant::now();
                #[allow(clippy::cast_precision_loss, reason = "a time to wait")]
                let took = Duration::from_secs_f64(bytes as f64 / rate as f64);
                let until = free_at.map_or(now, |at| at.max(now)) + took;
                *free_at.insert(until)
            };
            sleep_until(until).await;
        }
        // Fails only without a sender, and this line has it.
        let _ = speed.wait_for(|speed| *speed != Speed::Stalled).await;
        self.taken.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// The slowed store.
#[derive(Debug)]
pub(super) struct Slow {
    inner: Arc<dyn ObjectStore>,
    line: Arc<Line>,
}

impl Slow {
    pub(super) fn new(inner: Arc<dyn ObjectStore>, line: Arc<Line>) -> Self {
        Self { inner, line }
    }
}

impl fmt::Display for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slow({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Slow {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.line.pass(payload.content_length() as u64).await;
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
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

    #[tokio::test(start_paused = true)]
    async fn test_the_line_takes_so_many_bytes_a_second_from_all_together() {
        let line = Arc::new(Line::new(1000));
        let store = Slow::new(Arc::new(InMemory::new()), Arc::clone(&line));
        let started = Instant::now();
        let (a, b) = (Path::from("a"), Path::from("b"));
        let both = tokio::join!(
            store.put(&a, PutPayload::from(vec![0u8; 1500])),
            store.put(&b, PutPayload::from(vec![0u8; 1500]))
        );
        assert!(both.0.is_ok() && both.1.is_ok());
        assert_eq!((started.elapsed().as_secs(), line.taken()), (3, 3000));
        let caught = tokio::spawn({
            let (store, a) = (Slow::new(Arc::new(InMemory::new()), Arc::clone(&line)), a.clone());
            async move { store.put(&a, PutPayload::from(vec![0u8; 500])).await }
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        line.stall();
        tokio::time::sleep(Duration::from_secs(7)).await;
        assert_eq!((caught.is_finished(), line.taken()), (false, 3000));
        line.lift();
        caught.await.expect("ended").expect("put");
        store.put(&a, PutPayload::from(vec![0u8; 1 << 20])).await.expect("put");
        assert_eq!(started.elapsed().as_secs(), 10);
    }
}
