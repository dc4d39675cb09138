//! Messages of interface §3: read strictly, carried out, and answered to the letter. The way in (HTTP, and later
//! Kafka and NestJS) makes no difference here.

use std::time::Duration;

use adapters::contract::config::{DURATION_MAX, DURATION_MIN, show_duration};
use serde_json::{Map, Value, json};

use crate::names::{DEFAULT_TENANT, StreamId, check_bucket, is_adapter_name};
use crate::streams::api::{Desired, Refusal, StartRequest, Streams};

/// Keys of `data` that lie over the adapter's own.
pub const OVERRIDES: [&str; 6] = ["endpoint", "secret_key", "interval", "timeout", "partitions", "settings"];

/// The patterns that are understood.
const PATTERNS: [&str; 4] = ["worker:start", "worker:stop", "worker:interrupt", "worker:status"];

/// Text of an endpoint or a secret, bytes: nothing that a source can use is longer.
const TEXT_MAX: usize = 8 * 1024;

/// An answer: the HTTP status that goes with it, and the body.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// 200, or the refusal's.
    pub status: u16,
    /// As interface §3 shows it.
    pub body: Value,
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        Self { status: refusal.status, body: refusal_body(&refusal) }
    }
}

/// `{"success": false, "message", "code", "field"?}`.
#[must_use]
pub fn refusal_body(refusal: &Refusal) -> Value {
    let mut body = json!({"success": false, "message": refusal.message, "code": refusal.code});
    if let Some(field) = &refusal.field {
        body["field"] = json!(field);
    }
    body
}

/// Which stream a message is about.
#[derive(Debug, Clone, PartialEq)]
struct Target {
    adapter: String,
    id: StreamId,
}

/// A message, read and checked.
#[derive(Debug, Clone, PartialEq)]
enum Message {
    Start(Target, Box<StartRequest>),
    Stop(Target),
    Interrupt(Target),
    Status(Target),
}

/// Carries out the message in `bytes` (JSON) and answers it.
pub async fn handle(streams: &dyn Streams, bytes: &[u8]) -> Answer {
    match parse(bytes) {
        Ok(message) => carry_out(streams, message).await.unwrap_or_else(Answer::from),
        Err(refusal) => refusal.into(),
    }
}

async fn carry_out(streams: &dyn Streams, message: Message) -> Result<Answer, Refusal> {
    let done = |body: Value| Ok(Answer { status: 200, body });
    match message {
        Message::Start(Target { adapter, id }, request) => {
            streams.start(&id, &adapter, *request).await?;
            done(json!({"success": true, "message": format!("Started fetching from adapter {adapter}.")}))
        }
        Message::Stop(Target { adapter, id }) => {
            streams.set_desired(&id, Some(&adapter), Desired::Stopped, None).await?;
            done(json!({"success": true, "message": format!("Stopped fetching from adapter {adapter}.")}))
        }
        Message::Interrupt(Target { adapter, id }) => {
            of_adapter(streams, &id, &adapter).await?;
            streams.interrupt(&id, None).await?;
            done(json!({"success": true, "message": format!("Interrupted fetching from adapter {adapter}.")}))
        }
        Message::Status(Target { adapter, id }) => {
            let view = of_adapter(streams, &id, &adapter).await?;
            let status = serde_json::to_value(&view.status)
                .map_err(|_| Refusal::new(500, "internal", "the status cannot be written as JSON"))?;
            let mut body = json!({"success": true, "message": format!("Status of adapter {adapter}.")});
            if let (Value::Object(body), Value::Object(status)) = (&mut body, status) {
                body.extend(status);
            }
            done(body)
        }
    }
}

/// The stream, if it uses `adapter`: a message that names another adapter is not about it.
async fn of_adapter(
    streams: &dyn Streams,
    id: &StreamId,
    adapter: &str,
) -> Result<crate::streams::api::StreamView, Refusal> {
    let view = streams.get(id).await?;
    if view.adapter == adapter {
        return Ok(view);
    }
    Err(Refusal::new(404, "unknown_adapter", format!("the stream {id} does not use an adapter of this name"))
        .field("adapter"))
}

fn invalid(field: &str, message: impl Into<String>) -> Refusal {
    Refusal::new(400, "invalid_value", message).field(field)
}

/// JSON text to an object, for messages and bodies alike.
pub(super) fn parse_object(bytes: &[u8]) -> Result<Map<String, Value>, Refusal> {
    let text = std::str::from_utf8(bytes).map_err(|_| Refusal::new(400, "not_utf8", "the body is not UTF-8"))?;
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Refusal::new(400, "not_an_object", "the body is JSON but not an object")),
        Err(error) => {
            let message = format!("the body is not JSON: line {}, column {}", error.line(), error.column());
            Err(Refusal::new(400, "not_json", message))
        }
    }
}

/// Refuses keys other than `known`.
pub(super) fn only_keys(object: &Map<String, Value>, known: &[&str]) -> Result<(), Refusal> {
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => {
            let key: String = key.chars().take(80).collect();
            let message = format!("the key {key:?} is not known here; expected {}", known.join(", "));
            Err(Refusal::new(400, "unknown_key", message).field(&key))
        }
    }
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, Refusal> {
    match object.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(wrong_type(key, "a string", other)),
    }
}

fn wrong_type(field: &str, expected: &str, got: &Value) -> Refusal {
    let got = match got {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    Refusal::new(400, "invalid_type", format!("{field} must be {expected}, not {got}")).field(field)
}

fn missing(field: &str) -> Refusal {
    Refusal::new(400, "missing_key", format!("the key {field} is missing")).field(field)
}

fn parse(bytes: &[u8]) -> Result<Message, Refusal> {
    let message = parse_object(bytes)?;
    only_keys(&message, &["pattern", "data", "id"])?;
    text(&message, "id")?;
    let pattern = text(&message, "pattern")?.ok_or_else(|| missing("pattern"))?;
    if !PATTERNS.contains(&pattern) {
        let what = format!("the pattern is not known; expected {}", PATTERNS.join(", "));
        return Err(Refusal::new(400, "unknown_pattern", what).field("pattern"));
    }
    let data = match message.get("data") {
        Some(Value::Object(data)) => data,
        Some(other) => return Err(wrong_type("data", "an object", other)),
        None => return Err(missing("data")),
    };
    if pattern == "worker:start" {
        let mut known = vec!["adapter", "tenant", "stream", "bucket_name"];
        known.extend(OVERRIDES);
        only_keys(data, &known)?;
        return Ok(Message::Start(target(data)?, Box::new(start_request(data)?)));
    }
    only_keys(data, &["adapter", "tenant", "stream"])?;
    let target = target(data)?;
    Ok(match pattern {
        "worker:stop" => Message::Stop(target),
        "worker:interrupt" => Message::Interrupt(target),
        _ => Message::Status(target),
    })
}

fn target(data: &Map<String, Value>) -> Result<Target, Refusal> {
    let adapter = adapter(data)?;
    let tenant = text(data, "tenant")?.unwrap_or(DEFAULT_TENANT);
    let stream = text(data, "stream")?.map_or_else(|| adapter.to_lowercase(), str::to_owned);
    let id = StreamId::new(tenant, &stream).map_err(|error| invalid(error.what, error.to_string()))?;
    Ok(Target { adapter, id })
}

/// The key `adapter`, checked.
pub(super) fn adapter(data: &Map<String, Value>) -> Result<String, Refusal> {
    let adapter = text(data, "adapter")?.ok_or_else(|| missing("adapter"))?;
    if is_adapter_name(adapter) {
        return Ok(adapter.to_owned());
    }
    Err(invalid("adapter", "adapter is not a valid name; expected [A-Za-z0-9][A-Za-z0-9_-]{0,62}"))
}

/// The keys of a start message other than its target; also the body of PUT and PATCH of a stream.
pub(super) fn start_request(data: &Map<String, Value>) -> Result<StartRequest, Refusal> {
    for key in ["endpoint", "secret_key"] {
        match text(data, key)? {
            Some("") => return Err(invalid(key, format!("{key} is empty"))),
            Some(value) if value.len() > TEXT_MAX => {
                return Err(invalid(key, format!("{key} is longer than {TEXT_MAX} bytes")));
            }
            _ => {}
        }
    }
    for key in ["interval", "timeout"] {
        if let Some(value) = data.get(key) {
            check_duration(key, value)?;
        }
    }
    if let Some(value) = data.get("partitions") {
        check_partitions(value)?;
    }
    match data.get("settings") {
        None | Some(Value::Object(_)) => {}
        Some(other) => return Err(wrong_type("settings", "an object", other)),
    }
    let bucket_name = text(data, "bucket_name")?;
    if let Some(name) = bucket_name {
        check_bucket(name).map_err(|error| invalid("bucket_name", error.to_string()))?;
    }
    let overrides = OVERRIDES.iter().filter_map(|key| data.get(*key).map(|value| ((*key).to_owned(), value.clone())));
    Ok(StartRequest { overrides: overrides.collect(), bucket_name: bucket_name.map(str::to_owned), if_version: None })
}

/// Whole milliseconds within the bounds of all durations.
fn check_duration(key: &str, value: &Value) -> Result<(), Refusal> {
    let Value::Number(number) = value else { return Err(wrong_type(key, "a whole number of milliseconds", value)) };
    let duration = number.as_u64().map(Duration::from_millis);
    if duration.is_some_and(|duration| (DURATION_MIN..=DURATION_MAX).contains(&duration)) {
        return Ok(());
    }
    let (min, max) = (show_duration(DURATION_MIN), show_duration(DURATION_MAX));
    Err(invalid(key, format!("{key} must be a whole number of milliseconds between {min} and {max}")))
}

/// A list of objects of plain values.
fn check_partitions(value: &Value) -> Result<(), Refusal> {
    let Value::Array(all) = value else { return Err(wrong_type("partitions", "an array", value)) };
    if all.is_empty() {
        return Err(invalid("partitions", "partitions is empty: leave it out, or name at least one"));
    }
    for (place, partition) in all.iter().enumerate() {
        let field = format!("partitions[{place}]");
        let Value::Object(values) = partition else { return Err(wrong_type(&field, "an object", partition)) };
        if let Some((key, value)) = values.iter().find(|(_, v)| v.is_null() || v.is_array() || v.is_object()) {
            let key: String = key.chars().take(80).collect();
            return Err(wrong_type(&format!("{field}.{key}"), "a string, a number or a boolean", value));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
