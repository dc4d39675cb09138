//! The supervision contract, on the paused clock.

#![allow(clippy::unwrap_used, reason = "tests and what they share")]

mod support;

mod abandonment;
mod beyond;
mod change_order;
mod check_specs;
mod contract;
mod drain;
mod dynamic_shutdown;
mod examples;
mod flap_score;
mod formats;
mod groups;
mod initial_retry;
mod intensity_warning;
mod kinds;
mod limits;
mod live_view;
mod model;
mod nested;
mod pages;
mod panic_backtrace;
mod partitions;
mod retry_after;
mod start_forms;
mod stop_report;
mod storm_limiter;
