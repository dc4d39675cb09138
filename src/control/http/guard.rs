//! What stands before every route: who may ask, how many at a time, how long, and the form of refusals.

use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::Response;
use futures::FutureExt;
use metrics::counter;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

use super::App;
use super::error::ApiError;
use super::limits::{HEALTH_REQUESTS_MAX, REQUEST_TIME_MAX, REQUESTS_MAX, WAIT_MAX};
use crate::telemetry::metrics::API_REQUESTS_TOTAL;

/// The one route with a form of refusals of its own.
pub(super) const MESSAGES: &str = "/v1/messages";

/// Routes without a token: a supervisor asks them before it knows any.
const HEALTH: [&str; 2] = ["/health/live", "/health/ready"];

/// Who may ask.
#[derive(Debug)]
pub(super) struct Access {
    /// A hash, so that comparing takes the same time for tokens of every length.
    token: Option<[u8; 32]>,
    requests: Semaphore,
    health: Semaphore,
}

impl Access {
    pub(super) fn new(token: Option<&str>) -> Self {
        Self {
            token: token.map(|token| Sha256::digest(token.as_bytes()).into()),
            requests: Semaphore::new(REQUESTS_MAX),
            health: Semaphore::new(HEALTH_REQUESTS_MAX),
        }
    }

    fn check(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(token) = &self.token else { return local_only(method, headers) };
        if HEALTH.contains(&uri.path()) {
            return Ok(());
        }
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.split_once(' '));
        let given = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let Some((_, given)) = given else {
            return Err(ApiError::new(StatusCode::UNAUTHORIZED, "no_token", "this route needs the node's token"));
        };
        let given: [u8; 32] = Sha256::digest(given.trim().as_bytes()).into();
        if bool::from(given.ct_eq(token)) {
            return Ok(());
        }
        Err(ApiError::new(StatusCode::UNAUTHORIZED, "wrong_token", "the token is not the node's"))
    }
}

/// Without a token the node listens on loopback only; still a web page in a browser of this machine could reach it,
/// by a name that it lets point to loopback, or blindly from its own origin.
fn local_only(method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name| headers.get(&name).map(|value: &header::HeaderValue| value.to_str().unwrap_or(""));
    if text(header::HOST).is_some_and(|host| !is_loopback(host)) {
        let message = "without a token the node answers only to a loopback address or localhost";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "host_not_allowed", message));
    }
    let foreign = |origin: &str| origin.split_once("://").is_none_or(|(_, host)| !is_loopback(host));
    if !method.is_safe() && text(header::ORIGIN).is_some_and(foreign) {
        let message = "a page of another origin may not change anything here";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "origin_not_allowed", message));
    }
    Ok(())
}

/// Whether `host` (with or without a port) is this machine's loopback.
fn is_loopback(host: &str) -> bool {
    let port = |text: &str| text.is_empty() || text.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    let (name, rest) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, rest)) => (name, rest),
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let named = name.eq_ignore_ascii_case("localhost");
    (named || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())) && port(rest)
}

/// The outermost layer of the router.
pub(super) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let peer = request.extensions().get::<SocketAddr>().map_or_else(String::new, ToString::to_string);
    let response = match admit(&app, request, next).await {
        Ok(response) => response,
        Err(error) => axum::response::IntoResponse::into_response(error),
    };
    let (mut parts, body) = response.into_parts();
    let error = parts.extensions.remove::<ApiError>();
    let code = error.as_ref().map_or("", ApiError::code).to_owned();
    let response = match error {
        Some(error) => {
            let mut rendered = error.render(uri.path() == MESSAGES);
            // What the router knew, such as the methods that a route allows.
            for (name, value) in &parts.headers {
                if !rendered.headers().contains_key(name) && *name != header::CONTENT_LENGTH {
                    rendered.headers_mut().insert(name, value.clone());
                }
            }
            rendered
        }
        None => Response::from_parts(parts, body),
    };
    let status = response.status().as_u16();
    counter!(API_REQUESTS_TOTAL, "method" => method_label(&method), "status" => status.to_string()).increment(1);
    if !method.is_safe() {
        // The path has names only; queries and bodies, where secrets could be, stay out.
        let path: String = uri.path().chars().take(200).collect();
        tracing::info!(target: "lakefeed::audit", %method, path, status, code, peer, "change asked for");
    }
    response
}

/// Methods are the sender's words; only known ones become labels.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

async fn admit(app: &App, request: Request, next: Next) -> Result<Response, ApiError> {
    let access = &app.access;
    access.check(request.method(), request.uri(), request.headers())?;
    let health = HEALTH.contains(&request.uri().path());
    let room = if health { &access.health } else { &access.requests };
    let _place = room.try_acquire().map_err(|_| busy("requests"))?;
    let waits = request.uri().query().is_some_and(|query| query.contains("wait="));
    let time = REQUEST_TIME_MAX + if waits { WAIT_MAX } else { Duration::ZERO };
    // A panic in a route is that request's failure; the connection and the node go on.
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind();
    match tokio::time::timeout(time, answer).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(_)) => {
            tracing::error!(code = "api_panic", "a route panicked");
            Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the node failed to answer this request"))
        }
        Err(_) => {
            let message = format!("the node did not answer within {} s", time.as_secs());
            Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", message))
        }
    }
}

/// 429 for want of room for `what`.
pub(super) fn busy(what: &str) -> ApiError {
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", format!("too many {what} at a time"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_guard_knows_loopback_names() {
        for good in ["localhost", "LOCALHOST:7400", "127.0.0.1", "127.8.9.1:80", "[::1]", "[::1]:7400"] {
            assert!(is_loopback(good), "{good}");
        }
        for bad in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil",
            "10.0.0.1:7400",
            "[::2]",
            "[::1",
            "localhost:x",
        ] {
            assert!(!is_loopback(bad), "{bad}");
        }
    }
}
