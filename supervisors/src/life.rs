//! One life of a child: what it is told, how it reports progress, and whether it still counts.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::core::Tree;
use crate::handle::SupervisorHandle;
use crate::message::Msg;
use crate::path::ChildPath;
use crate::stopping::bounded_left;

/// The place of a child in its supervisor's start order; never used twice by one supervisor.
pub(crate) type Seq = u64;

/// What a child is given at each start.
#[derive(Clone, Debug)]
pub struct ChildContext {
    /// Where it stands in the tree.
    pub path: ChildPath,
    /// How many times it has been started, as its observer counts.
    pub incarnation: u64,
    /// Failures in a row before this start; 0 for a fresh one.
    pub attempt: u32,
    /// The supervisor that starts it.
    pub supervisor: SupervisorHandle,
    /// Tells it to stop.
    pub stop: StopToken,
    /// Takes its signs of life.
    pub progress: Progress,
    /// Says whether this life still counts.
    pub fence: Fence,
}

impl ChildContext {
    /// Says what the child leaves undone if it ends now: numbers and names for the stop's report, no payload. The last
    /// word counts; more than [`LEFT_BYTES_MAX`](crate::LEFT_BYTES_MAX) of JSON is replaced by its length.
    pub fn left(&self, left: Value) {
        let left = Arc::new(bounded_left(left));
        *self.stop.0.left.lock().unwrap_or_else(PoisonError::into_inner) = Some(left);
    }
}

/// State shared between a supervisor and one life of one child.
pub(crate) struct Life {
    pub(crate) seq: Seq,
    pub(crate) number: u64,
    supervisor: SupervisorHandle,
    tree: Arc<Tree>,
    drain: AtomicBool,
    stop: AtomicBool,
    /// Wakes whoever waits for `drain` or `stop`.
    stopped: Notify,
    current: AtomicBool,
    /// Nanoseconds since the tree's epoch by which the next sign of life is due; 0 = none is.
    deadline: AtomicU64,
    /// When the supervisor's timer for `deadline` rings, counted like it; 0 = there is none. Never later than the
    /// deadline, unless a message that says so is on its way.
    watched: AtomicU64,
    used: AtomicBool,
    healthy: AtomicBool,
    left: Mutex<Option<Arc<Value>>>,
    /// Something of it runs, or may run.
    holds: AtomicBool,
    /// Its number among the abandoned; 0 = it is not.
    zombie: AtomicU64,
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Life").field("seq", &self.seq).field("number", &self.number).finish_non_exhaustive()
    }
}

impl Life {
    pub(crate) fn new(seq: Seq, number: u64, supervisor: SupervisorHandle, tree: Arc<Tree>) -> Arc<Self> {
        Arc::new(Self {
            seq,
            number,
            supervisor,
            tree,
            drain: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            stopped: Notify::new(),
            current: AtomicBool::new(true),
            deadline: AtomicU64::new(0),
            watched: AtomicU64::new(0),
            used: AtomicBool::new(false),
            healthy: AtomicBool::new(false),
            left: Mutex::new(None),
            holds: AtomicBool::new(false),
            zombie: AtomicU64::new(0),
        })
    }

    pub(crate) fn tell(&self, message: Msg) {
        self.supervisor.cast(message);
    }

    pub(crate) fn ask_to_drain(&self) {
        self.drain.store(true, Ordering::SeqCst);
        self.stopped.notify_waiters();
    }

    /// Whether it was asked to drain before it was asked to stop.
    pub(crate) fn was_drained(&self) -> bool {
        self.drain.load(Ordering::SeqCst)
    }

    /// What it said it left.
    pub(crate) fn take_left(&self) -> Option<Arc<Value>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Something of it runs from here on.
    pub(crate) fn hold(&self) {
        self.holds.store(true, Ordering::SeqCst);
    }

    /// Nothing of it runs any more.
    pub(crate) fn let_go(&self) {
        self.holds.store(false, Ordering::SeqCst);
        self.lay_to_rest();
    }

    /// Counts it among the abandoned, until nothing of it runs.
    pub(crate) fn abandon(&self, path: ChildPath, incarnation: u64) {
        self.zombie.store(self.tree.zombies.add(path, incarnation), Ordering::SeqCst);
        // It may have ended between: then nobody else takes it off.
        if !self.holds.load(Ordering::SeqCst) {
            self.lay_to_rest();
        }
    }

    fn lay_to_rest(&self) {
        match self.zombie.load(Ordering::SeqCst) {
            0 => {}
            number => self.tree.zombies.remove(number),
        }
    }

    pub(crate) fn ask_to_stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.stopped.notify_waiters();
    }

    pub(crate) fn revoke(&self) {
        self.current.store(false, Ordering::SeqCst);
    }

    /// Whether the child did useful work in this life, or, if it never reports, stayed up for `long_enough`.
    pub(crate) fn was_healthy(&self, uptime: Duration, long_enough: Duration) -> bool {
        let reported = self.healthy.load(Ordering::SeqCst);
        reported || (!self.used.load(Ordering::SeqCst) && uptime >= long_enough)
    }

    /// The instant by which a sign of life is due, if one is.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.instant(self.deadline.load(Ordering::SeqCst))
    }

    fn instant(&self, nanos: u64) -> Option<Instant> {
        (nanos != 0).then(|| self.tree.epoch + Duration::from_nanos(nanos))
    }

    /// Notes for when the supervisor sets its timer, and gives that.
    pub(crate) fn watch(&self) -> Option<Instant> {
        let deadline = self.deadline.load(Ordering::SeqCst);
        self.watched.store(deadline, Ordering::SeqCst);
        self.instant(deadline)
    }

    /// Gives up the timer unless the child became busy meanwhile; true if the timer is still needed.
    pub(crate) fn unwatch(&self) -> bool {
        self.watched.store(0, Ordering::SeqCst);
        // A busy() that ran before the store above saw `watched` and sent no message: look again.
        let deadline = self.deadline.load(Ordering::SeqCst);
        deadline != 0 && self.watched.compare_exchange(0, deadline, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

/// Tells a child to stop. After its [`Shutdown`](crate::Shutdown) time it is killed.
#[derive(Clone, Debug)]
pub struct StopToken(pub(crate) Arc<Life>);

impl StopToken {
    /// Returns once the child is asked to stop; at once if it was already. Cancel-safe.
    pub async fn stopped(&self) {
        self.until(Self::is_stopped).await;
    }

    async fn until(&self, reached: impl Fn(&Self) -> bool) {
        loop {
            let notified = self.0.stopped.notified();
            let mut notified = std::pin::pin!(notified);
            notified.as_mut().enable();
            if reached(self) {
                return;
            }
            notified.await;
        }
    }

    /// Returns once the child is asked to drain: to finish what it has, take no more, and end. At once if it was
    /// already, or was asked to stop. Only children with a [`drain`](crate::ChildSpec::drain) are asked. Cancel-safe.
    pub async fn draining(&self) {
        self.until(Self::is_draining).await;
    }

    /// Whether the child was asked to drain or to stop.
    pub fn is_draining(&self) -> bool {
        self.0.drain.load(Ordering::SeqCst) || self.is_stopped()
    }

    /// Whether the child was asked to stop.
    pub fn is_stopped(&self) -> bool {
        self.0.stop.load(Ordering::SeqCst)
    }
}

/// Takes a child's signs of life. All calls take less than a microsecond and may be made as often as one likes.
#[derive(Clone, Debug)]
pub struct Progress(pub(crate) Arc<Life>);

impl Progress {
    /// Promises another call within `limit`. Without one the child counts as hung: it is killed and handled as a
    /// failure of class [`Hung`](crate::Class::Hung). A promise made by a start function counts from then on, so that a
    /// start may be watched step by step where no one limit fits all of it.
    pub fn busy(&self, limit: Duration) {
        let life = &self.0;
        life.used.store(true, Ordering::SeqCst);
        let due = Instant::now().duration_since(life.tree.epoch).saturating_add(limit);
        let nanos = u64::try_from(due.as_nanos()).unwrap_or(FAR_NANOS).min(FAR_NANOS);
        let nanos = nanos.max(1);
        life.deadline.store(nanos, Ordering::SeqCst);
        let sooner = |rings: u64| (rings == 0 || nanos < rings).then_some(nanos);
        if life.watched.fetch_update(Ordering::SeqCst, Ordering::SeqCst, sooner).is_ok() {
            life.tell(Msg::Watch { seq: life.seq, life: life.number });
        }
        make_stealable();
    }

    /// Nothing to do now; the promise is lifted.
    pub fn idle(&self) {
        self.0.used.store(true, Ordering::SeqCst);
        self.0.deadline.store(0, Ordering::SeqCst);
    }

    /// Useful work was done in this life: the failures before it may be forgotten, and a probe has succeeded. Lifts the
    /// promise made by `busy`.
    pub fn healthy(&self) {
        self.0.healthy.store(true, Ordering::SeqCst);
        self.idle();
    }
}

/// Tokio puts the task that was woken last into a slot of this thread that no other thread takes from. If the child now
/// blocks the thread, whomever it has just woken would sit in that slot: its supervisor, which would never hear of the
/// promise, or whoever works on what it handed over. Another task pushes it out into the queue that idle threads steal
/// from.
fn make_stealable() {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        drop(runtime.spawn(async {}));
    }
}

/// A hundred years: deadlines beyond it are as good as none, and adding it to an instant cannot overflow.
const FAR_NANOS: u64 = 100 * 365 * 86_400 * 1_000_000_000;

/// Says whether a life still counts. What a child does to the outside world should be refused once it does not: a
/// child that could not be killed may still be running when its successor is.
#[derive(Clone, Debug)]
pub struct Fence(pub(crate) Arc<Life>);

impl Fence {
    /// False once this life was killed, abandoned, replaced or has ended.
    pub fn is_current(&self) -> bool {
        self.0.current.load(Ordering::SeqCst)
    }
}
