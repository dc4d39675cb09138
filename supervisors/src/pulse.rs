//! A beat from outside that keeps a runtime's timers and sockets alive while a child holds one of its threads.
//!
//! One of a runtime's threads waits for the clock and the network on behalf of all. When that very thread takes up a
//! task that then holds it, nobody tells the others, which sleep on: no timer fires any more, not even the one that
//! would find the held thread. A task that comes from outside wakes one of them, and it takes the wait over.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

/// Between two beats: how much later than promised a hung child may be found, at a cost of two wake-ups a second.
const BEAT: Duration = Duration::from_millis(500);

/// Beats for a runtime until dropped.
#[derive(Debug)]
pub struct Pulse {
    stop: Arc<AtomicBool>,
    thread: Thread,
    join: Option<JoinHandle<()>>,
}

impl Pulse {
    /// Starts a thread that beats for the runtime of `handle`. When the runtime has taken none of `missed_max` beats in
    /// a row, all its threads are held and nothing in it can heal that: `stalled` is called, once, and the beats end.
    /// A process that was suspended has missed nothing.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(handle: Handle, missed_max: u32, stalled: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let beats = move || {
            let missed = Arc::new(AtomicU32::new(0));
            while !stopped.load(Ordering::SeqCst) {
                let taken = Arc::clone(&missed);
                if missed.fetch_add(1, Ordering::SeqCst) >= missed_max {
                    return stalled();
                }
                drop(handle.spawn(async move { taken.store(0, Ordering::SeqCst) }));
                let next = Instant::now() + BEAT;
                while !stopped.load(Ordering::SeqCst) && Instant::now() < next {
                    thread::park_timeout(next.saturating_duration_since(Instant::now()));
                }
            }
        };
        let join = thread::Builder::new().name("pulse".to_owned()).spawn(beats)?;
        Ok(Self { stop, thread: join.thread().clone(), join: Some(join) })
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.unpark();
        // It ends at once, but for one that runs `stalled`, which may be what drops this.
        if let Some(join) = self.join.take().filter(|join| join.thread().id() != thread::current().id()) {
            let _ = join.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Longer than any of these tests takes on a busy machine.
    const LONG: Duration = Duration::from_secs(60);

    fn runtime(threads: usize) -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap()
    }

    #[test]
    fn test_pulse_wakes_the_clock_that_a_held_thread_left_alone() {
        // The thread that waits for the clock is the one that takes the holder up, so the other one has to be woken.
        let runtime = runtime(2);
        let pulse = Pulse::start(runtime.handle().clone(), u32::MAX, || {}).unwrap();
        let (let_go, held) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        runtime.spawn(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let _ = held.recv_timeout(LONG);
        });
        runtime.spawn(async move {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let _ = tell.send(());
        });
        assert!(told.recv_timeout(LONG / 2).is_ok(), "no timer fires beside a held thread");
        let_go.send(()).unwrap();
        drop(pulse);
    }

    #[test]
    fn test_pulse_tells_when_all_threads_are_held() {
        let runtime = runtime(2);
        let (let_go, held) = mpsc::channel::<()>();
        let held = Arc::new(std::sync::Mutex::new(held));
        for _ in 0..2 {
            let held = Arc::clone(&held);
            runtime.spawn(async move {
                let _ = held.lock().unwrap().recv_timeout(LONG);
            });
        }
        let (tell, told) = mpsc::channel();
        let pulse = Pulse::start(runtime.handle().clone(), 3, move || tell.send(()).unwrap_or_default()).unwrap();
        assert!(told.recv_timeout(LONG / 2).is_ok(), "nobody hears that all threads are held");
        drop(pulse);
        drop(let_go);
        runtime.shutdown_background();
    }

    #[test]
    fn test_pulse_is_silent_while_the_runtime_takes_its_beats() {
        let runtime = runtime(1);
        let (tell, told) = mpsc::channel();
        // More beats than it takes for a verdict, and each verdict longer than a busy machine keeps a thread waiting.
        let pulse = Pulse::start(runtime.handle().clone(), 6, move || tell.send(()).unwrap_or_default()).unwrap();
        runtime.block_on(async { tokio::time::sleep(BEAT * 9).await });
        drop(pulse);
        assert!(told.recv().is_err(), "a runtime that runs was called stalled");
    }
}
