//! The committer: claims the table, groups what the workers hand over into epochs, and commits them one after
//! another. While one epoch commits, the next one collects.

use std::sync::Arc;
use std::time::Duration;

use adapters::contract::Position;
use metrics::{Label, counter, gauge, histogram};
use serde_json::{Value, json};
use supervisors::{ChildContext, Class, Failure, Reason};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::intake::{Delivery, Intake};
use super::shared::{Progress, Shared};
use crate::checkpoint::{Meta, Moved};
use crate::faults;
use crate::lake::{Checkpoint, Claim, Committed, LakeError, LakeErrorClass, Owner};
use crate::pipeline::{BuilderSpec, EpochBuilder, Refused, Sealed};
use crate::settings::Job;
use crate::telemetry::metrics::{
    BYTES_TOTAL, COMMIT_SECONDS, DEAD_LETTERS_TOTAL, EPOCHS_TOTAL, LAG_SECONDS, QUEUE_BYTES, RECORDS_TOTAL, code_label,
    stream_labels,
};

/// Decoding below this many bytes is done in place: it takes less time than handing it to another thread.
const DECODE_INLINE_BYTES: usize = 32 * 1024;

/// Pauses between tries to reach the lake. An outage is waited out here: it is no failure of the stream. The longest is
/// short because the lake's circuit keeps the requests away from a store that fails, and a stream has to be back soon
/// after the store is.
const LAKE_PAUSE_MIN: Duration = Duration::from_millis(200);
const LAKE_PAUSE_MAX: Duration = Duration::from_secs(4);

/// How long refused credentials are waited for: long enough for a rotation, in which files and tokens change one after
/// the other. Then the stream is parked with the reason, and tried again as often as its `probe` says.
const CREDENTIALS_WAIT: Duration = Duration::from_secs(60);

/// A claimed stream, ready to collect.
pub(super) struct Committer {
    shared: Arc<Shared>,
    ctx: ChildContext,
    intake: Arc<Intake>,
    deliveries: mpsc::Receiver<Delivery>,
    /// `None` while it commits.
    owner: Option<Owner>,
    generation: u64,
    next_epoch: u64,
    schema: Option<arrow::datatypes::SchemaRef>,
    open: Option<Open>,
    committing: Option<JoinHandle<Commit>>,
}

/// A commit that ended.
struct Commit {
    owner: Owner,
    sealed: Sealed,
    payload_bytes: u64,
    result: Result<Committed, LakeError>,
}

/// The epoch that collects.
struct Open {
    builder: EpochBuilder,
    job: Arc<Job>,
    closes_at: Instant,
}

pub(super) fn failure(error: &LakeError) -> Failure {
    let class = match error.class {
        LakeErrorClass::Transient => Class::Transient,
        LakeErrorClass::Auth => Class::Auth,
        LakeErrorClass::Config => Class::Config,
        LakeErrorClass::Data => Class::Data,
        LakeErrorClass::Resource => Class::Resource,
        LakeErrorClass::Fenced => Class::Fenced,
        LakeErrorClass::Bug => Class::Bug,
    };
    Failure { reason: Reason { class, code: error.code.to_owned(), message: error.message.clone() }, retry_after: None }
}

/// Waits a lake out.
struct Patience {
    pause: Duration,
    /// Since when credentials have been refused without a break.
    refused_since: Option<Instant>,
}

impl Patience {
    fn new() -> Self {
        Self { pause: LAKE_PAUSE_MIN, refused_since: None }
    }

    /// Pauses where another try may help.
    ///
    /// # Errors
    /// What waiting cannot heal.
    async fn wait(&mut self, shared: &Shared, error: &LakeError) -> Result<(), LakeError> {
        match error.class {
            LakeErrorClass::Transient | LakeErrorClass::Resource => self.refused_since = None,
            LakeErrorClass::Auth => {
                let since = *self.refused_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= CREDENTIALS_WAIT {
                    return Err(error.clone());
                }
            }
            _ => return Err(error.clone()),
        }
        tracing::warn!(stream = %shared.id, code = error.code, message = error.message, "the lake is waited for");
        shared.set_waits_for(Some(format!("{}: {}", error.code, error.message)));
        held(shared);
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LAKE_PAUSE_MAX);
        Ok(())
    }
}

/// The same for a stream. Refused credentials may be accepted again without anybody's doing here, so they are tried
/// again now and then.
fn failure_of(shared: &Shared, error: &LakeError) -> Failure {
    let failure = failure(error);
    let probe = shared.job.borrow().as_ref().map(|job| job.restart.probe);
    match probe.filter(|_| error.class == LakeErrorClass::Auth) {
        Some(probe) => failure.retry_after(probe),
        None => failure,
    }
}

/// Claims the table, which is recovery, and opens the intake. Waits out an unreachable lake.
///
/// # Errors
/// What waiting cannot heal.
pub(super) async fn claim(shared: Arc<Shared>, ctx: ChildContext) -> Result<(Value, Committer), Failure> {
    let job = shared.job.borrow().clone();
    let job = job.ok_or_else(|| Failure {
        reason: Reason { class: Class::Config, code: "no_job".to_owned(), message: "the stream has no job".to_owned() },
        retry_after: None,
    })?;
    let mut patience = Patience::new();
    let owner = loop {
        match claim_once(&shared, &job).await {
            Ok(owner) => break owner,
            Err(e) => patience.wait(&shared, &e).await.map_err(|e| failure_of(&shared, &e))?,
        }
    };
    shared.set_waits_for(None);
    faults::point_of("committer.claimed", &shared.id, "");
    let checkpoint = owner.checkpoint().clone();
    cache(&shared, &checkpoint, None).await;
    rewind_sinks(&shared, checkpoint.epoch).await;
    let positions = checkpoint.positions.iter().filter(|(_, p)| !p.is_empty());
    let positions = positions.map(|(name, position)| (name.clone(), Position::new(position.clone())));
    let (intake, deliveries) = Intake::new(checkpoint.epoch, positions);
    let intake = Arc::new(intake);
    shared.progress.send_replace(progress(&checkpoint));
    shared.intake.send_replace(Some(Arc::clone(&intake)));
    let info = json!({"epoch": checkpoint.epoch, "positions": checkpoint.positions});
    let committer = Committer {
        generation: owner.generation(),
        next_epoch: checkpoint.epoch + 1,
        schema: owner.schema(),
        owner: Some(owner),
        open: None,
        committing: None,
        shared,
        ctx,
        intake,
        deliveries,
    };
    Ok((info, committer))
}

async fn claim_once(shared: &Shared, job: &Job) -> Result<Owner, LakeError> {
    let cached = shared.node.cache.positions(&shared.id.to_string()).await.map(|cached| Checkpoint {
        table_id: cached.meta.table_id,
        epoch: cached.meta.epoch,
        generation: cached.meta.generation,
        positions: cached.positions,
        newest_event_us: cached.meta.newest_event_us,
    });
    let _turn = shared.node.claims.acquire().await;
    let claim = Claim {
        id: shared.id.clone(),
        adapter: job.adapter.clone(),
        schema: job.columns(),
        partition_by: job.partition_by.clone(),
        cache: cached,
    };
    shared.node.lake.claim(claim).await
}

/// A sink that knows more epochs than the lake has seen another lake.
async fn rewind_sinks(shared: &Shared, epoch: u64) {
    use crate::announce::Sink;
    if shared.node.feed.announced(&shared.id) > epoch {
        shared.node.feed.rewind(&shared.id, epoch).await;
    }
}

fn progress(checkpoint: &Checkpoint) -> Progress {
    Progress { epoch: checkpoint.epoch, generation: checkpoint.generation, newest_event_us: checkpoint.newest_event_us }
}

/// Brings the cache to `checkpoint`: what `sealed` moved, or all of it.
async fn cache(shared: &Shared, checkpoint: &Checkpoint, sealed: Option<&Sealed>) {
    let meta = Meta {
        table_id: checkpoint.table_id.clone(),
        epoch: checkpoint.epoch,
        generation: checkpoint.generation,
        newest_event_us: checkpoint.newest_event_us,
    };
    let positions = match sealed {
        Some(sealed) => sealed.positions.iter().map(|(name, (_, to))| (name.clone(), to.clone())).collect(),
        None => checkpoint.positions.iter().map(|(name, to)| (name.clone(), to.clone())).collect(),
    };
    shared.node.cache.store_positions(&shared.id.to_string(), Moved { meta, positions }, sealed.is_none()).await;
}

impl Committer {
    /// Collects and commits until stopped; then commits what was collected.
    pub(super) async fn run(mut self) -> Result<(), Failure> {
        let result = self.collect().await;
        // Dropping the receiver tells the workers; the next committer brings a new intake.
        self.shared.intake.send_if_modified(|current| {
            let mine = current.as_ref().is_some_and(|intake| Arc::ptr_eq(intake, &self.intake));
            if mine {
                *current = None;
            }
            mine
        });
        result
    }

    async fn collect(&mut self) -> Result<(), Failure> {
        loop {
            self.ctx.progress.idle();
            let limits = self.shared.node.epoch;
            let full = self
                .open
                .as_ref()
                .is_some_and(|o| o.builder.bytes() >= limits.max_bytes || o.builder.payloads() >= limits.max_rows);
            let closes_at = self.open.as_ref().filter(|o| !o.builder.is_empty()).map(|o| o.closes_at);
            let idle = self.committing.is_none();
            if full && idle {
                self.close().await;
                continue;
            }
            tokio::select! {
                biased;
                ended = async { self.committing.as_mut().expect("guarded").await }, if !idle => {
                    self.committing = None;
                    self.committed(ended).await?;
                }
                () = self.ctx.stop.stopped() => return self.drain().await,
                () = async { sleep_until(closes_at.expect("guarded")).await }, if idle && closes_at.is_some() => self.close().await,
                delivery = self.deliveries.recv(), if !full => match delivery {
                    Some(delivery) => self.take(delivery).await?,
                    None => return Ok(()),
                },
            }
        }
    }

    /// Puts a delivery into the open epoch.
    async fn take(&mut self, delivery: Delivery) -> Result<(), Failure> {
        faults::point_of("committer.taking", &self.shared.id, &delivery.partition);
        if !self.intake.is_wanted(&delivery.partition, delivery.incarnation) {
            return Ok(());
        }
        if self.open.as_ref().is_some_and(|open| !Arc::ptr_eq(&open.job, &delivery.job)) {
            // What was read under another job is decoded by it: an epoch knows one job only.
            self.flush().await?;
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.open_epoch(Arc::clone(&delivery.job)),
        };
        if open.builder.is_empty() {
            open.closes_at = Instant::now() + self.shared.node.epoch.max_age;
        }
        let Delivery { partition, batch, .. } = delivery;
        let from = batch.from.clone();
        let twice = faults::bug("double_delivery").then(|| copy(&batch));
        let (open, refused) = push(open, partition.clone(), batch).await?;
        self.open = Some(open);
        if let Err(Refused { code, message }) = refused {
            self.intake.refuse(&partition, from, code, message);
        } else if let Some(again) = twice
            && let Some(open) = self.open.take()
        {
            self.open = Some(push(open, partition, again).await?.0);
        }
        Ok(())
    }

    fn open_epoch(&mut self, job: Arc<Job>) -> Open {
        let spec = BuilderSpec {
            id: self.shared.id.clone(),
            adapter: job.adapter.clone(),
            epoch: self.next_epoch,
            generation: self.generation,
            schema: self.schema.clone(),
            decoder: job.mount.decoder(),
            partition_by: job.partition_by.clone(),
            raw_kept: job.raw_kept,
            generated: job.generated.clone(),
            on_bad_record: job.on_bad_record,
            park_on_schema_change: job.park_on_schema_change,
            started_at_us: self.shared.node.clock.now_us(),
        };
        Open { builder: EpochBuilder::new(spec), job, closes_at: Instant::now() + self.shared.node.epoch.max_age }
    }

    /// Seals the open epoch and starts its commit.
    async fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        if open.builder.is_empty() {
            return;
        }
        let Some(mut owner) = self.owner.take() else {
            self.open = Some(open);
            return;
        };
        faults::point_of("committer.closing", &self.shared.id, "");
        let payload_bytes = open.builder.bytes() as u64;
        let closed_at_us = self.shared.node.clock.now_us();
        let sealed = if open.builder.bytes() <= DECODE_INLINE_BYTES {
            Ok(open.builder.seal(closed_at_us))
        } else {
            tokio::task::spawn_blocking(move || open.builder.seal(closed_at_us)).await
        };
        let sealed = match sealed {
            Ok(sealed) => sealed,
            Err(e) => std::panic::resume_unwind(e.into_panic()),
        };
        self.schema = sealed.schema.clone();
        self.next_epoch = sealed.epoch + 1;
        let shared = Arc::clone(&self.shared);
        self.committing = Some(tokio::spawn(async move {
            let result = commit(&shared, &mut owner, &sealed).await;
            Commit { owner, sealed, payload_bytes, result }
        }));
    }

    /// Commits all that is open and waits for it.
    async fn flush(&mut self) -> Result<(), Failure> {
        // Twice at most: what commits now, then what is open.
        for _ in 0..2 {
            if let Some(committing) = self.committing.take() {
                let ended = committing.await;
                self.committed(ended).await?;
            }
            self.close().await;
        }
        if let Some(committing) = self.committing.take() {
            let ended = committing.await;
            self.committed(ended).await?;
        }
        Ok(())
    }

    /// A commit ended: cache, announce, tell the sources.
    async fn committed(&mut self, ended: Result<Commit, tokio::task::JoinError>) -> Result<(), Failure> {
        let Commit { owner, sealed, payload_bytes, result } = match ended {
            Ok(ended) => ended,
            Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
            Err(_) => return Ok(()),
        };
        self.owner = Some(owner);
        let committed = result.map_err(|e| failure_of(&self.shared, &e))?;
        self.ctx.progress.healthy();
        cache(&self.shared, &committed.checkpoint, Some(&sealed)).await;
        self.shared.remember(committed.epoch, committed.reference.clone());
        self.shared.progress.send_replace(progress(&committed.checkpoint));
        self.intake.committed(sealed.positions.iter().map(|(name, (_, to))| (name.as_str(), to.as_str())));
        for (partition, bytes) in &sealed.bytes_by_partition {
            self.intake.settled(partition, *bytes, sealed.newest_by_partition.get(partition).copied());
        }
        count(&self.shared, &committed, payload_bytes);
        Ok(())
    }

    /// No new batch comes in; what was handed over is committed.
    async fn drain(&mut self) -> Result<(), Failure> {
        self.deliveries.close();
        while let Some(delivery) = self.deliveries.recv().await {
            self.take(delivery).await?;
        }
        self.flush().await
    }
}

/// Puts a batch into the open epoch; on another thread where that is more than a moment's work.
async fn push(
    mut open: Open,
    partition: String,
    batch: adapters::contract::Batch,
) -> Result<(Open, Result<(), Refused>), Failure> {
    if open.builder.work(&batch) <= DECODE_INLINE_BYTES {
        let refused = open.builder.push(&partition, batch);
        return Ok((open, refused));
    }
    let pushed = tokio::task::spawn_blocking(move || {
        let refused = open.builder.push(&partition, batch);
        (open, refused)
    });
    match pushed.await {
        Ok(pushed) => Ok(pushed),
        Err(e) => std::panic::resume_unwind(e.into_panic()),
    }
}

/// The deliberate bug `double_delivery`: the same payloads again, as a batch that joins and moves nothing.
fn copy(batch: &adapters::contract::Batch) -> adapters::contract::Batch {
    adapters::contract::Batch {
        from: batch.to.clone(),
        to: batch.to.clone(),
        payloads: batch.payloads.clone(),
        hold: adapters::contract::Hold::default(),
    }
}

/// Commits one epoch, waiting out an unreachable lake: what was collected stays, the workers wait for credits.
#[tracing::instrument(name = "epoch", skip_all, fields(stream = %shared.id, epoch = sealed.epoch))]
async fn commit(shared: &Arc<Shared>, owner: &mut Owner, sealed: &Sealed) -> Result<Committed, LakeError> {
    if faults::bug("sled_before_commit") {
        let mut ahead = owner.checkpoint().clone();
        ahead.epoch = sealed.epoch;
        cache(shared, &ahead, Some(sealed)).await;
    }
    if faults::bug("announce_before_commit") {
        let mut ahead = progress(owner.checkpoint());
        ahead.epoch = sealed.epoch;
        shared.progress.send_replace(ahead);
        shared.remember(
            sealed.epoch,
            json!({"stream": shared.id.stream(), "tenant": shared.id.tenant(), "epoch": sealed.epoch}),
        );
    }
    let started = Instant::now();
    let mut patience = Patience::new();
    loop {
        match owner.commit(sealed, &shared.bucket()).await {
            Ok(committed) => {
                histogram!(COMMIT_SECONDS, stream_labels(shared.id.tenant(), shared.id.stream()))
                    .record(started.elapsed().as_secs_f64());
                shared.set_waits_for(None);
                tracing::debug!(version = committed.version, rows = committed.rows, dead = committed.dead, "committed");
                return Ok(committed);
            }
            Err(e) => {
                if let Err(e) = patience.wait(shared, &e).await {
                    // Said here, too, because a commit may outlive the committer that would tell its supervisor.
                    tracing::warn!(code = e.code, message = e.message, "the epoch was not committed");
                    return Err(e);
                }
            }
        }
    }
}

fn count(shared: &Shared, committed: &Committed, bytes: u64) {
    let labels = stream_labels(shared.id.tenant(), shared.id.stream());
    let with = |name: &'static str, value: String| [labels.clone(), vec![Label::new(name, value)]].concat();
    counter!(EPOCHS_TOTAL, labels.clone()).increment(1);
    counter!(BYTES_TOTAL, labels.clone()).increment(bytes);
    counter!(RECORDS_TOTAL, with("result", "committed".to_owned())).increment(committed.rows);
    counter!(RECORDS_TOTAL, with("result", "dead".to_owned())).increment(committed.dead);
    for (code, rows) in &committed.dead_codes {
        counter!(DEAD_LETTERS_TOTAL, with("code", code_label(code))).increment(*rows);
    }
    if let Some(newest) = committed.checkpoint.newest_event_us {
        #[allow(clippy::cast_precision_loss, reason = "seconds of lag need no microseconds beyond 2^52")]
        let lag = (shared.node.clock.now_us() - newest) as f64 / 1e6;
        gauge!(LAG_SECONDS, labels).set(lag);
    }
    held(shared);
}

/// Tells how full the stream's part of the queue is: after each commit, and while the lake is waited for, which is when it
/// matters.
fn held(shared: &Shared) {
    let labels = stream_labels(shared.id.tenant(), shared.id.stream());
    #[allow(clippy::cast_precision_loss, reason = "bytes in memory are far below 2^52")]
    gauge!(QUEUE_BYTES, labels).set(shared.credits.used_bytes() as f64);
}
