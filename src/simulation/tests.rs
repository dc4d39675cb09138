//! Seeds.

use std::collections::BTreeMap;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Outcome, run};

/// Seeds of one run of the test command.
const SEEDS: u64 = 300;
/// Runtimes side by side, each with a world of its own.
const THREADS: u64 = 2;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Panics that were ordered need no words.
fn hush() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let text = info.payload().downcast_ref::<String>().map(String::as_str);
            if !text.is_some_and(|text| text.starts_with("crash point")) {
                before(info);
            }
        }));
    });
}

/// Runs seeds and shows each to `see`, until that has seen enough.
fn all(first: u64, count: u64, bug: Option<&str>, see: impl Fn(u64, Outcome) -> bool + Sync) {
    hush();
    let next = AtomicU64::new(first);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= first + count {
                        return;
                    }
                    if !see(seed, run(seed, bug)) {
                        next.store(first + count, Ordering::SeqCst);
                    }
                }
            });
        }
    });
}

fn add(sum: &mut BTreeMap<String, u64>, more: &BTreeMap<String, u32>) {
    for (name, count) in more {
        *sum.entry(name.clone()).or_default() += u64::from(*count);
    }
}

/// Faults that must have come, or the seeds prove nothing.
const FAULTS: [&str; 22] = [
    "Fail",
    "Kill",
    "Panic",
    "answer_lost",
    "clock",
    "conflict",
    "foreign append",
    "foreign compact",
    "foreign delete",
    "foreign take back",
    "foreign widen",
    "kill",
    "late",
    "message",
    "overtaken",
    "reset",
    "second owner",
    "silent",
    "silent_done",
    "throttled",
    "unauthenticated",
    "unavailable",
];

#[derive(Default)]
struct Sum {
    failed: Vec<String>,
    faults: BTreeMap<String, u64>,
    restarts: BTreeMap<String, u64>,
    parked: BTreeMap<String, u64>,
    records: u64,
    dead: u64,
    epochs: u64,
    acknowledged: u64,
}

#[test]
fn test_simulation_loses_and_doubles_nothing() {
    let (first, count) = (number("SIMULATION_SEED", 0), number("SIMULATION_SEEDS", SEEDS));
    let sum = std::sync::Mutex::new(Sum::default());
    all(first, count, None, |seed, outcome| {
        let mut sum = sum.lock().unwrap();
        add(&mut sum.faults, &outcome.faults);
        add(&mut sum.restarts, &outcome.restarts);
        add(&mut sum.parked, &outcome.parked);
        sum.records += outcome.records;
        sum.dead += outcome.dead;
        sum.epochs += outcome.epochs;
        sum.acknowledged += outcome.acknowledged;
        if let Some(what) = outcome.wrong.first() {
            let line = format!("SIMULATION_SEED={seed} SIMULATION_SEEDS=1 cargo test --lib simulation: {what}");
            println!("{line}");
            sum.failed.push(line);
            if std::env::var_os("SIMULATION_LOG").is_some() {
                println!("{}\n{}", outcome.log.join("\n"), outcome.wrong.join("\n"));
            }
        }
        true
    });
    let sum = sum.into_inner().unwrap();
    println!("{} records, {} dead, {} epochs, {} acknowledged", sum.records, sum.dead, sum.epochs, sum.acknowledged);
    println!("faults {:?}\nrestarts {:?}\nparked {:?}", sum.faults, sum.restarts, sum.parked);
    assert!(sum.failed.is_empty(), "{} of {count} seeds:\n{}", sum.failed.len(), sum.failed.join("\n"));
    if count >= SEEDS {
        let absent: Vec<_> = FAULTS.iter().filter(|name| !sum.faults.contains_key(**name)).collect();
        assert!(absent.is_empty(), "these never happened: {absent:?}");
        assert!(sum.records > 50 * count && sum.dead > count && sum.acknowledged > 10 * count);
    }
}

#[test]
fn test_simulation_of_the_same_seed_tells_the_same_story_byte_for_byte() {
    for seed in number("SIMULATION_SEED", 0)..number("SIMULATION_SEED", 0) + 8 {
        let (once, again) = (run(seed, None).log, run(seed, None).log);
        assert!(once.len() > 100, "seed {seed} has a story");
        let differs = once.iter().zip(&again).position(|(a, b)| a != b);
        if let Some(at) = differs {
            panic!("seed {seed}, line {at}:\n{}\n{}", once[at], again[at]);
        }
        assert_eq!(once.len(), again.len(), "seed {seed}");
    }
}

/// A bug may hide in no more of the first seeds than this.
const BUG_SEEDS: u64 = 40;

/// Deliberate bugs, each of which must be caught.
const BUGS: [&str; 17] = [
    "announce_before_commit",
    "sled_before_commit",
    "dead_before_commit",
    "skip_own_check",
    "ignore_conflict",
    "no_look",
    "trust_refusal",
    "acknowledge_before_raw",
    "random_raw_name",
    "record_gap",
    "double_delivery",
    "drop_on_interrupt",
    "resume_from_zero",
    "resume_from_cache",
    "keep_generation",
    "skip_dead_at_claim",
    "commit_before_stage",
];

/// Those among them that leave a lake in which `lake check` finds something by itself.
const BUGS_CHECKED: [&str; 4] = ["record_gap", "random_raw_name", "ignore_conflict", "skip_dead_at_claim"];

/// Which of the first `count` seeds catches the bug first, and what it says; with `SIMULATION_BUGS` set, how many do.
fn caught(bug: &str, count: u64) -> Option<String> {
    let every = std::env::var_os("SIMULATION_BUGS").is_some();
    let found = std::sync::Mutex::new(BTreeMap::new());
    let first = AtomicU64::new(u64::MAX);
    all(0, count, Some(bug), |seed, outcome| {
        if let Some(what) = outcome.wrong.first() {
            found.lock().unwrap().insert(seed, what.clone());
            first.fetch_min(seed, Ordering::SeqCst);
        }
        every || first.load(Ordering::SeqCst) == u64::MAX
    });
    let found = found.into_inner().unwrap();
    let (seed, what) = found.first_key_value()?;
    Some(format!("{} of {count} seeds, seed {seed}: {what:.200}", found.len()))
}

#[test]
fn test_simulation_catches_deliberate_bugs() {
    let mut hidden = Vec::new();
    for bug in BUGS {
        match caught(bug, BUG_SEEDS) {
            Some(how) => println!("{bug}: {how}"),
            None => hidden.push(bug),
        }
    }
    assert!(hidden.is_empty(), "nobody saw {hidden:?}");
}

#[test]
fn test_simulation_leaves_deliberate_bugs_for_the_check_to_find() {
    for bug in BUGS_CHECKED {
        let found = std::sync::Mutex::new(None);
        all(0, BUG_SEEDS, Some(bug), |seed, outcome| {
            let mut found = found.lock().unwrap();
            if let Some(what) = outcome.checked.first() {
                *found = Some(format!("seed {seed}: {what:.200}"));
            }
            found.is_none()
        });
        let found = found.into_inner().unwrap();
        println!("{bug}: {}", found.unwrap_or_else(|| panic!("the check does not see {bug}")));
    }
}
