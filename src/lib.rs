//! lakefeed: a supervised runtime that feeds a data lake. Modules in the order in which data flows.
pub mod simulate;
