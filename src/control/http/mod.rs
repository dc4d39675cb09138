//! The HTTP API of interface §3.
//!
//! Each request passes the guard (who, how many, how long), one route, and on its way back the guard again, which
//! writes refusals in the form of the route.

mod connections;
mod error;
mod follow;
mod guard;
mod input;
pub mod limits;
mod node;
mod openapi;
mod routes;
mod streams;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use adapters::contract::Clock;
use serde_json::Value;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::settings::ApiSettings;
use crate::streams::api::Streams;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::restarts::RestartLog;

/// TOML text to its problems, each a JSON object; none = valid. Called off the async threads.
pub type Validate = Arc<dyn Fn(&str) -> Vec<Value> + Send + Sync>;

/// What the API speaks for.
#[derive(Clone)]
pub struct Deps {
    /// The streams.
    pub streams: Arc<dyn Streams>,
    /// The restart log.
    pub restarts: Arc<RestartLog>,
    /// The metrics.
    pub metrics: Metrics,
    /// Checks configuration.
    pub validate: Validate,
    /// For `since=15m`.
    pub clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Deps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deps").field("restarts", &self.restarts).finish_non_exhaustive()
    }
}

/// The API could not be opened.
#[derive(Debug, Error)]
pub enum ServeError {
    /// A configuration error: anybody who reaches the address could command the node.
    #[error("api.listen {0} is beyond loopback, which needs api.token")]
    TokenNeeded(SocketAddr),
    /// A configuration error: a token of nothing guards nothing.
    #[error("api.token is empty")]
    TokenEmpty,
    /// The address is taken, or not this machine's.
    #[error("the API cannot listen on {address}")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

/// What all routes share.
#[derive(Debug)]
struct App {
    deps: Deps,
    access: guard::Access,
    long_polls: Arc<Semaphore>,
    followers: Arc<Semaphore>,
    stop: CancellationToken,
}

/// Opens the API and serves it until `stop` ends; then answers under way get [`limits::DRAIN`]. Returns the address
/// (which tells the port where 0 was asked for) and the task, which ends when all is closed.
///
/// # Errors
/// Where the address needs a token and has none, or cannot be listened on.
pub async fn serve(
    settings: &ApiSettings,
    deps: Deps,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(SocketAddr, JoinHandle<()>), ServeError> {
    let token = settings.token.as_ref().map(|secret| secret.reveal());
    if token.is_some_and(str::is_empty) {
        return Err(ServeError::TokenEmpty);
    }
    if token.is_none() && !settings.listen.ip().is_loopback() {
        return Err(ServeError::TokenNeeded(settings.listen));
    }
    let failed = |source| ServeError::Listen { address: settings.listen, source };
    let listener = TcpListener::bind(settings.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let stopping = CancellationToken::new();
    let app = Arc::new(App {
        deps,
        access: guard::Access::new(token),
        long_polls: Arc::new(Semaphore::new(limits::LONG_POLLS_MAX)),
        followers: Arc::new(Semaphore::new(limits::FOLLOWERS_MAX)),
        stop: stopping.clone(),
    });
    let serving = connections::run(listener, routes::router(app), stopping.clone());
    tracing::info!(addr = %address, token = token.is_some(), "api listening");
    let task = tokio::spawn(async move {
        let mut serving = Box::pin(serving);
        tokio::select! {
            () = serving.as_mut() => {}
            () = stop => {
                stopping.cancel();
                serving.await;
            }
        }
    });
    Ok((address, task))
}

#[cfg(test)]
#[path = "tests/mod.rs"]
mod tests;
