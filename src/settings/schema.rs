//! Declared columns.

use adapters::contract::config::Reader;
use arrow::datatypes::SchemaRef;

/// The columns below `key`: `Some(None)` where they are inferred. Stands here until `adapters::json` has it.
pub(super) fn schema_from_config(reader: &Reader<'_>, key: &str) -> Option<Option<SchemaRef>> {
    reader.node(key);
    Some(None)
}
