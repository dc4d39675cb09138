//! Whether a store keeps the one promise that everything rests on: a put that must not replace does not.

use bytes::Bytes;

use super::Lake;
use super::error::LakeError;
use super::io::{Io, Put, Tries};

/// The object that is put to find out. It stays, so that a later look costs one request.
const PATH: &str = "control/create-only";
/// Stores of which there are many makes. A folder's store is our own.
const ASKED: [&str; 3] = ["s3:", "gs:", "az:"];

impl Lake {
    /// Refuses a remote store that replaces what it must not, before anything is put that somebody else may hold.
    /// Asked once in the life of this lake.
    pub(super) async fn ensure_create_only(&self) -> Result<(), LakeError> {
        if !ASKED.iter().any(|scheme| self.url().starts_with(scheme)) {
            return Ok(());
        }
        self.create_only.get_or_try_init(|| ask(&self.io)).await?;
        Ok(())
    }
}

async fn ask(io: &Io) -> Result<(), LakeError> {
    let mut tries = Tries::new(PATH);
    let mut created = false;
    loop {
        match io.put_new(PATH, Bytes::from_static(b"{}")).await {
            Ok(Put::Exists) => return Ok(()),
            Ok(Put::Created) if created => {
                let message = format!("the store replaced {PATH}, which was put to be created only; use another store");
                return Err(LakeError::config("lake_replaces", message));
            }
            Ok(Put::Created) => created = true,
            Err(error) => tries.again(error).await?,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::sync::Arc;

    use adapters::contract::Clock;
    use async_trait::async_trait;
    use futures::stream::BoxStream;
    use object_store::memory::InMemory;
    use object_store::path::Path;
    use object_store::{
        CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
        PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    };

    use super::*;
    use crate::lake::tests::{Fail, FailingStore, Fault};

    /// A store that does not know conditions.
    #[derive(Debug)]
    struct Replacing(InMemory);

    impl fmt::Display for Replacing {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Replacing")
        }
    }

    #[async_trait]
    impl ObjectStore for Replacing {
        async fn put_opts(&self, location: &Path, payload: PutPayload, _: PutOptions) -> Result<PutResult> {
            self.0.put(location, payload).await
        }

        async fn put_multipart_opts(&self, at: &Path, o: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
            self.0.put_multipart_opts(at, o).await
        }

        async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
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

    #[derive(Debug)]
    struct Noon;

    impl Clock for Noon {
        fn now_us(&self) -> i64 {
            crate::lake::tests::NOON_US
        }
    }

    fn lake(store: Arc<dyn ObjectStore>, url: &str) -> Arc<Lake> {
        Lake::with_seed(store, url, Arc::new(Noon), 1)
    }

    #[tokio::test(start_paused = true)]
    async fn test_create_only_refuses_a_remote_store_that_replaces() {
        for url in ["s3://b/p", "gs://b", "az://c"] {
            let lake = lake(Arc::new(Replacing(InMemory::new())), url);
            // Asked again, it is refused again.
            for _ in 0..2 {
                let id = "acme/one".parse().unwrap();
                let error = lake.control_create(&id, 1, &serde_json::json!({})).await.unwrap_err();
                assert_eq!((error.class, error.code), (crate::lake::LakeErrorClass::Config, "lake_replaces"));
            }
        }
        assert!(lake(Arc::new(Replacing(InMemory::new())), "file:x").ensure_create_only().await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn test_create_only_takes_its_own_lost_put_for_no_refusal_and_asks_once() {
        let store = FailingStore::new(Arc::new(InMemory::new()));
        store.arm(Fail::put(PATH, Fault::AFTER));
        let lake = lake(Arc::new(store.clone()), "s3://b");
        lake.ensure_create_only().await.unwrap();
        store.arm(Fail::put(PATH, Fault::BEFORE));
        lake.ensure_create_only().await.unwrap();
    }
}
