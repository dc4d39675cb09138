//! The top of a tree.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::check::SpecError;
use crate::core::{Place, Tree, spawn};
use crate::event::{Event, EventKind, Observer};
use crate::handle::{SupervisorExit, SupervisorHandle, killed};
use crate::message::Msg;
use crate::pacing::Pacing;
use crate::path::ChildPath;
use crate::policy::{Failure, Reason};
use crate::spec::SupervisorSpec;
use crate::stopping::StopReport;
use crate::zombies::AbandonedLife;

/// How a tree ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RootEnd {
    /// Asked to, or because its significant children ended.
    Stopped,
    /// Its limit of restarts was reached.
    GaveUp {
        /// The incident that led there.
        incident: Arc<str>,
        /// What the first child to fail in it failed with.
        reason: Reason,
    },
}

/// A running tree. Dropping it does not stop the tree; [`Root::stop`] does.
#[derive(Clone)]
pub struct Root {
    handle: SupervisorHandle,
    end: watch::Receiver<Option<RootEnd>>,
    tree: Arc<Tree>,
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Root").field("handle", &self.handle).finish_non_exhaustive()
    }
}

/// What a tree is started with besides its specs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RootOptions {
    /// Decides incident ids and jitter.
    pub seed: u64,
    /// Paces the restarts of the whole tree; `None` lets all restart when they are due.
    pub pacing: Option<Pacing>,
}

impl Root {
    /// Starts a tree and waits until its initial children are started. `seed` decides incident ids and jitter.
    ///
    /// # Errors
    /// What the spec is wrong in, or what the first child that did not start failed with; the others are stopped by
    /// then.
    pub async fn start(
        id: &str,
        spec: SupervisorSpec,
        observer: Arc<dyn Observer>,
        seed: u64,
    ) -> Result<Self, Failure> {
        Self::start_with(id, spec, observer, RootOptions { seed, ..RootOptions::default() }).await
    }

    /// Starts a tree as [`Root::start`] does, with options.
    ///
    /// # Errors
    /// As for [`Root::start`], and if the options make no sense.
    pub async fn start_with(
        id: &str,
        spec: SupervisorSpec,
        observer: Arc<dyn Observer>,
        options: RootOptions,
    ) -> Result<Self, Failure> {
        if spec.ignore {
            return Err(SpecError::NothingToSupervise.into());
        }
        let tree = Tree::new(observer, options)?;
        let path = ChildPath::root(id);
        let incarnation = tree.next_incarnation(&path);
        let place = Place { path: path.clone(), incarnation };
        let spawned = spawn(Arc::clone(&tree), place, spec, None, None).await?;
        let (handle, actor) = (spawned.handle, spawned.actor);
        let began = spawned.began.await.unwrap_or_else(|_| Err(killed().into()));
        if let Err(trouble) = began {
            return Err(trouble.failure);
        }
        tree.record(Event::plain(path.clone(), incarnation, EventKind::Started));
        let (tell, end) = watch::channel(None);
        let (watched, kept) = (handle.clone(), Arc::clone(&tree));
        tokio::spawn(async move {
            let _ = actor.await;
            let end = root_end(&watched, &tree);
            tree.record(end_event(path, incarnation, &end));
            tell.send_replace(Some(end));
        });
        Ok(Self { handle, end, tree: kept })
    }

    /// Talks to the supervisor at the top.
    pub fn handle(&self) -> SupervisorHandle {
        self.handle.clone()
    }

    /// Stops the whole tree in order and waits for its end. Every child has the time that its spec gives it.
    pub async fn stop(&self) -> StopReport {
        let began = self.begin_stop();
        let end = self.ended().await;
        self.report(end, began)
    }

    /// Stops the whole tree in order; what still runs after `deadline` is killed all at once, and abandoned if it is
    /// not gone within [`KILL_GRACE`](crate::KILL_GRACE): so this returns after the sum of both at the latest.
    pub async fn stop_within(&self, deadline: Duration) -> StopReport {
        let began = self.begin_stop();
        let end = match tokio::time::timeout(deadline, self.ended()).await {
            Ok(end) => end,
            Err(_) => {
                self.handle.cast(Msg::Hurry);
                self.ended().await
            }
        };
        self.report(end, began)
    }

    fn begin_stop(&self) -> Instant {
        self.tree.stops.begin();
        self.handle.cast(Msg::Shutdown);
        Instant::now()
    }

    fn report(&self, end: RootEnd, began: Instant) -> StopReport {
        let (children, unlisted) = self.tree.stops.collected();
        StopReport { end, took: began.elapsed(), children, unlisted, abandoned: self.abandoned() }
    }

    /// Abandoned lives anywhere in the tree that still run, the oldest first. What ends at last is no longer counted,
    /// also after the tree has ended.
    pub fn abandoned(&self) -> Vec<AbandonedLife> {
        self.tree.zombies.list()
    }

    /// Waits until the tree has ended, and says how.
    pub async fn ended(&self) -> RootEnd {
        let mut end = self.end.clone();
        let ended = end.wait_for(Option::is_some).await;
        ended.ok().and_then(|end| end.clone()).unwrap_or(RootEnd::Stopped)
    }
}

fn root_end(handle: &SupervisorHandle, tree: &Tree) -> RootEnd {
    match handle.exit() {
        Some(SupervisorExit::Clean) => RootEnd::Stopped,
        Some(SupervisorExit::GaveUp { failure, origin }) => {
            RootEnd::GaveUp { incident: Arc::clone(&origin.incident), reason: failure.reason.clone() }
        }
        None => RootEnd::GaveUp { incident: tree.incident(), reason: killed().reason },
    }
}

fn end_event(path: ChildPath, incarnation: u64, end: &RootEnd) -> Event {
    let mut event = Event::plain(path, incarnation, EventKind::Stopped);
    if let RootEnd::GaveUp { incident, reason } = end {
        event.incident = Some(Arc::clone(incident));
        event.reason = Some(reason.clone());
    }
    event
}
