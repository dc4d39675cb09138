//! TOML to typed settings: everything wrong is reported at once, with file, line, field and what to do.

mod diff;
mod document;
mod endpoints;
mod files;
mod jobs;
mod lake;
mod load;
mod model;
mod overlay;
mod schema;
mod sections;
mod syntax;
#[cfg(test)]
mod tests;

pub use diff::{Changes, diff};
pub use load::load;
pub use model::*;
pub use overlay::{Refused, overlay};
