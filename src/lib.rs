//! lakefeed: a supervised runtime that feeds a data lake. Modules in the order in which data flows.

pub mod announce;
pub mod checkpoint;
pub mod faults;
pub mod lake;
pub mod names;
pub mod oracle;
pub mod settings;
pub mod streams;
