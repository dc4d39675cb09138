//! The API over a real socket, before streams that only remember.

mod bounds;
mod follow;
mod junk;
mod routes;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adapters::contract::SystemClock;
use adapters::contract::config::Secret;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::*;
use crate::control::fake::FakeStreams;
use crate::telemetry::restarts::{Reason, RestartRecord};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(120);

/// An API that ends with the test.
struct Served {
    address: SocketAddr,
    streams: Arc<FakeStreams>,
    restarts: Arc<RestartLog>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
    http: reqwest::Client,
    _dir: TempDir,
}

fn settings(listen: &str, token: Option<&str>) -> ApiSettings {
    ApiSettings { listen: listen.parse().expect("address"), token: token.map(Secret::literal) }
}

fn deps(dir: &TempDir) -> (Deps, Arc<FakeStreams>) {
    let streams = Arc::new(FakeStreams::new());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let restarts = RestartLog::open(dir.path(), Arc::clone(&clock)).expect("opens");
    let validate: Validate =
        Arc::new(
            |text: &str| {
                if text.contains("good") { Vec::new() } else { vec![json!({"code": "UNKNOWN_KEY", "line": 1})] }
            },
        );
    let metrics = Metrics::install().expect("installs");
    let fake: Arc<dyn Streams> = Arc::clone(&streams) as Arc<dyn Streams>;
    (Deps { streams: fake, restarts: Arc::new(restarts), metrics, validate, clock }, streams)
}

impl Served {
    async fn start(token: Option<&str>) -> Self {
        let dir = tempfile::tempdir().expect("folder");
        let (deps, streams) = deps(&dir);
        let restarts = Arc::clone(&deps.restarts);
        let (stop, stopped) = oneshot::channel();
        let stopping = async {
            let _sent_or_dropped = stopped.await;
        };
        let (address, task) = serve(&settings("127.0.0.1:0", token), deps, stopping).await.expect("listens");
        let http = reqwest::Client::builder().no_proxy().build().expect("client");
        Self { address, streams, restarts, stop: Some(stop), task, http, _dir: dir }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Status, ETag and body of a request.
    async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut request = self.http.request(method.parse().expect("method"), self.url(path));
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let response = request.send().await.expect("answers");
        let status = response.status().as_u16();
        let bytes = response.bytes().await.expect("whole");
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn start_stream(&self) {
        let body = json!({"adapter": "IQAIR_DAILY", "interval": 1000, "secret_key": "s", "settings": {"a": 1, "b": 2}});
        assert_eq!(self.ask("PUT", "/v1/streams/acme/berlin", Some(body)).await.0, 201);
    }
}

fn failed(path: &str, incident: &str) -> RestartRecord {
    let reason = Reason { class: "bug".to_owned(), code: "panic".to_owned(), message: "went wrong".to_owned() };
    RestartRecord {
        incident: Some(incident.to_owned()),
        path: path.to_owned(),
        incarnation: 1,
        event: "failed".to_owned(),
        reason: Some(reason),
        ..RestartRecord::default()
    }
}

/// The keys of the error body, and its status in it.
fn assert_error(status: u16, body: &Value) {
    assert_eq!(body["error_code"].as_u64(), Some(u64::from(status)), "{body}");
    assert!(body["code"].is_string() && body["message"].is_string(), "{body}");
}
