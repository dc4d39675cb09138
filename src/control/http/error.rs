//! What a refused request gets to read.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::control::message::refusal_body;
use crate::streams::api::Refusal;

/// A refusal on its way to the body `{"error_code", "code", "message", "field"?, "remedy"?}`, or, for messages, to
/// theirs. It travels in the response's extensions until the guard, which knows the route, writes it.
#[derive(Debug, Clone)]
pub(super) struct ApiError {
    refusal: Refusal,
    remedy: Option<&'static str>,
    /// Further keys of the body.
    more: Vec<(&'static str, Value)>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Refusal::new(status.as_u16(), code, message).into()
    }

    pub(super) fn bad(code: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// The same, blaming `field`.
    pub(super) fn field(mut self, field: &str) -> Self {
        self.refusal.field = Some(field.to_owned());
        self
    }

    /// The same, with one more key in the body.
    pub(super) fn with(mut self, key: &'static str, value: Value) -> Self {
        self.more.push((key, value));
        self
    }

    pub(super) fn code(&self) -> &str {
        &self.refusal.code
    }

    /// The answer, in the form of messages or of all other routes.
    pub(super) fn render(&self, as_message: bool) -> Response {
        // A refusal with a status outside HTTP's range is a bug of ours, not the caller's.
        let status = StatusCode::from_u16(self.refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = if as_message { refusal_body(&self.refusal) } else { self.body(status) };
        let mut response = answer(status, &body);
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }

    fn body(&self, status: StatusCode) -> Value {
        let refusal = &self.refusal;
        let mut body = json!({"error_code": status.as_u16(), "code": refusal.code, "message": refusal.message});
        if let Some(field) = &refusal.field {
            body["field"] = json!(field);
        }
        if let Some(remedy) = self.remedy {
            body["remedy"] = json!(remedy);
        }
        for (key, value) in &self.more {
            body[*key] = value.clone();
        }
        body
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let remedy = remedy(&refusal);
        Self { refusal, remedy, more: Vec::new() }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

fn remedy(refusal: &Refusal) -> Option<&'static str> {
    Some(match (refusal.status, refusal.code.as_str()) {
        (401, _) => "Send the header Authorization: Bearer TOKEN with the token that api.token has.",
        (403, "host_not_allowed") => "Address the node as 127.0.0.1 or localhost, or configure api.token.",
        (403, "origin_not_allowed") => "Browsers may change things only from pages of this machine.",
        (404, "unknown_route") => "GET /v1/openapi.json lists all routes.",
        (404, "unknown_stream") => "GET /v1/streams lists the streams.",
        (404, "unknown_adapter") => "Use the name of an adapter in the node's configuration.",
        (404, "unknown_incident") => "GET /v1/restarts lists what the log still has.",
        (405, _) => "GET /v1/openapi.json lists the methods of each route.",
        (408, _) => "Send the whole request within its time.",
        (409, "version_conflict") => "Read the stream again and repeat the change with its new ETag.",
        (409, "not_stopped" | "stream_not_stopped") => "Stop the stream first.",
        (413, _) => "Send a smaller body; GET /v1/openapi.json names the limit.",
        (429, _) => "Try again in a moment.",
        (503, "timeout") => "Ask for the state before repeating: the request may still take effect.",
        _ => return None,
    })
}

/// A JSON answer.
pub(super) fn answer(status: StatusCode, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
