//! The newest events of the node, in memory, for `GET /v1/events`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adapters::contract::Clock;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::times::timestamp;

/// Events that are kept; interface §3 promises this number.
pub const EVENTS_MAX: usize = 10_000;

/// A cursor that was not handed out by a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cursor is not one that an answer gave as next")]
pub struct InvalidCursor;

#[derive(Debug)]
struct Ring {
    items: VecDeque<Arc<Value>>,
    /// The number of the newest item.
    newest: u64,
}

/// A ring of `{ts, pattern, data}`. Numbers of events start at the µs clock of the ring's creation, so a cursor from
/// before a restart lies before everything that came after it, and its follower misses nothing new.
#[derive(Debug)]
pub struct Events {
    clock: Arc<dyn Clock>,
    ring: Mutex<Ring>,
    grown: watch::Sender<u64>,
}

impl Events {
    /// An empty ring.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let newest = u64::try_from(clock.now_us()).unwrap_or(0);
        Self { clock, ring: Mutex::new(Ring { items: VecDeque::new(), newest }), grown: watch::Sender::new(newest) }
    }

    /// Adds an event, in place of the oldest where the ring is full.
    pub fn push(&self, pattern: &str, data: Value) {
        let event = Arc::new(json!({"ts": timestamp(self.clock.now_us()), "pattern": pattern, "data": data}));
        let newest = {
            let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            if ring.items.len() == EVENTS_MAX {
                ring.items.pop_front();
            }
            ring.items.push_back(event);
            ring.newest += 1;
            ring.newest
        };
        self.grown.send_replace(newest);
    }

    /// Up to `limit` events after the cursor `after` (`""` or `"0"` = from the oldest kept), in order, and the cursor
    /// to go on from. Waits up to `wait` for the first.
    ///
    /// # Errors
    /// Where `after` is not a number.
    pub async fn page(&self, after: &str, limit: usize, wait: Duration) -> Result<(Vec<Value>, String), InvalidCursor> {
        let after: u64 = if after.is_empty() { 0 } else { after.parse().map_err(|_| InvalidCursor)? };
        let mut grown = self.grown.subscribe();
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let (items, next) = self.read(after, limit);
            if !items.is_empty() || tokio::time::timeout_at(deadline, grown.changed()).await.is_err() {
                let items = items.iter().map(|item| Value::clone(item)).collect();
                return Ok((items, next.to_string()));
            }
        }
    }

    fn read(&self, after: u64, limit: usize) -> (Vec<Arc<Value>>, u64) {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = ring.newest - ring.items.len() as u64;
        // A cursor beyond the newest is from a clock that ran ahead: everything here is new to its holder.
        let from = if after > ring.newest { oldest } else { after.max(oldest) };
        let skip = usize::try_from(from - oldest).unwrap_or(usize::MAX);
        let items: Vec<_> = ring.items.iter().skip(skip).take(limit).cloned().collect();
        let next = from + items.len() as u64;
        (items, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct At(i64);
    impl Clock for At {
        fn now_us(&self) -> i64 {
            self.0
        }
    }

    fn ring() -> Arc<Events> {
        Arc::new(Events::new(Arc::new(At(1_000_000))))
    }

    #[tokio::test]
    async fn test_events_page_in_order_and_go_on_from_next() {
        let ring = ring();
        for n in 0..5 {
            ring.push("p", json!(n));
        }
        let (first, next) = ring.page("", 3, Duration::ZERO).await.expect("cursor");
        let (rest, next) = ring.page(&next, 3, Duration::ZERO).await.expect("cursor");
        let numbers: Vec<_> = first.iter().chain(&rest).map(|event| event["data"].as_i64()).collect();
        assert_eq!(numbers, (0..5).map(Some).collect::<Vec<_>>());
        assert_eq!(ring.page(&next, 3, Duration::ZERO).await.expect("cursor"), (vec![], next));
        assert_eq!(first[0], json!({"ts": "1970-01-01T00:00:01.000000Z", "pattern": "p", "data": 0}));
    }

    #[tokio::test]
    async fn test_events_keep_only_the_newest() {
        let ring = ring();
        for n in 0..EVENTS_MAX + 7 {
            ring.push("p", json!(n));
        }
        let (items, _) = ring.page("0", EVENTS_MAX * 2, Duration::ZERO).await.expect("cursor");
        assert_eq!(items.len(), EVENTS_MAX);
        assert_eq!(items[0]["data"], json!(7));
    }

    #[tokio::test]
    async fn test_events_wait_wakes_up_and_ends_in_time() {
        let ring = ring();
        let waiting = tokio::spawn({
            let ring = Arc::clone(&ring);
            async move { ring.page("", 10, Duration::from_secs(3600)).await }
        });
        tokio::task::yield_now().await;
        ring.push("woken", json!(1));
        let (items, next) = waiting.await.expect("no panic").expect("cursor");
        assert_eq!(items[0]["pattern"], "woken");
        let (none, same) = ring.page(&next, 10, Duration::from_millis(5)).await.expect("cursor");
        assert!(none.is_empty());
        assert_eq!(same, next);
    }

    #[tokio::test]
    async fn test_events_of_a_new_ring_lie_after_the_cursors_of_the_old_one() {
        let old = ring();
        old.push("old", json!(1));
        let (_, cursor) = old.page("", 10, Duration::ZERO).await.expect("cursor");
        let new = Events::new(Arc::new(At(9_000_000)));
        new.push("new", json!(2));
        let (items, _) = new.page(&cursor, 10, Duration::ZERO).await.expect("cursor");
        assert_eq!(items[0]["pattern"], "new");
        assert_eq!(new.page("x", 1, Duration::ZERO).await, Err(InvalidCursor));
    }
}
