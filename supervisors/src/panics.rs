//! Panics of children: caught, located, never printed.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::sync::Once;
use std::task::{Context, Poll};

use crate::policy::{Class, Failure};

thread_local! {
    /// How many supervised calls this thread is inside of.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// Where the last panic inside a supervised call happened.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Makes the panics of supervised tasks and start functions known by their place in the source instead of printed. Panics
/// elsewhere go to the hook that was there before. Calling it again does nothing.
pub fn capture_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if DEPTH.get() == 0 {
                before(info);
            } else {
                PLACE.set(info.location().map(place));
            }
        }));
    });
}

/// File and line, the file without what is particular to the machine that compiled it.
fn place(location: &Location<'_>) -> String {
    let file = location.file();
    let shown = match file.rfind("/src/") {
        Some(at) if file.starts_with('/') => file[..at].rfind('/').map_or(file, |start| &file[start + 1..]),
        _ => file,
    };
    format!("{shown}:{}", location.line())
}

/// Runs `call` and turns a panic into a failure of class bug.
pub(crate) fn caught<T>(call: impl FnOnce() -> T) -> Result<T, Failure> {
    DEPTH.set(DEPTH.get() + 1);
    let outcome = catch_unwind(AssertUnwindSafe(call));
    DEPTH.set(DEPTH.get() - 1);
    outcome.map_err(|payload| panic_failure(payload.as_ref()))
}

fn panic_failure(payload: &(dyn Any + Send)) -> Failure {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a panic without text");
    let message = match PLACE.take() {
        Some(place) => format!("{text} (at {place})"),
        None => text.to_owned(),
    };
    Failure::new(Class::Bug, "panic", message)
}

/// A future whose panics come out as failures.
pub(crate) struct Caught<F>(pub(crate) F);

impl<F, T> Future for Caught<F>
where
    F: Future<Output = Result<T, Failure>> + Unpin,
{
    type Output = Result<T, Failure>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let inner = Pin::new(&mut self.0);
        caught(|| inner.poll(context)).unwrap_or_else(|failure| Poll::Ready(Err(failure)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_panic_carries_text_and_place() {
        capture_panics();
        let failure = caught(|| -> () { panic!("broken {}", 7) }).unwrap_err();
        assert_eq!(failure.reason.class, Class::Bug);
        assert_eq!(failure.reason.code, "panic");
        assert!(failure.reason.message.starts_with("broken 7 (at "), "{}", failure.reason.message);
        assert!(failure.reason.message.contains("src/panics.rs:"), "{}", failure.reason.message);
        assert_eq!(caught(|| 5).unwrap(), 5);
    }
}
