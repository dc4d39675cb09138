//! Readers of the keys that every polled HTTP kind has: `interval`, `timeout`, `jitter`, `network`, the endpoint,
//! `budgets`, `partitions`. Each reports all that is wrong and gives `None` then.

use std::collections::{BTreeMap, BTreeSet};

use url::Url;

use super::budget::{BudgetRule, Window};
use super::guard::{Reach, check_url, is_loopback};
use super::settings::{Network, Schedule};
use crate::contract::Partition;
use crate::contract::config::{Entry, Reader, Value, parse_duration};
use crate::json::Path;

/// The largest `network.max_body`: a body is held in memory whole.
const MAX_BODY_MAX: u64 = 256 << 20;

/// More redirects for one page are a loop.
const REDIRECTS_MAX: i64 = 10;

/// Budgets of one adapter; each is asked at each request.
const BUDGETS_MAX: usize = 16;

/// Partitions of one stream.
const PARTITIONS_MAX: usize = 100_000;

/// Reads `interval`, `timeout` and `jitter`.
pub fn schedule(reader: &Reader<'_>) -> Option<Schedule> {
    let (timeout, jitter) = (reader.duration("timeout"), reader.duration("jitter"));
    let bad = (timeout.is_none() && reader.has("timeout")) || (jitter.is_none() && reader.has("jitter"));
    if !reader.has("interval") {
        reader.missing("interval", "the time from one poll's start to the next", "\"1h\"");
    }
    let interval = reader.duration("interval")?;
    if bad {
        return None;
    }
    Some(Schedule { interval, jitter: jitter.unwrap_or_default(), timeout: timeout.unwrap_or(interval) })
}

/// Reads `network`.
pub fn network(reader: &Reader<'_>) -> Option<Network> {
    let mut network = Network::default();
    if !reader.has("network") {
        reader.node("network");
        return Some(network);
    }
    let section = reader.section("network")?;
    let mut good = true;
    for (key, slot) in [("https_only", &mut network.https_only), ("allow_private", &mut network.allow_private)] {
        match section.boolean(key) {
            Some(value) => *slot = value,
            None => good &= !section.has(key),
        }
    }
    match section.integer("max_redirects", 0, REDIRECTS_MAX) {
        Some(value) => network.max_redirects = u32::try_from(value).unwrap_or(0),
        None => good &= !section.has("max_redirects"),
    }
    match section.size("max_body", 1024, MAX_BODY_MAX) {
        Some(value) => network.max_body = usize::try_from(value).unwrap_or(network.max_body),
        None => good &= !section.has("max_body"),
    }
    section.finish();
    good.then_some(network)
}

/// Reads the URL under `key`, and whether the operator wrote it.
pub fn endpoint(reader: &Reader<'_>, key: &str, network: Network, example: &str) -> Option<(Url, bool)> {
    let text = reader.string_required(key, "the URL of the source", &format!("\"{example}\""))?;
    let trusted = reader.node(key).is_some_and(|node| node.mark.is_some());
    let field = reader.path_of(key);
    let wrong = |code, what: &str, expected: &str| {
        reader.wrong(key, code, format!("{field} {what}"), expected.to_owned(), format!("write {key} = \"{example}\""));
        None
    };
    let Ok(mut url) = Url::parse(&text) else {
        return wrong("INVALID_URL", "is not a URL", "expected http:// or https://, a host and a path");
    };
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return wrong("INVALID_URL", "is not an http or https URL", "expected http:// or https://, a host and a path");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return wrong("URL_WITH_USER_INFO", "holds a user name or password", "expected credentials in auth only");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return wrong("INVALID_URL", "has a query or a fragment", "expected a URL that ends with its path");
    }
    if network.https_only && url.scheme() != "https" {
        return wrong("PLAIN_HTTP", "is plain http though network.https_only is set", "expected https://");
    }
    let reach = Reach { private: trusted || network.allow_private, metadata: trusted };
    if let Err(denied) = check_url(&url, reach) {
        reader.wrong(
            key,
            "PRIVATE_ADDRESS",
            format!("{field} leads to {}", denied.kind),
            "expected a public address in a message",
            "use a public endpoint, or have the operator set network.allow_private",
        );
        return None;
    }
    url.set_fragment(None);
    Some((url, trusted))
}

/// Warns where a secret would travel unencrypted beyond this machine.
pub fn warn_in_clear(reader: &Reader<'_>, key: &str, url: &Url) {
    if url.scheme() == "http" && !is_loopback(url) {
        reader.warn(
            key,
            "SECRET_IN_CLEAR",
            format!("{} is plain http and a secret is sent to it", reader.path_of(key)),
            "expected https:// beyond loopback",
            "use https://, and set network.https_only = true to be sure",
        );
    }
}

/// Reads `budgets`.
pub fn budgets(reader: &Reader<'_>) -> Option<Vec<BudgetRule>> {
    let Some(node) = reader.node("budgets") else { return Some(Vec::new()) };
    let sections = reader.sections("budgets");
    let Value::Array(all) = &node.value else { return None };
    let mut good = all.len() == sections.len();
    if sections.len() > BUDGETS_MAX {
        reader.wrong(
            "budgets",
            "OUT_OF_RANGE",
            format!("{} has {} entries", reader.path_of("budgets"), sections.len()),
            format!("expected at most {BUDGETS_MAX}"),
            "keep the strictest",
        );
        good = false;
    }
    let mut rules = Vec::with_capacity(sections.len());
    for section in sections {
        let rule = budget(&section);
        section.finish();
        good &= rule.is_some();
        rules.extend(rule);
    }
    good.then_some(rules)
}

fn budget(section: &Reader<'_>) -> Option<BudgetRule> {
    for (key, expected, example) in [
        ("key", "the secret whose requests are counted", "\"env:KEY\""),
        ("limit", "the number of requests", "10000"),
        ("per", "a duration or calendar_month", "\"1m\""),
    ] {
        if !section.has(key) {
            section.missing(key, expected, example);
        }
    }
    let key = section.secret("key");
    let limit = section.integer("limit", 1, 1_000_000_000);
    let per = if section.has("per") { section.string("per") } else { None };
    let per = per.and_then(|text| match text.as_str() {
        "calendar_month" => Some(Window::CalendarMonth),
        _ => match parse_duration(&text).filter(|span| !span.is_zero()) {
            Some(span) => {
                // Within the bounds of all durations.
                section.duration("per").map(|_| Window::Span(span))
            }
            None => {
                let what = format!("{} is {text:?}", section.path_of("per"));
                let expected = "expected a duration or calendar_month";
                section.wrong(
                    "per",
                    "INVALID_DURATION",
                    what,
                    expected,
                    "write per = \"1m\" or per = \"calendar_month\"",
                );
                None
            }
        },
    });
    Some(BudgetRule { key: key?.fingerprint(), limit: u64::try_from(limit?).ok()?, per: per? })
}

/// Reads `partitions`; the one partition `main` where there are none.
pub fn partitions(reader: &Reader<'_>) -> Option<Vec<Partition>> {
    let Some(node) = reader.node("partitions") else { return Some(vec![Partition::main()]) };
    let sections = reader.sections("partitions");
    let field = reader.path_of("partitions");
    let Value::Array(all) = &node.value else { return None };
    let mut good = all.len() == sections.len();
    if all.is_empty() || all.len() > PARTITIONS_MAX {
        let expected = format!("expected 1 to {PARTITIONS_MAX}");
        let what = format!("{field} has {} entries", all.len());
        reader.wrong("partitions", "OUT_OF_RANGE", what, expected, "add one, or leave the key out");
        return None;
    }
    let mut names = BTreeSet::new();
    let mut partitions = Vec::with_capacity(sections.len());
    for section in sections {
        let mut values = BTreeMap::new();
        let mut whole = true;
        for entry in section.entries() {
            match partition_value(&section, entry) {
                Some(value) => drop(values.insert(entry.key.clone(), value)),
                None => whole = false,
            }
        }
        good &= whole;
        let partition = Partition::from_values(values);
        // One whose values could not be read has no name yet.
        if whole && !names.insert(partition.name.clone()) {
            reader.wrong(
                "partitions",
                "DUPLICATE_PARTITION",
                format!("{field} has two partitions called {}", partition.name),
                "expected unique names",
                "remove one, or give each a name",
            );
            good = false;
        }
        partitions.push(partition);
        section.finish();
    }
    good.then_some(partitions)
}

fn partition_value(section: &Reader<'_>, entry: &Entry) -> Option<String> {
    let key = &entry.key;
    match &entry.node.value {
        Value::String(text) if text.starts_with("env:") || text.starts_with("file:") => {
            section.wrong(
                key,
                "INVALID_VALUE",
                format!("{} refers to a secret", section.path_of(key)),
                "expected a plain value: names of partitions are stored",
                "put the secret into auth or request.headers",
            );
            None
        }
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(Partition::number(*number)),
        Value::Bool(value) => Some(value.to_string()),
        other => {
            let what = format!("{} is {}", section.path_of(key), other.type_name());
            section.wrong(key, "WRONG_TYPE", what, "expected a string, a number or a boolean", "write a plain value");
            None
        }
    }
}

/// Reads a path below `key`: to the records (`$.data`) or, with `field`, within a record (`id`).
pub fn path(reader: &Reader<'_>, key: &str, text: &str, field: bool) -> Option<Path> {
    let (parsed, example) = if field { (Path::parse_field(text), "id") } else { (Path::parse(text), "$.data") };
    match parsed {
        Ok(path) => Some(path),
        Err(why) => {
            let what = format!("{} is {text:?}: {why}", reader.path_of(key));
            let expected = if field { "expected a field's name" } else { "expected a path such as $.data" };
            reader.wrong(key, "INVALID_PATH", what, expected, format!("write {key} = \"{example}\""));
            None
        }
    }
}
