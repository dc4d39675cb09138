//! Reading settings: a tree of values that know where they stand, and a reader that reports every problem at once.
//!
//! TOML files and messages both become a [`Table`], so one reader serves `validate`, `run` and `worker:start`. A key
//! that nobody asked for is an error with the nearest known name, and the names known are exactly those that the
//! code asked for: there is no second list to keep.

mod problem;
mod reader;
mod secret;
mod tree;
mod units;

pub use problem::{Problem, Problems, nearest, nearest_hint, show_key};
pub use reader::Reader;
pub use secret::{MapSecrets, ProcessSecrets, Secret, SecretSource};
pub use tree::{Entry, Mark, Node, Table, Value};
pub use units::{DURATION_MAX, DURATION_MIN, parse_duration, parse_size, show_duration};
