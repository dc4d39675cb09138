//! `lake check` on a lake that a node left: sound at first, and every damage is named with what to do about it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

use crate::support::Lab;
use crate::support::feed::Feed;
use crate::support::lab::assert_sound;

const RECORDS: &str = "results/acme/feed";
const RAW: &str = "raw/acme/feed";
const TABLE: &str = "tables/acme/feed";
const LOG: &str = "tables/acme/feed/_delta_log";
const DEAD: &str = "dead/acme/feed";
const DEAD_LOG: &str = "dead/acme/feed/_delta_log";
/// Rounds of records, each an epoch at least.
const ROUNDS: u64 = 4;

/// What is done to a file.
enum Harm {
    Delete,
    /// A bit in its middle is turned over.
    Flip,
    Json(fn(&mut Value)),
    /// The actions of a log's entry.
    Entry(fn(&mut Value)),
    /// The text of `_lf_raw` in a Parquet file.
    Raw(fn(&str) -> String),
}

impl Harm {
    fn done_to(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Delete => None,
            Self::Flip => {
                let mut flipped = bytes.to_vec();
                flipped[bytes.len() / 2] ^= 1;
                Some(flipped)
            }
            Self::Json(change) => {
                let mut value = serde_json::from_slice(bytes).unwrap();
                change(&mut value);
                Some(value.to_string().into_bytes())
            }
            Self::Entry(change) => {
                let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
                let changed = lines.map(|line| {
                    let mut action = serde_json::from_slice(line).unwrap();
                    change(&mut action);
                    format!("{action}\n")
                });
                Some(changed.collect::<String>().into_bytes())
            }
            Self::Raw(change) => Some(with_raw(bytes, *change)),
        }
    }
}

/// The Parquet file with another `_lf_raw`.
fn with_raw(bytes: &[u8], change: fn(&str) -> String) -> Vec<u8> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::copy_from_slice(bytes)).unwrap().build().unwrap();
    let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    let schema = batches[0].schema();
    let mut written = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut written, Arc::clone(&schema), None).unwrap();
    for batch in batches {
        let at = schema.index_of("_lf_raw").unwrap();
        let mut columns = batch.columns().to_vec();
        let raw: StringArray = columns[at].as_string::<i32>().iter().map(|text| text.map(change)).collect();
        columns[at] = Arc::new(raw) as ArrayRef;
        writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns).unwrap()).unwrap();
    }
    writer.close().unwrap();
    written
}

/// Files below a folder, those of its own log left out, in order of their names.
fn files(folder: &Path, kind: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("_delta_log") {
            found.extend(files(&path, kind));
        } else if path.extension().is_some_and(|extension| extension == kind) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// What `lake check` prints, and whether it is content.
fn check(lab: &Lab, json: bool) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lakefeed"));
    command.args(["lake", "check", "-c"]).arg(lab.config()).args(json.then_some("--json"));
    let ended = command.output().unwrap();
    let error = String::from_utf8_lossy(&ended.stderr);
    assert!(matches!(ended.status.code(), Some(0 | 1)) && error.is_empty(), "{}: {error}", ended.status);
    (ended.status.success(), String::from_utf8(ended.stdout).unwrap())
}

/// Changes the epoch of a log's entry.
fn of_epoch(action: &mut Value, change: impl Fn(&mut Value)) {
    if let Some(txn) = action.get_mut("txn").filter(|txn| txn["appId"] == "lakefeed/acme/feed") {
        change(&mut txn["version"]);
    }
}

/// A folder, the ending of its files, which of them, what is done to it, and what must be found.
type Damage = (&'static str, &'static str, fn(usize) -> usize, Harm, &'static [&'static str]);

fn damages() -> Vec<Damage> {
    let second: fn(usize) -> usize = |_| 1;
    let last: fn(usize) -> usize = |count| count - 1;
    let third: fn(usize) -> usize = |_| 2;
    vec![
        // No file missing.
        (TABLE, "parquet", second, Harm::Delete, &["file_missing"]),
        (DEAD, "parquet", second, Harm::Delete, &["file_missing"]),
        (RAW, "parquet", second, Harm::Delete, &["raw_missing", "raw_reference"]),
        (RECORDS, "json", second, Harm::Delete, &["record_missing", "position_gap"]),
        // Raw hashes.
        (RAW, "parquet", second, Harm::Flip, &["raw_hash"]),
        // Gapless epochs.
        (LOG, "json", second, Harm::Delete, &["log_gap"]),
        (
            LOG,
            "json",
            third,
            Harm::Entry(|action| of_epoch(action, |version| *version = json!(version.as_u64().unwrap() + 5))),
            &["epoch_gap"],
        ),
        (LOG, "json", last, Harm::Flip, &[]),
        // Contiguous positions.
        (RECORDS, "json", second, Harm::Json(|r| r["positions"]["0"]["from"] = json!("altered")), &["position_gap"]),
        (RECORDS, "json", second, Harm::Json(|r| r["positions"]["1"]["to"] = json!("altered")), &["position_gap"]),
        // Record, commit and reference.
        (RECORDS, "json", second, Harm::Json(|r| r["generation"] = json!(7)), &["record_misplaced"]),
        (RECORDS, "json", second, Harm::Json(|r| r["table"] = json!("tables/acme/other")), &["record_misplaced"]),
        (RECORDS, "json", second, Harm::Json(|r| r["rows"] = json!(1)), &["record_counts"]),
        (RECORDS, "json", second, Harm::Json(|r| r["files"][0]["path"] = json!("gone.parquet")), &["record_differs"]),
        (RECORDS, "json", second, Harm::Json(|r| r["files"][0]["bytes"] = json!(1)), &["record_differs"]),
        (RECORDS, "json", second, Harm::Json(|r| r["raw"][0] = json!("raw/acme/feed/x.parquet")), &["raw_missing"]),
        (
            LOG,
            "json",
            last,
            Harm::Entry(|action| {
                if let Some(info) = action.get_mut("commitInfo") {
                    info["lakefeed.record"] = json!("results/acme/feed/00000000000000000001-1.json");
                }
            }),
            &["record_generation"],
        ),
        // Every row's raw reference.
        (TABLE, "parquet", second, Harm::Raw(|text| text.replace('#', "#9")), &["raw_reference"]),
        (TABLE, "parquet", second, Harm::Raw(|text| text.replace("/acme/", "/globex/")), &["raw_reference"]),
        (DEAD, "parquet", last, Harm::Raw(|_| "nowhere".to_owned()), &["raw_reference"]),
        // The dead table follows.
        (DEAD_LOG, "json", last, Harm::Delete, &["dead_behind"]),
    ]
}

#[tokio::test]
async fn test_lake_check_names_every_damage_and_what_to_do() {
    let source = Feed::start(2, 0).await;
    let lab = Lab::new(&source.config());
    let mut node = lab.start();
    for _ in 0..ROUNDS {
        // Seven of each partition, one of which is spoilt.
        source.grow(7);
        assert_sound(&source.whole(&lab, &node).await, "before any damage");
    }
    assert_eq!(node.terminate().await, Some(0), "{}", node.log());
    let (sound, said) = check(&lab, false);
    assert!(sound && said.trim_end().ends_with(" 0 problems"), "{said}");

    for (folder, kind, which, harm, expected) in damages() {
        let there = files(&lab.lake().join(folder), kind);
        let path = &there[which(there.len())];
        let whole = fs::read(path).unwrap();
        match harm.done_to(&whole) {
            None => fs::remove_file(path).unwrap(),
            Some(harmed) => fs::write(path, harmed).unwrap(),
        }
        let (sound, said) = check(&lab, true);
        let name = path.strip_prefix(lab.lake()).unwrap().display().to_string();
        assert!(!sound, "{name}: nothing is found");
        let report: Value = serde_json::from_str(&said).unwrap();
        let problems = report["problems"].as_array().unwrap();
        for code in expected {
            let problem = problems.iter().find(|problem| problem["code"] == *code);
            let problem = problem.unwrap_or_else(|| panic!("{name}: {code} is not in {said}"));
            assert!(!problem["remedy"].as_str().unwrap().is_empty(), "{problem}");
        }
        let (_, said) = check(&lab, false);
        for problem in problems {
            let line = format!("{}: {}: ", problem["path"].as_str().unwrap(), problem["code"].as_str().unwrap());
            assert!(said.lines().any(|l| l.starts_with(&line) && l.contains("; ")), "{line} is not in {said}");
        }
        fs::write(path, whole).unwrap();
    }
    assert!(check(&lab, false).0, "every damage was undone");
}
