//! A supervisor's timers: one ordered list and one alarm task for the earliest of them.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::handle::SupervisorHandle;
use crate::life::Seq;
use crate::message::Msg;

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// A delayed restart.
    Restart(Seq),
    /// A parked child's next attempt.
    Probe(Seq),
    /// A parked child's next attempt, which has the storm limiter's leave.
    PacedProbe(Seq),
    /// A child had this long to drain, to stop, or to be gone after its kill.
    StopStage(Seq),
    /// So had several that are stopped together, until this instant.
    EndStage(Instant),
    /// A start function had this long.
    StartTimeout(Seq),
    /// A child promised a sign of life by now.
    Progress(Seq, u64),
}

/// Names a timer so that it can be cancelled.
pub(crate) type TimerKey = (Instant, u64);

#[derive(Default)]
pub(crate) struct Timers {
    due: BTreeMap<TimerKey, Due>,
    next: u64,
    alarm: Option<(Instant, AbortHandle)>,
}

/// Thirty years: what stands for "never" where an instant cannot hold the sum.
const NEVER: Duration = Duration::from_secs(30 * 365 * 86_400);

/// `now + delay`, or as good as never.
pub(crate) fn later(now: Instant, delay: Duration) -> Instant {
    now.checked_add(delay.min(NEVER)).unwrap_or(now)
}

impl Timers {
    pub(crate) fn add(&mut self, at: Instant, due: Due) -> TimerKey {
        self.next += 1;
        let key = (at, self.next);
        self.due.insert(key, due);
        key
    }

    pub(crate) fn cancel(&mut self, key: TimerKey) {
        self.due.remove(&key);
    }

    /// Takes the earliest timer that is due.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Due> {
        let entry = self.due.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }

    /// Gives the children new numbers.
    pub(crate) fn renumber(&mut self, new: impl Fn(Seq) -> Seq) {
        for due in self.due.values_mut() {
            match due {
                Due::Restart(seq)
                | Due::Probe(seq)
                | Due::PacedProbe(seq)
                | Due::StopStage(seq)
                | Due::StartTimeout(seq)
                | Due::Progress(seq, _) => *seq = new(*seq),
                Due::EndStage(_) => {}
            }
        }
    }

    pub(crate) fn rang(&mut self) {
        self.alarm = None;
    }

    /// Sees to it that an alarm rings no later than the earliest timer.
    pub(crate) fn arm(&mut self, supervisor: &SupervisorHandle) {
        let Some(((first, _), _)) = self.due.first_key_value() else { return };
        let first = *first;
        if let Some((at, task)) = &self.alarm {
            if *at <= first {
                return;
            }
            task.abort();
        }
        let supervisor = supervisor.clone();
        let task = tokio::spawn(async move {
            tokio::time::sleep_until(first).await;
            supervisor.cast(Msg::Tick);
        });
        self.alarm = Some((first, task.abort_handle()));
    }
}

impl Drop for Timers {
    fn drop(&mut self) {
        if let Some((_, task)) = &self.alarm {
            task.abort();
        }
    }
}
