//! Keys that Delta cannot carry as names: each has its column, the same one whoever looks and whenever.

use adapters::contract::columns::{is_column_name, key_of, with_key};
use adapters::json::{COLUMNS_MAX, Growth};
use serde_json::json;

use super::foreign::{foreign, metadata};
use super::schema::{Feed, columns};
use super::*;
use crate::lake::LakeErrorClass;

const NASTY: [&str; 3] = [
    r#"{"Wind speed (m/s)":1.5,"a b":1,"a_b":2,"":"empty","_lf_epoch":"theirs","tab\tname":true,"case":1,"Case":2}"#,
    r#"{"CASE":3,"a,b":3,"o p":{"x=y":1,"x_y":2,"X_Y":3,"_lf_x":4},"l":[{"{}":1},{"()":2}]}"#,
    r#"{"o p":{"x y":5},"l":[{"__":3}],"dot.ted":1,"größe":"ü"}"#,
];

/// `(name, key)` of the columns that records fill, as an owner has them.
fn names(owner: &Owner) -> Vec<(String, String)> {
    let schema = owner.schema().unwrap();
    schema.fields().iter().map(|field| (field.name().clone(), key_of(field).to_owned())).collect()
}

#[tokio::test]
async fn test_each_key_has_its_column_over_restarts_and_checkpoints_in_whatever_order_it_comes() {
    let (store, lake) = lake();
    let feed = Feed::inferred();
    let mut owner = lake.claim(feed.claim()).await.unwrap();
    owner.commit(&feed.epoch(&owner, &NASTY[..2]).unwrap(), "results").await.unwrap();
    let first = names(&owner);
    // Another process, which knows the log alone; then one that knows a checkpoint of it.
    for turn in 0..2 {
        let lake = lake_on(Arc::clone(&store) as Arc<dyn ObjectStore>, 7 + turn);
        if turn == 1 {
            lake.checkpoint_log(&id()).await.unwrap();
        }
        let mut owner = lake.claim(feed.claim()).await.unwrap();
        let sealed = feed.epoch(&owner, &[NASTY[2], NASTY[1], NASTY[0]]).unwrap();
        assert_eq!(sealed.dead, 0);
        owner.commit(&sealed, "results").await.unwrap();
        assert_eq!(names(&owner)[..first.len()], first);
        assert!(names(&owner).iter().all(|(name, _)| is_column_name(name)));
    }
    let names: Vec<_> =
        columns(&store).await.iter().map(|column| column.split(' ').next().unwrap().to_owned()).collect();
    let expected =
        ["Wind_speed__m/s_", "a_b_2", "a_b", "_", "_lf_epoch_2", "tab_name", "case", "Case_2", "CASE_3", "a_b_3"];
    assert_eq!(names[..10], expected);
    let (rows, _) = lake.records(&id(), "", 10).await.unwrap();
    assert_eq!(rows.len(), 8);
    let first = &rows[0];
    assert_eq!(first["Wind_speed__m/s_"], 1.5);
    assert_eq!(
        (&first["a_b_2"], &first["a_b"], &first["case"], &first["Case_2"]),
        (&json!(1), &json!(2), &json!(1), &json!(2))
    );
    assert_eq!(
        (&first["_"], &first["_lf_epoch_2"], &first["_lf_epoch"]),
        (&json!("empty"), &json!("theirs"), &json!(1))
    );
    let expected = json!({"x_y_2": 1, "x_y": 2, "X_Y_3": 3, "_lf_x": 4});
    assert_eq!(rows[1]["o_p"], expected);
    assert_eq!(rows[2]["o_p"]["x_y_4"], 5);
    assert_eq!(rows[1]["l"], json!([{"__": 1, "___2": null}, {"__": null, "___2": 2}]));
    assert_eq!(rows[2]["l"][0]["___3"], 3);
    assert_eq!(lake.check(None).await.unwrap().problems, []);
}

#[tokio::test]
async fn test_a_record_of_too_many_keys_is_a_dead_letter_and_makes_no_column() {
    let (_, lake) = lake();
    let feed = Feed::inferred();
    let mut owner = lake.claim(feed.claim()).await.unwrap();
    let keys = |from: usize, count: usize| -> String {
        let keys: serde_json::Map<_, _> = (from..from + count).map(|n| (format!("k {n}"), json!(n))).collect();
        Value::Object(keys).to_string()
    };
    let records = [keys(0, 10_000), keys(0, COLUMNS_MAX), keys(COLUMNS_MAX - 5, 10)];
    let sealed = feed.epoch(&owner, &records.each_ref().map(String::as_str)).unwrap();
    assert_eq!(sealed.dead_codes, [("too_many_columns".to_owned(), 2)].into());
    owner.commit(&sealed, "results").await.unwrap();
    assert_eq!(names(&owner).len(), COLUMNS_MAX);
}

/// The table's schema as another writer changes it.
async fn rewrite(store: &Arc<InMemory>, version: u64, change: impl Fn(&mut Vec<Value>)) {
    let mut made = metadata(store, version - 1).await;
    let mut schema: Value = serde_json::from_str(made["schemaString"].as_str().unwrap()).unwrap();
    change(schema["fields"].as_array_mut().unwrap());
    made["schemaString"] = schema.to_string().into();
    foreign(store, version, &[json!({"metaData": made})]).await;
}

#[tokio::test]
async fn test_what_foreign_writers_leave_of_a_key_decides_where_it_goes() {
    let (store, lake) = lake();
    let feed = Feed::inferred();
    let mut owner = lake.claim(feed.claim()).await.unwrap();
    owner.commit(&feed.epoch(&owner, &[r#"{"a b":1,"c d":1}"#]).unwrap(), "results").await.unwrap();
    // One column gets another name and keeps our word, the other keeps its name and loses it.
    rewrite(&store, 2, |fields| {
        let mut ours = fields.iter_mut().filter(|field| field["metadata"] != json!({}));
        ours.next().unwrap()["name"] = "renamed".into();
        ours.next().unwrap()["metadata"] = json!({});
    })
    .await;
    let mut owner = lake.claim(feed.claim()).await.unwrap();
    let sealed = feed.epoch(&owner, &[r#"{"a b":2,"c d":2,"c_d":2}"#]).unwrap();
    let committed = owner.commit(&sealed, "results").await.unwrap();
    let of = |name: &str, key: &str| (name.to_owned(), key.to_owned());
    assert_eq!(names(&owner), [of("renamed", "a b"), of("c_d", "c_d"), of("c_d_2", "c d")]);

    // Names that were free when they were chosen are taken when the epoch commits: the next owner chooses others.
    let mut version = committed.version;
    let theirs = |name: &str, of: Value| json!({"name": name, "type": of, "nullable": true, "metadata": {}});
    let inner = [theirs("x", json!("long")), theirs("e_f", json!("long"))];
    for (record, field) in [
        (r#"{"e f":3}"#, theirs("E_F", json!("long"))),
        (r#"{"s":{"x":4,"e f":4}}"#, theirs("s", json!({"type": "struct", "fields": inner}))),
    ] {
        let sealed = feed.epoch(&owner, &[record]).unwrap();
        rewrite(&store, version + 1, |fields| fields.push(field.clone())).await;
        let error = owner.commit(&sealed, "results").await.unwrap_err();
        assert_eq!((error.class, error.code), (LakeErrorClass::Data, "schema_conflict"), "{error}");
        owner = lake.claim(feed.claim()).await.unwrap();
        let again = owner.commit(&feed.epoch(&owner, &[record]).unwrap(), "results").await.unwrap();
        version = again.version;
    }
    assert!(names(&owner).contains(&of("e_f_2", "e f")));
    let (rows, _) = lake.records(&id(), "", 10).await.unwrap();
    assert_eq!((&rows[2]["e_f_2"], &rows[3]["s"]), (&json!(3), &json!({"x": 4, "e_f": null, "e_f_2": 4})));
    assert_eq!(lake.check(None).await.unwrap().problems, []);
}

#[tokio::test]
async fn test_declared_columns_hold_the_keys_that_they_say() {
    let (_, lake) = lake();
    let declared = |columns: &[(&str, &str)]| {
        let column = |(name, key): &(&str, &str)| with_key(Field::new(*name, DataType::Int64, true), key);
        Some(Arc::new(Schema::new(columns.iter().map(column).collect::<Vec<_>>())))
    };
    let mut feed = Feed::inferred();
    feed.growth = Growth::AsDeclared;
    feed.declared = declared(&[("wind", "Wind (m/s)"), ("n", "n")]);
    let mut owner = lake.claim(feed.claim()).await.unwrap();
    let records = [r#"{"Wind (m/s)":1,"wind":2,"n":3}"#, r#"{"Wind (m/s)":"x"}"#];
    let sealed = feed.epoch(&owner, &records).unwrap();
    assert_eq!(sealed.dead_codes, [("type_mismatch".to_owned(), 1)].into());
    owner.commit(&sealed, "results").await.unwrap();
    let (rows, _) = lake.records(&id(), "", 10).await.unwrap();
    assert_eq!((&rows[0]["wind"], &rows[0]["n"]), (&json!(1), &json!(3)));
    // Grown by a record: the name is taken, so the key `wind` goes elsewhere.
    feed.growth = Growth::Add;
    let sealed = feed.epoch(&owner, &[records[0]]).unwrap();
    owner.commit(&sealed, "results").await.unwrap();
    assert_eq!(names(&owner)[2], ("wind_2".to_owned(), "wind".to_owned()));
    // The keys of columns do not change.
    for wrong in [("wind", "wind"), ("speed", "Wind (m/s)"), ("m", "n")] {
        feed.declared = declared(&[wrong]);
        let error = lake.claim(feed.claim()).await.unwrap_err();
        assert_eq!((error.class, error.code), (LakeErrorClass::Config, "schema_conflict"), "{wrong:?}");
    }
    feed.declared = declared(&[("wind_2", "wind"), ("wind", "Wind (m/s)")]);
    lake.claim(feed.claim()).await.unwrap();
}
