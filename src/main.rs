//! `lakefeed`: parses the arguments, starts what they name, and ends with its exit code.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    ExitCode::from(lakefeed::verbs::run(lakefeed::cli::Cli::parse()))
}
