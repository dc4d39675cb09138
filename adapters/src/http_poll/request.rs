//! `request`: templates, and whether every placeholder in them can be filled.

use std::collections::BTreeSet;

use reqwest::Method;

use super::read::header_name;
use crate::contract::Partition;
use crate::contract::config::{Entry, Reader, Value};
use crate::http::{RequestTemplate, Template, Text};

/// Parameters or headers of one request.
const PAIRS_MAX: usize = 64;

/// Reads `request`. `partitions` is `None` where they were wrong already; `cursor` says whether `{cursor}` is known.
pub(super) fn read(adapter: &Reader<'_>, partitions: Option<&[Partition]>, cursor: bool) -> Option<RequestTemplate> {
    if adapter.node("request").is_none() {
        return Some(RequestTemplate::bare());
    }
    let section = adapter.section("request")?;
    let known = Known { partitions, cursor };
    let method = section.choice("method", &[("GET", ()), ("POST", ())]).map(|()| section.string("method"));
    let method_good = method.is_some() || !section.has("method");
    let method = if method.flatten().as_deref() == Some("POST") { Method::POST } else { Method::GET };
    let path = path(&section, &known);
    let query = pairs(&section, "query", &known);
    let headers = pairs(&section, "headers", &known);
    let headers = headers.and_then(|pairs| {
        let named = pairs.into_iter().map(|(name, text)| Some((header_name(&section, "headers", &name)?, text)));
        named.collect::<Option<Vec<_>>>()
    });
    section.finish();
    let request = RequestTemplate { method, path: path?, query: query?, headers: headers? };
    method_good.then_some(request)
}

/// Whether a followed secret reference is sent.
pub(super) fn has_secrets(request: &RequestTemplate) -> bool {
    let texts = request.query.iter().map(|(_, text)| text).chain(request.headers.iter().map(|(_, text)| text));
    texts.into_iter().any(|text| matches!(text, Text::Secret(_)))
}

/// The placeholders that can be filled.
struct Known<'p> {
    partitions: Option<&'p [Partition]>,
    cursor: bool,
}

impl Known<'_> {
    /// Reads a template and reports the placeholders that cannot be filled.
    fn template(&self, reader: &Reader<'_>, key: &str, text: &str) -> Option<Template> {
        let template = match Template::parse(text) {
            Ok(template) => template,
            Err(why) => return self.unknown(reader, key, &why),
        };
        if template.has_cursor() && !self.cursor {
            return self.unknown(reader, key, "{cursor} is used, but there is no cursor");
        }
        for partition in self.partitions.unwrap_or_default() {
            if let Some(missing) = template.part_keys().find(|name| !partition.values.contains_key(*name)) {
                let why = format!("the partition {} has no {missing} for {{part.{missing}}}", partition.name);
                return self.unknown(reader, key, &why);
            }
        }
        Some(template)
    }

    fn unknown(&self, reader: &Reader<'_>, key: &str, why: &str) -> Option<Template> {
        let mut names: BTreeSet<String> = BTreeSet::new();
        for partition in self.partitions.unwrap_or_default() {
            names.extend(partition.values.keys().map(|name| format!("{{part.{name}}}")));
        }
        if self.cursor {
            names.insert("{cursor}".to_owned());
        }
        let expected = match names.len() {
            0 => "no placeholder is known here".to_owned(),
            _ => format!("expected {}", names.into_iter().collect::<Vec<_>>().join(", ")),
        };
        let what = format!("{} cannot be filled in: {why}", reader.path_of(key));
        reader.wrong(key, "UNKNOWN_PLACEHOLDER", what, expected, "correct the name, or write {{ for a plain brace");
        None
    }
}

fn path(section: &Reader<'_>, known: &Known<'_>) -> Option<Template> {
    if section.node("path").is_none() {
        return Some(Template::literal(""));
    }
    let text = section.string("path")?;
    let wrong = |what: &str, expected: &str| {
        let what = format!("{} {what}", section.path_of("path"));
        section.wrong("path", "INVALID_VALUE", what, expected.to_owned(), "write path = \"/feed\"");
        None
    };
    if text.contains(['?', '#']) {
        return wrong("holds a query or a fragment", "expected parameters in query");
    }
    if crate::http::climbs(&text) {
        return wrong("has a segment . or ..", "expected a path below base_url");
    }
    if !text.is_empty() && !text.starts_with('/') {
        return wrong("does not start with /", "expected a path such as /feed");
    }
    known.template(section, "path", &text)
}

/// Reads a table of free names whose values are templates or secrets.
fn pairs(section: &Reader<'_>, key: &str, known: &Known<'_>) -> Option<Vec<(String, Text)>> {
    if section.node(key).is_none() {
        return Some(Vec::new());
    }
    let table = section.section(key)?;
    let mut good = true;
    let mut pairs = Vec::new();
    for entry in table.entries() {
        match value(&table, entry, known) {
            Some(text) => pairs.push((entry.key.clone(), text)),
            None => good = false,
        }
    }
    if pairs.len() > PAIRS_MAX {
        let what = format!("{} has {} entries", section.path_of(key), pairs.len());
        section.wrong(key, "OUT_OF_RANGE", what, format!("expected at most {PAIRS_MAX}"), "remove some");
        good = false;
    }
    table.finish();
    good.then_some(pairs)
}

fn value(table: &Reader<'_>, entry: &Entry, known: &Known<'_>) -> Option<Text> {
    let text = match &entry.node.value {
        // A query or header that is a plain number or boolean is as good as its text.
        Value::Integer(number) => number.to_string(),
        Value::Bool(value) => value.to_string(),
        Value::String(text) if text.starts_with("env:") || text.starts_with("file:") => {
            return table.secret(&entry.key).map(Text::Secret);
        }
        Value::String(text) => text.clone(),
        other => {
            let what = format!("{} is {}", table.path_of(&entry.key), other.type_name());
            table.wrong(&entry.key, "WRONG_TYPE", what, "expected a string", format!("write {} = \"…\"", entry.key));
            return None;
        }
    };
    known.template(table, &entry.key, &text).map(Text::Template)
}
