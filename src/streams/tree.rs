//! The supervision tree below `tenants`, with the reason for each level's numbers.

use std::sync::Arc;
use std::time::Duration;

use adapters::contract::Partition;
use serde_json::Value;
use supervisors::{
    Backoff, ChildContext, ChildSpec, Class, Flapping, InitialFailure, OnLimit, Restart, RestartPolicy, Shutdown,
    Started, Strategy, SupervisorSpec,
};

use super::directory::Entry;
use super::manager::Manager;
use super::shared::Shared;
use super::{announcer, committer, worker};
use crate::settings::{Job, RestartSettings};

/// A worker stops at its next await; this is for a machine under load.
const WORKER_STOP: Duration = Duration::from_secs(5);

/// A committer commits what it collected, which takes as long as the lake takes.
const COMMITTER_STOP: Duration = Duration::from_secs(20);

/// The last references; a local sink takes milliseconds.
const ANNOUNCER_STOP: Duration = Duration::from_secs(5);

/// Tells of slow crash loops, each life of which looks fine: from six restarts an hour until there are fewer than two. The
/// delays stay what the operator has set.
const FLAPPING: Flapping = Flapping { above: 6.0, below: 2.0, stretch: 1.0 };

/// The restart policy of a child under `settings`.
fn policy(settings: &RestartSettings, park: Vec<Class>, probe: bool) -> RestartPolicy {
    let backoff = Backoff {
        min: settings.backoff_min,
        max: settings.backoff_max,
        factor: settings.backoff_factor,
        jitter: settings.backoff_jitter,
        reset_after: if crate::faults::bug("backoff_reset_at_spawn") { Duration::ZERO } else { settings.reset_after },
    };
    RestartPolicy {
        backoff: Some(backoff),
        park_classes: park,
        consecutive_max: Some(settings.max_restarts),
        probe: probe.then_some(settings.probe),
        flapping: Some(FLAPPING),
    }
}

/// A tenant: its streams are parked one by one when they cannot be kept up, so no stream takes another one down, and
/// a tenant as a whole has nothing that could fail.
pub(super) fn tenant(name: &str, streams: impl Fn() -> Vec<Arc<Entry>> + Send + Sync + 'static) -> ChildSpec {
    ChildSpec::supervisor(name, move |_| {
        let children = streams().into_iter().map(stream).collect();
        async move {
            Ok(SupervisorSpec {
                children,
                on_limit: OnLimit::ParkChild,
                initial_failure: InitialFailure::Retry,
                policy: policy(&RestartSettings::default(), Vec::new(), true),
                ..SupervisorSpec::dynamic()
            }
            .intensity(RestartSettings::default().max_restarts, RestartSettings::default().window))
        }
    })
}

/// A stream: a new committer means new workers, because only the claim knows where to go on. Its limit is the
/// operator's `[supervision]`; beyond it the tenant restarts the stream as a whole, and then parks it.
pub(super) fn stream(entry: Arc<Entry>) -> ChildSpec {
    let name = entry.shared.id.stream().to_owned();
    ChildSpec::supervisor(name, move |_| {
        let manager = manager(Arc::clone(&entry));
        let settings = entry.restart_settings();
        async move {
            Ok(SupervisorSpec::new(Strategy::RestForOne)
                .intensity(settings.max_restarts, settings.window)
                .policy(policy(&settings, parked_at_once(), false))
                .child(manager))
        }
    })
}

/// What no restart of a stream heals.
fn parked_at_once() -> Vec<Class> {
    let mut classes = vec![Class::Config, Class::Auth];
    if !crate::faults::bug("reclaim_when_fenced") {
        classes.push(Class::Fenced);
    }
    classes
}

fn manager(entry: Arc<Entry>) -> ChildSpec {
    ChildSpec::actor("manager", move |ctx| (Manager, (Arc::clone(&entry), ctx)))
}

/// The committer. A fenced one is parked without a probe: probing would take the stream back from whoever owns it
/// now, and the two owners would take turns for ever.
pub(super) fn committer(shared: Arc<Shared>) -> ChildSpec {
    ChildSpec::start("committer", move |ctx| {
        let shared = Arc::clone(&shared);
        async move {
            let (info, committer) = committer::claim(shared, ctx).await?;
            Ok(Started::task(committer.run()).with_info(info))
        }
    })
    .restart(Restart::Permanent)
    .shutdown(Shutdown::Timeout(COMMITTER_STOP))
}

/// The announcer.
pub(super) fn announcer(shared: Arc<Shared>) -> ChildSpec {
    ChildSpec::task("announcer", move |ctx| announcer::run(Arc::clone(&shared), ctx))
        .shutdown(Shutdown::Timeout(ANNOUNCER_STOP))
}

/// The workers, one a partition of the job as it is at the (re)start. The limit is each worker's own: the one that
/// reaches it is parked and its siblings run on.
pub(super) fn workers(shared: Arc<Shared>) -> ChildSpec {
    ChildSpec::supervisor("workers", move |_| {
        let shared = Arc::clone(&shared);
        async move {
            let job = shared.job.borrow().clone();
            let (children, settings) = match &job {
                Some(job) => (all_workers(&shared, job), job.restart.clone()),
                None => (Vec::new(), RestartSettings::default()),
            };
            Ok(SupervisorSpec {
                children,
                on_limit: OnLimit::ParkChild,
                initial_failure: InitialFailure::Retry,
                policy: policy(&settings, vec![Class::Config, Class::Auth], true),
                ..SupervisorSpec::dynamic()
            }
            .intensity(settings.max_restarts, settings.window))
        }
    })
}

fn all_workers(shared: &Arc<Shared>, job: &Job) -> Vec<ChildSpec> {
    let partitions = job.mount.partitions();
    let count = partitions.len();
    let delays = (0..count).map(|index| worker::first_poll_delay(job, index, count));
    partitions.into_iter().zip(delays).map(|(partition, delay)| worker(Arc::clone(shared), partition, delay)).collect()
}

/// A worker. Its first poll is delayed in its first life only.
pub(super) fn worker(shared: Arc<Shared>, partition: Partition, first_poll: Duration) -> ChildSpec {
    let partition = Arc::new(partition);
    ChildSpec::start(child_id(&partition.name), move |ctx: ChildContext| {
        let delay = if ctx.attempt == 0 { first_poll } else { Duration::ZERO };
        let started = worker::start(Arc::clone(&shared), ctx, partition.as_ref().clone(), delay);
        async move {
            let (info, life): (Value, _) = started?;
            Ok(Started::task(life).with_info(info))
        }
    })
    .restart(Restart::Transient)
    .shutdown(Shutdown::Timeout(WORKER_STOP))
}

/// A partition's name as a segment of a path in the tree.
pub(super) fn child_id(partition: &str) -> String {
    partition.replace('%', "%25").replace('/', "%2F")
}

/// The partition of which [`child_id`] made `id`.
pub(super) fn partition_name(id: &str) -> String {
    id.replace("%2F", "/").replace("%25", "%")
}
