//! What a committer promises its supervisor: signs of life of its own work, and of what goes on at the lake beside it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use supervisors::Progress;
use tokio::time::{Instant, sleep_until};

use crate::lake::{BEAT_EVERY, Beat};

/// How long a claim or a commit may say nothing. The store's guard speaks every two seconds while it waits for whatever
/// has a limit of its own (its queue, the circuit, an answer that may take minutes), so an outage is never silence.
/// What is silent is work between two requests (reading the log of a large table takes the longest, seconds), a thread
/// that is held, or something that never comes back.
const LAKE_SILENT_MAX: Duration = Duration::from_secs(60);
/// How long decoding a batch or sealing an epoch may take, and what for each MiB of it: a hundred times what it does.
const WORK_MAX: Duration = Duration::from_secs(60);
const WORK_PER_MIB: Duration = Duration::from_secs(1);
/// All of these where rare things are to be frequent.
const HURRIED: Duration = Duration::from_secs(10);

/// Who owes a sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Lake,
    Work,
}

/// The promises of one committer. Its supervisor is told the one that is due first.
#[derive(Debug)]
pub(super) struct Promises {
    progress: Progress,
    due: Mutex<[Option<Instant>; 2]>,
}

impl Promises {
    pub(super) fn new(progress: Progress) -> Arc<Self> {
        Arc::new(Self { progress, due: Mutex::new([None, None]) })
    }

    fn lock(&self) -> MutexGuard<'_, [Option<Instant>; 2]> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn promise(&self, of: Of, limit: Option<Duration>) {
        let now = Instant::now();
        let mut due = self.lock();
        due[of as usize] = limit.map(|limit| now + limit);
        self.tell(*due, now);
    }

    fn tell(&self, due: [Option<Instant>; 2], now: Instant) {
        match due.iter().flatten().min() {
            Some(first) => self.progress.busy(first.saturating_duration_since(now)),
            None => self.progress.idle(),
        }
    }

    /// A claim or a commit is under way from here on.
    pub(super) fn at_the_lake(&self) {
        self.promise(Of::Lake, Some(hurried(LAKE_SILENT_MAX)));
    }

    /// Nothing is to be expected from the lake.
    pub(super) fn off_the_lake(&self) {
        self.promise(Of::Lake, None);
    }

    /// Signs of life from the lake, where something is expected from it.
    pub(super) fn beat(self: &Arc<Self>) -> Beat {
        let promises = Arc::clone(self);
        Beat::new(move || {
            let (now, limit) = (Instant::now(), hurried(LAKE_SILENT_MAX));
            let mut due = promises.lock();
            // Signs come with every step of every request; one now and then is enough.
            if let Some(lake) = &mut due[Of::Lake as usize]
                && (now + limit).saturating_duration_since(*lake) >= BEAT_EVERY / 2
            {
                *lake = now + limit;
                promises.tell(*due, now);
            }
        })
    }

    /// Work on `bytes` begins.
    pub(super) fn at_work(&self, bytes: usize) {
        let mib = u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
        self.promise(Of::Work, Some(hurried(WORK_MAX.saturating_add(WORK_PER_MIB.saturating_mul(mib)))));
    }

    /// The committer waits for others.
    pub(super) fn at_rest(&self) {
        self.promise(Of::Work, None);
    }

    /// An epoch is committed.
    pub(super) fn healthy(&self) {
        let due = self.lock();
        self.progress.healthy();
        self.tell(*due, Instant::now());
    }

    /// Completes when what is expected from the lake is overdue, or nothing is.
    pub(super) async fn silent(&self) {
        loop {
            let due = self.lock()[Of::Lake as usize];
            match due.filter(|due| *due > Instant::now()) {
                Some(due) => sleep_until(due).await,
                None => return,
            }
        }
    }
}

fn hurried(limit: Duration) -> Duration {
    if crate::faults::hurry() { HURRIED } else { limit }
}

#[cfg(test)]
mod tests {
    use supervisors::{ChildPath, ChildSpec, Event, EventKind, Observer, Root, Strategy, SupervisorSpec};

    use super::*;

    /// When a child failed, and with what.
    #[derive(Default)]
    struct Failed(Mutex<Vec<(Instant, String)>>);

    impl Observer for Failed {
        fn record(&self, event: Event) {
            if event.kind == EventKind::Failed {
                let code = event.reason.map(|reason| reason.code).unwrap_or_default();
                self.0.lock().unwrap().push((Instant::now(), code));
            }
        }

        fn next_incarnation(&self, _: &ChildPath) -> u64 {
            1
        }
    }

    #[tokio::test(start_paused = true)]
    async fn test_promises_silent_commit_is_a_hang_however_busy_its_committer_is_and_a_long_one_is_none() {
        let quiet_from = Arc::new(Mutex::new(None));
        let note = Arc::clone(&quiet_from);
        let committer = ChildSpec::task("committer", move |ctx| {
            let note = Arc::clone(&note);
            async move {
                let promises = Promises::new(ctx.progress);
                let beat = promises.beat();
                promises.at_the_lake();
                for second in 0..7_200 {
                    if second < 3_600 {
                        beat.beat();
                    } else {
                        note.lock().unwrap().get_or_insert_with(Instant::now);
                    }
                    promises.at_work(1 << 20);
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    promises.at_rest();
                }
                Ok(())
            }
        });
        let failed = Arc::new(Failed::default());
        let spec = SupervisorSpec::new(Strategy::OneForOne).intensity(0, Duration::from_secs(1)).child(committer);
        let observer: Arc<dyn Observer> = Arc::<Failed>::clone(&failed);
        let root = Root::start("root", spec, observer, 1).await.unwrap();
        tokio::time::timeout(Duration::from_secs(86_400), root.ended()).await.expect("it is found");
        let (at, code) = failed.0.lock().unwrap()[0].clone();
        let quiet = at - quiet_from.lock().unwrap().expect("it was quiet");
        assert_eq!(code, "no_progress");
        assert!((LAKE_SILENT_MAX - BEAT_EVERY..=LAKE_SILENT_MAX).contains(&quiet), "{quiet:?}");
    }
}
