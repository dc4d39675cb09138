//! Reading a source the way the runtime does, checking what must hold of every batch.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::Subject;
use crate::contract::{Batch, Credits, Position, Pull, Source, SourceError};

/// A source that gives this many batches without a payload is taken for one that makes no progress.
const EMPTY_BATCHES_MAX: usize = 1000;

/// What one reading gave.
#[derive(Default)]
pub(super) struct Reading {
    /// Normalised payloads in order.
    pub(super) items: Vec<Vec<u8>>,
    /// Positions to resume from, each with how many items come before.
    pub(super) marks: Vec<(Position, usize)>,
    /// The last position that a batch moved to.
    pub(super) at: Option<Position>,
    empty: usize,
}

impl Reading {
    pub(super) fn starting_at(position: Option<Position>) -> Self {
        Self { at: position, ..Self::default() }
    }

    /// Takes a batch over, as a committer would, and checks what holds of each.
    pub(super) fn take(&mut self, subject: &Subject, batch: &Batch) {
        assert_eq!(
            batch.from, self.at,
            "batches must join without gap: a batch begins at {:?} and the one before ended at {:?}",
            batch.from, self.at
        );
        let moves = batch.to.is_some() && batch.to != batch.from;
        let owed = batch.bytes().min(subject.pool_bytes);
        assert!(
            batch.hold.bytes() >= owed,
            "a batch of {} bytes must be paid for, but it holds credits for {}",
            batch.bytes(),
            batch.hold.bytes()
        );
        if !moves {
            let all_dead = batch.payloads.iter().all(|payload| payload.dead.is_some());
            assert!(all_dead, "a batch that moves no position may hold dead letters alone: it would be given again");
        }
        self.empty = if batch.payloads.is_empty() { self.empty + 1 } else { 0 };
        assert!(self.empty < EMPTY_BATCHES_MAX, "{EMPTY_BATCHES_MAX} batches without a payload are no progress");
        for payload in &batch.payloads {
            self.items.push((subject.normalise)(payload));
            if let Some(position) = payload.position.clone().filter(|_| subject.payload_positions) {
                self.marks.push((position, self.items.len()));
            }
        }
        if moves {
            self.at.clone_from(&batch.to);
            self.marks.extend(batch.to.clone().map(|to| (to, self.items.len())));
        }
    }

    pub(super) fn full(&self, subject: &Subject) -> bool {
        self.items.len() >= subject.records_max
    }
}

/// A pull of a healthy source.
pub(super) fn healthy(result: Result<Pull, SourceError>) -> Pull {
    match result {
        Ok(pull) => pull,
        Err(error) => panic!("a healthy source must give no error, but: {error}"),
    }
}

/// Reads until the source has nothing more or enough was seen. The last pull says which.
pub(super) async fn read(subject: &Subject, source: &mut dyn Source, credits: &Credits, into: &mut Reading) -> Pull {
    loop {
        match healthy(source.next(credits).await) {
            Pull::Batch(batch) => {
                into.take(subject, &batch);
                if into.full(subject) {
                    return Pull::Batch(batch);
                }
            }
            done => return done,
        }
    }
}

/// Everything after `position`, in one go.
pub(super) async fn read_from(subject: &Subject, position: Option<Position>) -> Reading {
    let mut reading = Reading::starting_at(position.clone());
    let mut source = subject.open(position.as_ref()).await;
    read(subject, source.as_mut(), &subject.credits(), &mut reading).await;
    reading
}

/// Everything from the beginning, after a reset.
pub(super) async fn read_anew(subject: &Subject) -> Reading {
    subject.reset_now();
    read_from(subject, None).await
}

/// Gives up, and drops what it polls, when that was pending for the `left`th time.
pub(super) struct Pendings<F> {
    inner: Pin<Box<F>>,
    left: usize,
}

impl<F> Pendings<F> {
    pub(super) fn new(inner: F, left: usize) -> Self {
        Self { inner: Box::pin(inner), left }
    }
}

impl<F: Future> Future for Pendings<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.inner.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => {
                self.left = self.left.saturating_sub(1);
                if self.left == 0 { Poll::Ready(None) } else { Poll::Pending }
            }
        }
    }
}
