//! What is wrong, collected, and how to say what is near.

use std::fmt;
use std::sync::Mutex;

use super::Mark;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where; `None` in messages.
    pub mark: Option<Mark>,
    /// A stable name in capitals, for example `UNKNOWN_KEY`.
    pub code: &'static str,
    /// The dotted path of the field.
    pub field: String,
    /// What is wrong. Never the value of a secret.
    pub what: String,
    /// What was expected.
    pub expected: String,
    /// What to do.
    pub remedy: String,
    /// True for advice that does not stop the start.
    pub warning: bool,
}

impl Problem {
    /// A problem of the text at `mark` and of no field; `expected` follows the word itself.
    #[must_use]
    pub fn of_text(
        mark: Mark,
        code: &'static str,
        what: impl Into<String>,
        expected: &str,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            mark: Some(mark),
            code,
            field: String::new(),
            what: what.into(),
            expected: format!("expected {expected}"),
            remedy: remedy.into(),
            warning: false,
        }
    }
}

impl fmt::Display for Problem {
    /// `file:line:col: CODE: what is wrong; what was expected; what to do`, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(mark) = &self.mark {
            write!(f, "{mark}: ")?;
        }
        if self.warning {
            f.write_str("warning: ")?;
        }
        write!(f, "{}: {}; {}; {}", self.code, self.what, self.expected, self.remedy)
    }
}

/// A thousand problems help nobody; the rest is counted only.
const PROBLEMS_MAX: usize = 1000;

/// Collects problems over many readers.
#[derive(Debug, Default)]
pub struct Problems(Mutex<Vec<Problem>>);

impl Problems {
    /// Adds one.
    pub fn push(&self, problem: Problem) {
        let mut all = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if all.len() < PROBLEMS_MAX {
            all.push(problem);
        }
    }

    /// All so far, sorted by place.
    #[must_use]
    pub fn into_sorted(self) -> Vec<Problem> {
        let mut all = self.0.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        all.sort_by(|a, b| a.mark.cmp(&b.mark));
        all.dedup();
        all
    }

    /// How many of them are errors, not warnings.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).iter().filter(|p| !p.warning).count()
    }
}

/// `key` as TOML writes it: in quotes where it is not a bare key.
#[must_use]
pub fn show_key(key: &str) -> String {
    if !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
        key.to_owned()
    } else {
        format!("{key:?}")
    }
}

/// The longest names have 63 characters.
const NEAREST_CHARS_MAX: usize = 100;

/// `did you mean x?`, or to choose one of the names where none is near.
pub fn nearest_hint<'n>(text: &str, names: impl Iterator<Item = &'n str>) -> String {
    nearest(text, names).map_or_else(|| "choose one of these".to_owned(), |name| format!("did you mean {name}?"))
}

/// The name nearest to `text`, if one is near enough that somebody may have meant it.
pub fn nearest<'n>(text: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    // Half of the letters may differ: beyond that a suggestion misleads more than it helps.
    let limit = (text.chars().count() / 2).clamp(1, 4);
    // A long text is near to no name, and comparing it would take long.
    let text: String = text.chars().take(NEAREST_CHARS_MAX).collect::<String>().to_lowercase();
    names
        .map(|name| (distance(&text, &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein's distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
