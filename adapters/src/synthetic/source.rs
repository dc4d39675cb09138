//! One partition, paced.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use tokio::time::Instant;

use super::SyntheticMount;
use super::record::{FIELDS_BYTES_MAX, push, timestamp};
use crate::contract::{Batch, Clock, Credits, Hold, Partition, Payload, Position, Pull, Source, SourceError};

/// Records in one batch: enough that hand-over costs nothing beside making them.
const BATCH_RECORDS_MAX: u64 = 512;
/// Bytes in one batch, so that large records do not make large batches; one record may be longer.
const BATCH_BYTES_MAX: usize = 256 * 1024;
/// With a rate, what is due is handed over this often: nobody waits longer, and fast rates still make batches.
pub(super) const PACE: Duration = Duration::from_millis(100);
/// With a rate, a source that was held up makes up for this much and lets the rest of the pause go.
const CATCH_UP: Duration = Duration::from_secs(1);

pub(super) struct SyntheticSource {
    mount: SyntheticMount,
    partition: Partition,
    number: u64,
    next: u64,
    clock: Arc<dyn Clock>,
    pace: Option<Pace>,
}

impl SyntheticSource {
    pub(super) fn new(
        mount: SyntheticMount,
        partition: Partition,
        number: u64,
        next: u64,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let pace = mount.rate.map(Pace::new);
        Self { mount, partition, number, next, clock, pace }
    }

    /// How long a record can be.
    fn record_bytes_max(&self) -> usize {
        self.mount.bytes.max(FIELDS_BYTES_MAX)
    }

    /// Makes up to `count` records that `hold` pays for, at least one.
    fn make(&mut self, count: u64, mut hold: Hold) -> Batch {
        let now_us = self.clock.now_us();
        let ts = timestamp(now_us);
        let record_bytes = self.record_bytes_max();
        let paid = usize::try_from(count).unwrap_or(1).min(hold.bytes() / record_bytes).max(1);
        let mut buffer = BytesMut::with_capacity(paid * record_bytes);
        let from = self.next.checked_sub(1).map(position);
        let mut payloads = Vec::with_capacity(paid);
        for seq in (self.next..).take(paid) {
            push(&mut buffer, self.mount.seed, self.number, seq, &ts, self.mount.bytes);
            payloads.push(Payload {
                position: Some(position(seq)),
                received_at_us: now_us,
                meta: BTreeMap::new(),
                bytes: buffer.split().freeze(),
                dead: None,
            });
        }
        self.next += payloads.len() as u64;
        if let Some(pace) = &mut self.pace {
            pace.given(payloads.len() as u64);
        }
        let batch = Batch { from, to: self.next.checked_sub(1).map(position), payloads, hold: Hold::default() };
        hold.shrink_to(batch.bytes());
        Batch { hold, ..batch }
    }
}

fn position(seq: u64) -> Position {
    Position::new(seq.to_string())
}

#[async_trait]
impl Source for SyntheticSource {
    async fn next(&mut self, credits: &Credits) -> Result<Pull, SourceError> {
        let left = self.mount.total.saturating_sub(self.next);
        if left == 0 {
            return Ok(Pull::End);
        }
        let fitting = (BATCH_BYTES_MAX / self.record_bytes_max()).max(1) as u64;
        let most = left.min(BATCH_RECORDS_MAX).min(fitting);
        let count = match &mut self.pace {
            Some(pace) => pace.due(most).await,
            None => most,
        };
        let wanted = usize::try_from(count).unwrap_or(1) * self.record_bytes_max();
        let hold = credits.reserve(wanted).await;
        // No await from here on: the batch is made and handed over in one step.
        let batch = self.make(count, hold);
        if let Some(observer) = &self.mount.observer {
            observer(&self.partition, self.next - 1);
        }
        Ok(Pull::Batch(batch))
    }
}

/// When records are due.
struct Pace {
    rate: f64,
    /// When the record 0 of `given` was due; set by the first pull.
    start: Option<Instant>,
    /// Records given since `start`.
    given: u64,
    /// The last hand-over.
    last: Option<Instant>,
}

impl Pace {
    fn new(rate: f64) -> Self {
        Self { rate, start: None, given: 0, last: None }
    }

    /// Waits until records are due and says how many, at most `most`.
    async fn due(&mut self, most: u64) -> u64 {
        let start = *self.start.get_or_insert_with(Instant::now);
        if self.count(start) < most {
            let next = start + Duration::from_secs_f64(self.given as f64 / self.rate);
            tokio::time::sleep_until(self.last.map_or(next, |last| next.max(last + PACE))).await;
        }
        let catch_up = (self.rate * CATCH_UP.as_secs_f64()).max(1.0) as u64;
        if self.count(start) > catch_up {
            let due = Duration::from_secs_f64((catch_up - 1) as f64 / self.rate);
            self.start = Some(Instant::now() - due);
            self.given = 0;
            return catch_up.min(most);
        }
        self.count(start).clamp(1, most)
    }

    /// How many are due now.
    fn count(&self, start: Instant) -> u64 {
        ((start.elapsed().as_secs_f64() * self.rate) as u64 + 1).saturating_sub(self.given)
    }

    fn given(&mut self, count: u64) {
        self.given += count;
        self.last = Some(Instant::now());
    }
}
