//! The commit protocol under test: a small source of records, a store that fails on demand, a judge that reads the
//! lake by itself.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use adapters::contract::{Batch, Clock, DeadRecord, Decode, Hold, Payload, Position, Rows};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use serde_json::Value;

use super::{Beat, Checkpoint, Claim, Lake, Owner};
use crate::names::StreamId;
use crate::pipeline::{BuilderSpec, EpochBuilder, Sealed};
use crate::settings::OnBadRecord;

mod commit;
mod foreign;
mod judge;
mod local;
mod names;
mod reading;
mod recovery;
mod schema;
mod simulate;
mod yielding;

pub(crate) use crate::simulation::{Fail, FailingStore, Fault, Weather};
pub(crate) use judge::judge;

/// 2024-05-01T12:00:00Z.
pub(crate) const NOON_US: i64 = 1_714_564_800_000_000;

/// A clock that moves by a second whenever it is asked.
#[derive(Debug)]
pub(crate) struct Ticking(AtomicI64);

impl Clock for Ticking {
    fn now_us(&self) -> i64 {
        self.0.fetch_add(1_000_000, Ordering::Relaxed)
    }
}

/// Decodes `{"id": "...", "n": 1, ...}`; all other fields are columns of text.
#[derive(Debug)]
pub(crate) struct TestDecoder;

impl Decode for TestDecoder {
    fn decode(&self, payloads: &[Payload], known: Option<&SchemaRef>) -> Rows {
        let (mut rows, mut dead) = (Vec::new(), Vec::new());
        for (index, payload) in payloads.iter().enumerate() {
            let index = u32::try_from(index).unwrap();
            match serde_json::from_slice::<Value>(&payload.bytes) {
                Ok(Value::Object(row)) => rows.push((index, row)),
                _ => {
                    let message = "the payload is no JSON object".to_owned();
                    dead.push(DeadRecord { payload: index, code: "not_json", message, bytes: None });
                }
            }
        }
        let mut names: Vec<String> = known.iter().flat_map(|s| s.fields().iter().map(|f| f.name().clone())).collect();
        let more: BTreeSet<_> = rows.iter().flat_map(|(_, row)| row.keys().cloned()).collect();
        names.extend(more.into_iter().filter(|name| !names.contains(name)).collect::<Vec<_>>());
        let fields = names.iter().map(|name| match name.as_str() {
            "n" => Field::new(name, DataType::Int64, true),
            _ => Field::new(name, DataType::Utf8, true),
        });
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let column = |name: &String| -> ArrayRef {
            let values = rows.iter().map(|(_, row)| row.get(name));
            match name.as_str() {
                "n" => Arc::new(values.map(|v| v.and_then(Value::as_i64)).collect::<Int64Array>()),
                _ => Arc::new(values.map(|v| v.and_then(Value::as_str)).collect::<StringArray>()),
            }
        };
        let columns = names.iter().map(column).collect();
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.len()));
        Rows {
            batch: RecordBatch::try_new_with_options(schema, columns, &options).unwrap(),
            event_time_us: rows.iter().map(|(_, row)| Some(NOON_US + row.get("n")?.as_i64()?)).collect(),
            payload: rows.into_iter().map(|(index, _)| index).collect(),
            dead,
        }
    }
}

pub(crate) fn id() -> StreamId {
    StreamId::new("acme", "berlin").unwrap()
}

pub(crate) fn lake_on(store: Arc<dyn ObjectStore>, seed: u128) -> Arc<Lake> {
    Lake::with_seed(store, "memory:", Arc::new(Ticking(AtomicI64::new(NOON_US))), seed)
}

pub(crate) fn lake() -> (Arc<InMemory>, Arc<Lake>) {
    let store = Arc::new(InMemory::new());
    let opened = lake_on(Arc::clone(&store) as Arc<dyn ObjectStore>, 1);
    (store, opened)
}

pub(crate) fn claim_with(cache: Option<Checkpoint>) -> Claim {
    Claim { id: id(), adapter: "TEST".to_owned(), schema: None, partition_by: Vec::new(), cache, beat: Beat::default() }
}

pub(crate) fn payload(position: &str, bytes: impl Into<Bytes>) -> Payload {
    Payload {
        position: Some(Position::new(position)),
        received_at_us: NOON_US,
        meta: [("status".to_owned(), "200".to_owned())].into(),
        bytes: bytes.into(),
        dead: None,
    }
}

/// Record `n` of a partition; every seventh of those with `junk` is no JSON.
pub(crate) fn record(partition: &str, n: u64, junk: bool) -> String {
    if junk && n.is_multiple_of(7) {
        format!("junk {partition}:{n}")
    } else {
        format!(r#"{{"id":"{partition}:{n}","n":{n}}}"#)
    }
}

/// What the checkpoint says of a partition: how many records of it were taken.
pub(crate) fn stands_at(checkpoint: &Checkpoint, partition: &str) -> u64 {
    checkpoint.positions.get(partition).map_or(0, |p| p.parse().unwrap())
}

/// The next `count` records of a partition, after where `from` has it.
pub(crate) fn batch(partition: &str, from: u64, count: u64, junk: bool) -> Batch {
    let payloads = (from + 1..=from + count).map(|n| payload(&n.to_string(), record(partition, n, junk)));
    Batch {
        from: (from > 0).then(|| Position::new(from.to_string())),
        to: Some(Position::new((from + count).to_string())),
        payloads: payloads.collect(),
        hold: Hold::default(),
    }
}

pub(crate) fn builder(owner: &Owner) -> EpochBuilder {
    EpochBuilder::new(spec(owner))
}

/// The owner's next epoch, without content.
pub(crate) fn spec(owner: &Owner) -> BuilderSpec {
    BuilderSpec {
        id: id(),
        adapter: "TEST".to_owned(),
        epoch: owner.checkpoint().epoch + 1,
        generation: owner.generation(),
        schema: owner.schema(),
        decoder: Arc::new(TestDecoder),
        partition_by: Vec::new(),
        raw_kept: true,
        generated: Vec::new(),
        on_bad_record: OnBadRecord::DeadLetter,
        park_on_schema_change: false,
        started_at_us: NOON_US,
    }
}

/// The owner's next epoch: `count` more records of each partition.
pub(crate) fn next_epoch(owner: &Owner, partitions: &[&str], count: u64) -> Sealed {
    let mut builder = builder(owner);
    for partition in partitions {
        let from = stands_at(owner.checkpoint(), partition);
        builder.push(partition, batch(partition, from, count, true)).unwrap();
    }
    builder.seal(NOON_US + 1_000_000)
}
