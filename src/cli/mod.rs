//! The command line: verbs and their arguments, and what `validate` prints. Nothing here starts or connects anything.

mod args;
mod bench;
pub mod output;
mod values;

pub use args::*;
pub use bench::*;
pub use values::{LakeOption, Position, Since};

use std::path::Path;
use std::sync::Arc;

use adapters::contract::Kind;
use adapters::contract::config::{Problem, SecretSource};
use serde_json::{Value, json};

use crate::settings;

/// Exit codes, as interface §1 promises them.
pub mod exit {
    /// Done.
    pub const DONE: u8 = 0;
    /// It failed.
    pub const FAILED: u8 = 1;
    /// Wrong usage or configuration; nothing was started.
    pub const USAGE: u8 = 2;
    /// The node cannot be reached.
    pub const UNREACHABLE: u8 = 3;
    /// Not allowed.
    pub const NOT_ALLOWED: u8 = 4;
    /// The root supervisor gave up.
    pub const GAVE_UP: u8 = 70;
}

/// `lakefeed validate`: prints every problem of the configuration at `path` to stdout, and gives the exit code.
#[must_use]
pub fn validate(path: &Path, json: bool, kinds: &[Arc<dyn Kind>], secrets: &dyn SecretSource) -> u8 {
    let loaded = settings::load(path, kinds, secrets);
    let code = if loaded.is_ok() { exit::DONE } else { exit::USAGE };
    if json {
        output::document(&report(&loaded));
        return code;
    }
    match loaded {
        Ok((settings, warnings)) => {
            output::problems(&warnings);
            let (adapters, streams) = (settings.adapters.len() as u64, settings.streams.len() as u64);
            output::line(&format!("valid: {} and {}", count(adapters, "adapter"), count(streams, "stream")));
        }
        Err(problems) => output::problems(&problems),
    }
    code
}

/// `1 stream`, `2 streams`.
pub(crate) fn count(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// `{ok, adapters, streams, errors, warnings}`.
fn report(loaded: &Result<(settings::Settings, Vec<Problem>), Vec<Problem>>) -> Value {
    let (settings, problems) = match loaded {
        Ok((settings, warnings)) => (Some(settings), warnings),
        Err(problems) => (None, problems),
    };
    let some = |warnings: bool| -> Vec<Value> {
        problems.iter().filter(|problem| problem.warning == warnings).map(problem_json).collect()
    };
    json!({
        "ok": settings.is_some(),
        "adapters": settings.map(|s| s.adapters.len()),
        "streams": settings.map(|s| s.streams.len()),
        "errors": some(false),
        "warnings": some(true),
    })
}

/// `{file, line, col, code, field, what, expected, remedy}`, the place being null for what came in a message.
#[must_use]
pub fn problem_json(problem: &Problem) -> Value {
    let mark = problem.mark.as_ref();
    json!({
        "file": mark.map(|mark| mark.file.as_ref()),
        "line": mark.map(|mark| mark.line),
        "col": mark.map(|mark| mark.col),
        "code": problem.code,
        "field": problem.field,
        "what": problem.what,
        "expected": problem.expected,
        "remedy": problem.remedy,
    })
}
