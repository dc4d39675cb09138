//! Rows of a Parquet object as JSON, a page at a time.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use base64::Engine;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Map, Value};

use super::error::LakeError;
use super::record::FileEntry;
use crate::pipeline::HIVE_NULL;

/// All record batches of an object.
pub(crate) fn batches(path: &str, object: Bytes, offset: usize, limit: usize) -> Result<Vec<RecordBatch>, LakeError> {
    let unreadable = || LakeError::data("file_unreadable", format!("{path} is not a Parquet file that can be read"));
    let builder = ParquetRecordBatchReaderBuilder::try_new(object).map_err(|_| unreadable())?;
    let reader = builder.with_offset(offset).with_limit(limit).build().map_err(|_| unreadable())?;
    reader.collect::<Result<Vec<_>, _>>().map_err(|_| unreadable())
}

/// Rows `offset..offset + limit` of an object as JSON objects. Binary columns become text where they are UTF-8, else
/// base64 under their name with `_base64` behind it.
pub(crate) fn as_json(path: &str, object: Bytes, offset: usize, limit: usize) -> Result<Vec<Value>, LakeError> {
    let unwritable = |_| LakeError::data("file_unreadable", format!("{path} holds what JSON cannot say"));
    let mut rows = Vec::new();
    for batch in batches(path, object, offset, limit)? {
        let binary: Vec<usize> =
            (0..batch.num_columns()).filter(|i| *batch.column(*i).data_type() == DataType::Binary).collect();
        let others: Vec<usize> = (0..batch.num_columns()).filter(|i| !binary.contains(i)).collect();
        let mut text = Vec::new();
        let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(&mut text);
        let narrow = batch.project(&others).map_err(unwritable)?;
        writer.write(&narrow).and_then(|()| writer.finish()).map_err(unwritable)?;
        drop(writer);
        for (row, line) in text.split(|b| *b == b'\n').filter(|line| !line.is_empty()).enumerate() {
            let mut value: Map<String, Value> = serde_json::from_slice(line)
                .map_err(|_| LakeError::data("file_unreadable", format!("{path} holds what JSON cannot say")))?;
            for &index in &binary {
                put_binary(&mut value, &batch, index, row);
            }
            rows.push(Value::Object(value));
        }
    }
    Ok(rows)
}

fn put_binary(value: &mut Map<String, Value>, batch: &RecordBatch, index: usize, row: usize) {
    let name = batch.schema().field(index).name().clone();
    let column = batch.column(index).as_binary::<i32>();
    if column.is_null(row) {
        value.insert(name, Value::Null);
        return;
    }
    match std::str::from_utf8(column.value(row)) {
        Ok(text) => value.insert(name, text.into()),
        Err(_) => {
            let encoded = base64::engine::general_purpose::STANDARD.encode(column.value(row));
            value.insert(format!("{name}_base64"), encoded.into())
        }
    };
}

/// The values of the partition columns, which stand beside a file instead of in it, typed by the table's columns.
pub(crate) fn partition_values(file: &FileEntry, schema: &SchemaRef) -> Map<String, Value> {
    if file.partition_values.is_empty() {
        return path_values(&file.path, schema);
    }
    let values = file.partition_values.iter();
    values.map(|(name, value)| (name.clone(), typed(schema, name, value.as_deref()))).collect()
}

/// The same from the path alone, of which older records say no more.
fn path_values(path: &str, schema: &SchemaRef) -> Map<String, Value> {
    let parts = path.split('/').filter_map(|part| part.split_once('='));
    parts
        .map(|(name, text)| (unescape(name), unescape(text)))
        .map(|(name, text)| {
            let value = typed(schema, &name, Some(text.as_str()).filter(|text| *text != HIVE_NULL));
            (name, value)
        })
        .collect()
}

fn typed(schema: &SchemaRef, name: &str, text: Option<&str>) -> Value {
    let Some(text) = text else { return Value::Null };
    match schema.field_with_name(name).map(|field| field.data_type()) {
        Ok(DataType::Boolean) => (text == "true").into(),
        Ok(DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64) => {
            text.parse::<i64>().map_or(Value::Null, Value::from)
        }
        _ => text.into(),
    }
}

/// A path, or a part of one, out of the URI form that Delta gives it.
pub(crate) fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let escaped = (*first == b'%').then(|| after.get(..2)).flatten().and_then(|two| hex::decode(two).ok());
        match escaped {
            Some(byte) => {
                bytes.extend(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
