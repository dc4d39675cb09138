use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::json::ReaderBuilder;
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::contract::config::{MapSecrets, Problem, Problems, Reader, Table};
use crate::contract::{Decode, Payload, Rows};

fn payload(bytes: impl Into<Bytes>) -> Payload {
    Payload { position: None, received_at_us: 0, meta: BTreeMap::new(), bytes: bytes.into(), dead: None }
}

fn payloads(texts: &[&str]) -> Vec<Payload> {
    texts.iter().map(|text| payload((*text).to_owned())).collect()
}

fn declared() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("value", DataType::Float64, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("ok", DataType::Boolean, true),
        Field::new("at", timestamp_type(), true),
        Field::new("day", DataType::Date32, true),
        Field::new("price", DataType::Decimal128(10, 2), true),
        Field::new("n", DataType::Int32, true),
    ]))
}

fn decode(schema: Option<SchemaRef>, known: Option<&SchemaRef>, texts: &[&str]) -> Rows {
    let spec = JsonSpec { schema, event_time: Some("at".to_owned()), ..JsonSpec::default() };
    JsonDecoder::new(spec).decode(&payloads(texts), known)
}

fn dead_codes(rows: &Rows) -> Vec<(u32, &'static str)> {
    rows.dead.iter().map(|dead| (dead.payload, dead.code)).collect()
}

fn longs(batch: &RecordBatch, name: &str) -> Vec<Option<i64>> {
    batch.column_by_name(name).expect("a column").as_primitive::<Int64Type>().iter().collect()
}

#[test]
fn test_declared_rows_come_out_with_event_times_and_extra_fields_left_out() {
    let text = r#"{"x":{"y":[1]},"id":7,"value":3,"name":"a\u00e9","ok":true,"at":"2026-01-01T00:00:00.5+01:00","day":"2026-01-02","price":1.25,"n":-1}"#;
    let rows = decode(Some(declared()), None, &[text, r#" {"id":8} "#]);
    assert_eq!(rows.dead, []);
    assert_eq!(rows.batch.schema(), declared());
    assert_eq!(longs(&rows.batch, "id"), [Some(7), Some(8)]);
    assert_eq!(rows.batch.column(1).as_primitive::<Float64Type>().value(0), 3.0);
    assert_eq!(rows.batch.column(2).as_string::<i32>().value(0), "aé");
    let at = 1_767_222_000_500_000;
    assert_eq!(rows.batch.column(4).as_primitive::<TimestampMicrosecondType>().value(0), at);
    assert_eq!(rows.event_time_us, [Some(at), None]);
    assert_eq!(rows.payload, [0, 1]);
}

#[test]
fn test_each_bad_record_is_dead_alone_and_by_its_reason() {
    let bad: &[(&[u8], &str)] = &[
        (b"{\"id\":1}", ""),
        (b"junk", "not_json"),
        (b"", "not_json"),
        (b"{\"id\":1", "not_json"),
        (b"{\"id\":1}{\"id\":2}", "not_json"),
        (b"{\"id\":1 \"value\":2}", "not_json"),
        (b"{,\"id\":1}", "not_json"),
        (b"{\"id\":1,\"value\":1-2}", "not_json"),
        (b"{\"id\":1,\"name\":\"\xff\"}", "not_utf8"),
        (b"[{\"id\":1}]", "not_an_object"),
        (b"null", "not_an_object"),
        (b"\"text\"", "not_an_object"),
        (b"{\"value\":1}", "missing_field"),
        (b"{\"id\":null}", "missing_field"),
        (b"{\"id\":1.5}", "type_mismatch"),
        (b"{\"id\":\"1\"}", "type_mismatch"),
        (b"{\"id\":9223372036854775808}", "type_mismatch"),
        (b"{\"id\":1,\"n\":2147483648}", "type_mismatch"),
        (b"{\"id\":1,\"value\":\"2\"}", "type_mismatch"),
        (b"{\"id\":1,\"name\":2}", "type_mismatch"),
        (b"{\"id\":1,\"ok\":\"true\"}", "type_mismatch"),
        (b"{\"id\":1,\"at\":5}", "type_mismatch"),
        (b"{\"id\":1,\"at\":\"yesterday\"}", "type_mismatch"),
        (b"{\"id\":1,\"day\":\"x\"}", "type_mismatch"),
        (b"{\"id\":1,\"price\":\"x\"}", "type_mismatch"),
        (b"{\"id\":1,\"price\":123456789012}", "type_mismatch"),
        (b"{\"id\":1,\"name\":{}}", "type_mismatch"),
        (b"{\"id\":1,\"other\":\"\\ud800\"}", "not_json"),
        (b"{\"id\":2}", ""),
    ];
    let all: Vec<_> = bad.iter().map(|(bytes, _)| payload(bytes.to_vec())).collect();
    let rows = JsonDecoder::new(JsonSpec { schema: Some(declared()), ..JsonSpec::default() }).decode(&all, None);
    let wanted: Vec<_> =
        (0u32..).zip(bad).filter(|(_, (_, code))| !code.is_empty()).map(|(at, (_, code))| (at, *code)).collect();
    assert_eq!(dead_codes(&rows), wanted);
    assert_eq!(longs(&rows.batch, "id"), [Some(1), Some(2)]);
    assert_eq!(rows.payload, [0, 28]);
    assert!(rows.dead.iter().all(|dead| dead.bytes.is_none()));
}

#[test]
fn test_messages_name_the_field_and_the_type_and_never_the_value() {
    let schema = Arc::new(Schema::new(vec![
        Field::new("n", DataType::Struct(vec![Field::new("x", DataType::Int64, true)].into()), true),
        Field::new("at", timestamp_type(), true),
    ]));
    let rows = decode(Some(schema), None, &[r#"{"n":{"x":"CANARY"}}"#, r#"{"at":"CANARY"}"#, r#"{"n":1}CANARY"#]);
    assert_eq!(rows.dead[0].message, "n.x is not a whole number of 64 bits");
    assert!(rows.dead[1].message.starts_with("at is not a date or an RFC 3339 time"), "{}", rows.dead[1].message);
    assert_eq!(rows.dead.len(), 3);
    assert!(rows.dead.iter().all(|dead| !dead.message.contains("CANARY")));
}

#[test]
fn test_selected_records_keep_their_own_bytes_when_dead_and_take_filters_them() {
    let spec = JsonSpec { select: Some("$.data".to_owned()), ..JsonSpec::default() };
    let decoder = JsonDecoder::new(spec);
    let mut page = payload(r#"{"data":[{"id":0},{"id":1},{"id":"x"},{"id":3},5]}"#);
    let rows = decoder.decode(std::slice::from_ref(&page), None);
    assert_eq!(longs(&rows.batch, "id"), [Some(0), Some(1), Some(3)]);
    assert_eq!(dead_codes(&rows), [(0, "type_mismatch"), (0, "not_an_object")]);
    assert_eq!(rows.dead[0].bytes.as_deref(), Some(br#"{"id":"x"}"#.as_slice()));

    page.meta.insert(TAKE.to_owned(), format_take([1, 3]));
    let rows = decoder.decode(std::slice::from_ref(&page), None);
    assert_eq!(longs(&rows.batch, "id"), [Some(1), Some(3)]);
    assert_eq!(rows.dead, []);

    page.meta.insert(TAKE.to_owned(), String::new());
    assert_eq!(decoder.decode(std::slice::from_ref(&page), None).batch.num_rows(), 0);
    page.meta.insert(TAKE.to_owned(), "a-b".to_owned());
    assert_eq!(dead_codes(&decoder.decode(&[page], None)), [(0, "invalid_take")]);
}

#[test]
fn test_take_is_written_in_ranges() {
    assert_eq!(format_take([0, 1, 2, 3, 4, 7]), "0-4,7");
    assert_eq!(format_take([]), "");
}

#[test]
fn test_inferred_columns_append_to_the_known_and_keep_their_types() {
    let first = decode(None, None, &[r#"{"a":1,"o":{"x":1},"l":[{"p":1}],"f":1.5}"#]);
    let known = first.batch.schema();
    let next = [
        r#"{"f":2,"z":"new","a":2,"o":{"x":2,"y":true},"l":[{"p":2,"q":"s"}]}"#,
        r#"{"a":2.5}"#,
        r#"{"a":"x","never":1}"#,
        r#"{"o":[1]}"#,
        r#"{"a":3,"z":null}"#,
    ];
    let rows = decode(None, Some(&known), &next);
    let names: Vec<_> = rows.batch.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["a", "o", "l", "f", "z"]);
    assert_eq!(dead_codes(&rows), [(1, "type_mismatch"), (2, "type_mismatch"), (3, "type_mismatch")]);
    let schema = rows.batch.schema();
    let o = schema.field_with_name("o").expect("o");
    assert!(matches!(o.data_type(), DataType::Struct(fields) if fields.len() == 2 && fields[1].name() == "y"));
    assert_eq!(longs(&rows.batch, "a"), [Some(2), Some(3)]);
    assert_eq!(rows.batch.column(3).as_primitive::<Float64Type>().value(0), 2.0);
    let again = decode(None, Some(&schema), &[r#"{"a":1}"#]);
    assert!(Arc::ptr_eq(&again.batch.schema(), &schema), "nothing new leaves the schema as it was");
}

#[test]
fn test_a_record_of_nothing_is_a_row_without_columns() {
    let rows = decode(None, None, &["{}", r#"{"a":null}"#, r#"{"e":[],"o":{}}"#]);
    assert_eq!((rows.batch.num_rows(), rows.batch.num_columns(), rows.dead.len()), (3, 0, 0));
    assert_eq!(decode(None, None, &[]).batch.num_rows(), 0);
}

#[test]
fn test_event_times_are_read_from_strings_numbers_and_structs() {
    let decoder = |path: &str| JsonDecoder::new(JsonSpec { event_time: Some(path.to_owned()), ..JsonSpec::default() });
    let at = Some(1_700_000_000_000_000);
    for text in ["1700000000", "1700000000000", "1700000000000000", "\"2023-11-14T22:13:20Z\""] {
        let rows = decoder("a.at").decode(&payloads(&[&format!(r#"{{"a":{{"at":{text}}}}}"#), r#"{"a":null}"#]), None);
        assert_eq!(rows.event_time_us, [at, None], "{text}");
    }
    let rows = decoder("a.b").decode(&payloads(&[r#"{"a":1}"#]), None);
    assert_eq!(rows.event_time_us, [None]);
}

fn read_columns(value: Value) -> Result<Option<SchemaRef>, Vec<Problem>> {
    let table = Table::from_json(value.as_object().expect("an object"));
    let (problems, secrets) = (Problems::default(), MapSecrets::default());
    let reader = Reader::new(&table, "adapter.X.table", &problems, &secrets);
    let schema = schema_from_config(&reader, "schema");
    reader.finish();
    let problems = problems.into_sorted();
    assert_eq!(schema.is_none(), !problems.is_empty());
    schema.ok_or(problems)
}

#[test]
fn test_declared_schemas_are_read_with_structs_lists_and_not_null() {
    assert_eq!(read_columns(json!({})), Ok(None));
    assert_eq!(read_columns(json!({"schema": "infer"})), Ok(None));
    let schema = read_columns(json!({"schema": {
        "a": "long not null", "n": {"x": "double", "t": "timestamp"}, "l": ["string"], "ll": [["long"]],
        "ls": [{"y": "date"}], "dec": "decimal(10,2)"
    }}));
    let schema = schema.expect("a good schema").expect("declared");
    assert!(!schema.field_with_name("a").expect("a").is_nullable());
    assert_eq!(schema.field_with_name("dec").expect("dec").data_type(), &DataType::Decimal128(10, 2));
    let list = DataType::new_list(DataType::Utf8, true);
    assert!(schema.field_with_name("l").expect("l").data_type().equals_datatype(&list));
    let text = r#"{"a":1,"n":{"x":1,"t":"2026-01-01T00:00:00Z"},"l":["s",null],"ll":[[1],[]],"ls":[{"y":"2026-01-01"}],"dec":1.5}"#;
    assert_eq!(decode(Some(schema), None, &[text]).dead, []);
}

#[test]
fn test_declared_columns_are_filled_from_the_keys_that_they_say() {
    let schema = read_columns(json!({
        "schema": {"wind": "double", "n": {"x": "long"}, "l": [{"y": "long"}], "e": "long"},
        "keys": {"wind": "Wind (m/s)", "n": "N N", "n.x": "x=y", "l.y": "", "e": "env:NO_REFERENCE"},
    }));
    let schema = schema.expect("good columns").expect("declared");
    assert_eq!(schema.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(), ["e", "l", "n", "wind"]);
    let text = r#"{"Wind (m/s)":1.5,"wind":"no","N N":{"x=y":7},"l":[{"":8,"y":"no"}],"env:NO_REFERENCE":9}"#;
    let rows = decode(Some(schema), None, &[text]);
    assert_eq!(rows.dead, []);
    let names: Vec<_> = rows.batch.schema().fields().iter().map(|f| f.name().clone()).collect();
    assert_eq!(names, ["env:NO_REFERENCE", "l", "N N", "Wind (m/s)"]);
    assert_eq!(longs(&rows.batch, "env:NO_REFERENCE"), [Some(9)]);
    assert_eq!(rows.batch.column(2).as_struct().column(0).as_primitive::<Int64Type>().value(0), 7);
    assert_eq!(rows.batch.column(1).as_list::<i32>().values().as_struct().column(0).null_count(), 0);
    for (schema, keys, field) in [
        (json!({"a": "long"}), json!({"b": "x"}), "keys.b"),
        (json!({"a": "long"}), json!({"a": 5}), "keys.a"),
        (json!({"a": "long"}), json!("a"), "keys"),
        (json!("infer"), json!({"a": "x"}), "keys"),
        (json!({"a": "long", "b": "long"}), json!({"a": "b"}), "keys.a"),
        (json!({"a": {"b": "long", "c": "long"}}), json!({"a.b": "x", "a.c": "x"}), "keys.\"a.b\""),
        (json!({"a b": "long"}), json!({"a b": "x"}), "schema.\"a b\""),
    ] {
        let problems = read_columns(json!({"schema": schema, "keys": keys})).expect_err("wrong keys");
        let fields: Vec<_> = problems.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(fields, [format!("adapter.X.table.{field}")]);
    }
}

#[test]
fn test_wrong_schemas_give_all_their_problems_at_once() {
    let problems = read_columns(json!({"schema": {
        "a": "int64", "_lf_x": "long", "b": 5, "B": "long", "n": {"x": "decimal(99,2)"}, "l": ["long", "long"], "e": {}
    }}))
    .expect_err("seven problems");
    let fields: Vec<_> = problems.iter().map(|problem| problem.field.as_str()).collect();
    let path = |name: &str| format!("adapter.X.table.schema.{name}");
    for name in ["a", "_lf_x", "b", "n.x", "l", "e"] {
        assert!(fields.contains(&path(name).as_str()), "{name} in {fields:?}");
    }
    assert_eq!(problems.len(), 7, "and b a second time, as B's twin");
    assert!(problems.iter().all(|problem| problem.code == "INVALID_SCHEMA"));
    let unknown = problems.iter().find(|problem| problem.field == path("a")).expect("a's problem");
    assert!(unknown.expected.contains("\"timestamp\""));
    assert!(read_columns(json!({"schema": "inferred"})).is_err());
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-d]", inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Whatever comes, each record is a row or a dead letter, once, in order; and decoding it again under the columns
    /// that it made gives the same rows.
    #[test]
    fn test_every_record_is_a_row_or_a_dead_letter(values in prop::collection::vec(any_json(), 0..12)) {
        let texts: Vec<String> = values.iter().map(Value::to_string).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let rows = decode(None, None, &texts);
        let mut all: Vec<u32> = rows.payload.iter().copied().chain(rows.dead.iter().map(|dead| dead.payload)).collect();
        prop_assert!(rows.payload.is_sorted());
        all.sort_unstable();
        prop_assert_eq!(all, (0..u32::try_from(texts.len()).expect("few")).collect::<Vec<_>>());
        let schema = rows.batch.schema();
        let again = decode(None, Some(&schema), &texts);
        prop_assert_eq!(&again.batch, &rows.batch);
        prop_assert_eq!(again.dead.len(), rows.dead.len());
    }

    /// Good records come out as Arrow's own reader gives them.
    #[test]
    fn test_good_records_decode_as_arrow_reads_them(
        rows in prop::collection::vec((any::<i64>(), any::<Option<f64>>(), ".{0,20}", any::<Option<bool>>()), 1..20)
    ) {
        let texts: Vec<String> = rows.iter().map(|(id, value, name, ok)| {
            json!({"id": id, "value": value, "name": name, "ok": ok}).to_string()
        }).collect();
        let ours = decode(Some(declared()), None, &texts.iter().map(String::as_str).collect::<Vec<_>>());
        let joined = texts.join("\n");
        let mut reader = ReaderBuilder::new(declared()).build(joined.as_bytes()).expect("a reader");
        prop_assert_eq!(Some(ours.batch), reader.next().transpose().expect("good rows"));
    }

    #[test]
    fn test_junk_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64), known in any::<bool>()) {
        let schema = declared();
        let decoder = JsonDecoder::new(JsonSpec { select: Some("$.a".to_owned()), ..JsonSpec::default() });
        decoder.decode(&[payload(bytes.clone())], known.then_some(&schema));
        let rows = JsonDecoder::new(JsonSpec { schema: Some(schema), ..JsonSpec::default() }).decode(&[payload(bytes)], None);
        prop_assert_eq!(rows.batch.num_rows() + rows.dead.len(), 1);
    }
}

#[test]
fn test_nulls_stay_null_in_nested_columns() {
    let rows = decode(None, None, &[r#"{"o":{"x":1},"l":[1,null]}"#, r#"{"o":null,"l":null}"#, r#"{"o":{}}"#]);
    let o = rows.batch.column_by_name("o").expect("o").as_struct();
    assert_eq!((o.is_null(0), o.is_null(1), o.is_null(2)), (false, true, false));
    assert_eq!(o.column(0).as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [Some(1), None, None]);
}
