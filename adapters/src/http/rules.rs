//! What a response means: rules of the adapter first, then the built-in ones by status.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use regex::bytes::{Regex, RegexBuilder};

use crate::contract::ErrorClass;
use crate::json::Path;

/// A rule's pattern may compile to at most this much.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// How much of a body that is not JSON a pattern is tried on: error texts are short.
const TEXT_BYTES_MAX: usize = 16 * 1024;

/// How long a source is left alone that refuses for its rate without saying how long; at most its interval.
pub(crate) const LIMITED_WAIT: Duration = Duration::from_secs(60);

/// A source that limits its rate is left alone for at least this, or its interval: "Retry-After: 0" is no invitation to
/// ask without pause.
const LIMITED_WAIT_MIN: Duration = Duration::from_secs(1);

/// What to do with a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Ask again within the workload.
    Retry,
    /// Leave the source alone for a while.
    RateLimited,
    /// Give up until something changes.
    Park,
    /// Take it as an answer without records.
    Ignore,
    /// End the workload as failed, without asking again.
    Fail,
}

/// One rule: where all its conditions hold, its action is taken.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Statuses; empty = any.
    pub status: Vec<u16>,
    /// A path into the body and what its text must match.
    pub body: Option<(Path, Pattern)>,
    /// What to do.
    pub action: Action,
    /// How long to wait, for `retry` and `rate_limited`.
    pub wait: Option<Duration>,
    /// `wait` is a guess of ours: a source that names a wait itself (Retry-After) knows better. What an operator wrote
    /// is a least wait instead.
    pub wait_guessed: bool,
    /// The class of the error.
    pub class: Option<ErrorClass>,
    /// The error's code.
    pub code: String,
    /// `park` only: believe it only where the source did not limit its rate shortly before.
    pub suspect_when_throttled: bool,
}

/// A regular expression found anywhere in a text, without regard to case (of ASCII letters). All patterns of one text
/// share their program: ten thousand streams of one adapter have its rules once.
#[derive(Debug, Clone)]
pub struct Pattern(Arc<Regex>);

/// More different patterns than any configuration has; beyond it they are not shared.
const SHARED_PATTERNS_MAX: usize = 1000;

/// Compiling is what reading an adapter's settings costs, so it is done once a text.
static SHARED: LazyLock<Mutex<HashMap<String, Arc<Regex>>>> = LazyLock::new(Mutex::default);

impl Pattern {
    /// Reads `text`.
    ///
    /// # Errors
    /// One sentence that says what is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(regex) = shared.get(text) {
            return Ok(Self(Arc::clone(regex)));
        }
        let regex = RegexBuilder::new(text)
            .case_insensitive(true)
            .unicode(false)
            .size_limit(PATTERN_BYTES_MAX)
            .build()
            .map_err(|_| "it is not a regular expression, or too large a one")?;
        let regex = Arc::new(regex);
        if shared.len() >= SHARED_PATTERNS_MAX {
            // Streams come and go; the patterns that nobody uses any more make room.
            shared.retain(|_, regex| Arc::strong_count(regex) > 1);
        }
        if shared.len() < SHARED_PATTERNS_MAX {
            shared.insert(text.to_owned(), Arc::clone(&regex));
        }
        Ok(Self(regex))
    }

    fn matches(&self, text: &[u8]) -> bool {
        self.0.is_match(text)
    }
}

/// What a response means for the workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Records are in it.
    Take,
    /// It is good and holds nothing.
    Nothing,
    /// Ask again, not before `wait`.
    Retry { class: ErrorClass, code: String, wait: Option<Duration> },
    /// Leave the source alone.
    Limited { code: String, wait: Duration },
    /// The worker is to be parked.
    Park { class: ErrorClass, code: String, suspect: bool },
    /// The workload has failed.
    Fail { class: ErrorClass, code: String },
}

/// What rules look at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
    pub(crate) retry_after: Option<Duration>,
    pub(crate) interval: Duration,
}

/// The texts of one body by path. A body may be large and the rules many, so each path is followed once.
struct Texts<'a> {
    body: &'a [u8],
    /// `None` until it was needed; then the body as text, if it is JSON.
    json: Option<Option<&'a str>>,
    by_path: Vec<(&'a Path, Option<Cow<'a, str>>)>,
}

impl<'a> Texts<'a> {
    fn matches(&mut self, path: &'a Path, pattern: &Pattern) -> bool {
        let body = self.body;
        let json = *self.json.get_or_insert_with(|| {
            let text = std::str::from_utf8(body).ok()?;
            serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok().then_some(text)
        });
        let Some(json) = json else {
            // Plain text where JSON was promised: `$` is all of it.
            return path.is_root() && pattern.matches(&body[..body.len().min(TEXT_BYTES_MAX)]);
        };
        if let Some((_, text)) = self.by_path.iter().find(|(known, _)| *known == path) {
            return text.as_ref().is_some_and(|text| pattern.matches(text.as_bytes()));
        }
        let text = path.text(json);
        let found = text.as_ref().is_some_and(|text| pattern.matches(text.as_bytes()));
        self.by_path.push((path, text));
        found
    }
}

/// The first rule that applies.
pub(crate) fn first<'r>(rules: &'r [Rule], facts: Facts<'r>) -> Option<&'r Rule> {
    let mut texts = Texts { body: facts.body, json: None, by_path: Vec::new() };
    rules.iter().find(|rule| {
        let status = rule.status.is_empty() || rule.status.contains(&facts.status);
        status && rule.body.as_ref().is_none_or(|(path, pattern)| texts.matches(path, pattern))
    })
}

impl Rule {
    fn wait_for(&self, facts: Facts<'_>) -> Option<Duration> {
        self.wait.filter(|_| !(self.wait_guessed && facts.retry_after.is_some()))
    }

    fn verdict(&self, facts: Facts<'_>) -> Verdict {
        let code = self.code.clone();
        match self.action {
            Action::Ignore => Verdict::Nothing,
            Action::Retry => {
                Verdict::Retry { class: self.class.unwrap_or(ErrorClass::Transient), code, wait: self.wait }
            }
            Action::RateLimited => Verdict::Limited { code, wait: limited_wait(self.wait_for(facts), facts) },
            Action::Park => Verdict::Park {
                class: self.class.unwrap_or(ErrorClass::Config),
                code,
                suspect: self.suspect_when_throttled,
            },
            Action::Fail => Verdict::Fail { class: self.class.unwrap_or(ErrorClass::Data), code },
        }
    }
}

fn limited_wait(ruled: Option<Duration>, facts: Facts<'_>) -> Duration {
    match (ruled, facts.retry_after) {
        (None, None) => LIMITED_WAIT.min(facts.interval),
        (ruled, asked) => {
            let least = LIMITED_WAIT_MIN.min(facts.interval);
            ruled.unwrap_or_default().max(asked.unwrap_or_default()).max(least)
        }
    }
}

/// Judges a response by the rule that applies, else by its status.
pub(crate) fn judge(rule: Option<&Rule>, facts: Facts<'_>) -> Verdict {
    rule.map_or_else(|| by_status(facts), |rule| rule.verdict(facts))
}

fn by_status(facts: Facts<'_>) -> Verdict {
    let code = format!("http_{}", facts.status);
    match (facts.status, facts.retry_after) {
        (204 | 304, _) => Verdict::Nothing,
        (200..=299, _) => Verdict::Take,
        (429, _) | (503, Some(_)) => Verdict::Limited { code, wait: limited_wait(None, facts) },
        (408 | 425, _) | (500..=599, _) => Verdict::Retry { class: ErrorClass::Transient, code, wait: None },
        (401 | 403 | 407, _) => Verdict::Park { class: ErrorClass::Auth, code, suspect: false },
        _ => Verdict::Park { class: ErrorClass::Config, code, suspect: false },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(rules: &[Rule], facts: Facts<'_>) -> Verdict {
        super::judge(first(rules, facts), facts)
    }

    fn facts(status: u16, body: &str) -> Facts<'_> {
        Facts { status, body: body.as_bytes(), retry_after: None, interval: Duration::from_secs(3600) }
    }

    fn rule(status: &[u16], body: Option<(&str, &str)>, action: Action) -> Rule {
        let body = body.map(|(path, text)| (Path::parse(path).expect(path), Pattern::new(text).expect(text)));
        Rule {
            status: status.to_vec(),
            body,
            action,
            wait: None,
            class: None,
            code: "ruled".to_owned(),
            wait_guessed: false,
            suspect_when_throttled: false,
        }
    }

    #[test]
    fn test_a_wait_that_the_source_names_replaces_our_guess_and_lengthens_the_operators() {
        let asked = Facts { retry_after: Some(Duration::from_secs(2)), ..facts(429, "") };
        let ten = Some(Duration::from_secs(10));
        let waits = |guessed| {
            let rule = Rule { wait: ten, wait_guessed: guessed, ..rule(&[429], None, Action::RateLimited) };
            match judge(&[rule], asked) {
                Verdict::Limited { wait, .. } => wait.as_secs(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((waits(true), waits(false)), (2, 10));
    }

    #[test]
    fn test_statuses_have_their_classes() {
        for (status, class) in [
            (400, ErrorClass::Config),
            (401, ErrorClass::Auth),
            (403, ErrorClass::Auth),
            (404, ErrorClass::Config),
            (405, ErrorClass::Config),
            (410, ErrorClass::Config),
            (301, ErrorClass::Config),
        ] {
            let expected = Verdict::Park { class, code: format!("http_{status}"), suspect: false };
            assert_eq!(judge(&[], facts(status, "")), expected);
        }
        for status in [408, 425, 500, 502, 503, 504] {
            assert!(matches!(judge(&[], facts(status, "")), Verdict::Retry { class: ErrorClass::Transient, .. }));
        }
        let asked = Facts { retry_after: Some(Duration::from_secs(7)), ..facts(503, "") };
        assert!(matches!(judge(&[], asked), Verdict::Limited { wait, .. } if wait.as_secs() == 7));
        assert!(matches!(judge(&[], facts(429, "")), Verdict::Limited { wait: LIMITED_WAIT, .. }));
        let at_once = Facts { retry_after: Some(Duration::ZERO), ..facts(429, "") };
        assert!(matches!(judge(&[], at_once), Verdict::Limited { wait: LIMITED_WAIT_MIN, .. }));
        assert_eq!(judge(&[], facts(200, "")), Verdict::Take);
        assert_eq!(judge(&[], facts(204, "")), Verdict::Nothing);
    }

    #[test]
    fn test_first_matching_rule_wins_before_the_status() {
        let rules = [
            rule(&[400, 404], Some(("$.error", "not_found")), Action::Park),
            rule(&[404], None, Action::Ignore),
            rule(&[], Some(("$.error", "^slow")), Action::Retry),
        ];
        assert!(matches!(judge(&rules, facts(404, r#"{"error":"City_NOT_FOUND!"}"#)), Verdict::Park { .. }));
        assert_eq!(judge(&rules, facts(404, r#"{"error":"x"}"#)), Verdict::Nothing);
        assert!(matches!(judge(&rules, facts(200, r#"{"error":"slow down"}"#)), Verdict::Retry { .. }));
        assert_eq!(judge(&rules, facts(200, r#"{"error":"not slow"}"#)), Verdict::Take);
        assert_eq!(judge(&rules, facts(200, r#"{"error":{"a":"slow"}}"#)), Verdict::Take);
    }

    #[test]
    fn test_plain_text_is_matched_at_the_root_only() {
        let (at_root, below) =
            (rule(&[], Some(("$", "not found")), Action::Park), rule(&[], Some(("$.a", "not found")), Action::Park));
        for body in ["\"Node not found\"", "node NOT found"] {
            assert!(matches!(judge(std::slice::from_ref(&at_root), facts(200, body)), Verdict::Park { .. }), "{body}");
            assert_eq!(judge(std::slice::from_ref(&below), facts(200, body)), Verdict::Take);
        }
        assert_eq!(judge(&[at_root], facts(200, r#"{"name":"not found"}"#)), Verdict::Take);
    }

    #[test]
    fn test_patterns_are_bounded() {
        assert!(Pattern::new("(").is_err());
        let same = [Pattern::new("same text").expect("sound"), Pattern::new("same text").expect("sound")];
        assert!(Arc::ptr_eq(&same[0].0, &same[1].0));
        assert!(Pattern::new("((a{100}){100}){100}").is_err());
    }
}
