//! `file:` with the durability that `object_store`'s own local store leaves out: when a put returns, file and names are
//! on the disk.
//!
//! A put writes a temporary file (a large one around the system's cache), fsyncs it, gives it its name (by a hard link,
//! which never replaces, or by rename where replacing is asked for) and fsyncs the directory. A multipart upload and a copy
//! end the same way. New directories are fsynced into their parents first.
//! Temporary files live in one folder of the root that no listing shows.

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path as FsPath, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryFutureExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

use super::direct;
use crate::faults;

/// The folder of temporary files.
const TEMPORARY: &str = ".tmp";
/// A temporary file this old belongs to nobody: no put takes so long.
const LEFTOVER_AFTER: Duration = Duration::from_secs(3600);
/// Directories that are known to exist and to be durable. Beyond this many the memory is emptied and filled anew.
const KNOWN_DIRECTORIES_MAX: usize = 65_536;

/// A durable local store.
#[derive(Debug, Clone)]
pub(crate) struct FileStore {
    inner: Arc<Inner>,
    local: LocalFileSystem,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    next: AtomicU64,
    known: Mutex<HashSet<PathBuf>>,
}

impl fmt::Display for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileStore")
    }
}

fn failed(error: io::Error) -> Error {
    Error::Generic { store: "file", source: Box::new(error) }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|source| Error::JoinError { source })?
}

fn sync_directory(directory: &FsPath) -> io::Result<()> {
    if faults::bug("no_fsync") {
        return Ok(());
    }
    File::open(directory)?.sync_all()
}

impl FileStore {
    /// Opens the lake at `root`, which is created where absent. `now_us` tells which temporary files are leftovers.
    pub(crate) fn open(root: &FsPath, now_us: i64) -> Result<Self> {
        make_durable(&root.join(TEMPORARY)).map_err(failed)?;
        remove_leftovers(&root.join(TEMPORARY), now_us).map_err(failed)?;
        let local = LocalFileSystem::new_with_prefix(root)?;
        let root = fs::canonicalize(root).map_err(failed)?;
        let inner = Inner { root, next: AtomicU64::new(0), known: Mutex::default() };
        Ok(Self { inner: Arc::new(inner), local })
    }
}

/// Makes a folder and all that it stands in, whose names are durable then. Also where it was there: whoever made it may
/// not have come to the fsync.
fn make_durable(folder: &FsPath) -> io::Result<()> {
    let new = folder.ancestors().take_while(|path| !path.exists()).count();
    fs::create_dir_all(folder)?;
    let parents = folder.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty());
    parents.take(new.max(2)).try_for_each(sync_directory)
}

fn remove_leftovers(folder: &FsPath, now_us: i64) -> io::Result<()> {
    let now = UNIX_EPOCH + Duration::from_micros(u64::try_from(now_us).unwrap_or(0));
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let modified = entry.metadata().and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        if now.duration_since(modified).is_ok_and(|age| age > LEFTOVER_AFTER) {
            // Somebody else may have been faster.
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

/// Writes all of it, in two halves so that a crash point between them leaves a torn file.
fn write(file: &mut File, payload: &PutPayload) -> io::Result<()> {
    let half = payload.content_length() / 2;
    let mut written = 0;
    for part in payload {
        let cut = half.saturating_sub(written).min(part.len());
        file.write_all(&part[..cut])?;
        if (written..written + part.len()).contains(&half) && faults::fails("store.half") {
            return Err(io::Error::other("crash point"));
        }
        file.write_all(&part[cut..])?;
        written += part.len();
    }
    Ok(())
}

impl Inner {
    /// The file's path; its directory exists and is durable.
    fn prepare(&self, path: PathBuf) -> io::Result<(PathBuf, PathBuf)> {
        let directory = path.parent().unwrap_or(&self.root).to_owned();
        self.make_directory(&directory)?;
        Ok((path, directory))
    }

    fn make_directory(&self, directory: &FsPath) -> io::Result<()> {
        if directory == self.root || self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(directory) {
            return Ok(());
        }
        if let Some(parent) = directory.parent() {
            self.make_directory(parent)?;
            match fs::create_dir(directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                // Also where it existed: whoever made it may not have come to the fsync.
                _ => sync_directory(parent)?,
            }
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_DIRECTORIES_MAX {
            known.clear();
        }
        known.insert(directory.to_owned());
        Ok(())
    }

    fn forget(&self, directory: &FsPath) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|path| !directory.starts_with(path));
    }

    /// A new temporary file, and whether `payload` could be written to it.
    fn filled(&self, payload: &PutPayload) -> io::Result<(io::Result<File>, PathBuf)> {
        if payload.content_length() >= direct::FROM_BYTES {
            match self.filled_directly(payload) {
                // The file system, or one below it, cannot do without its cache.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
                filled => return filled,
            }
        }
        let (mut file, path) = self.temporary(OpenOptions::new())?;
        Ok((write(&mut file, payload).map(|()| file), path))
    }

    fn filled_directly(&self, payload: &PutPayload) -> io::Result<(io::Result<File>, PathBuf)> {
        let (file, path) = self.temporary(direct::options())?;
        match direct::write(&file, payload) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                // What stays is removed as a leftover.
                let _ = fs::remove_file(&path);
                Err(error)
            }
            written => Ok((written.map(|()| file), path)),
        }
    }

    /// A new temporary file.
    fn temporary(&self, mut options: OpenOptions) -> io::Result<(File, PathBuf)> {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let path = self.root.join(TEMPORARY).join(format!("{}-{number}", std::process::id()));
            match options.write(true).create_new(true).open(&path) {
                Ok(file) => return Ok((file, path)),
                // Left by an earlier process of this number, or another machine's.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn put(&self, path: PathBuf, payload: &PutPayload, replace: bool) -> Result<()> {
        let (path, directory) = self.prepare(path).map_err(failed)?;
        // Saves writing what is there already; the link below decides.
        if !replace && path.exists() {
            return Err(self.exists(&path, &directory));
        }
        let (written, temporary) = self.filled(payload).map_err(failed)?;
        self.name(written, &temporary, &path, &directory, replace)
    }

    /// Makes a temporary file durable, gives it its name, and makes that durable.
    ///
    /// A failed fsync is never asked again for the same file: the kernel may have dropped what it could not write and
    /// say yes the second time. The file is thrown away, and the next try writes another.
    fn name(
        &self,
        written: io::Result<File>,
        temporary: &FsPath,
        path: &FsPath,
        directory: &FsPath,
        replace: bool,
    ) -> Result<()> {
        let durable = written.and_then(|file| if faults::bug("no_fsync") { Ok(()) } else { file.sync_all() });
        let named = durable.and_then(|()| match replace {
            true => fs::rename(temporary, path),
            false => fs::hard_link(temporary, path),
        });
        if named.is_ok() && faults::fails("store.named") {
            let _ = fs::remove_file(temporary);
            return Err(failed(io::Error::other("crash point")));
        }
        if !replace || named.is_err() {
            // What stays is removed as a leftover.
            let _ = fs::remove_file(temporary);
        }
        match named {
            Ok(()) => sync_directory(directory).map_err(failed),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(self.exists(path, directory)),
            Err(error) => {
                // The directory may have been removed under us; the next try makes it again.
                self.forget(directory);
                Err(failed(error))
            }
        }
    }

    /// The answer that something is there already. Callers build on what is there, so it is made durable first: whoever
    /// put it may not have come to its own fsync.
    fn exists(&self, path: &FsPath, directory: &FsPath) -> Error {
        let sync = |file: File| if faults::bug("no_fsync") { Ok(()) } else { file.sync_all() };
        match File::open(path).and_then(sync).and_then(|()| sync_directory(directory)) {
            Ok(()) => {
                let path = path.strip_prefix(&self.root).unwrap_or(path).to_string_lossy().into_owned();
                Error::AlreadyExists { path, source: io::Error::from(io::ErrorKind::AlreadyExists).into() }
            }
            Err(error) => failed(error),
        }
    }
}

#[async_trait]
impl ObjectStore for FileStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let replace = match options.mode {
            PutMode::Overwrite => true,
            PutMode::Create => false,
            PutMode::Update(_) => {
                let operation = "put_opts with PutMode::Update".to_owned();
                return Err(Error::NotImplemented { operation, implementer: self.to_string() });
            }
        };
        let path = self.local.path_to_filesystem(location)?;
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.put(path, &payload, replace)).await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(&self, location: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let path = self.local.path_to_filesystem(location)?;
        let inner = Arc::clone(&self.inner);
        let (file, temporary) = blocking(move || inner.temporary(OpenOptions::new()).map_err(failed)).await?;
        let inner = Arc::clone(&self.inner);
        Ok(Box::new(Upload { inner, file: Arc::new(file), temporary: Some(temporary), path, bytes: 0 }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.local.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.local.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.local.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        listing(prefix, self.local.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        listing(prefix, self.local.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut listed = self.local.list_with_delimiter(prefix).await?;
        listed.common_prefixes.retain(|path| !is_temporary(path));
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let mode = match options.mode {
            CopyMode::Overwrite => PutMode::Overwrite,
            CopyMode::Create => PutMode::Create,
        };
        let bytes = self.get_opts(from, GetOptions::default()).await?.bytes().await?;
        self.put_opts(to, bytes.into(), PutOptions { mode, ..PutOptions::default() }).await.map(drop)
    }
}

/// A directory's own order, without temporary files; but in order of names for a Delta log, whose readers take that for
/// granted because the clouds give it.
fn listing(
    prefix: Option<&Path>,
    listed: BoxStream<'static, Result<ObjectMeta>>,
) -> BoxStream<'static, Result<ObjectMeta>> {
    if prefix.is_some_and(|prefix| prefix.parts().any(|part| part.as_ref() == "_delta_log")) {
        let sorted = listed.try_collect::<Vec<_>>().map_ok(|mut all| {
            all.sort_by(|a, b| a.location.cmp(&b.location));
            futures::stream::iter(all.into_iter().map(Ok))
        });
        return sorted.try_flatten_stream().boxed();
    }
    listed.try_filter(|meta| futures::future::ready(!is_temporary(&meta.location))).boxed()
}

fn is_temporary(path: &Path) -> bool {
    path.as_ref().split('/').next() == Some(TEMPORARY)
}

/// A multipart upload: parts are written into a temporary file, which has its name only when it is durable.
#[derive(Debug)]
struct Upload {
    inner: Arc<Inner>,
    file: Arc<File>,
    /// `None` when it is done.
    temporary: Option<PathBuf>,
    path: PathBuf,
    bytes: u64,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (file, mut at) = (Arc::clone(&self.file), self.bytes);
        self.bytes += data.content_length() as u64;
        let write = move || {
            for part in &data {
                file.write_all_at(part, at).map_err(failed)?;
                at += part.len() as u64;
            }
            Ok(())
        };
        blocking(write).boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let over = || failed(io::Error::from(io::ErrorKind::NotFound));
        let temporary = self.temporary.take().ok_or_else(over)?;
        let (inner, file, path) = (Arc::clone(&self.inner), Arc::clone(&self.file), self.path.clone());
        blocking(move || {
            let (path, directory) = inner.prepare(path).map_err(failed)?;
            inner.name(file.try_clone(), &temporary, &path, &directory, true)
        })
        .await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn abort(&mut self) -> Result<()> {
        let Some(temporary) = self.temporary.take() else { return Ok(()) };
        blocking(move || fs::remove_file(temporary).map_err(failed)).await
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(temporary) = self.temporary.take() {
            // What stays is removed as a leftover.
            let _ = fs::remove_file(temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::ObjectStoreExt;

    fn open(folder: &tempfile::TempDir) -> FileStore {
        FileStore::open(folder.path(), 0).unwrap()
    }

    fn create() -> PutOptions {
        PutOptions { mode: PutMode::Create, ..PutOptions::default() }
    }

    #[tokio::test]
    async fn test_create_only_puts_of_sixteen_writers_have_one_winner() {
        let folder = tempfile::tempdir().unwrap();
        for round in 0..20 {
            let path = Path::from(format!("a/b{round}/c.json"));
            // Stores of their own, as processes of their own have.
            let puts = (0..16).map(|writer: u8| {
                let (store, path) = (open(&folder), path.clone());
                tokio::spawn(async move { (writer, store.put_opts(&path, vec![writer; 4096].into(), create()).await) })
            });
            let mut winners = Vec::new();
            for put in puts {
                match put.await.unwrap() {
                    (writer, Ok(_)) => winners.push(writer),
                    (_, Err(Error::AlreadyExists { .. })) => {}
                    (_, Err(error)) => panic!("{error}"),
                }
            }
            let bytes = open(&folder).get(&path).await.unwrap().bytes().await.unwrap();
            assert_eq!(winners.len(), 1);
            assert_eq!(bytes, vec![winners[0]; 4096]);
        }
    }

    #[tokio::test]
    async fn test_put_get_list_delete_and_replace() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder);
        let path = Path::parse("tables/a/x=a%20b/f.parquet").unwrap();
        store.put_opts(&path, "one".into(), create()).await.unwrap();
        assert!(matches!(store.put_opts(&path, "two".into(), create()).await, Err(Error::AlreadyExists { .. })));
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "one");
        store.put(&path, "three".into()).await.unwrap();
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "three");
        let mut upload = store.put_multipart(&Path::from("tables/b/c")).await.unwrap();
        // Parts keep their order whichever is written first.
        let (one, two) = (upload.put_part("part".into()), upload.put_part("ing".into()));
        two.await.unwrap();
        one.await.unwrap();
        assert!(store.get(&Path::from("tables/b/c")).await.is_err());
        upload.complete().await.unwrap();
        assert_eq!(store.get(&Path::from("tables/b/c")).await.unwrap().bytes().await.unwrap(), "parting");
        let mut given_up = store.put_multipart(&Path::from("tables/b/d")).await.unwrap();
        given_up.put_part("part".into()).await.unwrap();
        given_up.abort().await.unwrap();
        store.copy(&Path::from("tables/b/c"), &Path::from("tables/b/e")).await.unwrap();
        let again = store.copy_if_not_exists(&path, &Path::from("tables/b/e")).await;
        assert!(matches!(again, Err(Error::AlreadyExists { .. })));
        store.delete(&Path::from("tables/b/e")).await.unwrap();
        let all: Vec<_> = store.list(None).map_ok(|m| m.location.to_string()).try_collect().await.unwrap();
        assert_eq!(all.len(), 2, "{all:?}");
        let root = store.list_with_delimiter(None).await.unwrap();
        assert_eq!(root.common_prefixes, [Path::from("tables")]);
        store.delete(&path).await.unwrap();
        assert!(matches!(store.get(&path).await, Err(Error::NotFound { .. })));
        assert_eq!(fs::read_dir(folder.path().join(TEMPORARY)).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn test_old_temporary_files_are_removed_at_open_and_young_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        drop(open(&folder));
        let leftover = folder.path().join(TEMPORARY).join("1-1");
        fs::write(&leftover, "x").unwrap();
        let age = fs::metadata(&leftover).unwrap().modified().unwrap().duration_since(UNIX_EPOCH).unwrap();
        let now = i64::try_from(age.as_micros()).unwrap();
        drop(FileStore::open(folder.path(), now + 1_000_000).unwrap());
        assert!(leftover.exists());
        drop(FileStore::open(folder.path(), now + 2 * 3_600_000_000).unwrap());
        assert!(!leftover.exists());
    }

    #[tokio::test]
    async fn test_a_directory_that_was_removed_under_the_store_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder);
        store.put(&Path::from("a/b/c"), "x".into()).await.unwrap();
        fs::remove_dir_all(folder.path().join("a")).unwrap();
        assert!(store.put(&Path::from("a/b/c"), "x".into()).await.is_err());
        store.put(&Path::from("a/b/c"), "x".into()).await.unwrap();
    }
}
