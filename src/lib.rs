//! lakefeed: a supervised runtime that feeds a data lake. Modules in the order in which data flows.

pub mod client;
pub mod control;
pub mod faults;
pub mod lake;
pub mod names;
pub mod settings;
pub mod streams;
pub mod telemetry;
