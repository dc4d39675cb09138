//! What is not an actor, supervised: a thread and a child process. `cargo run -p supervisors --example bridge` (needs
//! `sh`). Ends after about three seconds.
//!
//! The thread gets stuck in a call that knows nothing of stopping. It has promised a sign of life, does not give it, and
//! counts as hung. A thread cannot be killed, so it is abandoned and fenced, and its successor takes over. When the stuck
//! call returns at last, its late commit is refused: the fence says that this life does not count any more.
//!
//! The child process is a program that prints a line for each beat. In its first life it exits with a code; in its
//! second it falls silent, so it is killed and restarted as hung; its third goes on until all is stopped.
#![allow(clippy::print_stdout, reason = "shows what happens")]

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use supervisors::{
    ChildContext, ChildPath, ChildSpec, Class, Event, EventKind, Failure, Observer, Root, Strategy, SupervisorSpec,
};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::sync::watch;

/// Signs of life come far more often.
const SILENCE_MAX: Duration = Duration::from_secs(1);

/// How often a life that is well says so.
const BEAT: Duration = Duration::from_millis(50);

/// Where both commit: the life that did, and those that were too late.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) thread_lives: Vec<u64>,
    pub(crate) refused: Vec<u64>,
    pub(crate) process_lives: Vec<u64>,
}

type Shared = watch::Sender<Ledger>;

fn note(lives: &mut Vec<u64>, life: u64) -> bool {
    let new = lives.last() != Some(&life);
    if new {
        lives.push(life);
    }
    new
}

/// Commits if this life still counts. The check and the effect belong together: here the ledger's lock holds them, a
/// store would compare the incarnation in the same transaction.
fn commit(ctx: &ChildContext, ledger: &Shared) {
    ledger.send_if_modified(|ledger| {
        let lives = if ctx.fence.is_current() { &mut ledger.thread_lives } else { &mut ledger.refused };
        note(lives, ctx.incarnation)
    });
}

/// A blocking function. `stuck` is the call that does not come back in the first life until it is told to.
fn blocking(ctx: &ChildContext, ledger: &Shared, stuck: &Mutex<Option<mpsc::Receiver<()>>>) -> Result<(), Failure> {
    ctx.progress.busy(SILENCE_MAX);
    let first_call = stuck.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(call) = first_call {
        let _ = call.recv();
    }
    commit(ctx, ledger);
    while ctx.fence.is_current() && !ctx.stop.is_stopped() {
        ctx.progress.busy(SILENCE_MAX);
        std::thread::sleep(BEAT);
    }
    Ok(())
}

fn script(incarnation: u64) -> &'static str {
    match incarnation {
        1 => "echo beat; exit 3",
        2 => "echo beat; exec sleep 600",
        _ => "while echo beat; do sleep 0.05; done",
    }
}

/// A child process: dropped (by a stop that came too late, by the watchdog) it is killed.
async fn process(ctx: ChildContext, ledger: Shared) -> Result<(), Failure> {
    let failed = |code: &str, error: std::io::Error| Failure::new(Class::Resource, code, error.to_string());
    let mut command = Command::new("sh");
    command.arg("-c").arg(script(ctx.incarnation)).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| failed("not_spawned", error))?;
    let beats = child.stdout.take().ok_or_else(|| Failure::new(Class::Bug, "no_output", "it has no output"))?;
    let mut beats = BufReader::new(beats).lines();
    loop {
        let beat = tokio::select! {
            () = ctx.stop.stopped() => return child.kill().await.map_err(|error| failed("not_killed", error)),
            beat = beats.next_line() => beat.map_err(|error| failed("unreadable", error))?,
        };
        if beat.is_none() {
            let status = child.wait().await.map_err(|error| failed("not_waited_for", error))?;
            return Err(Failure::new(Class::Transient, "exited", status.to_string()));
        }
        // The promise begins with the first beat: a busy machine starts programs slowly.
        ctx.progress.busy(SILENCE_MAX);
        ledger.send_if_modified(|ledger| note(&mut ledger.process_lives, ctx.incarnation));
    }
}

/// Starts both, waits until each has gone through its troubles, lets the stuck call return, stops.
pub(crate) async fn run(observer: Arc<dyn Observer>) -> Result<Ledger, Failure> {
    let ledger = Shared::new(Ledger::default());
    let (unstick, stuck) = mpsc::channel();
    let stuck = Arc::new(Mutex::new(Some(stuck)));
    let (for_thread, for_process) = (ledger.clone(), ledger.clone());
    let thread = ChildSpec::thread("thread", move |ctx| blocking(&ctx, &for_thread, &stuck));
    let process = ChildSpec::task("process", move |ctx| process(ctx, for_process.clone()));
    let spec =
        SupervisorSpec::new(Strategy::OneForOne).intensity(5, Duration::from_secs(30)).child(thread).child(process);
    let root = Root::start("bridge", spec, observer, 42).await?;
    let mut seen = ledger.subscribe();
    let _ = seen.wait_for(|ledger| ledger.thread_lives.contains(&2) && ledger.process_lives.contains(&3)).await;
    let _ = unstick.send(());
    let _ = seen.wait_for(|ledger| !ledger.refused.is_empty()).await;
    root.stop().await;
    Ok(seen.borrow().clone())
}

/// Prints events and numbers lives.
#[derive(Default)]
struct Print(Mutex<HashMap<ChildPath, u64>>);

impl Observer for Print {
    fn record(&self, event: Event) {
        let reason = event.reason.map(|reason| format!("  {reason}")).unwrap_or_default();
        let mark = if event.kind == EventKind::Abandoned { "  (it still runs)" } else { "" };
        println!("{:>10}  {} #{}{reason}{mark}", event.kind.as_str(), event.path, event.incarnation);
    }

    fn next_incarnation(&self, path: &ChildPath) -> u64 {
        let mut lives = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let life = lives.entry(path.clone()).or_default();
        *life += 1;
        *life
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    supervisors::capture_panics();
    let ledger = run(Arc::new(Print::default())).await?;
    println!("commits of the thread by life: {:?}, refused: {:?}", ledger.thread_lives, ledger.refused);
    Ok(())
}
