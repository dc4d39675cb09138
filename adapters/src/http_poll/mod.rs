//! `kind = "http_poll"`: any HTTP source that answers JSON, described in TOML.
//!
//! ```toml
//! [adapter.FEED]
//! kind = "http_poll"
//! base_url = "https://api.example.org"
//! interval = "1m"
//! auth = { type = "api_key", in = "query", name = "key", value = "env:KEY" }
//! budgets = [ { key = "env:KEY", limit = 5, per = "1m" } ]
//! cursor = { field = "id", start = "0" }
//! next = { body = "$.next" }
//! partitions = [ { feed = "main" } ]
//! [adapter.FEED.request]
//! path = "/feed/{part.feed}"
//! query = { since = "{cursor}", limit = "100" }
//! [adapter.FEED.records]
//! select = "$.data"
//! key = ["id"]
//! event_time = "at"
//! ```

mod read;
mod request;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use crate::contract::config::Reader;
use crate::contract::{Decode, Kind, Mount};
use crate::http::{Budgets, HttpMount};
use crate::json::{Growth, JsonDecoder, JsonSpec, schema_from_config};

/// The value of `kind`.
pub const NAME: &str = "http_poll";

/// The kind.
#[derive(Debug)]
pub struct HttpPoll {
    budgets: Arc<Budgets>,
}

impl HttpPoll {
    /// The kind, whose adapters share `budgets` with all other kinds that speak HTTP.
    #[must_use]
    pub fn new(budgets: Arc<Budgets>) -> Self {
        Self { budgets }
    }
}

impl Kind for HttpPoll {
    fn name(&self) -> &'static str {
        NAME
    }

    fn read(&self, adapter: &Reader<'_>) -> Option<Arc<dyn Mount>> {
        let schema = declared_schema(adapter);
        let (settings, select, event_time) = read::settings(adapter)?;
        let schema = schema?;
        let decoder = decoder(select, event_time, schema.clone(), growth(adapter, schema.is_some()));
        Some(Arc::new(HttpMount::new(settings, Arc::clone(&self.budgets), decoder, schema)))
    }
}

/// `table.schema`. The table's other keys are the caller's, so it is not finished here.
fn declared_schema(adapter: &Reader<'_>) -> Option<Option<SchemaRef>> {
    if !adapter.has("table") {
        return Some(None);
    }
    schema_from_config(&adapter.section("table")?, "schema")
}

/// `on_schema_change`, which the caller reads, too, for what becomes of the dead ones. Absent: declared columns stay as
/// declared, inferred ones grow.
fn growth(adapter: &Reader<'_>, declared: bool) -> Growth {
    let choices = [("add", Growth::Add), ("dead_letter", Growth::Refuse), ("park", Growth::Refuse)];
    let absent = if declared { Growth::AsDeclared } else { Growth::Add };
    adapter.choice("on_schema_change", &choices).unwrap_or(absent)
}

fn decoder(select: String, event_time: Option<String>, schema: Option<SchemaRef>, growth: Growth) -> Arc<dyn Decode> {
    let event_time = event_time.map(|path| path.strip_prefix("$.").map(str::to_owned).unwrap_or(path));
    Arc::new(JsonDecoder::new(JsonSpec { select: Some(select), event_time, schema, growth }))
}
