//! What comes to a source from outside: clock, randomness, names of hosts, and a memory that outlives restarts.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;

/// The wall clock. Intervals and deadlines use `tokio::time` instead, which is monotonic and can be paused.
pub trait Clock: Send + Sync + fmt::Debug {
    /// µs since the epoch, UTC. May jump.
    fn now_us(&self) -> i64;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_us(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    }
}

/// A small memory that survives restarts of workers and, as long as the state directory does, of the node: spent
/// budgets, the end of a Retry-After, failed workloads in a row. Never positions; those are the lake's.
pub trait Keep: Send + Sync + fmt::Debug {
    /// The value last put, if it is still there.
    fn get(&self, key: &str) -> Option<Vec<u8>>;
    /// Keeps `value`. Returns at once; may be lost with the machine. At most 64 KiB.
    fn put(&self, key: &str, value: &[u8]);
    /// Forgets `key`.
    fn remove(&self, key: &str);
}

/// A [`Keep`] for tests and tools.
#[derive(Debug, Default)]
pub struct MemoryKeep(Mutex<HashMap<String, Vec<u8>>>);

impl Keep for MemoryKeep {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn put(&self, key: &str, value: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned(), value.to_owned());
    }

    fn remove(&self, key: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

/// Names of hosts to addresses. Injected so that a test can rebind a name between two look-ups.
#[async_trait]
pub trait Resolve: Send + Sync + fmt::Debug {
    /// All addresses of `host`.
    ///
    /// # Errors
    /// The resolver's own error where the name has none.
    async fn resolve(&self, host: &str) -> std::io::Result<Vec<IpAddr>>;
}

/// The machine's resolver.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolve;

#[async_trait]
impl Resolve for SystemResolve {
    async fn resolve(&self, host: &str) -> std::io::Result<Vec<IpAddr>> {
        let host = host.to_owned();
        tokio::task::spawn_blocking(move || {
            (host.as_str(), 0).to_socket_addrs().map(|all| all.map(|a| a.ip()).collect())
        })
        .await
        .map_err(std::io::Error::other)?
    }
}

/// Everything from outside that a source may use.
#[derive(Debug, Clone)]
pub struct Env {
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Memory across restarts. Keys are shared by all sources of the node: prefix them with the kind and what they
    /// belong to.
    pub keep: Arc<dyn Keep>,
    /// Names of hosts.
    pub resolve: Arc<dyn Resolve>,
    /// The seed of this source's own randomness (jitter).
    pub seed: u64,
    /// `<tenant>/<stream>/<partition>`, to prefix what the source keeps of its own.
    pub scope: String,
}
