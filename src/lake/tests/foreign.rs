//! Others who write to the table: what they do is kept, and what we do survives it. And tables whose columns change.

use std::sync::Arc;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::json;

use super::*;
use crate::lake::{LakeErrorClass, layout};

/// Writes an entry as another writer would.
pub(super) async fn foreign(store: &Arc<InMemory>, version: u64, actions: &[Value]) {
    let body: String = actions.iter().map(|action| format!("{action}\n")).collect();
    let path = Path::from(layout::log_entry("tables/acme/berlin", version));
    store.put(&path, body.into()).await.unwrap();
}

pub(super) async fn metadata(store: &Arc<InMemory>, version: u64) -> Value {
    let path = Path::from(layout::log_entry("tables/acme/berlin", version));
    let bytes = store.get(&path).await.unwrap().bytes().await.unwrap();
    let lines = bytes.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    lines.filter_map(|line| line.get("metaData").cloned()).next().unwrap()
}

#[tokio::test]
async fn test_foreign_entries_in_between_are_passed() {
    let (store, lake) = lake();
    let mut owner = lake.claim(claim_with(None)).await.unwrap();
    owner.commit(&next_epoch(&owner, &["a"], 5), "results").await.unwrap();
    for version in 2..40 {
        foreign(
            &store,
            version,
            &[json!({"commitInfo": {"operation": "OPTIMIZE"}}), json!({"txn": {"appId": "x", "version": 9}})],
        )
        .await;
    }
    let committed = owner.commit(&next_epoch(&owner, &["a"], 5), "results").await.unwrap();
    assert_eq!(committed.version, 40);
    let judged = judge(Arc::clone(&store) as Arc<dyn ObjectStore>, "acme/berlin").await;
    judged.assert_whole(&[("a", 10)]);
    assert_eq!(lake.check(None).await.unwrap().problem_count, 0);
    for (epoch, version) in [(1, 1), (2, 40)] {
        assert_eq!(lake.reference(&id(), epoch).await.unwrap().unwrap()["version"], version);
        // From the log alone, too.
        let other = lake_on(Arc::clone(&store) as Arc<dyn ObjectStore>, 7);
        assert_eq!(other.reference(&id(), epoch).await.unwrap().unwrap()["version"], version);
    }
}

#[tokio::test]
async fn test_foreign_columns_are_kept_and_a_changed_type_stops_the_stream() {
    let (store, lake) = lake();
    let mut owner = lake.claim(claim_with(None)).await.unwrap();
    owner.commit(&next_epoch(&owner, &["a"], 5), "results").await.unwrap();
    let mut changed = metadata(&store, 1).await;
    let with = changed["schemaString"].as_str().unwrap().replacen(
        r#""fields":["#,
        r#""fields":[{"name":"theirs","type":"date","nullable":true,"metadata":{"comment":"x"}},"#,
        1,
    );
    changed["schemaString"] = with.into();
    changed["configuration"] = json!({"delta.appendOnly": "true"});
    foreign(&store, 2, &[json!({"metaData": changed.clone()})]).await;
    let mut builder = builder(&owner);
    builder
        .push("a", Batch { payloads: vec![payload("6", r#"{"id":"a:6","n":6,"new":"x"}"#)], ..batch("a", 5, 1, false) })
        .unwrap();
    let committed = owner.commit(&builder.seal(NOON_US), "results").await.unwrap();
    assert_eq!(committed.version, 3);
    let now = metadata(&store, 3).await;
    let text = now["schemaString"].as_str().unwrap();
    assert!(text.contains("theirs") && text.contains(r#""comment":"x""#) && text.contains(r#""name":"new""#));
    assert_eq!((&now["id"], &now["configuration"]["delta.appendOnly"]), (&changed["id"], &json!("true")));
    let mut broken = now.clone();
    broken["schemaString"] = text
        .replace(r#""name":"n","nullable":true,"type":"long""#, r#""name":"n","nullable":true,"type":"string""#)
        .into();
    assert_ne!(broken, now);
    foreign(&store, 4, &[json!({"metaData": broken})]).await;
    let error = owner.commit(&next_epoch(&owner, &["a"], 1), "results").await.unwrap_err();
    assert_eq!((error.class, error.code), (LakeErrorClass::Config, "schema_conflict"));
}

#[tokio::test]
async fn test_table_that_asks_for_more_than_appends_is_left_alone() {
    let (store, lake) = lake();
    let mut owner = lake.claim(claim_with(None)).await.unwrap();
    owner.commit(&next_epoch(&owner, &["a"], 5), "results").await.unwrap();
    let protocol =
        json!({"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": [], "writerFeatures": ["rowTracking"]});
    foreign(&store, 2, &[json!({"protocol": protocol})]).await;
    let error = owner.commit(&next_epoch(&owner, &["a"], 5), "results").await.unwrap_err();
    assert_eq!((error.class, error.code), (LakeErrorClass::Config, "table_protocol"));
    assert_eq!(lake.claim(claim_with(None)).await.unwrap_err().code, "table_protocol");
}

#[tokio::test]
async fn test_columns_come_with_the_epoch_that_has_them_by_names_that_delta_can_carry() {
    let (store, lake) = lake();
    let mut owner = lake.claim(claim_with(None)).await.unwrap();
    assert!(owner.schema().is_none());
    let rows = [
        r#"{"id":"a:1","n":1}"#,
        r#"{"id":"a:2","n":2,"late":"x"}"#,
        r#"{"id":"a:3","n":3,"bad name":"x"}"#,
        r#"{"id":"a:4","N":"x"}"#,
    ];
    for (index, row) in rows.iter().enumerate() {
        let from = index as u64;
        let mut builder = builder(&owner);
        builder
            .push("a", Batch { payloads: vec![payload(&(from + 1).to_string(), *row)], ..batch("a", from, 1, false) })
            .unwrap();
        owner.commit(&builder.seal(NOON_US), "results").await.unwrap();
    }
    let names: Vec<_> = owner.schema().unwrap().fields().iter().map(|f| f.name().clone()).collect();
    assert_eq!(names, ["id", "n", "late", "bad_name", "N_2"]);
    assert_eq!(lake.dead_letters(&id(), "", 10).await.unwrap().0, Vec::<Value>::new());
    assert_eq!(lake.check(None).await.unwrap().problem_count, 0);
    // Columns in their place after the way through a checkpoint of the log.
    lake.checkpoint_log(&id()).await.unwrap();
    let mut owner = lake.claim(claim_with(None)).await.unwrap();
    let names: Vec<_> = owner.schema().unwrap().fields().iter().map(|f| f.name().clone()).collect();
    assert_eq!(names, ["id", "n", "late", "bad_name", "N_2"]);
    let mut builder = builder(&owner);
    builder
        .push("a", Batch { payloads: vec![payload("5", r#"{"id":"a:5","later":"x"}"#)], ..batch("a", 4, 1, false) })
        .unwrap();
    let committed = owner.commit(&builder.seal(NOON_US), "results").await.unwrap();
    let now = metadata(&store, committed.version).await;
    assert!(now["format"]["provider"] == "parquet" && now["schemaString"].as_str().unwrap().contains("later"), "{now}");
    // Another reader of Delta agrees.
    let address = crate::lake::snapshot::address("tables/acme/berlin").unwrap();
    let table = deltalake::DeltaTableBuilder::from_url(address.clone()).unwrap().with_storage_backend(store, address);
    let table = Box::pin(table.load()).await.unwrap();
    assert_eq!(table.version().unwrap(), committed.version);
    assert_eq!(table.snapshot().unwrap().schema().fields().count(), 11);
    assert_eq!(table.get_file_uris().unwrap().count(), 5);
}

#[tokio::test]
async fn test_claims_that_do_not_fit_the_table_are_refused() {
    let (_, lake) = lake();
    let schema = |fields: &[(&str, DataType)]| {
        Some(Arc::new(Schema::new(fields.iter().map(|(n, t)| Field::new(*n, t.clone(), true)).collect::<Vec<_>>())))
    };
    let claim = |schema, by: &[&str]| Claim {
        schema,
        partition_by: by.iter().map(|s| (*s).to_owned()).collect(),
        ..claim_with(None)
    };
    let cases = [
        (claim(schema(&[("a b", DataType::Int64)]), &[]), "invalid_column"),
        (claim(schema(&[("a", DataType::Int64)]), &["b"]), "partition_column"),
        (claim(schema(&[("a", DataType::Float64)]), &["a"]), "partition_column"),
        (claim(None, &crate::pipeline::LF_COLUMNS), "partition_column"),
    ];
    for (claim, code) in cases {
        assert_eq!(lake.claim(claim).await.unwrap_err().code, code);
    }
    assert_eq!(lake.last_checkpoint(&id()).await.unwrap(), None);
    lake.claim(claim(schema(&[("a", DataType::Int64)]), &["a"])).await.unwrap();
    let owner = lake.claim(claim(schema(&[("b", DataType::Utf8), ("a", DataType::Int64)]), &["a"])).await.unwrap();
    assert_eq!(owner.schema().unwrap().fields().len(), 2);
    let cases = [
        (claim(schema(&[("a", DataType::Int64)]), &[]), "partitioning_changed"),
        (claim(schema(&[("a", DataType::Utf8)]), &["a"]), "schema_conflict"),
        (claim(schema(&[("a", DataType::Int64), ("B", DataType::Utf8)]), &["a"]), "schema_conflict"),
    ];
    for (claim, code) in cases {
        assert_eq!(lake.claim(claim).await.unwrap_err().code, code);
    }
}

#[tokio::test]
async fn test_partitioned_table_has_a_file_a_value_and_other_readers_find_them() {
    let (store, lake) = lake();
    let claim = Claim {
        schema: Some(Arc::new(Schema::new(vec![
            Field::new("id", DataType::Utf8, true),
            Field::new("city", DataType::Utf8, true),
        ]))),
        partition_by: vec!["city".to_owned()],
        ..claim_with(None)
    };
    let mut owner = lake.claim(claim).await.unwrap();
    let mut builder = EpochBuilder::new(BuilderSpec { partition_by: vec!["city".to_owned()], ..spec(&owner) });
    let rows = [
        r#"{"id":"a:1","city":"São Paulo/x=%41"}"#,
        r#"{"id":"a:2"}"#,
        r#"{"id":"a:3","city":".."}"#,
        r#"{"id":"a:4","city":".."}"#,
        r#"{"id":"a:5","city":"LONG"}"#,
        r#"{"id":"a:6","city":"__HIVE_DEFAULT_PARTITION__"}"#,
        r#"{"id":"a:7","city":""}"#,
    ];
    let long = "é/".repeat(1000);
    let payloads = rows.iter().map(|row| payload("7", row.replace("LONG", &long))).collect();
    builder.push("a", Batch { payloads, ..batch("a", 0, 7, false) }).unwrap();
    let sealed = builder.seal(NOON_US);
    assert_eq!(sealed.files.len(), 5);
    owner.commit(&sealed, "results").await.unwrap();
    let (rows, _) = lake.records(&id(), "", 10).await.unwrap();
    let cities: BTreeSet<_> = rows.iter().map(|row| (row["id"].as_str().unwrap(), row["city"].as_str())).collect();
    assert_eq!(
        cities,
        [
            ("a:1", Some("São Paulo/x=%41")),
            ("a:2", None),
            ("a:3", Some("..")),
            ("a:4", Some("..")),
            ("a:5", Some(long.as_str())),
            ("a:6", Some("__HIVE_DEFAULT_PARTITION__")),
            ("a:7", None),
        ]
        .into()
    );
    assert_eq!(lake.check(None).await.unwrap().problems, []);
    let address = crate::lake::snapshot::address("tables/acme/berlin").unwrap();
    let table = deltalake::DeltaTableBuilder::from_url(address.clone()).unwrap();
    let table =
        Box::pin(table.with_storage_backend(Arc::clone(&store) as Arc<dyn ObjectStore>, address).load()).await.unwrap();
    for file in table.snapshot().unwrap().log_data() {
        let path = Path::parse(format!("tables/acme/berlin/{}", file.path())).unwrap();
        assert!(store.head(&path).await.is_ok(), "{path}");
    }
}
