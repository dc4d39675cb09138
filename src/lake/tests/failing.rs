//! A store that fails where it is told to.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// When in an operation the fault comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Before,
    /// It was applied, its answer is lost.
    After,
}

/// One fault.
#[derive(Debug, Clone)]
pub(crate) struct Fail {
    pub(crate) operation: &'static str,
    pub(crate) path: &'static str,
    pub(crate) when: When,
    /// Matches to let pass first.
    pub(crate) skip: u32,
    /// Matches to fail then.
    pub(crate) times: u32,
}

impl Fail {
    pub(crate) fn put(path: &'static str, when: When) -> Self {
        Self { operation: "put", path, when, skip: 0, times: 1 }
    }
}

/// Random faults of a seed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Storm {
    pub(crate) state: u64,
    /// Of 1000 operations, so many fail.
    pub(crate) per_mille: u64,
}

#[derive(Debug, Default)]
struct Plan {
    faults: Vec<Fail>,
    storm: Option<Storm>,
    fired: u32,
    log: Vec<String>,
}

/// A decorator.
#[derive(Debug, Clone)]
pub(crate) struct FailingStore {
    inner: Arc<dyn ObjectStore>,
    plan: Arc<Mutex<Plan>>,
}

impl fmt::Display for FailingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FailingStore")
    }
}

fn fault() -> Error {
    Error::Generic { store: "failing", source: "status 503".into() }
}

impl FailingStore {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, plan: Arc::default() }
    }

    pub(crate) fn arm(&self, fault: Fail) {
        self.plan.lock().unwrap().faults.push(fault);
    }

    /// No fault any more.
    pub(crate) fn heal(&self) {
        let mut plan = self.plan.lock().unwrap();
        plan.faults.clear();
        plan.storm = None;
    }

    pub(crate) fn storm(&self, storm: Option<Storm>) {
        self.plan.lock().unwrap().storm = storm;
    }

    /// How many faults came.
    pub(crate) fn fired(&self) -> u32 {
        self.plan.lock().unwrap().fired
    }

    /// Operations so far, `put path`.
    pub(crate) fn log(&self) -> Vec<String> {
        self.plan.lock().unwrap().log.clone()
    }

    fn ask(&self, operation: &'static str, path: &str) -> Option<When> {
        let mut plan = self.plan.lock().unwrap();
        plan.log.push(format!("{operation} {path}"));
        let mut found = None;
        for fault in &mut plan.faults {
            if fault.operation == operation && path.contains(fault.path) && fault.times > 0 {
                if fault.skip > 0 {
                    fault.skip -= 1;
                } else {
                    fault.times -= 1;
                    found = Some(fault.when);
                }
                break;
            }
        }
        if found.is_none()
            && let Some(storm) = &mut plan.storm
        {
            storm.state = storm.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let drawn = storm.state >> 33;
            if drawn % 1000 < storm.per_mille {
                found = Some(if (drawn / 1000).is_multiple_of(2) { When::Before } else { When::After });
            }
        }
        plan.fired += u32::from(found.is_some());
        found
    }
}

#[async_trait]
impl ObjectStore for FailingStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let fault_at = self.ask("put", location.as_ref());
        if fault_at == Some(When::Before) {
            return Err(fault());
        }
        let result = self.inner.put_opts(location, payload, options).await;
        if fault_at == Some(When::After) { Err(fault()) } else { result }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        match self.ask("get", location.as_ref()) {
            Some(_) => Err(fault()),
            None => self.inner.get_opts(location, options).await,
        }
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        match self.ask("list", prefix.map_or("", |p| p.as_ref())) {
            Some(_) => Err(fault()),
            None => self.inner.list_with_delimiter(prefix).await,
        }
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// A store that gives way before and after each put and get, so that a future can be dropped there.
#[derive(Debug)]
pub(crate) struct YieldingStore(pub(crate) Arc<dyn ObjectStore>);

impl fmt::Display for YieldingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YieldingStore")
    }
}

#[async_trait]
impl ObjectStore for YieldingStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        tokio::task::yield_now().await;
        let result = self.0.put_opts(location, payload, options).await;
        tokio::task::yield_now().await;
        result
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        tokio::task::yield_now().await;
        self.0.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}
