//! A small sound lake made by other means than the writer's: Parquet by the parquet crate, everything else as text.

use std::fs::{create_dir_all, write};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::oracle::{Expected, check_of};

pub(super) const SEED: u64 = 7;
pub(super) const PARTITIONS: u64 = 2;
const DAY: &str = "2026-01-02";
const RECEIVED_US: i64 = 1_767_312_000_000_000;

/// One record of a synthetic stream as it is to stand in the lake.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) partition: u64,
    pub(super) seq: u64,
    pub(super) check: String,
    /// Added to the row number of `_lf_raw`.
    pub(super) raw_shift: usize,
}

impl Record {
    pub(super) fn new(partition: u64, seq: u64) -> Self {
        Self { partition, seq, check: check_of(SEED, partition, seq), raw_shift: 0 }
    }

    fn json(&self) -> String {
        let Self { partition, seq, check, .. } = self;
        format!(r#"{{"partition":{partition},"seq":{seq},"ts":"2026-01-02T00:00:00Z","check":"{check}","pad":"x"}}"#)
    }
}

/// One epoch.
#[derive(Clone, Debug)]
pub(super) struct Epoch {
    pub(super) epoch: u64,
    pub(super) generation: u64,
    pub(super) rows: Vec<Record>,
    pub(super) dead: Vec<Record>,
    /// `_lf_epoch` of the dead letters.
    pub(super) dead_epoch: u64,
    /// Per partition.
    pub(super) positions: Vec<(Option<u64>, u64)>,
    pub(super) recorded: bool,
    pub(super) committed: bool,
}

/// `epochs` epochs of ten records per partition.
pub(super) fn plan(epochs: u64) -> Vec<Epoch> {
    let epoch = |epoch: u64| {
        let seqs = (epoch - 1) * 10..epoch * 10;
        Epoch {
            epoch,
            generation: 1,
            rows: (0..PARTITIONS).flat_map(|p| seqs.clone().map(move |seq| Record::new(p, seq))).collect(),
            dead: Vec::new(),
            dead_epoch: epoch,
            positions: vec![(seqs.start.checked_sub(1), seqs.end - 1); PARTITIONS as usize],
            recorded: true,
            committed: true,
        }
    };
    (1..=epochs).map(epoch).collect()
}

/// Everything of a plan without damage was handed over.
pub(super) fn expected(epochs: u64) -> Expected {
    let handed_over = (0..PARTITIONS).map(|p| (p, Some(epochs * 10 - 1))).collect();
    Expected::Synthetic { seed: SEED, partitions: PARTITIONS, handed_over }
}

/// Lays the plan down as `acme/syn`.
pub(super) fn lake(plan: &[Epoch]) -> TempDir {
    let dir = TempDir::new().expect("a folder");
    let lake = dir.path();
    let table = lake.join("tables/acme/syn");
    entry(&table, 0, &[json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}), metadata()]);
    entry(&table, 1, &[txn("lakefeed-own", 1)]);
    let (mut version, mut dead_version) = (2, 0);
    for epoch in plan {
        let raw = raw_segment(lake, epoch);
        let file = format!("part-{:05}.parquet", epoch.epoch);
        let bytes = parquet(&table.join(&file), &rows_batch(&epoch.rows, epoch.epoch, &raw, 0));
        let dead_file = format!("dead-{:05}.parquet", epoch.epoch);
        let mut dead_files = Vec::new();
        if !epoch.dead.is_empty() {
            let dead_table = lake.join("dead/acme/syn");
            let size = parquet(&dead_table.join(&dead_file), &dead_batch(epoch, &raw));
            dead_files.push(json!({"path": dead_file, "bytes": size, "rows": epoch.dead.len()}));
            let txn = txn("lakefeed-dead", epoch.dead_epoch);
            entry(&dead_table, dead_version, &[txn, add(&dead_file, size)]);
            dead_version += 1;
        }
        if epoch.recorded {
            record(lake, epoch, &raw, json!([{"path": file, "bytes": bytes, "rows": epoch.rows.len()}]), dead_files);
        }
        if epoch.committed {
            let actions = [txn("lakefeed", epoch.epoch), txn("lakefeed-own", epoch.generation), add(&file, bytes)];
            entry(&table, version, &actions);
            version += 1;
        }
    }
    dir
}

fn metadata() -> Value {
    json!({"metaData": {"id": "0", "format": {"provider": "parquet", "options": {}}, "schemaString": "{}",
        "partitionColumns": [], "configuration": {}}})
}

pub(super) fn txn(prefix: &str, version: u64) -> Value {
    json!({"txn": {"appId": format!("{prefix}/acme/syn"), "version": version}})
}

fn add(path: &str, size: u64) -> Value {
    json!({"add": {"path": path, "partitionValues": {}, "size": size, "modificationTime": 0, "dataChange": true}})
}

pub(super) fn entry(table: &Path, version: u64, actions: &[Value]) {
    create_dir_all(table.join("_delta_log")).expect("a folder");
    let text: String = actions.iter().map(|action| format!("{action}\n")).collect();
    write(table.join(format!("_delta_log/{version:020}.json")), text).expect("a file");
}

fn record(lake: &Path, epoch: &Epoch, raw: &str, files: Value, dead_files: Vec<Value>) {
    let positions: serde_json::Map<String, Value> = epoch
        .positions
        .iter()
        .enumerate()
        .map(|(p, (from, to))| (p.to_string(), json!({"from": from.map(|f| f.to_string()), "to": to.to_string()})))
        .collect();
    let text = json!({"tenant": "acme", "stream": "syn", "adapter": "SYN", "epoch": epoch.epoch,
        "generation": epoch.generation, "table": "tables/acme/syn", "positions": positions, "files": files,
        "dead_files": dead_files, "raw": [raw], "rows": epoch.rows.len(), "dead": epoch.dead.len(),
        "watermark": null, "started_at": "2026-01-02T00:00:00Z", "closed_at": "2026-01-02T00:00:01Z",
        "transform": null});
    let folder = lake.join("results/acme/syn");
    create_dir_all(&folder).expect("a folder");
    write(folder.join(format!("{:020}-{}.json", epoch.epoch, epoch.generation)), text.to_string()).expect("a file");
}

/// Rows first, then dead letters; named by its hash. Returns its path in the lake.
fn raw_segment(lake: &Path, epoch: &Epoch) -> String {
    let all: Vec<&Record> = epoch.rows.iter().chain(&epoch.dead).collect();
    let folder = format!("raw/acme/syn/{DAY}");
    let staged = lake.join(&folder).join("staged");
    let batch = batch(vec![
        ("partition", Arc::new(StringArray::from_iter_values(all.iter().map(|r| r.partition.to_string())))),
        ("position", Arc::new(StringArray::from_iter_values(all.iter().map(|r| r.seq.to_string())))),
        ("bytes", Arc::new(BinaryArray::from_iter_values(all.iter().map(|r| r.json())))),
    ]);
    parquet(&staged, &batch);
    let hash = hex::encode(Sha256::digest(std::fs::read(&staged).expect("just written")));
    let path = format!("{folder}/{hash}.parquet");
    std::fs::rename(staged, lake.join(&path)).expect("same folder");
    path
}

fn own_columns(records: &[Record], epoch: u64, raw: &str, first: usize) -> Vec<(&'static str, ArrayRef)> {
    let refs = records.iter().enumerate().map(|(i, r)| format!("{raw}#{}", first + i + r.raw_shift));
    let received = TimestampMicrosecondArray::from(vec![RECEIVED_US; records.len()]).with_timezone("UTC");
    vec![
        ("_lf_epoch", Arc::new(Int64Array::from(vec![epoch.cast_signed(); records.len()]))),
        ("_lf_partition", Arc::new(StringArray::from_iter_values(records.iter().map(|r| r.partition.to_string())))),
        ("_lf_position", Arc::new(StringArray::from_iter_values(records.iter().map(|r| r.seq.to_string())))),
        ("_lf_raw", Arc::new(StringArray::from_iter_values(refs))),
        ("_lf_received_at", Arc::new(received)),
    ]
}

fn rows_batch(records: &[Record], epoch: u64, raw: &str, first: usize) -> RecordBatch {
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        ("partition", Arc::new(Int64Array::from_iter_values(records.iter().map(|r| r.partition.cast_signed())))),
        ("seq", Arc::new(Int64Array::from_iter_values(records.iter().map(|r| r.seq.cast_signed())))),
        ("check", Arc::new(StringArray::from_iter_values(records.iter().map(|r| r.check.as_str())))),
    ];
    columns.extend(own_columns(records, epoch, raw, first));
    batch(columns)
}

fn dead_batch(epoch: &Epoch, raw: &str) -> RecordBatch {
    let mut columns = own_columns(&epoch.dead, epoch.dead_epoch, raw, epoch.rows.len());
    columns.push(("bytes", Arc::new(BinaryArray::from_iter_values(epoch.dead.iter().map(Record::json)))));
    batch(columns)
}

pub(super) fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).expect("columns of one length")
}

/// Writes a Parquet file and returns its size.
pub(super) fn parquet(path: &Path, batch: &RecordBatch) -> u64 {
    create_dir_all(path.parent().expect("not the root")).expect("a folder");
    let file = std::fs::File::create(path).expect("a file");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a writer");
    writer.write(batch).expect("written");
    writer.close().expect("closed");
    std::fs::metadata(path).expect("written").len()
}
