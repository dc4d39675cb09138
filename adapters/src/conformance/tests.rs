//! The suite against a source that keeps every promise, and against one that breaks each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;

use super::*;
use crate::contract::config::{MapSecrets, Problems, Reader, Table};
use crate::contract::{Batch, Cadence, DeadRecord, Decode, Hold, Kind, Pull, Replay, Rows};
use crate::json::{JsonDecoder, JsonSpec};
use crate::synthetic::Synthetic;

const SECRET: &str = "CANARY-of-the-settings";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    CurrentValue,
    /// The position moves before an await.
    LosesWhenCancelled,
    /// A record is made before the await and again after it.
    DoublesWhenCancelled,
    SkipsWhenReopened,
    RepeatsWhenReopened,
    GivesOther,
    Gap,
    UnpaidBatch,
    KeepsCredits,
    GoesOnAfterEnd,
    EndsAfterIdle,
    MovesNothing,
    RepeatsCurrentValue,
    TakesForeignPosition,
    WrongClassOfPosition,
    SameNames,
    SecretInMeta,
    SecretInDebug,
    FailsToAcknowledge,
    OtherColumns,
    RowsWithoutPlace,
    Fails,
    Empty,
}

const ITEMS: usize = 10;
const BATCH: usize = 3;

#[derive(Clone)]
struct VecMount(Flaw);

impl fmt::Debug for VecMount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0 == Flaw::SecretInDebug { SECRET } else { "VecMount" })
    }
}

impl VecMount {
    fn current_value(&self) -> bool {
        matches!(self.0, Flaw::CurrentValue | Flaw::RepeatsCurrentValue | Flaw::EndsAfterIdle)
    }
}

fn columns(name: &str) -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new(name, DataType::Int64, true)]))
}

#[async_trait]
impl Mount for VecMount {
    fn replay(&self) -> Replay {
        if self.current_value() { Replay::CurrentValue } else { Replay::Replayable }
    }

    fn cadence(&self) -> Cadence {
        Cadence::Continuous
    }

    fn partitions(&self) -> Vec<Partition> {
        vec![Partition::main(); if self.0 == Flaw::SameNames { 2 } else { 1 }]
    }

    fn schema(&self) -> Option<SchemaRef> {
        Some(columns("n"))
    }

    fn decoder(&self) -> Arc<dyn Decode> {
        match self.0 {
            Flaw::OtherColumns => {
                Arc::new(JsonDecoder::new(JsonSpec { schema: Some(columns("m")), ..JsonSpec::default() }))
            }
            Flaw::RowsWithoutPlace => Arc::new(Misplacing),
            _ => Arc::new(JsonDecoder::new(JsonSpec { schema: Some(columns("n")), ..JsonSpec::default() })),
        }
    }

    async fn open(&self, _: &Partition, position: Option<&Position>, _: Env) -> Result<Box<dyn Source>, SourceError> {
        let at = match position.map(|position| position.as_str().parse::<usize>()) {
            None => 0,
            Some(Ok(at)) => at,
            Some(Err(_)) if self.0 == Flaw::TakesForeignPosition => 0,
            Some(Err(_)) => {
                let class = if self.0 == Flaw::WrongClassOfPosition { ErrorClass::Bug } else { ErrorClass::Data };
                return Err(SourceError::new(class, "invalid_position", "the position is no number"));
            }
        };
        let at = match self.0 {
            Flaw::SkipsWhenReopened if at > 0 => at + 1,
            Flaw::RepeatsWhenReopened if at > 0 => at - 1,
            Flaw::RepeatsCurrentValue => 0,
            _ => at,
        };
        let items = if self.0 == Flaw::Empty { 0 } else { ITEMS };
        let (from, reopened) = (position.cloned(), position.is_some());
        Ok(Box::new(VecSource {
            reopened,
            mount: self.clone(),
            items,
            at,
            from,
            made: 0,
            kept: Hold::default(),
            idle: false,
        }))
    }
}

struct VecSource {
    mount: VecMount,
    items: usize,
    at: usize,
    from: Option<Position>,
    made: usize,
    kept: Hold,
    idle: bool,
    reopened: bool,
}

impl VecSource {
    fn payload(&self, at: usize) -> Payload {
        let other = if self.mount.0 == Flaw::GivesOther { usize::from(self.reopened) * 100 } else { 0 };
        let mut meta = BTreeMap::new();
        if self.mount.0 == Flaw::SecretInMeta {
            meta.insert("authorization".to_owned(), format!("Bearer {SECRET}"));
        }
        let bytes = format!("{{\"n\":{}}}", at + other).into();
        Payload { position: None, received_at_us: 0, meta, bytes, dead: None }
    }

    fn nothing_more(&mut self) -> Pull {
        let flaw = self.mount.0;
        if std::mem::replace(&mut self.idle, true) {
            match flaw {
                Flaw::EndsAfterIdle => return Pull::End,
                Flaw::GoesOnAfterEnd => return Pull::Idle,
                _ => {}
            }
        }
        if self.mount.current_value() { Pull::Idle } else { Pull::End }
    }
}

#[async_trait]
impl Source for VecSource {
    async fn next(&mut self, credits: &Credits) -> Result<Pull, SourceError> {
        let flaw = self.mount.0;
        if flaw == Flaw::Fails {
            return Err(SourceError::new(ErrorClass::Transient, "http_500", "the source failed"));
        }
        if self.at >= self.items {
            return Ok(self.nothing_more());
        }
        let count = BATCH.min(self.items - self.at);
        let first = self.at;
        if flaw == Flaw::LosesWhenCancelled {
            self.at += count;
        }
        tokio::task::yield_now().await;
        if flaw == Flaw::DoublesWhenCancelled {
            self.made += 1;
        }
        let mut hold = credits.reserve(BATCH * 1024).await;
        tokio::task::yield_now().await;
        match flaw {
            Flaw::UnpaidBatch => drop(std::mem::take(&mut hold)),
            Flaw::KeepsCredits => self.kept.merge(credits.reserve(1024).await),
            _ => {}
        }
        let doubled = std::mem::take(&mut self.made) > 1;
        let mut payloads: Vec<_> = (first..first + count).map(|at| self.payload(at)).collect();
        if doubled {
            payloads.push(payloads[0].clone());
        }
        self.at = first + count;
        let to = match flaw {
            Flaw::MovesNothing => self.from.clone(),
            Flaw::RepeatsCurrentValue if self.reopened => Some(Position::new((self.at + 100).to_string())),
            _ => Some(Position::new(self.at.to_string())),
        };
        let from = if flaw == Flaw::Gap { None } else { self.from.clone() };
        self.from.clone_from(&to);
        Ok(Pull::Batch(Batch { from, to, payloads, hold }))
    }

    async fn acknowledge(&mut self, _: &Position) -> Result<(), SourceError> {
        if self.mount.0 == Flaw::FailsToAcknowledge {
            return Err(SourceError::new(ErrorClass::Bug, "told_twice", "the position was told before"));
        }
        Ok(())
    }
}

/// Gives a dead letter that points nowhere.
struct Misplacing;

impl Decode for Misplacing {
    fn decode(&self, payloads: &[Payload], known: Option<&SchemaRef>) -> Rows {
        let good = JsonDecoder::new(JsonSpec { schema: Some(columns("n")), ..JsonSpec::default() });
        let mut rows = good.decode(payloads, known);
        rows.dead.push(DeadRecord { payload: 1000, code: "not_json", message: "it is none".to_owned(), bytes: None });
        rows
    }
}

fn subject(flaw: Flaw) -> Subject {
    Subject::new(Arc::new(VecMount(flaw))).canaries([SECRET])
}

/// What the suite says of a flawed source.
async fn verdict(flaw: Flaw) -> String {
    let run = tokio::time::timeout(Duration::from_secs(600), async move { all(&subject(flaw)).await });
    let Err(error) = tokio::spawn(run).await else { return format!("{flaw:?} passes the suite") };
    let panic = error.into_panic();
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn test_a_source_that_keeps_its_promises_passes() {
    all(&subject(Flaw::None)).await;
    all(&subject(Flaw::CurrentValue)).await;
}

#[tokio::test(start_paused = true)]
async fn test_each_broken_promise_is_caught_by_its_check() {
    let wanted = [
        (Flaw::LosesWhenCancelled, "a pull dropped at its await 1, then GoOn: must give the same records"),
        (Flaw::DoublesWhenCancelled, "it was given before, or is another"),
        (Flaw::SkipsWhenReopened, "records before it are missing"),
        (Flaw::RepeatsWhenReopened, "it was given before, or is another"),
        (Flaw::GivesOther, "must give the same records"),
        (Flaw::Gap, "batches must join without gap"),
        (Flaw::UnpaidBatch, "must be paid for"),
        (Flaw::KeepsCredits, "credits must return"),
        (Flaw::GoesOnAfterEnd, "after End must come End"),
        (Flaw::EndsAfterIdle, "an idle source is not at its end"),
        (Flaw::MovesNothing, "a batch that moves no position may hold dead letters alone"),
        (Flaw::RepeatsCurrentValue, "an unchanged value must not be given again"),
        (Flaw::TakesForeignPosition, "a foreign position must be refused, but"),
        (Flaw::WrongClassOfPosition, "a foreign position must be refused as data"),
        (Flaw::SameNames, "names of partitions must be unique"),
        (Flaw::SecretInMeta, "a payload's meta must not show a secret"),
        (Flaw::SecretInDebug, "the mount's Debug must not show a secret"),
        (Flaw::FailsToAcknowledge, "acknowledging a position must succeed"),
        (Flaw::OtherColumns, "exactly the declared columns"),
        (Flaw::RowsWithoutPlace, "must point to payloads that were given"),
        (Flaw::Fails, "a healthy source must give no error"),
        (Flaw::Empty, "must give something to check"),
    ];
    for (flaw, says) in wanted {
        let verdict = verdict(flaw).await;
        assert!(verdict.contains(says), "{flaw:?}: {verdict}");
        assert!(!verdict.contains(SECRET), "{flaw:?} shows the secret");
    }
}

#[test]
fn test_an_error_is_judged_by_class_code_and_silence() {
    let subject = subject(Flaw::None);
    let good = SourceError::new(ErrorClass::RateLimited, "http_429", "asks for patience").after(Duration::from_secs(1));
    error_is(&subject, "good", &good, ErrorClass::RateLimited, "http_429");
    let bad = [
        SourceError::new(ErrorClass::Transient, "http_429", "the wrong class"),
        SourceError::new(ErrorClass::RateLimited, "http_500", "the wrong code"),
        SourceError::new(ErrorClass::RateLimited, "http_429", format!("a secret: {SECRET}")),
        SourceError::new(ErrorClass::RateLimited, "http_429", ""),
    ];
    for error in bad {
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            error_is(&subject, "bad", &error, ErrorClass::RateLimited, "http_429");
        }));
        assert!(caught.is_err(), "{error:?}");
    }
}

fn synthetic(settings: serde_json::Value) -> Subject {
    let table = Table::from_json(settings.as_object().expect("an object"));
    let (problems, secrets) = (Problems::default(), MapSecrets::default());
    let mount = Synthetic::default().read(&Reader::new(&table, "adapter.S", &problems, &secrets)).expect("a mount");
    Subject::new(mount).payload_positions().normalise(|payload| {
        let mut record: serde_json::Value = serde_json::from_slice(&payload.bytes).expect("JSON");
        record.as_object_mut().expect("an object").remove("ts");
        record.to_string().into_bytes()
    })
}

#[tokio::test(start_paused = true)]
async fn test_the_synthetic_kind_conforms() {
    all(&synthetic(serde_json::json!({"seed": 3, "total": 90}))).await;
    all(&synthetic(serde_json::json!({"partitions": 4})).pool_bytes(4096)).await;
    all(&synthetic(serde_json::json!({"rate": 50, "total": 60}))).await;
}

#[tokio::test]
async fn test_the_synthetic_kinds_errors_have_their_classes() {
    let subject = synthetic(serde_json::json!({}));
    let other = Partition { name: "1".to_owned(), ..Partition::main() };
    let error = expect_error("unknown partition", subject.mount.open(&other, None, subject.env.clone()).await);
    error_is(&subject, "unknown partition", &error, ErrorClass::Config, "unknown_partition");
    let foreign = Position::new("x");
    let opened = subject.mount.open(&subject.partition, Some(&foreign), subject.env.clone()).await;
    error_is(&subject, "position", &expect_error("position", opened), ErrorClass::Data, "invalid_position");
}
