//! Budgets: how many requests a key may make, in several windows, shared by all that use the key.
//!
//! A window slides: at no time have more than `limit` requests been granted within its length, whatever alignment the
//! source counts by. Grants are remembered in at most [`GRANTS_MAX`] groups a window, so asking costs the same for
//! one partition as for ten thousand. Within a process a window is measured with the monotonic clock; what is spent is
//! kept as wall-clock times and outlives restarts.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Datelike, Months, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::hold_off::Wait;
use crate::contract::Env;

/// How many groups of grants a window is told apart in. Grants closer than this part of the window count as made
/// together at the latest of them, which errs towards too few requests by at most a 64th of the window.
const GROUPS_PER_WINDOW: u64 = 64;

/// So a window that slides over whole groups holds no more than these.
#[cfg(test)]
const GRANTS_MAX: usize = GROUPS_PER_WINDOW as usize + 2;

/// A kept budget may count this part of its limit ahead, so that a large budget is not written at each request. After
/// a restart up to that part is lost; a budget below this number loses none.
const AHEAD_PART: u64 = 128;

/// Keys in messages come and go; beyond this many remembered ones, those that nobody waits for are dropped (what they
/// spent stays in the node's memory across restarts).
pub(super) const KEYS_MAX: usize = 100_000;

/// One limit of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetRule {
    /// The fingerprint of the secret.
    pub key: String,
    /// Requests a window.
    pub limit: u64,
    /// The window.
    pub per: Window,
}

/// The length of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Window {
    /// Any span, sliding.
    Span(Duration),
    /// A month of the UTC calendar.
    CalendarMonth,
}

/// What all sources of a node share: spent budgets and the ends of Retry-After. Give one to every kind.
#[derive(Debug)]
pub struct Budgets {
    /// Monotonic times are µs since here.
    start: Instant,
    books: Mutex<HashMap<String, Book>>,
    pub(super) waits: Mutex<HashMap<String, Wait>>,
}

impl Default for Budgets {
    fn default() -> Self {
        Self { start: Instant::now(), books: Mutex::default(), waits: Mutex::default() }
    }
}

/// What one key spent.
#[derive(Debug, Default)]
struct Book {
    spans: HashMap<Duration, Span>,
    month: Month,
    /// Grants that the kept copy has counted ahead and that were not made yet.
    ahead: u64,
}

#[derive(Debug, Default)]
struct Span {
    grants: VecDeque<Grant>,
    total: u64,
}

#[derive(Debug, Clone, Copy)]
struct Grant {
    first_us: i64,
    last_us: i64,
    count: u64,
}

/// Requests of the calendar month that began `year`-`month`-01.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Month {
    year: i32,
    month: u32,
    count: u64,
}

/// A book as it is kept: times are µs of the wall clock.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    spans: Vec<(u64, Vec<(i64, u64)>)>,
    month: Month,
}

impl Budgets {
    /// Without anything spent. What the node keeps is read when a key is first asked for.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn now_us(&self) -> i64 {
        micros(self.start.elapsed())
    }

    /// Takes one request from every window of `rules`, or from none.
    ///
    /// # Errors
    /// How long until the windows that refused free one.
    pub fn spend(&self, rules: &[BudgetRule], env: &Env) -> Result<(), Duration> {
        if rules.is_empty() {
            return Ok(());
        }
        let (now, wall) = (self.now_us(), env.clock.now_us());
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        if books.len() >= KEYS_MAX {
            books.retain(|_, book| book.spans.values().any(|span| !span.grants.is_empty()));
        }
        let mut wait = Duration::ZERO;
        for rule in rules {
            let book = books.entry(rule.key.clone()).or_insert_with(|| Book::load(&rule.key, env, now, wall));
            wait = wait.max(book.wait(rule, now, wall));
        }
        if !wait.is_zero() {
            return Err(wait);
        }
        for rule in rules {
            if let Some(book) = books.get_mut(&rule.key) {
                book.grant(rule, now, wall);
            }
        }
        let mut told: Vec<&str> = Vec::with_capacity(1);
        for rule in rules.iter() {
            if told.contains(&rule.key.as_str()) {
                continue;
            }
            told.push(&rule.key);
            let smallest = rules.iter().filter(|r| r.key == rule.key).map(|r| r.limit).min().unwrap_or(0);
            if let Some(book) = books.get_mut(&rule.key) {
                book.store(&rule.key, smallest / AHEAD_PART, env, now, wall);
            }
        }
        Ok(())
    }
}

fn keep_key(key: &str) -> String {
    format!("http/budget/{key}")
}

/// Whole µs, as times are counted here.
pub(super) fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

fn month_of(wall_us: i64) -> NaiveDate {
    let day = DateTime::<Utc>::from_timestamp_micros(wall_us).unwrap_or_default().date_naive();
    day.with_day(1).unwrap_or(day)
}

impl Book {
    fn load(key: &str, env: &Env, now: i64, wall: i64) -> Self {
        let kept = env.keep.get(&keep_key(key)).and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
        let mut book = Self::default();
        let Some(kept) = kept else { return book };
        for (span_us, grants) in kept.spans {
            let span = book.spans.entry(Duration::from_micros(span_us)).or_default();
            for (at_us, count) in grants {
                // A grant in the future means that the wall clock was set back: then it was made just now.
                let at = now - (wall - at_us).max(0);
                span.grants.push_back(Grant { first_us: at, last_us: at, count });
                span.total += count;
            }
            span.grants.make_contiguous().sort_by_key(|grant| grant.last_us);
        }
        book.month = kept.month;
        book
    }

    fn wait(&mut self, rule: &BudgetRule, now: i64, wall: i64) -> Duration {
        match rule.per {
            Window::Span(length) => {
                let span = self.spans.entry(length).or_default();
                span.forget(now, length);
                span.wait(rule.limit, now, length)
            }
            Window::CalendarMonth => {
                let first = month_of(wall);
                // A clock set back does not give last month's budget again.
                if (self.month.year, self.month.month) < (first.year(), first.month()) {
                    self.month = Month { year: first.year(), month: first.month(), count: 0 };
                }
                if self.month.count < rule.limit {
                    return Duration::ZERO;
                }
                let next = first.checked_add_months(Months::new(1)).and_then(|day| day.and_hms_opt(0, 0, 0));
                let next_us = next.map_or(wall, |time| time.and_utc().timestamp_micros());
                Duration::from_micros(u64::try_from(next_us - wall).unwrap_or(0).max(1))
            }
        }
    }

    fn grant(&mut self, rule: &BudgetRule, now: i64, wall: i64) {
        match rule.per {
            Window::Span(length) => self.spans.entry(length).or_default().grant(now, length),
            Window::CalendarMonth => {
                let first = month_of(wall);
                if self.month.count == 0 {
                    (self.month.year, self.month.month) = (first.year(), first.month());
                }
                self.month.count += 1;
            }
        }
    }

    fn store(&mut self, key: &str, ahead: u64, env: &Env, now: i64, wall: i64) {
        if self.ahead > 0 {
            self.ahead -= 1;
            return;
        }
        self.ahead = ahead;
        let mut kept = Kept { spans: Vec::with_capacity(self.spans.len()), month: self.month.clone() };
        kept.month.count += if kept.month.count > 0 { ahead } else { 0 };
        for (length, span) in &self.spans {
            let mut grants: Vec<_> = span.grants.iter().map(|g| (wall - (now - g.last_us), g.count)).collect();
            if let Some(last) = grants.last_mut() {
                last.1 += ahead;
            }
            kept.spans.push((u64::try_from(length.as_micros()).unwrap_or(u64::MAX), grants));
        }
        if let Ok(bytes) = serde_json::to_vec(&kept) {
            env.keep.put(&keep_key(key), &bytes);
        }
    }
}

impl Span {
    fn forget(&mut self, now: i64, length: Duration) {
        while let Some(grant) = self.grants.front().filter(|g| now - g.last_us >= micros(length)) {
            self.total -= grant.count;
            self.grants.pop_front();
        }
    }

    /// Until as many have left the window that one more fits.
    fn wait(&self, limit: u64, now: i64, length: Duration) -> Duration {
        let mut left = self.total;
        for grant in &self.grants {
            if left < limit {
                break;
            }
            left -= grant.count;
            if left < limit {
                let until = grant.last_us.saturating_add(micros(length)) - now;
                return Duration::from_micros(u64::try_from(until).unwrap_or(0).max(1));
            }
        }
        Duration::ZERO
    }

    fn grant(&mut self, now: i64, length: Duration) {
        let group_us = micros(length) / i64::try_from(GROUPS_PER_WINDOW).unwrap_or(1);
        self.total += 1;
        match self.grants.back_mut() {
            Some(last) if now - last.first_us < group_us => {
                last.last_us = now;
                last.count += 1;
            }
            _ => self.grants.push_back(Grant { first_us: now, last_us: now, count: 1 }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::testing::{FixedClock, env_with};
    use super::*;
    use crate::contract::{Clock, Keep, MemoryKeep};

    fn rule(limit: u64, per: Window) -> BudgetRule {
        BudgetRule { key: "k".to_owned(), limit, per }
    }

    const MINUTE: Window = Window::Span(Duration::from_secs(60));

    #[tokio::test(start_paused = true)]
    async fn test_budget_all_windows_must_grant_and_none_is_spent_otherwise() {
        let budgets = Budgets::new();
        let env = env_with(Arc::new(MemoryKeep::default()), Arc::new(FixedClock::at(0)));
        let rules = [rule(2, MINUTE), rule(3, Window::Span(Duration::from_secs(3600)))];
        assert!(budgets.spend(&rules, &env).is_ok());
        assert!(budgets.spend(&rules, &env).is_ok());
        let wait = budgets.spend(&rules, &env).expect_err("the minute is spent");
        assert!(wait <= Duration::from_secs(60) && wait > Duration::from_secs(58), "{wait:?}");
        tokio::time::advance(wait).await;
        assert!(budgets.spend(&rules, &env).is_ok());
        let wait = budgets.spend(&rules, &env).expect_err("the hour is spent");
        assert!(wait > Duration::from_secs(3500), "{wait:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn test_budget_survives_a_restart() {
        let keep: Arc<dyn Keep> = Arc::new(MemoryKeep::default());
        let clock = Arc::new(FixedClock::at(1_000_000_000));
        let env = env_with(Arc::clone(&keep), Arc::clone(&clock) as Arc<dyn Clock>);
        let rules = [rule(5, MINUTE), rule(6, Window::CalendarMonth)];
        for _ in 0..5 {
            assert!(Budgets::new().spend(&rules, &env).is_ok(), "each grant by a fresh process");
        }
        assert!(Budgets::new().spend(&rules, &env).is_err());
        clock.set(1_000_000_000 + 61_000_000);
        assert!(Budgets::new().spend(&rules, &env).is_ok());
        assert!(Budgets::new().spend(&rules, &env).expect_err("the month is spent") > Duration::from_secs(86_400));
    }

    #[tokio::test(start_paused = true)]
    async fn test_budget_calendar_month_frees_at_the_first() {
        let last_second = 1_706_745_599_000_000; // 2024-01-31T23:59:59Z
        let clock = Arc::new(FixedClock::at(last_second));
        let env = env_with(Arc::new(MemoryKeep::default()), Arc::clone(&clock) as Arc<dyn Clock>);
        let rules = [rule(1, Window::CalendarMonth)];
        let budgets = Budgets::new();
        assert!(budgets.spend(&rules, &env).is_ok());
        assert_eq!(budgets.spend(&rules, &env), Err(Duration::from_secs(1)));
        clock.set(last_second + 1_000_000);
        assert!(budgets.spend(&rules, &env).is_ok());
        clock.set(last_second);
        assert!(budgets.spend(&rules, &env).is_err(), "a clock set back gives nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn test_budget_never_waits_longer_than_its_window_after_a_clock_jump() {
        let keep: Arc<dyn Keep> = Arc::new(MemoryKeep::default());
        let clock = Arc::new(FixedClock::at(10_000_000_000_000));
        let env = env_with(keep, Arc::clone(&clock) as Arc<dyn Clock>);
        assert!(Budgets::new().spend(&[rule(1, MINUTE)], &env).is_ok());
        clock.set(1_000_000);
        let wait = Budgets::new().spend(&[rule(1, MINUTE)], &env).expect_err("still spent");
        assert!(wait <= Duration::from_secs(60));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn test_budget_grants_at_most_its_limit_in_any_window(
            limit in 1u64..20, steps in proptest::collection::vec(0u64..20_000, 1..200), restarts in any::<u64>(),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().start_paused(true).enable_time().build()
                .expect("a runtime");
            runtime.block_on(async move {
                let clock = Arc::new(FixedClock::at(1_000_000_000_000));
                let env = env_with(Arc::new(MemoryKeep::default()), Arc::clone(&clock) as Arc<dyn Clock>);
                let mut budgets = Budgets::new();
                let mut at_ms = 0u64;
                let mut granted: Vec<u64> = Vec::new();
                for (index, step) in steps.iter().enumerate() {
                    at_ms += step;
                    tokio::time::advance(Duration::from_millis(*step)).await;
                    clock.set(1_000_000_000_000 + i64::try_from(at_ms).expect("small") * 1000);
                    if restarts >> (index % 64) & 1 == 1 && index % 7 == 0 {
                        budgets = Budgets::new();
                    }
                    if budgets.spend(&[rule(limit, MINUTE)], &env).is_ok() {
                        granted.push(at_ms);
                    }
                    let inside = granted.iter().filter(|at| at_ms - **at < 60_000).count() as u64;
                    assert!(inside <= limit, "{inside} of {limit}");
                    let books = budgets.books.lock().expect("no panic");
                    assert!(books.values().flat_map(|b| b.spans.values()).all(|s| s.grants.len() <= GRANTS_MAX));
                }
            });
        }
    }
}
