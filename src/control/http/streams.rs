//! Routes of streams.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::App;
use super::error::{ApiError, answer};
use super::input::{NoBody, Object, Query, StreamPath, if_match, invalid};
use crate::control::message::{self, OVERRIDES, only_keys, start_request};
use crate::names::StreamId;
use crate::streams::api::{Desired, StreamView};

type Reply = Result<Response, ApiError>;

/// `POST /v1/messages`.
pub(super) async fn messages(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    super::input::Whole(body): super::input::Whole,
) -> Reply {
    Query::read(query.as_deref(), &[])?;
    let message::Answer { status, body } = message::handle(&*app.deps.streams, &body).await;
    Ok(answer(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), &body))
}

/// `GET /v1/streams`.
pub(super) async fn list(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Reply {
    let query = Query::read(query.as_deref(), &["tenant"])?;
    let mut streams = app.deps.streams.list().await;
    if let Some(tenant) = query.get("tenant") {
        streams.retain(|view| view.tenant == tenant);
    }
    Ok(answer(StatusCode::OK, &json!({"streams": streams})))
}

fn view_answer(status: StatusCode, view: &StreamView) -> Reply {
    let mut response = answer(status, &json!(view));
    let etag = HeaderValue::from_str(&format!("\"{}\"", view.version));
    response.headers_mut().insert(header::ETAG, etag.map_err(|_| invalid("version", "the version is not printable"))?);
    Ok(response)
}

/// `GET /v1/streams/{tenant}/{stream}`.
pub(super) async fn get(State(app): State<Arc<App>>, StreamPath(id): StreamPath, RawQuery(query): RawQuery) -> Reply {
    Query::read(query.as_deref(), &[])?;
    view_answer(StatusCode::OK, &app.deps.streams.get(&id).await?)
}

/// The version that the request insists on. `If-Match: *` insists on one that exists, `If-None-Match: *` on none.
async fn precondition(app: &App, id: &StreamId, headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let none = headers.get(header::IF_NONE_MATCH).map(|value| value.to_str().unwrap_or("").trim() == "*");
    match (if_match(headers)?, none) {
        (None, None) => Ok(None),
        (None, Some(true)) => Ok(Some(0)),
        (Some(Some(version)), None) => Ok(Some(version)),
        (Some(None), None) => app.deps.streams.get(id).await.map(|_| None).map_err(ApiError::from),
        _ => Err(invalid("If-None-Match", "only If-Match with an ETag or *, or If-None-Match: * is understood")),
    }
}

const STREAM_KEYS: [&str; 2] = ["adapter", "bucket_name"];

fn known_keys() -> Vec<&'static str> {
    STREAM_KEYS.into_iter().chain(OVERRIDES).collect()
}

/// `PUT /v1/streams/{tenant}/{stream}`: the keys of a start message but its names. Starts the stream.
pub(super) async fn put(
    State(app): State<Arc<App>>,
    StreamPath(id): StreamPath,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    Object(body): Object,
) -> Reply {
    Query::read(query.as_deref(), &[])?;
    only_keys(&body, &known_keys())?;
    let adapter = message::adapter(&body)?;
    let mut request = start_request(&body)?;
    request.if_version = precondition(&app, &id, &headers).await?;
    let existed = app.deps.streams.get(&id).await.is_ok();
    let view = app.deps.streams.start(&id, &adapter, request).await?;
    view_answer(if existed { StatusCode::OK } else { StatusCode::CREATED }, &view)
}

/// `PATCH /v1/streams/{tenant}/{stream}`: a merge patch over the keys that messages laid over the adapter. Secrets
/// stand as `***` there and are handed back so, which means unchanged.
pub(super) async fn patch(
    State(app): State<Arc<App>>,
    StreamPath(id): StreamPath,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    Object(patch): Object,
) -> Reply {
    Query::read(query.as_deref(), &[])?;
    only_keys(&patch, &known_keys())?;
    if patch.is_empty() {
        return Err(ApiError::bad("empty_patch", "the patch changes nothing"));
    }
    let if_version = precondition(&app, &id, &headers).await?;
    let view = app.deps.streams.get(&id).await?;
    if view.status.desired != Desired::Running {
        let message = "the stream does not run, and a patch starts nothing: resume it, or PUT what it shall run with";
        return Err(ApiError::new(StatusCode::CONFLICT, "not_running", message));
    }
    let mut merged = match view.settings {
        Value::Object(settings) => settings,
        _ => Map::new(),
    };
    merged.insert("adapter".to_owned(), json!(view.adapter));
    merge(&mut merged, patch);
    let adapter = message::adapter(&merged)?;
    let mut request = start_request(&merged)?;
    // What was read is what is changed: a change in between is a conflict, not silently undone.
    request.if_version = Some(if_version.unwrap_or(view.version));
    view_answer(StatusCode::OK, &app.deps.streams.start(&id, &adapter, request).await?)
}

/// RFC 7396: `null` removes, objects merge, anything else replaces.
fn merge(target: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (key, value) in patch {
        match value {
            Value::Null => drop(target.remove(&key)),
            Value::Object(inner) => {
                let place = target.entry(key).or_insert(Value::Null);
                if !place.is_object() {
                    *place = json!({});
                }
                if let Value::Object(place) = place {
                    merge(place, inner);
                }
            }
            other => drop(target.insert(key, other)),
        }
    }
}

/// `DELETE /v1/streams/{tenant}/{stream}`.
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    StreamPath(id): StreamPath,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    _: NoBody,
) -> Reply {
    Query::read(query.as_deref(), &[])?;
    let if_version = precondition(&app, &id, &headers).await?;
    app.deps.streams.delete(&id, if_version).await?;
    Ok(answer(StatusCode::OK, &json!({"tenant": id.tenant(), "stream": id.stream(), "deleted": true})))
}

async fn desire(app: &App, id: &StreamId, query: Option<&str>, headers: &HeaderMap, desired: Desired) -> Reply {
    Query::read(query, &[])?;
    let if_version = precondition(app, id, headers).await?;
    app.deps.streams.get(id).await?;
    app.deps.streams.set_desired(id, None, desired, if_version).await?;
    let body = json!({"tenant": id.tenant(), "stream": id.stream(), "desired": desired});
    Ok(answer(StatusCode::ACCEPTED, &body))
}

macro_rules! desire_route {
    ($name:ident, $desired:expr, $doc:literal) => {
        #[doc = $doc]
        pub(super) async fn $name(
            State(app): State<Arc<App>>,
            StreamPath(id): StreamPath,
            RawQuery(query): RawQuery,
            headers: HeaderMap,
            _: NoBody,
        ) -> Reply {
            desire(&app, &id, query.as_deref(), &headers, $desired).await
        }
    };
}

desire_route!(pause, Desired::Paused, "`PUT …/pause`.");
desire_route!(resume, Desired::Running, "`PUT …/resume`.");
desire_route!(stop, Desired::Stopped, "`PUT …/stop`.");

fn partition(query: Option<&str>) -> Result<Option<String>, ApiError> {
    let query = Query::read(query, &["partition"])?;
    match query.get("partition") {
        Some("") => Err(invalid("partition", "partition is empty")),
        other => Ok(other.map(str::to_owned)),
    }
}

fn touched(id: &StreamId, partition: Option<&str>) -> Reply {
    let body = json!({"tenant": id.tenant(), "stream": id.stream(), "partition": partition});
    Ok(answer(StatusCode::OK, &body))
}

/// `POST …/restart`.
pub(super) async fn restart(
    State(app): State<Arc<App>>,
    StreamPath(id): StreamPath,
    RawQuery(query): RawQuery,
    _: NoBody,
) -> Reply {
    let partition = partition(query.as_deref())?;
    app.deps.streams.restart(&id, partition.as_deref()).await?;
    touched(&id, partition.as_deref())
}

/// `POST …/interrupt`.
pub(super) async fn interrupt(
    State(app): State<Arc<App>>,
    StreamPath(id): StreamPath,
    RawQuery(query): RawQuery,
    _: NoBody,
) -> Reply {
    let partition = partition(query.as_deref())?;
    app.deps.streams.interrupt(&id, partition.as_deref()).await?;
    touched(&id, partition.as_deref())
}

/// `GET …/status`.
pub(super) async fn status(
    State(app): State<Arc<App>>,
    StreamPath(id): StreamPath,
    RawQuery(query): RawQuery,
) -> Reply {
    Query::read(query.as_deref(), &[])?;
    let view = app.deps.streams.get(&id).await?;
    Ok(answer(StatusCode::OK, &json!(view.status)))
}

/// `GET …/checkpoint`.
pub(super) async fn checkpoint(
    State(app): State<Arc<App>>,
    StreamPath(id): StreamPath,
    RawQuery(query): RawQuery,
) -> Reply {
    Query::read(query.as_deref(), &[])?;
    Ok(answer(StatusCode::OK, &app.deps.streams.checkpoint(&id).await?))
}

/// `PATCH …/checkpoint` with `{"positions": {partition: position}}`.
pub(super) async fn set_checkpoint(
    State(app): State<Arc<App>>,
    StreamPath(id): StreamPath,
    RawQuery(query): RawQuery,
    Object(body): Object,
) -> Reply {
    Query::read(query.as_deref(), &[])?;
    only_keys(&body, &["positions"])?;
    let positions = body
        .get("positions")
        .cloned()
        .ok_or_else(|| ApiError::bad("missing_key", "the key positions is missing").field("positions"))?;
    let positions: BTreeMap<String, String> = serde_json::from_value(positions).map_err(|_| {
        ApiError::bad("invalid_type", "positions must be an object of strings by partition").field("positions")
    })?;
    if positions.is_empty() {
        return Err(invalid("positions", "positions is empty; DELETE forgets all of them"));
    }
    Ok(answer(StatusCode::OK, &app.deps.streams.set_checkpoint(&id, Some(positions)).await?))
}

/// `DELETE …/checkpoint`.
pub(super) async fn reset_checkpoint(
    State(app): State<Arc<App>>,
    StreamPath(id): StreamPath,
    RawQuery(query): RawQuery,
    _: NoBody,
) -> Reply {
    Query::read(query.as_deref(), &[])?;
    Ok(answer(StatusCode::OK, &app.deps.streams.set_checkpoint(&id, None).await?))
}

/// `GET …/dead`.
pub(super) async fn dead(State(app): State<Arc<App>>, StreamPath(id): StreamPath, RawQuery(query): RawQuery) -> Reply {
    let query = Query::read(query.as_deref(), &["after", "limit"])?;
    let page = app.deps.streams.dead(&id, query.after()?, query.limit()?).await?;
    Ok(answer(StatusCode::OK, &json!({"dead": page.items, "next": page.next})))
}

/// `GET …/records`.
pub(super) async fn records(
    State(app): State<Arc<App>>,
    StreamPath(id): StreamPath,
    RawQuery(query): RawQuery,
) -> Reply {
    let query = Query::read(query.as_deref(), &["after", "limit"])?;
    let page = app.deps.streams.records(&id, query.after()?, query.limit()?).await?;
    Ok(answer(StatusCode::OK, &json!({"records": page.items, "next": page.next})))
}
