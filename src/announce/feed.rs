//! The embedded feed: the newest references in memory, in sled behind, older ones from the lake by their epoch.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use thiserror::Error;
use tokio::sync::watch;

use super::{Sink, SinkError};
use crate::checkpoint::Cache;
use crate::names::StreamId;

/// References that the feed of all streams reaches back: about 20 MB. A reader of one stream is not bound by it; its
/// older references come from the lake.
const ENTRIES_MAX: usize = 20_000;

const TREE_FEED: &str = "feed";
const TREE_ANNOUNCED: &str = "announced";
const TREE_META: &str = "meta";
const KEY_ERA: &str = "feed_era";

/// A cursor that this feed did not make.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{cursor:?} is not a cursor of this feed; give the \"next\" of an earlier answer, or nothing to start from the first"
)]
pub struct FeedError {
    /// As given, cut to 80 characters.
    pub cursor: String,
}

/// The newest references of all streams, in the order in which they were published.
#[derive(Debug)]
pub struct Feed {
    cache: Cache,
    inner: Mutex<Inner>,
    published: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Names this life of the state directory: sequence numbers of another life mean nothing here.
    era: String,
    /// The number of the newest entry.
    seq: u64,
    entries: VecDeque<(u64, StreamId, u64, Value)>,
    by_stream: HashMap<StreamId, BTreeMap<u64, Value>>,
    announced: HashMap<StreamId, u64>,
}

impl Feed {
    /// Loads what the cache has; `era` names this life of the state directory where it has none.
    pub async fn load(cache: Cache, era: String) -> Self {
        let mut inner = Inner { era, ..Inner::default() };
        if let Some(known) = cache.value(TREE_META, KEY_ERA).await.and_then(|v| String::from_utf8(v).ok()) {
            inner.era = known;
        } else {
            cache.store_values(TREE_META, vec![(KEY_ERA.to_owned(), inner.era.clone().into_bytes())], vec![]).await;
        }
        for (key, value) in cache.values(TREE_FEED).await {
            let entry = serde_json::from_slice::<(StreamId, u64, Value)>(&value);
            if let (Ok(seq), Ok((id, epoch, data))) = (key.parse(), entry) {
                inner.push(seq, id, epoch, data);
            }
        }
        for (key, value) in cache.values(TREE_ANNOUNCED).await {
            let epoch = std::str::from_utf8(&value).ok().and_then(|v| v.parse().ok());
            if let (Ok(id), Some(epoch)) = (key.parse(), epoch) {
                inner.announced.insert(id, epoch);
            }
        }
        let published = watch::Sender::new(inner.seq);
        Self { cache, inner: Mutex::new(inner), published }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lake was exchanged or restored: what was announced beyond `epoch` never was.
    pub async fn rewind(&self, id: &StreamId, epoch: u64) {
        self.lock().announced.insert(id.clone(), epoch);
        self.cache.store_values(TREE_ANNOUNCED, vec![(id.to_string(), epoch.to_string().into_bytes())], vec![]).await;
    }

    /// The reference of one epoch, if it is among the newest.
    #[must_use]
    pub fn recent(&self, id: &StreamId, epoch: u64) -> Option<Value> {
        self.lock().by_stream.get(id)?.get(&epoch).cloned()
    }

    /// Up to `limit` references of all streams after the cursor, and the next cursor. An empty cursor, `"0"`, or one
    /// of a state directory that is gone starts from the first.
    ///
    /// # Errors
    /// A text that no feed made.
    pub fn after(&self, cursor: &str, limit: usize) -> Result<(Vec<Value>, String), FeedError> {
        let inner = self.lock();
        let after = inner.parse(cursor)?;
        let first = inner.entries.partition_point(|(seq, ..)| *seq <= after);
        let page: Vec<_> = inner.entries.iter().skip(first).take(limit).collect();
        let last = page.last().map_or(after, |(seq, ..)| *seq);
        let next = format!("{}.{last}", inner.era);
        Ok((page.into_iter().map(|(_, _, _, data)| data.clone()).collect(), next))
    }

    /// Waits until something new was published, at most `wait`.
    pub async fn published(&self, seen: &mut watch::Receiver<u64>, wait: Duration) -> bool {
        matches!(tokio::time::timeout(wait, seen.changed()).await, Ok(Ok(())))
    }

    /// To be taken before looking, so that nothing published in between is missed.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.published.subscribe()
    }
}

impl Inner {
    fn parse(&self, cursor: &str) -> Result<u64, FeedError> {
        if cursor.is_empty() || cursor == "0" {
            return Ok(0);
        }
        let wrong = || FeedError { cursor: cursor.chars().take(80).collect() };
        let (era, seq) = cursor.rsplit_once('.').ok_or_else(wrong)?;
        let seq: u64 = seq.parse().map_err(|_| wrong())?;
        Ok(if era == self.era { seq } else { 0 })
    }

    /// Appends an entry; gives back the number of the one that fell out.
    fn push(&mut self, seq: u64, id: StreamId, epoch: u64, data: Value) -> Option<u64> {
        self.seq = self.seq.max(seq);
        self.by_stream.entry(id.clone()).or_default().insert(epoch, data.clone());
        self.entries.push_back((seq, id, epoch, data));
        if self.entries.len() <= ENTRIES_MAX {
            return None;
        }
        let (old, id, epoch, _) = self.entries.pop_front()?;
        if let Some(epochs) = self.by_stream.get_mut(&id) {
            epochs.remove(&epoch);
            if epochs.is_empty() {
                self.by_stream.remove(&id);
            }
        }
        Some(old)
    }
}

/// Fixed width, so that sled's order is the order of numbers.
fn key(seq: u64) -> String {
    format!("{seq:020}")
}

#[async_trait]
impl Sink for Feed {
    fn name(&self) -> &'static str {
        "feed"
    }

    fn announced(&self, id: &StreamId) -> u64 {
        self.lock().announced.get(id).copied().unwrap_or(0)
    }

    async fn publish(&self, id: &StreamId, epoch: u64, data: &Value) -> Result<(), SinkError> {
        let entry = serde_json::to_vec(&(id, epoch, data));
        let entry = entry.map_err(|e| SinkError { sink: "feed", message: e.to_string() })?;
        let (seq, evicted) = {
            let mut inner = self.lock();
            let seq = inner.seq + 1;
            (seq, inner.push(seq, id.clone(), epoch, data.clone()))
        };
        self.cache.store_values(TREE_FEED, vec![(key(seq), entry)], evicted.map(key).into_iter().collect()).await;
        if crate::faults::fails("announce.unmarked") {
            return Err(SinkError { sink: "feed", message: "crash point".to_owned() });
        }
        // Only now: a mark without its entry would lose the reference, an entry without its mark doubles it.
        self.cache.store_values(TREE_ANNOUNCED, vec![(id.to_string(), epoch.to_string().into_bytes())], vec![]).await;
        self.lock().announced.insert(id.clone(), epoch);
        self.published.send_replace(seq);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    async fn feed(dir: &std::path::Path, era: &str) -> (Feed, Cache) {
        let (cache, _) = Cache::open(&dir.join("cache"), 0);
        (Feed::load(cache.clone(), era.to_owned()).await, cache)
    }

    #[tokio::test]
    async fn test_feed_pages_in_order_and_a_foreign_era_starts_over() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (feed, cache) = feed(dir.path(), "one").await;
        let id: StreamId = "a/s".parse().expect("id");
        for epoch in 1..=5 {
            feed.publish(&id, epoch, &json!({"epoch": epoch})).await.expect("published");
        }
        let (page, next) = feed.after("", 3).expect("page");
        assert_eq!(page, [json!({"epoch": 1}), json!({"epoch": 2}), json!({"epoch": 3})]);
        let (rest, end) = feed.after(&next, 10).expect("page");
        assert_eq!(rest.len(), 2);
        assert_eq!(feed.after(&end, 10).expect("page").0.len(), 0);
        assert_eq!(feed.after("other.4", 10).expect("page").0.len(), 5);
        assert!(feed.after("junk", 10).is_err());
        // A new process with the same state goes on where this one was.
        let again = Feed::load(cache, "two".to_owned()).await;
        assert_eq!(again.announced(&id), 5);
        assert_eq!(again.after(&next, 10).expect("page").0.len(), 2);
    }
}
