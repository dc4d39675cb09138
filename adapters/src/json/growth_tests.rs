use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, SchemaRef};

use super::*;
use crate::contract::{Decode, Payload, Rows};

fn schema(fields: Vec<Field>) -> SchemaRef {
    Arc::new(Schema::new(fields))
}

fn decode(declared: Option<SchemaRef>, growth: Growth, known: Option<&SchemaRef>, texts: &[&str]) -> Rows {
    let payload = |text: &&str| Payload {
        position: None,
        received_at_us: 0,
        meta: BTreeMap::new(),
        bytes: (*text).to_owned().into(),
        dead: None,
    };
    let spec = JsonSpec { schema: declared, growth, ..JsonSpec::default() };
    JsonDecoder::new(spec).decode(&texts.iter().map(payload).collect::<Vec<_>>(), known)
}

fn codes(rows: &Rows) -> Vec<(u32, &'static str)> {
    rows.dead.iter().map(|dead| (dead.payload, dead.code)).collect()
}

fn names(rows: &Rows) -> Vec<String> {
    rows.batch.schema().fields().iter().map(|field| field.name().clone()).collect()
}

#[test]
fn test_columns_that_must_not_grow_refuse_what_is_new_once_there_are_some() {
    let first = decode(None, Growth::Refuse, None, &[r#"{"a":1}"#, r#"{"a":2,"b":{"c":1}}"#]);
    assert_eq!((codes(&first), names(&first)), (vec![], vec!["a".to_owned(), "b".to_owned()]));
    let known = first.batch.schema();
    let texts =
        [r#"{"a":3,"x":1}"#, r#"{"a":4,"x":null}"#, r#"{"b":{"c":2,"d":3}}"#, r#"{"b":{"c":2}}"#, r#"{"a":"x"}"#];
    let later = decode(None, Growth::Refuse, Some(&known), &texts);
    assert_eq!(codes(&later), [(0, SCHEMA_CHANGE), (2, SCHEMA_CHANGE), (4, "type_mismatch")]);
    assert_eq!(later.payload, [1, 3]);
    assert_eq!(later.batch.schema(), known);
}

#[test]
fn test_declared_columns_grow_only_where_asked() {
    let declared = schema(vec![Field::new("a", DataType::Int64, false)]);
    let texts = [r#"{"a":1,"b":"x"}"#, r#"{"a":2}"#, r#"{"b":"y"}"#];
    let kept = decode(Some(Arc::clone(&declared)), Growth::AsDeclared, None, &texts);
    assert_eq!((codes(&kept), names(&kept)), (vec![(2, "missing_field")], vec!["a".to_owned()]));
    let grown = decode(Some(Arc::clone(&declared)), Growth::Add, None, &texts);
    assert_eq!((codes(&grown), names(&grown)), (vec![(2, "missing_field")], vec!["a".to_owned(), "b".to_owned()]));
    let refused = decode(Some(declared), Growth::Refuse, None, &texts);
    assert_eq!(codes(&refused), [(0, SCHEMA_CHANGE), (2, "missing_field")]);
}

#[test]
fn test_narrow_whole_numbers_of_a_table_widen_where_nothing_is_lost() {
    let known = schema(vec![
        Field::new("n", DataType::Int32, true),
        Field::new("f", DataType::Int16, true),
        Field::new("l", DataType::Int64, true),
    ]);
    let texts = [r#"{"n":3000000000,"f":1.5}"#, r#"{"n":1,"f":2,"l":9}"#, r#"{"l":1.5}"#, r#"{"n":1e30}"#];
    let rows = decode(None, Growth::Add, Some(&known), &texts);
    let types: Vec<DataType> = rows.batch.schema().fields().iter().map(|f| f.data_type().clone()).collect();
    assert_eq!(types, [DataType::Int64, DataType::Float64, DataType::Int64]);
    assert_eq!(codes(&rows), [(2, "type_mismatch"), (3, "type_mismatch")]);
    assert_eq!(rows.batch.column(0).as_primitive::<Int64Type>().values(), &[3_000_000_000, 1]);
    assert_eq!(rows.batch.column(1).as_primitive::<Float64Type>().values(), &[1.5, 2.0]);
    assert_eq!(rows.batch.column(2).null_count(), 1);
}
