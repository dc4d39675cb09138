//! What went wrong, and what follows from it: error classes, back-off, restart policy, intensity.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::flap::Flapping;

/// The kind of an error, by what can be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// May well pass by itself: a broken connection, a 5xx answer.
    Transient,
    /// The other side asks for fewer requests.
    RateLimited,
    /// The settings are wrong; only a change of them helps.
    Config,
    /// Credentials are missing, wrong or expired.
    Auth,
    /// The input cannot be used.
    Data,
    /// Something of this machine ran out: memory, disk, file handles.
    Resource,
    /// The program is wrong: a panic, a broken invariant.
    Bug,
    /// Another owner took over; this one must not go on.
    Fenced,
    /// No progress was made within the promised time.
    Hung,
}

impl Class {
    /// The name used in logs and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::RateLimited => "rate_limited",
            Self::Config => "config",
            Self::Auth => "auth",
            Self::Data => "data",
            Self::Resource => "resource",
            Self::Bug => "bug",
            Self::Fenced => "fenced",
            Self::Hung => "hung",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a child ended or could not start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// What kind of error it is.
    pub class: Class,
    /// A short, stable, machine-readable name such as `panic` or `http_503`.
    pub code: String,
    /// One sentence for people.
    pub message: String,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.class, self.code, self.message)
    }
}

/// A child's abnormal end, or the failure of its start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Failure {
    /// Why.
    pub reason: Reason,
    /// The earliest that a new attempt makes sense, counted from now; a restart waits at least this long, and a parked
    /// child is tried again no sooner, and then also where nothing is probed.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure without a wish for when to retry.
    pub fn new(class: Class, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason: Reason { class, code: code.into(), message: message.into() }, retry_after: None }
    }

    /// Asks that no restart happens sooner than `delay` from the failure.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Self {
        Self { reason, retry_after: None }
    }
}

/// How long a restart is put off: `min · factor^(n-1)` for the n-th failure in a row, spread by jitter, at most `max`.
#[derive(Clone, Debug, PartialEq)]
pub struct Backoff {
    /// The delay after the first failure.
    pub min: Duration,
    /// The longest delay, jitter included.
    pub max: Duration,
    /// Growth from one failure to the next, at least 1.
    pub factor: f64,
    /// Share of the delay, 0 to 1, by which it is moved up or down at random, so that many children that failed
    /// together do not come back together.
    pub jitter: f64,
    /// Failures count as "in a row" unless this much time passed since the last one and the child was healthy.
    pub reset_after: Duration,
}

impl Default for Backoff {
    /// 200 ms doubling to 30 s, moved by a fifth, forgotten after two healthy minutes.
    fn default() -> Self {
        Self {
            min: Duration::from_millis(200),
            max: Duration::from_secs(30),
            factor: 2.0,
            jitter: 0.2,
            reset_after: Duration::from_secs(120),
        }
    }
}

impl Backoff {
    /// The delay before the restart that follows the `attempt`-th failure in a row (from 1), with `random` in 0..1.
    pub fn delay(&self, attempt: u32, random: f64) -> Duration {
        let exponent = attempt.saturating_sub(1).min(MAX_EXPONENT);
        let grown = self.min.as_secs_f64() * self.factor.max(1.0).powf(f64::from(exponent));
        let capped = grown.min(self.max.as_secs_f64());
        let moved = capped * (1.0 + self.jitter.clamp(0.0, 1.0) * (2.0 * random - 1.0));
        Duration::from_secs_f64(moved.clamp(0.0, self.max.as_secs_f64()))
    }
}

/// Past this many doublings every delay is at its maximum; the bound keeps the power finite.
const MAX_EXPONENT: u32 = 64;

/// What a supervisor does about a child that fails.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RestartPolicy {
    /// Delay between failure and restart; `None` restarts at once, as OTP does.
    pub backoff: Option<Backoff>,
    /// Errors that no restart can heal: the child is parked at once.
    pub park_classes: Vec<Class>,
    /// Restarts in a row without a healthy period between; one more and the limit counts as reached even if the
    /// intensity's window is not full. `None` leaves it to the window.
    pub consecutive_max: Option<u32>,
    /// How often a parked child is tried again; `None` leaves it parked until somebody asks.
    pub probe: Option<Duration>,
    /// When a child counts as flapping, and what follows; `None` only keeps the score.
    pub flapping: Option<Flapping>,
}

impl RestartPolicy {
    /// With this back-off.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = Some(backoff);
        self
    }

    /// Parks the child at once on any of these classes.
    #[must_use]
    pub fn park_on(mut self, classes: impl IntoIterator<Item = Class>) -> Self {
        self.park_classes.extend(classes);
        self
    }

    /// Allows at most this many restarts in a row.
    #[must_use]
    pub fn consecutive_max(mut self, restarts: u32) -> Self {
        self.consecutive_max = Some(restarts);
        self
    }

    /// Says when a child counts as flapping, and what follows.
    #[must_use]
    pub fn flapping(mut self, flapping: Flapping) -> Self {
        self.flapping = Some(flapping);
        self
    }

    /// Tries a parked child again this often.
    #[must_use]
    pub fn probe(mut self, every: Duration) -> Self {
        self.probe = Some(every);
        self
    }
}

/// How many restarts are allowed within a sliding window: more than `max_restarts` within the last `window`, both ends
/// included, and the limit is reached.
///
/// Limits multiply from level to level: ten restarts on each of two levels are a hundred before the upper one gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intensity {
    /// Restarts allowed within the window.
    pub max_restarts: u32,
    /// Length of the window.
    pub window: Duration,
}

impl Default for Intensity {
    /// OTP's: one restart in five seconds.
    fn default() -> Self {
        Self { max_restarts: 1, window: Duration::from_secs(5) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_backoff_grows_is_capped_and_moves_both_ways() {
        let backoff = Backoff { jitter: 0.5, ..Backoff::default() };
        assert_eq!(backoff.delay(1, 0.5), Duration::from_millis(200));
        assert_eq!(backoff.delay(3, 0.5), Duration::from_millis(800));
        assert_eq!(backoff.delay(1, 0.0), Duration::from_millis(100));
        assert_eq!(backoff.delay(1, 1.0), Duration::from_millis(300));
        assert_eq!(backoff.delay(u32::MAX, 1.0), backoff.max);
    }

    #[test]
    fn test_class_serialises_as_its_name() {
        for class in [Class::RateLimited, Class::Bug, Class::Hung, Class::Fenced] {
            assert_eq!(serde_json::to_value(class).unwrap(), class.as_str());
        }
    }
}
