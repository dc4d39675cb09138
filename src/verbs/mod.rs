//! From parsed arguments to what they name, and its exit code.

mod remote;

use std::num::NonZero;
use std::sync::Arc;

use adapters::contract::SystemClock;
use adapters::contract::config::ProcessSecrets;

use crate::app::kinds;
use crate::cli::{
    Bench, Cli, ConfigArgs, DemoArgs, Lake, Simulate, SimulateIqairArgs, Verb, count, exit, output, validate,
};
use crate::demo::{self, DemoOptions};
use crate::run::chain;
use crate::simulate::iqair::{Faults, Options, StandIn};
use crate::{lake, settings, telemetry};

/// Runs the verb; its exit code.
#[must_use]
pub fn run(cli: Cli) -> u8 {
    if matches!(cli.verb, Verb::Run(_) | Verb::Demo(_) | Verb::Bench(_)) {
        crate::heaps::bound();
    }
    let filter = if matches!(cli.verb, Verb::Demo(_)) { telemetry::FILTER_DEMO } else { telemetry::FILTER_NODE };
    if let Err(e) = telemetry::init(filter) {
        return fail(&e);
    }
    if let Verb::Validate(args) = &cli.verb {
        return validate(&args.config, cli.json, &kinds(), &ProcessSecrets);
    }
    match runtime() {
        Ok(runtime) => {
            let _pulse = crate::run::pulse(runtime.handle());
            let code = runtime.block_on(start(cli));
            // A worker that never awaits must not keep the process from ending.
            runtime.shutdown_background();
            code
        }
        Err(e) => fail(&e),
    }
}

/// A thread for each core, and two on a machine with one: beside a worker that holds its thread there has to be another,
/// on which its supervisor finds it out.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    tokio::runtime::Builder::new_multi_thread().worker_threads(cores.max(2)).enable_all().build()
}

async fn start(cli: Cli) -> u8 {
    match cli.verb {
        Verb::Run(args) => crate::run::run(&args.config).await,
        Verb::Validate(args) => validate(&args.config, cli.json, &kinds(), &ProcessSecrets),
        Verb::Demo(args) => show_demo(args, cli.json).await,
        Verb::Simulate(Simulate::Iqair(args)) => stand_in(args, cli.json).await,
        Verb::Bench(bench) => measure(&bench, cli.json).await,
        Verb::Lake(Lake::Check(args)) => check_lake(&args, cli.json).await,
        verb => remote::ask(verb, cli.json).await,
    }
}

fn fail(error: &dyn std::error::Error) -> u8 {
    output::error_line(&chain(error));
    exit::FAILED
}

async fn measure(bench: &Bench, json: bool) -> u8 {
    match crate::bench::run(bench, json, &mut std::io::stdout()).await {
        Ok(code) => code,
        Err(e) => fail(&e),
    }
}

async fn show_demo(args: DemoArgs, json: bool) -> u8 {
    let data = args.data.unwrap_or_else(demo::folder);
    let options = DemoOptions { duration: args.duration, seed: args.seed, data, quiet: json };
    match demo::run(&options).await {
        Ok(outcome) => {
            if json {
                output::document(&outcome);
            } else {
                output::line(&outcome.table());
            }
            if outcome.ok { exit::DONE } else { exit::FAILED }
        }
        Err(e) => fail(&e),
    }
}

async fn stand_in(args: SimulateIqairArgs, json: bool) -> u8 {
    let faults = match args.faults.as_deref().unwrap_or("none").parse::<Faults>() {
        Ok(faults) => faults,
        Err(e) => {
            output::error_line(&e);
            return exit::USAGE;
        }
    };
    let options = Options {
        listen: args.listen,
        seed: args.seed,
        stations: args.stations as usize,
        tick: args.tick,
        faults,
        truth: args.truth,
        ..Options::default()
    };
    let stand_in = match StandIn::start(options, Arc::new(SystemClock)).await {
        Ok(stand_in) => stand_in,
        Err(e) => return fail(&e),
    };
    let address = format!("http://{}/v2", stand_in.addr());
    if json {
        output::document(&serde_json::json!({"listening": address}));
    } else {
        output::line(&format_args!("listening on {address}; any key is right"));
    }
    crate::run::stop_signal().await;
    stand_in.stop().await;
    exit::DONE
}

async fn check_lake(args: &ConfigArgs, json: bool) -> u8 {
    let settings = match settings::load(&args.config, &kinds(), &ProcessSecrets) {
        Ok((settings, _)) => settings,
        Err(problems) => {
            output::problems_to_stderr(&problems);
            return exit::USAGE;
        }
    };
    let report = match lake::Lake::open(&settings.lake, Arc::new(SystemClock)) {
        Ok(lake) => lake.check(None).await,
        Err(e) => return fail(&e),
    };
    match report {
        Ok(report) => {
            if json {
                output::document(&report);
            } else {
                show_report(&report);
            }
            if report.problem_count == 0 { exit::DONE } else { exit::FAILED }
        }
        Err(e) => fail(&e),
    }
}

fn show_report(report: &lake::Report) {
    for problem in &report.problems {
        output::line(&format_args!("{}: {}: {}; {}", problem.path, problem.code, problem.what, problem.remedy));
    }
    let seen = [
        (report.streams, "stream"),
        (report.epochs, "epoch"),
        (report.rows, "row"),
        (report.dead, "dead letter"),
        (report.raw_segments, "raw segment"),
        (report.orphans, "orphan"),
    ];
    let seen = seen.map(|(number, what)| count(number, what)).join(", ");
    output::line(&format_args!("{seen}: {}", count(report.problem_count, "problem")));
}
