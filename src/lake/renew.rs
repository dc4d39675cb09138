//! A store whose credentials may change under it: references are followed again when it refuses, and every now and then.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;
use std::path::Path as FsPath;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adapters::contract::config::{Secret, SecretSource};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};
use tokio::time::Instant;

use super::error::{LakeError, LakeErrorClass};

/// How often the references are followed without a refusal, so that a rotation with a time of overlap goes unnoticed.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// The values of the options.
pub(super) type Values = BTreeMap<String, String>;
/// Makes a client of the store with these options.
pub(super) type Make = Box<dyn Fn(&Values) -> std::result::Result<Arc<dyn ObjectStore>, LakeError> + Send + Sync>;

struct Current {
    values: Values,
    store: Arc<dyn ObjectStore>,
    looked: Instant,
}

struct Inner {
    options: HashMap<String, Secret>,
    secrets: Arc<dyn SecretSource>,
    make: Make,
    current: Mutex<Current>,
}

/// A store that is made anew when what its options refer to has changed.
#[derive(Clone)]
pub(super) struct Renewing(Arc<Inner>);

impl fmt::Debug for Renewing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Renewing")
    }
}

impl fmt::Display for Renewing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Renewing")
    }
}

/// What the references of `options` lead to now; one that leads nowhere keeps what it led to before.
fn follow(options: &HashMap<String, Secret>, secrets: &dyn SecretSource, known: &Values) -> Values {
    let value = |(key, secret): (&String, &Secret)| {
        let found = secret.reference().and_then(|reference| match reference.split_once(':') {
            Some(("env", name)) => secrets.env(name),
            Some(("file", path)) => secrets.file(FsPath::new(path)).ok(),
            _ => None,
        });
        let found = found.filter(|value| !value.is_empty());
        let kept = || known.get(key).cloned().unwrap_or_else(|| secret.reveal().to_owned());
        (key.clone(), found.unwrap_or_else(kept))
    };
    options.iter().map(value).collect()
}

/// Whether the store refused these credentials.
fn denied<T>(result: &Result<T>) -> bool {
    matches!(result, Err(error) if LakeError::store("", error).class == LakeErrorClass::Auth)
}

impl Renewing {
    /// # Errors
    /// What `make` says of the options as they are.
    pub(super) fn new(
        options: &HashMap<String, Secret>,
        secrets: Arc<dyn SecretSource>,
        make: Make,
    ) -> std::result::Result<Self, LakeError> {
        let values: Values = options.iter().map(|(key, secret)| (key.clone(), secret.reveal().to_owned())).collect();
        let store = make(&values)?;
        let current = Mutex::new(Current { values, store, looked: Instant::now() });
        Ok(Self(Arc::new(Inner { options: options.clone(), secrets, make, current })))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Current) -> T) -> T {
        act(&mut self.0.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn present(&self) -> Arc<dyn ObjectStore> {
        self.with(|current| Arc::clone(&current.store))
    }

    /// The store, looked after where it is time to.
    async fn store(&self) -> Arc<dyn ObjectStore> {
        let due = self.with(|current| {
            let due = current.looked.elapsed() >= LOOK_EVERY;
            if due {
                current.looked = Instant::now();
            }
            due
        });
        if due {
            self.renew().await;
        }
        self.present()
    }

    /// Follows the references; true where another store came of it than `refused`.
    async fn renewed(&self, refused: &Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        self.renew().await;
        Some(self.present()).filter(|store| !Arc::ptr_eq(store, refused))
    }

    async fn renew(&self) {
        let known = self.with(|current| current.values.clone());
        let inner = Arc::clone(&self.0);
        let followed = tokio::task::spawn_blocking(move || {
            let values = follow(&inner.options, inner.secrets.as_ref(), &known);
            (values != known).then(|| ((inner.make)(&values), values))
        });
        match followed.await {
            Ok(Some((Ok(store), values))) => {
                tracing::info!(code = "lake_credentials_renewed", "the options of the lake's store have changed");
                self.with(|current| (current.store, current.values) = (store, values));
            }
            Ok(Some((Err(error), _))) => {
                tracing::warn!(code = error.code, message = error.message, "the new options of the lake make no store");
            }
            Ok(None) | Err(_) => {}
        }
    }

    /// As [`Self::ask`], of what is answered in parts, where the first is refused.
    fn ask_for_all<T: Send + 'static>(
        &self,
        request: impl Fn(&Arc<dyn ObjectStore>) -> BoxStream<'static, Result<T>> + Send + 'static,
    ) -> BoxStream<'static, Result<T>> {
        let renewing = self.clone();
        let parts = async move {
            let store = renewing.store().await;
            // An empty one has ended with the first look.
            let mut parts = request(&store).fuse();
            let first = parts.next().await;
            if first.as_ref().is_some_and(denied)
                && let Some(store) = renewing.renewed(&store).await
            {
                return request(&store);
            }
            futures::stream::iter(first).chain(parts).boxed()
        };
        parts.flatten_stream().boxed()
    }

    /// Asks, and once more with new credentials where there are any and the old ones were refused. A refused request
    /// was not carried out, so asking again does nothing twice.
    async fn ask<T, F: Future<Output = Result<T>>>(&self, request: impl Fn(Arc<dyn ObjectStore>) -> F) -> Result<T> {
        let store = self.store().await;
        let result = request(Arc::clone(&store)).await;
        if !denied(&result) {
            return result;
        }
        match self.renewed(&store).await {
            Some(store) => request(store).await,
            None => result,
        }
    }
}

#[async_trait]
impl ObjectStore for Renewing {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let (payload, options) = (&payload, &options);
        self.ask(|store| async move { store.put_opts(location, payload.clone(), options.clone()).await }).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let options = &options;
        self.ask(|store| async move { store.put_multipart_opts(location, options.clone()).await }).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let options = &options;
        self.ask(|store| async move { store.get_opts(location, options.clone()).await }).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.ask(|store| async move { store.get_ranges(location, ranges).await }).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let renewing = self.clone();
        async move { renewing.store().await.delete_stream(locations) }.flatten_stream().boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = prefix.cloned();
        self.ask_for_all(move |store| store.list(prefix.as_ref()))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let (prefix, offset) = (prefix.cloned(), offset.clone());
        self.ask_for_all(move |store| store.list_with_offset(prefix.as_ref(), &offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.ask(|store| async move { store.list_with_delimiter(prefix).await }).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let options = &options;
        self.ask(|store| async move { store.copy_opts(from, to, options.clone()).await }).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;
    use object_store::{Error, ObjectStoreExt};

    /// The file that a test changes.
    #[derive(Debug, Default)]
    struct File(Mutex<String>);

    impl SecretSource for File {
        fn env(&self, _: &str) -> Option<String> {
            None
        }

        fn file(&self, path: &FsPath) -> std::result::Result<String, String> {
            assert_eq!(path, FsPath::new("/run/key"));
            Ok(self.0.lock().unwrap().clone())
        }
    }

    /// A store that takes one key only.
    #[derive(Debug)]
    struct Locked(Arc<InMemory>, bool);

    impl fmt::Display for Locked {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Locked")
        }
    }

    impl Locked {
        fn check(&self) -> Result<()> {
            let path = String::new();
            if self.1 { Ok(()) } else { Err(Error::PermissionDenied { path, source: "status 403".into() }) }
        }
    }

    #[async_trait]
    impl ObjectStore for Locked {
        async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
            self.check()?;
            self.0.put_opts(location, payload, options).await
        }

        async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
            unreachable!("not used here")
        }

        async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
            self.check()?;
            self.0.get_opts(location, options).await
        }

        fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
            locations
        }

        fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
            match self.check() {
                Ok(()) => self.0.list(prefix),
                Err(error) => futures::stream::iter([Err(error)]).boxed(),
            }
        }

        async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
            self.0.list_with_delimiter(prefix).await
        }

        async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
            self.0.copy_opts(from, to, options).await
        }
    }

    fn renewing(file: &Arc<File>, right: &'static str) -> Renewing {
        let objects = Arc::new(InMemory::new());
        let make: Make = Box::new(move |values| {
            let store: Arc<dyn ObjectStore> = Arc::new(Locked(Arc::clone(&objects), values["key"] == right));
            Ok(store)
        });
        let options = HashMap::from([("key".to_owned(), Secret::resolved("old", "file:/run/key"))]);
        let secrets: Arc<dyn SecretSource> = Arc::<File>::clone(file);
        Renewing::new(&options, secrets, make).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn test_renew_follows_the_reference_when_the_store_refuses() {
        let file = Arc::new(File::default());
        let store = renewing(&file, "new");
        let path = Path::from("a");
        // An empty file is one that is being written.
        assert!(matches!(store.put(&path, "x".into()).await, Err(Error::PermissionDenied { .. })));
        *file.0.lock().unwrap() = "new".to_owned();
        store.put(&path, "x".into()).await.unwrap();
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "x");
    }

    /// A node that starts with a key that is over asks for nothing but listings.
    #[tokio::test(start_paused = true)]
    async fn test_renew_follows_the_reference_when_a_listing_is_refused() {
        let file = Arc::new(File::default());
        let store = renewing(&file, "new");
        assert!(store.list(None).next().await.unwrap().is_err());
        *file.0.lock().unwrap() = "new".to_owned();
        assert!(store.list(None).next().await.is_none());
        assert!(store.list_with_offset(None, &Path::from("a")).next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn test_renew_looks_now_and_then_without_a_refusal() {
        let file = Arc::new(File(Mutex::new("new".to_owned())));
        let store = renewing(&file, "old");
        store.put(&Path::from("a"), "x".into()).await.unwrap();
        tokio::time::advance(LOOK_EVERY).await;
        assert!(store.put(&Path::from("a"), "x".into()).await.is_err());
    }
}
