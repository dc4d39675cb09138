//! TOML to typed settings: everything wrong is reported at once, with file, line, field and what to do.

mod document;
mod files;
mod jobs;
mod lake;
mod load;
mod model;
mod schema;
mod sections;
mod syntax;
#[cfg(test)]
mod tests;

pub use load::load;
pub use model::*;
