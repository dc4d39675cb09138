//! Why a source failed, in the classes that decide what happens next.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What a failure means for the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// May heal by itself: connection, timeout, 5xx.
    Transient,
    /// The source asks for patience. Waiting is not a failed workload.
    RateLimited,
    /// Wrong settings: parks at once.
    Config,
    /// Wrong or expired credentials: parks at once.
    Auth,
    /// What came is not what was declared.
    Data,
    /// This machine lacks something: memory, disk, descriptors.
    Resource,
    /// A state that the code holds to be impossible.
    Bug,
}

/// A source's error. `code` and `message` carry no payload and no secret.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
#[error("{code}: {message}")]
pub struct SourceError {
    /// What it means for the worker.
    pub class: ErrorClass,
    /// A stable name in snake case, for example `http_500`.
    pub code: String,
    /// One sentence for the person on call.
    pub message: String,
    /// How long the source asks to be left alone, if it said so.
    pub retry_after: Option<Duration>,
}

impl SourceError {
    /// An error without a wish to be left alone.
    pub fn new(class: ErrorClass, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { class, code: code.into(), message: message.into(), retry_after: None }
    }

    /// The same with a wish to be left alone for `wait`.
    #[must_use]
    pub fn after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }
}
