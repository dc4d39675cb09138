//! What a source hands over: payloads as received, with positions.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Hold;

/// Where a worker stands in its partition. Only the kind that made it can read it; the runtime stores it, compares
/// it for equality and hands it back.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(String);

impl Position {
    /// Wraps the kind's own text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The kind's own text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The kind's own text, without a copy.
    #[must_use]
    pub fn into_text(self) -> String {
        self.0
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One unit as the source gave it: an HTTP body with its content coding undone, a message, a line.
///
/// `Debug` shows sizes, never the bytes.
#[derive(Clone)]
pub struct Payload {
    /// What goes into `_lf_position` of its rows. `None` for a payload that stands at no position of its own.
    pub position: Option<Position>,
    /// When the last byte had arrived, µs since the epoch, UTC.
    pub received_at_us: i64,
    /// Status, headers and the like; never a credential.
    pub meta: BTreeMap<String, String>,
    /// Exactly as received.
    pub bytes: Bytes,
    /// Set where the source already knows that the payload cannot be decoded: it becomes one dead letter.
    pub dead: Option<DeadMark>,
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload")
            .field("position", &self.position)
            .field("bytes", &self.bytes.len())
            .field("dead", &self.dead)
            .finish_non_exhaustive()
    }
}

/// Why a payload or a record could not be taken. The message names fields and types, never values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadMark {
    /// A stable reason in snake case, for example `not_json`.
    pub code: &'static str,
    /// One sentence for the operator.
    pub message: String,
}

/// Payloads that cover `(from, to]` of a partition.
#[derive(Debug)]
pub struct Batch {
    /// The position that the source stood at before. `None` at the very beginning.
    pub from: Option<Position>,
    /// The position after the batch. `None`, or equal to `from`, where the batch moves nothing (dead letters alone).
    pub to: Option<Position>,
    /// In the order of the source.
    pub payloads: Vec<Payload>,
    /// The credits that pay for the payloads' bytes; they return to the pool when the batch is dropped.
    pub hold: Hold,
}

impl Batch {
    /// Sum of the payloads' bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.payloads.iter().map(|p| p.bytes.len()).sum()
    }
}
