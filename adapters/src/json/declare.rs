//! `table.schema`: declared columns out of settings.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::contract::config::{Node, Reader, Table, Value};

const CODE: &str = "INVALID_SCHEMA";
const EXPECTED: &str = "expected \"string\", \"long\", \"integer\", \"double\", \"float\", \"boolean\", \"timestamp\", \
                        \"date\", \"decimal(p,s)\", each also with \" not null\", { … } for a struct or [ … ] for a list";
/// Delta's decimals have 128 bits.
const DECIMAL_DIGITS_MAX: u8 = 38;
/// Deeper is a mistake, and every level costs stack in all readers of the table.
const NESTING_MAX: usize = 16;

/// Microseconds, UTC: the one timestamp that Delta has.
#[must_use]
pub fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// Reads the columns below `key`: `Some(None)` for `"infer"` or where there is no such key, `Some(Some(_))` for a
/// table such as `{ at = "timestamp not null", value = "double", tags = ["string"], place = { lat = "double" } }`.
/// `None` after everything wrong was reported.
pub fn schema_from_config(reader: &Reader<'_>, key: &str) -> Option<Option<SchemaRef>> {
    let Some(node) = reader.node(key) else { return Some(None) };
    match &node.value {
        Value::String(text) if text == "infer" => Some(None),
        Value::Table(table) => {
            let fields = struct_below(reader, key, table, 0)?;
            Some(Some(Arc::new(Schema::new(fields))))
        }
        other => {
            let what = match other {
                Value::String(text) => format!("{} is {text:?}", reader.path_of(key)),
                _ => format!("{} is {}", reader.path_of(key), other.type_name()),
            };
            let remedy = format!("write {key} = \"infer\" or {key} = {{ id = \"long\" }}");
            reader.wrong(key, CODE, what, "expected \"infer\" or a table of columns", remedy);
            None
        }
    }
}

fn struct_below(reader: &Reader<'_>, key: &str, table: &Table, depth: usize) -> Option<Vec<Field>> {
    if table.entries.is_empty() {
        let what = format!("{} has no columns", reader.path_of(key));
        let remedy = format!("write {key} = {{ id = \"long\" }} or leave it out");
        reader.wrong(key, CODE, what, "expected columns with their types", remedy);
        return None;
    }
    struct_fields(&reader.section(key)?, depth)
}

fn struct_fields(reader: &Reader<'_>, depth: usize) -> Option<Vec<Field>> {
    let mut fields: Vec<Field> = Vec::new();
    let mut good = true;
    for entry in reader.entries() {
        let key = entry.key.as_str();
        let named = check_name(reader, key, &fields, depth);
        match field(reader, key, &entry.node, depth) {
            Some(field) if named => fields.push(field),
            _ => good = false,
        }
    }
    good.then_some(fields)
}

fn check_name(reader: &Reader<'_>, key: &str, before: &[Field], depth: usize) -> bool {
    let path = reader.path_of(key);
    if key.is_empty() || (depth == 0 && key.to_ascii_lowercase().starts_with("_lf_")) {
        let what = format!("{path} cannot name a column");
        reader.wrong(key, CODE, what, "expected a name that does not begin with _lf_", "choose another name");
        return false;
    }
    if let Some(twin) = before.iter().find(|field| field.name().eq_ignore_ascii_case(key)) {
        let what = format!("{path} differs from {} only in case", twin.name());
        reader.wrong(key, CODE, what, "expected names that differ without regard to case", "choose another name");
        return false;
    }
    true
}

fn field(reader: &Reader<'_>, key: &str, node: &Node, depth: usize) -> Option<Field> {
    if depth >= NESTING_MAX {
        let what = format!("{} stands deeper than {NESTING_MAX}", reader.path_of(key));
        reader.wrong(key, CODE, what, format!("expected at most {NESTING_MAX} levels"), "make the columns flatter");
        return None;
    }
    match &node.value {
        Value::String(text) => {
            let (name, required) = match text.strip_suffix(" not null") {
                Some(name) => (name.trim_end(), true),
                None => (text.as_str(), false),
            };
            if let Some(data_type) = scalar(name.trim()) {
                return Some(Field::new(key, data_type, !required));
            }
            let what = format!("{} is {text:?}, which is no known type", reader.path_of(key));
            reader.wrong(key, CODE, what, EXPECTED, format!("write {key} = \"string\""));
            None
        }
        Value::Table(table) => {
            let fields = struct_below(reader, key, table, depth + 1)?;
            Some(Field::new(key, DataType::Struct(fields.into()), true))
        }
        Value::Array(items) => {
            let item = list_item(reader, key, items, depth)?;
            Some(Field::new(key, DataType::List(Arc::new(item)), true))
        }
        other => {
            let what = format!("{} is {}", reader.path_of(key), other.type_name());
            reader.wrong(key, CODE, what, EXPECTED, format!("write {key} = \"string\""));
            None
        }
    }
}

fn list_item(reader: &Reader<'_>, key: &str, items: &[Node], depth: usize) -> Option<Field> {
    let [item] = items else {
        let what = format!("{} is a list of {} types", reader.path_of(key), items.len());
        reader.wrong(key, CODE, what, "expected the one type of its elements", format!("write {key} = [\"string\"]"));
        return None;
    };
    if let Value::Table(_) = item.value {
        let section = reader.sections(key).into_iter().next()?;
        let fields = struct_fields(&section, depth + 1)?;
        return Some(Field::new("element", DataType::Struct(fields.into()), true));
    }
    if let Value::Array(inner) = &item.value
        && inner.iter().any(|node| matches!(node.value, Value::Table(_)))
    {
        let what = format!("{} is a list of lists of structs", reader.path_of(key));
        reader.wrong(key, CODE, what, "expected structs in one list at most", "infer the schema or make it flatter");
        return None;
    }
    field(reader, key, item, depth + 1).map(|field| field.with_name("element"))
}

fn scalar(name: &str) -> Option<DataType> {
    Some(match name {
        "string" => DataType::Utf8,
        "long" => DataType::Int64,
        "integer" => DataType::Int32,
        "double" => DataType::Float64,
        "float" => DataType::Float32,
        "boolean" => DataType::Boolean,
        "timestamp" => timestamp_type(),
        "date" => DataType::Date32,
        other => {
            let (precision, scale) = other.strip_prefix("decimal(")?.strip_suffix(')')?.split_once(',')?;
            let precision: u8 = precision.trim().parse().ok()?;
            let scale: i8 = scale.trim().parse().ok()?;
            let good = (1..=DECIMAL_DIGITS_MAX).contains(&precision) && scale >= 0 && scale.unsigned_abs() <= precision;
            good.then_some(DataType::Decimal128(precision, scale))?
        }
    })
}
