//! Dropping the future of `next` at every await.

use std::time::Duration;

use super::Subject;
use super::checks::same;
use super::drive::{Pendings, Reading, healthy, read_anew};
use crate::contract::{Credits, Pull, Replay, Source};

/// How often a pull may be pending before it is taken to be cancelled everywhere: no source of ours waits more often
/// within one pull of a test.
const AWAITS_MAX: usize = 200;
/// How long an unpaid pull is given to come to the point where it must wait.
const STARVED_WAIT: Duration = Duration::from_millis(100);
/// So many pulls are tried without credits.
const STARVED_PULLS: usize = 3;

/// What is done after a pull was dropped.
#[derive(Debug, Clone, Copy)]
enum After {
    /// `next` again on the same source.
    GoOn,
    /// The source is opened again at the last position.
    Reopen,
}

/// The future of `next` is dropped at its first, second, … await, again and again until none is left; going on and
/// opening anew both give what an undisturbed reading gives, and no credit is lost.
///
/// # Panics
/// Where something is lost, doubled or not paid back.
pub async fn cancellation_loses_nothing(subject: &Subject) {
    let whole = read_anew(subject).await;
    for after in [After::GoOn, After::Reopen] {
        if subject.mount.replay() == Replay::Pushed && matches!(after, After::Reopen) {
            continue;
        }
        for awaits in 1..=AWAITS_MAX {
            let (reading, cancelled) = read_cancelling(subject, awaits, after).await;
            same(
                subject,
                &whole.items,
                &reading.items,
                &format!("a pull dropped at its await {awaits}, then {after:?}"),
            );
            if cancelled == 0 {
                break;
            }
        }
        let reading = read_starved(subject, after).await;
        same(
            subject,
            &whole.items,
            &reading.items,
            &format!("a pull dropped while it waits for credits, then {after:?}"),
        );
    }
}

async fn again(subject: &Subject, after: After, source: Box<dyn Source>, reading: &Reading) -> Box<dyn Source> {
    match after {
        After::GoOn => source,
        After::Reopen => {
            drop(source);
            subject.open(reading.at.as_ref()).await
        }
    }
}

fn all_returned(credits: &Credits, when: &str) {
    let used = credits.used_bytes();
    assert!(used == 0, "credits must return when {when}, but {used} bytes stay in use");
}

/// Before each pull that is let through, one is dropped at its await `awaits`.
async fn read_cancelling(subject: &Subject, awaits: usize, after: After) -> (Reading, usize) {
    subject.reset_now();
    let credits = subject.credits();
    let (mut reading, mut cancelled) = (Reading::default(), 0);
    let mut source = subject.open(None).await;
    while !reading.full(subject) {
        let mut pull = Pendings::new(source.next(&credits), awaits).await;
        if pull.is_none() {
            cancelled += 1;
            all_returned(&credits, "a pull is dropped");
            source = again(subject, after, source, &reading).await;
            pull = Some(source.next(&credits).await);
        }
        match pull.map(healthy) {
            Some(Pull::Batch(batch)) => reading.take(subject, &batch),
            _ => break,
        }
    }
    drop(source);
    all_returned(&credits, "the source is dropped");
    (reading, cancelled)
}

/// The first pulls find no credits, and are dropped while they wait for some.
async fn read_starved(subject: &Subject, after: After) -> Reading {
    subject.reset_now();
    let credits = subject.credits();
    let mut reading = Reading::default();
    let mut source = subject.open(None).await;
    for _ in 0..STARVED_PULLS {
        let all = credits.reserve(subject.pool_bytes).await;
        let pull = tokio::time::timeout(STARVED_WAIT, source.next(&credits)).await;
        drop(all);
        match pull.map(healthy) {
            Ok(Pull::Batch(batch)) => reading.take(subject, &batch),
            Ok(Pull::Idle | Pull::End) => return reading,
            Err(_) => {
                all_returned(&credits, "a pull is dropped");
                source = again(subject, after, source, &reading).await;
            }
        }
        if reading.full(subject) {
            return reading;
        }
    }
    super::drive::read(subject, source.as_mut(), &credits, &mut reading).await;
    reading
}
