//! Others who write to the same table: compaction, deletion, changes of its columns, appends of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

use super::draw::Draw;
use super::store::FailingStore;

/// Files that one compaction takes together.
const COMPACTED_MAX: usize = 4;

/// A foreign writer of one table. It sees the store as it is and never fails.
pub(crate) struct Foreign {
    inner: Arc<dyn ObjectStore>,
    store: FailingStore,
    table: String,
    number: u64,
    /// Rows that were deleted, and the epochs that they were of.
    pub(crate) deleted: u64,
    pub(crate) epochs: BTreeSet<i64>,
    columns: u64,
    appended: Vec<String>,
}

/// A table as another reader sees it.
#[derive(Default)]
struct Seen {
    version: Option<u64>,
    live: BTreeMap<String, Value>,
    metadata: Value,
}

impl Foreign {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, store: FailingStore, id: &str) -> Self {
        let table = format!("tables/{id}");
        Self { inner, store, table, number: 0, deleted: 0, epochs: BTreeSet::new(), columns: 0, appended: Vec::new() }
    }

    async fn get(&self, path: &str) -> Option<Bytes> {
        self.inner.get(&Path::from(path)).await.ok()?.bytes().await.ok()
    }

    async fn see(&self) -> Seen {
        let mut seen = Seen::default();
        for version in 0.. {
            let Some(entry) = self.get(&format!("{}/_delta_log/{version:020}.json", self.table)).await else { break };
            seen.version = Some(version);
            for line in entry.split(|b| *b == b'\n') {
                let Ok(action) = serde_json::from_slice::<Value>(line) else { continue };
                if let Some(add) = action.get("add") {
                    seen.live.insert(add["path"].as_str().unwrap_or_default().to_owned(), add.clone());
                }
                if let Some(remove) = action.get("remove") {
                    seen.live.remove(remove["path"].as_str().unwrap_or_default());
                }
                if let Some(metadata) = action.get("metaData") {
                    seen.metadata = metadata.clone();
                }
            }
        }
        seen
    }

    async fn commit(&self, seen: &Seen, actions: &[Value]) {
        let Some(version) = seen.version else { return };
        let body: String = actions.iter().map(|action| format!("{action}\n")).collect();
        // Nothing ran since the look: what there is no await for cannot be overtaken.
        self.store.put_directly(&format!("{}/_delta_log/{:020}.json", self.table, version + 1), body.into()).await;
    }

    /// One thing that others do; its name.
    pub(crate) async fn act(&mut self, draw: &mut Draw) -> &'static str {
        let seen = self.see().await;
        if seen.version.is_none() {
            return "nothing";
        }
        self.number += 1;
        match draw.below(6) {
            0 | 1 => self.compact(&seen).await,
            2 => self.delete(&seen, draw).await,
            3 if self.columns < 3 => self.widen(&seen).await,
            4 if self.appended.is_empty() => self.append(&seen).await,
            4 => self.take_back(&seen).await,
            _ => {
                let txn = json!({"txn": {"appId": "spark", "version": self.number}});
                self.commit(&seen, &[json!({"commitInfo": {"operation": "WRITE"}}), txn]).await;
                "note"
            }
        }
    }

    async fn read(&self, path: &str) -> Vec<RecordBatch> {
        let Some(bytes) = self.get(&format!("{}/{path}", self.table)).await else { return Vec::new() };
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(|builder| builder.build());
        reader.map(|reader| reader.flatten().collect()).unwrap_or_default()
    }

    /// Writes a file of `batch`; its `add`.
    async fn write(&self, batch: &RecordBatch, data_change: bool) -> Value {
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).expect("a writer");
        writer.write(batch).expect("rows");
        writer.close().expect("a file");
        let path = format!("theirs-{}.parquet", self.number);
        let size = bytes.len();
        self.store.put_directly(&format!("{}/{path}", self.table), bytes.into()).await;
        json!({"add": {"path": path, "partitionValues": {}, "size": size, "modificationTime": 0, "dataChange": data_change}})
    }

    fn remove(path: &str, data_change: bool) -> Value {
        json!({"remove": {"path": path, "deletionTimestamp": 0, "dataChange": data_change}})
    }

    /// Rows of several files in one.
    async fn compact(&mut self, seen: &Seen) -> &'static str {
        let mut batches: Vec<(i64, String, RecordBatch)> = Vec::new();
        for path in seen.live.keys().filter(|path| !self.appended.contains(path)) {
            for batch in self.read(path).await {
                let first = batch.column_by_name("_lf_epoch").map(|c| c.as_primitive::<Int64Type>().value(0));
                batches.push((first.unwrap_or_default(), path.clone(), batch));
            }
        }
        batches.sort_by_key(|(epoch, ..)| *epoch);
        batches.truncate(COMPACTED_MAX);
        let Some((_, _, first)) = batches.first() else { return "nothing" };
        let schema = first.schema();
        batches.retain(|(_, _, batch)| batch.schema() == schema);
        let paths: BTreeSet<&String> = batches.iter().map(|(_, path, _)| path).collect();
        let Ok(whole) = concat_batches(&schema, batches.iter().map(|(_, _, batch)| batch)) else { return "nothing" };
        let mut actions = vec![json!({"commitInfo": {"operation": "OPTIMIZE"}})];
        actions.extend(paths.iter().map(|path| Self::remove(path, false)));
        actions.push(self.write(&whole, false).await);
        self.commit(seen, &actions).await;
        "compact"
    }

    /// Every third row of a file goes.
    async fn delete(&mut self, seen: &Seen, draw: &mut Draw) -> &'static str {
        let paths: Vec<&String> = seen.live.keys().filter(|path| !self.appended.contains(path)).collect();
        if paths.is_empty() {
            return "nothing";
        }
        let path = *draw.pick(&paths);
        let batches = self.read(path).await;
        let Some(first) = batches.first() else { return "nothing" };
        let Ok(whole) = concat_batches(&first.schema(), &batches) else { return "nothing" };
        let keep: BooleanArray = (0..whole.num_rows()).map(|row| Some(row % 3 != 1)).collect();
        let Ok(kept) = filter_record_batch(&whole, &keep) else { return "nothing" };
        let epochs = whole.column_by_name("_lf_epoch").map(|column| column.as_primitive::<Int64Type>().clone());
        let gone = (0..whole.num_rows()).filter(|row| !keep.value(*row));
        for row in gone {
            self.deleted += 1;
            self.epochs.extend(epochs.as_ref().map(|epochs| epochs.value(row)));
        }
        let add = self.write(&kept, true).await;
        self.commit(seen, &[json!({"commitInfo": {"operation": "DELETE"}}), Self::remove(path, true), add]).await;
        "delete"
    }

    /// A column of theirs.
    async fn widen(&mut self, seen: &Seen) -> &'static str {
        self.columns += 1;
        let mut metadata = seen.metadata.clone();
        let column =
            format!(r#""fields":[{{"name":"theirs_{}","type":"date","nullable":true,"metadata":{{}}}},"#, self.columns);
        let schema = metadata["schemaString"].as_str().unwrap_or_default().replacen(r#""fields":["#, &column, 1);
        metadata["schemaString"] = schema.into();
        self.commit(seen, &[json!({"commitInfo": {"operation": "ADD COLUMNS"}}), json!({"metaData": metadata})]).await;
        "widen"
    }

    /// Rows of theirs, without a word about epochs.
    async fn append(&mut self, seen: &Seen) -> &'static str {
        let Some(batch) = self.read_any(seen).await else { return "nothing" };
        let add = self.write(&batch.slice(0, 1), true).await;
        self.appended.extend(add.pointer("/add/path").and_then(Value::as_str).map(str::to_owned));
        self.commit(seen, &[json!({"commitInfo": {"operation": "WRITE"}}), add]).await;
        "append"
    }

    async fn read_any(&self, seen: &Seen) -> Option<RecordBatch> {
        let path = seen.live.keys().next()?;
        self.read(path).await.into_iter().next()
    }

    /// Takes the rows of theirs away again.
    async fn take_back(&mut self, seen: &Seen) -> &'static str {
        let Some(path) = self.appended.pop() else { return "nothing" };
        let actions = [json!({"commitInfo": {"operation": "DELETE"}}), Self::remove(&path, true)];
        self.commit(seen, &actions).await;
        "take back"
    }

    /// Leaves nothing of their own behind.
    pub(crate) async fn leave(&mut self) {
        while !self.appended.is_empty() {
            let seen = self.see().await;
            self.take_back(&seen).await;
        }
    }
}
