//! An adapter that polls over HTTP, ready to be opened.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;

use super::budget::Budgets;
use super::client::Wire;
use super::settings::HttpSettings;
use super::source::{HttpSource, Shared};
use crate::contract::config::Secret;
use crate::contract::{Cadence, Decode, Env, Mount, Partition, Position, Replay, Source, SourceError};

/// A polled HTTP adapter. Its partitions share one pool of connections.
#[derive(Debug)]
pub struct HttpMount {
    settings: Arc<HttpSettings>,
    budgets: Arc<Budgets>,
    decoder: Decoder,
    schema: Option<SchemaRef>,
    /// Made when the first partition is opened: the resolver comes with its environment.
    shared: Mutex<Option<Arc<Shared>>>,
}

struct Decoder(Arc<dyn Decode>);

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decoder")
    }
}

impl HttpMount {
    /// An adapter whose payloads `decoder` reads; `schema` where its columns are fixed or declared.
    #[must_use]
    pub fn new(
        settings: HttpSettings,
        budgets: Arc<Budgets>,
        decoder: Arc<dyn Decode>,
        schema: Option<SchemaRef>,
    ) -> Self {
        Self { settings: Arc::new(settings), budgets, decoder: Decoder(decoder), schema, shared: Mutex::default() }
    }

    fn shared(&self, env: &Env) -> Result<Arc<Shared>, SourceError> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = &*shared {
            return Ok(Arc::clone(shared));
        }
        let who = self
            .settings
            .auth
            .secret()
            .or_else(|| self.settings.secrets().next())
            .map_or_else(|| "open".to_owned(), Secret::fingerprint);
        let made = Arc::new(Shared {
            settings: Arc::clone(&self.settings),
            budgets: Arc::clone(&self.budgets),
            wire: Wire::new(&self.settings, &env.resolve)?,
            wait_key: format!("{}/{who}", self.settings.base.origin().ascii_serialization()),
        });
        *shared = Some(Arc::clone(&made));
        Ok(made)
    }
}

#[async_trait]
impl Mount for HttpMount {
    fn replay(&self) -> Replay {
        if self.settings.records.cursor.is_some() { Replay::Replayable } else { Replay::CurrentValue }
    }

    fn cadence(&self) -> Cadence {
        let schedule = self.settings.schedule;
        Cadence::Polled { interval: schedule.interval, jitter: schedule.jitter, timeout: schedule.timeout }
    }

    fn partitions(&self) -> Vec<Partition> {
        self.settings.partitions.clone()
    }

    fn schema(&self) -> Option<SchemaRef> {
        self.schema.clone()
    }

    fn decoder(&self) -> Arc<dyn Decode> {
        Arc::clone(&self.decoder.0)
    }

    async fn open(
        &self,
        partition: &Partition,
        position: Option<&Position>,
        env: Env,
    ) -> Result<Box<dyn Source>, SourceError> {
        let shared = self.shared(&env)?;
        Ok(Box::new(HttpSource::new(shared, partition.clone(), position, env)?))
    }
}
