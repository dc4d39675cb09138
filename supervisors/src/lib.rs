//! Erlang/OTP's supervision contract on ractor.
//!
//! A tree of supervisors keeps children alive: each child has a spec that says how it is started, when it is restarted
//! and how it is stopped; each supervisor has a strategy that says who is restarted together, and an intensity that
//! says how often is too often. Beyond OTP: restarts can be delayed without making the supervisor deaf, a child that no
//! restart can heal is parked, one that makes no progress is killed, one that cannot be killed is abandoned and fenced,
//! and everything that happens is told to an [`Observer`] under one incident id from first cause to last restart.

mod check;
mod core;
mod event;
mod handle;
mod life;
mod message;
mod panics;
mod path;
mod policy;
mod pulse;
mod root;
mod spec;
mod timers;
mod view;

pub use check::SpecError;
pub use event::{Event, EventKind, Observer};
pub use handle::{ManageError, SupervisorHandle};
pub use life::{ChildContext, Fence, Progress, StopToken};
pub use panics::capture_panics;
pub use path::ChildPath;
pub use policy::{Backoff, Class, Failure, Intensity, Reason, RestartPolicy};
pub use pulse::Pulse;
pub use root::{Root, RootEnd};
pub use spec::{
    AutoShutdown, ChildKind, ChildSpec, DEFAULT_SHUTDOWN, InitialFailure, OnLimit, Restart, Shutdown, Started,
    Strategy, SupervisorSpec,
};
pub use view::{ChildInfo, Counts, NodeState, NodeView};
