//! What is wrong with text that is not TOML, said for people who may have YAML or another format in mind.

use std::ops::Range;
use std::sync::Arc;

use adapters::contract::config::{Mark, Problem, show_key};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Places in a text, in lines and characters.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    file: Arc<str>,
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(file: Arc<str>, text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { file, text, starts }
    }

    /// The place of the byte `at`.
    pub(super) fn mark(&self, at: usize) -> Mark {
        let at = floor_char(self.text, at);
        let line = self.index(at);
        let col = self.text[self.starts[line]..at].chars().count() + 1;
        Mark { file: Arc::clone(&self.file), line: line + 1, col }
    }

    fn index(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at) - 1
    }

    /// The bytes of the line that holds `at`, with its line break.
    fn around(&self, at: usize) -> Range<usize> {
        let line = self.index(at.min(self.text.len()));
        self.starts[line]..self.starts.get(line + 1).copied().unwrap_or(self.text.len())
    }

    fn line(&self, at: usize) -> &'a str {
        self.text[self.around(at)].trim_end()
    }
}

fn floor_char(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Whether the parser goes on after this error as if it were mended. After any other it loses its way, and the place
/// must be left out for the rest to be read.
pub(super) fn heals(message: &str) -> bool {
    // What is said of single values, keys and comments, whose bounds are clear to the parser all the same.
    const HEALED: [&str; 22] = [
        "duplicate key",
        "cannot extend value",
        "string values must be quoted",
        "invalid basic string",
        "invalid boolean",
        "invalid comment character",
        "invalid date",
        "invalid exponent",
        "invalid float",
        "invalid integer",
        "invalid literal string",
        "invalid mantissa",
        "invalid time",
        "invalid unquoted key",
        "carriage return",
        "integers with a radix",
        "missing escaped value",
        "radix must be",
        "redundant",
        "too few unicode",
        "unexpected leading zero",
        "unexpected sign",
    ];
    HEALED.iter().any(|start| message.starts_with(start)) || message.starts_with("`_` may only")
}

/// Where an error is shown, and which bytes must be left out so that the rest can be read.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) shown_at: usize,
    pub(super) lost: Range<usize>,
}

/// The place of an error at `at` in `text`, which has been parsed to `root` as far as possible.
pub(super) fn place_of(root: &Spanned<DeTable<'_>>, lines: &Lines<'_>, text: &str, at: usize) -> Place {
    // Where the text ends too early, the last line with something on it is at fault.
    let at = if text[floor_char(text, at)..].trim().is_empty() { text.trim_end().len() } else { at };
    let line = lines.around(at);
    if let Some((key, value)) = enclosing(root.get_ref(), at) {
        let first = lines.around(key).start;
        if first < line.start && begins_anew(&text[line.clone()]) {
            return Place { shown_at: value.start, lost: first..line.start };
        }
        let shown_at = if at >= text.trim_end().len() { value.start } else { at };
        return Place { shown_at, lost: first..lines.around(value.end.max(at)).end };
    }
    if text[line.clone()].trim_start().starts_with('[') {
        // Without its header a section's keys would seem to belong to the section before.
        let end = text[line.end..].match_indices("\n[").map(|(i, _)| line.end + i + 1).next();
        let end = if text[line.end..].starts_with('[') { line.end } else { end.unwrap_or(text.len()) };
        return Place { shown_at: at, lost: line.start..end };
    }
    Place { shown_at: at, lost: line }
}

/// Whether a line looks like the beginning of something else than the value before it.
fn begins_anew(line: &str) -> bool {
    let line = line.trim();
    let header = line.starts_with('[') && line.ends_with(']') && !line.contains(',');
    header
        || line.split_once('=').is_some_and(|(key, _)| !key.trim().is_empty() && !key.contains(['{', '"', '\'', ',']))
}

/// The start of the key and the bytes of the value written out at `at`.
fn enclosing(table: &DeTable<'_>, at: usize) -> Option<(usize, Range<usize>)> {
    table.iter().find_map(|(key, value)| {
        let (key, span) = (key.span(), value.span());
        let written_out = span.start >= key.end;
        if written_out {
            return (key.start <= at && at <= span.end && span.end > span.start).then_some((key.start, span));
        }
        match value.get_ref() {
            DeValue::Table(table) => enclosing(table, at),
            DeValue::Array(all) => all.iter().find_map(|item| item.get_ref().as_table().and_then(|t| enclosing(t, at))),
            _ => None,
        }
    })
}

/// `text` with `lost` turned into spaces, so that all other bytes stay where they are. At least one byte changes.
pub(super) fn blank(text: &str, lost: Range<usize>) -> String {
    let (start, end) = (floor_char(text, lost.start), floor_char(text, lost.end));
    let hidden: String = text[start..end]
        .chars()
        .flat_map(|c| std::iter::repeat_n(if c == '\n' { c } else { ' ' }, c.len_utf8()))
        .collect();
    format!("{}{hidden}{}", &text[..start], &text[end..])
}

/// What the parser's `message` about the byte `at` means. Never shows a value: it may be a secret.
pub(super) fn explain(lines: &Lines<'_>, at: usize, message: &str) -> Problem {
    let (code, what, expected, remedy) = words(lines, at, message);
    Problem::of_text(lines.mark(at), code, what, &expected, remedy)
}

type Words = (&'static str, String, String, String);

fn words(lines: &Lines<'_>, at: usize, message: &str) -> Words {
    let line = lines.line(at);
    if message.starts_with("duplicate key") {
        return duplicate(lines, at, line);
    }
    if message.contains("recurs") {
        let what = "tables and arrays are nested too deep here".to_owned();
        return ("TOO_DEEP", what, "at most 32 levels".into(), "flatten it".into());
    }
    let (what, expected, remedy) =
        other_format(line, message).or_else(|| value_fault(lines, at, message)).unwrap_or_else(|| {
            let (what, expected) = message.split_once(", expected ").unwrap_or((message, "TOML"));
            (what.to_owned(), expected.to_owned(), "correct the line; https://toml.io has the rules".to_owned())
        });
    ("SYNTAX", what, expected, remedy)
}

fn duplicate(lines: &Lines<'_>, at: usize, line: &str) -> Words {
    let (what, first) = if line.trim_start().starts_with('[') {
        let header = line.split('#').next().unwrap_or(line).trim();
        let first = lines.text[..lines.around(at).start].lines().position(|l| l.trim().starts_with(header));
        (format!("{header} stands twice"), first)
    } else {
        let key = line[at - lines.around(at).start..].split(['=', '.', ' ', '\t']).next().unwrap_or_default();
        (format!("{key} stands twice in one table"), first_of_key(lines, at, key))
    };
    let what = first.map_or_else(|| what.clone(), |index| format!("{what}, first on line {}", index + 1));
    ("DUPLICATE_KEY", what, "each key once".into(), "remove one of them".into())
}

/// The index of the line in the same section that sets `key` before `at`.
fn first_of_key(lines: &Lines<'_>, at: usize, key: &str) -> Option<usize> {
    let here = lines.index(at);
    let sets = |line: &str| {
        let rest = line.trim_start().strip_prefix(key).map(str::trim_start);
        rest.is_some_and(|rest| rest.starts_with(['=', '.']))
    };
    let section = lines.starts[..here].iter().rposition(|start| lines.line(*start).trim_start().starts_with('['));
    (section.unwrap_or(0)..here).find(|index| sets(lines.line(lines.starts[*index])))
}

/// Slips of those who have another format in mind.
fn other_format(line: &str, message: &str) -> Option<(String, String, String)> {
    let line = line.trim();
    let slip = |what: &str, expected: &str, remedy: String| Some((what.to_owned(), expected.to_owned(), remedy));
    if let Some((_, rest)) = line.split_once("= ${") {
        let name = rest.split('}').next().unwrap_or_default();
        let remedy = format!("write \"env:{name}\"");
        return slip("this is a shell's variable, which nothing fills in here", "a value", remedy);
    }
    if !["key with no value", "invalid key-value pair", "invalid unquoted key"].iter().any(|m| message.starts_with(m)) {
        return None;
    }
    if line.starts_with("---") {
        return slip("this separates documents in YAML", "TOML", "remove the line".into());
    }
    if line == "-" || line.starts_with("- ") {
        return slip("this is a list in YAML's form", "key = [ … ]", "write the items in brackets".into());
    }
    if line.starts_with('{') {
        return slip("this is JSON", "TOML", "write [section] headers with lines key = value below".into());
    }
    if line.starts_with("export ") {
        return slip("this is a shell's export", "key = value", "remove export".into());
    }
    let key = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-').next().unwrap_or_default();
    let rest = line[key.len()..].trim_start();
    if !key.is_empty() && rest == ":" {
        return slip("this is a section in YAML's form", "a header in brackets", format!("write [{key}]"));
    }
    if !key.is_empty() && rest.starts_with(": ") {
        return slip("this is a setting in YAML's form", "key = value", format!("write {key} = and the value"));
    }
    None
}

fn value_fault(lines: &Lines<'_>, at: usize, message: &str) -> Option<(String, String, String)> {
    let around = lines.around(at);
    let line = &lines.text[around.clone()];
    let before = &line[..floor_char(line, at - around.start)];
    let key =
        before.rfind('=').map(|i| before[..i].trim_end()).and_then(|left| left.rsplit([' ', '{', ',', '\t']).next());
    let key = key.filter(|key| !key.is_empty()).map_or_else(|| "this".to_owned(), show_bare);
    let text = line[before.len()..].trim_end();
    let said = |what: String, expected: &str, remedy: &str| Some((what, expected.to_owned(), remedy.to_owned()));
    if text.starts_with(|c: char| c.is_control()) {
        let remedy = "remove it, or write it as \\u0000 with its number";
        return said("this is a control character".into(), "text that can be seen", remedy);
    }
    if message.starts_with("string values must be quoted") || message.starts_with("invalid float") {
        let word = text.split([',', ' ', '}', ']', '#']).next().unwrap_or_default();
        return match word.to_lowercase().as_str() {
            "" => said(format!("{key} has no value"), "a value after the equals sign", "add it or remove the key"),
            "null" | "none" | "nil" | "~" => {
                said(format!("{key} has no value in TOML's sense"), "a value", "remove the key")
            }
            "yes" | "no" | "on" | "off" => {
                said(format!("the value of {key} is none of TOML"), "true or false", "write true or false")
            }
            _ => said(format!("the value of {key} is not in quotes"), "text in quotes", "put it in quotes: \"…\""),
        };
    }
    if message.starts_with("invalid boolean") {
        return said(
            format!("the value of {key} is none of TOML"),
            "true or false in lower case",
            "write true or false",
        );
    }
    if message.starts_with("invalid unquoted key") {
        let remedy = "put the name in quotes, as in [stream.\"acme/berlin\"]";
        return said("this character needs quotes in a key".into(), "letters, digits, - and _", remedy);
    }
    if message.starts_with("unclosed table") {
        let remedy = "add ], and quotes around names with other characters, as in [stream.\"acme/berlin\"]";
        return said("this header is not closed".into(), "] after letters, digits, -, _ and dots", remedy);
    }
    if message.starts_with("key with no value") {
        return said("this key has no value".into(), "key = value", "add = and the value, or remove the line");
    }
    if message.contains("array") && text.starts_with('[') {
        return said(format!("the array of {key} is not closed"), "] after its last item", "add the missing ]");
    }
    if message.starts_with("missing comma between array") {
        return said("a comma is missing before this item".into(), "items with commas between", "add the comma");
    }
    if message.contains("inline table") && text.starts_with('{') {
        return said(format!("the table of {key} is not closed"), "} after its last key", "add the missing }");
    }
    if message.starts_with("invalid basic string") || message.starts_with("invalid literal string") {
        return said(format!("the text of {key} is not closed"), "a quote at its end", "add the missing quote");
    }
    if message.starts_with("invalid multi-line") {
        return said(format!("the text of {key} is not closed"), "three quotes at its end", "add the missing quotes");
    }
    if message.starts_with("unexpected leading zero") {
        return said(format!("{key} has a leading zero"), "a number without one", "remove the zero");
    }
    None
}

fn show_bare(key: &str) -> String {
    let key = key.rsplit('.').next().unwrap_or(key).trim_matches(['"', '\'']);
    show_key(key)
}
