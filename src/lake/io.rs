//! The store as the commit protocol needs it: bounded, retried, and honest about what is not known.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use tokio::time::{Instant, sleep};

use super::beat::Beat;
use super::error::{LakeError, LakeErrorClass};
use super::guard::Guard;
use crate::faults;

/// How long an operation is tried again before its error is given to the caller. Long enough for a store's hiccup or a
/// fail-over, short enough that a supervisor learns of an outage while the person on call still reads the first alert.
const RETRY_FOR: Duration = Duration::from_secs(20);
/// The first pause between two tries; doubles.
const PAUSE_MIN: Duration = Duration::from_millis(25);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long a remote store may say nothing: above what a busy one takes, and low enough that a request which a dead
/// connection swallowed is given up, and made again, well within the 30 s in which a stream has to be back.
pub(super) const REMOTE_ANSWER: Duration = Duration::from_secs(10);
/// The same for a local disk, whose queue may be long and whose requests nobody swallows. A system call cannot be taken
/// back: what was given up may still be done later. It does no harm, since whatever counts is created and never replaced.
const LOCAL_ANSWER: Duration = Duration::from_secs(30);

/// What a create-only put found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    Created,
    Exists,
}

/// The pauses between tries.
#[derive(Debug)]
pub(crate) struct Tries {
    until: Instant,
    pause: Duration,
    /// Stirs the pauses so that owners that failed together do not try again together.
    stir: u64,
}

impl Tries {
    pub(crate) fn new(seed: &str) -> Self {
        let stir = seed
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Self { until: Instant::now() + RETRY_FOR, pause: PAUSE_MIN, stir }
    }

    /// Waits before the next try; gives the error back where there is none left or none would help.
    pub(crate) async fn again(&mut self, error: LakeError) -> Result<(), LakeError> {
        if !error.may_heal() || Instant::now() + self.pause > self.until {
            return Err(error);
        }
        self.stir = self.stir.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let part = u32::try_from((self.stir >> 33) % 512).unwrap_or(0);
        sleep(self.pause / 2 + self.pause * part / 1024).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(())
    }
}

/// The lake's store, asked with care (see [`Guard`]).
#[derive(Debug, Clone)]
pub(crate) struct Io {
    store: Guard,
}

impl Io {
    /// `seed` stirs its pauses.
    pub(crate) fn new(store: Arc<dyn ObjectStore>, url: &str, seed: u64) -> Self {
        let answer = if url.starts_with("file:") { LOCAL_ANSWER } else { REMOTE_ANSWER };
        Self { store: Guard::new(store, seed, answer) }
    }

    /// The same, with signs of life to `beat`.
    pub(crate) fn beating(&self, beat: Beat) -> Self {
        Self { store: self.store.beating(beat) }
    }

    pub(crate) fn store(&self) -> Arc<dyn ObjectStore> {
        Arc::new(self.store.clone())
    }

    /// Requests that the store failed so far.
    pub(crate) fn failures(&self) -> u64 {
        self.store.failures()
    }

    /// One create-only try. An error says nothing about whether the object is there now.
    pub(crate) async fn put_new(&self, path: &str, bytes: Bytes) -> Result<Put, LakeError> {
        let location = parse(path)?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let put = self.store.put_opts(&location, PutPayload::from_bytes(bytes), options);
        match put.await {
            Ok(_) => Ok(Put::Created),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                Ok(Put::Exists)
            }
            Err(object_store::Error::NotFound { .. }) => {
                let message = format!("put of {path}: the store has no place for it; is the bucket there?");
                Err(LakeError::config("lake_bucket_missing", message))
            }
            Err(error) => Err(LakeError::store(&format!("put of {path}"), &error)),
        }
    }

    /// Puts an object whose name stands for its content: that it is there already is what was wanted.
    ///
    /// That a store refuses it as existing does not say that it is there: some refuse so while another put of it is
    /// under way, an earlier try of this one for example, which may yet come to nothing. So it is looked for.
    pub(crate) async fn put_same(&self, path: &str, bytes: Bytes) -> Result<(), LakeError> {
        let mut tries = Tries::new(path);
        loop {
            let error = match self.put_new(path, bytes.clone()).await {
                Ok(Put::Created) => return Ok(()),
                Ok(Put::Exists) if faults::bug("trust_refusal") => return Ok(()),
                Ok(Put::Exists) => match self.size(path).await? {
                    Some(size) if size == bytes.len() as u64 => return Ok(()),
                    Some(size) => {
                        let message = format!("{path} is there with {size} bytes instead of {}", bytes.len());
                        return Err(LakeError::data("object_differs", message));
                    }
                    None => unsettled(path),
                },
                Err(error) => error,
            };
            tries.again(error).await?;
        }
    }

    /// Puts an object under a name of its own. Something else under that name is [`Put::Exists`]; the same content is
    /// [`Put::Created`], whoever put it there.
    pub(crate) async fn put_or_compare(&self, path: &str, bytes: Bytes) -> Result<Put, LakeError> {
        let mut tries = Tries::new(path);
        loop {
            let error = match self.put_new(path, bytes.clone()).await {
                Ok(Put::Created) => return Ok(Put::Created),
                Ok(Put::Exists) => match self.get(path).await? {
                    Some(there) if there == bytes => return Ok(Put::Created),
                    Some(_) => return Ok(Put::Exists),
                    None => unsettled(path),
                },
                Err(error) => error,
            };
            tries.again(error).await?;
        }
    }

    /// A whole object; `None` where there is none.
    pub(crate) async fn get(&self, path: &str) -> Result<Option<Bytes>, LakeError> {
        let mut tries = Tries::new(path);
        let location = parse(path)?;
        loop {
            let read = async { self.store.get(&location).await?.bytes().await };
            let error = match read.await {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(object_store::Error::NotFound { .. }) => return Ok(None),
                Err(error) => LakeError::store(&format!("get of {path}"), &error),
            };
            tries.again(error).await?;
        }
    }

    /// Whether there is an object, and its size in bytes.
    pub(crate) async fn size(&self, path: &str) -> Result<Option<u64>, LakeError> {
        let mut tries = Tries::new(path);
        let location = parse(path)?;
        loop {
            let error = match self.store.head(&location).await {
                Ok(meta) => return Ok(Some(meta.size)),
                Err(object_store::Error::NotFound { .. }) => return Ok(None),
                Err(error) => LakeError::store(&format!("head of {path}"), &error),
            };
            tries.again(error).await?;
        }
    }

    /// Removes an object; that it is gone already is what was wanted.
    pub(crate) async fn remove(&self, path: &str) -> Result<(), LakeError> {
        match self.store.delete(&parse(path)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(LakeError::store(&format!("delete of {path}"), &error)),
        }
    }

    /// Names directly below `folder`: folders and objects, each in order.
    pub(crate) async fn names(&self, folder: &str) -> Result<(Vec<String>, Vec<String>), LakeError> {
        let mut tries = Tries::new(folder);
        let prefix = parse(folder)?;
        let prefix = (!folder.is_empty()).then_some(&prefix);
        loop {
            let error = match self.store.list_with_delimiter(prefix).await {
                Ok(listed) => {
                    let name = |path: &Path| path.filename().map(str::to_owned);
                    let mut folders: Vec<_> = listed.common_prefixes.iter().filter_map(name).collect();
                    let mut objects: Vec<_> = listed.objects.iter().filter_map(|o| name(&o.location)).collect();
                    folders.sort();
                    objects.sort();
                    return Ok((folders, objects));
                }
                Err(object_store::Error::NotFound { .. }) => return Ok(Default::default()),
                Err(error) => LakeError::store(&format!("list of {folder}"), &error),
            };
            tries.again(error).await?;
        }
    }

    /// Everything below `folder`, in the store's order.
    pub(crate) fn list(&self, folder: &str) -> Result<BoxStream<'static, Result<ObjectMeta, LakeError>>, LakeError> {
        let prefix = parse(folder)?;
        let what = format!("list of {folder}");
        let listed = self.store.list((!folder.is_empty()).then_some(&prefix));
        Ok(Box::pin(listed.map_err(move |error| LakeError::store(&what, &error))))
    }
}

/// Refused as existing, and yet not there.
fn unsettled(path: &str) -> LakeError {
    let message = format!("{path} is refused as existing but is not there");
    LakeError::new(LakeErrorClass::Transient, "put_unsettled", message)
}

pub(crate) fn parse(path: &str) -> Result<Path, LakeError> {
    Path::parse(path).map_err(|_| LakeError::bug("lake_path", format!("{path:?} is no path of the lake")))
}
