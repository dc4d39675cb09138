//! When a worker polls.

use std::time::Duration;

use adapters::contract::Cadence;
use tokio::time::Instant;

use crate::settings::Job;

/// First polls of many partitions follow each other at this distance (less, where the interval is too short for it):
/// one is at once, ten thousand are no storm.
const FIRST_POLL_SPACING: Duration = Duration::from_millis(5);

/// The delay of the first poll of the partition at `index` of `count`.
pub(in crate::streams) fn first_poll_delay(job: &Job, index: usize, count: usize) -> Duration {
    let Cadence::Polled { interval, .. } = job.mount.cadence() else { return Duration::ZERO };
    let count = u32::try_from(count.max(1)).unwrap_or(u32::MAX);
    FIRST_POLL_SPACING.min(interval / count) * u32::try_from(index).unwrap_or(u32::MAX)
}

/// The first beat of the grid `last + k × interval` that is not before `now`: beats that a long workload ran over are
/// skipped, never caught up.
pub(super) fn next_beat(last: Instant, interval: Duration, now: Instant) -> Instant {
    let next = last + interval;
    if next >= now {
        return next;
    }
    let behind = (now - last).as_nanos();
    let beats = behind.div_ceil(interval.as_nanos().max(1));
    last + interval * u32::try_from(beats).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn test_next_beat_skips_and_never_catches_up() {
        let start = Instant::now();
        let interval = Duration::from_secs(10);
        let at = |s: u64| start + Duration::from_secs(s);
        assert_eq!(next_beat(start, interval, at(1)), at(10));
        assert_eq!(next_beat(start, interval, at(10)), at(10));
        assert_eq!(next_beat(start, interval, at(11)), at(20));
        assert_eq!(next_beat(start, interval, at(35)), at(40));
    }
}
