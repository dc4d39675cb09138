//! Routes that page through what happened and wait for more: references, events, restarts.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use adapters::contract::config::parse_duration;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use futures::Stream;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use super::App;
use super::connections::Busy;
use super::error::{ApiError, answer};
use super::guard::busy;
use super::input::{Query, invalid};
use super::limits::{HEARTBEAT, PAGE_DEFAULT};
use crate::names::StreamId;
use crate::streams::api::{Page, Refusal};
use crate::telemetry::restarts::{CLASSES, EVENTS, Filter, RestartLogError};
use crate::times::timestamp_us;

/// Children of an incident of which the answer tells what they are now: more than anybody reads.
const NOW_MAX: usize = 1_000;

type Reply = Result<Response, ApiError>;

/// A place among the long polls, if the request waits at all.
fn place(app: &App, wait: Duration) -> Result<Option<OwnedSemaphorePermit>, ApiError> {
    if wait.is_zero() {
        return Ok(None);
    }
    let place = Arc::clone(&app.long_polls).try_acquire_owned();
    place.map(Some).map_err(|_| busy("long polls"))
}

/// `GET /v1/references`.
pub(super) async fn references(
    State(app): State<Arc<App>>,
    connection: Option<Extension<Arc<Busy>>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Reply {
    let query = Query::read(query.as_deref(), &["stream", "after", "limit", "wait"])?;
    let (stream, after, limit, wait) = (query.stream()?, query.after()?, query.limit()?, query.wait()?);
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    if accepts.contains("text/event-stream") {
        // A browser that comes back asks for the same address and says here how far it came.
        let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()).unwrap_or(after);
        return follow(app, connection.map(|Extension(busy)| busy), stream, last.to_owned()).await;
    }
    let _place = place(&app, wait)?;
    let stop = app.stop.clone();
    let page = tokio::select! {
        page = app.deps.streams.references(stream.as_ref(), after, limit, wait) => page?,
        () = stop.cancelled() => Page { items: Vec::new(), next: after.to_owned() },
    };
    Ok(answer(StatusCode::OK, &json!({"references": page.items, "next": page.next})))
}

/// `GET /v1/events`.
pub(super) async fn events(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Reply {
    let query = Query::read(query.as_deref(), &["after", "limit", "wait"])?;
    let (after, limit, wait) = (query.after()?, query.limit()?, query.wait()?);
    let _place = place(&app, wait)?;
    let stop = app.stop.clone();
    let page = tokio::select! {
        page = app.deps.streams.events(after, limit, wait) => page?,
        () = stop.cancelled() => Page { items: Vec::new(), next: after.to_owned() },
    };
    Ok(answer(StatusCode::OK, &json!({"events": page.items, "next": page.next})))
}

fn unreadable(_: RestartLogError) -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "restart_log", "the restart log cannot be read")
}

/// `GET /v1/restarts`.
pub(super) async fn restarts(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Reply {
    let known = ["after", "limit", "wait", "since", "until", "event", "stream", "class", "incident"];
    let query = Query::read(query.as_deref(), &known)?;
    let after = query.after()?;
    let cursor: Option<u64> = if after.is_empty() { Some(0) } else { after.parse().ok() };
    let after =
        cursor.ok_or_else(|| ApiError::bad("invalid_cursor", "after is not a cursor of this log").field("after"))?;
    let filter = Filter {
        since_us: query.get("since").map(|text| moment(&app, "since", text)).transpose()?,
        until_us: query.get("until").map(|text| moment(&app, "until", text)).transpose()?,
        events: query.get("event").map(|text| one_of("event", &EVENTS, text)).transpose()?.unwrap_or_default(),
        stream: query.stream()?,
        class: query.get("class").map(class).transpose()?,
        incident: query.get("incident").map(str::to_owned),
        after,
        limit: query.limit()?,
    };
    let wait = query.wait()?;
    let _place = place(&app, wait)?;
    let stop = app.stop.clone();
    let (records, next) = tokio::select! {
        page = app.deps.restarts.page(filter, wait) => page.map_err(unreadable)?,
        () = stop.cancelled() => (Vec::new(), after),
    };
    Ok(answer(StatusCode::OK, &json!({"restarts": records, "next": next.to_string()})))
}

fn class(text: &str) -> Result<String, ApiError> {
    if CLASSES.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(invalid("class", format!("class must be one of {}", CLASSES.join(", "))))
}

/// Words of `known`, with commas between.
pub(super) fn one_of(field: &str, known: &[&str], text: &str) -> Result<Vec<String>, ApiError> {
    let words: Vec<String> = text.split(',').map(str::to_owned).collect();
    if words.iter().all(|word| known.contains(&word.as_str())) {
        return Ok(words);
    }
    Err(invalid(field, format!("{field} must be one of {}, or some of them with commas between", known.join(", "))))
}

/// A point in time, or a duration before now.
fn moment(app: &App, field: &str, text: &str) -> Result<i64, ApiError> {
    let ago = || {
        let ago = i64::try_from(parse_duration(text)?.as_micros()).ok()?;
        Some(app.deps.clock.now_us().saturating_sub(ago))
    };
    let us = timestamp_us(text).or_else(ago);
    us.ok_or_else(|| invalid(field, format!("{field} must be an RFC 3339 time, or a duration such as 15m")))
}

/// `GET /v1/incidents/{id}`.
pub(super) async fn incident(State(app): State<Arc<App>>, request: axum::extract::Request) -> Reply {
    let (mut parts, _) = request.into_parts();
    Query::read(parts.uri.query(), &[])?;
    let id = super::input::path_param(&mut parts, &app, "id").await?;
    match app.deps.restarts.incident(&id).await.map_err(unreadable)? {
        Some(mut story) => {
            let paths: Vec<String> = story.affected.iter().take(NOW_MAX).map(|child| child.path.clone()).collect();
            let nodes = app.deps.streams.nodes(&paths).await;
            story.affected.iter_mut().zip(nodes).for_each(|(child, now)| child.now = now);
            Ok(answer(StatusCode::OK, &json!(story)))
        }
        None => Err(Refusal::new(404, "unknown_incident", "the restart log has no incident of this id").into()),
    }
}

/// Where a follower stands.
struct Follower {
    app: Arc<App>,
    stream: Option<StreamId>,
    after: String,
    /// What was read already.
    ready: Option<Page>,
    ended: bool,
    _place: OwnedSemaphorePermit,
    _connection: Option<Arc<Busy>>,
}

async fn follow(app: Arc<App>, connection: Option<Arc<Busy>>, stream: Option<StreamId>, after: String) -> Reply {
    let place = Arc::clone(&app.followers).try_acquire_owned().map_err(|_| busy("followers"))?;
    // The first page before the answer begins, so that a wrong cursor is refused as everywhere.
    let page = app.deps.streams.references(stream.as_ref(), &after, PAGE_DEFAULT, Duration::ZERO).await?;
    let follower =
        Follower { app, stream, after, ready: Some(page), ended: false, _place: place, _connection: connection };
    let mut response = Response::new(Body::from_stream(chunks(follower)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn chunks(follower: Follower) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    futures::stream::unfold(follower, |mut follower| async move {
        if follower.ended {
            return None;
        }
        let page = match follower.ready.take() {
            Some(page) => Ok(page),
            None => {
                let stop = follower.app.stop.clone();
                let streams = &follower.app.deps.streams;
                tokio::select! {
                    page = streams.references(follower.stream.as_ref(), &follower.after, PAGE_DEFAULT, HEARTBEAT) => page,
                    () = stop.cancelled() => return None,
                }
            }
        };
        let text = match page {
            Ok(page) => {
                let text = frames(&page);
                follower.after = page.next;
                text
            }
            Err(refusal) => {
                follower.ended = true;
                let body = json!({"code": refusal.code, "message": refusal.message});
                format!("event: error\ndata: {body}\n\n")
            }
        };
        Some((Ok(Bytes::from(text)), follower))
    })
}

/// Server-sent events of one page. The cursor stands at the last one: who is cut off before gets the page again,
/// which at-least-once allows.
fn frames(page: &Page) -> String {
    if page.items.is_empty() {
        return ": waiting\n\n".to_owned();
    }
    let last = page.items.len() - 1;
    let frame = |(place, item): (usize, &serde_json::Value)| {
        let id = if place == last { format!("id: {}\n", page.next) } else { String::new() };
        format!("{id}event: data-streams:results\ndata: {item}\n\n")
    };
    page.items.iter().enumerate().map(frame).collect()
}
