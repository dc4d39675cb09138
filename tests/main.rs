//! Tests of the built binary, in one test binary so that it is linked once.
//!
//! The binary under test has the feature `crashpoints` (a dev-dependency of the package on itself switches it on for
//! tests, and for nothing else), so that the same build can be killed at a named point.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests; what they print is shown where one fails")]

mod bench;
mod bugs;
mod bugs_of_recovery;
mod checked;
mod crash;
mod crash_points;
mod fencing;
mod house;
mod interface;
mod messages;
mod misbehaving;
mod owners;
mod panics;
mod s3;
mod state_damage;
mod stores;
mod supervision;
mod support;
