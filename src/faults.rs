//! Named crash points and deliberate bugs, for the tests that prove the promise. Both exist only with the feature
//! `crashpoints`, which no release has; without it every function here is a constant that compiles to nothing.
//!
//! `LAKEFEED_CRASH=NAME:NTH:KIND` fires at the NTH pass (from 1) of the point NAME: KIND `abort` kills the process with
//! SIGKILL's abruptness, `panic` panics, `err` makes [`fails`] say so, `stop` sends the process to sleep (a zombie to be).
//! `LAKEFEED_BUG=NAME` switches one deliberate bug on. A point that fired writes `crash point NAME fired` to stderr, so
//! that a test can prove that its fault happened. `LAKEFEED_ACKNOWLEDGED=FILE` collects what the sources were told, one
//! line `PARTITION POSITION` each.

/// Passes the point `name`: kills or panics if so armed.
#[cfg(not(feature = "crashpoints"))]
#[inline(always)]
pub const fn point(_name: &str) {}

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

/// Notes that the source was told that everything up to `position` is safe.
#[cfg(not(feature = "crashpoints"))]
#[inline(always)]
pub const fn acknowledged(_partition: &str, _position: &str) {}

/// Whether the deliberate bug `name` is switched on and this is one of every `nth` passes.
#[cfg(not(feature = "crashpoints"))]
#[inline(always)]
#[must_use]
pub const fn bug_every(_name: &str, _nth: u32) -> bool {
    false
}

#[cfg(feature = "crashpoints")]
pub use armed::{Script, Strike, acknowledged, bug, bug_every, fails, play, point};

#[cfg(feature = "crashpoints")]
mod armed {
    use std::cell::{Cell, RefCell};
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

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
        nth: u32,
        kind: String,
        passes: AtomicU32,
    }

    fn armed() -> Option<&'static Armed> {
        static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
        ARMED
            .get_or_init(|| {
                let spec = std::env::var("LAKEFEED_CRASH").ok()?;
                let mut parts = spec.split(':');
                Some(Armed {
                    name: parts.next()?.to_owned(),
                    nth: parts.next()?.parse().ok()?,
                    kind: parts.next()?.to_owned(),
                    passes: AtomicU32::new(0),
                })
            })
            .as_ref()
    }

    /// Passes the point `name`: kills or panics if so armed.
    pub fn point(name: &str) {
        // An armed `err` at a place that cannot fail has no meaning; the callers that can fail ask `fails`.
        let _ = fails(name);
    }

    /// Passes the point `name`; true if it should fail as an error.
    #[allow(clippy::print_stderr, reason = "the proof, for the test that armed it, that the fault happened")]
    #[must_use]
    pub fn fails(name: &str) -> bool {
        match scripted(name) {
            Some(Strike::Panic) => panic!("crash point {name}"),
            Some(strike) => return strike == Strike::Fail,
            None => {}
        }
        let Some(armed) = armed().filter(|armed| armed.name == name) else { return false };
        if armed.passes.fetch_add(1, Ordering::SeqCst) + 1 != armed.nth {
            return false;
        }
        eprintln!("crash point {name} fired");
        match armed.kind.as_str() {
            "abort" => std::process::abort(),
            "panic" => panic!("crash point {name}"),
            "stop" => loop {
                std::thread::park();
            },
            _ => true,
        }
    }

    /// Whether the deliberate bug `name` is switched on.
    #[must_use]
    pub fn bug(name: &str) -> bool {
        static BUG: OnceLock<Option<String>> = OnceLock::new();
        let scripted = SCRIPT.with_borrow(|script| script.as_ref().map(|script| script.bug.as_deref() == Some(name)));
        if let Some(on) = scripted {
            return on;
        }
        BUG.get_or_init(|| std::env::var("LAKEFEED_BUG").ok()).as_deref() == Some(name)
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
        let Some(path) = std::env::var_os("LAKEFEED_ACKNOWLEDGED") else { return };
        if let Ok(mut file) = std::fs::OpenOptions::new().append(true).create(true).open(path) {
            // A line that cannot be written is one that the test misses.
            let _ = file.write_all(format!("{partition} {position}\n").as_bytes());
        }
    }
}
