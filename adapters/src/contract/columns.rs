//! Columns of a table, and the keys of records that they hold.
//!
//! A record names its fields as it likes; a table cannot carry every such name. So a column may have another name than
//! the key whose values it holds, and then says the key in its metadata, under [`KEY`].

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};

/// Where a column's metadata holds the key whose values it holds; absent where that is its name.
pub const KEY: &str = "lakefeed.key";

/// Bytes of a name that is made for a key, before what makes it differ from others: catalogs that take a Delta table over
/// have columns of 255 bytes.
const NAME_BYTES_MAX: usize = 200;

/// Characters that Delta cannot carry in a column's name without column mapping.
const FORBIDDEN: &[char] = &[' ', ',', ';', '{', '}', '(', ')', '\n', '\t', '='];

/// Whether Delta can carry a column of this name.
#[must_use]
pub fn is_column_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(FORBIDDEN)
}

/// The name for a key's column: the key itself where a table can carry it; else each forbidden or control character
/// is `_`, the empty key too, and what is too long is cut.
#[must_use]
pub fn column_name(key: &str) -> String {
    let unfit = |c: char| FORBIDDEN.contains(&c) || c.is_control();
    let mut name: String = key.chars().map(|c| if unfit(c) { '_' } else { c }).collect();
    let mut end = NAME_BYTES_MAX.min(name.len());
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.truncate(end);
    if name.is_empty() { "_".to_owned() } else { name }
}

/// What two names have in common that some reader of Delta takes for one: Delta compares without regard to case, and its
/// readers differ in what that is for letters beyond ASCII, so this errs towards the same.
#[must_use]
pub fn caseless(name: &str) -> String {
    let lower = |upper: char| upper.to_lowercase().next();
    name.chars().flat_map(char::to_uppercase).filter_map(lower).collect()
}

/// The key whose values `column` holds.
#[must_use]
pub fn key_of(column: &Field) -> &str {
    column.metadata().get(KEY).map_or_else(|| column.name().as_str(), String::as_str)
}

/// `column` with no metadata but its key's.
#[must_use]
pub fn with_key(column: Field, key: &str) -> Field {
    let own = column.name() == key;
    column.with_metadata((!own).then(|| (KEY.to_owned(), key.to_owned())).into_iter().collect())
}

/// For each of `columns` the key that it holds; `None` where another one holds it. One that says so in its metadata
/// comes before one that is merely called so, and an earlier one before a later one.
#[must_use]
pub fn keys_of(columns: &Fields) -> Vec<Option<&str>> {
    let mut held: HashSet<&str> = HashSet::new();
    let mut keys = vec![None; columns.len()];
    for said in [true, false] {
        for (key, column) in keys.iter_mut().zip(columns) {
            if column.metadata().contains_key(KEY) == said && held.insert(key_of(column)) {
                *key = Some(key_of(column));
            }
        }
    }
    keys
}

/// `schema` with each column, those within structs and lists too, called by its key; without those that hold none.
#[must_use]
pub fn keyed(schema: &SchemaRef) -> SchemaRef {
    if schema.fields().iter().any(says_key) {
        Arc::new(Schema::new(keyed_fields(schema.fields())))
    } else {
        Arc::clone(schema)
    }
}

fn says_key(column: &FieldRef) -> bool {
    column.metadata().contains_key(KEY)
        || match column.data_type() {
            DataType::Struct(fields) => fields.iter().any(says_key),
            DataType::List(item) | DataType::LargeList(item) => says_key(item),
            _ => false,
        }
}

fn keyed_fields(columns: &Fields) -> Fields {
    let held = columns.iter().zip(keys_of(columns)).filter_map(|(column, key)| Some((column, key?)));
    held.map(|(column, key)| Arc::new(Field::new(key, keyed_type(column.data_type()), column.is_nullable()))).collect()
}

fn keyed_type(data_type: &DataType) -> DataType {
    let item = |item: &FieldRef| {
        let data_type = keyed_type(item.data_type());
        Arc::new(item.as_ref().clone().with_data_type(data_type))
    };
    match data_type {
        DataType::Struct(fields) => DataType::Struct(keyed_fields(fields)),
        DataType::List(of) => DataType::List(item(of)),
        DataType::LargeList(of) => DataType::LargeList(item(of)),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, key: &str) -> Field {
        with_key(Field::new(name, DataType::Int64, true), key)
    }

    #[test]
    fn test_names_for_keys_are_what_delta_can_carry() {
        for (key, name) in [
            ("Wind speed (m/s)", "Wind_speed__m/s_"),
            ("a,b;c{d}e=f", "a_b_c_d_e_f"),
            ("tab\tline\nnul\0del\u{7f}", "tab_line_nul_del_"),
            ("", "_"),
            ("größe.%", "größe.%"),
        ] {
            assert_eq!(column_name(key), name);
            assert!(is_column_name(name));
        }
        let long = column_name(&"ü".repeat(1000));
        assert_eq!(long, "ü".repeat(100));
    }

    #[test]
    fn test_names_that_some_reader_takes_for_one_are_one() {
        for (a, b) in [("Wind", "wIND"), ("ß", "SS"), ("ς", "Σ"), ("\u{212a}", "k"), ("İ", "i"), ("ı", "I")] {
            assert_eq!(caseless(a), caseless(b), "{a} and {b}");
        }
        assert_ne!(caseless("a"), caseless("ä"));
    }

    #[test]
    fn test_each_key_is_held_by_one_column() {
        let columns: Fields = vec![column("a", "a"), column("b", "a"), column("c", "a"), column("d", "d")].into();
        assert_eq!(keys_of(&columns), [None, Some("a"), None, Some("d")]);
        let inner = DataType::Struct(vec![column("x_y", "x y")].into());
        let list = DataType::List(Arc::new(Field::new("item", inner, true)));
        let mut all: Vec<FieldRef> = columns.iter().cloned().collect();
        all.push(Arc::new(Field::new("l", list, true)));
        let keyed = keyed(&Arc::new(Schema::new(all)));
        let names: Vec<_> = keyed.fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, ["a", "d", "l"]);
        assert!(keyed.field(2).data_type().to_string().contains("x y"));
        assert!(!keyed.fields().iter().any(says_key));
    }
}
