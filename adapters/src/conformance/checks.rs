//! The checks beside cancellation.

use std::collections::BTreeSet;

use super::Subject;
use super::drive::{Reading, healthy, read, read_anew, read_from};
use crate::contract::{Cadence, ErrorClass, Position, Pull, Replay, SourceError};

/// So many positions to resume from are tried, evenly spread.
const RESUMES_MAX: usize = 64;
/// A position that no kind makes.
const FOREIGN_POSITION: &str = "\u{1}no position of any kind\u{1}";

/// Two readings must be the same. The messages show places and counts, no payloads.
pub(super) fn same(subject: &Subject, wanted: &[Vec<u8>], got: &[Vec<u8>], when: &str) {
    // Readings of an endless source end with the batch that fills them, so their ends may differ.
    let both = wanted.len().min(got.len());
    if let Some(at) = (0..both).find(|&at| wanted[at] != got[at]) {
        let later = wanted[at..].contains(&got[at]);
        let says = if later { "records before it are missing" } else { "it was given before, or is another" };
        panic!("{when}: must give the same records, but record {at} differs: {says}");
    }
    let endless = both >= subject.records_max;
    let (wanted, got) = (wanted.len(), got.len());
    assert!(endless || wanted == got, "{when}: must give {wanted} records, but gives {got}");
}

/// Partitions are there and their names are unique; a polled cadence makes sense.
///
/// # Panics
/// Where not.
pub fn names_its_partitions(subject: &Subject) {
    let partitions = subject.mount.partitions();
    let names: BTreeSet<_> = partitions.iter().map(|partition| &partition.name).collect();
    assert!(!partitions.is_empty(), "a mount must have at least one partition");
    assert!(names.len() == partitions.len(), "the names of partitions must be unique");
    assert!(names.iter().all(|name| !name.is_empty()), "a partition must have a name");
    if let Cadence::Polled { interval, timeout, .. } = subject.mount.cadence() {
        assert!(!interval.is_zero() && !timeout.is_zero(), "interval and timeout must be greater than nothing");
    }
}

/// A position that the kind did not make is refused with class `data`.
///
/// # Panics
/// Where it is taken, or refused as something else.
pub async fn refuses_foreign_positions(subject: &Subject) {
    let position = Position::new(FOREIGN_POSITION);
    match subject.mount.open(&subject.partition, Some(&position), subject.env.clone()).await {
        Ok(_) => panic!("a foreign position must be refused, but the source opens at it"),
        Err(error) => {
            let class = error.class;
            assert!(class == ErrorClass::Data, "a foreign position must be refused as data, but is as {class:?}");
        }
    }
}

/// Batches join without gaps and are paid for, credits return, acknowledging can be repeated, and the end is the end.
///
/// # Panics
/// With what does not hold.
pub async fn batches_join(subject: &Subject) {
    subject.reset_now();
    let credits = subject.credits();
    let mut reading = Reading::default();
    let mut source = subject.open(None).await;
    let last = read(subject, source.as_mut(), &credits, &mut reading).await;
    assert!(!reading.items.is_empty(), "a healthy source must give something to check");
    if let Pull::Batch(batch) = &last {
        assert!(credits.used_bytes() >= batch.hold.bytes(), "credits must stay in use while a batch lives");
    }
    if let Some(at) = &reading.at {
        for round in 1..=2 {
            let told = source.acknowledge(at).await;
            assert!(told.is_ok(), "acknowledging a position must succeed, but round {round} gives {told:?}");
        }
    }
    match last {
        Pull::End => {
            let after = healthy(source.next(&credits).await);
            assert!(matches!(after, Pull::End), "after End must come End");
        }
        Pull::Idle => {
            let after = healthy(source.next(&credits).await);
            assert!(!matches!(after, Pull::End), "an idle source is not at its end");
        }
        Pull::Batch(batch) => drop(batch),
    }
    assert!(
        credits.used_bytes() == 0,
        "credits must return with the batches, but {} bytes do not",
        credits.used_bytes()
    );
}

/// Opened at every position that it gave, a replayable source gives exactly what came after it; a current-value
/// source gives nothing again.
///
/// # Panics
/// Where something is lost or doubled.
pub async fn resumes(subject: &Subject) {
    let whole = read_anew(subject).await;
    let again = read_anew(subject).await;
    same(subject, &whole.items, &again.items, "read from the beginning a second time");
    let step = whole.marks.len().div_ceil(RESUMES_MAX).max(1);
    for (position, before) in whole.marks.iter().step_by(step).chain(whole.marks.last()) {
        let when = format!("opened again after {before} records");
        match subject.mount.replay() {
            Replay::Replayable => {
                let mut joined = Reading::default();
                joined.items.extend_from_slice(&whole.items[..*before]);
                joined.items.extend(read_from(subject, Some(position.clone())).await.items);
                same(subject, &whole.items, &joined.items, &when);
            }
            Replay::CurrentValue => {
                let rest = read_from(subject, Some(position.clone())).await;
                // Only at the last position it is certain that nothing newer is current.
                if *before == whole.items.len() {
                    assert!(rest.items.is_empty(), "{when}: an unchanged value must not be given again");
                }
            }
            Replay::Pushed => {}
        }
    }
}

/// Neither payloads' `meta` nor any `Debug` shows a secret; `Debug` shows no payload either.
///
/// # Panics
/// Where a canary is seen.
pub async fn tells_no_secret(subject: &Subject) {
    subject.no_canary("the mount's Debug", &format!("{:?}", subject.mount));
    subject.reset_now();
    let credits = subject.credits();
    let mut source = subject.open(None).await;
    let mut reading = Reading::default();
    while let Pull::Batch(batch) = healthy(source.next(&credits).await) {
        reading.take(subject, &batch);
        subject.no_canary("a batch's Debug", &format!("{batch:?}"));
        for payload in &batch.payloads {
            for (key, value) in &payload.meta {
                subject.no_canary("a payload's meta", key);
                subject.no_canary("a payload's meta", value);
            }
            if let Some(dead) = &payload.dead {
                subject.no_canary("a dead letter's message", &dead.message);
            }
        }
        if reading.full(subject) {
            break;
        }
    }
}

/// The decoder gives the mount's columns, one place for each row, and the same each time.
///
/// # Panics
/// Where not.
pub async fn decodes_as_declared(subject: &Subject) {
    subject.reset_now();
    let credits = subject.credits();
    let mut source = subject.open(None).await;
    let Pull::Batch(batch) = healthy(source.next(&credits).await) else {
        panic!("a healthy source must give something to decode")
    };
    let payloads: Vec<_> = batch.payloads.iter().filter(|payload| payload.dead.is_none()).cloned().collect();
    let decoder = subject.mount.decoder();
    let declared = subject.mount.schema();
    let rows = decoder.decode(&payloads, declared.as_ref());
    if let Some(schema) = &declared {
        assert!(rows.batch.schema() == *schema, "rows must have exactly the declared columns");
    }
    let count = rows.batch.num_rows();
    assert!(rows.payload.len() == count && rows.event_time_us.len() == count, "each row must have its place and time");
    let places = rows.payload.iter().chain(rows.dead.iter().map(|dead| &dead.payload));
    let inside = places.copied().all(|place| (place as usize) < payloads.len());
    assert!(inside, "rows and dead letters must point to payloads that were given");
    for dead in &rows.dead {
        subject.no_canary("a dead letter's message", &dead.message);
    }
    let known = rows.batch.schema();
    let again = decoder.decode(&payloads, Some(&known));
    assert!(again.batch == rows.batch && again.dead == rows.dead, "decoding again must give the same rows");
}

/// An error that a kind's test provoked has the class and the code that it must have, and tells nothing.
///
/// # Panics
/// Where not; `case` names what was provoked.
pub fn error_is(subject: &Subject, case: &str, error: &SourceError, class: ErrorClass, code: &str) {
    let got = (error.class, error.code.as_str());
    assert!(got == (class, code), "{case}: must be {:?}, but is {got:?}: {}", (class, code), error.message);
    let snake = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    assert!(error.code.chars().all(snake), "{case}: a code is written in snake case");
    let one_line = !error.message.is_empty() && !error.message.contains('\n');
    assert!(one_line, "{case}: the message must be one sentence");
    subject.no_canary(&format!("{case}: an error"), &format!("{error} {error:?}"));
    if error.retry_after.is_some() {
        assert!(matches!(class, ErrorClass::RateLimited | ErrorClass::Transient), "{case}: only a wait has an end");
    }
}
