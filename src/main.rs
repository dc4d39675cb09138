//! `lakefeed`: parses the arguments, starts what they name, and ends with its exit code.

use std::process::ExitCode;

use clap::Parser;

/// Buffers of megabytes come and go on every thread. The system's allocator keeps a heap for each thread and gives
/// little of it back: a fifth more memory in `bench memory`, beyond what the configuration states.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ExitCode::from(lakefeed::verbs::run(lakefeed::cli::Cli::parse()))
}
