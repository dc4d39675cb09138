//! A worker: mounts one partition's source, runs its workloads on their beats and hands over what they give.

mod beat;
mod workload;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use adapters::contract::{Cadence, Credits, ErrorClass, Partition, Position, Source, SourceError};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use supervisors::{ChildContext, Class, Failure, Reason};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tracing::Instrument;

use super::intake::{Intake, IntakeError};
use super::shared::{Phase, Shared};
use crate::faults;
use crate::settings::Job;
use beat::next_beat;

pub(super) use beat::first_poll_delay;

/// A worker's own state over its life.
struct Worker {
    shared: Arc<Shared>,
    ctx: ChildContext,
    partition: Partition,
    intake: Arc<Intake>,
    changed: Arc<Notify>,
    interrupt: Arc<Notify>,
    job: Arc<Job>,
    jobs: watch::Receiver<Option<Arc<Job>>>,
    credits: Credits,
    position: Option<Position>,
    told: Option<Position>,
    rng: SmallRng,
}

/// How a turn ended.
enum Turn {
    /// The worker goes on.
    Again,
    /// The worker ends normally.
    End,
}

/// Takes over `partition`; gives what the restart log shows as `resumed_from`, and the life to come.
pub(super) fn start(
    shared: Arc<Shared>,
    ctx: ChildContext,
    partition: Partition,
    first_poll: Duration,
) -> Result<(Value, impl Future<Output = Result<(), Failure>> + Send + 'static), Failure> {
    // A committer that panicked leaves its intake behind.
    let intake = shared.intake.borrow().clone().filter(|intake| !intake.is_closed()).ok_or_else(no_claim)?;
    let mut jobs = shared.job.subscribe();
    let job = jobs.borrow_and_update().clone().ok_or_else(no_claim)?;
    let ticket = intake.register(&partition.name, ctx.incarnation);
    let positions: BTreeMap<_, _> = ticket.position.iter().map(|at| (partition.name.clone(), at.as_str())).collect();
    let info = json!({"epoch": shared.progress.borrow().epoch, "positions": positions});
    let interrupt = shared.worker(&partition.name, |view| {
        view.phase = Phase::Starting;
        Arc::clone(&view.interrupt)
    });
    let worker = Worker {
        credits: shared.credits.for_worker(),
        rng: SmallRng::seed_from_u64(shared.env(&partition.name).seed ^ ctx.incarnation),
        told: ticket.position.clone(),
        position: ticket.position,
        changed: ticket.changed,
        shared,
        ctx,
        partition,
        intake,
        interrupt,
        job,
        jobs,
    };
    Ok((info, worker.run(first_poll)))
}

fn no_claim() -> Failure {
    failure(Class::Transient, "no_claim", "the stream has no claim on its table yet")
}

fn failure(class: Class, code: &str, message: &str) -> Failure {
    Failure { reason: Reason { class, code: code.to_owned(), message: message.to_owned() }, retry_after: None }
}

fn class_of(class: ErrorClass) -> Class {
    match class {
        ErrorClass::Transient => Class::Transient,
        ErrorClass::RateLimited => Class::RateLimited,
        ErrorClass::Config => Class::Config,
        ErrorClass::Auth => Class::Auth,
        ErrorClass::Data => Class::Data,
        ErrorClass::Resource => Class::Resource,
        ErrorClass::Bug => Class::Bug,
    }
}

fn from_source(error: &SourceError) -> Failure {
    Failure { retry_after: error.retry_after, ..failure(class_of(error.class), &error.code, &error.message) }
}

impl Worker {
    async fn run(mut self, first_poll: Duration) -> Result<(), Failure> {
        let mut beat = Instant::now() + first_poll;
        // Jitter spreads what repeats; who has just asked for a poll is not kept waiting.
        let mut at_once = true;
        let mut source = None;
        if faults::bug("backoff_reset_at_spawn") {
            self.ctx.progress.healthy();
        }
        loop {
            if self.take_job_change() {
                source = None;
                if !self.job.mount.partitions().iter().any(|p| p.name == self.partition.name) {
                    return Ok(());
                }
            }
            let turn = match self.job.mount.cadence() {
                Cadence::Continuous => self.continuous(&mut source).await?,
                Cadence::Polled { interval, jitter, timeout } => {
                    let jittered = if at_once { beat } else { beat + self.jitter(jitter) };
                    match self.wait_until(jittered, &mut source).await? {
                        Turn::End => return Ok(()),
                        Turn::Again => {}
                    }
                    if self.jobs.has_changed().unwrap_or(false) {
                        // A changed configuration takes effect at the end of the interval, which is now.
                        beat = Instant::now();
                        at_once = true;
                        continue;
                    }
                    at_once = false;
                    let started = Instant::now();
                    if let Some(lags) = &self.shared.node.start_lags {
                        let lag = started.saturating_duration_since(jittered);
                        lags.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(lag);
                    }
                    let span =
                        tracing::info_span!("workload", stream = %self.shared.id, partition = self.partition.name);
                    let wait = self.workload(&mut source, timeout).instrument(span).await?;
                    beat = next_beat(beat, interval, Instant::now()).max(started + wait.unwrap_or_default());
                    if wait.is_none() { Turn::End } else { Turn::Again }
                }
            };
            if matches!(turn, Turn::End) {
                self.shared.worker(&self.partition.name, |view| view.phase = Phase::Ended);
                return Ok(());
            }
        }
    }

    /// Takes over a changed job; true if there was one.
    fn take_job_change(&mut self) -> bool {
        if !self.jobs.has_changed().unwrap_or(false) {
            return false;
        }
        match self.jobs.borrow_and_update().clone() {
            Some(job) if !Arc::ptr_eq(&job, &self.job) => {
                self.job = job;
                true
            }
            _ => false,
        }
    }

    fn jitter(&mut self, jitter: Duration) -> Duration {
        jitter.mul_f64(self.rng.random::<f64>())
    }

    /// Waits for the beat, telling the source meanwhile what was committed.
    async fn wait_until(&mut self, at: Instant, source: &mut Option<Box<dyn Source>>) -> Result<Turn, Failure> {
        self.ctx.progress.idle();
        let left_us = i64::try_from(at.saturating_duration_since(Instant::now()).as_micros()).unwrap_or(i64::MAX);
        let at_us = self.shared.node.clock.now_us().saturating_add(left_us);
        self.shared.worker(&self.partition.name, |view| view.phase = Phase::Waiting(at_us));
        loop {
            tokio::select! {
                biased;
                () = self.ctx.stop.stopped() => return Ok(Turn::End),
                () = self.intake.closed() => return Ok(self.wait_for_stop().await),
                () = sleep_until(at) => return Ok(Turn::Again),
                () = self.changed.notified() => {
                    self.check_refusal()?;
                    if let Some(source) = source {
                        self.acknowledge(source).await;
                    }
                }
            }
        }
    }

    /// The committer is gone: whoever restarts it restarts this worker, too.
    async fn wait_for_stop(&self) -> Turn {
        self.ctx.stop.stopped().await;
        Turn::End
    }

    fn check_refusal(&self) -> Result<(), Failure> {
        match self.intake.refusal(&self.partition.name) {
            Some(refused) => Err(lost(&refused)),
            None => Ok(()),
        }
    }

    /// Tells the source what is committed, once.
    async fn acknowledge(&mut self, source: &mut Box<dyn Source>) {
        let early = faults::bug("acknowledge_before_raw").then(|| self.position.clone()).flatten();
        let Some(committed) = early.or_else(|| self.intake.acknowledged(&self.partition.name)) else { return };
        if self.told.as_ref() == Some(&committed) {
            return;
        }
        match source.acknowledge(&committed).await {
            Ok(()) => {
                faults::acknowledged(&self.partition.name, committed.as_str());
                self.told = Some(committed);
            }
            Err(e) => tracing::warn!(
                code = e.code,
                message = e.message,
                "the source could not be told; it will be with the next epoch"
            ),
        }
    }

    async fn open(&self) -> Result<Box<dyn Source>, Failure> {
        let env = self.shared.env(&self.partition.name);
        self.job.mount.open(&self.partition, self.position.as_ref(), env).await.map_err(|e| from_source(&e))
    }
}

fn lost(why: &IntakeError) -> Failure {
    match why {
        IntakeError::Refused { code, message } => failure(Class::Config, code, message),
        IntakeError::Gap { .. } => failure(Class::Bug, "position_gap", &why.to_string()),
        IntakeError::Closed | IntakeError::Superseded => failure(Class::Transient, "committer_gone", &why.to_string()),
    }
}
