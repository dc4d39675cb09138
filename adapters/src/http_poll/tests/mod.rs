//! The kind against a server that does not behave.

mod conforms;
mod guarded;
mod misbehaves;
mod owed;
mod secrets;
mod settings;

use std::sync::Arc;

use serde_json::{Value, json};

use super::HttpPoll;
use crate::contract::{Env, Mount, Partition, Position, Source};
use crate::http::Budgets;
use crate::http::testing::{RudeServer, mount_of};

/// Settings for `server` with `more` laid over.
fn settings(server: &RudeServer, more: Value) -> Value {
    let mut all = json!({
        "base_url": server.url(),
        "interval": "1h",
        "timeout": "10s",
        "request": {"path": "/feed", "query": {"since": "{cursor}"}},
        "records": {"select": "$.data"},
        "cursor": {"field": "id", "start": "0"},
    });
    for (key, value) in more.as_object().expect("an object") {
        all[key] = value.clone();
    }
    if all["cursor"].is_null() && all["request"]["query"]["since"] == "{cursor}" {
        all["request"] = json!({"path": "/feed"});
    }
    all
}

fn mounted(server: &RudeServer, more: Value) -> Arc<dyn Mount> {
    mount_of(&HttpPoll::new(Arc::new(Budgets::new())), settings(server, more))
}

async fn open(mount: &Arc<dyn Mount>, position: Option<&Position>, env: &Env) -> Box<dyn Source> {
    let partition: Partition = mount.partitions().remove(0);
    mount.open(&partition, position, env.clone()).await.expect("opens")
}
