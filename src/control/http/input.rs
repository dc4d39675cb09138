//! What requests bring: paths, queries, bodies and preconditions, read strictly.

use std::time::Duration;

use adapters::contract::config::parse_duration;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use futures::StreamExt;
use serde_json::{Map, Value};

use super::error::ApiError;
use super::limits::{BODY_BYTES_MAX, BODY_TIME_MAX, DISCARD_BYTES_MAX, PAGE_DEFAULT, PAGE_MAX, WAIT_MAX};
use crate::control::message::parse_object;
use crate::names::StreamId;

/// The stream that the path names.
#[derive(Debug)]
pub(super) struct StreamPath(pub(super) StreamId);

impl<S: Send + Sync> FromRequestParts<S> for StreamPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let tenant = path_param(parts, state, "tenant").await?;
        let stream = path_param(parts, state, "stream").await?;
        let id = StreamId::new(&tenant, &stream);
        Ok(Self(id.map_err(|error| ApiError::bad("invalid_value", error.to_string()).field(error.what))?))
    }
}

/// The parameter `name` of the path.
pub(super) async fn path_param<S: Send + Sync>(parts: &mut Parts, state: &S, name: &str) -> Result<String, ApiError> {
    let params = RawPathParams::from_request_parts(parts, state).await;
    let params = params.map_err(|_| ApiError::bad("not_utf8", "the path is not UTF-8"))?;
    let found = params.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned());
    found.ok_or_else(|| ApiError::bad("invalid_path", "the path is not complete"))
}

/// The query's keys and values.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the query; keys other than `known`, doubled keys and broken encodings are refused.
    pub(super) fn read(query: Option<&str>, known: &[&str]) -> Result<Self, ApiError> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in query.unwrap_or("").split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (decode(key)?, decode(value)?);
            if !known.contains(&key.as_str()) {
                let key: String = key.chars().take(80).collect();
                let expected = if known.is_empty() { "no query".to_owned() } else { known.join(", ") };
                let message = format!("the query's key {key:?} is not known here; expected {expected}");
                return Err(ApiError::bad("unknown_key", message).field(&key));
            }
            if pairs.iter().any(|(other, _)| *other == key) {
                return Err(ApiError::bad("doubled_key", format!("the query has {key} twice")).field(&key));
            }
            pairs.push((key, value));
        }
        Ok(Self(pairs))
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == key).map(|(_, value)| value.as_str())
    }

    /// `after`, at most 200 bytes; `""` where it is missing.
    pub(super) fn after(&self) -> Result<&str, ApiError> {
        let after = self.get("after").unwrap_or("");
        if after.len() <= 200 { Ok(after) } else { Err(invalid("after", "after is not a cursor")) }
    }

    /// `limit`, from 1, cut to [`PAGE_MAX`].
    pub(super) fn limit(&self) -> Result<usize, ApiError> {
        let Some(text) = self.get("limit") else { return Ok(PAGE_DEFAULT) };
        match text.parse::<u64>() {
            Ok(limit) if limit > 0 => Ok(usize::try_from(limit).unwrap_or(PAGE_MAX).min(PAGE_MAX)),
            _ => Err(invalid("limit", format!("limit must be a whole number from 1 to {PAGE_MAX}"))),
        }
    }

    /// `wait`, a duration or whole seconds, cut to [`WAIT_MAX`].
    pub(super) fn wait(&self) -> Result<Duration, ApiError> {
        let Some(text) = self.get("wait") else { return Ok(Duration::ZERO) };
        let wait = text.parse().ok().map(Duration::from_secs).or_else(|| parse_duration(text));
        let wait = wait.ok_or_else(|| invalid("wait", "wait must be a duration such as 30s, or whole seconds"))?;
        Ok(wait.min(WAIT_MAX))
    }

    /// `stream`, as tenant/name.
    pub(super) fn stream(&self) -> Result<Option<StreamId>, ApiError> {
        let parsed = self.get("stream").map(str::parse).transpose();
        parsed.map_err(|error: crate::names::NameError| invalid("stream", error.to_string()))
    }
}

pub(super) fn invalid(field: &str, message: impl Into<String>) -> ApiError {
    ApiError::bad("invalid_value", message).field(field)
}

/// Undoes the encoding of queries.
fn decode(text: &str) -> Result<String, ApiError> {
    let broken = || ApiError::bad("invalid_encoding", "the query's percent encoding is broken or not UTF-8");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
                let (high, low) = (digit(rest.next()).ok_or_else(broken)?, digit(rest.next()).ok_or_else(broken)?);
                u8::try_from(high * 16 + low).map_err(|_| broken())?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| broken())
}

/// A whole body.
#[derive(Debug)]
pub(super) struct Whole(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for Whole {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let expects = request.headers().contains_key(header::EXPECT);
        read(request.into_body(), expects).await.map(Self)
    }
}

/// A body that is a JSON object.
#[derive(Debug)]
pub(super) struct Object(pub(super) Map<String, Value>);

impl<S: Send + Sync> FromRequest<S> for Object {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let Whole(bytes) = Whole::from_request(request, state).await?;
        Ok(Self(parse_object(&bytes)?))
    }
}

/// No body, or an empty object, which some clients send.
#[derive(Debug)]
pub(super) struct NoBody;

impl<S: Send + Sync> FromRequest<S> for NoBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let Whole(bytes) = Whole::from_request(request, state).await?;
        if bytes.is_empty() || parse_object(&bytes).is_ok_and(|object| object.is_empty()) {
            return Ok(Self);
        }
        Err(ApiError::bad("unexpected_body", "this route takes no body"))
    }
}

async fn read(body: Body, expects: bool) -> Result<Bytes, ApiError> {
    let deadline = tokio::time::Instant::now() + BODY_TIME_MAX;
    let too_large = || {
        let message = format!("the body is larger than {BODY_BYTES_MAX} bytes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    };
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    // Who waits for a go-ahead has sent nothing yet, and shall not.
    if announced > BODY_BYTES_MAX && expects {
        return Err(too_large());
    }
    let mut chunks = body.into_data_stream();
    let mut bytes = Vec::with_capacity(announced.min(BODY_BYTES_MAX));
    let mut seen = 0_usize;
    loop {
        let chunk = match tokio::time::timeout_at(deadline, chunks.next()).await {
            Ok(Some(Ok(chunk))) => chunk,
            Ok(None) | Err(_) if seen > BODY_BYTES_MAX => return Err(too_large()),
            Ok(None) => return Ok(bytes.into()),
            Ok(Some(Err(_))) => return Err(ApiError::bad("body_cut", "the body ends too early or is badly framed")),
            Err(_) => {
                let message = format!("the body took longer than {} s", BODY_TIME_MAX.as_secs());
                return Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message));
            }
        };
        seen = seen.saturating_add(chunk.len());
        if seen > DISCARD_BYTES_MAX || announced > DISCARD_BYTES_MAX {
            return Err(too_large());
        }
        if seen > BODY_BYTES_MAX || announced > BODY_BYTES_MAX {
            bytes = Vec::new();
        } else {
            bytes.extend_from_slice(&chunk);
        }
    }
}

/// The version that `If-Match` asks for: `Some(Some(n))`; `Some(None)` for `*`, any that exists.
pub(super) fn if_match(headers: &HeaderMap) -> Result<Option<Option<u64>>, ApiError> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or("").trim();
    if text == "*" {
        return Ok(Some(None));
    }
    let inner = text.strip_prefix("W/").unwrap_or(text);
    let version = inner.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(inner).parse();
    version.map(|version| Some(Some(version))).map_err(|_| invalid("If-Match", "If-Match must be an ETag of a stream"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_query_is_read_strictly() {
        let query = Query::read(Some("after=a%2Fb+c&limit=5000&wait=90"), &["after", "limit", "wait"]).expect("valid");
        assert_eq!(query.after().expect("cursor"), "a/b c");
        assert_eq!(query.limit().expect("limit"), PAGE_MAX);
        assert_eq!(query.wait().expect("wait"), WAIT_MAX);
        for bad in ["after=%zz", "after=%f", "after=%ff", "limits=1", "after=1&after=2", "%61fter=1&after=1"] {
            assert!(Query::read(Some(bad), &["after"]).is_err(), "{bad}");
        }
        for bad in ["0", "-1", "", "1.5", "x", "99999999999999999999999"] {
            let text = format!("limit={bad}");
            assert!(Query::read(Some(&text), &["limit"]).expect("syntax").limit().is_err(), "{bad}");
        }
    }

    #[test]
    fn test_if_match_takes_strong_weak_and_bare_versions() {
        let read = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_MATCH, header::HeaderValue::from_static(text));
            if_match(&headers).ok()
        };
        assert_eq!(read("\"7\""), Some(Some(Some(7))));
        assert_eq!(read("W/\"7\""), Some(Some(Some(7))));
        assert_eq!(read("*"), Some(Some(None)));
        assert_eq!(read("\"seven\""), None);
        assert_eq!(if_match(&HeaderMap::new()).ok(), Some(None));
    }
}
