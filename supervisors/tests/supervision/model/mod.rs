//! A reference model of supervision, written as plain state transitions, and the property that the crate does the same:
//! for any tree and any operations both tell the same events at the same milliseconds and give the same answers.
//!
//! `SUPERVISION_SEED=7 SUPERVISION_SEQUENCES=10000 cargo test -p supervisors model` runs other sequences, and more of them.
//! A sequence that fails is made as small as it can be and printed with the command that repeats it.

mod calls;
mod case;
mod ends;
mod groups;
mod random;
mod real;
mod rules;
mod views;
mod world;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use supervisors::{ManageError, Restart};

use case::Case;

/// Sequences of one run unless the environment says otherwise.
const SEQUENCES: u64 = 500;
/// Attempts at making a failing sequence smaller.
const MOST_ATTEMPTS: usize = 600;
/// At most one sequence in this many may be muddled, or the comparison is worth too little.
const CLEAR_SHARE: u64 = 5;

/// One event as both sides write it down.
struct Told<'a> {
    at: u64,
    kind: &'a str,
    path: &'a str,
    incarnation: u64,
    incident: Option<usize>,
    because: Option<&'a str>,
    row: u32,
    code: Option<&'a str>,
    delay: Option<u64>,
    strategy: Option<&'a str>,
    recovered: Option<u64>,
}

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}#{} row {}", self.at, self.kind, self.path, self.incarnation, self.row)?;
        if let Some(incident) = self.incident {
            write!(f, " incident {incident}")?;
        }
        for (name, text) in [("because of", self.because), ("code", self.code), ("by", self.strategy)] {
            if let Some(text) = text {
                write!(f, " {name} {text}")?;
            }
        }
        for (name, time) in [("delay", self.delay), ("down for", self.recovered)] {
            if let Some(time) = time {
                write!(f, " {name} {time}")?;
            }
        }
        Ok(())
    }
}

/// The number of a thing among those seen so far.
fn number<T: PartialEq + Clone>(seen: &mut Vec<T>, thing: &T) -> usize {
    if let Some(at) = seen.iter().position(|other| other == thing) {
        return at;
    }
    seen.push(thing.clone());
    seen.len() - 1
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).expect("short")
}

fn spec_text(restart: Restart, significant: bool) -> String {
    format!("{restart:?} significant {significant}")
}

/// What a management call came to, in one word and what matters of it.
fn outcome(result: &Result<(), ManageError>) -> String {
    match result {
        Ok(()) => "ok".to_owned(),
        Err(ManageError::StartFailed(failure)) => format!("StartFailed {}", failure.reason.code),
        Err(ManageError::Invalid(_)) => "Invalid".to_owned(),
        Err(ManageError::MaxChildren { .. }) => "MaxChildren".to_owned(),
        Err(other) => format!("{other:?}"),
    }
}

/// Runs a sequence on both sides; true if it could be compared, an error if they differ.
fn check(case: &Case) -> Result<bool, String> {
    let verdict = catch_unwind(AssertUnwindSafe(|| calls::judge(case)));
    let Ok(verdict) = verdict else { return Err("the model came to nothing".to_owned()) };
    if verdict.muddled {
        return Ok(false);
    }
    let report = catch_unwind(AssertUnwindSafe(|| real::perform(case, &verdict.times)));
    let Ok(report) = report else { return Err("the crate came to nothing".to_owned()) };
    differ("event", &report.told, &verdict.told)?;
    differ("answer", &report.answers, &verdict.answers)?;
    if report.end != verdict.end {
        return Err(format!("the root ended with {:?}, the model says {:?}", report.end, verdict.end));
    }
    Ok(true)
}

fn differ(what: &str, real: &[String], model: &[String]) -> Result<(), String> {
    let same = real.iter().zip(model).take_while(|(real, model)| real == model).count();
    if same == real.len() && same == model.len() {
        return Ok(());
    }
    let from = same.saturating_sub(12);
    let show = |all: &[String]| {
        let lines = all[from.min(all.len())..].iter().take(same - from + 4).enumerate();
        let marked = lines.map(|(at, line)| format!("  {} {line}\n", if from + at == same { ">" } else { " " }));
        marked.collect::<String>()
    };
    Err(format!("{what} {same} differs.\nThe crate:\n{}The model:\n{}", show(real), show(model)))
}

/// Makes a failing sequence smaller as long as it fails, whatever it then fails in.
fn shrunk(mut case: Case, mut error: String, check: impl Fn(&Case) -> Result<bool, String>) -> (Case, String) {
    let mut attempts = 0;
    'again: loop {
        for smaller in case::simpler(&case) {
            attempts += 1;
            if attempts > MOST_ATTEMPTS {
                return (case, error);
            }
            if let Err(found) = check(&smaller) {
                (case, error) = (smaller, found);
                continue 'again;
            }
        }
        return (case, error);
    }
}

/// The seed of the n-th sequence of a run. The first is the run's own, so that any sequence can be the first of a run.
fn seed_of(run: u64, nth: u64) -> u64 {
    run.wrapping_add(nth.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

#[test]
fn test_supervisors_do_what_the_model_says() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let run = number("SUPERVISION_SEED").unwrap_or(1);
    let sequences = number("SUPERVISION_SEQUENCES").unwrap_or(SEQUENCES);
    supervisors::capture_panics();
    let mut muddled = 0;
    for nth in 0..sequences {
        let seed = seed_of(run, nth);
        let case = random::case(seed);
        match check(&case) {
            Ok(clear) => muddled += u64::from(!clear),
            Err(error) => {
                let (case, error) = shrunk(case, error, check);
                let again = format!("SUPERVISION_SEED={seed} SUPERVISION_SEQUENCES=1 cargo test -p supervisors model");
                panic!("{error}\nSequence {nth}, made smaller: {case:?}\nagain: {again}");
            }
        }
    }
    assert!(muddled * CLEAR_SHARE <= sequences, "{muddled} of {sequences} sequences are muddled");
}

/// A model that nothing happens in agrees with everything.
#[test]
fn test_sequences_of_the_model_reach_every_kind_of_event_and_answer() {
    let mut wanted: Vec<String> =
        ["started", "failed", "restarting", "restarted", "parked", "probed", "stopped", "escalated"]
            .into_iter()
            .map(|kind| format!(" {kind} root/"))
            .collect();
    let codes =
        ["start_timeout", "killed", "panic", "actor_failed", "ended", "badly", "told_auth", "told_rate_limited"];
    wanted.extend(codes.iter().map(|code| format!(" code {code}")));
    wanted.extend(["by one_for_one", "by one_for_all", "by rest_for_one", "because of root/"].map(str::to_owned));
    let answers =
        ["ok", "NotFound", "Running", "Restarting", "AlreadyPresent", "AlreadyStarted", "MaxChildren", "Invalid"];
    wanted.extend(
        answers.iter().chain(&["StartFailed", "Stopped", "ShuttingDown", "Gone"]).map(|word| format!(": {word}")),
    );
    wanted.extend(["starting", "stopping", "waiting ", "parked for "].map(str::to_owned));
    for seed in 0..SEQUENCES {
        let verdict = calls::judge(&random::case(seed_of(1, seed)));
        if !verdict.muddled {
            wanted.retain(|text| !verdict.told.iter().chain(&verdict.answers).any(|line| line.contains(text)));
        }
    }
    assert!(wanted.is_empty(), "never: {wanted:?}");
}

#[test]
fn test_failing_sequence_of_the_model_is_made_as_small_as_can_be() {
    let looks = |case: &Case| case.ops.iter().filter(|(_, op)| matches!(op, case::Op::Look)).count();
    let fails = |case: &Case| if looks(case) > 0 { Err("looks".to_owned()) } else { Ok(true) };
    let found = (0..100).map(random::case).find(|case| looks(case) > 1 && case.tree.kids.len() > 1).expect("some");
    let (small, _) = shrunk(found, String::new(), fails);
    assert_eq!((small.ops.len(), small.tree.kids.len(), small.openings.len()), (1, 0, 0));
}
