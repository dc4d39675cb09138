//! Lives that could not be ended and still hold a thread: counted over the whole tree, by name.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::path::ChildPath;
use crate::stopping::as_millis;

/// A life that was abandoned and has not ended since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AbandonedLife {
    /// The child whose life it was; it may have a successor, or be forgotten.
    pub path: ChildPath,
    /// Which life.
    pub incarnation: u64,
    /// Time since it was given up.
    #[serde(rename = "since_ms", serialize_with = "as_millis")]
    pub since: Duration,
}

/// All of them, in the order in which they were abandoned. Grows by what cannot be killed, which the limits of restarts
/// bound.
#[derive(Default)]
pub(crate) struct Zombies(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    last: u64,
    lives: BTreeMap<u64, (ChildPath, u64, Instant)>,
}

impl Zombies {
    /// Counts a life; the number names it from here on and is never 0.
    pub(crate) fn add(&self, path: ChildPath, incarnation: u64) -> u64 {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.last += 1;
        let number = inner.last;
        inner.lives.insert(number, (path, incarnation, Instant::now()));
        number
    }

    pub(crate) fn remove(&self, number: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).lives.remove(&number);
    }

    pub(crate) fn list(&self) -> Vec<AbandonedLife> {
        let (inner, now) = (self.0.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        let shown = |(path, incarnation, at): &(ChildPath, u64, Instant)| AbandonedLife {
            path: path.clone(),
            incarnation: *incarnation,
            since: now.duration_since(*at),
        };
        inner.lives.values().map(shown).collect()
    }
}
