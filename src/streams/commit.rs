//! The commit of one epoch, beside which the next one collects; and how a lake is waited out.

use std::sync::Arc;
use std::time::Duration;

use metrics::{gauge, histogram};
use serde_json::json;
use supervisors::{Class, Failure, Fence, Reason};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::committer::{Turn, cache, progress};
use super::promises::Promises;
use super::shared::Shared;
use crate::faults;
use crate::lake::{Committed, LakeError, LakeErrorClass, Owner};
use crate::pipeline::Sealed;
use crate::telemetry::metrics::{COMMIT_SECONDS, QUEUE_BYTES, stream_labels};

/// Pauses between tries to reach the lake. An outage is waited out here: it is no failure of the stream. The longest is
/// short because the lake's circuit keeps the requests away from a store that fails, and a stream has to be back soon
/// after the store is.
const LAKE_PAUSE_MIN: Duration = Duration::from_millis(200);
const LAKE_PAUSE_MAX: Duration = Duration::from_secs(4);

/// How long refused credentials are waited for: long enough for a rotation, in which files and tokens change one after
/// the other. Then the stream is parked with the reason, and tried again as often as its `probe` says.
const CREDENTIALS_WAIT: Duration = Duration::from_secs(60);

/// A commit that ended.
pub(super) struct Commit {
    pub(super) owner: Owner,
    pub(super) sealed: Sealed,
    pub(super) payload_bytes: u64,
    pub(super) result: Result<Committed, LakeError>,
}

/// A commit under way. It goes on without its committer as long as something moves: what it does too late is refused by
/// the lake, which knows the successor. One that is silent then is dropped, with the bytes that it holds.
pub(super) struct Committing {
    pub(super) task: JoinHandle<Commit>,
    _committer: oneshot::Sender<()>,
}

impl Committing {
    pub(super) fn begin(
        shared: Arc<Shared>,
        (mut owner, sealed, payload_bytes, turn): (Owner, Sealed, u64, Turn),
        promises: Arc<Promises>,
        fence: Fence,
    ) -> Self {
        let (committer, gone) = oneshot::channel::<()>();
        promises.at_the_lake();
        let task = tokio::spawn(async move {
            let left_alone = async {
                let _ = gone.await;
                promises.silent().await;
            };
            let result = tokio::select! {
                biased;
                result = commit(&shared, &mut owner, (&sealed, turn), Patience::new(&promises, fence)) => result,
                () = left_alone => Err(nobody_waits(&shared, sealed.epoch)),
            };
            promises.off_the_lake();
            Commit { owner, sealed, payload_bytes, result }
        });
        Self { task, _committer: committer }
    }
}

fn nobody_waits(shared: &Shared, epoch: u64) -> LakeError {
    let error = LakeError::new(LakeErrorClass::Bug, "commit_silent", "a commit that said nothing more was given up");
    tracing::warn!(stream = %shared.id, epoch, code = error.code, message = error.message, "the epoch was not committed");
    error
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

/// The same for a stream. Refused credentials may be accepted again without anybody's doing here, so they are tried
/// again now and then.
pub(super) fn failure_of(shared: &Shared, error: &LakeError) -> Failure {
    let failure = failure(error);
    let probe = shared.job.borrow().as_ref().map(|job| job.restart.probe);
    match probe.filter(|_| error.class == LakeErrorClass::Auth) {
        Some(probe) => failure.retry_after(probe),
        None => failure,
    }
}

/// Waits a lake out.
pub(super) struct Patience<'a> {
    promises: &'a Promises,
    /// One that does not count any more says nothing of the stream.
    fence: Fence,
    pause: Duration,
    /// Since when credentials have been refused without a break.
    refused_since: Option<Instant>,
}

impl<'a> Patience<'a> {
    pub(super) fn new(promises: &'a Promises, fence: Fence) -> Self {
        Self { promises, fence, pause: LAKE_PAUSE_MIN, refused_since: None }
    }

    /// Pauses where another try may help.
    ///
    /// # Errors
    /// What waiting cannot heal.
    pub(super) async fn wait(&mut self, shared: &Shared, error: &LakeError) -> Result<(), LakeError> {
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
        if self.fence.is_current() {
            shared.set_waits_for(Some(format!("{}: {}", error.code, error.message)));
        }
        held(shared);
        self.promises.at_the_lake();
        sleep(self.pause).await;
        self.promises.at_the_lake();
        self.pause = (self.pause * 2).min(LAKE_PAUSE_MAX);
        Ok(())
    }

    /// The lake did what it was asked for.
    pub(super) fn rewarded(&self, shared: &Shared) {
        if self.fence.is_current() {
            shared.set_waits_for(None);
        }
    }
}

/// Commits one epoch, waiting out an unreachable lake: what was collected stays, the workers wait for credits.
#[tracing::instrument(name = "epoch", skip_all, fields(stream = %shared.id, epoch = sealed.epoch))]
async fn commit(
    shared: &Arc<Shared>,
    owner: &mut Owner,
    (sealed, mut turn): (&Sealed, Turn),
    mut patience: Patience<'_>,
) -> Result<Committed, LakeError> {
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
    loop {
        match owner.commit(sealed, &shared.bucket()).await {
            Ok(committed) => {
                histogram!(COMMIT_SECONDS, stream_labels(shared.id.tenant(), shared.id.stream()))
                    .record(started.elapsed().as_secs_f64());
                patience.rewarded(shared);
                tracing::debug!(version = committed.version, rows = committed.rows, dead = committed.dead, "committed");
                return Ok(committed);
            }
            Err(e) => {
                // Who waits for the lake holds up nobody; how many ask it then is the circuit's business.
                drop(turn.take());
                if let Err(e) = patience.wait(shared, &e).await {
                    // Said here, too, because a commit may outlive the committer that would tell its supervisor.
                    tracing::warn!(code = e.code, message = e.message, "the epoch was not committed");
                    return Err(e);
                }
            }
        }
    }
}

/// Tells how full the stream's part of the queue is: after each commit, and while the lake is waited for, which is when it
/// matters.
pub(super) fn held(shared: &Shared) {
    let labels = stream_labels(shared.id.tenant(), shared.id.stream());
    #[allow(clippy::cast_precision_loss, reason = "bytes in memory are far below 2^52")]
    gauge!(QUEUE_BYTES, labels).set(shared.credits.used_bytes() as f64);
}
