//! Reading settings: a tree of values that know where they stand, and a reader that reports every problem at once.
//!
//! TOML files and messages both become a [`Table`], so one reader serves `validate`, `run` and `worker:start`. A key
//! that nobody asked for is an error with the nearest known name, and the names known are exactly those that the
//! code asked for: there is no second list to keep.

mod reader;
mod secret;
mod tree;

pub use reader::{
    DURATION_MAX, DURATION_MIN, Problem, Problems, Reader, nearest, nearest_hint, parse_duration, parse_size,
    show_duration, show_key,
};
pub use secret::{MapSecrets, ProcessSecrets, Secret, SecretSource};
pub use tree::{Entry, Mark, Node, Table, Value};
