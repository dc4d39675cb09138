//! Waits that a source asked for: kept across workloads and restarts, measured monotonically within a process.

use std::sync::PoisonError;
use std::time::Duration;

use chrono::{DateTime, NaiveDateTime};
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use serde::{Deserialize, Serialize};

use super::budget::{Budgets, KEYS_MAX, micros};
use crate::contract::Env;

/// No source is left alone for longer, whatever it asks for: a day is beyond every known quota but the monthly one,
/// which asks again.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// An expired key is doubted for this long after a rate limit: throttled keys have been called expired.
const SUSPECT_WINDOW: Duration = Duration::from_secs(3600);

/// The last wait of one source.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wait {
    until_us: i64,
    /// When it was asked for.
    since_us: i64,
    /// The doubt was used up.
    excused: bool,
}

/// A wait as it is kept: µs of the wall clock.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    until_us: i64,
    since_us: i64,
    excused: bool,
}

fn keep_key(key: &str) -> String {
    format!("http/wait/{key}")
}

impl Budgets {
    /// Leaves the source `key` alone for `wait`, at most [`RETRY_AFTER_MAX`]. A shorter wait never replaces a longer.
    pub(crate) fn hold_off(&self, key: &str, wait: Duration, env: &Env) {
        let wait = wait.min(RETRY_AFTER_MAX);
        let (now, wall) = (self.now_us(), env.clock.now_us());
        let before = self.recall(key, env);
        let until = (now + micros(wait)).max(before.map_or(i64::MIN, |b| b.until_us));
        let excused = before.is_some_and(|b| b.excused && now - b.since_us < micros(SUSPECT_WINDOW));
        self.remember(key, Wait { until_us: until, since_us: now, excused }, wall, env);
    }

    /// How long the source `key` still is to be left alone.
    pub(crate) fn held(&self, key: &str, env: &Env) -> Option<Duration> {
        let left = self.recall(key, env)?.until_us - self.now_us();
        u64::try_from(left).ok().filter(|left| *left > 0).map(Duration::from_micros)
    }

    /// Whether a refused key may be a throttled one: there was a rate limit shortly before, and this was not asked
    /// since.
    pub(crate) fn excuse(&self, key: &str, env: &Env) -> bool {
        let Some(wait) = self.recall(key, env) else { return false };
        let recent = self.now_us() - wait.since_us < micros(SUSPECT_WINDOW);
        if recent && !wait.excused {
            self.remember(key, Wait { excused: true, ..wait }, env.clock.now_us(), env);
            return true;
        }
        false
    }

    fn remember(&self, key: &str, wait: Wait, wall: i64, env: &Env) {
        let now = self.now_us();
        let kept = Kept {
            until_us: wall + (wait.until_us - now),
            since_us: wall + (wait.since_us - now),
            excused: wait.excused,
        };
        if let Ok(bytes) = serde_json::to_vec(&kept) {
            env.keep.put(&keep_key(key), &bytes);
        }
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        if waits.len() >= KEYS_MAX {
            waits.retain(|_, wait| wait.until_us > now);
        }
        waits.insert(key.to_owned(), wait);
    }

    fn recall(&self, key: &str, env: &Env) -> Option<Wait> {
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wait) = waits.get(key) {
            return Some(*wait);
        }
        let bytes = env.keep.get(&keep_key(key))?;
        let kept: Kept = serde_json::from_slice(&bytes).ok()?;
        let (now, wall) = (self.now_us(), env.clock.now_us());
        // Where the wall clock was set back, the wait that was asked for is the longest that can be left.
        let asked = (kept.until_us - kept.since_us).clamp(0, micros(RETRY_AFTER_MAX));
        let left = (kept.until_us - wall).min(asked);
        let wait = Wait { until_us: now + left, since_us: now - (wall - kept.since_us).max(0), excused: kept.excused };
        waits.insert(key.to_owned(), wait);
        Some(wait)
    }
}

/// Retry-After in seconds or as an HTTP date.
///
/// A date is judged by the machine's clock and by the response's own Date; where one of the two clocks is wrong, the
/// shorter wait that is still one counts.
pub(crate) fn retry_after(headers: &HeaderMap, wall_us: i64) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        let seconds = text.parse::<u64>().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
    }
    let target = http_date(text)?;
    let served = headers.get(DATE).and_then(|date| http_date(date.to_str().ok()?));
    let waits = [Some(wall_us), served].into_iter().flatten().map(|from| target - from);
    let shortest = waits.filter(|wait| *wait > 0).min().unwrap_or(0);
    Some(Duration::from_micros(u64::try_from(shortest).unwrap_or(0)).min(RETRY_AFTER_MAX))
}

/// µs of an HTTP date in any of its three forms.
fn http_date(text: &str) -> Option<i64> {
    if let Ok(date) = DateTime::parse_from_rfc2822(text) {
        return Some(date.timestamp_micros());
    }
    ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"]
        .iter()
        .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())
        .map(|date| date.and_utc().timestamp_micros())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::testing::{FixedClock, env_with};
    use super::*;
    use crate::contract::{Clock, Keep, MemoryKeep};

    fn headers(retry: &str, date: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, retry.parse().expect("a header"));
        if let Some(date) = date {
            headers.insert(DATE, date.parse().expect("a header"));
        }
        headers
    }

    const NOV_1994: i64 = 784_111_777_000_000; // Sun, 06 Nov 1994 08:49:37 GMT

    #[test]
    fn test_retry_after_is_read_in_both_forms() {
        let seconds = |text, wall, date| retry_after(&headers(text, date), wall).map(|wait| wait.as_secs());
        assert_eq!(seconds("120", 0, None), Some(120));
        assert_eq!(seconds("0", 0, None), Some(0));
        assert_eq!(seconds("99999999999999999999999", 0, None), Some(86_400));
        for form in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(seconds(form, NOV_1994 - 30_000_000, None), Some(30), "{form}");
        }
        let (target, served) = ("Sun, 06 Nov 1994 08:49:37 GMT", Some("Sun, 06 Nov 1994 08:49:00 GMT"));
        assert_eq!(seconds(target, NOV_1994 + 3_600_000_000, served), Some(37), "our clock is ahead");
        assert_eq!(seconds(target, NOV_1994 - 3_600_000_000, served), Some(37), "our clock is behind");
        assert_eq!(seconds(target, NOV_1994 + 1, None), Some(0));
        for junk in ["", "-1", "soon", "1.5"] {
            assert_eq!(seconds(junk, 0, None), None, "{junk}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn test_a_wait_survives_a_restart_and_a_clock_jump() {
        let keep: Arc<dyn Keep> = Arc::new(MemoryKeep::default());
        let clock = Arc::new(FixedClock::at(5_000_000_000));
        let env = env_with(keep, Arc::clone(&clock) as Arc<dyn Clock>);
        let first = Budgets::new();
        first.hold_off("a", Duration::from_secs(100), &env);
        first.hold_off("a", Duration::from_secs(10), &env);
        assert_eq!(first.held("a", &env), Some(Duration::from_secs(100)));
        assert_eq!(first.held("b", &env), None);
        clock.set(5_000_000_000 + 40_000_000);
        assert_eq!(Budgets::new().held("a", &env), Some(Duration::from_secs(60)));
        clock.set(0);
        assert_eq!(Budgets::new().held("a", &env), Some(Duration::from_secs(100)), "never longer than asked");
        clock.set(9_000_000_000);
        assert_eq!(Budgets::new().held("a", &env), None);
        assert_eq!(first.held("a", &env), Some(Duration::from_secs(100)), "within a process the jump counts nothing");
        tokio::time::advance(Duration::from_secs(101)).await;
        assert_eq!(first.held("a", &env), None);
    }

    #[tokio::test(start_paused = true)]
    async fn test_an_expiry_is_excused_once_after_a_rate_limit() {
        let env = env_with(Arc::new(MemoryKeep::default()), Arc::new(FixedClock::at(1)));
        let budgets = Budgets::new();
        assert!(!budgets.excuse("a", &env));
        budgets.hold_off("a", Duration::from_secs(1), &env);
        assert!(budgets.excuse("a", &env));
        assert!(!budgets.excuse("a", &env));
        budgets.hold_off("a", Duration::from_secs(1), &env);
        assert!(!budgets.excuse("a", &env), "the excuse itself ended in a wait and earns no second one");
        tokio::time::advance(SUSPECT_WINDOW).await;
        budgets.hold_off("a", Duration::from_secs(1), &env);
        assert!(budgets.excuse("a", &env));
    }
}
