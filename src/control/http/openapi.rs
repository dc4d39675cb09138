//! The API described for machines: `GET /v1/openapi.json`.

use serde_json::{Map, Value, json};

use super::limits::{BODY_BYTES_MAX, PAGE_DEFAULT, PAGE_MAX, WAIT_MAX};

/// One method of one path.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    summary: &'static str,
    /// Keys of the query.
    query: &'static [&'static str],
    /// The body's schema, empty = none.
    body: &'static str,
    /// Statuses of success with the schema of the answer.
    answers: &'static [(u16, &'static str)],
    /// Statuses of refusals besides those that every route has.
    refusals: &'static [u16],
}

const fn op(method: &'static str, path: &'static str, summary: &'static str) -> Operation {
    Operation { method, path, summary, query: &[], body: "", answers: &[(200, "Any")], refusals: &[] }
}

const STREAM: &str = "/v1/streams/{tenant}/{stream}";
const PAUSE: &str = "/v1/streams/{tenant}/{stream}/pause";
const RESUME: &str = "/v1/streams/{tenant}/{stream}/resume";
const STOP: &str = "/v1/streams/{tenant}/{stream}/stop";
const RESTART: &str = "/v1/streams/{tenant}/{stream}/restart";
const INTERRUPT: &str = "/v1/streams/{tenant}/{stream}/interrupt";
const STATUS: &str = "/v1/streams/{tenant}/{stream}/status";
const CHECKPOINT: &str = "/v1/streams/{tenant}/{stream}/checkpoint";
const DEAD: &str = "/v1/streams/{tenant}/{stream}/dead";
const RECORDS: &str = "/v1/streams/{tenant}/{stream}/records";

const PAGED: &[&str] = &["after", "limit"];
const CHANGE: &[u16] = &[404, 409, 413];

/// Every operation of the router; a test compares the two.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        body: "Message",
        answers: &[(200, "MessageAnswer")],
        refusals: &[404, 409, 413],
        ..op("post", super::guard::MESSAGES, "Start, stop, interrupt or ask by a message; refusals as MessageRefusal")
    },
    Operation { query: &["tenant"], answers: &[(200, "Streams")], ..op("get", "/v1/streams", "All streams") },
    Operation { answers: &[(200, "Stream")], refusals: &[404], ..op("get", STREAM, "One stream, with its ETag") },
    Operation {
        body: "StreamChange",
        answers: &[(200, "Stream"), (201, "Stream")],
        refusals: CHANGE,
        ..op("put", STREAM, "Start the stream with exactly these keys; takes If-Match and If-None-Match: *")
    },
    Operation {
        body: "StreamPatch",
        answers: &[(200, "Stream")],
        refusals: CHANGE,
        ..op("patch", STREAM, "Change some keys of a running stream (merge patch); takes If-Match")
    },
    Operation {
        refusals: CHANGE,
        ..op("delete", STREAM, "Stop and forget the stream; its tables stay; takes If-Match")
    },
    Operation {
        answers: &[(202, "Any")],
        refusals: CHANGE,
        ..op("put", PAUSE, "Keep the table, ask the source for nothing")
    },
    Operation { answers: &[(202, "Any")], refusals: CHANGE, ..op("put", RESUME, "Run again with what it had") },
    Operation {
        answers: &[(202, "Any")],
        refusals: CHANGE,
        ..op("put", STOP, "Commit what was collected, hold nothing")
    },
    Operation { query: &["partition"], refusals: CHANGE, ..op("post", RESTART, "Restart workers, also parked ones") },
    Operation { query: &["partition"], refusals: CHANGE, ..op("post", INTERRUPT, "Drop the workload in progress") },
    Operation {
        answers: &[(200, "Status")],
        refusals: &[404],
        ..op("get", STATUS, "What it should be and what it is")
    },
    Operation { answers: &[(200, "Checkpoint")], refusals: &[404], ..op("get", CHECKPOINT, "Where it stands") },
    Operation {
        body: "Positions",
        answers: &[(200, "Checkpoint")],
        refusals: CHANGE,
        ..op("patch", CHECKPOINT, "Set positions of a stopped stream; partitions not named stay")
    },
    Operation {
        answers: &[(200, "Checkpoint")],
        refusals: CHANGE,
        ..op("delete", CHECKPOINT, "Forget all positions of a stopped stream")
    },
    Operation { query: PAGED, refusals: &[404], ..op("get", DEAD, "Dead letters, in pages: {dead, next}") },
    Operation { query: PAGED, refusals: &[404], ..op("get", RECORDS, "Rows of the table, in pages: {records, next}") },
    Operation {
        query: &["stream", "after", "limit", "wait"],
        answers: &[(200, "References")],
        refusals: &[404],
        ..op("get", "/v1/references", "What was published; with Accept: text/event-stream it follows")
    },
    Operation {
        query: &["after", "limit", "wait"],
        answers: &[(200, "Events")],
        ..op("get", "/v1/events", "The newest 10,000 events")
    },
    Operation {
        query: &["after", "limit", "wait", "since", "until", "event", "stream", "class", "incident"],
        answers: &[(200, "Restarts")],
        ..op("get", "/v1/restarts", "The restart log, from the oldest record that is kept")
    },
    Operation {
        refusals: &[404],
        ..op("get", "/v1/incidents/{id}", "An incident as a story: cause, cascade, end, remedy")
    },
    Operation {
        query: &["stream", "depth", "only", "limit"],
        ..op("get", "/v1/tree", "The supervision tree, or the part of it that is asked for")
    },
    Operation {
        body: "Toml",
        answers: &[(200, "Validation")],
        refusals: &[413],
        ..op("post", "/v1/validate", "Check a configuration without starting it")
    },
    op("get", "/v1/openapi.json", "This document"),
    op("get", "/health/live", "The process answers; needs no token"),
    Operation { refusals: &[503], ..op("get", "/health/ready", "All running streams are up; needs no token") },
    Operation { answers: &[(200, "Text")], ..op("get", "/metrics", "Metrics in the Prometheus text format") },
];

/// Refusals that every route has.
const ALWAYS: [u16; 4] = [400, 401, 403, 429];

/// The whole document.
pub(super) fn document() -> Value {
    let mut paths = Map::new();
    for operation in OPERATIONS {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = describe(operation);
    }
    json!({
        "openapi": "3.0.3",
        "info": {
            "title": "lakefeed",
            "version": env!("CARGO_PKG_VERSION"),
            "description": format!(
                "Bodies up to {BODY_BYTES_MAX} bytes; pages of {PAGE_DEFAULT} items, at most {PAGE_MAX}; \
                 wait at most {} s. Refusals have the schema Error.",
                WAIT_MAX.as_secs()
            ),
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": schemas(),
        },
    })
}

fn content(schema: &str) -> Value {
    let kind = if matches!(schema, "Text" | "Toml") { "text/plain" } else { "application/json" };
    json!({(kind): {"schema": {"$ref": format!("#/components/schemas/{schema}")}}})
}

fn describe(operation: &Operation) -> Value {
    let in_path = operation
        .path
        .split(['{', '}'])
        .skip(1)
        .step_by(2)
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}));
    let in_query = operation.query.iter().map(|name| {
        let kind = if *name == "limit" { "integer" } else { "string" };
        json!({"name": name, "in": "query", "required": false, "schema": {"type": kind}})
    });
    let mut responses = Map::new();
    for (status, schema) in operation.answers {
        responses.insert(status.to_string(), json!({"description": "done", "content": content(schema)}));
    }
    let refusal = if operation.path == super::guard::MESSAGES { "MessageRefusal" } else { "Error" };
    for status in ALWAYS.iter().chain(operation.refusals) {
        responses.insert(status.to_string(), json!({"description": "refused", "content": content(refusal)}));
    }
    let mut described = json!({
        "summary": operation.summary,
        "parameters": in_path.chain(in_query).collect::<Vec<_>>(),
        "responses": responses,
    });
    if !operation.body.is_empty() {
        described["requestBody"] = json!({"required": true, "content": content(operation.body)});
    }
    if operation.path.starts_with("/health/") {
        described["security"] = json!([]);
    }
    described
}

fn object(required: &[&str], properties: Value) -> Value {
    json!({"type": "object", "required": required, "properties": properties})
}

fn page(of: &str) -> Value {
    object(&[of, "next"], json!({(of): {"type": "array", "items": {"type": "object"}}, "next": {"type": "string"}}))
}

fn schemas() -> Value {
    let (text, count, whole) = (json!({"type": "string"}), json!({"type": "integer"}), json!({"type": "object"}));
    let change = json!({
        "adapter": text, "endpoint": text, "secret_key": text, "bucket_name": text, "settings": whole,
        "interval": {"type": "integer", "minimum": 10, "description": "ms"},
        "timeout": {"type": "integer", "minimum": 10, "description": "ms"},
        "partitions": {"type": "array", "minItems": 1, "items": whole},
    });
    let parked =
        json!({"type": "object", "nullable": true, "properties": {"class": text, "code": text, "message": text}});
    let status = json!({
        "desired": {"type": "string", "enum": ["running", "paused", "stopped"]},
        "actual": {"type": "string", "enum": ["starting", "running", "waiting", "parked", "stopped"]},
        "epoch": count, "lag_seconds": {"type": "number", "nullable": true},
        "next_at": {"type": "string", "nullable": true}, "parked": parked,
        "waits_for": {"type": "string", "nullable": true, "description": "code: message"},
    });
    let mut stream = status.clone();
    let identity = json!({
        "tenant": text, "stream": text, "adapter": text, "version": count, "settings": whole,
        "partitions": {"type": "array", "items": text},
    });
    if let (Value::Object(stream), Value::Object(identity)) = (&mut stream, identity) {
        stream.extend(identity);
    }
    let pattern =
        json!({"type": "string", "enum": ["worker:start", "worker:stop", "worker:interrupt", "worker:status"]});
    let success = json!({"type": "boolean"});
    json!({
        "Any": {},
        "Text": text,
        "Toml": text,
        "Error": object(&["error_code", "code", "message"],
            json!({"error_code": count, "code": text, "message": text, "field": text, "remedy": text})),
        "Message": object(&["pattern", "data"], json!({"pattern": pattern, "data": whole, "id": text})),
        "MessageAnswer": object(&["success", "message"], json!({"success": success, "message": text})),
        "MessageRefusal": object(&["success", "message", "code"],
            json!({"success": success, "message": text, "code": text, "field": text})),
        "StreamChange": object(&["adapter"], change.clone()),
        "StreamPatch": object(&[], change),
        "Status": object(&["desired", "actual", "epoch"], status),
        "Stream": object(&["tenant", "stream", "adapter", "version", "desired", "actual"], stream.clone()),
        "Streams": object(&["streams"], json!({"streams": {"type": "array", "items": object(&[], stream)}})),
        "Positions": object(&["positions"],
            json!({"positions": {"type": "object", "minProperties": 1, "additionalProperties": text}})),
        "Checkpoint": object(&["epoch", "positions"],
            json!({"epoch": count, "generation": count, "positions": whole})),
        "References": page("references"),
        "Events": page("events"),
        "Restarts": page("restarts"),
        "Validation": object(&["valid", "problems"],
            json!({"valid": {"type": "boolean"}, "problems": {"type": "array", "items": whole}})),
    })
}
