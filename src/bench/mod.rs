//! `lakefeed bench`: what this machine can do, as ratios in one run. Each benchmark makes its lake, its node and its
//! sources in a temporary folder, judges by the oracle that nothing was lost or doubled on the way, and removes it all.
//!
//! docs/performance.md tells what each one measures and how to read it.

mod bare;
mod ingest;
mod machine;
mod many;
mod memory;
mod meter;
mod node;
mod place;
mod polls;
mod recovery;
mod slow;
mod stats;
mod streams;
#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;

use adapters::contract::config::Problem;
use serde::Serialize;
use thiserror::Error;

use crate::app::StartError;
use crate::cli::{Bench, exit};

pub use ingest::{Bare, Ingest, IngestOptions, Ours, ingest};
pub use memory::{Memory, MemoryOptions, memory};
pub use place::Place;
pub use polls::{Polls, PollsOptions, polls};
pub use recovery::{ManyStreams, Recovery, RecoveryOptions, recovery};
pub use streams::{ManySmall, StreamsOptions, streams};

/// Why there is no figure.
#[derive(Debug, Error)]
pub enum BenchError {
    /// The system does not tell what is measured. Benchmarks read `/proc`, which Linux has.
    #[error("this system does not tell the processor time or memory of a process")]
    Unmeasurable(#[source] io::Error),
    /// Folder, file or port.
    #[error("the benchmark's folder cannot be used")]
    Folder(#[source] io::Error),
    /// The child process.
    #[error("the node's process cannot be started or stopped")]
    Program(#[source] io::Error),
    /// The child process ended by itself.
    #[error("the node ended by itself ({status}); its last word was: {last}")]
    Ended {
        /// How.
        status: String,
        /// The last line of its log.
        last: String,
    },
    /// The stand-in could not listen.
    #[error("the stand-in could not be started")]
    StandIn(#[source] io::Error),
    /// The benchmark's own configuration is wrong.
    #[error("the benchmark's configuration is wrong: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Settings(Vec<Problem>),
    /// The node did not start.
    #[error("the node did not start")]
    Start(#[from] StartError),
    /// A source of the bare loop failed, or its Parquet could not be written.
    #[error("the bare loop failed: {0}")]
    Bare(String),
    /// Nothing moves any more.
    #[error("{0} did not come in time")]
    Stalled(&'static str),
    /// A figure without what it is about is none.
    #[error("the lake is wrong, so the figures say nothing: {0}")]
    Wrong(String),
    /// The result could not be written.
    #[error("the result cannot be written")]
    Output(#[source] io::Error),
}

/// Runs the benchmark that the command line names and prints its result to `out`: one JSON document, or lines for
/// people. The exit code: 1 where records are missing or doubled or memory went beyond its bound, else 0.
///
/// # Errors
/// Where there is nothing to print.
pub async fn run(bench: &Bench, json: bool, out: &mut dyn Write) -> Result<u8, BenchError> {
    match bench {
        Bench::Ingest(args) => print(&ingest(&args.into()).await?, true, json, out),
        Bench::Recovery(args) => {
            let report = recovery(&RecoveryOptions::of(args, program()?)).await?;
            let ok = report.missing == 0 && report.doubled == 0;
            print(&report, ok, json, out)
        }
        Bench::Polls(args) => {
            let report = polls(&(*args).into()).await?;
            let ok = report.overlaps == 0 && report.in_retry_after == 0;
            print(&report, ok, json, out)
        }
        Bench::Memory(args) => {
            let report = memory(&MemoryOptions::of(args, program()?)).await?;
            let ok = report.rss_mib_max <= report.bound_mib;
            print(&report, ok, json, out)
        }
        Bench::Streams(args) => print(&streams(&args.into()).await?, true, json, out),
    }
}

fn program() -> Result<PathBuf, BenchError> {
    std::env::current_exe().map_err(BenchError::Program)
}

fn print(report: &(impl Serialize + Display), ok: bool, json: bool, out: &mut dyn Write) -> Result<u8, BenchError> {
    let text = if json {
        serde_json::to_string(report).map_err(|e| BenchError::Output(e.into()))?
    } else {
        report.to_string()
    };
    writeln!(out, "{text}").map_err(BenchError::Output)?;
    Ok(if ok { exit::DONE } else { exit::FAILED })
}
