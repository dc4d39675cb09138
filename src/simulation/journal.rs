//! What happened, in order, with virtual time: the story of a seed.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// The story so far.
#[derive(Debug)]
pub(crate) struct Journal {
    began: Instant,
    lines: Mutex<Vec<String>>,
}

impl Journal {
    /// Begins now.
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), lines: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note(&self, line: impl AsRef<str>) {
        let at = self.began.elapsed().as_millis();
        self.lock().push(format!("{at:>7} {}", line.as_ref()));
    }

    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.lock())
    }
}
