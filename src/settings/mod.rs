//! TOML to typed settings: everything wrong is reported at once, with file, line, field and what to do.

mod columns;
#[cfg(test)]
mod config_files;
mod diff;
mod document;
mod files;
mod jobs;
mod lake;
mod load;
mod model;
mod overlay;
mod sections;
mod syntax;
#[cfg(test)]
mod tests;

pub use diff::{Changes, diff};
pub use lake::lake_options;
pub use load::{check_text, load};
pub use model::*;
pub use overlay::{Refused, overlay};
