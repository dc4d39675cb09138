//! Reads a lake by itself: the log's JSON and the Parquet files, sharing nothing with the code under test but the
//! names that interface §4 promises.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    /// How often each record is in the table or among the dead letters.
    pub(crate) seen: BTreeMap<String, u32>,
    /// Rows of the table.
    pub(crate) rows: u64,
    /// Dead letters.
    pub(crate) dead: u64,
    /// The last epoch.
    pub(crate) epoch: u64,
    /// The generation that owns.
    pub(crate) own: u64,
    /// Everything that breaks a promise.
    pub(crate) wrong: Vec<String>,
}

async fn get(store: &Arc<dyn ObjectStore>, path: &str) -> Option<Bytes> {
    store.get(&Path::parse(path).unwrap()).await.ok()?.bytes().await.ok()
}

/// Live files and `txn` versions of a table, and the epochs in the order of their commits.
async fn table(store: &Arc<dyn ObjectStore>, path: &str, wrong: &mut Vec<String>) -> (Vec<String>, Vec<(String, u64)>) {
    let (mut files, mut txns) = (BTreeSet::new(), Vec::new());
    for version in 0.. {
        let Some(entry) = get(store, &format!("{path}/_delta_log/{version:020}.json")).await else { break };
        for line in entry.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
            let action: Value = serde_json::from_slice(line).unwrap();
            if let Some(add) = action.get("add") {
                let name = add["path"].as_str().unwrap().replace("%25", "%");
                if !files.insert(name.clone()) {
                    wrong.push(format!("{path}: {name} added twice"));
                }
            }
            if let Some(remove) = action.get("remove") {
                files.remove(remove["path"].as_str().unwrap());
            }
            if let Some(txn) = action.get("txn") {
                txns.push((txn["appId"].as_str().unwrap().to_owned(), txn["version"].as_u64().unwrap()));
            }
        }
    }
    (files.into_iter().collect(), txns)
}

/// Judges the stream `id`.
pub(crate) async fn judge(store: Arc<dyn ObjectStore>, id: &str) -> Judged {
    let mut found = Judged::default();
    let mut wrong = Vec::new();
    let (files, txns) = table(&store, &format!("tables/{id}"), &mut wrong).await;
    for (app, version) in &txns {
        if *app == format!("lakefeed/{id}") {
            if *version != found.epoch + 1 {
                wrong.push(format!("epoch {version} follows on {}", found.epoch));
            }
            found.epoch = *version;
        } else if *app == format!("lakefeed-own/{id}") {
            if *version < found.own {
                wrong.push(format!("generation {version} after {}", found.own));
            }
            found.own = *version;
        }
    }
    for file in files {
        found.rows += rows(&store, &format!("tables/{id}/{file}"), found.epoch, &mut found.seen, &mut wrong).await;
    }
    let (files, txns) = table(&store, &format!("dead/{id}"), &mut wrong).await;
    if txns.iter().any(|(_, version)| *version > found.epoch) {
        wrong.push("the dead table leads".to_owned());
    }
    for file in files {
        found.dead += rows(&store, &format!("dead/{id}/{file}"), found.epoch, &mut found.seen, &mut wrong).await;
    }
    records(&store, id, found.epoch, &mut wrong).await;
    raw(&store, &mut wrong).await;
    found.wrong = wrong;
    found
}

async fn rows(
    store: &Arc<dyn ObjectStore>,
    path: &str,
    last_epoch: u64,
    seen: &mut BTreeMap<String, u32>,
    wrong: &mut Vec<String>,
) -> u64 {
    let Some(bytes) = get(store, path).await else {
        wrong.push(format!("{path} is missing"));
        return 0;
    };
    let (mut count, mut segments) = (0, Segments::new());
    for batch in ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap() {
        let batch = batch.unwrap();
        let epochs = batch.column_by_name("_lf_epoch").unwrap().as_primitive::<Int64Type>().clone();
        let raws = batch.column_by_name("_lf_raw").unwrap().as_string::<i32>().clone();
        for row in 0..batch.num_rows() {
            let key = match batch.column_by_name("id") {
                Some(column) => column.as_string::<i32>().value(row).to_owned(),
                None => {
                    let bytes = batch.column_by_name("bytes").unwrap().as_binary::<i32>();
                    String::from_utf8_lossy(bytes.value(row)).trim_start_matches("junk ").to_owned()
                }
            };
            *seen.entry(key.clone()).or_default() += 1;
            if !(1..=last_epoch).contains(&u64::try_from(epochs.value(row)).unwrap()) {
                wrong.push(format!("{key} is of epoch {}", epochs.value(row)));
            }
            if raws.is_valid(row)
                && !raw_row(store, &mut segments, raws.value(row)).await.is_some_and(|bytes| bytes.contains(&key))
            {
                wrong.push(format!("{key} has another raw row or none"));
            }
            count += 1;
        }
    }
    count
}

/// The payloads of raw segments by their paths.
type Segments = BTreeMap<String, Vec<String>>;

async fn raw_row<'a>(store: &Arc<dyn ObjectStore>, segments: &'a mut Segments, reference: &str) -> Option<&'a String> {
    let (path, row) = reference.split_once('#')?;
    if !segments.contains_key(path) {
        let bytes = get(store, path).await?;
        let mut payloads = Vec::new();
        for batch in ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap() {
            let batch = batch.unwrap();
            let column = batch.column_by_name("bytes")?.as_binary::<i32>();
            payloads.extend(column.iter().map(|bytes| String::from_utf8_lossy(bytes.unwrap()).into_owned()));
        }
        segments.insert(path.to_owned(), payloads);
    }
    segments.get(path)?.get(row.parse::<usize>().ok()?)
}

/// The committed records: one an epoch, positions joined.
async fn records(store: &Arc<dyn ObjectStore>, id: &str, last_epoch: u64, wrong: &mut Vec<String>) {
    let mut best: BTreeMap<u64, (u64, Value)> = BTreeMap::new();
    let all: Vec<_> = store.list(Some(&Path::from(format!("results/{id}")))).try_collect().await.unwrap();
    for object in all {
        let name = object.location.filename().unwrap().trim_end_matches(".json").to_owned();
        let (epoch, generation) = name.split_once('-').unwrap();
        let (epoch, generation): (u64, u64) = (epoch.parse().unwrap(), generation.parse().unwrap());
        let value = serde_json::from_slice(&get(store, object.location.as_ref()).await.unwrap()).unwrap();
        if best.get(&epoch).is_none_or(|(g, _)| *g < generation) {
            best.insert(epoch, (generation, value));
        }
    }
    let mut positions: BTreeMap<String, String> = BTreeMap::new();
    for epoch in 1..=last_epoch {
        let Some((_, record)) = best.get(&epoch) else {
            wrong.push(format!("epoch {epoch} has no record"));
            continue;
        };
        for (partition, span) in record["positions"].as_object().unwrap() {
            if span["from"].as_str() != positions.get(partition).map(String::as_str) {
                wrong.push(format!("epoch {epoch} does not join in {partition}"));
            }
            positions.insert(partition.clone(), span["to"].as_str().unwrap().to_owned());
        }
    }
}

async fn raw(store: &Arc<dyn ObjectStore>, wrong: &mut Vec<String>) {
    let all: Vec<_> = store.list(Some(&Path::from("raw"))).try_collect().await.unwrap();
    for object in all {
        let bytes = get(store, object.location.as_ref()).await.unwrap();
        let name = object.location.filename().unwrap().trim_end_matches(".parquet").to_owned();
        if hex::encode(Sha256::digest(&bytes)) != name {
            wrong.push(format!("{} is not named by its hash", object.location));
        }
    }
}

impl Judged {
    /// Each partition's records 1..=`count` are there exactly once, and nothing is wrong.
    pub(crate) fn assert_whole(&self, partitions: &[(&str, u64)]) {
        assert!(self.wrong.is_empty(), "{:?}", self.wrong);
        let mut expected = BTreeMap::new();
        for (partition, count) in partitions {
            expected.extend((1..=*count).map(|n| (format!("{partition}:{n}"), 1)));
        }
        assert_eq!(self.seen, expected);
    }
}
