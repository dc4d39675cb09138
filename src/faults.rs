//! Named crash points and deliberate bugs, for the tests that prove the promise. Both exist only with the feature
//! `crashpoints`, which no release has; without it every function here is a constant that compiles to nothing.
//!
//! `LAKEFEED_CRASH=NAME[@SUBJECT]:WHEN:KIND[,…]`. SUBJECT is a stream or `stream/partition` where the point has one;
//! without it all count. WHEN is `3` (the third pass, from 1), `3+` (that and each later one) or `each` (the first pass
//! of each subject). One behind a comma is armed once the one before it has fired. KIND:
//! - `abort` kills the process with SIGKILL's abruptness,
//! - `panic` panics,
//! - `err` makes [`fails`] say so, where the caller can fail,
//! - `stop` holds the thread, asleep, until the file that `LAKEFEED_CRASH_UNTIL` names is there (without one: for ever),
//! - `spin` holds the thread the same way, in a loop.
//!
//! With `LAKEFEED_CRASH_WHILE=FILE` the points count only while FILE is there. A point that fired writes `crash point
//! NAME fired` to stderr, so that a test can prove that its fault happened, and one that let go `crash point NAME over`.
//!
//! `LAKEFEED_BUG=NAME` switches one deliberate bug on. `LAKEFEED_ACKNOWLEDGED=FILE` collects what the sources were told,
//! one line `PARTITION POSITION` each. `LAKEFEED_HURRY=1` makes rare upkeep frequent.

/// Passes the point `name`: kills or panics if so armed.
#[cfg(not(feature = "crashpoints"))]
#[inline(always)]
pub const fn point(_name: &str) {}

/// Passes the point `name` on behalf of a stream and, where there is one, its partition.
#[cfg(not(feature = "crashpoints"))]
#[inline(always)]
pub fn point_of(_name: &str, _stream: &dyn std::fmt::Display, _partition: &str) {}

/// Passes the point `name`; true if it should fail as an error.
#[cfg(not(feature = "crashpoints"))]
#[inline(always)]
#[must_use]
pub const fn fails(_name: &str) -> bool {
    false
}

/// Whether the deliberate bug `name` is switched on.
#[cfg(not(feature = "crashpoints"))]
#[inline(always)]
#[must_use]
pub const fn bug(_name: &str) -> bool {
    false
}

/// Whether the deliberate bug `name` is switched on and this is one of every `nth` passes.
#[cfg(not(feature = "crashpoints"))]
#[inline(always)]
#[must_use]
pub const fn bug_every(_name: &str, _nth: u32) -> bool {
    false
}

/// Notes that the source was told that everything up to `position` is safe.
#[cfg(not(feature = "crashpoints"))]
#[inline(always)]
pub const fn acknowledged(_partition: &str, _position: &str) {}

/// Whether upkeep that is rare should be frequent.
#[cfg(not(feature = "crashpoints"))]
#[inline(always)]
#[must_use]
pub const fn hurry() -> bool {
    false
}

#[cfg(feature = "crashpoints")]
pub use armed::{Script, Strike, acknowledged, bug, bug_every, fails, hurry, play, point, point_of};

#[cfg(feature = "crashpoints")]
mod armed {
    use std::cell::{Cell, RefCell};
    use std::collections::HashSet;
    use std::fmt::Display;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    use std::sync::{Mutex, OnceLock, PoisonError};
    use std::time::Duration;

    /// Between two looks for the file that lets a held thread go.
    const LOOK: Duration = Duration::from_millis(10);

    enum When {
        Nth(u32),
        From(u32),
        Each(Mutex<HashSet<String>>),
    }

    /// What a script has for one pass of a point.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Strike {
        /// Nothing.
        Pass,
        /// A panic.
        Panic,
        /// An error, at points that can fail.
        Fail,
    }

    /// What a simulation has in mind for everything that runs on its thread, in place of the environment.
    pub struct Script {
        /// The deliberate bug that is switched on.
        pub bug: Option<String>,
        /// Is asked at every point; must not pass one itself.
        pub point: Box<dyn Fn(&str) -> Strike>,
    }

    impl std::fmt::Debug for Script {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("Script").field("bug", &self.bug).finish_non_exhaustive()
        }
    }

    thread_local! {
        static SCRIPT: RefCell<Option<Script>> = const { RefCell::new(None) };
        static PASSES: Cell<u32> = const { Cell::new(0) };
    }

    /// Plays `script` on this thread until another one, or none, is given.
    pub fn play(script: Option<Script>) {
        SCRIPT.set(script);
        PASSES.set(0);
    }

    fn scripted(name: &str) -> Option<Strike> {
        SCRIPT.with_borrow(|script| script.as_ref().map(|script| (script.point)(name)))
    }

    struct Armed {
        name: String,
        subject: Option<String>,
        when: When,
        kind: String,
        passes: AtomicU32,
        fired: AtomicBool,
    }

    impl Armed {
        fn parse(spec: &str) -> Option<Self> {
            let mut parts = spec.split(':');
            let (name, when, kind) = (parts.next()?, parts.next()?, parts.next()?);
            let (name, subject) = match name.split_once('@') {
                Some((name, subject)) => (name, Some(subject.to_owned())),
                None => (name, None),
            };
            let when = match when.strip_suffix('+') {
                _ if when == "each" => When::Each(Mutex::default()),
                Some(first) => When::From(first.parse().ok()?),
                None => When::Nth(when.parse().ok()?),
            };
            let (name, kind) = (name.to_owned(), kind.to_owned());
            Some(Self { name, subject, when, kind, passes: AtomicU32::new(0), fired: AtomicBool::new(false) })
        }

        fn is_of(&self, subject: &str) -> bool {
            let Some(own) = &self.subject else { return true };
            subject.strip_prefix(own.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }

        /// Counts a pass; true if it fires.
        fn passes(&self, subject: &str) -> bool {
            let pass = self.passes.fetch_add(1, Ordering::SeqCst) + 1;
            match &self.when {
                When::Nth(nth) => pass == *nth,
                When::From(first) => pass >= *first,
                When::Each(seen) => seen.lock().unwrap_or_else(PoisonError::into_inner).insert(subject.to_owned()),
            }
        }
    }

    fn armed() -> &'static [Armed] {
        static ARMED: OnceLock<Vec<Armed>> = OnceLock::new();
        ARMED.get_or_init(|| {
            let specs = std::env::var("LAKEFEED_CRASH").unwrap_or_default();
            specs.split(',').filter_map(Armed::parse).collect()
        })
    }

    fn file(variable: &str) -> Option<PathBuf> {
        std::env::var_os(variable).map(PathBuf::from)
    }

    /// Passes the point `name`: kills or panics if so armed.
    pub fn point(name: &str) {
        // An armed `err` at a place that cannot fail has no meaning; the callers that can fail ask `fails`.
        let _ = fails(name);
    }

    /// Passes the point `name` on behalf of a stream and, where there is one, its partition.
    pub fn point_of(name: &str, stream: &dyn Display, partition: &str) {
        if SCRIPT.with_borrow(Option::is_some) || armed().iter().any(|armed| armed.name == name) {
            let subject = if partition.is_empty() { stream.to_string() } else { format!("{stream}/{partition}") };
            let _ = passes(name, &subject);
        }
    }

    /// Passes the point `name`; true if it should fail as an error.
    #[must_use]
    pub fn fails(name: &str) -> bool {
        passes(name, "")
    }

    fn passes(name: &str, subject: &str) -> bool {
        match scripted(name) {
            Some(Strike::Panic) => panic!("crash point {name}"),
            Some(strike) => return strike == Strike::Fail,
            None => {}
        }
        // In turn: the first that has not fired yet is the last that counts.
        let mut waits = false;
        let counts = |armed: &&Armed| !std::mem::replace(&mut waits, !armed.fired.load(Ordering::SeqCst));
        let named = |armed: &&Armed| armed.name == name && armed.is_of(subject);
        let Some(armed) = armed().iter().take_while(counts).filter(named).last() else { return false };
        if file("LAKEFEED_CRASH_WHILE").is_some_and(|file| !file.exists()) || !armed.passes(subject) {
            return false;
        }
        armed.fired.store(true, Ordering::SeqCst);
        fire(armed, subject)
    }

    /// In one write: a line in pieces would be torn by what other threads write, and its test would wait for ever.
    #[allow(clippy::print_stderr, reason = "the proof, for the test that armed it, that the fault happened")]
    fn tell(what: &str, name: &str, subject: &str) {
        let line = format!("crash point {name} {what} {subject}\n");
        eprint!("{line}");
    }

    fn fire(armed: &Armed, subject: &str) -> bool {
        let name = &armed.name;
        tell("fired", name, subject);
        match armed.kind.as_str() {
            "abort" => std::process::abort(),
            "panic" => panic!("crash point {name}"),
            "err" => return true,
            kind => {
                let until = file("LAKEFEED_CRASH_UNTIL");
                while !until.as_ref().is_some_and(|file| file.exists()) {
                    if kind == "spin" {
                        std::hint::spin_loop();
                    } else {
                        std::thread::sleep(LOOK);
                    }
                }
                tell("over", name, subject);
            }
        }
        false
    }

    fn chosen() -> Option<&'static str> {
        static BUG: OnceLock<Option<String>> = OnceLock::new();
        BUG.get_or_init(|| std::env::var("LAKEFEED_BUG").ok()).as_deref()
    }

    /// Whether the deliberate bug `name` is switched on.
    #[must_use]
    pub fn bug(name: &str) -> bool {
        let scripted = SCRIPT.with_borrow(|script| script.as_ref().map(|script| script.bug.as_deref() == Some(name)));
        scripted.unwrap_or_else(|| chosen() == Some(name))
    }

    /// Whether the deliberate bug `name` is switched on and this is one of every `nth` passes.
    #[must_use]
    pub fn bug_every(name: &str, nth: u32) -> bool {
        static ALL: AtomicU32 = AtomicU32::new(0);
        if !bug(name) {
            return false;
        }
        let scripted = SCRIPT.with_borrow(Option::is_some);
        let before = if scripted { PASSES.replace(PASSES.get() + 1) } else { ALL.fetch_add(1, Ordering::SeqCst) };
        (before + 1).is_multiple_of(nth)
    }

    /// Notes that the source was told that everything up to `position` is safe.
    pub fn acknowledged(partition: &str, position: &str) {
        use std::io::Write;
        let Some(path) = file("LAKEFEED_ACKNOWLEDGED") else { return };
        if let Ok(mut file) = std::fs::OpenOptions::new().append(true).create(true).open(path) {
            // A line that cannot be written is one that the test misses.
            let _ = file.write_all(format!("{partition} {position}\n").as_bytes());
        }
    }

    /// Whether upkeep that is rare should be frequent.
    #[must_use]
    pub fn hurry() -> bool {
        static HURRY: OnceLock<bool> = OnceLock::new();
        *HURRY.get_or_init(|| std::env::var_os("LAKEFEED_HURRY").is_some())
    }
}
