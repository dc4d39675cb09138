//! One workload: all pages of one poll, with their retries.
//!
//! A [`Walk`] is what a workload has in hand; nothing of it counts as handed over until [`super::source`] returns it.

use std::collections::HashSet;
use std::time::Duration;

use rand::Rng;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, LOCATION};
use tokio::time::Instant;
use url::Url;

use super::client::{Answer, Ask, Purse, Trouble};
use super::digest;
use super::guard::same_origin;
use super::hold_off;
use super::ledger::Session;
use super::page;
use super::rules::{Facts, LIMITED_WAIT, Verdict, first, judge};
use super::source::{HttpSource, Junk};
use super::template::Values;
use crate::contract::{Credits, ErrorClass, Hold, Payload, SourceError};
use crate::json::{TAKE, format_take};

/// Attempts at one page. The deadline comes first in any sane schedule; this stops a loop where it does not.
const ATTEMPTS_MAX: u32 = 1000;

/// The first back-off is drawn from up to this …
const BACKOFF_MIN: Duration = Duration::from_millis(200);

/// … and doubles up to this, so that a source that healed is met within half a minute.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// No back-off is shorter: full jitter may draw zero.
const BACKOFF_FLOOR: Duration = Duration::from_millis(20);

/// Wakes of those who wait for the same source are spread over this part of the wait.
const SPREAD_PART: f64 = 0.1;

/// What a workload has in hand.
#[derive(Debug)]
pub(crate) struct Walk {
    pub(crate) session: Session,
    /// `{cursor}` in this workload.
    pub(crate) cursor: String,
    pub(crate) deadline: Instant,
    /// What was left to the deadline when a part was handed over.
    pub(crate) left: Duration,
    /// The next page; `None` for the first.
    pub(crate) next: Option<Url>,
    /// Digests of the pages' URLs: a page that links to one of them is the last.
    pub(crate) visited: HashSet<u64>,
    pub(crate) pages: usize,
    /// Pages with something new.
    pub(crate) payloads: Vec<Payload>,
    pub(crate) bytes: usize,
    pub(crate) hold: Hold,
}

/// What follows a page.
#[derive(Debug)]
pub(crate) enum After {
    /// The link to the next one.
    Page(Url),
    /// Nothing.
    End,
}

impl HttpSource {
    /// Asks for one page until it is there, the workload is over, or the deadline leaves no room for another attempt.
    pub(crate) async fn page(&mut self, walk: &mut Walk, credits: &Credits) -> Result<After, SourceError> {
        let mut last: Option<SourceError> = None;
        for attempt in 0..ATTEMPTS_MAX {
            if let Err(limited) = self.gate() {
                // A junk body that came before must not be forgotten because its retry has to wait.
                return Err(last.filter(|_| self.junk.is_some()).unwrap_or(limited));
            }
            let (error, wait) = match self.attempt(walk, credits).await {
                Err(Trouble::Late) => return Err(self.timed_out()),
                Err(Trouble::Retry(error, wait)) => (error, wait),
                Err(Trouble::End(error)) => {
                    self.junk = None;
                    return Err(error);
                }
                Ok(after) => {
                    self.junk = None;
                    return Ok(after);
                }
            };
            if error.class != ErrorClass::Data {
                self.junk = None;
            }
            tracing::debug!(code = %error.code, attempt, "an attempt failed");
            let pause = self.backoff(attempt).max(wait.unwrap_or_default());
            if Instant::now() + pause >= walk.deadline {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            last = Some(error);
        }
        Err(last.unwrap_or_else(|| SourceError::new(ErrorClass::Bug, "no_attempt", "no attempt was made")))
    }

    /// Whether a request may be made now. Every request passes here: retries, pages and redirects too.
    fn gate(&mut self) -> Result<(), SourceError> {
        let shared = std::sync::Arc::clone(&self.shared);
        if let Some(left) = shared.budgets.held(&shared.wait_key, &self.env) {
            return Err(self.limited("retry_after", "the source asked to be left alone", left));
        }
        if let Err(left) = shared.budgets.spend(&shared.settings.budgets, &self.env) {
            return Err(self.limited("budget_spent", "the budget of the key is spent", left));
        }
        Ok(())
    }

    /// An error of waiting, with the wake-ups of many partitions spread.
    fn limited(&mut self, code: &str, message: &str, wait: Duration) -> SourceError {
        let spread = wait.mul_f64(self.rng.random::<f64>() * SPREAD_PART);
        SourceError::new(ErrorClass::RateLimited, code, message).after(wait + spread)
    }

    /// Full jitter below a doubling bound.
    fn backoff(&mut self, attempt: u32) -> Duration {
        let bound = BACKOFF_MIN.saturating_mul(1 << attempt.min(16)).min(BACKOFF_MAX);
        bound.mul_f64(self.rng.random::<f64>()).max(BACKOFF_FLOOR)
    }

    /// One request with its redirects, and what its response means.
    async fn attempt(&mut self, walk: &mut Walk, credits: &Credits) -> Result<After, Trouble> {
        let shared = std::sync::Arc::clone(&self.shared);
        let settings = &shared.settings;
        let values = Values { part: &self.partition.values, cursor: &walk.cursor };
        let url = match &walk.next {
            Some(url) => url.clone(),
            None => settings.first_url(values).map_err(Trouble::End)?,
        };
        let headers = settings.headers(values).map_err(Trouble::End)?;
        let mut ask = Ask { method: settings.request.method.clone(), url, headers };
        for hop in 0.. {
            let Walk { hold, bytes, deadline, .. } = &mut *walk;
            let mut purse = Purse { credits, hold, spent: *bytes, deadline };
            let sent = shared.wire.send(settings, &ask, &mut purse, &*self.env.clock).await;
            let answer = match sent {
                Ok(answer) => answer,
                Err(trouble) => {
                    walk.hold.shrink_to(walk.bytes);
                    return Err(trouble);
                }
            };
            let facts = Facts {
                status: answer.status.as_u16(),
                body: &answer.body,
                retry_after: hold_off::retry_after(&answer.headers, self.env.clock.now_us()),
                interval: settings.schedule.interval,
            };
            let rule = first(&settings.rules, facts);
            if rule.is_none() && is_redirect(answer.status) && answer.headers.contains_key(LOCATION) {
                if hop >= settings.network.max_redirects {
                    return Err(refused_redirect("more redirects came than network.max_redirects allows"));
                }
                self.follow(&mut ask, &answer)?;
                self.gate().map_err(Trouble::End)?;
                continue;
            }
            return match judge(rule, facts) {
                Verdict::Take => self.take(walk, &ask.url, answer),
                Verdict::Nothing => {
                    walk.hold.shrink_to(walk.bytes);
                    Ok(After::End)
                }
                other => {
                    walk.hold.shrink_to(walk.bytes);
                    Err(self.refusal(other))
                }
            };
        }
        Err(refused_redirect("redirects without end"))
    }

    /// Turns `ask` to where `answer` leads.
    fn follow(&self, ask: &mut Ask, answer: &Answer) -> Result<(), Trouble> {
        let settings = &self.shared.settings;
        let location = answer.headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let target = location.and_then(|text| ask.url.join(text).ok());
        let Some(mut target) = target else { return Err(refused_redirect("the redirect has no readable target")) };
        target.set_fragment(None);
        if ask.url.scheme() == "https" && target.scheme() != "https" {
            return Err(refused_redirect("the redirect leads from https to http"));
        }
        if !same_origin(&settings.base, &target) && settings.leaks(target.as_str()) {
            return Err(refused_redirect("the redirect would carry the secret to another origin"));
        }
        if !matches!(answer.status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT) {
            ask.method = reqwest::Method::GET;
        }
        ask.url = target;
        Ok(())
    }

    /// A refused response as an error.
    fn refusal(&mut self, verdict: Verdict) -> Trouble {
        let shared = std::sync::Arc::clone(&self.shared);
        match verdict {
            Verdict::Limited { code, wait } => {
                shared.budgets.hold_off(&shared.wait_key, wait, &self.env);
                let wait = wait.min(hold_off::RETRY_AFTER_MAX);
                Trouble::End(self.limited(&code, "the source limits its rate", wait))
            }
            Verdict::Park { class, code, suspect } => {
                if suspect && shared.budgets.excuse(&shared.wait_key, &self.env) {
                    let wait = LIMITED_WAIT;
                    shared.budgets.hold_off(&shared.wait_key, wait, &self.env);
                    let message = "the source refuses the key shortly after it limited the rate";
                    return Trouble::End(self.limited(&code, message, wait));
                }
                let message = match class {
                    ErrorClass::Auth => "the source refuses the credentials",
                    _ => "the source refuses the request",
                };
                Trouble::End(SourceError::new(class, code, message))
            }
            Verdict::Retry { class, code, wait } => {
                Trouble::Retry(SourceError::new(class, code, "the source could not answer"), wait)
            }
            Verdict::Fail { class, code } => {
                Trouble::End(SourceError::new(class, code, "the response ends the workload"))
            }
            Verdict::Take | Verdict::Nothing => {
                Trouble::End(SourceError::new(ErrorClass::Bug, "not_refused", "a good response was refused"))
            }
        }
    }

    /// Takes a good page into the walk.
    fn take(&mut self, walk: &mut Walk, url: &Url, answer: Answer) -> Result<After, Trouble> {
        let shared = std::sync::Arc::clone(&self.shared);
        let settings = &shared.settings;
        let read = match page::read(&settings.records.select, &answer) {
            Ok(read) => read,
            Err(page::Unread::Cut) => {
                walk.hold.shrink_to(walk.bytes);
                let error = SourceError::new(ErrorClass::Transient, "body_cut", "the body broke off");
                return Err(Trouble::Retry(error, None));
            }
            Err(page::Unread::Junk(mark)) => {
                let error = SourceError::new(ErrorClass::Data, mark.code, mark.message.clone());
                let mut payload = page::payload(settings, url, &answer);
                payload.dead = Some(mark);
                // Its credits go with it, and those of the pages before it as long as it may still be needed.
                self.junk = Some(Junk { payload, hold: std::mem::take(&mut walk.hold) });
                return Err(Trouble::Retry(error, None));
            }
        };
        let taken: Vec<bool> = read.records.iter().map(|text| walk.session.take(text)).collect();
        let after = match page::next_link(settings, &answer, url).map_err(Trouble::End)? {
            Some(link) if walk.visited.insert(digest::of_text(link.as_str())) => After::Page(link),
            // A page that links to one that was read is how some sources say that it is the last.
            _ => After::End,
        };
        drop(read);
        if taken.contains(&true) {
            let (_, position) = walk.session.ledger(false).map_err(Trouble::End)?;
            let mut payload = page::payload(settings, url, &answer);
            payload.position = Some(position);
            if taken.contains(&false) {
                let indexes = (0..taken.len()).filter(|index| taken[*index]);
                payload.meta.insert(TAKE.to_owned(), format_take(indexes));
            }
            walk.bytes += payload.bytes.len();
            walk.payloads.push(payload);
        }
        walk.hold.shrink_to(walk.bytes);
        walk.pages += 1;
        Ok(after)
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn refused_redirect(message: &str) -> Trouble {
    Trouble::End(SourceError::new(ErrorClass::Config, "redirect_refused", message))
}

/// A header's text without what could break a line or fill the lake.
pub(crate) fn header_text(headers: &HeaderMap, name: &str) -> Option<String> {
    /// Longer ones say nothing that helps to read a payload.
    const HEADER_BYTES_MAX: usize = 1024;
    let text = headers.get(name)?.to_str().ok()?;
    (text.len() <= HEADER_BYTES_MAX).then(|| text.to_owned())
}
