//! The verbs of the command line that talk to a running node, as plain functions that write to what they are given.

mod data;
mod history;
mod story;
mod text;
mod tree;
mod verbs;

pub use data::{checkpoint_reset, checkpoint_set, checkpoint_show, dead_list, dead_show, records};
pub use history::{RestartsQuery, references, restart_line, restarts};
pub use story::incident;
pub use tree::{Screen, TreeAsk, draw as draw_tree, tree};
pub use verbs::{Verb, control, start, status};

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use reqwest::{Method, StatusCode, Url};
use serde_json::Value;
use thiserror::Error;

use crate::cli::exit;
use crate::names::{NameError, StreamId, Target};

/// Until a node that is there takes the connection.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// Until the answer is there; longer than the node's own patience with a long poll.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(100);

/// An answer larger than this is not one of the node's: a page of 1,000 items of a 64 KiB each.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// What a follower waits for in one request.
const FOLLOW_WAIT: &str = "30s";

/// Between two looks where the node answers a long poll at once, as it does while it stops.
const FOLLOW_PAUSE: Duration = Duration::from_millis(500);

/// Items that are asked for in one request.
const PAGE: usize = 1_000;

/// Why a verb failed.
#[derive(Debug, Error)]
pub enum ClientError {
    /// A parameter is wrong; nothing was asked.
    #[error("{0}")]
    Usage(String),
    /// No node answers there.
    #[error("no node answers at {url}; is it running, and is --api or LAKEFEED_API right?")]
    Unreachable {
        /// The address, without what could be secret in it.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The node wants another token, or none is enough.
    #[error("the node does not allow this: {message}; set LAKEFEED_TOKEN to its token")]
    NotAllowed {
        /// The node's words.
        message: String,
    },
    /// The node refused.
    #[error("{message} ({code}){}", remedy.as_ref().map_or(String::new(), |remedy| format!("; {remedy}")))]
    Refused {
        /// A stable name.
        code: String,
        /// The node's words.
        message: String,
        /// What to do.
        remedy: Option<String>,
    },
    /// What answers is not a node of this version.
    #[error("the answer is not a lakefeed node's: {0}")]
    Foreign(&'static str),
    /// The output cannot be written.
    #[error("the output cannot be written")]
    Output(#[source] io::Error),
}

impl ClientError {
    /// The process's exit code of interface §1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => exit::USAGE,
            Self::Unreachable { .. } => exit::UNREACHABLE,
            Self::NotAllowed { .. } => exit::NOT_ALLOWED,
            Self::Refused { .. } | Self::Foreign(_) | Self::Output(_) => exit::FAILED,
        }
    }

    /// The reader of the output went away, as `head` does: the end, not a failure.
    #[must_use]
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl From<NameError> for ClientError {
    fn from(error: NameError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

type Done = Result<(), ClientError>;

/// A node's API.
pub struct Api {
    base: Url,
    token: Option<String>,
    http: reqwest::Client,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("token", &self.token.is_some()).finish_non_exhaustive()
    }
}

impl Api {
    /// The API at `url`, asked with `token` where the node wants one.
    ///
    /// # Errors
    /// Where `url` is not an HTTP address.
    pub fn new(url: &str, token: Option<&str>) -> Result<Self, ClientError> {
        let wrong = || ClientError::Usage("the API's address must be one such as http://127.0.0.1:7400".to_owned());
        let base = Url::parse(url).map_err(|_| wrong())?;
        if !matches!(base.scheme(), "http" | "https") || base.host().is_none() {
            return Err(wrong());
        }
        // The node is next door; a proxy of the environment knows nothing of it.
        let http = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(CONNECT_TIME_MAX)
            .timeout(ANSWER_TIME_MAX)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|_| ClientError::Usage("this machine's encryption cannot be set up".to_owned()))?;
        Ok(Self { base, token: token.map(str::to_owned), http })
    }

    fn unreachable(&self, source: reqwest::Error) -> ClientError {
        let url = self.base.origin().ascii_serialization();
        ClientError::Unreachable { url, source: source.without_url() }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<Value>,
    ) -> Result<Value, ClientError> {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.http.request(method, url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let mut response = request.send().await.map_err(|error| self.unreachable(error))?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(error))? {
            if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(ClientError::Foreign("it is too large"));
            }
            bytes.extend_from_slice(&chunk);
        }
        let value: Value = serde_json::from_slice(&bytes).map_err(|_| ClientError::Foreign("it is not JSON"))?;
        if status.is_success() { Ok(value) } else { Err(refusal(status, &value)) }
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, ClientError> {
        self.ask(Method::GET, path, query, None).await
    }
}

fn refusal(status: StatusCode, body: &Value) -> ClientError {
    let word = |key: &str| body[key].as_str().map(text::clean);
    let message = word("message").unwrap_or_else(|| format!("status {}", status.as_u16()));
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return ClientError::NotAllowed { message };
    }
    let code = word("code").unwrap_or_else(|| format!("http_{}", status.as_u16()));
    ClientError::Refused { code, message, remedy: word("remedy") }
}

/// The path of a stream's routes.
fn stream_path(id: &StreamId, rest: &str) -> String {
    format!("/v1/streams/{}/{}{rest}", id.tenant(), id.stream())
}

/// The items of a page, and where to go on.
fn page(mut answer: Value, key: &str) -> Result<(Vec<Value>, String), ClientError> {
    let next = answer["next"].as_str().ok_or(ClientError::Foreign("a page has no next"))?.to_owned();
    match answer[key].take() {
        Value::Array(items) => Ok((items, next)),
        _ => Err(ClientError::Foreign("a page has no items")),
    }
}

/// One JSON document, as `--json` promises.
fn document(out: &mut dyn Write, value: &Value) -> Done {
    Ok(writeln!(out, "{value}")?)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
