//! Reads a table key by key and collects what is wrong.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use super::problem::{Problem, Problems, nearest, nearest_hint, show_key};
use super::units::{DURATION_MAX, DURATION_MIN, parse_duration, parse_size, show_duration, show_size};
use super::{Entry, Mark, Node, Secret, SecretSource, Table, Value};

/// Enough of a wrong value to recognise it.
const SHOWN_CHARS_MAX: usize = 80;

/// Reads one table. Each method asks for one key; [`Reader::finish`] reports the keys nobody asked for.
#[derive(Debug)]
pub struct Reader<'a> {
    table: &'a Table,
    path: String,
    asked: RefCell<BTreeSet<String>>,
    problems: &'a Problems,
    secrets: &'a dyn SecretSource,
}

impl<'a> Reader<'a> {
    /// A reader of `table`, whose fields are named below `path`.
    pub fn new(
        table: &'a Table,
        path: impl Into<String>,
        problems: &'a Problems,
        secrets: &'a dyn SecretSource,
    ) -> Self {
        Self { table, path: path.into(), asked: RefCell::default(), problems, secrets }
    }

    /// The dotted path of `key`.
    #[must_use]
    pub fn path_of(&self, key: &str) -> String {
        let key = show_key(key);
        if self.path.is_empty() { key } else { format!("{}.{key}", self.path) }
    }

    /// The table read.
    #[must_use]
    pub fn table(&self) -> &'a Table {
        self.table
    }

    /// Where `key` stands, else the table's header.
    #[must_use]
    pub fn mark_of(&self, key: &str) -> Option<Mark> {
        let entry = self.table.entries.iter().find(|entry| entry.key == key);
        entry.and_then(|e| e.node.mark.clone().or_else(|| e.mark.clone())).or_else(|| self.table.header.clone())
    }

    /// Reports that `key` is wrong, at its value.
    pub fn wrong(
        &self,
        key: &str,
        code: &'static str,
        what: impl Into<String>,
        expected: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.report(self.mark_of(key), code, self.path_of(key), what.into(), expected.into(), remedy.into(), false);
    }

    /// Like [`Reader::wrong`], but the start goes on.
    pub fn warn(
        &self,
        key: &str,
        code: &'static str,
        what: impl Into<String>,
        expected: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.report(self.mark_of(key), code, self.path_of(key), what.into(), expected.into(), remedy.into(), true);
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of one problem")]
    fn report(
        &self,
        mark: Option<Mark>,
        code: &'static str,
        field: String,
        what: String,
        expected: String,
        remedy: String,
        warning: bool,
    ) {
        self.problems.push(Problem { mark, code, field, what, expected, remedy, warning });
    }

    fn wrong_type(&self, key: &str, node: &Node, expected: &str, example: &str) {
        let what = format!("{} is {}", self.path_of(key), node.value.type_name());
        self.wrong(key, "WRONG_TYPE", what, format!("expected {expected}"), format!("write it like {key} = {example}"));
    }

    /// The node of `key`, marked as asked for.
    pub fn node(&self, key: &str) -> Option<&'a Node> {
        self.asked.borrow_mut().insert(key.to_owned());
        self.table.get(key)
    }

    /// Whether `key` is there; does not count as asking.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.table.get(key).is_some()
    }

    /// Reports that a required key is missing, at the table's header.
    pub fn missing(&self, key: &str, expected: &str, example: &str) {
        self.asked.borrow_mut().insert(key.to_owned());
        let field = self.path_of(key);
        let what = format!("{field} is missing");
        self.report(
            self.table.header.clone(),
            "MISSING_KEY",
            field,
            what,
            format!("expected {expected}"),
            format!("add {key} = {example}"),
            false,
        );
    }

    /// Follows `env:` and `file:` references.
    fn resolve(&self, key: &str, text: &str) -> Option<Secret> {
        if let Some(name) = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) {
            let what = format!("{} is {text:?}, which nothing fills in", self.path_of(key));
            let remedy = format!("write {key} = \"env:{name}\"");
            self.wrong(key, "NOT_A_REFERENCE", what, "expected env:NAME or file:PATH", remedy);
            return None;
        }
        let (found, what, expected, remedy) = if let Some(name) = text.strip_prefix("env:") {
            let what = format!("the environment variable {name}, which is not set");
            let remedy = format!("set {name} or correct the name");
            (self.secrets.env(name), what, "expected a variable of the environment", remedy)
        } else if let Some(path) = text.strip_prefix("file:") {
            let full = self.table.folder.as_deref().unwrap_or_else(|| Path::new("")).join(path);
            let found = self.secrets.file(&full);
            let why = found.as_ref().err().map_or("", String::as_str);
            let what = format!("the file {path}, which cannot be read: {why}");
            (found.ok(), what, "expected a readable file", "create the file or correct the path".to_owned())
        } else {
            return Some(Secret::literal(text));
        };
        if found.is_none() {
            let what = format!("{} refers to {what}", self.path_of(key));
            self.wrong(key, "SECRET_NOT_FOUND", what, expected, remedy);
        }
        found.map(|value| Secret::resolved(value, text))
    }

    /// A secret: a literal or a resolved reference.
    pub fn secret(&self, key: &str) -> Option<Secret> {
        let secret = self.reference(key)?;
        self.secrets.used(secret.reveal());
        Some(secret)
    }

    /// The same, of something that may be seen: the [`SecretSource`] is not told that it is used.
    pub fn reference(&self, key: &str) -> Option<Secret> {
        let node = self.node(key)?;
        match &node.value {
            Value::String(text) if text.is_empty() => {
                self.wrong(
                    key,
                    "INVALID_VALUE",
                    format!("{} is empty", self.path_of(key)),
                    "expected a secret",
                    format!("write {key} = \"env:NAME\""),
                );
                None
            }
            Value::String(text) => {
                let secret = self.resolve(key, text)?;
                if secret.reveal().is_empty() {
                    self.wrong(
                        key,
                        "SECRET_NOT_FOUND",
                        format!("{} leads to an empty secret", self.path_of(key)),
                        "expected a secret",
                        "fill it or correct the reference",
                    );
                    return None;
                }
                Some(secret)
            }
            _ => {
                self.wrong_type(key, node, "a string", "\"env:NAME\"");
                None
            }
        }
    }

    /// Text; references are followed.
    pub fn string(&self, key: &str) -> Option<String> {
        let node = self.node(key)?;
        if let Value::String(text) = &node.value {
            return self.resolve(key, text).map(|secret| secret.reveal().to_owned());
        }
        self.wrong_type(key, node, "a string", "\"text\"");
        None
    }

    /// How a message shows `text`, which `key` holds or leads to: never what a reference leads to, since somebody may
    /// have named the wrong secret.
    #[must_use]
    pub fn shown(&self, key: &str, text: &str) -> String {
        match self.table.get(key).map(|node| &node.value) {
            Some(Value::String(written)) if written != text => format!("what {written} leads to"),
            _ if text.chars().count() > SHOWN_CHARS_MAX => {
                format!("\"{}…\"", text.chars().take(SHOWN_CHARS_MAX).collect::<String>().escape_debug())
            }
            _ => format!("{text:?}"),
        }
    }

    /// Text that must be there.
    pub fn string_required(&self, key: &str, expected: &str, example: &str) -> Option<String> {
        if !self.has(key) {
            self.missing(key, expected, example);
            return None;
        }
        self.string(key)
    }

    /// Text exactly as written: where `file:` or `env:` is not a reference (URLs of the lake).
    pub fn text_verbatim(&self, key: &str) -> Option<&'a str> {
        let node = self.node(key)?;
        if let Value::String(text) = &node.value {
            return Some(text);
        }
        self.wrong_type(key, node, "a string", "\"text\"");
        None
    }

    /// One of `choices`.
    pub fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let node = self.node(key)?;
        let text = if matches!(node.value, Value::String(_)) {
            self.string(key)?
        } else {
            let example = choices.first().map_or("text", |(name, _)| *name);
            let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            self.wrong_type(key, node, &format!("one of {}", names.join(", ")), &format!("{example:?}"));
            return None;
        };
        if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text) {
            return Some(*value);
        }
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        let what = format!("{} is {}", self.path_of(key), self.shown(key, &text));
        self.wrong(
            key,
            "INVALID_VALUE",
            what,
            format!("expected one of {}", names.join(", ")),
            nearest_hint(&text, names.iter().copied()),
        );
        None
    }

    /// `true` or `false`.
    pub fn boolean(&self, key: &str) -> Option<bool> {
        let node = self.node(key)?;
        if let Value::Bool(value) = node.value {
            return Some(value);
        }
        self.wrong_type(key, node, "true or false", "false");
        None
    }

    /// A whole number within `min..=max`.
    pub fn integer(&self, key: &str, min: i64, max: i64) -> Option<i64> {
        let node = self.node(key)?;
        let Value::Integer(value) = node.value else {
            self.wrong_type(key, node, "a whole number", &min.to_string());
            return None;
        };
        if (min..=max).contains(&value) {
            return Some(value);
        }
        self.out_of_range(key, &value, &min, &max)
    }

    fn out_of_range<T>(&self, key: &str, value: &dyn Display, min: &dyn Display, max: &dyn Display) -> Option<T> {
        let what = format!("{} is {value}", self.path_of(key));
        self.wrong(key, "OUT_OF_RANGE", what, format!("expected {min} to {max}"), "choose a value in that range");
        None
    }

    /// A number within `min..=max`.
    pub fn number(&self, key: &str, min: f64, max: f64) -> Option<f64> {
        let node = self.node(key)?;
        let value = match node.value {
            Value::Float(value) => value,
            #[allow(clippy::cast_precision_loss, reason = "settings are far below 2^52")]
            Value::Integer(value) => value as f64,
            _ => {
                self.wrong_type(key, node, "a number", &format!("{min}"));
                return None;
            }
        };
        if (min..=max).contains(&value) {
            return Some(value);
        }
        self.out_of_range(key, &value, &min, &max)
    }

    /// A duration such as `"250ms"`; whole milliseconds as a number are taken from messages only (no place).
    pub fn duration(&self, key: &str) -> Option<Duration> {
        let node = self.node(key)?;
        let value = match &node.value {
            Value::String(text) => match parse_duration(text) {
                Some(value) => value,
                None => {
                    let what = format!("{} is {}", self.path_of(key), self.shown(key, text));
                    self.wrong(
                        key,
                        "INVALID_DURATION",
                        what,
                        "expected a whole number with ms, s, m, h or d",
                        format!("write {key} = \"30s\""),
                    );
                    return None;
                }
            },
            Value::Integer(ms) if node.mark.is_none() => Duration::from_millis(u64::try_from(*ms).unwrap_or(0)),
            _ => {
                self.wrong_type(key, node, "a duration", "\"30s\"");
                return None;
            }
        };
        if (DURATION_MIN..=DURATION_MAX).contains(&value) {
            return Some(value);
        }
        let what = format!("{} is {}", self.path_of(key), show_duration(value));
        self.wrong(key, "OUT_OF_RANGE", what, "expected 10ms to 366d", "choose a duration in that range");
        None
    }

    /// A size such as `"64KiB"`, in bytes, within `min..=max`.
    pub fn size(&self, key: &str, min: u64, max: u64) -> Option<u64> {
        let node = self.node(key)?;
        let Value::String(text) = &node.value else {
            self.wrong_type(key, node, "a size", "\"4MiB\"");
            return None;
        };
        let Some(bytes) = parse_size(text) else {
            let what = format!("{} is {text:?}", self.path_of(key));
            self.wrong(
                key,
                "INVALID_SIZE",
                what,
                "expected a whole number with B, KiB, MiB or GiB",
                format!("write {key} = \"4MiB\""),
            );
            return None;
        };
        if (min..=max).contains(&bytes) {
            return Some(bytes);
        }
        let what = format!("{} is {text}", self.path_of(key));
        self.wrong(
            key,
            "OUT_OF_RANGE",
            what,
            format!("expected {} to {}", show_size(min), show_size(max)),
            "choose a size in that range",
        );
        None
    }

    /// A list of strings; references are followed.
    pub fn strings(&self, key: &str) -> Option<Vec<String>> {
        let texts = self.texts_verbatim(key)?;
        texts.into_iter().map(|text| Some(self.resolve(key, text)?.reveal().to_owned())).collect()
    }

    /// A list of strings exactly as written: where `env:` and `file:` are names and not references.
    pub fn texts_verbatim(&self, key: &str) -> Option<Vec<&'a str>> {
        let node = self.node(key)?;
        let Value::Array(all) = &node.value else {
            self.wrong_type(key, node, "an array of strings", "[\"a\", \"b\"]");
            return None;
        };
        let mut texts = Vec::with_capacity(all.len());
        for (index, item) in all.iter().enumerate() {
            match &item.value {
                Value::String(text) => texts.push(text.as_str()),
                other => {
                    let what = format!("{}[{index}] is {}", self.path_of(key), other.type_name());
                    self.wrong(key, "WRONG_TYPE", what, "expected a string", "quote it");
                    return None;
                }
            }
        }
        Some(texts)
    }

    /// A table below `key`. Close it with [`Reader::finish`].
    pub fn section(&self, key: &str) -> Option<Reader<'a>> {
        let node = self.node(key)?;
        if let Value::Table(table) = &node.value {
            return Some(Reader::new(table, self.path_of(key), self.problems, self.secrets));
        }
        if self.path.is_empty() && node.mark.is_some() {
            let what = format!("{key} is {}", node.value.type_name());
            self.wrong(key, "WRONG_TYPE", what, "expected a table", format!("write [{key}] and its keys below it"));
        } else {
            self.wrong_type(key, node, "a table", "{ … }");
        }
        None
    }

    /// The tables of an array below `key`; empty where there is none.
    pub fn sections(&self, key: &str) -> Vec<Reader<'a>> {
        let Some(node) = self.node(key) else { return Vec::new() };
        let Value::Array(all) = &node.value else {
            self.wrong_type(key, node, "an array of tables", "[{ … }]");
            return Vec::new();
        };
        let mut readers = Vec::with_capacity(all.len());
        for (index, item) in all.iter().enumerate() {
            if let Value::Table(table) = &item.value {
                readers.push(Reader::new(
                    table,
                    format!("{}[{index}]", self.path_of(key)),
                    self.problems,
                    self.secrets,
                ));
            } else {
                let what = format!("{}[{index}] is {}", self.path_of(key), item.value.type_name());
                self.wrong(key, "WRONG_TYPE", what, "expected a table", "write it in braces");
            }
        }
        readers
    }

    /// The entries of the table, each marked as asked for: for tables whose keys are free names.
    pub fn entries(&self) -> impl Iterator<Item = &'a Entry> + use<'a> {
        self.asked.borrow_mut().extend(self.table.entries.iter().map(|entry| entry.key.clone()));
        self.table.entries.iter()
    }

    /// Reports every key that nobody asked for, with the nearest known name.
    pub fn finish(self) {
        let asked = self.asked.borrow();
        for entry in self.table.entries.iter().filter(|entry| !asked.contains(&entry.key)) {
            let known: Vec<&str> = asked.iter().map(String::as_str).collect();
            self.report(
                entry.mark.clone().or_else(|| self.table.header.clone()),
                "UNKNOWN_KEY",
                self.path_of(&entry.key),
                format!("{} is not a known key", self.path_of(&entry.key)),
                format!("expected one of {}", known.join(", ")),
                nearest(&entry.key, known.iter().copied())
                    .map_or_else(|| "remove it".to_owned(), |name| format!("did you mean {name}?")),
                false,
            );
        }
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
