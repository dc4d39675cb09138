//! A worker: mounts one partition's source, runs its workloads on their beats and hands over what they give.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use adapters::contract::{Batch, Cadence, Credits, ErrorClass, Partition, Position, Pull, Source, SourceError};
use metrics::histogram;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use supervisors::{ChildContext, Class, Failure, Reason};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tracing::Instrument;

use super::intake::{Delivery, Intake, IntakeError};
use super::shared::{Phase, Shared};
use crate::faults;
use crate::settings::Job;
use crate::telemetry::metrics::{POLL_SECONDS, stream_labels};

/// What a worker may take beyond its timeout before it counts as hung: the time to notice the deadline and to hand
/// over, on a busy machine.
const HUNG_GRACE: Duration = Duration::from_secs(10);

/// A continuous source may wait for its own rate or for credits, but it must come back to its loop.
const CONTINUOUS_TURN_MAX: Duration = Duration::from_secs(60);

/// First polls of many partitions follow each other at this distance (less, where the interval is too short for it):
/// one is at once, ten thousand are no storm.
const FIRST_POLL_SPACING: Duration = Duration::from_millis(5);

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

/// What a workload came to.
enum Outcome {
    Done,
    End,
    Interrupted,
    Stopped,
    TimedOut,
    Failed(SourceError),
    Lost(IntakeError),
}

/// Takes over `partition`; gives what the restart log shows as `resumed_from`, and the life to come.
pub(super) fn start(
    shared: Arc<Shared>,
    ctx: ChildContext,
    partition: Partition,
    first_poll: Duration,
) -> Result<(Value, impl Future<Output = Result<(), Failure>> + Send + 'static), Failure> {
    let intake = shared.intake.borrow().clone().ok_or_else(no_claim)?;
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

/// The delay of the first poll of the partition at `index` of `count`.
pub(super) fn first_poll_delay(job: &Job, index: usize, count: usize) -> Duration {
    let Cadence::Polled { interval, .. } = job.mount.cadence() else { return Duration::ZERO };
    let count = u32::try_from(count.max(1)).unwrap_or(u32::MAX);
    FIRST_POLL_SPACING.min(interval / count) * u32::try_from(index).unwrap_or(u32::MAX)
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

    /// One workload with its accounting. How long to wait at least before the next one, `None` at the end.
    async fn workload(
        &mut self,
        slot: &mut Option<Box<dyn Source>>,
        timeout: Duration,
    ) -> Result<Option<Duration>, Failure> {
        let mut source = match slot.take() {
            Some(source) => source,
            None => self.open().await?,
        };
        self.shared.worker(&self.partition.name, |view| view.phase = Phase::Working);
        let started = Instant::now();
        let outcome = self.pull_all(&mut source, Some(timeout)).await;
        let name = match &outcome {
            Outcome::Done | Outcome::End => "ok",
            Outcome::Interrupted | Outcome::Stopped => "interrupted",
            Outcome::TimedOut => "timeout",
            Outcome::Failed(e) if e.class == ErrorClass::RateLimited => "rate_limited",
            Outcome::Failed(_) | Outcome::Lost(_) => "failed",
        };
        let mut labels = stream_labels(self.shared.id.tenant(), self.shared.id.stream());
        labels.push(metrics::Label::new("outcome", name));
        histogram!(POLL_SECONDS, labels).record(started.elapsed().as_secs_f64());
        let wait = match outcome {
            Outcome::Done => {
                self.succeeded();
                Some(Duration::ZERO)
            }
            Outcome::Interrupted => Some(Duration::ZERO),
            Outcome::End | Outcome::Stopped => None,
            Outcome::Lost(why) => return self.lost(&why).await.map(|()| None),
            Outcome::TimedOut => {
                let error =
                    SourceError::new(ErrorClass::Transient, "timeout", "the workload did not end within its timeout");
                self.failed(&mut source, &error).await?
            }
            Outcome::Failed(error) => self.failed(&mut source, &error).await?,
        };
        *slot = Some(source);
        Ok(wait)
    }

    fn succeeded(&self) {
        self.ctx.progress.healthy();
        self.shared.worker(&self.partition.name, |view| view.failed = 0);
    }

    /// Counts a failed workload; the worker ends when it is one too many, or when it cannot heal.
    async fn failed(&mut self, source: &mut Box<dyn Source>, error: &SourceError) -> Result<Option<Duration>, Failure> {
        if let Some(batch) = source.workload_failed()
            && let Err(why) = self.deliver(batch).await
        {
            return self.lost(&why).await.map(|()| None);
        }
        let wait = error.retry_after.unwrap_or_default();
        tracing::info!(code = error.code, message = error.message, "workload failed");
        match error.class {
            ErrorClass::RateLimited => return Ok(Some(wait)),
            ErrorClass::Config | ErrorClass::Auth | ErrorClass::Bug => return Err(from_source(error)),
            ErrorClass::Transient | ErrorClass::Data | ErrorClass::Resource => {}
        }
        let failed = self.shared.worker(&self.partition.name, |view| {
            view.failed += 1;
            view.failed
        });
        // The count outlives the restart: a worker that came back and fails again at once has not healed.
        if failed >= self.job.failed_workloads_max { Err(from_source(error)) } else { Ok(Some(wait)) }
    }

    /// Pulls without pause until something else is to be done.
    async fn continuous(&mut self, slot: &mut Option<Box<dyn Source>>) -> Result<Turn, Failure> {
        let mut source = match slot.take() {
            Some(source) => source,
            None => self.open().await?,
        };
        self.shared.worker(&self.partition.name, |view| view.phase = Phase::Working);
        loop {
            match self.pull_all(&mut source, None).await {
                Outcome::Done => {
                    self.succeeded();
                    if self.jobs.has_changed().unwrap_or(false) {
                        return Ok(Turn::Again);
                    }
                }
                Outcome::Interrupted => {}
                Outcome::End => {
                    self.succeeded();
                    return Ok(Turn::End);
                }
                Outcome::Stopped => return Ok(Turn::End),
                Outcome::Lost(why) => return self.lost(&why).await.map(|()| Turn::End),
                Outcome::TimedOut => {}
                Outcome::Failed(error) => {
                    if let Some(wait) = self.failed(&mut source, &error).await? {
                        let pause = wait.max(self.job.restart.backoff_min);
                        if matches!(self.wait_until(Instant::now() + pause, slot).await?, Turn::End) {
                            return Ok(Turn::End);
                        }
                        self.shared.worker(&self.partition.name, |view| view.phase = Phase::Working);
                    }
                }
            }
        }
    }

    /// Pulls until the source has no more for now. The future of the source is dropped by stop, interrupt and
    /// deadline; a batch that it gave is not.
    async fn pull_all(&mut self, source: &mut Box<dyn Source>, timeout: Option<Duration>) -> Outcome {
        let begun = Instant::now();
        let waited = self.credits.waited();
        let stop = self.ctx.stop.clone();
        loop {
            let limit = timeout.unwrap_or(CONTINUOUS_TURN_MAX);
            self.ctx.progress.busy(limit + HUNG_GRACE);
            let pulled = tokio::select! {
                biased;
                () = self.ctx.stop.stopped() => return Outcome::Stopped,
                () = self.interrupt.notified() => return Outcome::Interrupted,
                pulled = source.next(&self.credits) => pulled,
                () = deadline(&self.credits, begun + limit, waited, &self.ctx) => {
                    return if timeout.is_some() { Outcome::TimedOut } else { Outcome::Done };
                }
            };
            match pulled {
                Ok(Pull::Batch(batch)) => {
                    faults::point_of("worker.pulled", &self.shared.id, &self.partition.name);
                    let delivered = tokio::select! {
                        biased;
                        () = stop.stopped() => return Outcome::Stopped,
                        delivered = self.deliver(batch) => delivered,
                    };
                    if let Err(why) = delivered {
                        return Outcome::Lost(why);
                    }
                    faults::point_of("worker.delivered", &self.shared.id, &self.partition.name);
                    if timeout.is_none() {
                        self.acknowledge(source).await;
                        return Outcome::Done;
                    }
                }
                Ok(Pull::Idle) => {
                    self.acknowledge(source).await;
                    return Outcome::Done;
                }
                Ok(Pull::End) => return Outcome::End,
                Err(error) => return Outcome::Failed(error),
            }
        }
    }

    /// Hands a batch to the committer. A stalled lake makes this wait, which is the back-pressure wanted; it is no
    /// failure of the source and no hang of the worker.
    async fn deliver(&mut self, batch: Batch) -> Result<(), IntakeError> {
        let to = batch.to.clone();
        let delivery = Delivery {
            partition: self.partition.name.clone(),
            incarnation: self.ctx.incarnation,
            job: Arc::clone(&self.job),
            batch,
        };
        if !self.ctx.fence.is_current() {
            return Err(self.intake.late(&delivery));
        }
        faults::point_of("worker.delivering", &self.shared.id, &self.partition.name);
        self.ctx.progress.idle();
        if faults::bug_every("drop_on_interrupt", 8) {
            self.position = to;
            return Ok(());
        }
        self.intake.deliver(delivery).await?;
        if to.is_some() {
            self.position = to;
        }
        Ok(())
    }

    /// A batch was not taken over.
    async fn lost(&self, why: &IntakeError) -> Result<(), Failure> {
        match why {
            // The committer's restart restarts this worker; ending first would count as a crash of its own.
            IntakeError::Closed | IntakeError::Superseded => {
                self.ctx.progress.idle();
                self.wait_for_stop().await;
                Ok(())
            }
            IntakeError::Gap { .. } | IntakeError::Refused { .. } => Err(lost(why)),
        }
    }
}

fn lost(why: &IntakeError) -> Failure {
    match why {
        IntakeError::Refused { code, message } => failure(Class::Config, code, message),
        IntakeError::Gap { .. } => failure(Class::Bug, "position_gap", &why.to_string()),
        IntakeError::Closed | IntakeError::Superseded => failure(Class::Transient, "committer_gone", &why.to_string()),
    }
}

/// Completes at `at`, later by what the worker has waited for credits since `waited`.
async fn deadline(credits: &Credits, at: Instant, waited: Duration, ctx: &ChildContext) {
    loop {
        let moved = at + credits.waited().saturating_sub(waited);
        if Instant::now() >= moved {
            return;
        }
        // Waiting for credits is no hang.
        ctx.progress.busy(moved - Instant::now() + HUNG_GRACE);
        sleep_until(moved).await;
    }
}

/// The first beat of the grid `last + k × interval` that is not before `now`: beats that a long workload ran over are
/// skipped, never caught up.
fn next_beat(last: Instant, interval: Duration, now: Instant) -> Instant {
    let next = last + interval;
    if next >= now {
        return next;
    }
    let behind = (now - last).as_nanos();
    let beats = behind.div_ceil(interval.as_nanos().max(1));
    last + interval * u32::try_from(beats).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn test_next_beat_skips_and_never_catches_up() {
        let start = Instant::now();
        let interval = Duration::from_secs(10);
        let at = |s: u64| start + Duration::from_secs(s);
        assert_eq!(next_beat(start, interval, at(1)), at(10));
        assert_eq!(next_beat(start, interval, at(10)), at(10));
        assert_eq!(next_beat(start, interval, at(11)), at(20));
        assert_eq!(next_beat(start, interval, at(35)), at(40));
    }
}
