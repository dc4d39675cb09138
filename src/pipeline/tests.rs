//! What goes into an epoch comes out of its files, whole and as it was.

use std::collections::BTreeMap;
use std::sync::Arc;

use adapters::contract::{Batch, Credits, DeadMark, Decode, Hold, Payload, Position, Rows};
use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::*;
use crate::names::StreamId;
use crate::settings::OnBadRecord;

/// One row a payload, its text in the column `text`; payloads that begin with `!` cannot be decoded.
struct Lines;

impl Decode for Lines {
    fn decode(&self, payloads: &[Payload], _: Option<&SchemaRef>) -> Rows {
        let (mut text, mut payload, mut dead) = (Vec::new(), Vec::new(), Vec::new());
        for (index, one) in (0..).zip(payloads) {
            if one.bytes.starts_with(b"!") {
                let message = "it begins with a mark".to_owned();
                dead.push(adapters::contract::DeadRecord { payload: index, code: "marked", message, bytes: None });
            } else {
                text.push(String::from_utf8_lossy(&one.bytes).into_owned());
                payload.push(index);
            }
        }
        let schema = Arc::new(Schema::new(vec![Field::new("text", DataType::LargeUtf8, false)]));
        let event_time_us = payload.iter().map(|p| Some(i64::from(*p))).collect();
        let column = arrow::compute::cast(&StringArray::from(text), &DataType::LargeUtf8).expect("text is text");
        let batch = RecordBatch::try_new(schema, vec![column as ArrayRef]).expect("one column");
        Rows { batch, payload, event_time_us, dead }
    }
}

fn spec(raw_kept: bool, on_bad_record: OnBadRecord) -> BuilderSpec {
    BuilderSpec {
        id: StreamId::new("acme", "berlin").expect("valid"),
        adapter: "TEST".to_owned(),
        epoch: 3,
        generation: 2,
        schema: None,
        decoder: Arc::new(Lines),
        partition_by: Vec::new(),
        raw_kept,
        generated: Vec::new(),
        on_bad_record,
        park_on_schema_change: false,
        started_at_us: 1_714_564_800_000_000,
    }
}

fn payload(text: &str) -> Payload {
    Payload {
        position: Some(Position::new(text)),
        received_at_us: 7,
        meta: [("k".to_owned(), text.len().to_string())].into(),
        bytes: text.to_owned().into(),
        dead: None,
    }
}

fn batch(from: Option<&str>, to: &str, payloads: Vec<Payload>) -> Batch {
    Batch { from: from.map(Position::new), to: Some(Position::new(to)), payloads, hold: Hold::default() }
}

fn read(bytes: &bytes::Bytes) -> Vec<RecordBatch> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).expect("parquet");
    builder.build().expect("reader").collect::<Result<_, _>>().expect("rows")
}

/// The payloads of all raw segments by `path#row`.
fn raw_rows(sealed: &Sealed) -> BTreeMap<String, Vec<u8>> {
    let mut rows = BTreeMap::new();
    for segment in &sealed.raw {
        let mut row = 0;
        for batch in read(&segment.bytes) {
            for bytes in batch.column_by_name("bytes").expect("bytes").as_binary::<i32>().iter().flatten() {
                rows.insert(format!("{}#{row}", segment.path), bytes.to_vec());
                row += 1;
            }
        }
        assert_eq!(row, segment.rows);
    }
    rows
}

/// `(text, raw reference)` of all rows of the table.
fn table_rows(sealed: &Sealed) -> Vec<(String, Option<String>)> {
    let mut rows = Vec::new();
    for batch in sealed.files.iter().flat_map(|file| read(&file.bytes)) {
        let text = batch.column_by_name("text").expect("text").as_string::<i32>();
        let raw = batch.column_by_name(LF_RAW).expect("raw").as_string::<i32>();
        rows.extend(text.iter().flatten().map(str::to_owned).zip(raw.iter().map(|r| r.map(str::to_owned))));
    }
    rows
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn test_each_payload_is_a_row_or_a_dead_letter_and_points_to_its_raw_bytes(
        batches in prop::collection::vec(prop::collection::vec("[!a-c]{0,6}", 0..9), 0..6),
        raw_kept in any::<bool>(),
    ) {
        let mut builder = EpochBuilder::new(spec(raw_kept, OnBadRecord::DeadLetter));
        for (number, texts) in batches.iter().enumerate() {
            let from = (number > 0).then(|| number.to_string());
            let to = (number + 1).to_string();
            let payloads = texts.iter().map(|text| payload(text)).collect();
            builder.push("p", batch(from.as_deref(), &to, payloads)).expect("joins");
        }
        let all: Vec<&String> = batches.iter().flatten().collect();
        prop_assert_eq!(builder.payloads(), all.len());
        prop_assert_eq!(builder.bytes(), all.iter().map(|text| text.len()).sum::<usize>());
        let sealed = builder.seal(1_714_564_800_000_000);
        let raw = raw_rows(&sealed);
        prop_assert_eq!(raw.len(), if raw_kept { all.len() } else { 0 });
        let rows = table_rows(&sealed);
        let good: Vec<&String> = all.iter().copied().filter(|text| !text.starts_with('!')).collect();
        prop_assert_eq!(rows.iter().map(|(text, _)| text).collect::<Vec<_>>(), good);
        for (text, reference) in &rows {
            let bytes = reference.as_ref().and_then(|reference| raw.get(reference));
            prop_assert_eq!(bytes.map(Vec::as_slice), raw_kept.then_some(text.as_bytes()));
        }
        let mut dead = Vec::new();
        for batch in sealed.dead_files.iter().flat_map(|file| read(&file.bytes)) {
            let bytes = batch.column_by_name("bytes").expect("bytes").as_binary::<i32>();
            dead.extend(bytes.iter().flatten().map(|b| String::from_utf8_lossy(b).into_owned()));
        }
        prop_assert_eq!((rows.len() as u64, dead.len() as u64), (sealed.rows, sealed.dead));
        prop_assert_eq!(rows.len() + dead.len(), all.len());
        prop_assert!(dead.iter().all(|text| text.starts_with('!')));
        let moved = (!batches.is_empty()).then(|| (None, batches.len().to_string()));
        prop_assert_eq!(sealed.positions.get("p").cloned(), moved);
    }
}

#[test]
fn test_batch_with_a_bad_record_is_refused_whole_where_it_parks() {
    let mut builder = EpochBuilder::new(spec(true, OnBadRecord::Park));
    builder.push("p", batch(None, "1", vec![payload("a")])).expect("good");
    let refused = builder.push("p", batch(Some("1"), "2", vec![payload("b"), payload("!c")])).expect_err("bad");
    assert_eq!((refused.code, refused.message.as_str()), ("marked", "it begins with a mark"));
    assert_eq!((builder.payloads(), builder.bytes()), (1, 1));
    let sealed = builder.seal(0);
    assert_eq!((sealed.rows, sealed.dead), (1, 0));
    assert_eq!(sealed.positions["p"], (None, "1".to_owned()));
    assert_eq!(raw_rows(&sealed).len(), 1);
}

#[test]
fn test_batches_must_join_and_those_that_move_nothing_may_come_between() {
    let mut builder = EpochBuilder::new(spec(true, OnBadRecord::DeadLetter));
    builder.push("p", batch(Some("5"), "7", vec![payload("a")])).expect("first");
    let still = Batch { to: None, ..batch(Some("7"), "7", vec![payload("!x")]) };
    builder.push("p", still).expect("moves nothing");
    builder.push("p", batch(Some("7"), "7", vec![payload("!y")])).expect("moves nothing");
    let gap = builder.push("p", batch(Some("8"), "9", vec![payload("b")])).expect_err("gap");
    assert_eq!(gap.code, "position_gap");
    builder.push("p", batch(Some("7"), "9", vec![payload("c")])).expect("joins");
    let sealed = builder.seal(0);
    assert_eq!(sealed.positions["p"], (Some("5".to_owned()), "9".to_owned()));
    assert_eq!((sealed.rows, sealed.dead), (2, 2));
    assert_eq!(sealed.dead_codes, [("marked".to_owned(), 2)].into());
}

#[test]
fn test_payloads_given_up_by_the_source_become_dead_letters_between_rows() {
    let mut builder = EpochBuilder::new(spec(true, OnBadRecord::DeadLetter));
    let mark = DeadMark { code: "not_json", message: "cut short".to_owned() };
    let given_up = Payload { dead: Some(mark), ..payload("x") };
    builder.push("p", batch(None, "1", vec![payload("a"), given_up, payload("b")])).expect("taken");
    let sealed = builder.seal(0);
    assert_eq!(table_rows(&sealed).iter().map(|(text, _)| text.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let raw = raw_rows(&sealed);
    for (text, reference) in table_rows(&sealed) {
        assert_eq!(raw[&reference.expect("raw is kept")], text.as_bytes());
    }
    let letters = read(&sealed.dead_files[0].bytes);
    let value = |name: &str| letters[0].column_by_name(name).expect(name).as_string::<i32>().value(0).to_owned();
    assert_eq!([value("stage"), value("code"), value("message")], ["decode", "not_json", "cut short"]);
    assert_eq!(raw[&value(LF_RAW)], b"x");
}

/// One row a payload `column=value`; columns are inferred.
struct Columns;

impl Decode for Columns {
    fn decode(&self, payloads: &[Payload], known: Option<&SchemaRef>) -> Rows {
        let texts: Vec<String> = payloads.iter().map(|p| String::from_utf8_lossy(&p.bytes).into_owned()).collect();
        let pairs: Vec<(&str, &str)> = texts.iter().filter_map(|text| text.split_once('=')).collect();
        let mut names: Vec<String> =
            known.map(|s| s.fields().iter().map(|f| f.name().clone()).collect()).unwrap_or_default();
        for (name, _) in &pairs {
            if !names.iter().any(|known| known == name) {
                names.push((*name).to_owned());
            }
        }
        let column = |name: &String| -> ArrayRef {
            Arc::new(pairs.iter().map(|(own, value)| (own == name).then_some(*value)).collect::<StringArray>())
        };
        let fields: Vec<_> = names.iter().map(|name| Field::new(name, DataType::Utf8, true)).collect();
        let columns = names.iter().map(column).collect();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("columns");
        let rows = u32::try_from(pairs.len()).expect("few");
        Rows { batch, payload: (0..rows).collect(), event_time_us: vec![None; pairs.len()], dead: Vec::new() }
    }
}

#[test]
fn test_columns_that_come_meanwhile_begin_another_file_and_lose_no_row() {
    for raw_kept in [false, true] {
        let decoder = Arc::new(Columns);
        let mut builder = EpochBuilder::new(BuilderSpec { decoder, ..spec(raw_kept, OnBadRecord::DeadLetter) });
        let texts: Vec<String> = (0..20).map(|n| format!("{}={n}", ["a", "b", "c"][n / 8])).collect();
        for (n, text) in texts.iter().enumerate() {
            let from = (n > 0).then(|| n.to_string());
            builder.push("p", batch(from.as_deref(), &(n + 1).to_string(), vec![payload(text)])).expect("joins");
        }
        let sealed = builder.seal(0);
        assert_eq!(sealed.schema.as_ref().map(|s| s.fields().len()), Some(3));
        // With raw kept no row is written before its segment is closed, and then the columns are known.
        assert_eq!(sealed.files.len(), if raw_kept { 1 } else { 3 });
        let mut found = Vec::new();
        for batch in sealed.files.iter().flat_map(|file| read(&file.bytes)) {
            for name in ["a", "b", "c"] {
                let Some(column) = batch.column_by_name(name) else { continue };
                let values = column.as_string::<i32>().iter().flatten();
                found.extend(values.map(|value| format!("{name}={value}")));
            }
        }
        found.sort();
        let mut expected = texts.clone();
        expected.sort();
        assert_eq!(found, expected);
        assert_eq!(sealed.files.iter().map(|file| file.rows as u64).sum::<u64>(), sealed.rows);
    }
}

#[test]
fn test_batches_are_worked_on_in_groups_and_at_once_where_they_may_be_refused() {
    let one = || batch(None, "1", vec![payload("abc")]);
    assert_eq!(EpochBuilder::new(spec(false, OnBadRecord::Park)).work(&one()), 3);
    let mut builder = EpochBuilder::new(spec(false, OnBadRecord::DeadLetter));
    assert_eq!(builder.work(&one()), 0);
    builder.push("p", one()).expect("taken");
    let many = batch(Some("1"), "2", vec![payload("x"), payload("y"), payload("z")]);
    assert_eq!(builder.work(&many), 6);
    builder.push("p", many).expect("taken");
    assert_eq!(builder.work(&one()), 0);
    assert_eq!(builder.seal(0).rows, 4);
}

#[test]
fn test_large_payloads_make_several_segments_named_by_their_hash() {
    large_payloads(OnBadRecord::DeadLetter);
}

#[test]
fn test_batches_that_are_decoded_whole_lie_across_segments() {
    large_payloads(OnBadRecord::Park);
}

fn large_payloads(on_bad_record: OnBadRecord) {
    let mut builder = EpochBuilder::new(spec(true, on_bad_record));
    let large = |letter: &str| payload(&letter.repeat(9 << 20));
    let huge = payload(&"d".repeat(20 << 20));
    let payloads = vec![large("a"), large("b"), payload("small"), huge, payload("e")];
    builder.push("p", batch(None, "1", payloads)).expect("taken");
    let sealed = builder.seal(1_714_564_800_000_000);
    assert_eq!(sealed.raw.iter().map(|s| s.rows).collect::<Vec<_>>(), [1, 2, 1, 1]);
    let raw = raw_rows(&sealed);
    for segment in &sealed.raw {
        let hash = hex::encode(Sha256::digest(&segment.bytes));
        assert_eq!(segment.path, format!("raw/acme/berlin/2024-05-01/{hash}.parquet"));
    }
    for (text, reference) in table_rows(&sealed) {
        assert_eq!(raw[&reference.expect("raw is kept")], text.as_bytes());
    }
}

#[test]
fn test_statistics_are_those_of_the_rows() {
    let mut builder = EpochBuilder::new(spec(false, OnBadRecord::DeadLetter));
    let long = "z".repeat(500);
    builder.push("p", batch(None, "1", vec![payload("b"), payload("a"), payload("c")])).expect("taken");
    let stats: Value = serde_json::from_str(&builder.seal(0).files[0].stats).expect("json");
    assert_eq!(stats["numRecords"], 3);
    assert_eq!((&stats["minValues"]["text"], &stats["maxValues"]["text"]), (&"a".into(), &"c".into()));
    assert_eq!((&stats["minValues"][LF_EPOCH], &stats["nullCount"][LF_POSITION]), (&3.into(), &0.into()));
    assert_eq!(stats["minValues"][LF_RECEIVED_AT], "1970-01-01T00:00:00.000007Z");
    // A cut maximum would hide rows from readers that skip by it.
    let mut builder = EpochBuilder::new(spec(false, OnBadRecord::DeadLetter));
    builder.push("p", batch(None, "1", vec![payload(&long)])).expect("taken");
    let stats: Value = serde_json::from_str(&builder.seal(0).files[0].stats).expect("json");
    assert_eq!(stats["maxValues"].get("text"), None);
    assert!(long.starts_with(stats["minValues"]["text"].as_str().expect("a minimum")));
}

#[tokio::test]
async fn test_credits_return_when_the_sealed_epoch_is_dropped() {
    let credits = Credits::alone(1 << 20);
    let mut builder = EpochBuilder::new(spec(false, OnBadRecord::DeadLetter));
    let hold = credits.reserve(4096).await;
    builder.push("p", Batch { hold, ..batch(None, "1", vec![payload("a")]) }).expect("taken");
    let sealed = builder.seal(0);
    assert_eq!(credits.used_bytes(), 4096);
    assert_eq!(sealed.bytes_by_partition["p"], 1);
    drop(sealed);
    assert_eq!(credits.used_bytes(), 0);
}

#[test]
fn test_same_content_sealed_twice_has_the_same_names() {
    let sealed = |text: &str| {
        let mut builder = EpochBuilder::new(spec(true, OnBadRecord::DeadLetter));
        builder.push("p", batch(None, "1", vec![payload(text), payload("!x")])).expect("taken");
        let sealed = builder.seal(0);
        let names = sealed.files.iter().chain(&sealed.dead_files).map(|f| f.path.clone());
        names.chain(sealed.raw.iter().map(|s| s.path.clone())).collect::<Vec<_>>()
    };
    assert_eq!(sealed("a"), sealed("a"));
    assert!(sealed("a").iter().zip(sealed("b")).filter(|(a, b)| **a != *b).count() >= 2);
    let epochs: Vec<i64> = {
        let mut builder = EpochBuilder::new(spec(true, OnBadRecord::DeadLetter));
        builder.push("p", batch(None, "1", vec![payload("a")])).expect("taken");
        let batches = read(&builder.seal(0).files[0].bytes);
        batches[0].column_by_name(LF_EPOCH).expect("epoch").as_primitive::<Int64Type>().values().to_vec()
    };
    assert_eq!(epochs, [3]);
}
