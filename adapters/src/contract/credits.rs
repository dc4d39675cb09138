//! Byte credits: what bounds the memory between a source and the lake.
//!
//! Two pools are charged, the stream's and the node's. A source reserves before it reads, so that a slow lake slows
//! the reading and nothing piles up.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// One permit of the pools stands for this many bytes: semaphores count to 2^32 only and small payloads should not
/// cost a permit a byte.
const CREDIT_BYTES: usize = 1024;

/// A stream's access to its own pool and the node's.
#[derive(Clone)]
pub struct Credits {
    stream: Arc<Semaphore>,
    node: Arc<Semaphore>,
    /// The greatest single reservation, so that one payload can never wait for more than the pool has.
    reserve_bytes_max: usize,
    waits: Arc<Waits>,
}

/// How long the holder of one handle has waited for credits: time that is the lake's fault, not the source's.
#[derive(Default)]
struct Waits(Mutex<(Duration, Option<Instant>)>);

impl Waits {
    fn lock(&self) -> MutexGuard<'_, (Duration, Option<Instant>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn total(&self) -> Duration {
        let (done, since) = *self.lock();
        done + since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

/// Counts a wait, also one that is dropped half-way.
struct Waiting<'a>(&'a Waits);

impl<'a> Waiting<'a> {
    fn start(waits: &'a Waits) -> Self {
        waits.lock().1 = Some(Instant::now());
        Self(waits)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if let Some(since) = state.1.take() {
            state.0 += since.elapsed();
        }
    }
}

impl fmt::Debug for Credits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credits")
            .field("stream_free_bytes", &(self.stream.available_permits() * CREDIT_BYTES))
            .field("node_free_bytes", &(self.node.available_permits() * CREDIT_BYTES))
            .finish()
    }
}

impl Credits {
    /// A pool of `bytes` for the whole node, to be shared by the [`Credits::for_stream`] of every stream.
    #[must_use]
    pub fn node(bytes: usize) -> Arc<Semaphore> {
        Arc::new(Semaphore::new(permits(bytes)))
    }

    /// A stream's pool of `bytes` beside the node's pool.
    #[must_use]
    pub fn for_stream(bytes: usize, node: Arc<Semaphore>) -> Self {
        let stream = Arc::new(Semaphore::new(permits(bytes)));
        Self { stream, node, reserve_bytes_max: bytes, waits: Arc::default() }
    }

    /// The same pools with a count of waits of its own, for one worker.
    #[must_use]
    pub fn for_worker(&self) -> Self {
        Self { waits: Arc::default(), ..self.clone() }
    }

    /// How long this handle has waited in all, a wait under way included. A workload's deadline moves by it: a slow
    /// lake slows the polls and does not fail them.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.waits.total()
    }

    /// Pools without another user, for tests and tools.
    #[must_use]
    pub fn alone(bytes: usize) -> Self {
        Self::for_stream(bytes, Self::node(bytes))
    }

    /// Waits until `bytes` can be paid for. A reservation above the pool's size takes the whole pool. Dropping the
    /// future takes nothing.
    pub async fn reserve(&self, bytes: usize) -> Hold {
        let mut hold = Hold::default();
        self.extend(&mut hold, bytes).await;
        hold
    }

    /// Waits until `bytes` more can be paid for and adds them to `hold`. Dropping the future leaves `hold` as it was.
    pub async fn extend(&self, hold: &mut Hold, bytes: usize) {
        let wanted = permits(bytes.min(self.reserve_bytes_max.saturating_sub(hold.bytes())));
        if wanted == 0 {
            return;
        }
        let count = u32::try_from(wanted).unwrap_or(u32::MAX);
        let _waiting = Waiting::start(&self.waits);
        // The pools are never closed, so acquiring cannot fail; a failure would only mean unpaid bytes.
        let Ok(stream) = Arc::clone(&self.stream).acquire_many_owned(count).await else { return };
        let Ok(node) = Arc::clone(&self.node).acquire_many_owned(count).await else { return };
        hold.merge_permits(stream, node);
    }

    /// Bytes of the stream's pool that are in use.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.reserve_bytes_max.saturating_sub(self.stream.available_permits() * CREDIT_BYTES)
    }
}

fn permits(bytes: usize) -> usize {
    bytes.div_ceil(CREDIT_BYTES)
}

/// Credits in use. They return to their pools on drop.
#[derive(Default)]
pub struct Hold {
    stream: Option<OwnedSemaphorePermit>,
    node: Option<OwnedSemaphorePermit>,
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold").field("bytes", &self.bytes()).finish()
    }
}

impl Hold {
    /// How many bytes are paid for.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.stream.as_ref().map_or(0, |p| p.num_permits() * CREDIT_BYTES)
    }

    /// Takes over the credits of `other`, which must come from the same pools.
    pub fn merge(&mut self, mut other: Self) {
        if let (Some(stream), Some(node)) = (other.stream.take(), other.node.take()) {
            self.merge_permits(stream, node);
        }
    }

    fn merge_permits(&mut self, stream: OwnedSemaphorePermit, node: OwnedSemaphorePermit) {
        match &mut self.stream {
            Some(mine) => mine.merge(stream),
            None => self.stream = Some(stream),
        }
        match &mut self.node {
            Some(mine) => mine.merge(node),
            None => self.node = Some(node),
        }
    }

    /// Gives back what exceeds `bytes`, for a source that reserved more than it read.
    pub fn shrink_to(&mut self, bytes: usize) {
        let keep = permits(bytes);
        for permit in [&mut self.stream, &mut self.node].into_iter().flatten() {
            let excess = permit.num_permits().saturating_sub(keep);
            drop(permit.split(excess));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn test_credits_return_on_drop_and_shrink() {
        let credits = Credits::alone(10 * 1024);
        let mut hold = credits.reserve(8 * 1024).await;
        assert_eq!(credits.used_bytes(), 8 * 1024);
        hold.shrink_to(1500);
        assert_eq!(credits.used_bytes(), 2 * 1024);
        drop(hold);
        assert_eq!(credits.used_bytes(), 0);
    }

    #[tokio::test]
    async fn test_reservation_above_the_pool_takes_the_pool() {
        let credits = Credits::alone(4 * 1024);
        let hold = credits.reserve(1 << 30).await;
        assert_eq!(hold.bytes(), 4 * 1024);
    }

    #[tokio::test]
    async fn test_reserve_waits_for_the_node_pool() {
        let node = Credits::node(4 * 1024);
        let a = Credits::for_stream(4 * 1024, Arc::clone(&node));
        let b = Credits::for_stream(4 * 1024, node);
        let hold = a.reserve(3 * 1024).await;
        let mut waiting = std::pin::pin!(b.reserve(2 * 1024));
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(hold);
        assert_eq!(waiting.await.bytes(), 2 * 1024);
    }
}
