//! The only place of the tests that sleeps.

use std::fmt::Display;
use std::future::Future;
use std::time::{Duration, Instant};

/// How long a test waits for what must come. It costs nothing where it comes, so it is far beyond what the slowest
/// machine needs; no assertion stands on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks until `look` gives something. Level-triggered: what was true before the first look is seen too.
///
/// # Panics
/// After `deadline`, with `what` was awaited.
pub(crate) async fn wait_for<T, F: Future<Output = Option<T>>>(
    what: impl Display,
    deadline: Duration,
    mut look: impl FnMut() -> F,
) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(began.elapsed() < deadline, "waited {deadline:?} in vain for {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Lets the time pass after which a fault is to strike. Never a way to wait for something to have happened.
pub(crate) async fn strike_after(delay: Duration) {
    tokio::time::sleep(delay).await;
}
