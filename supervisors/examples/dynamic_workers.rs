//! A pool of workers that come and go: `cargo run -p supervisors --example dynamic_workers`. Ends after a few seconds.
//!
//! Each worker polls a city. `berlin` is fine. `lima` fails three times and is restarted later each time. `oslo` has no
//! valid key: a restart cannot heal that, so it is parked at once; the operator puts the key right and says retry-now.
//! `quito` fails until its limit is reached and is parked; a probe later finds it healed. Nobody disturbs the others.
#![allow(clippy::print_stdout, reason = "shows what happens")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use supervisors::{
    Backoff, ChildContext, ChildPath, ChildSpec, Class, Event, Failure, ManageError, Observer, OnLimit, RestartPolicy,
    Root, SupervisorHandle, SupervisorSpec,
};

/// The most workers that the pool takes.
const WORKERS_MAX: usize = 4;

/// What the workers depend on.
#[derive(Default)]
struct World {
    key_of_oslo: AtomicBool,
}

impl World {
    /// One poll: what a source would answer in this life of this worker.
    fn poll(&self, city: &str, incarnation: u64) -> Result<(), Failure> {
        match (city, incarnation) {
            ("lima", 1..=3) => Err(Failure::new(Class::Transient, "http_503", "the source is overloaded")),
            ("oslo", _) if !self.key_of_oslo.load(Ordering::Relaxed) => {
                Err(Failure::new(Class::Auth, "wrong_key", "the source refuses the key"))
            }
            ("quito", 1..=5) => Err(Failure::new(Class::Transient, "no_route", "the source cannot be reached")),
            _ => Ok(()),
        }
    }
}

async fn work(ctx: ChildContext, city: Arc<str>, world: Arc<World>) -> Result<(), Failure> {
    loop {
        world.poll(&city, ctx.incarnation)?;
        // Only now the failures before count as over: a restart alone proves nothing.
        ctx.progress.healthy();
        tokio::select! {
            () = ctx.stop.stopped() => return Ok(()),
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
    }
}

fn worker(city: &str, world: &Arc<World>) -> ChildSpec {
    let (city, world) = (Arc::<str>::from(city), Arc::clone(world));
    ChildSpec::task(Arc::clone(&city), move |ctx| work(ctx, Arc::clone(&city), Arc::clone(&world)))
}

fn pool() -> SupervisorSpec {
    let backoff = Backoff {
        min: Duration::from_millis(50),
        max: Duration::from_secs(1),
        reset_after: Duration::from_secs(5),
        ..Backoff::default()
    };
    let policy = RestartPolicy::default()
        .backoff(backoff)
        .park_on([Class::Config, Class::Auth])
        .probe(Duration::from_millis(1_500));
    // Counted worker by worker, because a worker that reaches the limit is parked alone.
    SupervisorSpec::dynamic()
        .intensity(4, Duration::from_secs(30))
        .on_limit(OnLimit::ParkChild)
        .policy(policy)
        .max_children(WORKERS_MAX)
}

async fn show(pool: &SupervisorHandle) {
    for child in pool.which_children().await {
        println!("{:>18}  #{} {:?}", child.id, child.incarnation, child.state);
    }
}

/// Starts the pool, adds workers, does what an operator would, stops it. Gives what the fifth worker was refused with.
pub(crate) async fn run(observer: Arc<dyn Observer>) -> Result<Option<ManageError>, Failure> {
    let world = Arc::new(World::default());
    let root = Root::start("pool", pool(), observer, 42).await?;
    let pool = root.handle();
    let mut refusal = None;
    for city in ["berlin", "lima", "oslo", "quito", "paris"] {
        if let Err(error) = pool.start_child(worker(city, &world)).await {
            println!("{city} is refused: {error}");
            refusal = Some(error);
        }
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    println!("-- after a second");
    show(&pool).await;

    println!("-- the operator puts the key of oslo right and has it tried now");
    world.key_of_oslo.store(true, Ordering::Relaxed);
    if let Err(error) = pool.restart_child("oslo").await {
        println!("oslo: {error}");
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    println!("-- after the probe of quito");
    show(&pool).await;

    println!("-- lima is not needed any more");
    if let Err(error) = pool.terminate_child("lima").await {
        println!("lima: {error}");
    }
    root.stop().await;
    Ok(refusal)
}

/// Prints events and numbers lives.
#[derive(Default)]
struct Print(Mutex<HashMap<ChildPath, u64>>);

impl Observer for Print {
    fn record(&self, event: Event) {
        let delay = event.delay.map(|delay| format!("  in {delay:.0?}")).unwrap_or_default();
        let reason = event.reason.map(|reason| format!("  {reason}")).unwrap_or_default();
        let (kind, path) = (event.kind.as_str(), event.path.as_str());
        println!("{kind:>10}  {path} #{}{delay}{reason}", event.incarnation);
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
    run(Arc::new(Print::default())).await.map(drop)
}
