//! Where a panic came from: its place and, not too often, the calls that led there.

use std::backtrace::Backtrace;
use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::panic::Location;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

/// A backtrace longer than this is cut at its far end: the calls next to the panic tell the story.
pub const BACKTRACE_CHARS_MAX: usize = 4_000;

/// At most one backtrace of the same place in this time: a storm of panics has one cause, and taking a backtrace costs
/// more than a restart.
const SAME_PLACE: Duration = Duration::from_secs(1);

/// At most this many places in [`SAME_PLACE`], so that a program that panics everywhere is not slowed down either.
const PLACES_MAX: usize = 16;

/// What is known of a panic besides its text.
pub struct PanicReport {
    location: String,
    trace: Option<Backtrace>,
    text: OnceLock<Option<String>>,
}

impl PanicReport {
    pub(crate) fn here(location: &Location<'_>) -> Self {
        let location = place(location.file(), location.line());
        let trace = may_trace(&location, Instant::now()).then(Backtrace::force_capture);
        Self { location, trace, text: OnceLock::new() }
    }

    /// File and line, the file without what is particular to the machine that compiled it.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// The calls that led to the panic, innermost first, at most [`BACKTRACE_CHARS_MAX`] characters. `None` if another
    /// panic at the same place had one less than a second ago, or too many others had. The first call looks up the
    /// names, which takes milliseconds: make it where nobody waits.
    pub fn backtrace(&self) -> Option<&str> {
        self.text.get_or_init(|| self.trace.as_ref().map(|trace| readable(&trace.to_string()))).as_deref()
    }
}

impl fmt::Debug for PanicReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PanicReport").field("location", &self.location).finish_non_exhaustive()
    }
}

/// Two reports are equal if they are of the same place.
impl PartialEq for PanicReport {
    fn eq(&self, other: &Self) -> bool {
        self.location == other.location
    }
}

fn place(file: &str, line: u32) -> String {
    format!("{}:{line}", short_file(file))
}

/// A source file from its crate's folder on.
fn short_file(file: &str) -> &str {
    if !file.starts_with('/') {
        return file;
    }
    let folder = ["/src/", "/tests/", "/examples/"].iter().filter_map(|folder| file.rfind(folder)).max();
    // What lies directly in a crate of the registry would show the registry's folders.
    let folder = folder.filter(|at| !file[..*at].ends_with("/registry"));
    let start = file[..folder.unwrap_or(file.len())].rfind('/');
    start.map_or(file, |start| &file[start + 1..])
}

/// Whether a panic at this place may have its backtrace taken.
fn may_trace(place: &str, now: Instant) -> bool {
    static RECENT: Mutex<Recent> = Mutex::new(Recent(VecDeque::new()));
    // A panic must not wait for another one.
    RECENT.try_lock().is_ok_and(|mut recent| recent.admit(place, now))
}

/// The places of the last backtraces, at most [`PLACES_MAX`].
struct Recent(VecDeque<(String, Instant)>);

impl Recent {
    fn admit(&mut self, place: &str, now: Instant) -> bool {
        self.0.retain(|(_, at)| now.duration_since(*at) < SAME_PLACE);
        if self.0.len() >= PLACES_MAX || self.0.iter().any(|(known, _)| known == place) {
            return false;
        }
        self.0.push_back((place.to_owned(), now));
        true
    }
}

/// The part of a backtrace between the machinery of panics and ours, one call a line, without paths of this machine.
fn readable(trace: &str) -> String {
    let mut calls: Vec<(String, Option<String>)> = Vec::new();
    for line in trace.lines().map(str::trim) {
        match (line.strip_prefix("at "), line.split_once(": ")) {
            (Some(at), _) => {
                if let Some((_, place)) = calls.last_mut() {
                    *place = Some(short_file(at).to_owned());
                }
            }
            (None, Some((_, name))) => calls.push((name.to_owned(), None)),
            (None, None) => {}
        }
    }
    // Outermost call into the machinery of panics; without it nothing is cut.
    let begin = calls.iter().rposition(|(name, _)| name.starts_with("core::panicking::"));
    let begin = begin.or_else(|| calls.iter().rposition(|(name, _)| name.starts_with("std::panicking::begin_panic")));
    let from = begin.map_or(0, |at| at + 1);
    let ours = calls.iter().skip(from).position(|(name, _)| name.contains("catch_unwind"));
    let until = ours.map_or(calls.len(), |count| from + count);
    let mut text = String::new();
    for (name, place) in &calls[from..until] {
        let _ = match place {
            Some(place) => writeln!(text, "{name} at {place}"),
            None => writeln!(text, "{name}"),
        };
    }
    if let Some((cut, _)) = text.char_indices().nth(BACKTRACE_CHARS_MAX) {
        text.truncate(cut);
    }
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn test_backtraces_are_one_a_place_and_second_and_few_in_all() {
        let (start, mut recent) = (Instant::now(), Recent(VecDeque::new()));
        let admitted = (0..1_000).filter(|_| recent.admit("a.rs:1", start)).count();
        assert_eq!(admitted, 1);
        assert!(recent.admit("a.rs:2", start));
        assert!(recent.admit("a.rs:1", start + SAME_PLACE));
        let many = (0..1_000).filter(|line| recent.admit(&format!("b.rs:{line}"), start + SAME_PLACE)).count();
        assert_eq!(many, PLACES_MAX - 1);
    }

    #[test]
    fn test_backtrace_is_cut_to_the_calls_that_matter() {
        let trace = "   0: supervisors::backtraces::PanicReport::here\n             at /home/x/lake/supervisors/src/a.rs:1:2\n\
                     1: core::panicking::panic_fmt\n             at /rustc/abc/library/core/src/panicking.rs:80:14\n\
                     2: worker::read\n             at /home/x/lake/worker/src/read.rs:7:9\n\
                     3: worker::run\n             at ./worker/src/run.rs:3:5\n\
                     4: std::panic::catch_unwind\n             at /rustc/abc/library/std/src/panic.rs:1:1\n\
                     5: supervisors::panics::caught\n";
        assert_eq!(readable(trace), "worker::read at worker/src/read.rs:7:9\nworker::run at ./worker/src/run.rs:3:5");
        let long = readable(&format!("0: {}", "x".repeat(2 * BACKTRACE_CHARS_MAX)));
        assert_eq!(long.chars().count(), BACKTRACE_CHARS_MAX);
        assert_eq!(short_file("/opt/lib.rs"), "lib.rs");
        assert_eq!(short_file("/home/x/registry/src/host-1/some-2/src/a.rs"), "some-2/src/a.rs");
        assert_eq!(short_file("/home/x/registry/src/host-1/some-2/build.rs"), "build.rs");
    }
}
