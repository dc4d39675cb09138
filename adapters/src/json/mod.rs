//! JSON payloads to Arrow rows, strictly: each record is held against the columns before Arrow builds them, and what
//! does not fit is a dead letter with its reason and never a changed value.
//!
//! | code | the record or payload |
//! |---|---|
//! | `not_utf8` | is not UTF-8 |
//! | `not_json` | is not one JSON value, or holds a number beyond all ranges |
//! | `not_an_object` | is JSON but no object |
//! | `select_missing` | has nothing where `select` leads |
//! | `type_mismatch` | holds a value that its column cannot take unchanged |
//! | `schema_change` | has a field that no column takes, where columns must not grow |
//! | `missing_field` | lacks a field that must not be null |
//! | `ambiguous_field` | has a field twice that there is no column for yet (inferred) |
//! | `too_deep`, `too_many_columns`, `key_too_long` | goes beyond [`DEPTH_MAX`], [`COLUMNS_MAX`], [`KEY_BYTES_MAX`] (inferred) |

mod check;
mod declare;
mod decode;
#[cfg(test)]
mod growth_tests;
mod infer;
mod path;
mod shape;
#[cfg(test)]
mod tests;

pub use declare::{schema_from_config, timestamp_type};
pub use decode::{Growth, JsonDecoder, JsonSpec, SCHEMA_CHANGE, TAKE, format_take};
pub use infer::{COLUMNS_MAX, DEPTH_MAX, KEY_BYTES_MAX};
pub use path::Path;
pub(crate) use path::SelectError;

use crate::contract::DeadMark;

/// The mark of bytes that are no text.
pub(crate) fn not_utf8() -> DeadMark {
    DeadMark { code: "not_utf8", message: "it is not UTF-8".to_owned() }
}

/// A parser's error without the text that it may quote.
fn not_json(error: &serde_json::Error) -> DeadMark {
    let message = if error.is_eof() {
        "it ends before the JSON does".to_owned()
    } else {
        format!("it is not JSON from line {}, column {} on", error.line(), error.column())
    };
    DeadMark { code: "not_json", message }
}
