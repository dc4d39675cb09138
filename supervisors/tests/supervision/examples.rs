//! The runnable examples do what they say. They are compiled in here, so that nothing is built twice.

use std::sync::Arc;

use supervisors::{EventKind, ManageError};

use crate::support::{Recorder, seconds};

#[allow(dead_code, reason = "its own main and printer")]
#[path = "../../examples/bridge.rs"]
mod bridge;
#[allow(dead_code, reason = "its own main and printer")]
#[path = "../../examples/dynamic_workers.rs"]
mod dynamic_workers;
#[allow(dead_code, reason = "its own main and printer")]
#[path = "../../examples/pipeline.rs"]
mod pipeline;

#[tokio::test(start_paused = true)]
async fn test_example_pipeline_restarts_the_rest_then_gives_up_in_one_incident() {
    let log = Arc::new(Recorder::default());
    pipeline::run(Arc::<Recorder>::clone(&log)).await.unwrap();
    let of = |kind| log.of(kind);
    let restarted = of(EventKind::Restarted);
    let names = |incident: &Option<Arc<str>>| -> Vec<String> {
        let same = restarted.iter().filter(|event| event.incident == *incident);
        same.map(|event| event.path.as_str().trim_start_matches("root/").to_owned()).collect()
    };
    let failed = of(EventKind::Failed);
    assert_eq!(failed[0].path.as_str(), "root/feed/reader");
    assert_eq!(names(&failed[0].incident), ["feed/reader", "feed/writer"], "the connection is left alone");
    let escalated = of(EventKind::Escalated);
    assert_eq!(escalated.len(), 1);
    assert_eq!(escalated[0].reason.as_ref().unwrap().code, "reset");
    assert_eq!(
        names(&escalated[0].incident),
        ["connection", "reader", "writer", "connection", "reader", "writer", ""].map(|name| match name {
            "" => "feed".to_owned(),
            name => format!("feed/{name}"),
        }),
        "the group's restart, then the whole feed's, under one incident"
    );
}

#[tokio::test(start_paused = true)]
async fn test_example_dynamic_workers_parks_probes_and_retries_now() {
    let log = Arc::new(Recorder::default());
    let refusal = dynamic_workers::run(Arc::<Recorder>::clone(&log)).await.unwrap();
    assert_eq!(refusal, Some(ManageError::MaxChildren { limit: 4 }));
    let paths = |kind| -> Vec<String> {
        log.of(kind).iter().map(|event| event.path.as_str().trim_start_matches("pool/").to_owned()).collect()
    };
    assert_eq!(paths(EventKind::Parked), ["oslo", "quito"]);
    assert_eq!(paths(EventKind::Probed), ["oslo", "quito"], "the operator's attempt, then the timer's");
    let back: Vec<_> = paths(EventKind::Restarted).into_iter().filter(|city| city == "lima").collect();
    assert_eq!(back.len(), 3);
    assert!(!paths(EventKind::Failed).contains(&"berlin".to_owned()));
}

/// On the real clock: a thread and a process know no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_example_bridge_fences_the_thread_and_restarts_the_process() {
    let log = Arc::new(Recorder::default());
    let run = bridge::run(Arc::<Recorder>::clone(&log));
    let ledger = tokio::time::timeout(seconds(60), run).await.expect("ends by itself").unwrap();
    assert_eq!(ledger.thread_lives[0], 2, "the first life never committed");
    assert_eq!(ledger.refused, [1]);
    let codes = |path: &str| -> Vec<String> {
        let failed = log.of(EventKind::Failed).into_iter().filter(|event| event.path.as_str() == path);
        failed.map(|event| event.reason.unwrap().code).collect()
    };
    assert_eq!(codes("bridge/thread")[0], "no_progress");
    assert_eq!(codes("bridge/process")[..2], ["exited", "no_progress"]);
    let abandoned = log.of(EventKind::Abandoned);
    assert_eq!((abandoned[0].path.as_str(), abandoned[0].incarnation), ("bridge/thread", 1));
}
