//! A small HTTP source that answers as the test says, and remembers what it was asked.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use tokio::task::JoinHandle;

use super::{PATIENCE, aside, wait_for};

/// What to answer.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
}

impl Answer {
    /// A page with one record of this `id`.
    pub(crate) fn record(id: u64) -> Self {
        Self { status: 200, headers: Vec::new(), body: format!("{{\"data\":[{{\"id\":{id}}}]}}") }
    }

    /// An error without a body.
    pub(crate) fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new() }
    }
}

/// A request as it came.
#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) at: Instant,
    pub(crate) headers: HeaderMap,
    pub(crate) query: String,
}

struct Script {
    answer: Answer,
    asked: Vec<Asked>,
}

/// The running source. It ends when dropped.
pub(crate) struct Scripted {
    address: String,
    script: Arc<Mutex<Script>>,
    server: JoinHandle<()>,
}

async fn answer(State(script): State<Arc<Mutex<Script>>>, request: Request) -> Response {
    let mut script = script.lock().unwrap();
    script.asked.push(Asked {
        at: Instant::now(),
        headers: request.headers().clone(),
        query: request.uri().query().unwrap_or_default().to_owned(),
    });
    let Answer { status, headers, body } = script.answer.clone();
    let mut response = (StatusCode::from_u16(status).unwrap(), body).into_response();
    for (name, value) in headers {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}

impl Scripted {
    pub(crate) const STREAM: &'static str = "acme/src";

    /// Answers with `first` until told otherwise.
    pub(crate) async fn start(first: Answer) -> Self {
        let script = Arc::new(Mutex::new(Script { answer: first, asked: Vec::new() }));
        let router = Router::new().fallback(answer).with_state(Arc::clone(&script));
        let (address, server) = aside::serve(async move |listener| axum::serve(listener, router).await.unwrap());
        Self { address, script, server }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Answers so from now on.
    pub(crate) fn say(&self, answer: Answer) {
        self.script.lock().unwrap().answer = answer;
    }

    /// Requests so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.script.lock().unwrap().asked.clone()
    }

    /// Waits for the first request after those `known`.
    pub(crate) async fn asked_after(&self, known: usize) -> Asked {
        let what = format!("request {}", known + 1);
        wait_for(what, PATIENCE, async || self.asked().get(known).cloned()).await
    }

    /// The configuration of `acme/src`, polled every 100 ms without a cursor, with `keys` in the adapter's table.
    pub(crate) fn config(&self, keys: &str) -> String {
        // The default, which is the interval, is too short for a busy machine.
        let timeout = if keys.contains("timeout = ") { "" } else { "timeout = \"10s\"\n" };
        format!(
            "[supervision]\nprobe = \"1h\"\nbackoff = {{ min = \"20ms\", max = \"200ms\" }}\n\
             [adapter.SRC]\nkind = \"http_poll\"\nbase_url = \"http://{}\"\ninterval = \"100ms\"\n{timeout}{keys}\n\
             [adapter.SRC.request]\npath = \"/data\"\n[adapter.SRC.records]\nselect = \"$.data\"\nkey = [\"id\"]\n\
             [stream.\"acme/src\"]\nadapter = \"SRC\"\n",
            self.address
        )
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.server.abort();
    }
}
