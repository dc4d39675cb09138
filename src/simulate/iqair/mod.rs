//! A stand-in for the IQAir API: the same endpoints, bodies and errors, stations whose observations follow from the
//! seed, faults at will, and a record of everything that was handed over.
//!
//! `GET /v2/nearest_city?lat&lon`, `/v2/city?city&state&country` and `/v2/station?station&city&state&country`, each
//! with `key`. Plain HTTP on loopback, unless told otherwise.

mod answer;
mod faults;
mod http;
mod stations;
#[cfg(test)]
mod tests;
mod truth;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use adapters::contract::Clock;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use faults::{Fault, Faults, SpecError};
pub use stations::{Observation, Station};
pub use truth::{Arrival, Handed, Truth};

use stations::Stations;

/// Open connections; more wait to be accepted. Above what 10,000 partitions with one connection each need.
const CONNECTIONS_MAX: usize = 16_384;
/// Connections that the system holds for us until they are accepted.
const BACKLOG: u32 = 4096;
/// A refused accept (no descriptors left, say) is tried again after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How a stand-in behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Everything follows from it.
    pub seed: u64,
    /// How many stations there are, at least one.
    pub stations: usize,
    /// How often observations change.
    pub tick: Duration,
    /// What goes wrong.
    pub faults: Faults,
    /// Where to write what was handed over, as JSON lines; the file is replaced.
    pub truth: Option<PathBuf>,
    /// The one right key; `None` takes any that is not empty.
    pub key: Option<String>,
    /// How long a slow body takes.
    pub slow: Duration,
    /// The wait that a 429 asks for.
    pub retry_after_secs: u64,
    /// Whether every arrival is kept, for those who measure how punctual the requests are.
    pub keep_arrivals: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            seed: 0,
            stations: 10,
            tick: Duration::from_secs(1),
            faults: Faults::none(),
            truth: None,
            key: None,
            slow: Duration::from_millis(400),
            retry_after_secs: 2,
            keep_arrivals: false,
        }
    }
}

struct Shared {
    options: Options,
    stations: Stations,
    truth: Arc<Truth>,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
}

/// A running stand-in. Dropped without [`StandIn::stop`], it stops as well, but nobody waits for it.
pub struct StandIn {
    addr: SocketAddr,
    shared: Arc<Shared>,
    listener: tokio::task::JoinHandle<()>,
}

impl fmt::Debug for StandIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StandIn").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl StandIn {
    /// Starts listening; tick 0 begins now.
    ///
    /// # Errors
    /// Where the address cannot be listened on or the truth file not be written.
    pub async fn start(options: Options, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let truth = Arc::new(Truth::new(options.truth.as_deref(), options.keep_arrivals)?);
        let socket = if options.listen.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(options.listen)?;
        let listener = socket.listen(BACKLOG)?;
        let addr = listener.local_addr()?;
        // Times of observations have whole milliseconds.
        let start_us = clock.now_us() / 1000 * 1000;
        let tick_us = i64::try_from(options.tick.as_micros()).unwrap_or(i64::MAX);
        let stations = Stations::new(options.seed, options.stations.max(1), start_us, tick_us);
        let shared = Arc::new(Shared { options, stations, truth, clock, stop: CancellationToken::new() });
        let listener = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { addr, shared, listener })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its stations, for those who configure partitions.
    #[must_use]
    pub fn stations(&self) -> &[Station] {
        &self.shared.stations.all
    }

    /// What `station` shows at `tick`, as anybody with the seed can tell.
    #[must_use]
    pub fn observation(&self, station: usize, tick: u64) -> Observation {
        self.shared.stations.observation(station, tick)
    }

    /// What was handed over so far; still readable after the stop.
    #[must_use]
    pub fn truth(&self) -> Arc<Truth> {
        Arc::clone(&self.shared.truth)
    }

    /// Closes every connection and waits until all are recorded.
    pub async fn stop(mut self) {
        self.shared.stop.cancel();
        // A listener that panicked has nothing left to wait for.
        let _ = (&mut self.listener).await;
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = accept_one(&listener, &places) => {
                let Some((stream, place)) = accepted else { continue };
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    http::serve(stream, shared).await;
                    drop(place);
                });
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn accept_one(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, place)),
        Err(_) => {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}
