//! The keys of `kind = "http_poll"`.

use std::sync::Arc;

use reqwest::header::HeaderName;

use super::request;
use crate::contract::ErrorClass;
use crate::contract::config::Reader;
use crate::http::read::{budgets, endpoint, network, partitions, path, schedule, warn_in_clear};
use crate::http::{Action, Auth, CursorSpec, HttpSettings, NextLink, Pattern, Records, Rule};

/// Rules of one adapter; each may look at each response.
const RULES_MAX: usize = 64;

/// What `records` says.
struct RecordKeys {
    select: String,
    records: Records,
    event_time: Option<String>,
}

/// Everything, with the texts of `select` and `event_time` for the decoder.
pub(super) fn settings(adapter: &Reader<'_>) -> Option<(HttpSettings, String, Option<String>)> {
    let schedule = schedule(adapter);
    let network = network(adapter);
    let base = endpoint(adapter, "base_url", network.unwrap_or_default(), "https://api.example.org");
    let auth = auth(adapter);
    let budgets = budgets(adapter);
    let cursor = cursor(adapter);
    let next = next(adapter);
    let partitions = partitions(adapter);
    let request = request::read(adapter, partitions.as_deref(), cursor.as_ref().is_none_or(Option::is_some));
    let keys = records(adapter);
    let rules = rules(adapter);
    if let (Some((url, _)), Some(auth)) = (&base, &auth) {
        let secret_value = request.as_ref().is_some_and(request::has_secrets);
        if auth.secret().is_some() || secret_value {
            warn_in_clear(adapter, "base_url", url);
        }
    }
    let ((base, origin_trusted), keys) = (base?, keys?);
    let settings = HttpSettings {
        kind: super::NAME,
        base,
        origin_trusted,
        schedule: schedule?,
        network: network?,
        auth: auth?,
        budgets: budgets?,
        request: request?,
        records: Arc::new(Records { cursor: cursor?, ..keys.records }),
        next: next?,
        rules: rules?.into(),
        partitions: partitions?,
    };
    Some((settings, keys.select, keys.event_time))
}

/// Reads `key` as a header's name.
pub(super) fn header_name(reader: &Reader<'_>, key: &str, text: &str) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(text.as_bytes()).ok();
    if name.is_none() {
        let what = format!("{} names the header {text:?}", reader.path_of(key));
        reader.wrong(key, "INVALID_VALUE", what, "expected a header's name", "use letters, digits and - only");
    }
    name
}

fn auth(adapter: &Reader<'_>) -> Option<Auth> {
    if adapter.node("auth").is_none() {
        return Some(Auth::Open);
    }
    let section = adapter.section("auth")?;
    let auth = auth_of(&section);
    section.finish();
    auth
}

fn auth_of(section: &Reader<'_>) -> Option<Auth> {
    /// The choices of `type`.
    #[derive(Clone, Copy)]
    enum Type {
        ApiKey,
        Bearer,
        Basic,
    }
    let choices = [("api_key", Type::ApiKey), ("bearer", Type::Bearer), ("basic", Type::Basic)];
    if !section.has("type") {
        section.missing("type", "api_key, bearer or basic", "\"bearer\"");
    }
    let secret = |key: &str| {
        if !section.has(key) {
            section.missing(key, "a secret", "\"env:NAME\"");
        }
        section.secret(key)
    };
    match section.choice("type", &choices) {
        None => {
            // So that finish() does not call the others unknown.
            for key in ["in", "name", "value", "token", "username", "password"] {
                section.node(key);
            }
            None
        }
        Some(Type::Bearer) => Some(Auth::Bearer { token: secret("token")? }),
        Some(Type::Basic) => {
            let (username, password) = (secret("username"), secret("password"));
            Some(Auth::Basic { username: username?, password: password? })
        }
        Some(Type::ApiKey) => {
            if !section.has("in") {
                section.missing("in", "query or header", "\"query\"");
            }
            let in_query = section.choice("in", &[("query", true), ("header", false)]);
            let name = section.string_required("name", "the name of the parameter or header", "\"key\"");
            let value = secret("value");
            let (in_query, name, value) = (in_query?, name?, value?);
            if in_query {
                return Some(Auth::Query { name, value });
            }
            Some(Auth::Header { name: header_name(section, "name", &name)?, value })
        }
    }
}

/// `Some(None)` where there is no cursor.
fn cursor(adapter: &Reader<'_>) -> Option<Option<CursorSpec>> {
    if adapter.node("cursor").is_none() {
        return Some(None);
    }
    let section = adapter.section("cursor")?;
    let field = section.string_required("field", "the field whose value grows", "\"id\"");
    let field = field.and_then(|text| path(&section, "field", &text, true));
    let start = section.string_required("start", "the value of {cursor} before the first record", "\"0\"");
    section.finish();
    Some(Some(CursorSpec { field: field?, start: start? }))
}

/// `Some(None)` where pages are not followed.
fn next(adapter: &Reader<'_>) -> Option<Option<NextLink>> {
    if adapter.node("next").is_none() {
        return Some(None);
    }
    let section = adapter.section("next")?;
    let (body, header) = (section.node("body").is_some(), section.node("header").is_some());
    let link = match (body, header) {
        (true, false) => {
            let text = section.string("body");
            text.and_then(|text| path(&section, "body", &text, false)).map(NextLink::Body)
        }
        (false, true) => {
            let text = section.string("header");
            text.and_then(|text| header_name(&section, "header", &text)).map(NextLink::Header)
        }
        (both, _) => {
            let what = if both { "has body and header" } else { "has neither body nor header" };
            let what = format!("{} {what}", adapter.path_of("next"));
            adapter.wrong("next", "INVALID_VALUE", what, "expected one of them", "write next = { body = \"$.next\" }");
            None
        }
    };
    section.finish();
    Some(Some(link?))
}

fn records(adapter: &Reader<'_>) -> Option<RecordKeys> {
    let root = || path(adapter, "records", "$", false);
    if adapter.node("records").is_none() {
        let records = Records { select: root()?, key: Vec::new(), event_time: None, content: Vec::new(), cursor: None };
        return Some(RecordKeys { select: "$".to_owned(), records, event_time: None });
    }
    let section = adapter.section("records")?;
    let text = section.string("select");
    let select_good = text.is_some() || !section.has("select");
    let text = text.unwrap_or_else(|| "$".to_owned());
    let select = path(&section, "select", &text, false).filter(|_| select_good);
    let keys = section.strings("key");
    let key_good = keys.is_some() || !section.has("key");
    let keys: Vec<_> = keys.unwrap_or_default().iter().map(|field| path(&section, "key", field, true)).collect();
    let key: Option<Vec<_>> = keys.into_iter().collect::<Option<Vec<_>>>().filter(|_| key_good);
    let time_text = section.string("event_time");
    let time_good = time_text.is_some() || !section.has("event_time");
    let event_time = time_text.as_ref().map(|text| path(&section, "event_time", text, true));
    section.finish();
    let event_time = match event_time {
        Some(path) => Some(path?),
        None if time_good => None,
        None => return None,
    };
    let records = Records { select: select?, key: key?, event_time, content: Vec::new(), cursor: None };
    Some(RecordKeys { select: text, records, event_time: time_text })
}

fn rules(adapter: &Reader<'_>) -> Option<Vec<Rule>> {
    let Some(node) = adapter.node("on_response") else { return Some(Vec::new()) };
    let sections = adapter.sections("on_response");
    let count = match &node.value {
        crate::contract::config::Value::Array(all) => all.len(),
        _ => return None,
    };
    let mut good = count == sections.len();
    if count > RULES_MAX {
        let what = format!("{} has {count} rules", adapter.path_of("on_response"));
        adapter.wrong("on_response", "OUT_OF_RANGE", what, format!("expected at most {RULES_MAX}"), "join some");
        good = false;
    }
    let mut rules = Vec::with_capacity(count);
    for section in sections {
        let rule = rule(&section, rules.len());
        section.finish();
        good &= rule.is_some();
        rules.extend(rule);
    }
    good.then_some(rules)
}

fn rule(section: &Reader<'_>, index: usize) -> Option<Rule> {
    let actions = [
        ("retry", Action::Retry),
        ("rate_limited", Action::RateLimited),
        ("park", Action::Park),
        ("ignore", Action::Ignore),
        ("fail", Action::Fail),
    ];
    if !section.has("action") {
        section.missing("action", "retry, rate_limited, park, ignore or fail", "\"retry\"");
    }
    let status = statuses(section);
    let body = body_condition(section);
    let action = section.choice("action", &actions);
    let wait = section.duration("wait");
    let wait_good = wait.is_some() || !section.has("wait");
    let class = class(section, action);
    if !section.has("status") && !section.has("body") {
        let what = format!("{} has neither status nor body", section.path_of("action"));
        let expected = "expected a condition";
        section.wrong("action", "INVALID_VALUE", what, expected, "add status = [404], or body = { path, matches }");
        return None;
    }
    let (status, body, action, class) = (status?, body?, action?, class?);
    let waits = matches!(action, Action::Retry | Action::RateLimited);
    if wait.is_some() && !waits {
        let what = format!("{} is set, but the action does not wait", section.path_of("wait"));
        section.wrong("wait", "INVALID_VALUE", what, "expected it with retry or rate_limited only", "remove it");
        return None;
    }
    let code = format!("on_response_{index}");
    wait_good.then_some(Rule {
        status,
        body,
        action,
        wait,
        class,
        code,
        wait_guessed: false,
        suspect_when_throttled: false,
    })
}

fn statuses(section: &Reader<'_>) -> Option<Vec<u16>> {
    use crate::contract::config::Value;
    let Some(node) = section.node("status") else { return Some(Vec::new()) };
    let items = match &node.value {
        Value::Array(all) => all.iter().map(|item| &item.value).collect(),
        single => vec![single],
    };
    let status = |value: &Value| match value {
        Value::Integer(status @ 100..=599) => u16::try_from(*status).ok(),
        _ => None,
    };
    let read: Option<Vec<u16>> = items.into_iter().map(status).collect();
    let read = read.filter(|all| !all.is_empty());
    if read.is_none() {
        let what = format!("{} is not a list of statuses", section.path_of("status"));
        section.wrong("status", "INVALID_VALUE", what, "expected numbers from 100 to 599", "write status = [400, 404]");
    }
    read
}

/// `Some(None)` where the body does not matter.
#[allow(clippy::option_option, reason = "absent and wrong are different things")]
fn body_condition(section: &Reader<'_>) -> Option<Option<(crate::json::Path, Pattern)>> {
    if section.node("body").is_none() {
        return Some(None);
    }
    let body = section.section("body")?;
    let at = body.string_required("path", "where in the body the text stands", "\"$.error\"");
    let at = at.and_then(|text| path(&body, "path", &text, false));
    let matches = body.string_required("matches", "a regular expression", "\"not_found\"");
    let pattern = matches.and_then(|text| match Pattern::new(&text) {
        Ok(pattern) => Some(pattern),
        Err(why) => {
            let what = format!("{} is {text:?}: {why}", body.path_of("matches"));
            body.wrong("matches", "INVALID_PATTERN", what, "expected a regular expression", "escape . and ( with \\\\");
            None
        }
    });
    body.finish();
    Some(Some((at?, pattern?)))
}

/// `Some(None)` where the action's own class is meant.
#[allow(clippy::option_option, reason = "absent and wrong are different things")]
fn class(section: &Reader<'_>, action: Option<Action>) -> Option<Option<ErrorClass>> {
    if section.node("class").is_none() {
        return Some(None);
    }
    let parks = [("config", ErrorClass::Config), ("auth", ErrorClass::Auth)];
    let all = [parks[0], parks[1], ("transient", ErrorClass::Transient), ("data", ErrorClass::Data)];
    let class =
        if action == Some(Action::Park) { section.choice("class", &parks) } else { section.choice("class", &all) };
    Some(Some(class?))
}
