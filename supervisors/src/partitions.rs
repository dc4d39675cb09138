//! One dynamic supervisor divided into several, so that many children do not wait for one message loop.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::check::SpecError;
use crate::handle::{ManageError, SupervisorHandle};
use crate::spec::{ChildSpec, SupervisorSpec};
use crate::view::{ChildInfo, Counts};

/// As many partitions as this machine runs threads at once.
pub fn default_partitions() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

impl SupervisorSpec {
    /// A supervisor of `partitions` supervisors called `0`, `1`, …, each made by `make` from its number: usually
    /// [`SupervisorSpec::dynamic`] with flags. Its own flags can be set as always. Once it runs, put its handle into a
    /// [`PartitionedHandle`].
    ///
    /// # Errors
    /// [`SpecError::InvalidPartitions`] if there are none.
    pub fn partitioned<F>(partitions: usize, make: F) -> Result<Self, SpecError>
    where
        F: Fn(usize) -> Self + Send + Sync + 'static,
    {
        if partitions == 0 {
            return Err(SpecError::InvalidPartitions(partitions));
        }
        let make = Arc::new(make);
        let children = (0..partitions).map(|number| {
            let make = Arc::clone(&make);
            ChildSpec::supervisor(number.to_string(), move |_| {
                let spec = make(number);
                async move { Ok(spec) }
            })
        });
        Ok(Self { children: children.collect(), ..Self::default() })
    }
}

struct Inner {
    parent: SupervisorHandle,
    /// Partitions that were made.
    made: usize,
    /// Of them, those in use: the first ones.
    used: AtomicUsize,
    /// Since a resize a child may live elsewhere than its id says.
    resized: AtomicBool,
    /// Handles of the partitions' current lives, as far as they were needed.
    handles: Mutex<Vec<Option<SupervisorHandle>>>,
}

/// Talks to a partitioned supervisor as if it were one. Which partition a child belongs to follows from its id alone,
/// by a hash that is the same in every process and version. Clone it rather than making a second one: clones share what
/// they know of a resize.
#[derive(Clone)]
pub struct PartitionedHandle(Arc<Inner>);

impl fmt::Debug for PartitionedHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartitionedHandle").field("parent", &self.0.parent).field("made", &self.0.made).finish()
    }
}

impl PartitionedHandle {
    /// `parent` runs a [`SupervisorSpec::partitioned`] spec with this many partitions.
    ///
    /// # Errors
    /// [`SpecError::InvalidPartitions`] if there are none.
    pub fn new(parent: SupervisorHandle, partitions: usize) -> Result<Self, SpecError> {
        if partitions == 0 {
            return Err(SpecError::InvalidPartitions(partitions));
        }
        Ok(Self(Arc::new(Inner {
            parent,
            made: partitions,
            used: AtomicUsize::new(partitions),
            resized: AtomicBool::new(false),
            handles: Mutex::new(vec![None; partitions]),
        })))
    }

    /// The partition that a new child with this id belongs to.
    pub fn partition_of(&self, id: &str) -> usize {
        let used = self.partitions() as u64;
        usize::try_from(fnv1a(id.as_bytes()) % used).unwrap_or(0)
    }

    /// Partitions in use.
    pub fn partitions(&self) -> usize {
        self.0.used.load(Ordering::SeqCst).max(1)
    }

    /// The supervisor of a partition, for whatever this handle does not offer.
    ///
    /// # Errors
    /// [`ManageError::Restarting`] if it does not run now.
    pub async fn partition(&self, number: usize) -> Result<SupervisorHandle, ManageError> {
        let known = self.handles().get(number).cloned().flatten();
        if let Some(handle) = known.filter(SupervisorHandle::is_alive) {
            return Ok(handle);
        }
        let handle = self.0.parent.supervisor(&number.to_string()).await.ok_or(ManageError::Restarting)?;
        if let Some(slot) = self.handles().get_mut(number) {
            *slot = Some(handle.clone());
        }
        Ok(handle)
    }

    fn handles(&self) -> std::sync::MutexGuard<'_, Vec<Option<SupervisorHandle>>> {
        self.0.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The supervisor that has this child, or that a new one would go to.
    async fn home(&self, id: &str) -> Result<SupervisorHandle, ManageError> {
        let home = self.partition_of(id);
        if self.0.resized.load(Ordering::SeqCst) {
            for number in (0..self.partitions()).filter(|number| *number != home) {
                let Ok(elsewhere) = self.partition(number).await else { continue };
                if elsewhere.child_spec(id).await.is_some() {
                    return Ok(elsewhere);
                }
            }
        }
        self.partition(home).await
    }

    /// As [`SupervisorHandle::start_child`].
    ///
    /// # Errors
    /// As there, and [`ManageError::Restarting`] if the partition does not run now.
    pub async fn start_child(&self, spec: ChildSpec) -> Result<Value, ManageError> {
        self.home(&spec.id).await?.start_child(spec).await
    }

    /// As [`SupervisorHandle::terminate_child`].
    ///
    /// # Errors
    /// As there, and [`ManageError::Restarting`] if the partition does not run now.
    pub async fn terminate_child(&self, id: &str) -> Result<(), ManageError> {
        self.home(id).await?.terminate_child(id).await
    }

    /// As [`SupervisorHandle::restart_child`].
    ///
    /// # Errors
    /// As there, and [`ManageError::Restarting`] if the partition does not run now.
    pub async fn restart_child(&self, id: &str) -> Result<Value, ManageError> {
        self.home(id).await?.restart_child(id).await
    }

    /// The children of all partitions that run, partition by partition.
    pub async fn which_children(&self) -> Vec<ChildInfo> {
        let mut all = Vec::new();
        for number in 0..self.partitions() {
            if let Ok(partition) = self.partition(number).await {
                all.extend(partition.which_children().await);
            }
        }
        all
    }

    /// Numbers of children in all partitions that run; the partitions themselves are not counted.
    pub async fn count_children(&self) -> Counts {
        let mut sum = Counts::default();
        for number in 0..self.partitions() {
            let Ok(partition) = self.partition(number).await else { continue };
            let counts = partition.count_children().await;
            sum.specs += counts.specs;
            sum.active += counts.active;
            sum.supervisors += counts.supervisors;
            sum.workers += counts.workers;
        }
        sum
    }

    /// Uses this many of the partitions, not more than were made. Those above are stopped with their children; the
    /// children of the others stay where they are, which makes later calls look into every partition.
    ///
    /// # Errors
    /// [`SpecError::InvalidPartitions`], or that of a partition which did not start; the rest is as it was then.
    pub async fn resize(&self, partitions: usize) -> Result<(), ManageError> {
        if partitions == 0 || partitions > self.0.made {
            return Err(ManageError::Invalid(SpecError::InvalidPartitions(partitions)));
        }
        let before = self.partitions();
        if partitions != before {
            self.0.resized.store(true, Ordering::SeqCst);
        }
        for number in before..partitions {
            self.0.parent.restart_child(&number.to_string()).await?;
        }
        self.0.used.store(partitions, Ordering::SeqCst);
        for number in (partitions..before).rev() {
            self.0.parent.terminate_child(&number.to_string()).await?;
        }
        Ok(())
    }
}

/// FNV-1a, 64 bits: short, well spread for names, and the same everywhere.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
