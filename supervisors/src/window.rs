//! Restarts counted in a sliding window, and the warning before its limit.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::policy::Intensity;

/// How much of an intensity's window is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowUse {
    /// Restarts within the window, the one just decided included.
    pub used: u32,
    /// Restarts allowed within it.
    pub limit: u32,
    /// Its length.
    pub window: Duration,
    /// This restart took the count from below half of the limit to half or more: said once each time that happens.
    pub warning: bool,
}

/// The restarts of the last window. Never holds more than `max_restarts + 1` instants.
#[derive(Debug, Default)]
pub(crate) struct Window(VecDeque<Instant>);

impl Window {
    /// Records a restart. Where `used` is above `limit` the limit is exceeded.
    pub(crate) fn record(&mut self, limit: Intensity, now: Instant) -> WindowUse {
        self.forget_old(limit, now);
        let before = self.len();
        self.0.push_back(now);
        let allowed = limit.max_restarts as usize;
        while self.0.len() > allowed.saturating_add(1) {
            self.0.pop_front();
        }
        let used = self.len();
        let warning = half_used(used, limit) && !half_used(before, limit);
        WindowUse { used, limit: limit.max_restarts, window: limit.window, warning }
    }

    fn len(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// Restarts within the window that ends now.
    pub(crate) fn count(&self, limit: Intensity, now: Instant) -> u32 {
        let recent = self.0.iter().rev().take_while(|at| now.duration_since(**at) <= limit.window).count();
        u32::try_from(recent).unwrap_or(u32::MAX)
    }

    fn forget_old(&mut self, limit: Intensity, now: Instant) {
        while self.0.front().is_some_and(|at| now.duration_since(*at) > limit.window) {
            self.0.pop_front();
        }
    }
}

/// Half of the limit or more is used. Nothing is half of a limit of zero: there the first restart is one too many.
pub(crate) fn half_used(used: u32, limit: Intensity) -> bool {
    limit.max_restarts > 0 && u64::from(used) * 2 >= u64::from(limit.max_restarts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn test_window_counts_its_far_end_and_stays_small() {
        let limit = Intensity { max_restarts: 2, window: Duration::from_secs(5) };
        let start = Instant::now();
        let mut window = Window::default();
        assert_eq!(window.record(limit, start).used, 1);
        assert_eq!(window.record(limit, start + Duration::from_secs(1)).used, 2);
        let third = window.record(limit, start + Duration::from_secs(5));
        assert_eq!(third.used, 3, "the instant exactly one window ago still counts");
        let mut later = Window::default();
        later.record(limit, start);
        later.record(limit, start + Duration::from_secs(1));
        assert_eq!(later.record(limit, start + Duration::from_millis(5001)).used, 2);
        for n in 0..1000 {
            later.record(limit, start + Duration::from_secs(6) + Duration::from_millis(n));
        }
        assert_eq!(later.0.len(), 3);
        assert_eq!(later.count(limit, start + Duration::from_secs(60)), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn test_window_warns_once_a_crossing() {
        let start = Instant::now();
        let warned = |limit: u32, seconds: &[u64]| -> Vec<bool> {
            let limit = Intensity { max_restarts: limit, window: Duration::from_secs(10) };
            let mut window = Window::default();
            seconds.iter().map(|at| window.record(limit, start + Duration::from_secs(*at)).warning).collect()
        };
        assert_eq!(warned(4, &[0, 1, 2, 3, 30, 31, 32]), [false, true, false, false, false, true, false]);
        assert_eq!(warned(5, &[0, 1, 2]), [false, false, true]);
        assert_eq!(warned(1, &[0, 5]), [true, false]);
        assert_eq!(warned(0, &[0, 5]), [false, false]);
        assert_eq!(warned(u32::MAX, &[0, 1]), [false, false]);
    }
}
