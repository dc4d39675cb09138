//! The judge against lakes made by hand: silent on a sound one, and loud on one planted damage of each kind.

mod damage;
mod handmade;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, MapArray, StringArray, StructArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field};
use serde_json::{Value, json};

use super::{Expected, judge, normalise, read_stream, references};
use handmade::{Record, entry, expected, lake, parquet, plan, txn};

fn judged(lake: &Path, epochs: u64) -> super::Verdict {
    judge(lake, "acme", "syn", &expected(epochs))
}

#[test]
fn test_oracle_finds_nothing_in_a_sound_lake() {
    let mut plan = plan(3);
    let dead = plan[1].rows.remove(4);
    plan[1].dead.push(dead);
    let lake = lake(&plan);
    let verdict = judged(lake.path(), 3);
    assert!(verdict.ok(), "{}: {:?}", verdict.summary(), verdict.messages);
    assert_eq!((verdict.rows, verdict.dead, verdict.epochs, verdict.orphans), (59, 1, 3, 0));
    assert!(verdict.messages.is_empty());
}

#[test]
fn test_oracle_finds_nothing_in_a_lake_that_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    assert!(judge(dir.path(), "acme", "syn", &Expected::Any).ok());
    assert_eq!(judged(dir.path(), 3).missing, 60, "but what was handed over is missing");
}

#[test]
fn test_facts_hold_every_row_and_record() {
    let mut plan = plan(2);
    plan[0].dead.push(Record::new(0, 99));
    let lake = lake(&plan);
    let facts = read_stream(lake.path(), "acme", "syn").unwrap();
    assert_eq!((facts.rows.len(), facts.dead.len(), facts.records.len(), facts.raw.len()), (40, 1, 2, 2));
    assert_eq!(facts.epoch("acme", "syn"), 2);
    assert_eq!(facts.table.as_ref().map(|log| (log.version, log.complete)), Some((3, true)));
    let row = &facts.rows[3];
    assert_eq!((row.epoch, row.partition.as_str(), row.position.as_deref()), (1, "0", Some("3")));
    assert_eq!(row.columns["seq"], json!(3));
    assert!(facts.dead[0].bytes.as_ref().unwrap().starts_with(b"{\"partition\":0,\"seq\":99"));
}

/// A classic checkpoint, as any Delta writer leaves it before it cleans up the entries under it.
fn checkpoint(table: &Path, version: u64, txns: &[(&str, i64)], adds: &[(&str, i64)]) {
    let rows = txns.len() + adds.len();
    let padded = |values: Vec<Option<&str>>| Arc::new(StringArray::from(values)) as ArrayRef;
    let is_txn: Vec<bool> = (0..rows).map(|i| i < txns.len()).collect();
    let txn_or = |i: usize| txns.get(i);
    let add_or = |i: usize| i.checked_sub(txns.len()).map(|i| &adds[i]);
    let text = |name: &str| Arc::new(Field::new(name, DataType::Utf8, true));
    let long = |name: &str| Arc::new(Field::new(name, DataType::Int64, true));
    let txn = StructArray::new(
        vec![text("appId"), long("version")].into(),
        vec![
            padded((0..rows).map(|i| txn_or(i).map(|t| t.0)).collect()),
            Arc::new((0..rows).map(|i| txn_or(i).map(|t| t.1)).collect::<Int64Array>()),
        ],
        Some(NullBuffer::from(is_txn.clone())),
    );
    let values =
        MapArray::new_from_strings(std::iter::empty(), &StringArray::from(Vec::<&str>::new()), &vec![0; rows + 1])
            .unwrap();
    let add = StructArray::new(
        vec![text("path"), Arc::new(Field::new("partitionValues", values.data_type().clone(), true)), long("size")]
            .into(),
        vec![
            padded((0..rows).map(|i| add_or(i).map(|a| a.0)).collect()),
            Arc::new(values),
            Arc::new((0..rows).map(|i| add_or(i).map(|a| a.1)).collect::<Int64Array>()),
        ],
        Some(NullBuffer::from(is_txn.iter().map(|is| !is).collect::<Vec<_>>())),
    );
    let path = table.join(format!("_delta_log/{version:020}.checkpoint.parquet"));
    let whole = arrow::record_batch::RecordBatch::try_from_iter_with_nullable([
        ("txn", Arc::new(txn) as ArrayRef, true),
        ("add", Arc::new(add) as ArrayRef, true),
    ]);
    parquet(&path, &whole.unwrap());
}

#[test]
fn test_oracle_reads_a_checkpoint_where_entries_are_gone() {
    let lake = lake(&plan(3));
    let table = lake.path().join("tables/acme/syn");
    let size = |file: &str| std::fs::metadata(table.join(file)).unwrap().len().cast_signed();
    let (one, two) = ("part-00001.parquet", "part-00002.parquet");
    let txns = [("lakefeed/acme/syn", 2), ("lakefeed-own/acme/syn", 1)];
    checkpoint(&table, 3, &txns, &[(one, size(one)), (two, size(two))]);
    for version in 0..3 {
        std::fs::remove_file(table.join(format!("_delta_log/{version:020}.json"))).unwrap();
    }
    let verdict = judged(lake.path(), 3);
    assert!(verdict.ok(), "{}: {:?}", verdict.summary(), verdict.messages);
    assert_eq!((verdict.rows, verdict.epochs), (60, 3));

    std::fs::remove_file(table.join("_delta_log/00000000000000000003.json")).unwrap();
    assert!(judged(lake.path(), 3).ok(), "the checkpoint stands for its own version too");
    std::fs::remove_file(table.join("_delta_log/00000000000000000003.checkpoint.parquet")).unwrap();
    assert_eq!(judged(lake.path(), 3).unreadable, 1);
}

#[test]
fn test_oracle_follows_a_compaction() {
    let lake = lake(&plan(2));
    let table = lake.path().join("tables/acme/syn");
    std::fs::copy(table.join("part-00001.parquet"), table.join("a b.parquet")).unwrap();
    let moved = json!({"add": {"path": "a%20b.parquet", "partitionValues": {}, "size": 1, "dataChange": false}});
    entry(&table, 4, &[json!({"remove": {"path": "part-00001.parquet", "dataChange": false}}), moved.clone()]);
    assert!(judged(lake.path(), 2).ok());
    entry(&table, 4, &[moved]);
    assert_eq!(judged(lake.path(), 2).doubled, 20, "without the remove its rows are there twice");
}

#[test]
fn test_oracle_counts_leftovers_as_orphans_only() {
    let mut plan = plan(3);
    plan[2].committed = false;
    let lake = lake(&plan);
    let old = lake.path().join("results/acme/syn");
    std::fs::copy(old.join(format!("{:020}-1.json", 2)), old.join("x")).unwrap();
    let text = std::fs::read_to_string(old.join("x")).unwrap().replace("\"generation\":1", "\"generation\":0");
    std::fs::write(old.join(format!("{:020}-0.json", 2)), text).unwrap();
    std::fs::remove_file(old.join("x")).unwrap();
    let verdict = judged(lake.path(), 2);
    assert!(verdict.ok(), "{}: {:?}", verdict.summary(), verdict.messages);
    assert_eq!(verdict.orphans, 4, "a record, a file and a raw object of epoch 3, an older record of epoch 2");
}

#[test]
fn test_oracle_finds_records_in_any_bucket() {
    let lake = lake(&plan(2));
    std::fs::create_dir_all(lake.path().join("other/acme/syn")).unwrap();
    let name = format!("acme/syn/{:020}-1.json", 2);
    std::fs::rename(lake.path().join("results").join(&name), lake.path().join("other").join(&name)).unwrap();
    assert!(judged(lake.path(), 2).ok());
}

fn published(epoch: u64) -> Value {
    let url = format!("lakefeed:acme/syn/{epoch}");
    let id = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, url.as_bytes());
    json!({"adapter": "SYN", "payload": {"id": id, "filename": format!("results/acme/syn/{epoch:020}-1.json")},
        "tenant": "acme", "stream": "syn", "epoch": epoch, "generation": 1, "table": "tables/acme/syn",
        "version": epoch + 1, "rows": 20, "dead": 0})
}

#[test]
fn test_references_are_complete_ordered_and_never_early() {
    let mut plan = plan(3);
    plan[2].committed = false;
    let lake = lake(&plan);
    let judged = |list: &[Value]| references(list, lake.path(), "acme", "syn").unwrap();
    assert!(judged(&[published(1), published(2)]).ok());
    let again = judged(&[published(1), published(1), published(2), published(1)]);
    assert!(again.ok() && again.again == 2, "{again:?}");
    assert_eq!(judged(&[published(1)]).missing, 1);
    assert_eq!(judged(&[published(2), published(1)]).disorder, 1);
    assert_eq!(judged(&[published(1), published(2), published(3)]).before_commit, 1);
    let mut wrong = published(2);
    wrong["version"] = json!(9);
    assert_eq!(judged(&[published(1), wrong]).wrong, 1);
    let mut foreign = published(2);
    foreign["payload"]["filename"] = json!("results/acme/syn/x.json");
    assert_eq!(judged(&[published(1), foreign]).wrong, 1);
}

#[test]
fn test_observations_compare_in_one_form() {
    let nested = json!({"status": "success", "data": {"city": "Kashgar", "country": "China",
        "location": {"type": "Point", "coordinates": [75.9511, 39.0]},
        "current": {"pollution": {"ts": "2020-03-18T15:00:00.000Z", "aqius": 186}, "weather": {"tp": 14.0}}}});
    let flat = json!({"lat": 39, "lon": 75.9511, "country": "China", "city": "Kashgar", "state": null,
        "pollution_ts": "2020-03-18T16:00:00+01:00", "aqius": 186, "tp": 14});
    assert_eq!(normalise(&nested), normalise(&flat));
    assert_ne!(normalise(&flat), normalise(&json!({"lat": 39.5})));
}

#[test]
fn test_observations_are_counted_by_partition() {
    let lake = lake(&plan(1));
    let facts = read_stream(lake.path(), "acme", "syn").unwrap();
    let mut truth: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for row in facts.rows {
        truth.entry(row.partition).or_default().push(Value::Object(row.columns));
    }
    let judged = |truth: &BTreeMap<String, Vec<Value>>| {
        judge(lake.path(), "acme", "syn", &Expected::Observations(truth.clone()))
    };
    assert!(judged(&truth).ok());
    let taken = truth.get_mut("0").unwrap().pop().unwrap();
    assert_eq!(judged(&truth).foreign, 1);
    truth.get_mut("0").unwrap().extend([taken.clone(), taken]);
    assert_eq!(judged(&truth).missing, 1, "handed over twice as two, found once");
}

#[test]
fn test_expected_unknown_last_asks_for_all_up_to_the_greatest() {
    let mut plan = plan(2);
    plan[0].rows.remove(5);
    let lake = lake(&plan);
    let open = Expected::Synthetic { seed: 7, partitions: 2, handed_over: BTreeMap::from([(0, None)]) };
    assert_eq!(judge(lake.path(), "acme", "syn", &open).missing, 1);
}

#[test]
fn test_txn_helper_matches_the_layout() {
    assert_eq!(txn("lakefeed", 3)["txn"]["appId"], "lakefeed/acme/syn");
}
