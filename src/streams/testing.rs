//! What the tests of this room share.

use std::sync::Arc;
use std::time::Duration;

use adapters::contract::config::{MapSecrets, Problems, Reader, Table};
use adapters::contract::{Kind, Mount};
use serde_json::json;

use crate::settings::{Job, OnBadRecord, RestartSettings};

/// A mount of the synthetic kind.
pub(crate) fn mount(settings: serde_json::Value) -> Arc<dyn Mount> {
    let table = Table::from_json(settings.as_object().expect("an object"));
    let problems = Problems::default();
    let secrets = MapSecrets::default();
    let mount = adapters::synthetic::Synthetic::default().read(&Reader::new(&table, "adapter.T", &problems, &secrets));
    assert_eq!(problems.into_sorted(), []);
    mount.expect("a mount")
}

/// A job on a small synthetic source.
pub(crate) fn job() -> Arc<Job> {
    Arc::new(Job {
        adapter: "T".to_owned(),
        mount: mount(json!({"seed": 1, "total": 10})),
        raw_kept: true,
        partition_by: Vec::new(),
        schema: None,
        generated: Vec::new(),
        on_bad_record: OnBadRecord::DeadLetter,
        park_on_schema_change: false,
        failed_workloads_max: 5,
        restart: RestartSettings { backoff_min: Duration::from_millis(10), ..RestartSettings::default() },
    })
}
