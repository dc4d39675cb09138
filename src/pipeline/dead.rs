//! Dead letters: records that could not be taken, as rows of their own table.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryBuilder, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use bytes::Bytes;

use super::columns::lf_fields;

/// The stage of everything that this room refuses.
const STAGE: &str = "decode";

/// One dead letter in the making.
#[derive(Debug)]
pub(crate) struct Letter {
    /// Index of the payload that it came from.
    pub(crate) payload: u32,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    /// The record alone, or the whole payload.
    pub(crate) bytes: Bytes,
}

/// Columns of a dead table: the five of every row, stage, code, message, bytes.
#[must_use]
pub fn dead_columns() -> SchemaRef {
    let own = ["stage", "code", "message"].map(|name| Arc::new(Field::new(name, DataType::Utf8, true)));
    let bytes = Arc::new(Field::new("bytes", DataType::Binary, true));
    let fields = lf_fields().into_iter().chain(own).chain([bytes]);
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The rows of `letters`, whose five common columns are given.
pub(crate) fn rows(common: Vec<ArrayRef>, letters: &[Letter]) -> Result<RecordBatch, ArrowError> {
    let (mut stage, mut code) = (StringBuilder::new(), StringBuilder::new());
    let (mut message, mut bytes) = (StringBuilder::new(), BinaryBuilder::new());
    for letter in letters {
        stage.append_value(STAGE);
        code.append_value(letter.code);
        message.append_value(&letter.message);
        bytes.append_value(&letter.bytes);
    }
    let mut columns = common;
    columns.push(Arc::new(stage.finish()));
    columns.push(Arc::new(code.finish()));
    columns.push(Arc::new(message.finish()));
    columns.push(Arc::new(bytes.finish()));
    RecordBatch::try_new(dead_columns(), columns)
}
