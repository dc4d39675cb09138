//! Panics of children: caught, located, never printed.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Once};
use std::task::{Context, Poll};

use crate::backtraces::PanicReport;
use crate::message::Trouble;
use crate::policy::{Class, Failure};

thread_local! {
    /// How many supervised calls this thread is inside of.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// What is known of the last panic inside a supervised call.
    static LAST: RefCell<Option<PanicReport>> = const { RefCell::new(None) };
}

/// Makes the panics of supervised tasks, threads, start functions and actors that [`ChildSpec::actor`] made known by
/// their place in the source instead of printed. Panics elsewhere go to the hook that was there before. Calling it again
/// does nothing.
///
/// [`ChildSpec::actor`]: crate::ChildSpec::actor
pub fn capture_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if DEPTH.get() == 0 {
                before(info);
            } else {
                LAST.set(info.location().map(PanicReport::here));
            }
        }));
    });
}

/// Runs `call` and turns a panic into a failure of class bug.
pub(crate) fn caught<T>(call: impl FnOnce() -> T) -> Result<T, Trouble> {
    DEPTH.set(DEPTH.get() + 1);
    let outcome = catch_unwind(AssertUnwindSafe(call));
    DEPTH.set(DEPTH.get() - 1);
    outcome.map_err(|payload| panicked(payload.as_ref()))
}

fn panicked(payload: &(dyn Any + Send)) -> Trouble {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a panic without text");
    let panic = LAST.take().map(Arc::new);
    let message = match &panic {
        Some(report) => format!("{text} (at {})", report.location()),
        None => text.to_owned(),
    };
    Trouble { failure: Failure::new(Class::Bug, "panic", message), origin: None, panic }
}

/// A future whose panics come out as trouble.
pub(crate) struct Caught<F>(pub(crate) F);

impl<F, T, E> Future for Caught<F>
where
    F: Future<Output = Result<T, E>> + Unpin,
    E: Into<Trouble>,
{
    type Output = Result<T, Trouble>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let inner = Pin::new(&mut self.0);
        match caught(|| inner.poll(context)) {
            Ok(poll) => poll.map_err(Into::into),
            Err(trouble) => Poll::Ready(Err(trouble)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_panic_carries_text_place_and_backtrace() {
        capture_panics();
        let trouble = caught(|| -> () { panic!("broken {}", 7) }).unwrap_err();
        let reason = trouble.failure.reason;
        assert_eq!((reason.class, reason.code.as_str()), (Class::Bug, "panic"));
        assert!(reason.message.starts_with("broken 7 (at "), "{}", reason.message);
        let report = trouble.panic.unwrap();
        assert!(report.location().contains("src/panics.rs:"), "{}", report.location());
        let trace = report.backtrace().unwrap();
        assert!(trace.contains("test_panic_carries_text_place_and_backtrace"), "{trace}");
        assert_eq!(caught(|| 5).unwrap(), 5);
    }
}
