//! lakefeed: a supervised runtime that feeds a data lake. Modules in the order in which data flows.

pub mod cli;
pub mod settings;

//APP pub mod app;
//APP pub mod run;

pub mod streams;

pub mod pipeline;

pub mod lake;

pub mod checkpoint;

pub mod announce;

//APP pub mod maintenance;

pub mod telemetry;

//APP pub mod demo;
pub mod simulate;

pub mod faults;
pub mod names;
pub mod oracle;
