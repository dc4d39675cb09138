//! Pages of rows and dead letters, desired states, and damages that the check must find.

use std::sync::Arc;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use serde_json::json;

use super::*;
use crate::lake::{Created, layout};

async fn filled(epochs: u64) -> (Arc<InMemory>, Arc<Lake>) {
    let (store, lake) = lake();
    let mut owner = lake.claim(claim_with(None)).await.unwrap();
    for _ in 0..epochs {
        let sealed = next_epoch(&owner, &["a", "b"], 7);
        owner.commit(&sealed, "results").await.unwrap();
    }
    (store, lake)
}

#[tokio::test]
async fn test_pages_of_any_size_give_each_row_once_and_in_order() {
    let (store, lake) = filled(4).await;
    for limit in [1, 5, 12, 13, 100] {
        // The memory of versions must not matter.
        let lake = if limit == 5 { lake_on(Arc::clone(&store) as Arc<dyn ObjectStore>, 9) } else { Arc::clone(&lake) };
        for (dead, expected) in [(false, 48), (true, 8)] {
            let (mut all, mut after) = (Vec::new(), String::new());
            loop {
                let (page, next) = match dead {
                    true => lake.dead_letters(&id(), &after, limit).await.unwrap(),
                    false => lake.records(&id(), &after, limit).await.unwrap(),
                };
                assert!(page.len() <= limit);
                after = next;
                if page.is_empty() {
                    break;
                }
                all.extend(page);
            }
            assert_eq!(all.len(), expected, "limit {limit}");
            let epochs: Vec<_> = all.iter().map(|row| row["_lf_epoch"].as_u64().unwrap()).collect();
            assert!(epochs.is_sorted());
            let keys: BTreeSet<_> =
                all.iter().map(|row| row["id"].as_str().or(row["bytes"].as_str()).unwrap()).collect();
            assert_eq!(keys.len(), expected);
        }
    }
    let (rows, _) = lake.records(&id(), "", 1).await.unwrap();
    let row = &rows[0];
    assert_eq!(
        (&row["id"], &row["n"], &row["_lf_epoch"], &row["_lf_partition"]),
        (&json!("a:1"), &json!(1), &json!(1), &json!("a"))
    );
    assert_eq!((&row["_lf_position"], &row["_lf_received_at"]), (&json!("1"), &json!("2024-05-01T12:00:00Z")));
    assert!(row["_lf_raw"].as_str().unwrap().starts_with("raw/acme/berlin/2024-05-01/"));
    let (dead, _) = lake.dead_letters(&id(), "", 1).await.unwrap();
    assert_eq!(
        (&dead[0]["stage"], &dead[0]["code"], &dead[0]["bytes"]),
        (&json!("decode"), &json!("not_json"), &json!("junk a:7"))
    );
    assert_eq!(lake.records(&id(), "nonsense", 1).await.unwrap_err().code, "invalid_cursor");
    // What comes later is found from the last cursor.
    let (_, after) = lake.records(&id(), "", 100).await.unwrap();
    let mut owner = lake.claim(claim_with(None)).await.unwrap();
    owner.commit(&next_epoch(&owner, &["a"], 2), "results").await.unwrap();
    assert_eq!(lake.records(&id(), &after, 100).await.unwrap().0.len(), 2);
}

#[tokio::test]
async fn test_epoch_record_has_the_shape_of_the_interface() {
    let (store, lake) = filled(1).await;
    let path = Path::from("results/acme/berlin/00000000000000000001-1.json");
    let text = store.get(&path).await.unwrap().bytes().await.unwrap();
    let record: Value = serde_json::from_slice(&text).unwrap();
    let keys: Vec<_> = record.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "adapter",
        "closed_at",
        "dead",
        "dead_files",
        "epoch",
        "files",
        "generation",
        "positions",
        "raw",
        "rows",
        "started_at",
        "stream",
        "table",
        "tenant",
        "transform",
        "watermark",
    ];
    assert_eq!(keys, expected);
    assert_eq!(record["positions"]["a"], json!({"from": null, "to": "7"}));
    assert_eq!(record["closed_at"], "2024-05-01T12:00:01.000000Z");
    assert_eq!(record["watermark"], "2024-05-01T12:00:00.000006Z");
    assert_eq!((&record["table"], &record["transform"]), (&json!("tables/acme/berlin"), &Value::Null));
    assert_eq!(lake.record(&id(), 1).await.unwrap().unwrap().rows, 12);
    assert_eq!(lake.record(&id(), 2).await.unwrap(), None);
    assert_eq!(lake.record(&id(), 0).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn test_desired_states_are_create_only_versions() {
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let store = FailingStore::new(Arc::clone(&inner));
    let lake = lake_on(Arc::new(store.clone()), 1);
    let (one, two) = (json!({"state": "running"}), json!({"state": "stopped"}));
    store.arm(Fail::put("control/", Fault::AFTER));
    assert_eq!(lake.control_create(&id(), 1, &one).await.unwrap(), Created::Yes);
    assert_eq!(lake.control_create(&id(), 1, &two).await.unwrap(), Created::AlreadyExists);
    assert_eq!(lake.control_create(&id(), 2, &two).await.unwrap(), Created::Yes);
    let other = StreamId::new("acme", "paris").unwrap();
    lake.control_create(&other, 1, &one).await.unwrap();
    assert_eq!(lake.control_list().await.unwrap(), [(id(), 2), (other, 1)]);
    assert_eq!(lake.control_read(&id(), 2).await.unwrap(), two);
    assert_eq!(lake.control_read(&id(), 3).await.unwrap_err().code, "control_unreadable");
}

/// The first object below `folder` whose path holds `part`.
async fn path_of(store: &Arc<InMemory>, folder: &str, part: &str) -> Path {
    use futures::TryStreamExt;
    let all: Vec<_> = store.list(Some(&Path::from(folder))).try_collect().await.unwrap();
    all.into_iter().map(|o| o.location).find(|p| p.as_ref().contains(part)).unwrap()
}

async fn rewrite(store: &Arc<InMemory>, path: &Path, change: impl Fn(String) -> String) {
    let bytes = store.get(path).await.unwrap().bytes().await.unwrap();
    let changed = change(String::from_utf8_lossy(&bytes).into_owned());
    store.put(path, PutPayload::from(changed)).await.unwrap();
}

/// The entry without its actions of one kind.
fn without(entry: &str, kind: &str) -> String {
    let start = format!(r#"{{"{kind}""#);
    entry.lines().filter(|line| !line.starts_with(&start)).map(|line| format!("{line}\n")).collect()
}

#[tokio::test]
async fn test_check_of_a_whole_lake_finds_nothing_and_counts() {
    let (_, lake) = filled(4).await;
    let report = lake.check(None).await.unwrap();
    assert_eq!(report.problems, []);
    assert_eq!((report.streams, report.epochs, report.rows, report.dead), (1, 4, 48, 8));
    assert_eq!((report.raw_segments, report.orphans), (4, 0));
}

#[tokio::test]
async fn test_check_finds_each_planted_damage() {
    const RECORDS: &str = "results/acme/berlin";
    const LOG: &str = "tables/acme/berlin/_delta_log";
    type Damage = (&'static str, &'static str, Option<fn(String) -> String>, &'static [&'static str]);
    // Folder, part of the name, None = deleted or a change, and what must be among the findings.
    let damages: [Damage; 21] = [
        (RECORDS, "02-1.json", None, &["record_missing", "position_gap"]),
        (RECORDS, "02-1.json", Some(|_| "{}".to_owned()), &["record_unreadable"]),
        (RECORDS, "02-1.json", Some(|t| t.replace(r#""epoch":2"#, r#""epoch":3"#)), &["record_misplaced"]),
        (RECORDS, "02-1.json", Some(|t| t.replace(r#""from":"7""#, r#""from":"6""#)), &["position_gap"]),
        (RECORDS, "02-1.json", Some(|t| t.replace(r#""rows":12,"#, r#""rows":13,"#)), &["record_counts"]),
        (RECORDS, "02-1.json", Some(|t| t.replace("part-2-1", "part-2-2")), &["record_differs", "dead_differs"]),
        ("raw/acme", ".parquet", None, &["raw_missing", "raw_reference"]),
        ("raw/acme", ".parquet", Some(|_| "junk".to_owned()), &["raw_hash", "raw_reference"]),
        ("tables/acme", "part-3-1", None, &["file_missing"]),
        ("tables/acme", "part-3-1", Some(|_| "junk".to_owned()), &["file_size", "file_unreadable"]),
        ("dead/acme/berlin", "part-3-1", None, &["file_missing"]),
        (LOG, "2.json", None, &["log_gap"]),
        (LOG, "2.json", Some(|_| "junk".to_owned()), &["log_unreadable"]),
        (LOG, "3.json", Some(|t| t.replace(r#""version":1}"#, r#""version":0}"#)), &["generation_fell"]),
        (
            LOG,
            "3.json",
            Some(|t| t.replace(r#"numRecords\":12"#, r#"numRecords\":13"#)),
            &["file_rows", "record_differs"],
        ),
        (LOG, "3.json", Some(|t| t.repeat(2)), &["file_twice"]),
        // The end of the log is gone; the dead table goes on.
        (LOG, "4.json", None, &["dead_leads", "row_epoch"]),
        (LOG, "2.json", Some(|t| t.replace(r#""version":2"#, r#""version":9"#)), &["epoch_gap"]),
        (
            "dead/acme/berlin/_delta_log",
            "3.json",
            Some(|t| t.replace(r#""version":4"#, r#""version":9"#)),
            &["dead_leads"],
        ),
        ("dead/acme/berlin/_delta_log", "3.json", None, &["dead_behind"]),
        ("dead/acme/berlin/_delta_log", "2.json", Some(|t| without(&t, "txn")), &["dead_missing"]),
    ];
    for (folder, part, change, codes) in damages {
        let (store, lake) = filled(4).await;
        lake.control_create(&id(), 1, &json!({})).await.unwrap();
        let path = path_of(&store, folder, part).await;
        match change {
            None => store.delete(&path).await.unwrap(),
            Some(change) => rewrite(&store, &path, change).await,
        }
        let report = lake_on(Arc::clone(&store) as Arc<dyn ObjectStore>, 3).check(None).await.unwrap();
        let found: BTreeSet<_> = report.problems.iter().map(|p| p.code).collect();
        for code in codes {
            assert!(found.contains(code), "{path}: {code} is not among {found:?}");
        }
    }
}

#[tokio::test]
async fn test_check_finds_records_that_differ_and_tables_that_are_gone() {
    use futures::TryStreamExt;
    let (store, _) = filled(3).await;
    let other = layout::record("results2", &id(), 2, 1);
    store.put(&Path::from(other.as_str()), "{}".into()).await.unwrap();
    let log: Vec<_> = store.list(Some(&Path::from("tables"))).try_collect().await.unwrap();
    let codes = || async {
        let lake = lake_on(Arc::clone(&store) as Arc<dyn ObjectStore>, 3);
        lake.check(None).await.unwrap().problems.into_iter().map(|p| p.code).collect::<BTreeSet<_>>()
    };
    assert_eq!(codes().await, ["record_ambiguous"].into());
    store.delete(&Path::from(other)).await.unwrap();
    for object in log {
        store.delete(&object.location).await.unwrap();
    }
    assert!(codes().await.contains("table_missing"));
}

#[tokio::test]
async fn test_check_counts_orphans_and_names_foreign_objects() {
    let (store, lake) = filled(2).await;
    let owner = lake.claim(claim_with(None)).await.unwrap();
    // An epoch that came as far as its record.
    let sealed = next_epoch(&owner, &["a"], 7);
    let record = crate::lake::EpochRecord::of(&sealed, None);
    store.put(&Path::from(layout::record("results", &id(), 3, 2)), record.to_bytes().unwrap().into()).await.unwrap();
    store.put(&Path::from(sealed.raw[0].path.as_str()), sealed.raw[0].bytes.clone().into()).await.unwrap();
    let file = format!("tables/acme/berlin/{}", sealed.files[0].path);
    store.put(&Path::from(file), sealed.files[0].bytes.clone().into()).await.unwrap();
    let report = lake.check(Some(&id())).await.unwrap();
    assert_eq!((report.problem_count, report.orphans), (0, 3));
    store.put(&Path::from("control/streams/acme/berlin/7.json"), "{}".into()).await.unwrap();
    store.put(&Path::from(layout::control(&id(), 1)), "{".into()).await.unwrap();
    let codes: BTreeSet<_> = lake.check(None).await.unwrap().problems.into_iter().map(|p| p.code).collect();
    assert_eq!(codes, ["control_unreadable", "foreign_object"].into());
}
