//! Erlang/OTP's supervision contract on ractor.
//!
//! A tree of supervisors keeps children alive: each child has a spec that says how it is started, when it is restarted
//! and how it is stopped; each supervisor has a strategy that says who is restarted together, and an intensity that
//! says how often is too often. Beyond OTP: restarts can be delayed without making the supervisor deaf, a child that no
//! restart can heal is parked, one that makes no progress is killed, one that cannot be killed is abandoned and fenced,
//! and everything that happens is told to an [`Observer`] under one incident id from first cause to last restart.

mod actor;
mod backtraces;
mod check;
mod core;
mod event;
mod flap;
mod format;
mod handle;
mod life;
mod message;
mod pacing;
mod panics;
mod partitions;
mod path;
mod policy;
mod pulse;
mod root;
mod spec;
mod stopping;
mod timers;
mod view;
mod window;
mod zombies;

pub use actor::Ignore;
pub use backtraces::{BACKTRACE_CHARS_MAX, PanicReport};
pub use check::{SpecError, check_specs};
pub use event::{Event, EventKind, Observer, WaitReason};
pub use flap::{FLAP_HALF_LIFE, FlapUse, Flapping};
pub use format::{LINE_CHARS_MAX, REPORT_CHARS_MAX};
pub use handle::{ManageError, SupervisorHandle};
pub use life::{ChildContext, Fence, Progress, StopToken};
pub use pacing::Pacing;
pub use panics::capture_panics;
pub use partitions::{PartitionedHandle, default_partitions};
pub use path::ChildPath;
pub use policy::{Backoff, Class, Failure, Intensity, Reason, RestartPolicy};
pub use pulse::Pulse;
pub use root::{Root, RootEnd, RootOptions};
pub use spec::{
    AutoShutdown, ChildKind, ChildSpec, DEFAULT_SHUTDOWN, InitialFailure, OnLimit, Restart, Shutdown, Started,
    Strategy, SupervisorSpec,
};
pub use stopping::{KILL_GRACE, LEFT_BYTES_MAX, STOP_REPORT_MAX, Stop, StopOutcome, StopReport, StoppedChild};
pub use view::{ChildInfo, Counts, NodeState, NodeView};
pub use window::WindowUse;
pub use zombies::AbandonedLife;

/// The code in the pages for readers compiles.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../README.md")]
    mod readme {}
    #[doc = include_str!("../docs/from-ractor.md")]
    mod from_ractor {}
}
