//! One workload of a worker: pulling, handing over, and what its end means.

use std::sync::Arc;
use std::time::Duration;

use adapters::contract::{Batch, Credits, ErrorClass, Pull, Source, SourceError};
use metrics::histogram;
use supervisors::{ChildContext, Failure};
use tokio::time::{Instant, sleep_until};

use super::{Turn, Worker, class_of, from_source, lost};
use crate::faults;
use crate::streams::api::Parked;
use crate::streams::intake::{Delivery, IntakeError};
use crate::streams::shared::Phase;
use crate::telemetry::metrics::{POLL_SECONDS, stream_labels};

/// What a worker may take beyond its timeout before it counts as hung: the time to notice the deadline and to hand
/// over, on a busy machine.
const HUNG_GRACE: Duration = Duration::from_secs(10);

/// A continuous source may wait for its own rate or for credits, but it must come back to its loop.
const CONTINUOUS_TURN_MAX: Duration = Duration::from_secs(60);

/// How long a worker that was told to wait waits for its memory of that to leave the process. A cache that takes longer
/// is a sick disk; the wait itself goes on without it.
const KEEP_WAIT: Duration = Duration::from_secs(2);

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

impl Worker {
    /// One workload with its accounting. How long to wait at least before the next one, `None` at the end.
    pub(super) async fn workload(
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
        self.shared.worker(&self.partition.name, |view| {
            view.failed = 0;
            view.trouble = None;
        });
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
        if error.class == ErrorClass::RateLimited {
            // Whoever is told of the wait may kill the process next: what the source asked for holds then, too.
            let _ = tokio::time::timeout(KEEP_WAIT, self.shared.node.cache.flush()).await;
        }
        let trouble = Parked {
            class: class_of(error.class).as_str().to_owned(),
            code: error.code.clone(),
            message: self.shared.node.scrubber.scrub(&error.message).into_owned(),
        };
        self.shared.worker(&self.partition.name, |view| view.trouble = Some(trouble));
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
    pub(super) async fn continuous(&mut self, slot: &mut Option<Box<dyn Source>>) -> Result<Turn, Failure> {
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
