//! TOML to typed settings: everything wrong is reported at once, with file, line, field and what to do.

mod model;

pub use model::*;
