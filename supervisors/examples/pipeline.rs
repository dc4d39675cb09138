//! A static tree: `cargo run -p supervisors --example pipeline`. Ends after two seconds.
//!
//! ```text
//! root                 one_for_one, restarts `feed` when it gives up
//! └── feed             rest_for_one, 2 restarts in 10 s
//!     ├── connection   hands each of its lives' records to the reader of the same life
//!     ├── reader       useless without this life of the connection, so it is restarted with it
//!     └── writer       restarted with both
//! ```
//!
//! First the reader breaks: reader and writer come back, the connection is left alone. Then the connection breaks twice
//! in a row, which is more than `feed` allows: it gives up, and the root starts all three anew. The second story has one
//! incident id, from the connection's failure to the restart of `feed`.
#![allow(clippy::print_stdout, reason = "shows what happens")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use supervisors::{
    Backoff, ChildContext, ChildPath, ChildSpec, Class, Event, Failure, Observer, RestartPolicy, Root, Started,
    Strategy, SupervisorSpec,
};
use tokio::sync::mpsc;

/// Records on their way from a connection to its reader; the reader is slower only while it is down.
const RECORDS_IN_FLIGHT: usize = 16;

/// Where a life of the connection leaves what the reader of the same life takes.
type Slot = Arc<Mutex<Option<mpsc::Receiver<u32>>>>;

fn broken(code: &str, message: &str) -> Failure {
    Failure::new(Class::Transient, code, message)
}

/// A start function: siblings that come later start when it has returned, so the reader finds the slot filled.
fn connection(slot: Slot) -> ChildSpec {
    ChildSpec::start("connection", move |ctx| {
        let slot = Arc::clone(&slot);
        async move {
            let (records, receiver) = mpsc::channel(RECORDS_IN_FLIGHT);
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(receiver);
            Ok(Started::task(receive(ctx, records)))
        }
    })
}

async fn receive(ctx: ChildContext, records: mpsc::Sender<u32>) -> Result<(), Failure> {
    // What breaks in which life, so that the story is the same each time.
    let lifetime = match ctx.incarnation {
        1 => Duration::from_millis(500),
        2 => Duration::from_millis(50),
        _ => Duration::MAX,
    };
    let mut number = 0;
    let stream = async {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            number += 1;
            // A reader that broke may be gone; the records wait for its successor's connection.
            let _ = records.try_send(number);
        }
    };
    tokio::select! {
        () = ctx.stop.stopped() => Ok(()),
        () = stream => Ok(()),
        () = tokio::time::sleep(lifetime) => Err(broken("reset", "the other side closed the connection")),
    }
}

fn reader(slot: Slot) -> ChildSpec {
    ChildSpec::task("reader", move |ctx| {
        let records = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        read(ctx, records)
    })
}

async fn read(ctx: ChildContext, records: Option<mpsc::Receiver<u32>>) -> Result<(), Failure> {
    // A reader that was restarted without its connection goes on with nothing; here that is only the second life.
    let Some(mut records) = records else {
        ctx.stop.stopped().await;
        return Ok(());
    };
    loop {
        tokio::select! {
            () = ctx.stop.stopped() => return Ok(()),
            record = records.recv() => match record {
                Some(5) if ctx.incarnation == 1 => return Err(broken("bad_record", "record 5 is cut short")),
                Some(_) => ctx.progress.healthy(),
                None => return Err(broken("end", "the connection is gone")),
            }
        }
    }
}

fn writer() -> ChildSpec {
    ChildSpec::task("writer", |ctx| async move {
        ctx.stop.stopped().await;
        Ok(())
    })
}

/// Starts the tree, lets the story run, stops it.
pub(crate) async fn run(observer: Arc<dyn Observer>) -> Result<(), Failure> {
    let slot = Slot::default();
    let feed = ChildSpec::supervisor("feed", move |_| {
        let backoff = Backoff { min: Duration::from_millis(20), ..Backoff::default() };
        let spec = SupervisorSpec::new(Strategy::RestForOne)
            .intensity(2, Duration::from_secs(10))
            .policy(RestartPolicy::default().backoff(backoff))
            .child(connection(Arc::clone(&slot)))
            .child(reader(Arc::clone(&slot)))
            .child(writer());
        async move { Ok(spec) }
    });
    let spec = SupervisorSpec::new(Strategy::OneForOne).intensity(3, Duration::from_secs(60)).child(feed);
    let root = Root::start("root", spec, observer, 42).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    root.stop().await;
    Ok(())
}

/// Prints events and numbers lives.
#[derive(Default)]
struct Print(Mutex<HashMap<ChildPath, u64>>);

impl Observer for Print {
    fn record(&self, event: Event) {
        let incident = event.incident.as_deref().unwrap_or("-");
        let reason = event.reason.map(|reason| format!("  {reason}")).unwrap_or_default();
        let because = event.because_of.map(|path| format!("  because of {path}")).unwrap_or_default();
        let (kind, path) = (event.kind.as_str(), event.path.as_str());
        println!("{incident:>16}  {kind:<10}  {path} #{}{reason}{because}", event.incarnation);
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
    run(Arc::new(Print::default())).await
}
