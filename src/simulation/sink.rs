//! A broker outside, to which references go.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::time::sleep;

use super::draw::Draw;
use super::store::Gate;
use super::truth::Truth;
use crate::announce::{Sink, SinkError};
use crate::names::StreamId;

/// How the broker is for a while: of 1000 publications so many are refused, lose their answer, are taken late.
#[derive(Debug, Clone, Default)]
pub(crate) struct Service {
    pub(crate) refused: u64,
    pub(crate) answer_lost: u64,
    pub(crate) slow: u64,
    /// It cannot tell what it has.
    pub(crate) forgetful: bool,
}

/// Shared by all nodes.
#[derive(Debug)]
pub(crate) struct Broker {
    truth: Arc<Truth>,
    state: Mutex<(Draw, Service)>,
}

impl Broker {
    pub(crate) fn new(truth: Arc<Truth>, draw: Draw) -> Arc<Self> {
        Arc::new(Self { truth, state: Mutex::new((draw, Service::default())) })
    }

    pub(crate) fn set(&self, service: Service) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1 = service;
    }

    fn draw(&self) -> (u64, Service) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.0.below(1000), state.1.clone())
    }
}

/// A node's connection.
pub(crate) struct Connection {
    pub(crate) broker: Arc<Broker>,
    pub(crate) gate: Gate,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

#[async_trait]
impl Sink for Connection {
    fn name(&self) -> &'static str {
        "broker"
    }

    fn announced(&self, id: &StreamId) -> u64 {
        let state = self.broker.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.1.forgetful { 0 } else { self.broker.truth.stream(&id.to_string(), |stream| stream.announced) }
    }

    async fn publish(&self, id: &StreamId, epoch: u64, data: &Value) -> Result<(), SinkError> {
        self.gate.pass().await;
        let error = |message: &str| Err(SinkError { sink: "broker", message: message.to_owned() });
        let (drawn, service) = self.broker.draw();
        sleep(Duration::from_millis(if drawn < service.slow { 1500 } else { 1 })).await;
        self.gate.pass().await;
        if drawn < service.refused {
            return error("refused");
        }
        self.broker.truth.published(&id.to_string(), epoch, data);
        if drawn < service.refused + service.answer_lost { error("no answer") } else { Ok(()) }
    }
}
