//! `worker:start`: a message's keys over the operator's, within what the operator allows.

use std::path::Path;
use std::sync::Arc;

use adapters::contract::Kind;
use adapters::contract::config::{
    DURATION_MAX, DURATION_MIN, Node, Problem, Problems, SecretSource, Table, Value, nearest_hint,
};
use adapters::http::allows;
use serde_json::Value as Json;

use super::jobs::{JobReader, NEVER_FROM_MESSAGES, lay, lay_key};
use super::{AdapterSettings, Job};

const KEYS: [&str; 6] = ["endpoint", "secret_key", "interval", "timeout", "partitions", "settings"];

/// One reason why a message's settings are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Malformed, unknown or out of range: 400.
    #[error("{message}")]
    Invalid {
        /// The message's key, dotted where it is within one.
        field: String,
        /// What is wrong, what was expected and what to do; no secret.
        message: String,
    },
    /// Sound, but the operator does not allow it: 403.
    #[error("{message}")]
    NotAllowed {
        /// The message's key, dotted where it is within one.
        field: String,
        /// What is not allowed, and who can change that; no secret.
        message: String,
    },
}

impl Refused {
    /// The HTTP status of interface §3.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Invalid { .. } => 400,
            Self::NotAllowed { .. } => 403,
        }
    }

    /// `invalid_value` or `not_allowed`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "invalid_value",
            Self::NotAllowed { .. } => "not_allowed",
        }
    }

    /// The message's key that is refused.
    #[must_use]
    pub fn field(&self) -> &str {
        match self {
            Self::Invalid { field, .. } | Self::NotAllowed { field, .. } => field,
        }
    }
}

/// Lays `overrides` (the keys `endpoint`, `secret_key`, `interval`, `timeout`, `partitions` and `settings` of a start
/// message) over `stream_table` (the stream's own keys in TOML, if it has any) and the adapter, and reads it all again.
///
/// # Errors
/// Every reason to refuse, what is not allowed first; never empty.
pub fn overlay(
    adapter: &AdapterSettings,
    overrides: &serde_json::Map<String, Json>,
    stream_table: Option<&Table>,
    kinds: &[Arc<dyn Kind>],
    secrets: &dyn SecretSource,
) -> Result<Job, Vec<Refused>> {
    let mut message = Message { adapter, secrets, table: adapter.table.clone(), refused: Vec::new() };
    if let Some(own) = stream_table {
        lay(&mut message.table, own);
    }
    for (key, value) in overrides.iter().filter(|(_, value)| !value.is_null()) {
        message.references(key, value);
        message.lay_key(key, value);
    }
    let Message { table, mut refused, .. } = message;
    let problems = Problems::default();
    let reader = JobReader { kinds, secrets, supervision: &adapter.supervision };
    let job = reader.read(&adapter.name, &table, "", &problems).job;
    if refused.is_empty() {
        let wrong = problems.into_sorted().into_iter().filter(|problem| !problem.warning);
        refused.extend(wrong.map(|problem| invalid(problem, overrides)));
    }
    refused.sort_by_key(|reason| matches!(reason, Refused::Invalid { .. }));
    match job {
        Some(job) if refused.is_empty() => Ok(job),
        _ if refused.is_empty() => Err(vec![Refused::Invalid {
            field: "settings".to_owned(),
            message: "the adapter cannot be read with these settings".to_owned(),
        }]),
        _ => Err(refused),
    }
}

/// A message's keys as they come to lie over the adapter's.
struct Message<'a> {
    adapter: &'a AdapterSettings,
    secrets: &'a dyn SecretSource,
    table: Table,
    refused: Vec<Refused>,
}

impl Message<'_> {
    fn lay_key(&mut self, key: &str, value: &Json) {
        match key {
            "endpoint" => self.endpoint(value),
            "secret_key" => self.secret_key(value),
            "interval" | "timeout" => self.duration(key, value),
            "partitions" => {
                let node = self.node(value);
                self.table.set(key, node);
            }
            "settings" => self.settings(value),
            _ => {
                let hint = nearest_hint(key, KEYS.into_iter());
                self.invalid(key, format!("{key} is not a known key; expected one of {}; {hint}", KEYS.join(", ")));
            }
        }
    }

    fn endpoint(&mut self, value: &Json) {
        let Some(asked) = value.as_str() else {
            return self.invalid("endpoint", "endpoint is not a string; expected a URL; quote it".to_owned());
        };
        let key = endpoint_key(&self.adapter.table);
        if self.adapter.table.get(key).and_then(|node| self.written(node)).is_some_and(|own| own == asked) {
            // The operator's own value stays the operator's, with all that he may do.
            return;
        }
        if !allows(&self.adapter.allow.endpoints, asked) {
            let what = "endpoint is neither the adapter's own nor one that allow.endpoints of the adapter covers";
            return self.not_allowed("endpoint", format!("{what}; leave it out or ask the operator to allow it"));
        }
        let node = self.node(value);
        self.table.set(key, node);
    }

    /// What the operator's text is, or leads to.
    fn written(&self, node: &Node) -> Option<String> {
        let Value::String(text) = &node.value else { return None };
        match text.strip_prefix("env:") {
            Some(name) => self.secrets.env(name),
            None => Some(text.clone()),
        }
    }

    fn secret_key(&mut self, value: &Json) {
        if value.as_str().is_none_or(str::is_empty) {
            return self.invalid("secret_key", "secret_key is not text; expected a secret; quote it".to_owned());
        }
        let node = self.node(value);
        if let Some(Value::Table(auth)) = self.table.get("auth").map(|node| &node.value) {
            let kind = auth.get("type").map(|node| &node.value);
            let place = match kind {
                Some(Value::String(kind)) if kind == "bearer" => "token",
                Some(Value::String(kind)) if kind == "basic" => "password",
                _ => "value",
            };
            let own = auth.get(place).map(|node| node.value.clone());
            let mut auth = auth.clone();
            auth.set(place, node.clone());
            let mark = self.table.get("auth").and_then(|node| node.mark.clone());
            self.table.set("auth", Node { value: Value::Table(auth), mark });
            self.budgets(own.as_ref(), &node);
        } else if self.table.get("base_url").is_some() {
            let what =
                "secret_key is given, but the adapter has no auth that could use it; expected none; leave it out";
            self.invalid("secret_key", what.to_owned());
        } else {
            let own = self.table.get("secret_key").map(|node| node.value.clone());
            self.table.set("secret_key", node.clone());
            self.budgets(own.as_ref(), &node);
        }
    }

    /// Budgets that count the adapter's own key count the message's in its place.
    fn budgets(&mut self, own: Option<&Value>, new: &Node) {
        let Some(own) = own else { return };
        let budgets = self.table.entries.iter_mut().find(|entry| entry.key == "budgets");
        let Some(Value::Array(budgets)) = budgets.map(|entry| &mut entry.node.value) else { return };
        for budget in budgets {
            if let Value::Table(budget) = &mut budget.value
                && budget.get("key").is_some_and(|node| node.value == *own)
            {
                budget.set("key", new.clone());
            }
        }
    }

    fn duration(&mut self, key: &str, value: &Json) {
        let range = DURATION_MIN.as_millis()..=DURATION_MAX.as_millis();
        if value.as_u64().is_some_and(|ms| range.contains(&u128::from(ms))) {
            let node = self.node(value);
            return self.table.set(key, node);
        }
        let expected = format!("{} to {}", range.start(), range.end());
        let what = format!("{key} is out of range or no whole number; expected milliseconds from {expected}");
        self.invalid(key, format!("{what}; write \"{key}\": 60000"));
    }

    fn settings(&mut self, value: &Json) {
        let Some(settings) = value.as_object() else {
            return self
                .invalid("settings", "settings is not an object; expected keys of the adapter; use braces".to_owned());
        };
        for (key, value) in settings.iter().filter(|(_, value)| !value.is_null()) {
            let listed = self.adapter.allow.settings.contains(key) && !NEVER_FROM_MESSAGES.contains(&key.as_str());
            if listed {
                let node = self.node(value);
                lay_key(&mut self.table, key, &node);
            } else {
                let field = format!("settings.{key}");
                let what = format!("{field} is not in allow.settings of the adapter");
                self.not_allowed(&field, format!("{what}; leave it out or ask the operator to allow it"));
            }
        }
    }

    /// Refuses references to the operator's secrets that he did not list, wherever they stand.
    fn references(&mut self, field: &str, value: &Json) {
        match value {
            Json::String(text) if is_reference(text) && !self.adapter.allow.secrets.contains(text) => {
                let what = format!("{field} refers to a secret that allow.secrets of the adapter does not list");
                self.not_allowed(field, format!("{what}; send the secret itself or ask the operator to allow it"));
            }
            Json::Array(all) => {
                for (index, item) in all.iter().enumerate() {
                    self.references(&format!("{field}[{index}]"), item);
                }
            }
            Json::Object(object) => {
                for (key, item) in object {
                    self.references(&format!("{field}.{key}"), item);
                }
            }
            _ => {}
        }
    }

    /// The value without a place; files that it refers to are looked up where the operator's are.
    fn node(&self, value: &Json) -> Node {
        let mut node = Node::from_json(value);
        if let Some(folder) = &self.adapter.table.folder {
            set_folder(&mut node, folder);
        }
        node
    }

    fn invalid(&mut self, field: &str, message: String) {
        self.refused.push(Refused::Invalid { field: field.to_owned(), message });
    }

    fn not_allowed(&mut self, field: &str, message: String) {
        self.refused.push(Refused::NotAllowed { field: field.to_owned(), message });
    }
}

fn is_reference(text: &str) -> bool {
    text.starts_with("env:") || text.starts_with("file:")
}

fn set_folder(node: &mut Node, folder: &Arc<Path>) {
    match &mut node.value {
        Value::Table(table) => {
            table.folder = Some(Arc::clone(folder));
            table.entries.iter_mut().for_each(|entry| set_folder(&mut entry.node, folder));
        }
        Value::Array(all) => all.iter_mut().for_each(|item| set_folder(item, folder)),
        _ => {}
    }
}

/// Where the adapter's table has its address.
fn endpoint_key(table: &Table) -> &'static str {
    if table.get("base_url").is_some() { "base_url" } else { "endpoint" }
}

/// A problem of the whole, told in the keys of the message.
fn invalid(problem: Problem, overrides: &serde_json::Map<String, Json>) -> Refused {
    let message = format!("{}; {}; {}", problem.what, problem.expected, problem.remedy);
    let top = problem.field.split(['.', '[']).next().unwrap_or_default();
    let has = |key: &str| overrides.get(key).is_some_and(|value| !value.is_null());
    let in_settings = overrides.get("settings").and_then(|settings| settings.get(top)).is_some();
    let field = match top {
        "base_url" | "endpoint" if has("endpoint") => "endpoint".to_owned(),
        "auth" | "secret_key" | "budgets" if has("secret_key") => "secret_key".to_owned(),
        _ if in_settings => format!("settings.{}", problem.field),
        _ => problem.field,
    };
    // A sound address that only the operator may open.
    if problem.code == "PRIVATE_ADDRESS" {
        Refused::NotAllowed { field, message }
    } else {
        Refused::Invalid { field, message }
    }
}

#[cfg(test)]
mod tests {
    use adapters::contract::Cadence;
    use serde_json::json;

    use super::super::tests::{kinds, load_text, secrets};
    use super::*;

    const TEXT: &str = r#"
[lake]
url = "file:lake"
[adapter.A]
kind = "fake"
base_url = "https://api.example.org/v2"
interval = "1h"
auth = { type = "api_key", value = "env:KEY" }
budgets = [ { key = "env:KEY" }, { key = "other" } ]
allow = { endpoints = ["https://other.example/v2/"], secrets = ["env:KEY", "file:x.key"], settings = ["request", "raw", "restart"] }
[stream."t/s"]
adapter = "A"
partitions = [ { name = "one" } ]
restart = { max_restarts = 2 }
"#;

    fn lay_over(message: &Json) -> Result<Job, Vec<Refused>> {
        let (settings, _) = load_text(TEXT).expect("valid");
        let own = settings.streams.values().next().map(|stream| &stream.table);
        let object = message.as_object().expect("an object");
        overlay(&settings.adapters["A"], object, own, &kinds(), &secrets())
    }

    fn refused(message: &Json) -> (u16, String) {
        let first = lay_over(message).expect_err("refused").remove(0);
        (first.status(), first.field().to_owned())
    }

    #[test]
    fn test_a_message_narrows_the_adapter_and_its_stream() {
        let job = lay_over(&json!({
            "interval": 60_000, "partitions": [{"name": "x"}, {"name": "y"}], "secret_key": "literal", "timeout": null,
            "settings": {"raw": "off", "restart": {"max_seconds": 9}, "request": {"path": "/x"}},
            "endpoint": "https://other.example/v2/city",
        }));
        let job = job.expect("allowed");
        assert_eq!(job.mount.partitions().len(), 2);
        assert!(!job.raw_kept);
        assert_eq!((job.restart.max_restarts, job.restart.window.as_secs()), (2, 9));
        assert_eq!(job.mount.cadence(), Cadence::Continuous);
    }

    #[test]
    fn test_an_empty_message_is_the_stream_as_the_operator_wrote_it() {
        let job = lay_over(&json!({})).expect("allowed");
        assert_eq!(job.mount.partitions()[0].name, "one");
        assert_eq!(job.restart.max_restarts, 2);
    }

    #[test]
    fn test_what_the_operator_does_not_allow_is_forbidden() {
        for (message, field) in [
            (json!({"endpoint": "https://evil.example/v2"}), "endpoint"),
            (json!({"endpoint": "https://other.example/v22"}), "endpoint"),
            (json!({"endpoint": "https://other.example:444/v2/"}), "endpoint"),
            (json!({"endpoint": "http://other.example/v2/"}), "endpoint"),
            (json!({"endpoint": "https://u@other.example/v2/"}), "endpoint"),
            (json!({"endpoint": "https://other.example/v2/../x"}), "endpoint"),
            (json!({"endpoint": "file:///etc/passwd"}), "endpoint"),
            (json!({"secret_key": "env:OTHER"}), "secret_key"),
            (json!({"secret_key": "file:/etc/shadow"}), "secret_key"),
            (json!({"partitions": [{"name": "a"}, {"name": "env:HOME"}]}), "partitions[1].name"),
            (json!({"settings": {"request": {"path": "env:HOME"}}}), "settings.request.path"),
            (json!({"settings": {"network": {"allow_private": true}}}), "settings.network"),
            (json!({"settings": {"interval": 5}}), "settings.interval"),
            (json!({"intervall": 5, "settings": {"kind": "x"}}), "settings.kind"),
        ] {
            assert_eq!(refused(&message), (403, field.to_owned()), "{message}");
        }
    }

    #[test]
    fn test_malformed_values_are_invalid_and_named_in_the_messages_keys() {
        for (message, field) in [
            (json!({"intervall": 60_000}), "intervall"),
            (json!({"interval": 5}), "interval"),
            (json!({"interval": -1}), "interval"),
            (json!({"interval": 10.5}), "interval"),
            (json!({"interval": "1h"}), "interval"),
            (json!({"timeout": u64::MAX}), "timeout"),
            (json!({"endpoint": 1}), "endpoint"),
            (json!({"secret_key": ""}), "secret_key"),
            (json!({"settings": []}), "settings"),
            (json!({"settings": {"raw": "maybe"}}), "settings.raw"),
            (json!({"settings": {"request": {"pfad": "/"}}}), "settings.request.pfad"),
            (json!({"partitions": "x"}), "partitions"),
            (json!({"partitions": [{"name": 1.5}]}), "partitions[0].name"),
        ] {
            assert_eq!(refused(&message), (400, field.to_owned()), "{message}");
        }
    }

    #[test]
    fn test_listed_secrets_and_the_operators_own_endpoint_are_allowed() {
        lay_over(&json!({"secret_key": "env:KEY"})).expect("listed");
        lay_over(&json!({"endpoint": "https://api.example.org/v2"})).expect("the adapter's own");
        // Listed, looked up beside the operator's file, and not there.
        assert_eq!(refused(&json!({"secret_key": "file:x.key"})), (400, "secret_key".to_owned()));
    }

    #[test]
    fn test_a_secret_never_stands_in_a_refusal() {
        let refused = lay_over(&json!({"secret_key": "hunter2", "interval": 1, "settings": {"x": "hunter2"}}));
        assert!(!format!("{:?}", refused.expect_err("refused")).contains("hunter2"));
    }
}
