//! What stands between the lake and its store: no request without a limit in time, not too many at once, and none but a
//! probe while the store fails.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryFutureExt};
use metrics::counter;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::beat::Beat;
use super::circuit::{Circuit, Pass};
use super::error::{LakeError, LakeErrorClass, honest};
use crate::telemetry::metrics::LAKE_FAILURES_TOTAL;

/// Requests under way at once. Far more than one stream needs, few enough that thousands of streams neither open a
/// connection each nor fill the pool of threads that the local store works on.
const REQUESTS_MAX: usize = 192;
/// Answers that a listing of one folder may take: its pages of a thousand names.
const LIST_PAGES: u32 = 6;
/// Answers' time for what a store does by itself with a whole object.
const COPY_ANSWERS: u32 = 6;
/// What a put may take longer for each MiB that it carries: 1 MiB/s is the slowest link that is of any use.
const PER_MIB: Duration = Duration::from_secs(1);

/// No answer came in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("no answer in time")]
pub(crate) struct Silent;

fn generic(source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Generic { store: "lake", source: Box::new(source) }
}

#[derive(Debug)]
struct Inner {
    store: Arc<dyn ObjectStore>,
    circuit: Arc<Circuit>,
    requests: Semaphore,
    /// Requests that the store failed, for those who are told less by what stands between.
    failures: AtomicU64,
    /// How long a request may take until its answer, or the next part of it, comes.
    answer: Duration,
}

/// A store that is asked with care, and who is told that something moves.
#[derive(Debug, Clone)]
pub(crate) struct Guard(Arc<Inner>, Beat);

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guard({})", self.0.store)
    }
}

impl Guard {
    /// `seed` stirs the pauses of the circuit, `answer` is how long the store may say nothing.
    pub(crate) fn new(store: Arc<dyn ObjectStore>, seed: u64, answer: Duration) -> Self {
        let requests = Semaphore::new(REQUESTS_MAX);
        let inner = Inner { store, circuit: Circuit::new(seed), requests, failures: AtomicU64::new(0), answer };
        Self(Arc::new(inner), Beat::default())
    }

    /// The same store, with signs of life to `beat`.
    pub(crate) fn beating(&self, beat: Beat) -> Self {
        Self(Arc::clone(&self.0), beat)
    }

    /// Tells the circuit how a request ended. A refusal is an answer; so is a full disk, which reads do not know of.
    fn tell<T>(&self, pass: Pass, result: &Result<T>) {
        use LakeErrorClass as C;
        let error = match result {
            Ok(_)
            | Err(
                Error::NotFound { .. }
                | Error::AlreadyExists { .. }
                | Error::Precondition { .. }
                | Error::NotModified { .. },
            ) => return pass.answered(),
            Err(error) => LakeError::store("", error),
        };
        if !matches!(error.class, C::Transient | C::Auth) {
            return pass.answered();
        }
        self.0.failures.fetch_add(1, Ordering::Relaxed);
        counter!(LAKE_FAILURES_TOTAL).increment(1);
        pass.failed(error.code);
    }

    /// Requests that the store failed so far.
    pub(crate) fn failures(&self) -> u64 {
        self.0.failures.load(Ordering::Relaxed)
    }

    async fn ask<T>(&self, limit: Duration, request: impl Future<Output = Result<T>>) -> Result<T> {
        let _turn = self.1.while_waiting(self.0.requests.acquire()).await.map_err(generic)?;
        let pass = self.1.while_waiting(self.0.circuit.admit()).await.map_err(generic)?;
        let answer = self.1.while_waiting(timeout(limit, request)).await;
        let result = answer.unwrap_or_else(|_| Err(generic(Silent))).map_err(honest);
        self.tell(pass, &result);
        result
    }

    /// A stream of answers, each of which has to come in time.
    fn follow<T: Send + 'static>(
        &self,
        open: impl FnOnce(&Arc<dyn ObjectStore>) -> BoxStream<'static, Result<T>> + Send + 'static,
    ) -> BoxStream<'static, Result<T>> {
        let guard = self.clone();
        let answers = async move {
            let pass = guard.1.while_waiting(guard.0.circuit.admit()).await.map_err(generic)?;
            let answers = open(&guard.0.store);
            Ok(guard.timed(answers, Some(pass)))
        };
        answers.try_flatten_stream().boxed()
    }

    fn timed<T: Send + 'static>(
        &self,
        answers: BoxStream<'static, Result<T>>,
        pass: Option<Pass>,
    ) -> BoxStream<'static, Result<T>> {
        let limit = self.0.answer;
        let guard = self.clone();
        let step = move |(mut answers, mut pass, guard): (BoxStream<'static, Result<T>>, Option<Pass>, Self)| async move {
            let next = guard.1.while_waiting(timeout(limit, answers.next())).await;
            let next = next.unwrap_or_else(|_| Some(Err(generic(Silent))));
            match (pass.take(), &next) {
                (Some(pass), Some(item)) => guard.tell(pass, item),
                (Some(pass), None) => pass.answered(),
                (None, _) => {}
            }
            next.map(|item| (item, (answers, pass, guard)))
        };
        // Some readers ask on after the end.
        futures::stream::unfold((answers, pass, guard), step).fuse().boxed()
    }
}

fn mib(bytes: usize) -> u32 {
    u32::try_from(bytes >> 20).unwrap_or(u32::MAX)
}

#[async_trait]
impl ObjectStore for Guard {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let limit = self.0.answer + PER_MIB * mib(payload.content_length());
        self.ask(limit, self.0.store.put_opts(location, payload, options)).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let upload = self.ask(self.0.answer, self.0.store.put_multipart_opts(location, options)).await?;
        Ok(Box::new(Upload { guard: self.clone(), upload }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let mut got = self.ask(self.0.answer, self.0.store.get_opts(location, options)).await?;
        got.payload = match got.payload {
            GetResultPayload::Stream(parts) => GetResultPayload::Stream(self.timed(parts, None)),
            #[allow(unreachable_patterns, reason = "a file, where the platform has files")]
            other => other,
        };
        Ok(got)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let bytes = ranges.iter().map(|range| range.end.saturating_sub(range.start)).sum::<u64>();
        let limit = self.0.answer + PER_MIB * mib(usize::try_from(bytes).unwrap_or(usize::MAX));
        self.ask(limit, self.0.store.get_ranges(location, ranges)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.follow(move |store| store.delete_stream(locations))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = prefix.cloned();
        self.follow(move |store| store.list(prefix.as_ref()))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let (prefix, offset) = (prefix.cloned(), offset.clone());
        self.follow(move |store| store.list_with_offset(prefix.as_ref(), &offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        // May take many pages, of which the client tells nothing before it has the last.
        self.ask(self.0.answer * LIST_PAGES, self.0.store.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.ask(self.0.answer * COPY_ANSWERS, self.0.store.copy_opts(from, to, options)).await
    }
}

#[derive(Debug)]
struct Upload {
    guard: Guard,
    upload: Box<dyn MultipartUpload>,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (guard, limit) = (self.guard.clone(), self.guard.0.answer + PER_MIB * mib(data.content_length()));
        let part = self.upload.put_part(data);
        async move { guard.ask(limit, part).await }.boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.guard.clone().ask(self.guard.0.answer * COPY_ANSWERS, self.upload.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.guard.clone().ask(self.guard.0.answer, self.upload.abort()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::beat::BEAT_EVERY;
    use object_store::memory::InMemory;
    use object_store::{ObjectStoreExt, PutMode};
    use tokio::time::Instant;

    const ANSWER: Duration = Duration::from_secs(10);

    /// A store that never answers to the first `silent` requests.
    #[derive(Debug)]
    struct Hole {
        inner: InMemory,
        silent: std::sync::atomic::AtomicI32,
        asked: std::sync::atomic::AtomicU32,
    }

    impl fmt::Display for Hole {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Hole")
        }
    }

    impl Hole {
        fn new(silent: i32) -> Arc<Self> {
            Arc::new(Self { inner: InMemory::new(), silent: silent.into(), asked: 0.into() })
        }

        async fn swallow(&self) {
            self.asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if self.silent.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) > 0 {
                std::future::pending::<()>().await;
            }
        }
    }

    #[async_trait]
    impl ObjectStore for Hole {
        async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
            self.swallow().await;
            self.inner.put_opts(location, payload, options).await
        }

        async fn put_multipart_opts(
            &self,
            location: &Path,
            options: PutMultipartOptions,
        ) -> Result<Box<dyn MultipartUpload>> {
            self.inner.put_multipart_opts(location, options).await
        }

        async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
            self.swallow().await;
            self.inner.get_opts(location, options).await
        }

        fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
            self.inner.delete_stream(locations)
        }

        fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
            if self.silent.load(std::sync::atomic::Ordering::Relaxed) > 0 {
                return futures::stream::pending().boxed();
            }
            self.inner.list(prefix)
        }

        async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
            self.inner.list_with_delimiter(prefix).await
        }

        async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
            self.inner.copy_opts(from, to, options).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn test_guard_gives_up_on_a_request_without_an_answer() {
        let guard = Guard::new(Hole::new(2), 1, ANSWER);
        let (path, began) = (Path::from("a"), Instant::now());
        let error = guard.put(&path, "x".into()).await.unwrap_err();
        assert_eq!(LakeError::store("put of a", &error).code, "lake_silent");
        assert!(guard.list(None).next().await.unwrap().is_err());
        assert_eq!(began.elapsed(), ANSWER * 2);
        assert!(guard.get(&path).await.is_err());
        guard.put(&path, "x".into()).await.unwrap();
        assert_eq!(guard.get(&path).await.unwrap().bytes().await.unwrap(), "x");
    }

    #[tokio::test(start_paused = true)]
    async fn test_guard_gives_a_large_put_the_time_that_it_needs() {
        let guard = Guard::new(Hole::new(1), 1, ANSWER);
        let began = Instant::now();
        assert!(guard.put(&Path::from("a"), vec![0; 5 << 20].into()).await.is_err());
        assert_eq!(began.elapsed(), ANSWER + PER_MIB * 5);
    }

    #[tokio::test(start_paused = true)]
    async fn test_guard_does_not_take_refusals_for_an_outage() {
        let guard = Guard::new(Hole::new(0), 1, ANSWER);
        let (path, began) = (Path::from("a"), Instant::now());
        guard.put(&path, "x".into()).await.unwrap();
        for _ in 0..20 {
            assert!(guard.get(&Path::from("absent")).await.is_err());
            let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            assert!(guard.put_opts(&path, "y".into(), create).await.is_err());
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    /// The longest that a guarded request said nothing, however it went.
    async fn longest_silence<T>(guard: &Guard, ask: impl AsyncFnOnce(Guard) -> T) -> (T, Duration) {
        let marks = Arc::new(std::sync::Mutex::new(vec![Instant::now()]));
        let told = Arc::clone(&marks);
        let asked = ask(guard.beating(Beat::new(move || told.lock().unwrap().push(Instant::now())))).await;
        let mut marks = marks.lock().unwrap();
        marks.push(Instant::now());
        (asked, marks.windows(2).map(|two| two[1] - two[0]).max().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn test_guard_gives_signs_of_life_however_long_an_outage_lasts() {
        let path = Path::from("a");
        // An answer that does not come, of a put that may take long.
        let guard = Guard::new(Hole::new(1), 1, ANSWER);
        let put = async |guard: Guard| guard.put(&path, vec![0; 50 << 20].into()).await.is_err();
        assert_eq!(longest_silence(&guard, put).await, (true, BEAT_EVERY));
        // A listing that says nothing.
        let guard = Guard::new(Hole::new(1), 1, ANSWER);
        let list = async |guard: Guard| guard.list(None).next().await.unwrap().is_err();
        assert_eq!(longest_silence(&guard, list).await, (true, BEAT_EVERY));
        // A circuit that rests, for as long as its patience.
        let guard = Guard::new(Hole::new(100), 1, ANSWER);
        let asks = async |guard: Guard| {
            for _ in 0..20 {
                let _ = guard.get(&path).await;
            }
        };
        assert_eq!(longest_silence(&guard, asks).await.1, BEAT_EVERY);
        // A queue of others' requests.
        let guard = Guard::new(Hole::new(0), 1, ANSWER);
        let all = guard.0.requests.acquire_many(u32::try_from(REQUESTS_MAX).unwrap()).await.unwrap();
        let wait =
            async |guard: Guard| tokio::time::timeout(Duration::from_secs(3_600), guard.get(&path)).await.is_err();
        let (waited, silence) = longest_silence(&guard, wait).await;
        assert!(waited && silence == BEAT_EVERY, "{silence:?}");
        drop(all);
    }

    #[tokio::test(start_paused = true)]
    async fn test_guard_holds_an_outage_from_the_store_and_all_streams_go_on_after_it() {
        let hole = Hole::new(20);
        let guard = Guard::new(Arc::<Hole>::clone(&hole), 1, ANSWER);
        let streams: Vec<_> = (0..100)
            .map(|n| {
                let guard = guard.clone();
                tokio::spawn(async move { while guard.put(&Path::from(format!("{n}")), "x".into()).await.is_err() {} })
            })
            .collect();
        for stream in streams {
            stream.await.unwrap();
        }
        assert_eq!(guard.list(None).count().await, 100);
        // All hundred were under way at first; then one at a time.
        assert!(hole.asked.load(std::sync::atomic::Ordering::Relaxed) <= 230);
    }
}
