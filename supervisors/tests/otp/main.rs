//! The same scenarios on OTP's own supervisor and on this crate: who is started, who ends how, in which order, and what
//! management calls answer.
//!
//! Needs Erlang, which the test installs from the distribution's packages where it runs as root in CI. Elsewhere it is
//! skipped, and says why, if Erlang is not there.

#![allow(clippy::unwrap_used, reason = "tests and what they share")]

mod ours;
mod table;

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use table::Scenario;

/// Where the crate differs from OTP on purpose: the scenario, and the reason. Every one of them must differ.
const BY_DESIGN: &[(&str, &str)] = &[
    ("nested transient supervisor that gives up", GIVES_UP),
    ("dynamic transient finish", OWN_SPEC),
    ("dynamic terminate", OWN_SPEC),
    ("dynamic failed restart", OWN_SPEC),
];
/// OTP's supervisor exits with `shutdown`, a clean end, when it gives up.
const GIVES_UP: &str = "a supervisor that gives up ends with what it gave up for, so that a transient one is restarted";
/// OTP counts the one spec of a simple_one_for_one supervisor.
const OWN_SPEC: &str = "each child of a dynamic supervisor has a spec of its own";

#[test]
fn test_scenarios_run_as_on_otp() {
    let all = table::scenarios();
    if let Err(reason) = erlang_is_there() {
        let _ = writeln!(std::io::stderr(), "SKIPPED test_scenarios_run_as_on_otp: {reason}");
        return;
    }
    supervisors::capture_panics();
    let otp = on_otp(&all);
    let mut wrong = String::new();
    for scenario in &all {
        let theirs = unordered(scenario, otp.get(&scenario.name).expect("OTP ran it").clone());
        let ours = unordered(scenario, ours::run(scenario));
        let reason = BY_DESIGN.iter().find(|(name, _)| *name == scenario.name);
        match (ours == theirs, reason) {
            (true, None) | (false, Some(_)) => {}
            (true, Some(_)) => wrong += &format!("{} does not differ any more\n", scenario.name),
            (false, None) => {
                wrong += &format!("{}\n  OTP:  {}\n  ours: {}\n", scenario.name, theirs.join(", "), ours.join(", "));
            }
        }
    }
    assert!(wrong.is_empty(), "{} scenarios\n{wrong}", all.len());
}

#[test]
fn test_table_of_deviations_names_scenarios() {
    let all = table::scenarios();
    assert!(all.len() >= 60);
    let names = |name: &str| all.iter().filter(|scenario| scenario.name == name).count();
    assert!(all.iter().all(|scenario| names(&scenario.name) == 1), "names are used once");
    assert!(BY_DESIGN.iter().all(|(name, reason)| names(name) == 1 && !reason.is_empty()));
}

/// Children of a dynamic supervisor end in no particular order.
fn unordered(scenario: &Scenario, mut lines: Vec<String>) -> Vec<String> {
    if scenario.flags.dynamic.is_some() {
        for run in lines.chunk_by_mut(|one, other| one.starts_with("down") && other.starts_with("down")) {
            run.sort();
        }
    }
    lines
}

fn erlang_is_there() -> Result<(), String> {
    let there = || Command::new("erl").arg("-version").output().is_ok();
    if there() {
        return Ok(());
    }
    let root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n");
    if std::env::var("CI").as_deref() != Ok("true") {
        return Err("erlang is not installed (apt-get install erlang-base)".to_owned());
    }
    if !root {
        return Err("erlang is not installed, and only root may install it".to_owned());
    }
    for arguments in [&["update", "-q"][..], &["install", "-y", "-q", "--no-install-recommends", "erlang-base"]] {
        let status = Command::new("apt-get").args(arguments).status();
        assert!(status.is_ok_and(|status| status.success()), "apt-get {arguments:?}");
    }
    assert!(there(), "erlang was installed but does not run");
    Ok(())
}

/// A directory that is gone when the test is.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What OTP makes of the scenarios, by name.
fn on_otp(all: &[Scenario]) -> HashMap<String, Vec<String>> {
    let scratch = Scratch(std::env::temp_dir().join(format!("supervisors-otp-{}", std::process::id())));
    std::fs::create_dir_all(&scratch.0).unwrap();
    std::fs::write(scratch.0.join("harness.erl"), include_str!("harness.erl")).unwrap();
    std::fs::write(scratch.0.join("scenarios.terms"), table::terms(all)).unwrap();
    let compile = Command::new("erlc").arg("harness.erl").current_dir(&scratch.0).output().unwrap();
    assert!(compile.status.success(), "{}", String::from_utf8_lossy(&compile.stdout));
    let main = "harness:main([\"scenarios.terms\"]).";
    // One scheduler, so that signals arrive in the order in which they were sent.
    let arguments = ["+S", "1", "-noshell", "-noinput", "-eval", main];
    let output =
        Command::new("timeout").arg("120").arg("erl").args(arguments).current_dir(&scratch.0).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let mut found: HashMap<String, Vec<String>> = HashMap::new();
    for part in text.split("== ").skip(1) {
        let mut lines = part.lines().map(str::to_owned);
        found.insert(lines.next().unwrap_or_default(), lines.collect());
    }
    found
}
