//! The storm limiter: restarts of a whole tree, one after another.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::check::SpecError;

/// How fast the restarts of a whole tree may follow one another: a bucket of `burst` tokens that fills by `per_second`.
///
/// Each restart takes one token, a group restart one for the whole group (it is one restart for the intensity too), a
/// nested supervisor one for all that it starts, a parked child's probe one. First starts and what somebody asks for
/// take none. A restart that finds no token is given the next free place in time, and places are given in the order of
/// asking: what failed first is restarted first, whatever its supervisor; one with a back-off asks when that is over.
/// A restart that is called off leaves its place empty, and nobody moves up: the pace is never exceeded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pacing {
    /// Restarts that may happen at once; at least 1.
    pub burst: u32,
    /// Restarts per second beyond that; more than 0.
    pub per_second: f64,
}

/// The bucket, as the time at which it would be full again.
pub(crate) struct Pacer {
    epoch: Instant,
    /// Nanoseconds that one token takes to fill.
    interval: u64,
    /// Nanoseconds of tokens that the bucket holds beyond the first.
    slack: u64,
    /// Nanoseconds since `epoch` at which the bucket would be full.
    full_at: AtomicU64,
}

impl Pacer {
    /// # Errors
    /// If the numbers make no sense.
    pub(crate) fn new(pacing: Pacing, epoch: Instant) -> Result<Self, SpecError> {
        let interval = Duration::try_from_secs_f64(pacing.per_second.recip()).ok().map(|one| one.as_nanos());
        let interval = interval.and_then(|nanos| u64::try_from(nanos).ok()).filter(|nanos| *nanos > 0);
        match interval {
            Some(interval) if pacing.burst > 0 => {
                let slack = interval.saturating_mul(u64::from(pacing.burst - 1));
                Ok(Self { epoch, interval, slack, full_at: AtomicU64::new(0) })
            }
            _ => Err(SpecError::InvalidPacing),
        }
    }

    /// Takes a token and says how long to wait before using it. One atomic operation, however many wait.
    pub(crate) fn take(&self, now: Instant) -> Duration {
        let now = u64::try_from(now.duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX);
        let after = |full: u64| full.max(now).saturating_add(self.interval);
        let update = self.full_at.fetch_update(Ordering::AcqRel, Ordering::Acquire, |full| Some(after(full)));
        let full = update.unwrap_or_else(|full| full);
        Duration::from_nanos(full.saturating_sub(self.slack).saturating_sub(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn test_bucket_gives_a_burst_then_a_steady_rate_and_fills_up_again() {
        let start = Instant::now();
        let pacer = Pacer::new(Pacing { burst: 3, per_second: 10.0 }, start).unwrap();
        let waits =
            |at: Instant, count: usize| -> Vec<u128> { (0..count).map(|_| pacer.take(at).as_millis()).collect() };
        assert_eq!(waits(start, 6), [0, 0, 0, 100, 200, 300]);
        assert_eq!(waits(start + Duration::from_millis(350), 1), [50], "the next place is still behind the others");
        assert_eq!(waits(start + Duration::from_secs(100), 4), [0, 0, 0, 100], "never more than the burst is saved up");
    }

    #[tokio::test(start_paused = true)]
    async fn test_bucket_without_tokens_or_rate_is_refused() {
        for (burst, per_second) in [(0, 1.0), (1, 0.0), (1, -1.0), (1, f64::NAN), (1, f64::INFINITY), (1, 1e-300)] {
            let made = Pacer::new(Pacing { burst, per_second }, Instant::now());
            assert!(matches!(made, Err(SpecError::InvalidPacing)), "{burst} {per_second}");
        }
    }
}
