//! The lake: raw segments, tables, the commit protocol.
//!
//! ```text
//! Lake::claim ──▶ Owner ──commit(Sealed)──▶ raw segments, files ▶ record ▶ log entry ▶ dead table's log entry
//!   = creates, fences, recovers              (stage)              (what was made)  (the commit)
//! ```
//!
//! Everything rests on one operation of the store: a put that never replaces. Objects are named by their content or by
//! (epoch, generation), log entries by their version; so whatever was done twice is seen to be there, and whoever comes
//! second is told.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use adapters::contract::Clock;
use adapters::contract::config::{ProcessSecrets, SecretSource};
use object_store::ObjectStore;
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::names::StreamId;
use crate::settings::LakeSettings;

mod beat;
mod check;
mod circuit;
mod claim;
mod control;
mod create_only;
mod delta;
mod direct;
mod error;
mod evolution;
mod file_store;
mod guard;
mod io;
mod layout;
mod log;
mod owner;
mod reads;
mod record;
mod recover;
mod renew;
mod rows;
mod snapshot;
mod stores;
#[cfg(test)]
mod tests;

pub use beat::{BEAT_EVERY, Beat};
pub use check::{Finding, Report};
pub use claim::Claim;
pub use control::Created;
pub use error::{LakeError, LakeErrorClass};
pub use owner::{Committed, Owner};
pub use record::{EpochRecord, FileEntry, Span};
pub use recover::Checkpoint;

/// Streams of which a version is remembered to look for others from. Beyond this many the memory is emptied.
const VERSIONS_REMEMBERED: usize = 16_384;

/// An open lake. Cheap to share; holds no state that the store does not have.
pub struct Lake {
    io: io::Io,
    url: String,
    clock: Arc<dyn Clock>,
    seed: u128,
    tokens: AtomicU64,
    /// An epoch and its version, by stream.
    versions: Mutex<HashMap<StreamId, (u64, u64)>>,
    /// Set once the store was found to replace nothing that it must not.
    create_only: OnceCell<()>,
}

impl fmt::Debug for Lake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lake")
    }
}

impl Lake {
    /// Opens the lake of `settings`. A local one is created where absent; a remote one is not asked yet.
    ///
    /// # Errors
    /// `config` for a url or an option that makes no sense; for `file:` also what the file system says.
    pub fn open(settings: &LakeSettings, clock: Arc<dyn Clock>) -> Result<Arc<Self>, LakeError> {
        Self::open_through(settings, clock, Arc::new(ProcessSecrets), |store| store)
    }

    /// The same with references of the options followed by `secrets` when the store refuses what they led to, and
    /// through what `layer` puts around the store.
    ///
    /// # Errors
    /// As [`Lake::open`].
    pub fn open_through(
        settings: &LakeSettings,
        clock: Arc<dyn Clock>,
        secrets: Arc<dyn SecretSource>,
        layer: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>,
    ) -> Result<Arc<Self>, LakeError> {
        let store = layer(stores::open(settings, secrets, clock.now_us())?);
        Ok(Self::with_store(store, &settings.url, clock))
    }

    /// A lake in a store of the caller's.
    #[must_use]
    pub fn with_store(store: Arc<dyn ObjectStore>, url: &str, clock: Arc<dyn Clock>) -> Arc<Self> {
        Self::with_seed(store, url, clock, Uuid::new_v4().as_u128())
    }

    /// The same with its randomness given. Two lakes over one store must differ in their seeds: the tokens by which
    /// owners know their own claims are drawn from them.
    #[must_use]
    pub fn with_seed(store: Arc<dyn ObjectStore>, url: &str, clock: Arc<dyn Clock>, seed: u128) -> Arc<Self> {
        let (tokens, versions) = (AtomicU64::new(0), Mutex::default());
        #[allow(clippy::cast_possible_truncation, reason = "half of a seed is a seed")]
        let io = io::Io::new(store, url, seed as u64);
        Arc::new(Self { io, url: url.to_owned(), clock, seed, tokens, versions, create_only: OnceCell::new() })
    }

    /// The url that it was opened with.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Writes Delta checkpoints of a stream's table and of its dead letters' table, if there is one. For maintenance;
    /// works beside an owner and blocks its thread for a while on large tables.
    ///
    /// # Errors
    /// As [`Lake::claim`].
    pub async fn checkpoint_log(&self, id: &StreamId) -> Result<(), LakeError> {
        error::crash("upkeep.before")?;
        snapshot::write_checkpoint(&self.io, &layout::table(id)).await?;
        error::crash("upkeep.between")?;
        if self.io.size(&layout::log_entry(&layout::dead(id), 0)).await?.is_some() {
            snapshot::write_checkpoint(&self.io, &layout::dead(id)).await?;
        }
        error::crash("upkeep.after")?;
        Ok(())
    }

    /// A UUID that nobody else draws.
    fn token(&self, id: &StreamId) -> String {
        let number = self.tokens.fetch_add(1, Ordering::Relaxed);
        let hash = Sha256::new()
            .chain_update(self.seed.to_be_bytes())
            .chain_update(number.to_be_bytes())
            .chain_update(id.to_string())
            .finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash[..16]);
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }

    fn remember(&self, id: &StreamId, epoch: u64, version: u64) {
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        if versions.len() >= VERSIONS_REMEMBERED && !versions.contains_key(id) {
            versions.clear();
        }
        versions.insert(id.clone(), (epoch, version));
    }

    fn remembered(&self, id: &StreamId) -> Option<(u64, u64)> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner).get(id).copied()
    }
}
