//! A reader of somebody else's: what deltalake for Python counts and adds up is what our oracle does.

use std::process::Command;

use lakefeed::oracle;
use serde_json::Value;

use super::{back, ends_sound};
use crate::support::feed::Feed;
use crate::support::servers::install::python;
use crate::support::servers::s3::ENV;
use crate::support::servers::{had, versitygw};
use crate::support::{Lab, PATIENCE, Synthetic, wait_for};

pub(super) const PACKAGES: [&str; 1] = ["deltalake==1.6.6"];
const STREAM: Synthetic = Synthetic { seed: 81, partitions: 2, total: 1_000_000, rate: 200 };

/// Prints a JSON object: version, rows, distinct records, the sum of a column.
const SCRIPT: &str = r#"
import json, sys
from deltalake import DeltaTable, QueryBuilder
table = DeltaTable(sys.argv[1])
query = QueryBuilder().register("t", table)
names = ["rows", "distinct", "sum", "epoch", "epochs"]
sql = sys.argv[2]
batch = query.execute(sql).read_all()
values = [batch.column(n).to_pylist()[0] if hasattr(batch.column(n), "to_pylist") else batch.column(n)[0].as_py() for n in names]
print(json.dumps(dict(zip(names, values), version=table.version())))
"#;

fn read(table: &std::path::Path, sql: &str) -> Option<Value> {
    let python = had("the second reader", python("second-reader", &PACKAGES))?;
    let read = Command::new(python).args(["-c", SCRIPT]).arg(table).arg(sql).output().unwrap();
    let said = String::from_utf8_lossy(&read.stderr);
    assert!(read.status.success(), "the second reader cannot read the table: {said}");
    Some(serde_json::from_slice(&read.stdout).unwrap())
}

#[tokio::test]
async fn test_second_reader_agrees_after_kills_of_node_and_server() {
    let Some(mut server) = versitygw().await else { return };
    let lab = server.lab(&STREAM, &server.endpoint());
    let mut node = lab.start_with(&ENV);
    lab.epoch_after(Synthetic::STREAM, 3).await;
    node.kill();
    let mut node = lab.start_with(&ENV);
    lab.epoch_after(Synthetic::STREAM, 5).await;
    server.kill();
    server.start_again().await;
    back(&lab, &node, "a server that was killed").await;
    let verdict = ends_sound(&lab, &STREAM, &mut node, "second reader").await;
    let sql = "SELECT count(*) AS rows, count(DISTINCT concat(partition, ':', seq)) AS distinct, sum(seq) AS sum, \
               max(_lf_epoch) AS epoch, count(DISTINCT _lf_epoch) AS epochs FROM t";
    let sql = sql.replace("AS distinct", "AS \"distinct\"").replace("AS rows", "AS \"rows\"");
    let Some(read) = read(&lab.lake().join("tables/acme/syn"), &sql) else { return };
    let facts = oracle::read_stream(lab.lake(), "acme", "syn").unwrap();
    let sum: u64 = facts.rows.iter().filter_map(|row| row.columns["seq"].as_u64()).sum();
    assert_eq!(read["rows"], verdict.rows, "{read}");
    assert_eq!(read["distinct"], verdict.rows, "{read}");
    assert_eq!(read["sum"], sum, "{read}");
    assert_eq!((&read["epoch"], &read["epochs"]), (&verdict.epochs.into(), &verdict.epochs.into()), "{read}");
}

/// Dead letters lie in a table that others read, too.
#[tokio::test]
async fn test_second_reader_agrees_on_dead_letters() {
    let source = Feed::start(1, 120).await;
    let lab = Lab::new(&source.config());
    let mut node = lab.start();
    let judged = || lab.judge(Feed::STREAM, &oracle::Expected::Any);
    wait_for("dead letters", PATIENCE, async || (judged().dead >= 10).then_some(())).await;
    assert_eq!(node.terminate().await, Some(0));
    let verdict = judged();
    let sql = "SELECT count(*) AS \"rows\", count(DISTINCT _lf_position || code || bytes) AS \"distinct\", \
               count(bytes) AS \"sum\", max(_lf_epoch) AS epoch, count(DISTINCT _lf_epoch) AS epochs FROM t";
    let sql = sql.replace(" || bytes", "");
    let (tenant, stream) = Feed::STREAM.split_once('/').unwrap();
    let Some(read) = read(&lab.lake().join("dead").join(tenant).join(stream), &sql) else { return };
    assert_eq!(read["rows"], verdict.dead, "{read}");
    assert!(read["epoch"].as_u64() <= Some(verdict.epochs), "{read}");
}
