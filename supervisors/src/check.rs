//! Which specifications make no sense.

use std::collections::HashSet;
use std::time::Duration;

use crate::policy::{Class, Failure, RestartPolicy};
use crate::spec::{AutoShutdown, ChildKind, ChildSpec, Restart, Strategy, SupervisorSpec};

/// What is wrong with a specification.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Two children with one id.
    #[error("two children are called `{0}`")]
    DuplicateChildName(String),
    /// An id must not be empty, nor contain `/`, which joins ids into paths.
    #[error("`{0}` cannot be a child's id: it is empty or contains `/`")]
    InvalidId(String),
    /// A significant child must be able to end for good, and its supervisor must care.
    #[error("child `{0}` is significant, which needs a restart type other than permanent and an auto-shutdown")]
    InvalidSignificant(String),
    /// The window of an intensity must not be empty.
    #[error("the intensity's window is zero")]
    InvalidPeriod,
    /// A dynamic supervisor's children have no order.
    #[error("a dynamic supervisor needs the strategy one_for_one and no auto-shutdown")]
    BadCombination,
    /// More children than `max_children`.
    #[error("{0} children, more than the limit")]
    TooManyChildren(usize),
    /// A back-off whose numbers do not fit together.
    #[error("the back-off needs min ≤ max, a finite factor of at least 1, and a jitter between 0 and 1")]
    InvalidBackoff,
    /// A probe without pause between would spin.
    #[error("the probe's interval is zero")]
    InvalidProbe,
    /// A supervisor child's kind follows from how it is started.
    #[error("child `{0}` starts a supervisor but is declared a worker")]
    InvalidKind(String),
    /// A time limit of zero would let nothing start, or drain.
    #[error("child `{0}` is given no time to {1}")]
    InvalidLimit(String, &'static str),
    /// A supervisor's children drain by their own specs.
    #[error("child `{0}` is a supervisor, which cannot drain")]
    InvalidDrain(String),
    /// Marks of flapping that do not fit together.
    #[error("flapping needs 0 < below ≤ above and a finite stretch of at least 1")]
    InvalidFlapping,
    /// A storm limiter that would let nothing pass, or everything.
    #[error("pacing needs a burst of at least 1 and a rate per second above 0")]
    InvalidPacing,
    /// A partitioned supervisor without partitions, or with more than it was made with.
    #[error("{0} partitions are none, or more than there are")]
    InvalidPartitions(usize),
    /// A root must supervise something.
    #[error("the root's specification says that there is nothing to supervise")]
    NothingToSupervise,
}

impl From<SpecError> for Failure {
    fn from(error: SpecError) -> Self {
        Failure::new(Class::Config, "invalid_spec", error.to_string())
    }
}

impl SupervisorSpec {
    /// Checks flags and children without starting anything; gives the first fault found.
    pub fn check(&self) -> Result<(), SpecError> {
        if self.intensity.window == Duration::ZERO {
            return Err(SpecError::InvalidPeriod);
        }
        if self.dynamic && (self.strategy != Strategy::OneForOne || self.auto_shutdown != AutoShutdown::Never) {
            return Err(SpecError::BadCombination);
        }
        if self.max_children.is_some_and(|most| self.children.len() > most) {
            return Err(SpecError::TooManyChildren(self.children.len()));
        }
        check_policy(&self.policy)?;
        check_specs(&self.children, self.auto_shutdown)
    }
}

/// Checks specs of children without starting anything, for a supervisor with this auto-shutdown; gives the first fault
/// found.
///
/// # Errors
/// What is wrong with which child.
pub fn check_specs(children: &[ChildSpec], auto_shutdown: AutoShutdown) -> Result<(), SpecError> {
    let mut ids = HashSet::with_capacity(children.len());
    for child in children {
        check_child(child, auto_shutdown)?;
        if !ids.insert(&child.id) {
            return Err(SpecError::DuplicateChildName(child.id.to_string()));
        }
    }
    Ok(())
}

/// Checks one child's spec against its supervisor's auto-shutdown.
pub(crate) fn check_child(child: &ChildSpec, auto_shutdown: AutoShutdown) -> Result<(), SpecError> {
    if child.id.is_empty() || child.id.contains('/') {
        return Err(SpecError::InvalidId(child.id.to_string()));
    }
    if child.significant && (child.restart == Restart::Permanent || auto_shutdown == AutoShutdown::Never) {
        return Err(SpecError::InvalidSignificant(child.id.to_string()));
    }
    let nested = matches!(child.how, crate::spec::StartHow::Supervisor(_));
    if nested && child.kind == ChildKind::Worker {
        return Err(SpecError::InvalidKind(child.id.to_string()));
    }
    for (limit, what) in [(child.start_timeout, "start"), (child.drain, "drain")] {
        if limit == Some(Duration::ZERO) {
            return Err(SpecError::InvalidLimit(child.id.to_string(), what));
        }
    }
    if nested && child.drain.is_some() {
        return Err(SpecError::InvalidDrain(child.id.to_string()));
    }
    child.policy.as_deref().map_or(Ok(()), check_policy)
}

fn check_policy(policy: &RestartPolicy) -> Result<(), SpecError> {
    if policy.probe.is_some_and(|every| every == Duration::ZERO) {
        return Err(SpecError::InvalidProbe);
    }
    if policy.flapping.is_some_and(|flapping| !flapping.is_sound()) {
        return Err(SpecError::InvalidFlapping);
    }
    let Some(backoff) = &policy.backoff else { return Ok(()) };
    let sound = backoff.min <= backoff.max
        && backoff.factor.is_finite()
        && backoff.factor >= 1.0
        && (0.0..=1.0).contains(&backoff.jitter);
    if sound { Ok(()) } else { Err(SpecError::InvalidBackoff) }
}
