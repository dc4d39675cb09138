//! One sled database behind one thread, with values that carry their own checksum.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use super::trees::Trees;

/// Jobs that may wait for the thread. Each belongs to an epoch or an answer that waits for it, so the bound is
/// reached only when the disk is stuck; then the senders wait, which is the back-pressure wanted.
const JOBS_MAX: usize = 1024;

/// Bytes of SHA-256 in front of each value. sled has given back old or foreign bytes from damaged files without a
/// word, so a value proves itself.
const CHECK_BYTES: usize = 8;

/// sled's own page cache. Small: what is read often is held by its reader.
const PAGE_CACHE_BYTES: u64 = 16 << 20;

type Job = Box<dyn FnOnce(&dyn Trees) + Send>;

/// What opening met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenReport {
    /// Where a damaged database was moved.
    pub moved_to: Option<PathBuf>,
    /// True where nothing could be opened at all: every job is dropped, and each start reads the lake instead.
    pub absent: bool,
}

/// A handle to the cache. Cloning is cheap; the thread ends with the last handle.
#[derive(Clone, Debug)]
pub struct Cache {
    way: Way,
}

/// How a job gets to the trees.
#[derive(Clone)]
enum Way {
    /// sled blocks, so it has a thread of its own.
    Thread(mpsc::Sender<Job>),
    /// Trees in memory, asked in place: another thread would make a simulation depend on the machine.
    #[cfg(test)]
    InPlace(std::sync::Arc<dyn Trees>),
}

impl std::fmt::Debug for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Way")
    }
}

impl Cache {
    /// Opens the cache in `dir`, whatever is there.
    ///
    /// `now_us` names a damaged directory that is moved aside.
    #[must_use]
    pub fn open(dir: &Path, now_us: i64) -> (Self, OpenReport) {
        let (db, report) = open_defensively(dir, now_us);
        let (jobs, mut inbox) = mpsc::channel::<Job>(JOBS_MAX);
        let run = move || {
            while let Some(job) = inbox.blocking_recv() {
                let Some(db) = &db else { continue };
                // sled panics on some kinds of damage. A cache must not take anything down with it.
                if catch_unwind(AssertUnwindSafe(|| job(db))).is_err() {
                    error!(code = "cache_panicked", "the cache failed in one operation; the lake holds the truth");
                }
            }
            if let Some(Err(e)) = db.map(|db| db.flush()) {
                warn!(code = "cache_flush_failed", error = %e, "the cache may lag at the next start");
            }
        };
        if let Err(e) = std::thread::Builder::new().name("cache".to_owned()).spawn(run) {
            error!(code = "cache_thread", error = %e, "the cache has no thread; every start will read the lake instead");
        }
        (Self { way: Way::Thread(jobs) }, report)
    }

    /// A cache in the trees of a simulation.
    #[cfg(test)]
    pub(crate) fn in_place(trees: std::sync::Arc<dyn Trees>) -> Self {
        Self { way: Way::InPlace(trees) }
    }

    /// Runs `job` on the cache's thread. `None` if it panicked or the thread is gone.
    #[cfg_attr(not(test), allow(clippy::infallible_destructuring_match, reason = "tests know one more way"))]
    pub(super) async fn run<T: Send + 'static>(&self, job: impl FnOnce(&dyn Trees) -> T + Send + 'static) -> Option<T> {
        let jobs = match &self.way {
            Way::Thread(jobs) => jobs,
            #[cfg(test)]
            Way::InPlace(trees) => return catch_unwind(AssertUnwindSafe(|| job(trees.as_ref()))).ok(),
        };
        let (reply, answer) = oneshot::channel();
        let boxed: Job = Box::new(move |trees| {
            let _ = reply.send(job(trees));
        });
        jobs.send(boxed).await.ok()?;
        answer.await.ok()
    }

    /// Queues `job` without waiting; false where the queue is full.
    pub(super) fn try_run(&self, job: impl FnOnce(&dyn Trees) + Send + 'static) -> bool {
        match &self.way {
            Way::Thread(jobs) => jobs.try_send(Box::new(job)).is_ok(),
            #[cfg(test)]
            Way::InPlace(trees) => {
                job(trees.as_ref());
                true
            }
        }
    }

    /// Waits until everything queued so far has reached the operating system.
    pub async fn flush(&self) {
        let flushed = self.run(|trees| trees.flush()).await;
        if !matches!(flushed, Some(Ok(()))) {
            warn!(code = "cache_flush_failed", "the cache may lag at the next start");
        }
    }
}

fn open_defensively(dir: &Path, now_us: i64) -> (Option<sled::Db>, OpenReport) {
    match try_open(dir) {
        Ok(db) => return (Some(db), OpenReport { moved_to: None, absent: false }),
        Err(why) => {
            error!(code = "cache_damaged", why, "the cache does not open; it is moved aside and rebuilt from the lake")
        }
    }
    let aside = dir.with_file_name(format!("cache.damaged-{now_us}"));
    let moved_to = std::fs::rename(dir, &aside).is_ok().then_some(aside);
    match try_open(dir) {
        Ok(db) => {
            info!(code = "cache_rebuilt", "a new cache is open");
            (Some(db), OpenReport { moved_to, absent: false })
        }
        Err(why) => {
            error!(
                code = "cache_absent",
                why, "no cache on this disk: free space or correct the permissions of state_dir"
            );
            (None, OpenReport { moved_to, absent: true })
        }
    }
}

fn try_open(dir: &Path) -> Result<sled::Db, String> {
    std::fs::create_dir_all(dir).map_err(|e| e.kind().to_string())?;
    let open = || {
        let db = sled::Config::new().path(dir).cache_capacity(PAGE_CACHE_BYTES).open()?;
        // Damage may show only on the first read: walk what there is before trusting it.
        for name in db.tree_names() {
            for item in db.open_tree(name)?.iter().keys() {
                item?;
            }
        }
        Ok::<_, sled::Error>(db)
    };
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(Ok(db)) => Ok(db),
        Ok(Err(e)) => Err(format!("{e}")),
        Err(_) => Err("it panicked".to_owned()),
    }
}

/// `value` with its checksum in front.
pub(super) fn seal(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(CHECK_BYTES + value.len());
    sealed.extend_from_slice(&check(key, value));
    sealed.extend_from_slice(value);
    sealed
}

/// The value, if it is what was put under this key.
pub(crate) fn unseal<'a>(key: &[u8], sealed: &'a [u8]) -> Option<&'a [u8]> {
    let (sum, value) = sealed.split_at_checked(CHECK_BYTES)?;
    (sum == check(key, value)).then_some(value)
}

fn check(key: &[u8], value: &[u8]) -> [u8; CHECK_BYTES] {
    let mut hash = Sha256::new();
    hash.update((key.len() as u64).to_be_bytes());
    hash.update(key);
    hash.update(value);
    let digest = hash.finalize();
    let mut sum = [0; CHECK_BYTES];
    sum.copy_from_slice(&digest[..CHECK_BYTES]);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn put(cache: &Cache, value: &'static [u8]) {
        let change = (b"k".to_vec(), Some(seal(b"k", value)));
        cache.run(move |trees| trees.apply("t", vec![change])).await.expect("thread").expect("insert");
        cache.flush().await;
    }

    async fn get(cache: &Cache) -> Option<Vec<u8>> {
        cache
            .run(|trees| trees.get("t", b"k").ok().flatten().and_then(|v| unseal(b"k", &v).map(<[u8]>::to_vec)))
            .await
            .expect("thread")
    }

    #[tokio::test]
    async fn test_cache_survives_reopening() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("cache");
        let (cache, report) = Cache::open(&path, 1);
        assert_eq!(report.moved_to, None);
        put(&cache, b"v").await;
        // sled holds a lock until its handle is gone: dropping the last handle ends the thread.
        let closed = cache.clone();
        drop(cache);
        closed.flush().await;
        drop(closed);
        let mut reopened = Cache::open(&path, 2);
        while reopened.1.moved_to.is_some() || reopened.1.absent {
            // The old thread had not let go yet; what it moved aside is put back.
            let aside = reopened.1.moved_to.take().expect("moved");
            drop(reopened.0);
            let _ = std::fs::remove_dir_all(&path);
            std::fs::rename(aside, &path).expect("rename");
            reopened = Cache::open(&path, 2);
        }
        assert_eq!(get(&reopened.0).await.as_deref(), Some(&b"v"[..]));
    }

    #[tokio::test]
    async fn test_a_leftover_snapshot_is_moved_aside() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("cache");
        std::fs::create_dir_all(&path).expect("mkdir");
        // What a kill in the middle of a snapshot leaves behind: sled takes the last name and refuses to open.
        std::fs::write(path.join("snap.00000000FFFFFFFF.generating"), b"half a snapshot").expect("write");
        let (cache, report) = Cache::open(&path, 3);
        assert_eq!(report.moved_to, Some(dir.path().join("cache.damaged-3")));
        put(&cache, b"new").await;
        assert_eq!(get(&cache).await.as_deref(), Some(&b"new"[..]));
    }

    #[test]
    fn test_a_changed_value_or_another_key_does_not_unseal() {
        let sealed = seal(b"key", b"value");
        assert_eq!(unseal(b"key", &sealed), Some(&b"value"[..]));
        assert_eq!(unseal(b"kez", &sealed), None);
        let mut flipped = sealed;
        flipped[10] ^= 1;
        assert_eq!(unseal(b"key", &flipped), None);
        assert_eq!(unseal(b"key", b"short"), None);
    }
}
