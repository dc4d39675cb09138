//! A circuit for a store: while the store fails, one request at a time asks whether it is back, and everybody else waits.
//!
//! ```text
//!            failures in a row                 the pause is over
//!   closed ────────────────────▶ open ◀──────────────────────────▶ probing
//!      ▲                                   the probe failed             │
//!      └────────────────── any answer of the store ────────────────────┘
//! ```
//!
//! Without it an outage costs (streams × tries) requests, all of which a store that is coming back has to refuse.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::gauge;
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::telemetry::metrics::LAKE_CIRCUIT_OPEN;

/// Failures in a row, of whatever requests, after which the circuit opens. More than one flaky connection makes, fewer
/// than the requests that one epoch has under way.
const FAILURES_MAX: u32 = 5;
/// The first pause before a probe; doubles with each that fails.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// The longest pause: what a recovered store stands idle at most.
const PAUSE_MAX: Duration = Duration::from_secs(4);
/// How long a request waits for the circuit to close before its caller is told, so that logs and status tell of an
/// outage while it lasts.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// The store fails and is given a rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the store fails with {0}; one request at a time asks whether it is back")]
pub(crate) struct Resting(&'static str);

#[derive(Debug, Clone, Copy)]
enum Phase {
    Closed { failures: u32 },
    Open { until: Instant },
    Probing,
}

#[derive(Debug)]
struct Inner {
    phase: Phase,
    pause: Duration,
    /// The code of the newest failure.
    code: &'static str,
    /// Stirs the pauses, so that several nodes do not probe in step.
    stir: u64,
}

/// The circuit of one store.
#[derive(Debug)]
pub(crate) struct Circuit {
    inner: Mutex<Inner>,
    changed: Notify,
}

/// Leave to ask the store once. It wants to be told how that went; one that is dropped untold says nothing.
#[derive(Debug)]
pub(crate) struct Pass {
    circuit: Arc<Circuit>,
    told: bool,
    probe: bool,
}

enum Look {
    Go { probe: bool },
    Wait { until: Option<Instant> },
}

impl Circuit {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        let inner = Inner { phase: Phase::Closed { failures: 0 }, pause: PAUSE_MIN, code: "", stir: seed };
        Arc::new(Self { inner: Mutex::new(inner), changed: Notify::new() })
    }

    /// Waits until the store may be asked.
    ///
    /// # Errors
    /// [`Resting`] where that takes too long.
    pub(crate) async fn admit(self: &Arc<Self>) -> Result<Pass, Resting> {
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on nothing that changes is missed.
            changed.as_mut().enable();
            let until = match self.look() {
                Look::Go { probe } => return Ok(Pass { circuit: Arc::clone(self), told: false, probe }),
                Look::Wait { until } => until.map_or(deadline, |until| until.min(deadline)),
            };
            if Instant::now() >= deadline {
                return Err(Resting(self.lock().code));
            }
            tokio::select! {
                () = changed => {}
                () = sleep_until(until) => {}
            }
        }
    }

    fn look(&self) -> Look {
        let mut inner = self.lock();
        match inner.phase {
            Phase::Closed { .. } => Look::Go { probe: false },
            Phase::Open { until } if Instant::now() >= until => {
                inner.phase = Phase::Probing;
                Look::Go { probe: true }
            }
            Phase::Open { until } => Look::Wait { until: Some(until) },
            Phase::Probing => Look::Wait { until: None },
        }
    }

    fn answered(&self) {
        let mut inner = self.lock();
        let opened = !matches!(inner.phase, Phase::Closed { .. });
        inner.phase = Phase::Closed { failures: 0 };
        inner.pause = PAUSE_MIN;
        drop(inner);
        if opened {
            gauge!(LAKE_CIRCUIT_OPEN).set(0.0);
            tracing::info!(code = "lake_circuit_closed", "the lake's store answers again");
            self.changed.notify_waiters();
        }
    }

    fn failed(&self, probe: bool, code: &'static str) {
        let mut inner = self.lock();
        inner.code = code;
        let opens = match inner.phase {
            Phase::Closed { failures } => {
                inner.phase = Phase::Closed { failures: failures + 1 };
                failures + 1 >= FAILURES_MAX
            }
            // What was under way when it opened tells nothing new.
            Phase::Open { .. } => false,
            Phase::Probing => probe,
        };
        if !opens {
            return;
        }
        let first = matches!(inner.phase, Phase::Closed { .. });
        let until = Instant::now() + inner.next_pause();
        inner.phase = Phase::Open { until };
        drop(inner);
        if first {
            gauge!(LAKE_CIRCUIT_OPEN).set(1.0);
            tracing::warn!(
                code = "lake_circuit_open",
                cause = code,
                "the lake's store fails; one request at a time asks it until it answers, the streams wait"
            );
        }
        self.changed.notify_waiters();
    }

    /// A probe that was given up before it had an answer: somebody else may probe at once.
    fn given_up(&self) {
        self.lock().phase = Phase::Open { until: Instant::now() };
        self.changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn next_pause(&mut self) -> Duration {
        self.stir = self.stir.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let part = u32::try_from((self.stir >> 33) % 512).unwrap_or(0);
        let pause = self.pause / 2 + self.pause * part / 1024;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        pause
    }
}

impl Pass {
    /// The store said something that makes sense, be it a refusal.
    pub(crate) fn answered(mut self) {
        self.told = true;
        self.circuit.answered();
    }

    /// The store failed, as `code` says.
    pub(crate) fn failed(mut self, code: &'static str) {
        self.told = true;
        self.circuit.failed(self.probe, code);
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.probe && !self.told {
            self.circuit.given_up();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn opened() -> Arc<Circuit> {
        let circuit = Circuit::new(1);
        for _ in 0..FAILURES_MAX {
            circuit.admit().await.unwrap().failed("x");
        }
        circuit
    }

    #[tokio::test(start_paused = true)]
    async fn test_circuit_stays_closed_while_some_requests_are_answered() {
        let circuit = Circuit::new(1);
        for _ in 0..100 {
            for _ in 1..FAILURES_MAX {
                circuit.admit().await.unwrap().failed("x");
            }
            circuit.admit().await.unwrap().answered();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn test_circuit_lets_one_of_many_ask_a_failing_store() {
        let circuit = opened().await;
        let asked = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let began = Instant::now();
        let streams = (0..1_000).map(|_| {
            let (circuit, asked) = (Arc::clone(&circuit), Arc::clone(&asked));
            tokio::spawn(async move {
                while began.elapsed() < Duration::from_secs(60) {
                    if let Ok(pass) = circuit.admit().await {
                        asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        pass.failed("x");
                    }
                }
            })
        });
        for stream in streams.collect::<Vec<_>>() {
            stream.await.unwrap();
        }
        let asked = asked.load(std::sync::atomic::Ordering::Relaxed);
        // Pauses of 2 to 4 s at the end.
        assert!((15..=40).contains(&asked), "{asked} requests in a minute");
    }

    #[tokio::test(start_paused = true)]
    async fn test_circuit_wakes_all_who_wait_when_the_store_answers() {
        let circuit = opened().await;
        let waiting: Vec<_> = (0..100)
            .map(|_| {
                let circuit = Arc::clone(&circuit);
                tokio::spawn(async move { circuit.admit().await.map(Pass::answered) })
            })
            .collect();
        let began = Instant::now();
        for one in waiting {
            assert_eq!(one.await.unwrap(), Ok(()));
        }
        assert!(began.elapsed() <= PAUSE_MIN);
    }

    #[tokio::test(start_paused = true)]
    async fn test_circuit_tells_callers_when_the_wait_is_long_and_survives_a_dropped_probe() {
        let circuit = opened().await;
        tokio::time::advance(PAUSE_MIN).await;
        let probe = circuit.admit().await.unwrap();
        assert_eq!(circuit.admit().await.unwrap_err(), Resting("x"));
        drop(probe);
        circuit.admit().await.unwrap().answered();
        circuit.admit().await.unwrap().answered();
    }
}
