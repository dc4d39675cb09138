//! The committer: claims the table, groups what the workers hand over into epochs, and commits them one after
//! another. While one epoch commits, the next one collects.

use std::sync::Arc;

use adapters::contract::Position;
use futures::future::BoxFuture;
use metrics::{Label, counter, gauge};
use serde_json::{Value, json};
use supervisors::{ChildContext, Class, Failure, Reason};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep_until};

use super::commit::{Commit, Committing, Patience, failure_of, held};
use super::intake::{Delivery, Intake};
use super::promises::Promises;
use super::shared::{Progress, Shared};
use crate::checkpoint::{Meta, Moved};
use crate::faults;
use crate::lake::{Checkpoint, Claim, Committed, LakeError, Owner};
use crate::pipeline::{BuilderSpec, EpochBuilder, Refused, Sealed};
use crate::settings::Job;
use crate::telemetry::metrics::{
    BYTES_TOTAL, DEAD_LETTERS_TOTAL, EPOCHS_TOTAL, LAG_SECONDS, RECORDS_TOTAL, code_label, stream_labels,
};

/// Decoding below this many bytes is done in place: it takes less time than handing it to another thread.
const DECODE_INLINE_BYTES: usize = 32 * 1024;

/// A claimed stream, ready to collect.
pub(super) struct Committer {
    shared: Arc<Shared>,
    ctx: ChildContext,
    promises: Arc<Promises>,
    intake: Arc<Intake>,
    deliveries: mpsc::Receiver<Delivery>,
    /// `None` while it commits.
    owner: Option<Owner>,
    generation: u64,
    next_epoch: u64,
    schema: Option<arrow::datatypes::SchemaRef>,
    open: Option<Open>,
    committing: Option<Committing>,
    /// The wait for a turn at the lake. Kept while deliveries come in, because it is a place in a queue.
    turn: Option<BoxFuture<'static, Turn>>,
}

/// A turn at the lake; the next one's when dropped. `None` once the node has no more, which it always has.
pub(super) type Turn = Option<OwnedSemaphorePermit>;

async fn turn(commits: Arc<Semaphore>) -> Turn {
    commits.acquire_owned().await.ok()
}

/// The epoch that collects.
struct Open {
    builder: EpochBuilder,
    job: Arc<Job>,
    closes_at: Instant,
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
    let promises = Promises::new(ctx.progress.clone());
    let mut patience = Patience::new(&promises, ctx.fence.clone());
    let owner = loop {
        match claim_once(&shared, &job, &promises).await {
            Ok(owner) => break owner,
            Err(e) => patience.wait(&shared, &e).await.map_err(|e| failure_of(&shared, &e))?,
        }
    };
    promises.off_the_lake();
    patience.rewarded(&shared);
    faults::point_of("committer.claimed", &shared.id, "");
    if !ctx.fence.is_current() {
        // Its successor has claimed the stream; what is read here must not take the place of what is read there.
        let reason = Reason {
            class: Class::Transient,
            code: "superseded".to_owned(),
            message: "another committer took over".to_owned(),
        };
        return Err(Failure { reason, retry_after: None });
    }
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
        turn: None,
        shared,
        ctx,
        promises,
        intake,
        deliveries,
    };
    Ok((info, committer))
}

async fn claim_once(shared: &Shared, job: &Job, promises: &Arc<Promises>) -> Result<Owner, LakeError> {
    let cached = shared.node.cache.positions(&shared.id.to_string()).await.map(|cached| Checkpoint {
        table_id: cached.meta.table_id,
        epoch: cached.meta.epoch,
        generation: cached.meta.generation,
        positions: cached.positions,
        newest_event_us: cached.meta.newest_event_us,
    });
    // The queue has no limit in time: each claim before this one may wait an outage out.
    promises.off_the_lake();
    let _turn = shared.node.turns.claims.acquire().await;
    promises.at_the_lake();
    let claim = Claim {
        id: shared.id.clone(),
        adapter: job.adapter.clone(),
        schema: job.columns(),
        partition_by: job.partition_by.clone(),
        cache: cached,
        beat: promises.beat(),
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

pub(super) fn progress(checkpoint: &Checkpoint) -> Progress {
    Progress { epoch: checkpoint.epoch, generation: checkpoint.generation, newest_event_us: checkpoint.newest_event_us }
}

/// Brings the cache to `checkpoint`: what `sealed` moved, or all of it.
pub(super) async fn cache(shared: &Shared, checkpoint: &Checkpoint, sealed: Option<&Sealed>) {
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
            self.promises.at_rest();
            let limits = self.shared.node.epoch;
            let full = self
                .open
                .as_ref()
                .is_some_and(|o| o.builder.bytes() >= limits.max_bytes || o.builder.payloads() >= limits.max_rows);
            let closes_at = self.open.as_ref().filter(|o| !o.builder.is_empty()).map(|o| o.closes_at);
            let idle = self.committing.is_none();
            let due = full || closes_at.is_some_and(|at| at <= Instant::now());
            if due && idle && self.turn.is_none() {
                self.turn = Some(Box::pin(turn(Arc::clone(&self.shared.node.turns.commits))));
            }
            tokio::select! {
                biased;
                ended = async { (&mut self.committing.as_mut().expect("guarded").task).await }, if !idle => {
                    self.committing = None;
                    self.committed(ended).await?;
                }
                () = self.ctx.stop.stopped() => return self.drain().await,
                turn = async { self.turn.as_mut().expect("guarded").await }, if self.turn.is_some() => {
                    self.turn = None;
                    self.close(turn).await;
                }
                () = async { sleep_until(closes_at.expect("guarded")).await }, if idle && !due && closes_at.is_some() => {}
                delivery = self.deliveries.recv(), if !full => match delivery {
                    Some(delivery) => self.take(delivery).await?,
                    None => return Ok(()),
                },
            }
        }
    }

    /// Puts a delivery into the open epoch.
    async fn take(&mut self, delivery: Delivery) -> Result<(), Failure> {
        self.promises.at_work(0);
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
        self.promises.at_work(open.builder.work(&batch));
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
        self.promises.at_rest();
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

    /// Seals the open epoch and starts its commit, which is this one's turn at the lake.
    async fn close(&mut self, turn: Turn) {
        let Some(open) = self.open.take() else { return };
        if open.builder.is_empty() {
            return;
        }
        let Some(owner) = self.owner.take() else {
            self.open = Some(open);
            return;
        };
        self.promises.at_work(open.builder.bytes());
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
        let (shared, promises) = (Arc::clone(&self.shared), Arc::clone(&self.promises));
        let what = (owner, sealed, payload_bytes, turn);
        self.committing = Some(Committing::begin(shared, what, promises, self.ctx.fence.clone()));
        self.promises.at_rest();
    }

    /// Commits all that is open and waits for it.
    async fn flush(&mut self) -> Result<(), Failure> {
        self.promises.at_rest();
        // Twice at most: what commits now, then what is open.
        for _ in 0..2 {
            if let Some(committing) = self.committing.take() {
                let ended = committing.task.await;
                self.committed(ended).await?;
            }
            if self.open.as_ref().is_some_and(|open| !open.builder.is_empty()) {
                let turn = match self.turn.take() {
                    Some(turn) => turn.await,
                    None => turn(Arc::clone(&self.shared.node.turns.commits)).await,
                };
                self.close(turn).await;
            }
        }
        if let Some(committing) = self.committing.take() {
            let ended = committing.task.await;
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
        self.promises.healthy();
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
