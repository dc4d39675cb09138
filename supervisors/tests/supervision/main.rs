//! The supervision contract, on the paused clock.

#![allow(clippy::unwrap_used, reason = "tests and what they share")]

mod support;

mod beyond;
mod examples;
mod groups;
mod kinds;
mod lifecycle;
mod limits;
mod manage;
mod model;
mod nested;
mod pages;
mod significant;
