//! The one place that writes to stdout and stderr as such; everything else logs.

use std::fmt::Display;
use std::io::{ErrorKind, Write};

use adapters::contract::config::Problem;
use serde::Serialize;

/// Writes a line to stdout.
pub fn line(text: &dyn Display) {
    settle(writeln!(std::io::stdout().lock(), "{text}"));
}

/// Writes a line to stderr.
pub fn error_line(text: &dyn Display) {
    settle(writeln!(std::io::stderr().lock(), "{text}"));
}

/// Writes a JSON document on one line to stdout.
pub fn document(value: &impl Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => line(&text),
        Err(error) => error_line(&format_args!("the answer is no JSON: {error}")),
    }
}

/// Writes problems to stdout, one a line.
pub fn problems(all: &[Problem]) {
    all.iter().for_each(|problem| line(problem));
}

/// Writes problems to stderr, one a line.
pub fn problems_to_stderr(all: &[Problem]) {
    all.iter().for_each(|problem| error_line(problem));
}

/// Who closed the pipe (`| head`) has seen enough, and there is no place left to say more.
fn settle(written: std::io::Result<()>) {
    if let Err(error) = written
        && error.kind() == ErrorKind::BrokenPipe
    {
        std::process::exit(i32::from(super::exit::DONE));
    }
}
