//! Point 14: supervising what is no actor. Futures and threads are children as they are (other files test them); here, a
//! process of the operating system.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use supervisors::{ChildContext, ChildSpec, Class, EventKind, Failure, SupervisorSpec};

use crate::support::{Stage, seconds, stop};

/// Runs until its child process ends, whose end is its own, or until it is asked to end the process.
async fn bridge(ctx: ChildContext, pid: Arc<AtomicU32>) -> Result<(), Failure> {
    let lost = |error: std::io::Error| Failure::new(Class::Resource, "no_process", error.to_string());
    let mut command = tokio::process::Command::new("sleep");
    let mut process = command.arg("600").kill_on_drop(true).spawn().map_err(lost)?;
    pid.store(process.id().unwrap_or_default(), Ordering::SeqCst);
    tokio::select! {
        ended = process.wait() => match ended.map_err(lost)? {
            status if status.success() => Ok(()),
            status => Err(Failure::new(Class::Transient, "process_ended", status.to_string())),
        },
        () = ctx.stop.stopped() => process.kill().await.map_err(lost),
    }
}

fn exists(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

/// Waits for another value than `old`.
async fn changed(pid: &AtomicU32, old: u32) -> u32 {
    let wait = async {
        while pid.load(Ordering::SeqCst) == old {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(seconds(60), wait).await.expect("the process is there within a minute");
    pid.load(Ordering::SeqCst)
}

/// On real time, since a process knows no other.
#[tokio::test]
async fn test_point_14_process_is_restarted_when_it_dies_and_ends_with_its_supervisor() {
    let (stage, pid) = (Stage::default(), Arc::new(AtomicU32::new(0)));
    let slot = Arc::clone(&pid);
    let child = ChildSpec::task("p", move |ctx| bridge(ctx, Arc::clone(&slot)));
    let root = stage.start(SupervisorSpec::default().child(child)).await;
    let first = changed(&pid, 0).await;
    assert!(exists(first));
    let killed = std::process::Command::new("kill").arg("-9").arg(first.to_string()).status().unwrap();
    assert!(killed.success());
    let second = changed(&pid, first).await;
    assert_eq!(stage.log.of(EventKind::Failed)[0].reason.as_ref().unwrap().code, "process_ended");
    assert!(root.handle().which_children().await[0].incarnation == 2);
    stop(&root).await;
    assert!(!exists(first) && !exists(second), "no process is left behind");
}
