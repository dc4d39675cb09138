//! The same scenarios here and on Erlang/OTP, in one go:
//! `cargo run --release -p supervisors --example vs_otp -- --json`. Without `--json` a table.
//!
//! Every figure comes from a process of its own, the sides take turns, three rounds, medians; `ratio` is OTP ÷ ours. OTP
//! runs with its default number of schedulers, ours with two worker threads.
//!
//! - `restart_us`: from a child's last step before it crashes to its successor's first, one right after the other.
//!   After 100 the sides pause, because OTP's check of the intensity walks over all restarts of its period.
//!   `restart_among_N_us`: the same with N siblings. `restart_rested_us`: the same with two milliseconds before each
//!   crash, in which other programs take the processor and its caches.
//! - `storm_10000_s`: 10,000 children crash at once; until all run again.
//! - `start_stop_100000_s`: 100,000 dynamic children are started one by one, then stopped with their supervisor.
//! - `idle_bytes`: 100,000 dynamic children that wait. Ours: growth of the process's resident memory, what the allocator
//!   wastes and the observer remembers included. OTP: growth of `erlang:memory(total)` between two full collections.
//! - `group_1000_s`: one of 1,000 under one_for_all crashes; until all run again.
//!
//! The first lines compare tasks with processes without a behaviour, `actor_*` compare ractor actors with gen_servers.
//!
//! Restart events are on. Both sides keep the newest 10,000 in a ring in memory, formatted: ours three a crash (failed,
//! restarting, restarted) as JSON, OTP's what its logger takes by default (a supervisor report a crash, no progress
//! reports; for a gen_server also its own two reports) as one line each. OTP's own file handler would be slower for one
//! crash, because it syncs with its writer, and would drop most reports of a storm.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the figures")]

mod child;
mod otp;
mod ours;
mod ring;
mod scenario;

use std::process::{Command, ExitCode};

use serde_json::{Map, Value, json};

use otp::Otp;
use scenario::Scenario;

const ROUNDS: usize = 3;

/// Both sides' medians.
struct Figure {
    name: &'static str,
    ours: f64,
    otp: f64,
}

impl Figure {
    fn ratio(&self) -> f64 {
        self.otp / self.ours
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        [] => compare().map(|(release, figures)| print_table(&release, &figures)),
        ["--json"] => compare().map(|(_, figures)| println!("{}", to_json(&figures))),
        // One figure of ours: what a comparison runs in a process of its own.
        ["--measure", name] => match Scenario::named(name) {
            Some(scenario) => ours::measure(scenario).map(|it| println!("{it}")).map_err(|error| error.to_string()),
            None => Err(format!("no scenario is called {name}")),
        },
        _ => Err("usage: vs_otp [--json | --measure SCENARIO]".to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn compare() -> Result<(String, Vec<Figure>), String> {
    let otp = Otp::prepare()?;
    let figures = scenario::ALL.into_iter().map(|scenario| {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(our_figure(scenario)?);
            theirs.push(otp.measure(scenario)?);
        }
        Ok(Figure { name: scenario.name, ours: median(ours), otp: median(theirs) })
    });
    let figures = figures.collect::<Result<_, String>>()?;
    Ok((otp.release.clone(), figures))
}

fn our_figure(scenario: Scenario) -> Result<f64, String> {
    let myself = std::env::current_exe().map_err(|error| error.to_string())?;
    let text = otp::output(Command::new(myself).args(["--measure", scenario.name]))?;
    text.trim().parse().map_err(|_| format!("{}: {text:?} is no figure", scenario.name))
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// To four places at most: more is noise.
fn rounded(figure: f64) -> f64 {
    (figure * 1e4).round() / 1e4
}

fn to_json(figures: &[Figure]) -> Value {
    let entries = figures.iter().map(|figure| {
        let sides = json!({
            "ours": rounded(figure.ours),
            "otp": rounded(figure.otp),
            "ratio": rounded(figure.ratio()),
        });
        (figure.name.to_owned(), sides)
    });
    Value::Object(entries.collect::<Map<_, _>>())
}

fn print_table(release: &str, figures: &[Figure]) {
    println!("{:<28}{:>12}{:>12}{:>10}", "", "ours", format!("OTP {release}"), "ratio");
    for figure in figures {
        println!("{:<28}{:>12.4}{:>12.4}{:>10.2}", figure.name, figure.ours, figure.otp, figure.ratio());
    }
}
