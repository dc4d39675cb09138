//! Signs of life, for who watches over an owner.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

/// The longest between two signs while a request waits for its turn, for the circuit or for its answer. Each of these has
/// a limit of its own, so whoever waits there is not stuck, however long an outage lasts. Thirty times shorter than the
/// silence that a committer is forgiven.
pub const BEAT_EVERY: Duration = Duration::from_secs(2);

/// Is told whenever something moves on the way between an owner and the store.
#[derive(Clone, Default)]
pub struct Beat(Option<Arc<dyn Fn() + Send + Sync>>);

impl fmt::Debug for Beat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Beat")
    }
}

impl Beat {
    /// Calls `tell` with every sign of life, from whatever task; it must take no time.
    #[must_use]
    pub fn new(tell: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(tell)))
    }

    /// A sign of life.
    pub(crate) fn beat(&self) {
        if let Some(tell) = &self.0 {
            tell();
        }
    }

    /// Waits for `step`, which has a limit of its own, and beats meanwhile.
    pub(crate) async fn while_waiting<T>(&self, step: impl Future<Output = T>) -> T {
        if self.0.is_none() {
            return step.await;
        }
        let mut step = pin!(step);
        loop {
            self.beat();
            if let Ok(done) = timeout(BEAT_EVERY, step.as_mut()).await {
                self.beat();
                return done;
            }
        }
    }
}
