//! `kind = "iqair"`: the AirVisual API of IQAir.
//!
//! ```toml
//! [adapter.IQAIR_DAILY]
//! kind = "iqair"
//! endpoint = "https://api.airvisual.com/v2/nearest_city"
//! secret_key = "env:IQAIR_KEY"
//! interval = "1h"
//! budgets = [ { key = "env:IQAIR_KEY", limit = 5, per = "1m" }, { key = "env:IQAIR_KEY", limit = 10000, per = "calendar_month" } ]
//! partitions = [ { lat = 52.52, lon = 13.40 } ]
//! ```
//!
//! The last segment of `endpoint` decides the call and what a partition must say:
//!
//! | endpoint | partition |
//! |---|---|
//! | `…/nearest_city` | `lat`, `lon`; or none at all: the nearest to the node's own address |
//! | `…/city` | `city`, `state`, `country` |
//! | `…/station` | `station`, `city`, `state`, `country` |
//!
//! Columns and their units are in [`COLUMNS`]. It is a current-value source: an unchanged observation makes no row, a
//! changed one does, under the same timestamps too. The event time is `pollution_ts`, else `weather_ts`.

mod decode;
mod read;
mod refusals;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::contract::config::Reader;
use crate::contract::{Kind, Mount};
use crate::http::{Budgets, HttpMount};

pub use decode::{COLUMNS, Column, ColumnKind, schema};

/// The value of `kind`.
pub const NAME: &str = "iqair";

/// The kind.
#[derive(Debug)]
pub struct Iqair {
    budgets: Arc<Budgets>,
}

impl Iqair {
    /// The kind, whose adapters share `budgets` with all other kinds that speak HTTP.
    #[must_use]
    pub fn new(budgets: Arc<Budgets>) -> Self {
        Self { budgets }
    }
}

impl Kind for Iqair {
    fn name(&self) -> &'static str {
        NAME
    }

    fn read(&self, adapter: &Reader<'_>) -> Option<Arc<dyn Mount>> {
        let settings = read::settings(adapter)?;
        let decoder = Arc::new(decode::IqairDecoder::default());
        Some(Arc::new(HttpMount::new(settings, Arc::clone(&self.budgets), decoder, Some(schema()))))
    }
}
