//! Delta's own words: the schema as JSON, and the actions of a log entry.

use std::collections::BTreeMap;
use std::sync::Arc;

use adapters::contract::columns::{KEY, with_key};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use serde_json::{Map, Value, json};

use super::error::LakeError;
use super::record::FileEntry;
use crate::pipeline::DataFile;

/// The `type` of a column as Delta writes it. `None` for what it has no word for.
pub(crate) fn type_to_delta(data_type: &DataType) -> Option<Value> {
    Some(match data_type {
        DataType::Boolean => json!("boolean"),
        DataType::Int8 => json!("byte"),
        DataType::Int16 => json!("short"),
        DataType::Int32 => json!("integer"),
        DataType::Int64 => json!("long"),
        DataType::Float32 => json!("float"),
        DataType::Float64 => json!("double"),
        DataType::Date32 => json!("date"),
        DataType::Utf8 => json!("string"),
        DataType::Binary => json!("binary"),
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => json!("timestamp"),
        DataType::Decimal128(precision, scale) => json!(format!("decimal({precision},{scale})")),
        DataType::List(item) => {
            json!({"type": "array", "elementType": type_to_delta(item.data_type())?, "containsNull": true})
        }
        DataType::Struct(fields) => json!({"type": "struct", "fields": fields_to_delta(fields.iter())?}),
        DataType::Map(entries, _) => {
            let DataType::Struct(pair) = entries.data_type() else { return None };
            let (key, value) = (type_to_delta(pair[0].data_type())?, type_to_delta(pair[1].data_type())?);
            json!({"type": "map", "keyType": key, "valueType": value, "valueContainsNull": true})
        }
        _ => return None,
    })
}

fn fields_to_delta<'a>(fields: impl Iterator<Item = &'a FieldRef>) -> Option<Vec<Value>> {
    fields
        .map(|field| {
            let data_type = type_to_delta(field.data_type())?;
            let key: BTreeMap<_, _> = field.metadata().get_key_value(KEY).into_iter().collect();
            Some(json!({"name": field.name(), "type": data_type, "nullable": true, "metadata": key}))
        })
        .collect()
}

/// Columns as the `fields` of a schema string.
pub(crate) fn columns_to_delta(fields: &[FieldRef]) -> Result<Vec<Value>, LakeError> {
    let unknown = || LakeError::bug("column_type", "a column's type was not normalised");
    fields_to_delta(fields.iter()).ok_or_else(unknown)
}

fn type_from_delta(value: &Value) -> Option<DataType> {
    if let Some(word) = value.as_str() {
        return Some(match word {
            "boolean" => DataType::Boolean,
            "byte" => DataType::Int8,
            "short" => DataType::Int16,
            "integer" => DataType::Int32,
            "long" => DataType::Int64,
            "float" => DataType::Float32,
            "double" => DataType::Float64,
            "date" => DataType::Date32,
            "string" => DataType::Utf8,
            "binary" => DataType::Binary,
            "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            "timestamp_ntz" => DataType::Timestamp(TimeUnit::Microsecond, None),
            _ => {
                let inside = word.strip_prefix("decimal(")?.strip_suffix(')')?;
                let (precision, scale) = inside.split_once(',')?;
                DataType::Decimal128(precision.trim().parse().ok()?, scale.trim().parse().ok()?)
            }
        });
    }
    Some(match value.get("type")?.as_str()? {
        "array" => DataType::List(Arc::new(Field::new("item", type_from_delta(value.get("elementType")?)?, true))),
        "struct" => DataType::Struct(fields_from_delta(value)?.into()),
        "map" => {
            let key = Field::new("keys", type_from_delta(value.get("keyType")?)?, false);
            let item = Field::new("values", type_from_delta(value.get("valueType")?)?, true);
            let entries = Field::new("entries", DataType::Struct(vec![key, item].into()), false);
            DataType::Map(Arc::new(entries), false)
        }
        _ => return None,
    })
}

fn fields_from_delta(value: &Value) -> Option<Vec<Field>> {
    let fields = value.get("fields")?.as_array()?.iter();
    let field = |f: &Value| {
        let name = f.get("name")?.as_str()?;
        let key = f.get("metadata").and_then(|all| all.get(KEY)).and_then(Value::as_str).unwrap_or(name);
        Some(with_key(Field::new(name, type_from_delta(f.get("type")?)?, true), key))
    };
    fields.map(field).collect()
}

/// The columns of a schema string.
pub(crate) fn schema_from_delta(text: &str) -> Result<SchemaRef, LakeError> {
    let value: Option<Value> = serde_json::from_str(text).ok();
    let fields = value.as_ref().and_then(fields_from_delta);
    let fields = fields.ok_or_else(|| {
        LakeError::config("table_schema", "the table has a schema that this version cannot read or write")
    })?;
    Ok(Arc::new(Schema::new(fields)))
}

/// A `metaData` action for a new table.
pub(crate) fn metadata(
    table_id: &str,
    schema: &SchemaRef,
    partition_by: &[String],
    now_ms: i64,
) -> Result<Value, LakeError> {
    let columns = columns_to_delta(&schema.fields().iter().cloned().collect::<Vec<_>>())?;
    Ok(json!({
        "id": table_id,
        "format": {"provider": "parquet", "options": {}},
        "schemaString": json!({"type": "struct", "fields": columns}).to_string(),
        "partitionColumns": partition_by,
        "configuration": {},
        "createdTime": now_ms,
    }))
}

/// The `protocol` action of new tables: what every reader and writer knows.
pub(crate) fn protocol() -> Value {
    json!({"minReaderVersion": 1, "minWriterVersion": 2})
}

/// Whether this room's plain appends honour what the table asks of its writers.
pub(crate) fn check_writable(protocol: &Value, metadata: &Value) -> Result<(), LakeError> {
    /// Features that ask nothing of an append of new files, or nothing while nothing uses them (checked below).
    const HARMLESS: [&str; 13] = [
        "appendOnly",
        "changeDataFeed",
        "checkConstraints",
        "columnMapping",
        "deletionVectors",
        "domainMetadata",
        "generatedColumns",
        "identityColumns",
        "invariants",
        "timestampNtz",
        "typeWidening",
        "v2Checkpoint",
        "vacuumProtocolCheck",
    ];
    let refuse = |what: &str| {
        let message = format!("the table asks its writers for {what}, which this version does not do");
        Err(LakeError::config("table_protocol", message))
    };
    if protocol.get("minWriterVersion").and_then(Value::as_u64).is_none_or(|version| version > 7) {
        return refuse("a newer protocol");
    }
    for feature in protocol.get("writerFeatures").and_then(Value::as_array).into_iter().flatten() {
        let feature = feature.as_str().unwrap_or_default();
        if !HARMLESS.contains(&feature) {
            return refuse(feature);
        }
    }
    let empty = Map::new();
    let configuration = metadata.get("configuration").and_then(Value::as_object).unwrap_or(&empty);
    for (key, value) in configuration {
        if key.starts_with("delta.constraints.") {
            return refuse("check constraints");
        }
        if key == "delta.columnMapping.mode" && value != "none" {
            return refuse("column mapping");
        }
    }
    let schema = metadata.get("schemaString").and_then(Value::as_str).unwrap_or_default();
    for key in ["\"delta.invariants\"", "\"delta.generationExpression\"", "\"delta.identity."] {
        if schema.contains(key) {
            return refuse("invariants, generated or identity columns");
        }
    }
    Ok(())
}

/// A line of a log entry.
pub(crate) fn line(kind: &str, action: &Value) -> String {
    format!("{}\n", json!({kind: action}))
}

/// A `txn` action.
pub(crate) fn txn(app: &str, version: u64, now_ms: i64) -> String {
    line("txn", &json!({"appId": app, "version": version, "lastUpdated": now_ms}))
}

/// An `add` action of a staged file.
pub(crate) fn add(file: &DataFile, now_ms: i64) -> String {
    add_action(&file.path, &json!(file.partition_values), file.bytes.len() as u64, &file.stats, now_ms)
}

/// An `add` action from no more than what an epoch record says.
pub(crate) fn add_recorded(file: &FileEntry, now_ms: i64) -> String {
    add_action(&file.path, &json!({}), file.bytes, &json!({"numRecords": file.rows}).to_string(), now_ms)
}

fn add_action(path: &str, values: &Value, size: u64, stats: &str, now_ms: i64) -> String {
    let add = json!({
        // The log holds paths as URIs; of what our paths are made of, only this needs escaping.
        "path": path.replace('%', "%25"),
        "partitionValues": values,
        "size": size,
        "modificationTime": now_ms,
        "dataChange": true,
        "stats": stats,
    });
    line("add", &add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::{dead_columns, normalise, raw_columns, table_columns};

    #[test]
    fn test_schemas_survive_the_way_to_delta_and_back() {
        let nested = vec![with_key(Field::new("x_y", DataType::Float64, true), "x \"y\"\n")];
        let nested = DataType::Struct(nested.into());
        let own = Schema::new(vec![
            Field::new("a", DataType::List(Arc::new(Field::new("item", nested.clone(), true))), true),
            Field::new("d", DataType::Decimal128(12, 3), true),
            Field::new("m", normalise(raw_columns().field(3).data_type()).unwrap(), true),
            with_key(Field::new("_", DataType::Int8, true), ""),
        ]);
        for schema in [table_columns(Some(&Arc::new(own))), dead_columns()] {
            let made = metadata("id", &schema, &[], 0).unwrap();
            assert_eq!(schema_from_delta(made["schemaString"].as_str().unwrap()).unwrap(), schema);
        }
    }

    #[test]
    fn test_tables_that_ask_more_of_writers_are_refused() {
        let made = metadata("id", &table_columns(None), &[], 0).unwrap();
        assert!(check_writable(&protocol(), &made).is_ok());
        let rows = json!({"minReaderVersion": 3, "minWriterVersion": 7, "writerFeatures": ["rowTracking"]});
        assert_eq!(check_writable(&rows, &made).unwrap_err().code, "table_protocol");
        let mut mapped = made.clone();
        mapped["configuration"]["delta.columnMapping.mode"] = "name".into();
        assert!(check_writable(&protocol(), &mapped).is_err());
    }
}
