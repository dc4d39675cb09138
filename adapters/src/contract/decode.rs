//! From payloads to Arrow rows. Pure: no I/O, no clock.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::Payload;

/// Rows of a run of payloads, with where each came from.
#[derive(Debug)]
pub struct Rows {
    /// The adapter's own columns only, each called by the key of the records that it holds: what a table calls it is the
    /// runtime's business, which adds the `_lf_` columns too.
    pub batch: RecordBatch,
    /// For each row, the index of its payload in the given slice.
    pub payload: Vec<u32>,
    /// For each row, its event time in µs, where it has one.
    pub event_time_us: Vec<Option<i64>>,
    /// Records that could not be decoded.
    pub dead: Vec<DeadRecord>,
}

/// A record, or a whole payload, that becomes a dead letter of stage `decode`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadRecord {
    /// The index of its payload in the given slice.
    pub payload: u32,
    /// A stable reason in snake case.
    pub code: &'static str,
    /// One sentence; names fields and types, never values.
    pub message: String,
    /// The record alone as JSON, where the payload holds more than this record; `None` means the whole payload.
    pub bytes: Option<Vec<u8>>,
}

/// Decodes payloads of one adapter.
///
/// A decoder is stateless but for its schema: the same payloads under the same schema give the same rows.
pub trait Decode: Send + Sync {
    /// Decodes `payloads` into rows of at least the columns of `known`, in `known`'s order.
    ///
    /// `known` is what the table has now, called by keys (`None` before the first epoch of a stream with an inferred schema). A kind
    /// with a fixed or declared schema gives exactly that. With `"infer"`, columns that `known` lacks are appended as
    /// nullable ones, and a value that does not fit its column makes the record a dead letter (`type_mismatch`).
    ///
    /// Never fails as a whole: whatever cannot be decoded is in [`Rows::dead`].
    fn decode(&self, payloads: &[Payload], known: Option<&SchemaRef>) -> Rows;
}
