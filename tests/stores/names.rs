//! Keys that no column can be called by, and partition values that no path can hold, through the built binary and over a
//! kill: our oracle and another's reader find under each key, and in each partition, what the source gave.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Json, Router};
use lakefeed::oracle;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

use super::second_reader::PACKAGES;
use crate::support::lab::{QUICK, assert_sound};
use crate::support::servers::had;
use crate::support::servers::install::python;
use crate::support::{Lab, Node, PATIENCE, wait_for};

const KEYS: [&str; 18] = [
    "Wind speed (m/s)",
    "a,b",
    "a;b",
    "a b",
    "a_b",
    "A_B",
    "",
    "_",
    "x=y",
    "tab\tname",
    "line\nname",
    "{}",
    "_lf_epoch",
    "_LF_own",
    "dot.ted",
    "größe",
    "quo\"te`'",
    "nul\u{0}%41/..",
];
/// As long as no path may be.
const LONG: usize = 3000;
/// Columns of the runtime.
const OWN: [&str; 5] = ["_lf_epoch", "_lf_partition", "_lf_position", "_lf_raw", "_lf_received_at"];
/// Records on a page.
const PAGE: u64 = 7;

/// What the source gives as its n-th record: now these keys, now those.
fn record(n: u64) -> Value {
    let chosen = (0u64..).zip(KEYS).filter(|(i, _)| !(n + i).is_multiple_of(3));
    let mut record: Map<String, Value> = chosen.map(|(i, key)| (key.to_owned(), json!(n * 100 + i))).collect();
    record.insert("seq".to_owned(), n.into());
    let inner = if n.is_multiple_of(2) { json!({"x y": n, "x_y": n + 1}) } else { json!({"X Y": n, "": "e"}) };
    record.insert("in (side)".to_owned(), inner.clone());
    record.insert("list".to_owned(), json!([inner, {"=": true}]));
    Value::Object(record)
}

/// What stands in the partition column of the n-th record.
fn city(n: u64) -> Option<String> {
    let cities = [
        "plain",
        "a/b",
        "..",
        ".",
        "%2F",
        "100%",
        "São Paulo",
        "日本",
        "a=b",
        "tab\t",
        "line\nname",
        "",
        "__HIVE_DEFAULT_PARTITION__",
        "Plain",
        "space ",
        "'quo\"te",
        "?#&+:*|<>\\",
        "nul\u{0}",
    ];
    match cities.get(usize::try_from(n).unwrap() % (cities.len() + 2)) {
        Some(city) => Some((*city).to_owned()),
        None if n.is_multiple_of(2) => None,
        None => Some("ü/".repeat(LONG)),
    }
}

#[derive(Deserialize)]
struct Asked {
    since: i64,
}

fn page(total: &AtomicU64, since: i64, record: impl Fn(u64) -> Value) -> Json<Value> {
    let first = u64::try_from(since + 1).unwrap();
    let data: Vec<Value> = (first..total.load(Ordering::SeqCst).min(first + PAGE)).map(record).collect();
    Json(json!({"data": data}))
}

/// The configuration of `acme/keys` and `acme/cities`, and how many records they have.
async fn source() -> (String, Arc<AtomicU64>) {
    let total = Arc::new(AtomicU64::new(40));
    let keys =
        async |State(total): State<Arc<AtomicU64>>, Query(asked): Query<Asked>| page(&total, asked.since, record);
    let cities = async |State(total): State<Arc<AtomicU64>>, Query(asked): Query<Asked>| {
        page(&total, asked.since, |n| json!({"seq": n, "City (name)": city(n)}))
    };
    let router = Router::new().route("/keys", get(keys)).route("/cities", get(cities));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = router.with_state(Arc::clone(&total));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let adapter = |name: &str, more: &str| {
        let path = name.to_lowercase();
        format!(
            "[adapter.{name}]\nkind = \"http_poll\"\nbase_url = \"http://{address}\"\ninterval = \"50ms\"\ntimeout = \"10s\"\n\
             cursor = {{ field = \"seq\", start = \"-1\" }}\n{more}\n[adapter.{name}.request]\npath = \"/{path}\"\n\
             query = {{ since = \"{{cursor}}\" }}\n[adapter.{name}.records]\nselect = \"$.data\"\n\
             [stream.\"acme/{path}\"]\nadapter = \"{name}\"\n"
        )
    };
    let declared = "table.schema = { seq = \"long\", city = \"string\" }\ntable.keys = { city = \"City (name)\" }\n\
                    table.partition_by = [\"city\"]";
    (format!("{QUICK}{}{}", adapter("KEYS", ""), adapter("CITIES", declared)), total)
}

/// Rows by their number in the source.
fn rows(lab: &Lab, stream: &str) -> BTreeMap<u64, Map<String, Value>> {
    let facts = oracle::read_stream(lab.lake(), "acme", stream).unwrap();
    facts.rows.into_iter().map(|row| (row.columns["seq"].as_u64().unwrap(), row.columns)).collect()
}

async fn all_there(lab: &Lab, node: &Node, total: u64) {
    for stream in ["keys", "cities"] {
        let look =
            wait_for("all records", Duration::MAX, async || (rows(lab, stream).len() as u64 >= total).then_some(()));
        let waited = tokio::time::timeout(PATIENCE, look).await;
        assert!(waited.is_ok(), "{stream} does not come to its end; the log:\n{}", node.log());
    }
}

/// The fields of the newest schema, as the log has it.
fn fields(table: &Path) -> Vec<Value> {
    let mut entries: Vec<_> = std::fs::read_dir(table.join("_delta_log")).unwrap().map(|e| e.unwrap().path()).collect();
    entries.retain(|path| path.extension().is_some_and(|end| end == "json"));
    entries.sort();
    let lines = entries
        .iter()
        .flat_map(|path| std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect::<Vec<_>>());
    let actions = lines.map(|line| serde_json::from_str::<Value>(&line).unwrap());
    let mut texts = actions.filter_map(|action| action["metaData"]["schemaString"].as_str().map(str::to_owned));
    let schema: Value = serde_json::from_str(&texts.next_back().unwrap()).unwrap();
    schema["fields"].as_array().unwrap().clone()
}

/// A row called by the keys that the schema says.
fn by_keys(fields: &[Value], row: &Map<String, Value>) -> Value {
    let mut record = Map::new();
    for (name, value) in row {
        let field = fields.iter().find(|field| field["name"] == *name).unwrap();
        let key = field["metadata"]["lakefeed.key"].as_str().unwrap_or(name);
        assert!(record.insert(key.to_owned(), value_by_keys(&field["type"], value)).is_none(), "{key:?} twice");
    }
    Value::Object(record)
}

fn value_by_keys(of: &Value, value: &Value) -> Value {
    match (of["type"].as_str(), value) {
        (Some("struct"), Value::Object(row)) => by_keys(of["fields"].as_array().unwrap(), row),
        (Some("array"), Value::Array(items)) => {
            items.iter().map(|item| value_by_keys(&of["elementType"], item)).collect()
        }
        _ => value.clone(),
    }
}

/// Prints the rows as JSON, lists and structs left out.
const SCRIPT: &str = r#"
import json, sys
from deltalake import DeltaTable, QueryBuilder
table = QueryBuilder().register("t", DeltaTable(sys.argv[1])).execute("SELECT * FROM t").read_all()
names = [f.name for f in table.schema]
columns = [[v.as_py() for v in table.column(i)] for i in range(len(names))]
rows = [dict(zip(names, row)) for row in zip(*columns)]
print(json.dumps([{k: v for k, v in row.items() if isinstance(v, (int, str, float))} for row in rows]))
"#;

fn read_by_another(table: &Path) -> Option<BTreeMap<u64, Map<String, Value>>> {
    let python = had("the second reader", python("second-reader", &PACKAGES))?;
    let read = Command::new(python).args(["-c", SCRIPT]).arg(table).output().unwrap();
    let said = String::from_utf8_lossy(&read.stderr);
    assert!(read.status.success(), "the second reader cannot read the table: {said}");
    let rows: Vec<Map<String, Value>> = serde_json::from_slice(&read.stdout).unwrap();
    Some(rows.into_iter().map(|row| (row["seq"].as_u64().unwrap(), row)).collect())
}

#[tokio::test]
async fn test_nasty_keys_and_partition_values_come_back_as_they_were_over_a_kill() {
    let (config, total) = source().await;
    let lab = Lab::new(&config);
    let mut node = lab.start();
    all_there(&lab, &node, 40).await;
    let before = fields(&lab.lake().join("tables/acme/keys"));
    node.kill();
    total.store(80, Ordering::SeqCst);
    let mut node = lab.start();
    all_there(&lab, &node, 80).await;
    assert_eq!(node.terminate().await, Some(0), "{}", node.log());
    for stream in ["acme/keys", "acme/cities"] {
        let verdict = lab.judge(stream, &oracle::Expected::Any);
        assert_sound(&verdict, stream);
        assert_eq!((verdict.rows, verdict.dead), (80, 0), "{stream}");
    }

    let tables = lab.lake().join("tables/acme");
    let after = fields(&tables.join("keys"));
    assert_eq!(after, before, "the same keys came again");
    let read = rows(&lab, "keys");
    for (n, row) in &read {
        assert_eq!(by_keys(&after, row), record(*n));
    }
    let cities = rows(&lab, "cities");
    // Delta takes the empty text of a partition column for null.
    let expected = |n: u64| city(n).filter(|city| !city.is_empty());
    for (n, row) in &cities {
        assert_eq!(row.get("city").and_then(Value::as_str), expected(*n).as_deref(), "record {n}");
    }

    let Some(others) = read_by_another(&tables.join("keys")) else { return };
    assert_eq!(others.len(), 80);
    for (n, row) in &others {
        let plain = |(name, value): (&String, &Value)| (name.clone(), value.clone());
        let mine: Map<_, _> = read[n].iter().filter(|(_, v)| !v.is_object() && !v.is_array()).map(plain).collect();
        let theirs: Map<_, _> = row.iter().filter(|(name, _)| !OWN.contains(&name.as_str())).map(plain).collect();
        assert_eq!(theirs, mine, "record {n}");
    }
    let Some(others) = read_by_another(&tables.join("cities")) else { return };
    assert_eq!(others.len(), 80);
    for (n, row) in &others {
        assert_eq!(row.get("city").and_then(Value::as_str), expected(*n).as_deref(), "record {n}");
    }
}
