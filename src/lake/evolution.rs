//! Changes of a table's columns, as entries of its log.

use arrow::datatypes::{DataType, Field, FieldRef, Fields, SchemaRef};
use serde_json::{Value, json};

use super::delta::{columns_to_delta, line, type_to_delta};
use super::error::{LakeError, LakeErrorClass};
use super::log::TableState;
use crate::pipeline::{self, Misfit};

/// The table feature that a column needs whose type becomes wider: files of before hold the narrower one.
const TYPE_WIDENING: &str = "typeWidening";

/// What a writer of version n must do by itself, by the names that the features have since version 7.
const LEGACY_WRITER_FEATURES: [(u64, &str); 6] = [
    (2, "appendOnly"),
    (2, "invariants"),
    (3, "checkConstraints"),
    (4, "changeDataFeed"),
    (4, "generatedColumns"),
    (5, "columnMapping"),
];

/// The lines of an entry that take `wanted` into the table, the runtime's columns included; empty where it lacks nothing.
///
/// # Errors
/// `config` where a column has a type that cannot become the wanted one without loss; `name_clash` where one has the name,
/// but for its case, or the key of another.
pub(crate) fn evolution(
    state: &TableState,
    wanted: &SchemaRef,
    name_clash: LakeErrorClass,
) -> Result<String, LakeError> {
    let (columns, unfit) = pipeline::merge_columns(Some(&state.schema), wanted);
    if let Some((name, why)) = unfit.first() {
        let (class, how) = match why {
            Misfit::TypeMismatch => {
                (LakeErrorClass::Config, "has a type in the table that cannot become the wanted one without loss")
            }
            Misfit::UnsupportedType => (LakeErrorClass::Config, "has a type that no table holds"),
            Misfit::Name => {
                (name_clash, "differs from one of the table in case only, or cannot be stored by that name")
            }
            Misfit::Key => {
                (name_clash, "stands for another key than in the table, which keeps the keys of its columns")
            }
        };
        return Err(LakeError::new(class, "schema_conflict", format!("column {name:?} {how}")));
    }
    if columns == state.schema {
        return Ok(String::new());
    }
    let unreadable = || LakeError::config("table_schema", "the table's schema has no list of fields");
    let text = state.metadata.get("schemaString").and_then(Value::as_str).unwrap_or_default();
    let mut schema: Value = serde_json::from_str(text).unwrap_or_default();
    let mut grown = Grown::default();
    grown.fields(&mut schema, state.schema.fields(), columns.fields()).ok_or_else(unreadable)?;
    let mut metadata = state.metadata.clone();
    metadata["schemaString"] = schema.to_string().into();
    let mut lines = String::new();
    if grown.widened {
        metadata["configuration"]["delta.enableTypeWidening"] = "true".into();
        if let Some(protocol) = with_type_widening(&state.protocol) {
            lines += &line("protocol", &protocol);
        }
    }
    Ok(lines + &line("metaData", &metadata))
}

/// The changes of a schema string; whatever else is written in it stays as whoever wrote it left it.
#[derive(Default)]
struct Grown {
    widened: bool,
}

impl Grown {
    /// Brings the fields of `value`, which are `old`, to `new`. `None` where it is no list of them.
    fn fields(&mut self, value: &mut Value, old: &Fields, new: &Fields) -> Option<()> {
        let written = value.get_mut("fields")?.as_array_mut()?;
        for (field, before) in new.iter().zip(old) {
            let entry = written.iter_mut().find(|entry| entry.get("name").is_some_and(|name| name == field.name()))?;
            let mut changes = Vec::new();
            let data_type = entry.get_mut("type")?;
            self.of_type(data_type, before.data_type(), field.data_type(), "", &mut changes)?;
            if !changes.is_empty() {
                self.widened = true;
                let metadata = entry.as_object_mut()?.entry("metadata").or_insert_with(|| json!({}));
                let all = metadata.as_object_mut()?.entry("delta.typeChanges").or_insert_with(|| json!([]));
                all.as_array_mut()?.append(&mut changes);
            }
        }
        let added: Vec<FieldRef> = new.iter().skip(old.len()).cloned().collect();
        written.extend(columns_to_delta(&added).ok()?);
        Some(())
    }

    /// Brings one type to another. `path` leads from the nearest field of a struct: `element`, `value`.
    fn of_type(
        &mut self,
        value: &mut Value,
        old: &DataType,
        new: &DataType,
        path: &str,
        changes: &mut Vec<Value>,
    ) -> Option<()> {
        if old == new {
            return Some(());
        }
        let below = |step: &str| if path.is_empty() { step.to_owned() } else { format!("{path}.{step}") };
        match (old, new) {
            (DataType::Struct(old), DataType::Struct(new)) => self.fields(value, old, new),
            (DataType::List(old), DataType::List(new)) => {
                let (old, new) = (old.data_type(), new.data_type());
                self.of_type(value.get_mut("elementType")?, old, new, &below("element"), changes)
            }
            (DataType::Map(old, _), DataType::Map(new, _)) => {
                let (old, new) = (map_value(old)?, map_value(new)?);
                self.of_type(value.get_mut("valueType")?, old.data_type(), new.data_type(), &below("value"), changes)
            }
            _ => {
                let to = type_to_delta(new)?;
                let mut change = json!({"fromType": value.clone(), "toType": to});
                if !path.is_empty() {
                    change["fieldPath"] = path.into();
                }
                changes.push(change);
                *value = to;
                Some(())
            }
        }
    }
}

fn map_value(entries: &Field) -> Option<FieldRef> {
    let DataType::Struct(pair) = entries.data_type() else { return None };
    pair.get(1).cloned()
}

/// `protocol` with the feature, which brings versions 3 and 7 with it; `None` where it has it.
fn with_type_widening(protocol: &Value) -> Option<Value> {
    let list = |key: &str| protocol.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let version = |key: &str| protocol.get(key).and_then(Value::as_u64).unwrap_or(1);
    let (mut readers, mut writers) = (list("readerFeatures"), list("writerFeatures"));
    if writers.iter().any(|feature| feature == TYPE_WIDENING) {
        return None;
    }
    let (reader, writer) = (version("minReaderVersion"), version("minWriterVersion"));
    if writer < 7 {
        let implied = LEGACY_WRITER_FEATURES.iter().filter(|(from, _)| *from <= writer);
        writers.extend(implied.map(|(_, name)| Value::from(*name)));
    }
    if reader == 2 {
        readers.push("columnMapping".into());
    }
    readers.push(TYPE_WIDENING.into());
    writers.push(TYPE_WIDENING.into());
    Some(json!({
        "minReaderVersion": 3,
        "minWriterVersion": 7,
        "readerFeatures": readers,
        "writerFeatures": writers,
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use adapters::contract::columns::with_key;
    use arrow::datatypes::Schema;

    use super::super::delta::{metadata, protocol, schema_from_delta};
    use super::*;

    fn schema(fields: &[(&str, DataType)]) -> SchemaRef {
        Arc::new(Schema::new(fields.iter().map(|(n, t)| Field::new(*n, t.clone(), true)).collect::<Vec<_>>()))
    }

    fn state(fields: &[(&str, DataType)]) -> TableState {
        let mut made = metadata("id", &schema(fields), &[], 0).unwrap();
        let commented = made["schemaString"].as_str().unwrap().replacen("{}", r#"{"comment":"ours"}"#, 1);
        made["schemaString"] = commented.into();
        TableState::new(0, protocol(), made).unwrap()
    }

    fn evolve(state: &TableState, wanted: &SchemaRef) -> Result<String, LakeError> {
        evolution(state, wanted, LakeErrorClass::Config)
    }

    fn actions(lines: &str) -> Vec<Value> {
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn test_new_columns_leave_foreign_words_in_the_schema_and_ask_nothing_of_readers() {
        let lines = evolve(&state(&[("a", DataType::Int64)]), &schema(&[("n", DataType::Utf8)])).unwrap();
        let actions = actions(&lines);
        assert_eq!(actions.len(), 1);
        let text = actions[0]["metaData"]["schemaString"].as_str().unwrap();
        assert!(text.contains(r#""comment":"ours""#) && text.contains(r#""name":"n""#));
    }

    #[test]
    fn test_nothing_new_writes_nothing_and_what_cannot_be_is_refused() {
        let table = state(&[("a", DataType::Int64), ("b", DataType::Float64)]);
        assert_eq!(evolve(&table, &schema(&[("b", DataType::Float32), ("a", DataType::Int16)])).unwrap(), "");
        for (name, data_type) in [("a", DataType::Utf8), ("A", DataType::Int64), ("b", DataType::Int64)] {
            assert_eq!(evolve(&table, &schema(&[(name, data_type)])).unwrap_err().code, "schema_conflict");
        }
    }

    #[test]
    fn test_keys_are_kept_in_the_schema_at_each_level() {
        let column = |name: &str, key: &str| with_key(Field::new(name, DataType::Int64, true), key);
        let wanted = |inner: Vec<Field>| -> SchemaRef {
            let inner = with_key(Field::new("s_s", DataType::Struct(inner.into()), true), "s s");
            Arc::new(Schema::new(vec![column("a", "a"), inner]))
        };
        let lines = evolve(&state(&[("a", DataType::Int64)]), &wanted(vec![column("x_y", "x y")])).unwrap();
        let made = actions(&lines)[0]["metaData"].clone();
        let table = TableState::new(0, protocol(), made).unwrap();
        let lines = evolve(&table, &wanted(vec![column("x_y", "x y"), column("x_y_2", "x_y")])).unwrap();
        let text = actions(&lines)[0]["metaData"]["schemaString"].as_str().unwrap().to_owned();
        for key in [r#""lakefeed.key":"s s""#, r#""lakefeed.key":"x y""#, r#""lakefeed.key":"x_y""#] {
            assert!(text.contains(key), "{key} in {text}");
        }
        let again = schema_from_delta(&text).unwrap();
        assert_eq!(again, wanted(vec![column("x_y", "x y"), column("x_y_2", "x_y")]));
        // A column never changes its key, and a key its column.
        for column in [column("s_s", "s s s"), column("s", "s s")] {
            let error = evolution(&table, &Arc::new(Schema::new(vec![column])), LakeErrorClass::Data).unwrap_err();
            assert_eq!((error.class, error.code), (LakeErrorClass::Data, "schema_conflict"));
        }
    }

    #[test]
    fn test_a_wider_type_is_written_with_its_change_and_the_feature() {
        let list = |of: DataType| DataType::List(Arc::new(Field::new("item", of, true)));
        let inner = |of: DataType| DataType::Struct(vec![Field::new("x", of, true)].into());
        let before = [("n", DataType::Int32), ("l", list(DataType::Float32)), ("s", inner(DataType::Int16))];
        let after = [("n", DataType::Int64), ("l", list(DataType::Float64)), ("s", inner(DataType::Float64))];
        let lines = evolve(&state(&before), &schema(&after)).unwrap();
        let actions = actions(&lines);
        let protocol = &actions[0]["protocol"];
        assert_eq!(protocol["readerFeatures"], json!(["typeWidening"]));
        assert_eq!(protocol["writerFeatures"], json!(["appendOnly", "invariants", "typeWidening"]));
        let metadata = &actions[1]["metaData"];
        assert_eq!(metadata["configuration"]["delta.enableTypeWidening"], "true");
        let text = metadata["schemaString"].as_str().unwrap();
        assert_eq!(schema_from_delta(text).unwrap(), schema(&after));
        let written: Value = serde_json::from_str(text).unwrap();
        let changes = |field: &Value| field["metadata"]["delta.typeChanges"].clone();
        assert_eq!(changes(&written["fields"][0]), json!([{"fromType": "integer", "toType": "long"}]));
        let element = json!([{"fromType": "float", "toType": "double", "fieldPath": "element"}]);
        assert_eq!(changes(&written["fields"][1]), element);
        let nested = &written["fields"][2]["type"]["fields"][0];
        assert_eq!(changes(nested), json!([{"fromType": "short", "toType": "double"}]));
        assert!(text.contains(r#""comment":"ours""#));
    }
}
