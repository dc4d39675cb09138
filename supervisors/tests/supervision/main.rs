//! The supervision contract, on the paused clock.

#![allow(clippy::unwrap_used, reason = "tests and what they share")]

mod support;

mod beyond;
mod contract;
mod groups;
mod kinds;
mod model;
mod nested;
