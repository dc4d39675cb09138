//! Which path and method leads to which function.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get, patch, post, put};

use super::error::ApiError;
use super::{App, follow, guard, node, streams};

/// The router, behind its guard.
pub(super) fn router(app: Arc<App>) -> Router {
    routes()
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(Arc::clone(&app), guard::guard))
        .with_state(app)
}

fn routes() -> Router<Arc<App>> {
    let stream = Router::new()
        .route("/", get(streams::get).put(streams::put).patch(streams::patch).delete(streams::delete))
        .route("/pause", put(streams::pause))
        .route("/resume", put(streams::resume))
        .route("/stop", put(streams::stop))
        .route("/restart", post(streams::restart))
        .route("/interrupt", post(streams::interrupt))
        .route("/status", get(streams::status))
        .route(
            "/checkpoint",
            get(streams::checkpoint).merge(patch(streams::set_checkpoint)).merge(delete(streams::reset_checkpoint)),
        )
        .route("/dead", get(streams::dead))
        .route("/records", get(streams::records));
    Router::new()
        .route(guard::MESSAGES, post(streams::messages))
        .route("/v1/streams", get(streams::list))
        .nest("/v1/streams/{tenant}/{stream}", stream)
        .route("/v1/references", get(follow::references))
        .route("/v1/events", get(follow::events))
        .route("/v1/restarts", get(follow::restarts))
        .route("/v1/incidents/{id}", get(follow::incident))
        .route("/v1/tree", get(node::tree))
        .route("/v1/validate", post(node::validate))
        .route("/v1/openapi.json", get(node::describe))
        .route("/health/live", get(node::live))
        .route("/health/ready", get(node::ready))
        .route("/metrics", get(node::metrics))
}

async fn unknown_route() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "unknown_route", "there is no such route")
}

async fn wrong_method() -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", "this route does not know the method")
}
