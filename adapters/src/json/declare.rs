//! `table.schema` and `table.keys`: declared columns out of settings.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};

use crate::contract::columns::{caseless, column_name, key_of, keys_of, with_key};
use crate::contract::config::{Node, Reader, Table, Value, nearest_hint, show_key};

const CODE: &str = "INVALID_SCHEMA";
const KEYS: &str = "keys";
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
/// A column whose key in records is not its name has the key in its metadata, from `keys` beside it. `None` after
/// everything wrong was reported.
pub fn schema_from_config(reader: &Reader<'_>, key: &str) -> Option<Option<SchemaRef>> {
    let node = reader.node(key);
    let declared = node.is_some_and(|node| matches!(node.value, Value::Table(_)));
    let keys = if declared { reader.section(KEYS) } else { None };
    if !declared && reader.node(KEYS).is_some() {
        let what = format!("{} is set, but no columns are declared", reader.path_of(KEYS));
        reader.wrong(KEYS, "NOT_APPLICABLE", what, "expected no such key", "remove it");
        return None;
    }
    let Some(node) = node else { return Some(None) };
    match &node.value {
        Value::String(text) if text == "infer" => Some(None),
        Value::Table(table) => {
            let fields = struct_below(reader, key, table, 0)?;
            let fields = match keys {
                Some(keys) => with_keys(&keys, fields.into())?,
                None if reader.has(KEYS) => return None,
                None => fields.into(),
            };
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
    let sound = column_name(key);
    if depth == 0 && key.to_ascii_lowercase().starts_with("_lf_") {
        let what = format!("{path} cannot name a column");
        reader.wrong(key, CODE, what, "expected a name that does not begin with _lf_", "choose another name");
        return false;
    }
    if sound != key {
        let what = format!("{path} cannot name a column");
        let expected = "expected a name of 1 to 200 bytes without spaces, control characters and , ; { } ( ) =";
        let name = show_key(&sound);
        let entry = if depth == 0 { name.clone() } else { format!("\"….{sound}\"") };
        let remedy = format!("call it {name} and write keys = {{ {entry} = {key:?} }} beside the schema");
        reader.wrong(key, CODE, what, expected, remedy);
        return false;
    }
    if let Some(twin) = before.iter().find(|field| caseless(field.name()) == caseless(key)) {
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

/// `fields` with the keys that `reader` has for some of them by their dotted paths.
fn with_keys(reader: &Reader<'_>, fields: Fields) -> Option<Fields> {
    let mut keys = BTreeMap::new();
    let mut good = true;
    for entry in reader.entries() {
        match reader.text_verbatim(&entry.key) {
            Some(key) => good &= keys.insert(entry.key.as_str(), key).is_none(),
            None => good = false,
        }
    }
    let fields = fields_with_keys(&fields, "", &keys);
    let mut paths = Vec::new();
    paths_below(&fields, "", &mut paths);
    for path in keys.keys().filter(|path| !paths.iter().any(|known| known == *path)) {
        let what = format!("{} is not a declared column", reader.path_of(path));
        let expected = format!("expected some of {}", paths.join(", "));
        reader.wrong(path, "UNKNOWN_COLUMN", what, expected, nearest_hint(path, paths.iter().map(String::as_str)));
        good = false;
    }
    (good & each_key_once(reader, &fields, "")).then_some(fields)
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn fields_with_keys(fields: &Fields, path: &str, keys: &BTreeMap<&str, &str>) -> Fields {
    let with = |field: &FieldRef| {
        let path = below(path, field.name());
        let data_type = type_with_keys(field.data_type(), &path, keys);
        let field = field.as_ref().clone().with_data_type(data_type);
        keys.get(path.as_str()).map_or_else(|| field.clone(), |key| with_key(field.clone(), key))
    };
    fields.iter().map(with).collect::<Vec<_>>().into()
}

fn type_with_keys(data_type: &DataType, path: &str, keys: &BTreeMap<&str, &str>) -> DataType {
    match data_type {
        DataType::Struct(fields) => DataType::Struct(fields_with_keys(fields, path, keys)),
        DataType::List(item) => {
            let data_type = type_with_keys(item.data_type(), path, keys);
            DataType::List(Arc::new(item.as_ref().clone().with_data_type(data_type)))
        }
        other => other.clone(),
    }
}

/// The fields of the records that a column of this type holds, lists taken apart.
fn members(data_type: &DataType) -> Option<&Fields> {
    match data_type {
        DataType::Struct(fields) => Some(fields),
        DataType::List(item) => members(item.data_type()),
        _ => None,
    }
}

fn paths_below(fields: &Fields, path: &str, out: &mut Vec<String>) {
    for field in fields {
        let path = below(path, field.name());
        if let Some(fields) = members(field.data_type()) {
            paths_below(fields, &path, out);
        }
        out.push(path);
    }
}

/// Reports the columns of one struct that hold the same key.
fn each_key_once(reader: &Reader<'_>, fields: &Fields, path: &str) -> bool {
    let mut good = true;
    for (field, held) in fields.iter().zip(keys_of(fields)) {
        let path_of = |field: &FieldRef| below(path, field.name());
        if held.is_none() {
            let same = |other: &&FieldRef| other.name() != field.name() && key_of(other) == key_of(field);
            let twin = fields.iter().find(same).map(path_of).unwrap_or_default();
            let (one, other) = if reader.has(&twin) { (twin, path_of(field)) } else { (path_of(field), twin) };
            let what = format!("{} is {:?}, which {other} holds, too", reader.path_of(&one), key_of(field));
            reader.wrong(&one, CODE, what, "expected each key for one column", "give one of them another key");
            good = false;
        }
        if let Some(fields) = members(field.data_type()) {
            good &= each_key_once(reader, fields, &path_of(field));
        }
    }
    good
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
