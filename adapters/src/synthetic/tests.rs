use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::source::PACE;
use super::*;
use crate::contract::config::{MapSecrets, Problem, Problems, Table};
use crate::contract::{Batch, Credits, MemoryKeep, Pull, SystemClock, SystemResolve};

fn read(kind: &Synthetic, settings: Value) -> Result<Arc<dyn Mount>, Vec<Problem>> {
    let table = Table::from_json(settings.as_object().expect("an object"));
    let (problems, secrets) = (Problems::default(), MapSecrets::default());
    let reader = Reader::new(&table, "adapter.S", &problems, &secrets);
    let mount = kind.read(&reader);
    reader.finish();
    let problems = problems.into_sorted();
    if problems.is_empty() { Ok(mount.expect("a mount")) } else { Err(problems) }
}

fn mount(settings: Value) -> Arc<dyn Mount> {
    read(&Synthetic::default(), settings).expect("good settings")
}

fn env() -> Env {
    Env {
        clock: Arc::new(SystemClock),
        keep: Arc::new(MemoryKeep::default()),
        resolve: Arc::new(SystemResolve),
        seed: 0,
        scope: "t/s/0".to_owned(),
    }
}

async fn open(mount: &Arc<dyn Mount>, position: Option<&str>) -> Box<dyn Source> {
    let position = position.map(Position::new);
    mount.open(&mount.partitions()[0], position.as_ref(), env()).await.expect("opens")
}

async fn batch(source: &mut Box<dyn Source>, credits: &Credits) -> Batch {
    match source.next(credits).await.expect("no error") {
        Pull::Batch(batch) => batch,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn test_records_are_as_the_interface_says_and_as_long_as_asked() {
    let mount = mount(json!({"seed": 7, "partitions": 2, "total": 20, "bytes": 300}));
    let names: Vec<_> = mount.partitions().into_iter().map(|partition| partition.name).collect();
    assert_eq!(names, ["0", "1"]);
    let mut source = mount.open(&mount.partitions()[1], Some(&Position::new("4")), env()).await.expect("opens");
    let credits = Credits::alone(1 << 20);
    let batch = batch(&mut source, &credits).await;
    assert_eq!((batch.from.as_ref().map(Position::as_str), batch.payloads.len()), (Some("4"), 15));
    let record: Value = serde_json::from_slice(&batch.payloads[0].bytes).expect("JSON");
    assert_eq!((&record["partition"], &record["seq"]), (&json!(1), &json!(5)));
    // printf 0:0:0 | sha256sum
    assert_eq!(record["check"], check(7, 1, 5));
    assert_eq!(check(0, 0, 0), "e8ca2bd51293d64a");
    assert!(batch.payloads.iter().all(|payload| payload.bytes.len() == 300));
    assert_eq!(batch.payloads[0].position.as_ref().map(Position::as_str), Some("5"));
    let rows = mount.decoder().decode(&batch.payloads, None);
    assert_eq!((rows.batch.num_rows(), rows.dead.len(), rows.batch.schema()), (15, 0, schema()));
    let now = batch.payloads[0].received_at_us;
    assert!(rows.event_time_us.iter().all(|at| *at == Some(now - now % 1000)));
    assert!(matches!(source.next(&credits).await, Ok(Pull::End)));
}

#[tokio::test]
async fn test_batches_are_bounded_and_paid_for() {
    let mount = mount(json!({"bytes": 1000}));
    let mut source = open(&mount, None).await;
    let credits = Credits::alone(1 << 20);
    let whole = batch(&mut source, &credits).await;
    assert_eq!(whole.payloads.len(), 262);
    assert_eq!(credits.used_bytes(), whole.bytes().next_multiple_of(1024));
    drop(whole);
    assert_eq!(credits.used_bytes(), 0);
    let poor = batch(&mut source, &Credits::alone(3 * 1024)).await;
    assert_eq!((poor.payloads.len(), poor.from.as_ref().map(Position::as_str)), (3, Some("261")));
}

#[tokio::test(start_paused = true)]
async fn test_the_rate_is_kept_and_a_pause_is_made_up_for_within_bounds() {
    for rate in [0.5, 7.0, 1000.0, 20_000.0] {
        let mount = mount(json!({"rate": rate}));
        let mut source = open(&mount, None).await;
        let credits = Credits::alone(1 << 24);
        let start = Instant::now();
        let mut given = 0;
        let mut last = start;
        while start.elapsed() < Duration::from_secs(10) {
            given += batch(&mut source, &credits).await.payloads.len();
            assert!(last.elapsed() <= PACE.max(Duration::from_secs_f64(1.01 / rate)), "{rate}");
            last = Instant::now();
        }
        let wanted = start.elapsed().as_secs_f64() * rate + 1.0;
        let behind = wanted - given as f64;
        assert!((0.0..=1.0 + rate * PACE.as_secs_f64()).contains(&behind), "{rate}: {given} of {wanted}");

        tokio::time::advance(Duration::from_secs(60)).await;
        let resumed = Instant::now();
        let mut burst = 0;
        while resumed.elapsed() == Duration::ZERO {
            burst += batch(&mut source, &credits).await.payloads.len();
        }
        assert!(burst as f64 <= rate * 1.2 + 2.0, "{rate}: a burst of {burst}");
    }
}

#[tokio::test]
async fn test_the_observer_hears_of_each_batch() {
    let heard: Arc<Mutex<BTreeMap<String, u64>>> = Arc::default();
    let log = Arc::clone(&heard);
    let kind = Synthetic::with_observer(Arc::new(move |partition: &Partition, seq| {
        log.lock().expect("a lock").insert(partition.name.clone(), seq);
    }));
    let mount = read(&kind, json!({"total": 600})).expect("good settings");
    let mut source = open(&mount, None).await;
    let credits = Credits::alone(1 << 20);
    batch(&mut source, &credits).await;
    assert_eq!(heard.lock().expect("a lock").get("0"), Some(&511));
    batch(&mut source, &credits).await;
    assert_eq!(heard.lock().expect("a lock").get("0"), Some(&599));
}

#[tokio::test]
async fn test_foreign_positions_and_partitions_are_refused_by_class() {
    let mount = mount(json!({"total": 3}));
    for text in ["", "x", "-1", "01", "18446744073709551615"] {
        let error =
            mount.open(&mount.partitions()[0], Some(&Position::new(text)), env()).await.err().expect("an error");
        assert_eq!((error.class, error.code.as_str()), (ErrorClass::Data, "invalid_position"), "{text}");
    }
    let other = Partition { name: "1".to_owned(), ..Partition::main() };
    let error = mount.open(&other, None, env()).await.err().expect("an error");
    assert_eq!((error.class, error.code.as_str()), (ErrorClass::Config, "unknown_partition"));
    let mut past_the_end = open(&mount, Some("99")).await;
    assert!(matches!(past_the_end.next(&Credits::alone(1024)).await, Ok(Pull::End)));
}

#[test]
fn test_wrong_settings_are_all_reported() {
    let settings = json!({"seed": -1, "partitions": 0, "total": 0, "rate": 0, "bytes": 63, "tempo": 1});
    let codes: Vec<_> =
        read(&Synthetic::default(), settings).expect_err("problems").into_iter().map(|p| (p.field, p.code)).collect();
    let wanted =
        ["seed", "partitions", "total", "rate", "bytes"].map(|key| (format!("adapter.S.{key}"), "OUT_OF_RANGE"));
    assert_eq!(codes[..5], wanted);
    assert_eq!(codes[5], ("adapter.S.tempo".to_owned(), "UNKNOWN_KEY"));
    assert_eq!(codes.len(), 6);
    assert!(read(&Synthetic::default(), json!({"bytes": "1KiB", "rate": 2})).is_ok());
    assert!(read(&Synthetic::default(), json!({"bytes": "2MiB"})).is_err());
}
