//! Whole streams under a paused clock: the real tree, the real commit protocol, and everything around them made of
//! seeded doubles, so that a seed is a story that can be told again byte for byte.
//!
//! ```text
//! sources ─▶ tree (tenants, managers, committers, workers, announcers) ─▶ FailingStore ─▶ memory
//!    ▲          │ cache on a disk in memory                                  │
//! moods      broker                                                        Truth: catches whoever claims what is not so
//! ```
//!
//! Nothing here reads the machine's clock, its randomness or a thread's progress. What would (sled, deltalake's own
//! engine for checkpoints of logs, decoding on other threads) is replaced or stays below its threshold.

mod draw;
mod foreign;
mod handovers;
mod journal;
mod judge;
mod node;
mod refusals;
mod sink;
mod source;
mod store;
mod story;
mod tests;
mod truth;
mod world;

pub(crate) use store::{Fail, FailingStore, Fault, Weather};
pub(crate) use world::Outcome;

/// Tells the story of a seed, with a deliberate bug if one is named.
pub(crate) fn run(seed: u64, bug: Option<&str>) -> Outcome {
    in_a_runtime(story::tell(seed, bug))
}

/// Runs a story under a clock that goes only when nobody has anything to do.
fn in_a_runtime<T>(story: impl Future<Output = T>) -> T {
    supervisors::capture_panics();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    let outcome = runtime.block_on(story);
    store::KILLED.set(false);
    crate::faults::play(None);
    outcome
}
