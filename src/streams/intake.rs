//! Where workers hand over to the committer: the one place that knows how far each partition was taken over.
//!
//! A worker that is restarted goes on behind what its predecessor had handed over, committed or not, and whatever an
//! older incarnation still delivers is refused. A new committer comes with a new intake, made from its claim.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adapters::contract::{Batch, Position};
use thiserror::Error;
use tokio::sync::{Notify, mpsc};

use crate::faults;
use crate::settings::Job;

/// Batches that may wait for the committer. Their bytes are paid for with credits; this bounds their number.
const DELIVERIES_MAX: usize = 256;

/// A batch on its way into an epoch.
#[derive(Debug)]
pub struct Delivery {
    /// Its partition.
    pub partition: String,
    /// The worker's incarnation.
    pub incarnation: u64,
    /// The job under which it was read, which also decodes it.
    pub job: Arc<Job>,
    /// What was read.
    pub batch: Batch,
}

/// Why a batch was not taken over.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IntakeError {
    /// The committer is gone; a new intake will come.
    #[error("the committer is gone")]
    Closed,
    /// A newer incarnation works on the partition.
    #[error("a newer incarnation of the worker has taken over")]
    Superseded,
    /// The batch does not start where the last one ended.
    #[error("the batch starts at {from:?}, but the partition stands at {expected:?}")]
    Gap {
        /// Where the batch starts.
        from: Option<Position>,
        /// Where it should start.
        expected: Option<Position>,
    },
    /// A record of an earlier batch was refused under `on_bad_record = "park"`.
    #[error("{message}")]
    Refused {
        /// The decoder's code.
        code: &'static str,
        /// The decoder's message.
        message: String,
    },
}

#[derive(Debug, Default)]
struct Slot {
    incarnation: u64,
    accepted: Option<Position>,
    committed: Option<Position>,
    /// The newest event time that this intake has seen committed, µs.
    newest_event_us: Option<i64>,
    /// Payload bytes taken over and not yet committed.
    queue_bytes: u64,
    refused: Option<IntakeError>,
    /// What incarnations up to this one delivered and the committer has not yet seen does not count.
    refused_upto: u64,
    changed: Arc<Notify>,
}

/// How far a partition has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// What was taken over, committed or not.
    pub accepted: Option<Position>,
    /// What is committed.
    pub committed: Option<Position>,
    /// The newest event time that was committed since the committer started, µs.
    pub newest_event_us: Option<i64>,
    /// Payload bytes between the two positions.
    pub queue_bytes: u64,
}

/// What a worker starts with.
#[derive(Debug, Clone)]
pub struct Ticket {
    /// Where to open the source.
    pub position: Option<Position>,
    /// Rings when something was committed or refused.
    pub changed: Arc<Notify>,
}

/// The workers' side of the committer.
#[derive(Debug)]
pub struct Intake {
    /// The epoch that the claim found.
    pub epoch: u64,
    slots: Mutex<HashMap<String, Slot>>,
    sender: mpsc::Sender<Delivery>,
}

impl Intake {
    /// An intake that stands at `positions` as of `epoch`, and the committer's end of it.
    #[must_use]
    pub fn new(
        epoch: u64,
        positions: impl IntoIterator<Item = (String, Position)>,
    ) -> (Self, mpsc::Receiver<Delivery>) {
        let (sender, receiver) = mpsc::channel(DELIVERIES_MAX);
        let slots = positions.into_iter().map(|(partition, position)| {
            (partition, Slot { committed: Some(position.clone()), accepted: Some(position), ..Slot::default() })
        });
        (Self { epoch, slots: Mutex::new(slots.collect()), sender }, receiver)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker takes over `partition`; older incarnations are refused from now on.
    pub fn register(&self, partition: &str, incarnation: u64) -> Ticket {
        let mut slots = self.lock();
        let slot = slots.entry(partition.to_owned()).or_default();
        slot.incarnation = incarnation;
        slot.refused = None;
        let position = if faults::bug("resume_from_zero") { None } else { slot.accepted.clone() };
        Ticket { position, changed: Arc::clone(&slot.changed) }
    }

    /// How far `partition` has come.
    #[must_use]
    pub fn standing(&self, partition: &str) -> Standing {
        let slots = self.lock();
        let Some(slot) = slots.get(partition) else { return Standing::default() };
        Standing {
            accepted: slot.accepted.clone(),
            committed: slot.committed.clone(),
            newest_event_us: slot.newest_event_us,
            queue_bytes: slot.queue_bytes,
        }
    }

    /// Hands a batch over, waiting for a place. Once it returns `Ok` the batch is the committer's; dropping the future
    /// drops the batch, and the partition still stands where it stood.
    ///
    /// # Errors
    /// See [`IntakeError`]; the batch is dropped then.
    pub async fn deliver(&self, delivery: Delivery) -> Result<(), IntakeError> {
        let place = self.sender.reserve().await.map_err(|_| IntakeError::Closed)?;
        let mut slots = self.lock();
        let slot = slots.entry(delivery.partition.clone()).or_default();
        if slot.incarnation != delivery.incarnation && !faults::bug("unfenced_worker") {
            return Err(self.late(&delivery));
        }
        if let Some(refused) = &slot.refused {
            return Err(refused.clone());
        }
        let joins = delivery.batch.from == slot.accepted;
        if !joins && !faults::bug("resume_from_zero") && !faults::bug("unfenced_worker") {
            return Err(IntakeError::Gap { from: delivery.batch.from, expected: slot.accepted.clone() });
        }
        if let Some(to) = &delivery.batch.to {
            slot.accepted = Some(to.clone());
        }
        slot.queue_bytes += delivery.batch.bytes() as u64;
        place.send(delivery);
        Ok(())
    }

    /// Refuses what a life that does not count any more hands over. It is said in the log, because only a life that
    /// could not be ended in time comes here, and somebody waits to hear that it did no harm.
    pub fn late(&self, delivery: &Delivery) -> IntakeError {
        let Delivery { partition, incarnation, batch, .. } = delivery;
        let records = batch.payloads.len();
        tracing::warn!(partition, incarnation, records, code = "late_hand_over", "refused; a successor has taken over");
        IntakeError::Superseded
    }

    /// The committer refuses what `incarnation` delivered from `from` on.
    pub fn refuse(&self, partition: &str, from: Option<Position>, code: &'static str, message: String) {
        let mut slots = self.lock();
        let Some(slot) = slots.get_mut(partition) else { return };
        slot.accepted = from;
        slot.queue_bytes = 0;
        slot.refused = Some(IntakeError::Refused { code, message });
        slot.refused_upto = slot.incarnation;
        slot.changed.notify_one();
    }

    /// Whether deliveries of `incarnation` still count.
    #[must_use]
    pub fn is_wanted(&self, partition: &str, incarnation: u64) -> bool {
        self.lock().get(partition).is_some_and(|slot| incarnation > slot.refused_upto)
    }

    /// Why this partition was refused, if it was.
    #[must_use]
    pub fn refusal(&self, partition: &str) -> Option<IntakeError> {
        self.lock().get(partition).and_then(|slot| slot.refused.clone())
    }

    /// These positions are committed and cached: their sources may be told.
    pub fn committed<'p>(&self, positions: impl IntoIterator<Item = (&'p str, &'p str)>) {
        let mut slots = self.lock();
        for (partition, position) in positions {
            if let Some(slot) = slots.get_mut(partition) {
                slot.committed = Some(Position::new(position));
                slot.changed.notify_one();
            }
        }
    }

    /// An epoch with so many `bytes` of this partition is committed, the newest of which happened at `newest_event_us`.
    pub fn settled(&self, partition: &str, bytes: u64, newest_event_us: Option<i64>) {
        if let Some(slot) = self.lock().get_mut(partition) {
            slot.queue_bytes = slot.queue_bytes.saturating_sub(bytes);
            slot.newest_event_us = slot.newest_event_us.max(newest_event_us);
        }
    }

    /// The committed position of `partition`.
    #[must_use]
    pub fn acknowledged(&self, partition: &str) -> Option<Position> {
        self.lock().get(partition).and_then(|slot| slot.committed.clone())
    }

    /// Whether the committer behind it is gone.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Completes when the committer is gone.
    pub async fn closed(&self) {
        self.sender.closed().await;
    }
}

#[cfg(test)]
mod tests {
    use adapters::contract::Hold;

    use super::*;

    fn batch(from: Option<&str>, to: &str) -> Batch {
        Batch { from: from.map(Position::new), to: Some(Position::new(to)), payloads: vec![], hold: Hold::default() }
    }

    fn delivery(incarnation: u64, batch: Batch) -> Delivery {
        Delivery { partition: "0".to_owned(), incarnation, job: crate::streams::testing::job(), batch }
    }

    #[tokio::test]
    async fn test_a_restarted_worker_goes_on_behind_its_predecessor() {
        let (intake, _deliveries) = Intake::new(3, [("0".to_owned(), Position::new("4"))]);
        assert_eq!(intake.register("0", 1).position, Some(Position::new("4")));
        intake.deliver(delivery(1, batch(Some("4"), "9"))).await.expect("taken");
        assert_eq!(intake.register("0", 2).position, Some(Position::new("9")));
        let late = intake.deliver(delivery(1, batch(Some("9"), "12"))).await;
        assert_eq!(late, Err(IntakeError::Superseded));
        let gap = intake.deliver(delivery(2, batch(Some("8"), "12"))).await;
        assert!(matches!(gap, Err(IntakeError::Gap { .. })));
    }

    #[tokio::test]
    async fn test_a_refused_partition_stands_before_the_refused_batch() {
        let (intake, _deliveries) = Intake::new(0, []);
        intake.register("0", 1);
        intake.deliver(delivery(1, batch(None, "5"))).await.expect("taken");
        intake.refuse("0", None, "type_mismatch", "x is text".to_owned());
        assert!(!intake.is_wanted("0", 1));
        assert!(matches!(intake.deliver(delivery(1, batch(Some("5"), "6"))).await, Err(IntakeError::Refused { .. })));
        assert_eq!(intake.register("0", 2).position, None);
        assert!(intake.is_wanted("0", 2));
        assert!(!intake.is_wanted("0", 1), "what the refused incarnation left in the queue does not count");
    }
}
