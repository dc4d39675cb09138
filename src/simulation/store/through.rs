//! The store's operations, each through its fate.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

use super::{Answer, FailingStore, Fault, rest};

fn exists(path: &str) -> Error {
    Error::AlreadyExists { path: path.to_owned(), source: "Server returned non-2xx status code: 409 Conflict".into() }
}

#[async_trait]
impl ObjectStore for FailingStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let path = location.as_ref();
        self.gate.pass().await;
        let fate = self.plan().ask("put", path);
        if matches!(fate.fault, Some(Fault::Before(_) | Fault::Silent)) {
            rest(fate.there).await;
            self.refused("put", path, fate).await?;
        }
        let create = matches!(options.mode, PutMode::Create);
        let (shared, at) = (Arc::clone(&self.shared), location.clone());
        let request = async move {
            rest(fate.there).await;
            match fate.fault {
                Some(Fault::Conflict) if create => return Err(exists(at.as_ref())),
                Some(Fault::Overtaken) if create => shared.overtake(&at).await,
                Some(Fault::Late(later)) => rest(later).await,
                _ => {}
            }
            shared.put(&at, payload, options).await
        };
        let result = if matches!(fate.fault, Some(Fault::Late(_))) {
            tokio::spawn(request);
            rest(fate.there).await;
            Err(Answer::Reset.error(path))
        } else if fate.there.is_zero() {
            request.await
        } else {
            // Once it is on its way it arrives, whatever becomes of its sender.
            tokio::spawn(request).await.unwrap_or_else(|_| Err(Answer::Reset.error(path)))
        };
        self.back("put", path, fate, result).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let path = location.as_ref();
        let fate = self.travel("multipart", path).await;
        self.refused("multipart", path, fate).await?;
        let inner = self.shared.inner.put_multipart_opts(location, options).await;
        let torn = fate.fault == Some(Fault::Torn);
        let upload = self.back("multipart", path, fate, inner).await?;
        Ok(if torn { Box::new(Torn { upload, path: path.to_owned() }) } else { upload })
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let path = location.as_ref();
        let fate = self.travel("get", path).await;
        self.refused("get", path, fate).await?;
        let result = self.shared.inner.get_opts(location, options).await;
        self.back("get", path, fate, result).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let path = location.as_ref();
        let fate = self.travel("get", path).await;
        self.refused("get", path, fate).await?;
        let result = self.shared.inner.get_ranges(location, ranges).await;
        self.back("get", path, fate, result).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let delete = move |location: Result<Path>| {
            let store = store.clone();
            async move {
                let location = location?;
                let fate = store.travel("delete", location.as_ref()).await;
                store.refused("delete", location.as_ref(), fate).await?;
                let result = store.shared.inner.delete(&location).await;
                if result.is_ok() {
                    store.shared.changed(location.as_ref(), None);
                }
                store.back("delete", location.as_ref(), fate, result).await.map(|()| location)
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned());
        let listed = async move {
            let path = prefix.as_ref().map_or("", |p| p.as_ref()).to_owned();
            let fate = store.travel("list", &path).await;
            let mut found: Vec<Result<ObjectMeta>> = match store.refused("list", &path, fate).await {
                Ok(()) => store.shared.inner.list(prefix.as_ref()).collect().await,
                Err(refused) => vec![Err(refused)],
            };
            if fate.fault == Some(Fault::Stale) {
                found.retain(|object| !object.as_ref().is_ok_and(|o| store.shared.is_new(&o.location)));
            }
            match store.back("list", &path, fate, Ok(found)).await {
                Ok(found) => found,
                Err(error) => vec![Err(error)],
            }
        };
        futures::stream::once(listed).flat_map(futures::stream::iter).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let path = prefix.map_or("", |p| p.as_ref());
        let fate = self.travel("list", path).await;
        self.refused("list", path, fate).await?;
        let mut result = self.shared.inner.list_with_delimiter(prefix).await;
        if let (Ok(listed), Some(Fault::Stale)) = (&mut result, fate.fault) {
            listed.objects.retain(|object| !self.shared.is_new(&object.location));
        }
        self.back("list", path, fate, result).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.shared.inner.copy_opts(from, to, options).await
    }
}

/// An upload that never comes to its end.
#[derive(Debug)]
struct Torn {
    upload: Box<dyn MultipartUpload>,
    path: String,
}

#[async_trait]
impl MultipartUpload for Torn {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.upload.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        Err(Answer::Reset.error(&self.path))
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}
