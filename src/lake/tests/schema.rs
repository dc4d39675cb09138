//! Tables whose columns grow: within structs, wider, by day. What they say is read by another reader.

use std::collections::BTreeMap;

use adapters::json::{Growth, JsonDecoder, JsonSpec, SCHEMA_CHANGE};

use super::*;
use crate::pipeline::Refused;
use crate::settings::{DateOf, Generated};

/// A stream of JSON records.
pub(super) struct Feed {
    pub(super) growth: Growth,
    pub(super) declared: Option<SchemaRef>,
    generated: Vec<Generated>,
    partition_by: Vec<String>,
    park: bool,
}

impl Feed {
    pub(super) fn inferred() -> Self {
        Self { growth: Growth::Add, declared: None, generated: Vec::new(), partition_by: Vec::new(), park: false }
    }

    pub(super) fn claim(&self) -> Claim {
        let dates = self.generated.iter().map(|date| Arc::new(Field::new(&date.column, DataType::Date32, true)));
        let own = self.declared.iter().flat_map(|schema| schema.fields().iter().cloned());
        let all: Vec<_> = own.chain(dates).collect();
        let schema = (!all.is_empty()).then(|| Arc::new(Schema::new(all)));
        Claim { schema, partition_by: self.partition_by.clone(), ..claim_with(None) }
    }

    /// An epoch of `records`, or why its batch is refused.
    pub(super) fn epoch(&self, owner: &Owner, records: &[&str]) -> Result<Sealed, Refused> {
        let spec = JsonSpec {
            schema: self.declared.clone(),
            growth: self.growth,
            event_time: Some("at".to_owned()),
            ..JsonSpec::default()
        };
        let mut builder = EpochBuilder::new(BuilderSpec {
            id: id(),
            adapter: "TEST".to_owned(),
            epoch: owner.checkpoint().epoch + 1,
            generation: owner.generation(),
            schema: owner.schema(),
            decoder: Arc::new(JsonDecoder::new(spec)),
            partition_by: self.partition_by.clone(),
            raw_kept: true,
            generated: self.generated.clone(),
            on_bad_record: OnBadRecord::DeadLetter,
            park_on_schema_change: self.park,
            started_at_us: NOON_US,
        });
        let from = stands_at(owner.checkpoint(), "a");
        let payloads = (from + 1..).zip(records).map(|(n, text)| payload(&n.to_string(), (*text).to_owned()));
        let to = from + records.len() as u64;
        let payloads = payloads.collect();
        let position = |n: u64| Position::new(n.to_string());
        let from = (from > 0).then(|| position(from));
        builder.push("a", Batch { from, to: Some(position(to)), payloads, hold: Hold::default() })?;
        Ok(builder.seal(NOON_US))
    }
}

/// The columns as another reader of Delta sees them.
pub(super) async fn columns(store: &Arc<InMemory>) -> Vec<String> {
    let address = crate::lake::snapshot::address("tables/acme/berlin").unwrap();
    let table = deltalake::DeltaTableBuilder::from_url(address.clone()).unwrap();
    let table =
        Box::pin(table.with_storage_backend(Arc::clone(store) as Arc<dyn ObjectStore>, address).load()).await.unwrap();
    let schema = table.snapshot().unwrap().schema();
    let own = schema.fields().filter(|field| !crate::pipeline::LF_COLUMNS.contains(&field.name().as_str()));
    own.map(|field| format!("{} {}", field.name(), field.data_type())).collect()
}

async fn values(lake: &Lake, name: &str) -> Vec<Value> {
    let (rows, _) = lake.records(&id(), "", 100).await.unwrap();
    rows.iter().map(|row| row[name].clone()).collect()
}

#[tokio::test]
async fn test_structs_grow_and_narrow_columns_widen_in_the_commit_that_needs_it() {
    let (store, lake) = lake();
    let mut feed = Feed::inferred();
    let narrow = vec![Field::new("n", DataType::Int32, true), Field::new("f", DataType::Float32, true)];
    feed.declared = Some(Arc::new(Schema::new(narrow)));
    let mut owner = lake.claim(feed.claim()).await.unwrap();
    let first = feed.epoch(&owner, &[r#"{"n":1,"f":0.5,"s":{"x":1}}"#]).unwrap();
    owner.commit(&first, "results").await.unwrap();
    assert_eq!(columns(&store).await, ["n integer", "f float", "s struct<x: long>"]);

    let texts = [r#"{"n":3000000000,"s":{"x":2,"y":["z"]}}"#, r#"{"n":2,"s":{"x":"no"}}"#, r#"{"n":3}"#];
    let second = feed.epoch(&owner, &texts).unwrap();
    let committed = owner.commit(&second, "results").await.unwrap();
    assert_eq!((committed.version, second.dead), (2, 1));
    let wide = ["n long", "f float", "s struct<x: long, y: array<string>>"];
    assert_eq!(columns(&store).await, wide);

    // The way through a checkpoint of the log, and an operator who declares the wider type.
    lake.checkpoint_log(&id()).await.unwrap();
    let wider = vec![Field::new("n", DataType::Int64, true), Field::new("f", DataType::Float64, true)];
    feed.declared = Some(Arc::new(Schema::new(wider)));
    let mut owner = lake.claim(feed.claim()).await.unwrap();
    let third = feed.epoch(&owner, &[r#"{"n":4,"f":0.1}"#]).unwrap();
    owner.commit(&third, "results").await.unwrap();
    assert_eq!(columns(&store).await[1], "f double");
    assert_eq!(values(&lake, "n").await, [1, 3_000_000_000_u64, 3, 4].map(Value::from));
    assert_eq!(values(&lake, "f").await, [Value::from(0.5), Value::Null, Value::Null, Value::from(0.1)]);
    assert_eq!(lake.check(None).await.unwrap().problems, []);

    // A narrower declaration asks for nothing; one that would lose something is refused.
    feed.declared = Some(Arc::new(Schema::new(vec![Field::new("n", DataType::Int16, true)])));
    assert!(lake.claim(feed.claim()).await.is_ok());
    feed.declared = Some(Arc::new(Schema::new(vec![Field::new("n", DataType::Utf8, true)])));
    assert_eq!(lake.claim(feed.claim()).await.unwrap_err().code, "schema_conflict");
}

#[tokio::test]
async fn test_columns_that_must_not_grow_send_records_to_dead_letters_or_park() {
    let (store, lake) = lake();
    let mut feed = Feed { growth: Growth::Refuse, ..Feed::inferred() };
    let mut owner = lake.claim(feed.claim()).await.unwrap();
    owner.commit(&feed.epoch(&owner, &[r#"{"a":1}"#]).unwrap(), "results").await.unwrap();
    let second = feed.epoch(&owner, &[r#"{"a":2,"b":1}"#, r#"{"a":3}"#]).unwrap();
    owner.commit(&second, "results").await.unwrap();
    assert_eq!(columns(&store).await, ["a long"]);
    assert_eq!(second.dead_codes, [(SCHEMA_CHANGE.to_owned(), 1)].into());
    assert_eq!(values(&lake, "a").await, [1, 3].map(Value::from));
    feed.park = true;
    assert_eq!(feed.epoch(&owner, &[r#"{"a":4}"#, r#"{"a":5,"b":1}"#]).unwrap_err().code, SCHEMA_CHANGE);
    let junk = feed.epoch(&owner, &[r#"{"a":"x"}"#]).unwrap();
    assert_eq!(junk.dead_codes, [("type_mismatch".to_owned(), 1)].into());
}

#[tokio::test]
async fn test_a_table_is_partitioned_by_the_day_of_the_event() {
    let (store, lake) = lake();
    let date = |column: &str, of| Generated { column: column.to_owned(), of };
    let mut feed = Feed::inferred();
    feed.generated = vec![date("day", DateOf::EventTime), date("arrived", DateOf::ReceivedAt)];
    feed.partition_by = vec!["day".to_owned()];
    let mut owner = lake.claim(feed.claim()).await.unwrap();
    assert_eq!(columns(&store).await, ["day date", "arrived date"]);
    let texts = [
        r#"{"at":"2026-03-01T23:59:59Z"}"#,
        r#"{"at":"2026-03-02T00:00:00+00:00"}"#,
        r#"{"at":"2026-03-02T01:00:00+02:00"}"#,
        r#"{"x":1}"#,
        r#"{"at":"2026-03-02T12:00:00Z","day":"mine"}"#,
    ];
    let sealed = feed.epoch(&owner, &texts).unwrap();
    let folders: BTreeMap<_, _> = sealed.files.iter().map(|f| (f.path.split('/').next().unwrap(), f.rows)).collect();
    assert_eq!(folders, [("day=2026-03-01", 2), ("day=2026-03-02", 2), ("day=__HIVE_DEFAULT_PARTITION__", 1)].into());
    assert_eq!(sealed.dead, 0);
    owner.commit(&sealed, "results").await.unwrap();
    let days = values(&lake, "arrived").await;
    assert_eq!(days, vec![Value::from("2024-05-01"); 5]);
    assert!(values(&lake, "day_2").await.contains(&Value::from("mine")));
    assert_eq!(lake.check(None).await.unwrap().problems, []);
    // A second epoch knows the columns that the first one brought, and computes the same way.
    let second = feed.epoch(&owner, &[r#"{"at":"2026-03-03T00:00:00Z","x":2}"#]).unwrap();
    assert_eq!(second.files[0].partition_values["day"].as_deref(), Some("2026-03-03"));
    owner.commit(&second, "results").await.unwrap();
}
