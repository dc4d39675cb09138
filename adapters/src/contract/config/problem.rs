//! What is wrong, where, and what to do.

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
