//! lakefeed: a supervised runtime that feeds a data lake. Modules in the order in which data flows.

pub mod cli;
pub mod settings;
pub mod verbs;

pub mod app;
pub mod control;
pub mod run;

pub mod streams;

pub mod pipeline;

pub mod lake;

pub mod checkpoint;

pub mod announce;

pub mod maintenance;

pub mod telemetry;

pub mod client;

pub mod bench;
pub mod demo;
pub mod simulate;
#[cfg(test)]
mod simulation;

pub mod faults;
pub mod heaps;
pub mod names;
pub mod oracle;
pub mod times;
