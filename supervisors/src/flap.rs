//! The flap score: how often a child has been restarted lately.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

/// A restart counts half as much after this time. An hour is long enough that a child which fails every few minutes
/// stands out although each of its lives looks fine, and short enough that yesterday is forgotten.
pub const FLAP_HALF_LIFE: Duration = Duration::from_secs(3_600);

/// When a child counts as flapping, and what follows.
///
/// The score is restarts per hour, decayed: each restart weighs 1 when it is decided and half as much after every
/// [`FLAP_HALF_LIFE`]; the score is the sum of the weights times `ln 2` per half-life in hours. A child that is restarted
/// at a steady rate comes to a score of that rate; a single restart gives 0.69.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flapping {
    /// A score of this or more makes a child flapping.
    pub above: f64,
    /// A score below this ends it; at most `above`.
    pub below: f64,
    /// While it flaps the back-off's delay is multiplied by this, also beyond its maximum; at least 1. Without a
    /// back-off there is nothing to stretch.
    pub stretch: f64,
}

impl Default for Flapping {
    /// From 6 restarts an hour until there are fewer than 2, four times the back-off.
    fn default() -> Self {
        Self { above: 6.0, below: 2.0, stretch: 4.0 }
    }
}

impl Flapping {
    pub(crate) fn is_sound(&self) -> bool {
        self.above.is_finite()
            && self.below > 0.0
            && self.below <= self.above
            && self.stretch.is_finite()
            && self.stretch >= 1.0
    }
}

/// A child's flap score at a restart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FlapUse {
    /// The score, this restart included; see [`Flapping`].
    pub score: f64,
    /// It counts as flapping.
    pub flapping: bool,
    /// It counts as flapping since this restart: the one event to raise an alarm on.
    pub alert: bool,
}

/// The decayed count of a child's restarts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FlapScore {
    weight: f64,
    at: Option<Instant>,
    flapping: bool,
}

impl FlapScore {
    fn weight(&self, now: Instant) -> f64 {
        let Some(at) = self.at else { return 0.0 };
        self.weight * (-now.duration_since(at).as_secs_f64() / FLAP_HALF_LIFE.as_secs_f64()).exp2()
    }

    /// Restarts per hour.
    pub(crate) fn score(&self, now: Instant) -> f64 {
        self.weight(now) * std::f64::consts::LN_2 * 3_600.0 / FLAP_HALF_LIFE.as_secs_f64()
    }

    pub(crate) fn is_flapping(&self, policy: Option<&Flapping>, now: Instant) -> bool {
        self.flapping && policy.is_some_and(|policy| self.score(now) >= policy.below)
    }

    /// Counts a restart.
    pub(crate) fn restarted(&mut self, policy: Option<&Flapping>, now: Instant) -> FlapUse {
        let before = self.is_flapping(policy, now);
        self.weight = self.weight(now) + 1.0;
        self.at = Some(now);
        let score = self.score(now);
        self.flapping = before || policy.is_some_and(|policy| score >= policy.above);
        FlapUse { score, flapping: self.flapping, alert: self.flapping && !before }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn test_score_of_a_steady_rate_is_that_rate() {
        let (start, mut score) = (Instant::now(), FlapScore::default());
        for minute in 0..60 * 24 {
            if minute % 5 == 0 {
                score.restarted(None, start + Duration::from_secs(60 * minute));
            }
        }
        let end = start + Duration::from_secs(60 * 60 * 24);
        assert!((score.score(end) - 12.0).abs() < 0.5, "{}", score.score(end));
        let later = score.score(end + FLAP_HALF_LIFE);
        assert!((later * 2.0 - score.score(end)).abs() < 1e-9);
        assert_eq!(FlapScore::default().score(end), 0.0);
    }

    #[tokio::test(start_paused = true)]
    async fn test_flapping_alerts_once_and_ends_lower_than_it_began() {
        let (start, mut score) = (Instant::now(), FlapScore::default());
        let policy = Flapping { above: 2.0, below: 1.0, stretch: 2.0 };
        let seen: Vec<_> = (0..5).map(|_| score.restarted(Some(&policy), start)).collect();
        let alerts: Vec<_> = seen.iter().map(|seen| (seen.flapping, seen.alert)).collect();
        assert_eq!(alerts, [(false, false), (false, false), (true, true), (true, false), (true, false)]);
        assert!(
            score.is_flapping(Some(&policy), start + FLAP_HALF_LIFE),
            "1.7 is below the first, not the second mark"
        );
        let calm = start + FLAP_HALF_LIFE * 2;
        assert!(!score.is_flapping(Some(&policy), calm));
        assert!(!score.restarted(Some(&policy), calm).flapping, "1.6 does not begin it again");
        assert!(score.restarted(Some(&policy), calm).alert);
    }
}
