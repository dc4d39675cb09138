//! The suite that every kind must pass. A kind's test sets up a healthy source that always answers the same, wraps
//! its mount in a [`Subject`] and runs [`all`]; then it provokes each error class and hands every error to
//! [`error_is`].
//!
//! A check that fails panics and says what was promised and what came. Nothing here sleeps; what may wait is driven
//! under tokio's clock, which a test may pause.
//!
//! ```no_run
//! # async fn example(mount: std::sync::Arc<dyn adapters::contract::Mount>) {
//! use adapters::conformance::{Subject, all};
//! all(&Subject::new(mount).canaries(["hunter2"]).pool_bytes(64 * 1024)).await;
//! # }
//! ```

mod cancel;
mod checks;
mod drive;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use crate::contract::{
    Credits, Env, ErrorClass, MemoryKeep, Mount, Partition, Payload, Position, Source, SourceError, SystemClock,
    SystemResolve,
};

pub use cancel::cancellation_loses_nothing;
pub use checks::{
    batches_join, decodes_as_declared, error_is, names_its_partitions, refuses_foreign_positions, resumes,
    tells_no_secret,
};

/// How much of an endless source is looked at.
const RECORDS_DEFAULT: usize = 200;
/// Small enough that sources make many batches, large enough for any test's payload.
const POOL_BYTES_DEFAULT: usize = 16 * 1024;

/// Makes of a payload what must be the same when it is given again.
pub type Normalise = Arc<dyn Fn(&Payload) -> Vec<u8> + Send + Sync>;
/// Sets the other side back, so that it gives the same again.
pub type Reset = Arc<dyn Fn() + Send + Sync>;

/// A kind under test: its mount, one partition of it, and what the checks must know.
#[derive(Clone)]
pub struct Subject {
    mount: Arc<dyn Mount>,
    partition: Partition,
    env: Env,
    normalise: Normalise,
    reset: Option<Reset>,
    canaries: Vec<String>,
    records_max: usize,
    pool_bytes: usize,
    payload_positions: bool,
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject")
            .field("mount", &self.mount)
            .field("partition", &self.partition)
            .finish_non_exhaustive()
    }
}

impl Subject {
    /// The first partition of `mount`, with the machine's clock and a memory of its own.
    ///
    /// # Panics
    /// Where the mount has no partition.
    #[must_use]
    pub fn new(mount: Arc<dyn Mount>) -> Self {
        let partition = mount.partitions().into_iter().next().expect("a mount has at least one partition");
        let env = Env {
            clock: Arc::new(SystemClock),
            keep: Arc::new(MemoryKeep::default()),
            resolve: Arc::new(SystemResolve),
            seed: 1,
            scope: format!("conformance/subject/{}", partition.name),
        };
        Self {
            mount,
            partition,
            env,
            normalise: Arc::new(|payload| payload.bytes.to_vec()),
            reset: None,
            canaries: Vec::new(),
            records_max: RECORDS_DEFAULT,
            pool_bytes: POOL_BYTES_DEFAULT,
            payload_positions: false,
        }
    }

    /// Another partition than the first.
    #[must_use]
    pub fn partition(mut self, partition: Partition) -> Self {
        self.partition = partition;
        self
    }

    /// Another environment, for sources that need a clock or names of their own.
    #[must_use]
    pub fn env(mut self, env: Env) -> Self {
        self.env = env;
        self
    }

    /// What of a payload is the same each time; by default all its bytes.
    #[must_use]
    pub fn normalise(mut self, normalise: impl Fn(&Payload) -> Vec<u8> + Send + Sync + 'static) -> Self {
        self.normalise = Arc::new(normalise);
        self
    }

    /// Called before each opening that starts a new reading.
    #[must_use]
    pub fn reset(mut self, reset: impl Fn() + Send + Sync + 'static) -> Self {
        self.reset = Some(Arc::new(reset));
        self
    }

    /// Secrets in the settings and words in the payloads that may stand in no error, no `meta` and no `Debug`.
    #[must_use]
    pub fn canaries(mut self, canaries: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.canaries = canaries.into_iter().map(Into::into).collect();
        self
    }

    /// How many payloads of an endless source are looked at.
    #[must_use]
    pub fn records_max(mut self, records: usize) -> Self {
        self.records_max = records;
        self
    }

    /// The pool from which the source pays. Must hold the largest payload.
    #[must_use]
    pub fn pool_bytes(mut self, bytes: usize) -> Self {
        self.pool_bytes = bytes;
        self
    }

    /// For sources in which each payload's position is one to resume from, not only the batches' ends.
    #[must_use]
    pub fn payload_positions(mut self) -> Self {
        self.payload_positions = true;
        self
    }

    fn credits(&self) -> Credits {
        Credits::alone(self.pool_bytes)
    }

    fn reset_now(&self) {
        if let Some(reset) = &self.reset {
            reset();
        }
    }

    async fn open(&self, position: Option<&Position>) -> Box<dyn Source> {
        match self.mount.open(&self.partition, position, self.env.clone()).await {
            Ok(source) => source,
            Err(error) => panic!("opening at {position:?} must succeed for a healthy source, but: {error}"),
        }
    }

    fn no_canary(&self, what: &str, text: &str) {
        for canary in &self.canaries {
            assert!(!text.contains(canary.as_str()), "{what} must not show a secret or a payload, but one does");
        }
    }
}

/// Runs every check that needs a healthy source.
///
/// # Panics
/// With what the kind breaks.
pub async fn all(subject: &Subject) {
    names_its_partitions(subject);
    refuses_foreign_positions(subject).await;
    batches_join(subject).await;
    tells_no_secret(subject).await;
    decodes_as_declared(subject).await;
    resumes(subject).await;
    cancellation_loses_nothing(subject).await;
}

/// The classes that a source may report: a kind's test provokes each that the kind can meet.
pub const CLASSES: [ErrorClass; 7] = [
    ErrorClass::Transient,
    ErrorClass::RateLimited,
    ErrorClass::Config,
    ErrorClass::Auth,
    ErrorClass::Data,
    ErrorClass::Resource,
    ErrorClass::Bug,
];

/// Panics unless `result` is an error; gives it for [`error_is`].
///
/// # Panics
/// Where the source took what it must refuse.
pub fn expect_error<T>(case: &str, result: Result<T, SourceError>) -> SourceError {
    match result {
        Ok(_) => panic!("{case}: must be an error, but the source took it"),
        Err(error) => error,
    }
}
