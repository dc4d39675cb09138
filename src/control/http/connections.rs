//! The listener's side: bounded connections, slow senders put out, an orderly end.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use super::limits::{CONNECTIONS_MAX, DRAIN, HEADER_BYTES_MAX, HEADER_TIME_MAX};

/// Until the next try after the system refused a connection, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A connection as the others see it.
#[derive(Debug)]
struct Slot {
    opened: Instant,
    /// Requests under way on it.
    busy: AtomicUsize,
    /// ms from `opened` to the last moment at which it was busy.
    idle_since: AtomicU64,
}

impl Slot {
    fn idle_since(&self) -> Instant {
        self.opened + Duration::from_millis(self.idle_since.load(Ordering::Relaxed))
    }
}

/// Keeps its connection from being put out as idle. In the extensions of every request.
#[derive(Debug)]
pub(super) struct Busy(Arc<Slot>);

impl Busy {
    fn new(slot: &Arc<Slot>) -> Self {
        slot.busy.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(slot))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let age = u64::try_from(self.0.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.idle_since.store(age, Ordering::Relaxed);
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All connections.
#[derive(Debug, Default)]
struct Table(Mutex<HashMap<u64, (Arc<Slot>, AbortHandle)>>);

impl Table {
    /// Makes room for one more; false where all are busy.
    fn make_room(&self) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < CONNECTIONS_MAX {
            return true;
        }
        let idle = all.iter().filter(|(_, (slot, _))| slot.busy.load(Ordering::Relaxed) == 0);
        let Some(id) = idle.min_by_key(|(_, (slot, _))| slot.idle_since()).map(|(id, _)| *id) else { return false };
        if let Some((_, connection)) = all.remove(&id) {
            connection.abort();
        }
        true
    }

    fn add(&self, id: u64, slot: Arc<Slot>, connection: AbortHandle) {
        // It may have ended already; then nobody would take it out.
        if !connection.is_finished() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id, (slot, connection));
        }
    }

    fn sweep(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, (_, connection)| !connection.is_finished());
    }
}

/// Takes connections for `router` until `stop`, then lets answers under way end within [`DRAIN`].
pub(super) async fn run(listener: TcpListener, router: Router, stop: CancellationToken) {
    let table = Table::default();
    let mut tasks: JoinSet<()> = JoinSet::new();
    let mut last_id = 0;
    loop {
        tokio::select! {
                    () = stop.cancelled() => break,
            Some(_) = tasks.join_next() => table.sweep(),
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    if !table.make_room() {
                        tracing::warn!(code = "api_connections", "all connections are busy; a new one was refused");
                        continue;
                    }
                    last_id += 1;
                    let slot = Arc::new(Slot { opened: Instant::now(), busy: 0.into(), idle_since: 0.into() });
                    let connection = connection(stream, peer, Arc::clone(&slot), router.clone(), stop.clone());
                    let task = tasks.spawn(connection);
                    table.add(last_id, slot, task);
                }
                Err(error) => {
                    tracing::warn!(code = "api_accept", error = %error.kind(), "a connection could not be taken");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let ended = tokio::time::timeout(DRAIN, async { while tasks.join_next().await.is_some() {} }).await;
    if ended.is_err() {
        tasks.shutdown().await;
    }
}

fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    slot: Arc<Slot>,
    router: Router,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    // Answers are small; without this their second part would wait for an acknowledgement.
    let _works_without = stream.set_nodelay(true);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut router = router.clone();
        let mut request = request.map(Body::new);
        let busy = Arc::new(Busy::new(&slot));
        request.extensions_mut().insert(Arc::clone(&busy));
        request.extensions_mut().insert(peer);
        async move {
            let response: Result<_, Infallible> = router.call(request).await;
            drop(busy);
            response
        }
    });
    async move {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIME_MAX)
            .max_header_size(HEADER_BYTES_MAX)
            .max_buf_size(HEADER_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = Box::pin(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(code = "api_connection", timeout = error.is_timeout(), "a connection ended badly");
        }
    }
}
