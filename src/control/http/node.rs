//! Routes of the node: tree, validation, health, metrics, the description of the API itself.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::json;

use super::App;
use super::error::{ApiError, answer};
use super::follow::one_of;
use super::input::{Query, Whole, invalid};
use super::openapi;
use crate::streams::api::{TREE_STATES, TreeQuery};

type Reply = Result<Response, ApiError>;

/// `GET /v1/tree`: all of it, or what `stream`, `depth`, `only` and `limit` leave.
pub(super) async fn tree(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Reply {
    let query = Query::read(query.as_deref(), &["stream", "depth", "only", "limit"])?;
    let number = |key: &str| -> Result<Option<usize>, ApiError> {
        let number = query.get(key).map(str::parse).transpose();
        number.map_err(|_| invalid(key, format!("{key} must be a whole number")))
    };
    let wanted = TreeQuery {
        stream: query.stream()?,
        depth: number("depth")?,
        only: query.get("only").map(|text| one_of("only", &TREE_STATES, text)).transpose()?.unwrap_or_default(),
        limit: number("limit")?,
    };
    Ok(answer(StatusCode::OK, &app.deps.streams.tree(&wanted).await))
}

/// `POST /v1/validate`: TOML in, its problems out. What is no TOML at all is refused, with the problem.
pub(super) async fn validate(State(app): State<Arc<App>>, RawQuery(query): RawQuery, Whole(body): Whole) -> Reply {
    Query::read(query.as_deref(), &[])?;
    let text = std::str::from_utf8(&body).map_err(|_| ApiError::bad("not_utf8", "the body is not UTF-8"))?.to_owned();
    let is_toml = toml::from_str::<toml::Table>(&text).is_ok();
    let check = Arc::clone(&app.deps.validate);
    let problems = tokio::task::spawn_blocking(move || check(&text)).await.map_err(|_| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the check of the configuration failed")
    })?;
    if !is_toml {
        return Err(ApiError::bad("invalid_toml", "the body is not TOML").with("problems", json!(problems)));
    }
    Ok(answer(StatusCode::OK, &json!({"valid": problems.is_empty(), "problems": problems})))
}

/// `GET /health/live`: the process answers.
pub(super) async fn live(RawQuery(query): RawQuery) -> Reply {
    Query::read(query.as_deref(), &[])?;
    Ok(answer(StatusCode::OK, &json!({"live": true})))
}

/// `GET /health/ready`: every running stream has claimed its table or waits for a named reason.
pub(super) async fn ready(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Reply {
    Query::read(query.as_deref(), &[])?;
    if app.stop.is_cancelled() {
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "the node is stopping"));
    }
    match app.deps.streams.ready().await {
        Ok(detail) => Ok(answer(StatusCode::OK, &json!({"ready": true, "detail": detail}))),
        Err(detail) => {
            let message = "some streams have not claimed their tables yet";
            Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", message).with("detail", detail))
        }
    }
}

/// `GET /metrics`.
pub(super) async fn metrics(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Reply {
    Query::read(query.as_deref(), &[])?;
    let mut response = Response::new(Body::from(app.deps.metrics.render()));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

/// `GET /v1/openapi.json`.
pub(super) async fn describe(RawQuery(query): RawQuery) -> Reply {
    Query::read(query.as_deref(), &[])?;
    Ok(answer(StatusCode::OK, &openapi::document()))
}
