//! The barest loop that takes the same records to the same disk: pull, decode, Parquet, fsync, log entry, fsync. One
//! thread, no actors, no positions, no raw segments, no records of epochs, no recovery. What the runtime costs beyond
//! this is what its promises cost.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use adapters::contract::{Credits, Env, MemoryKeep, Mount, Payload, Pull, Source, SystemClock, SystemResolve};
use arrow::error::ArrowError;
use bytes::Bytes;
use futures::executor::block_on;
use object_store::ObjectStore;
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::json;
use tokio::runtime::Handle;

use super::BenchError;
use super::ingest::Shape;
use super::place::create;
use crate::pipeline::{Encoder, properties_for};

/// Payloads that are decoded at once. Found by trying: smaller and larger groups are slower.
const GROUP: usize = 8 * 1024;

/// The folder of log entries.
const LOG: &str = "_delta_log";

/// More than the source asks for at once, so that it never waits.
const CREDIT_BYTES: usize = 64 << 20;

fn failed(error: impl std::fmt::Display) -> BenchError {
    BenchError::Bare(error.to_string())
}

/// Opens all partitions at their beginning.
fn open(mount: &dyn Mount) -> Result<Vec<Box<dyn Source>>, BenchError> {
    let env = |name: &str| Env {
        clock: Arc::new(SystemClock),
        keep: Arc::new(MemoryKeep::default()),
        resolve: Arc::new(SystemResolve),
        seed: 0,
        scope: name.to_owned(),
    };
    let partitions = mount.partitions();
    let opened = partitions.iter().map(|p| block_on(mount.open(p, None, env(&p.name))).map_err(|e| failed(e.message)));
    opened.collect()
}

/// The source alone, its payloads dropped at once: what both sides pay before they begin. The records.
pub(super) fn source_only(mount: &dyn Mount) -> Result<u64, BenchError> {
    let credits = Credits::alone(CREDIT_BYTES);
    let mut records = 0;
    for mut source in open(mount)? {
        while let Pull::Batch(batch) = block_on(source.next(&credits)).map_err(|e| failed(e.message))? {
            records += batch.payloads.len() as u64;
        }
    }
    Ok(records)
}

/// Where the table is.
#[derive(Clone)]
pub(super) enum Table {
    /// A folder of this machine.
    Folder(PathBuf),
    /// A store, and the runtime that its requests need.
    Store(Arc<dyn ObjectStore>, Handle),
}

/// Takes everything that `mount` gives into a table. Blocks.
pub(super) fn run(mount: &dyn Mount, shape: &Shape, table: &Table) -> Result<(), BenchError> {
    if let Table::Folder(folder) = table {
        fs::create_dir_all(folder.join(LOG)).map_err(BenchError::Folder)?;
    }
    let mut sources = open(mount)?;
    let (decoder, schema) = (mount.decoder(), mount.schema());
    let credits = Credits::alone(CREDIT_BYTES);
    let mut payloads: Vec<Payload> = Vec::with_capacity(GROUP);
    let mut turn = 0;
    let mut file: Option<Encoder> = None;
    let (mut rows, mut epoch) = (0, 0);
    loop {
        payloads.clear();
        while payloads.len() < GROUP && rows + (payloads.len() as u64) < shape.epoch_records && !sources.is_empty() {
            turn = (turn + 1) % sources.len();
            match block_on(sources[turn].next(&credits)).map_err(|e| failed(e.message))? {
                Pull::Batch(batch) => payloads.extend(batch.payloads),
                Pull::Idle | Pull::End => drop(sources.swap_remove(turn)),
            }
            turn %= sources.len().max(1);
        }
        if !payloads.is_empty() {
            let decoded = decoder.decode(&payloads, schema.as_ref());
            rows += decoded.batch.num_rows() as u64;
            let encoder = match &mut file {
                Some(encoder) => encoder,
                None => {
                    let new = Encoder::new(decoded.batch.schema(), properties_for(&decoded.batch)).map_err(failed)?;
                    file.insert(new)
                }
            };
            encoder.write(&decoded.batch).map_err(failed)?;
        }
        if (rows >= shape.epoch_records || payloads.is_empty())
            && let Some(encoder) = file.take()
        {
            epoch += 1;
            commit(table, epoch, rows, encoder).map_err(BenchError::Folder)?;
            rows = 0;
        }
        if payloads.is_empty() {
            return Ok(());
        }
    }
}

/// The file, then the log entry; each durable before the next step.
fn commit(table: &Table, epoch: u64, rows: u64, encoder: Encoder) -> std::io::Result<()> {
    let (bytes, _) = encoder.finish().map_err(|e: ArrowError| std::io::Error::other(e))?;
    let name = format!("part-{epoch}.parquet");
    let add = json!({"add": {"path": name, "partitionValues": {}, "size": bytes.len(), "modificationTime": 0,
        "dataChange": true, "stats": json!({"numRecords": rows}).to_string()}});
    table.create("", &name, bytes)?;
    table.create(LOG, &format!("{epoch:020}.json"), format!("{add}\n").into())
}

impl Table {
    /// A new object, durable when this returns.
    fn create(&self, folder: &str, name: &str, bytes: Bytes) -> std::io::Result<()> {
        match self {
            Self::Folder(table) => {
                let folder = table.join(folder);
                let mut file = OpenOptions::new().write(true).create_new(true).open(folder.join(name))?;
                file.write_all(&bytes)?;
                file.sync_all()?;
                File::open(folder)?.sync_all()
            }
            Self::Store(store, runtime) => {
                let path = format!("{folder}/{name}");
                runtime.block_on(create(store.as_ref(), &path, bytes)).map_err(std::io::Error::other)
            }
        }
    }
}

/// Rows of the files that the log names, as their Parquet footers count them.
pub(super) fn rows(folder: &Path) -> Result<u64, BenchError> {
    let mut rows = 0;
    for entry in fs::read_dir(folder.join(LOG)).map_err(BenchError::Folder)? {
        let text = fs::read_to_string(entry.map_err(BenchError::Folder)?.path()).map_err(BenchError::Folder)?;
        let action: serde_json::Value = serde_json::from_str(&text).map_err(failed)?;
        let path = folder.join(action["add"]["path"].as_str().unwrap_or_default());
        let file = SerializedFileReader::new(File::open(path).map_err(BenchError::Folder)?).map_err(failed)?;
        rows += u64::try_from(file.metadata().file_metadata().num_rows()).unwrap_or(0);
    }
    Ok(rows)
}
