//! One TOML file to a [`Table`] whose values know where they stand. What cannot be parsed is reported and left out,
//! and reading goes on with the rest, so that one slip does not hide all the others.

use std::collections::BTreeSet;
use std::sync::Arc;

use adapters::contract::config::{Entry, Mark, Node, Problem, Problems, Table, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::files::Source;
use super::syntax::{self, Lines};

/// Deeper is a mistake: the deepest key that exists stands on level 6.
const DEPTH_MAX: usize = 32;

/// After so many unreadable places the file is not TOML, and more of the same helps nobody.
const LOST_PLACES_MAX: usize = 20;

/// A file as far as it was understood.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) table: Table,
    /// Something was left out, so that a key that seems missing may well be there.
    pub(super) lost: bool,
    /// Lines with a syntax error: what else is said of them is an echo.
    pub(super) told: BTreeSet<usize>,
}

/// Parses `source`.
pub(super) fn parse(source: &Source, problems: &Problems) -> Document {
    let lines = Lines::new(Arc::clone(&source.name), &source.text);
    let mut told = BTreeSet::new();
    let mut text = source.text.clone();
    for round in 0..LOST_PLACES_MAX {
        let (root, errors) = DeTable::parse_recoverable(&text);
        let mut faults: Vec<_> = errors.iter().map(|e| (e.span().unwrap_or(0..0).start, e.message())).collect();
        faults.sort_unstable();
        if let Some((at, message)) = faults.iter().find(|(_, message)| !syntax::heals(message)) {
            let place = syntax::place_of(&root, &lines, &text, *at);
            // The parser lost its way here, so what else it says of the line is of no use.
            if told.insert(lines.mark(place.shown_at).line) {
                problems.push(syntax::explain(&lines, place.shown_at, message));
            }
            let hidden = syntax::blank(&text, place.lost);
            drop(root);
            text = hidden;
            continue;
        }
        let lost: BTreeSet<usize> = told.clone();
        for (at, message) in faults {
            let line = lines.mark(at).line;
            told.insert(line);
            if !lost.contains(&line) {
                problems.push(syntax::explain(&lines, at, message));
            }
        }
        let mut conversion = Conversion { lines: &lines, source, problems, lost: round > 0 };
        let table = conversion.table(root.get_ref(), 0, 0);
        return Document { table, lost: conversion.lost, told };
    }
    let table = Table { header: Some(lines.mark(0)), folder: Some(Arc::clone(&source.folder)), ..Table::default() };
    Document { table, lost: true, told }
}

struct Conversion<'a> {
    lines: &'a Lines<'a>,
    source: &'a Source,
    problems: &'a Problems,
    lost: bool,
}

impl Conversion<'_> {
    fn table(&mut self, from: &DeTable<'_>, header: usize, depth: usize) -> Table {
        let mut entries: Vec<_> = from.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let entries = entries
            .into_iter()
            .filter_map(|(key, value)| {
                let node = self.node(value, depth + 1)?;
                let mark = Some(self.lines.mark(key.span().start));
                Some(Entry { key: key.get_ref().to_string(), mark, node })
            })
            .collect();
        Table { entries, header: Some(self.lines.mark(header)), folder: Some(Arc::clone(&self.source.folder)) }
    }

    /// `None` after reporting, or where the parser has already reported.
    fn node(&mut self, from: &Spanned<DeValue<'_>>, depth: usize) -> Option<Node> {
        let at = from.span().start;
        if depth > DEPTH_MAX {
            self.leave_out(
                at,
                "TOO_DEEP",
                "tables and arrays are nested too deep here",
                "at most 32 levels",
                "flatten it",
            );
            return None;
        }
        let value = match from.get_ref() {
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Integer(number) if number.as_str().is_empty() => {
                self.lost = true;
                return None;
            }
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Value::Integer(number),
                Err(_) => {
                    self.leave_out(
                        at,
                        "OUT_OF_RANGE",
                        "this number does not fit into 64 bits",
                        "-9223372036854775808 to 9223372036854775807",
                        "choose a value in that range",
                    );
                    return None;
                }
            },
            DeValue::Float(number) => match number.as_str().parse() {
                Ok(number) => Value::Float(number),
                Err(_) => {
                    self.lost = true;
                    return None;
                }
            },
            DeValue::Boolean(value) => Value::Bool(*value),
            DeValue::Datetime(when) => Value::DateTime(when.to_string()),
            DeValue::Array(all) => Value::Array(all.iter().filter_map(|item| self.node(item, depth + 1)).collect()),
            DeValue::Table(table) => Value::Table(self.table(table, at, depth)),
        };
        Some(Node { value, mark: Some(self.lines.mark(at)) })
    }

    fn leave_out(&mut self, at: usize, code: &'static str, what: &str, expected: &str, remedy: &str) {
        self.lost = true;
        self.problems.push(Problem::of_text(self.lines.mark(at), code, what, expected, remedy));
    }
}

/// Lays tables of several files together. Tables that stand under headers merge; any other key may stand in one file
/// only and is reported at its second place.
pub(super) fn merge(tables: Vec<Table>, path: &str, problems: &Problems) -> Table {
    let mut tables = tables.into_iter();
    let mut whole = Table::default();
    let Some(first) = tables.next() else { return whole };
    (whole.header, whole.folder) = (first.header, first.folder);
    let mut slots: Vec<Vec<Entry>> = Vec::new();
    let mut index = std::collections::HashMap::new();
    for entry in first.entries.into_iter().chain(tables.flat_map(|table| table.entries)) {
        let slot = *index.entry(entry.key.clone()).or_insert_with(|| {
            slots.push(Vec::new());
            slots.len() - 1
        });
        slots[slot].push(entry);
    }
    whole.entries = slots.into_iter().filter_map(|same| merge_entries(same, path, problems)).collect();
    whole
}

fn merge_entries(same: Vec<Entry>, path: &str, problems: &Problems) -> Option<Entry> {
    let mut same = same.into_iter();
    let mut first = same.next()?;
    let field = match path {
        "" => adapters::contract::config::show_key(&first.key),
        _ => format!("{path}.{}", adapters::contract::config::show_key(&first.key)),
    };
    let first_is_open = is_open(&first);
    let mut more = Vec::new();
    for entry in same {
        let open = is_open(&entry);
        match entry.node.value {
            Value::Table(table) if first_is_open && open => more.push(table),
            _ => problems.push(second_place(&first, entry.mark, &field)),
        }
    }
    if let Value::Table(table) = &mut first.node.value
        && !more.is_empty()
    {
        more.insert(0, std::mem::take(table));
        *table = merge(more, &field, problems);
    }
    Some(first)
}

/// Whether this is a table under a header or of dotted keys, to which another file may add. One in braces begins
/// after its key.
fn is_open(entry: &Entry) -> bool {
    matches!(entry.node.value, Value::Table(_)) && entry.node.mark <= entry.mark
}

fn second_place(first: &Entry, mark: Option<Mark>, field: &str) -> Problem {
    let place =
        first.mark.as_ref().map_or_else(String::new, |m| format!(", first at {}:{}", base_name(&m.file), m.line));
    Problem {
        mark,
        code: "DUPLICATE_KEY",
        field: field.to_owned(),
        what: format!("{field} stands in two files{place}"),
        expected: "expected each key once".to_owned(),
        remedy: "remove one of them".to_owned(),
        warning: false,
    }
}

fn base_name(file: &str) -> &str {
    file.rsplit('/').next().unwrap_or(file)
}
