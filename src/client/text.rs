//! Output for people: aligned tables, trees, clean cells.

use std::io::{self, Write};

use serde_json::Value;

/// A cell of a table is cut to this: a line should fit a wide screen.
const CELL_CHARS_MAX: usize = 60;

/// `text` without what could steer a terminal. Much of what is shown came from sources.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || is_steering(c) { '\u{fffd}' } else { c }).collect()
}

/// Marks that turn the direction of writing, and so can make one thing look like another.
fn is_steering(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A value as a cell.
pub(super) fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut text = clean(&text);
    if let Some((cut, _)) = text.char_indices().nth(CELL_CHARS_MAX) {
        text.truncate(cut);
        text.push('…');
    }
    text
}

/// Rows under a head, in columns; the last column is not filled up.
pub(super) fn table(out: &mut dyn Write, head: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let mut widths: Vec<usize> = head.iter().map(|text| text.chars().count()).collect();
    for row in rows {
        for (width, text) in widths.iter_mut().zip(row) {
            *width = (*width).max(text.chars().count());
        }
    }
    let head: Vec<String> = head.iter().map(|text| (*text).to_owned()).collect();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (text, width) in row.iter().zip(&widths) {
            line.push_str(text);
            line.extend(std::iter::repeat_n(' ', width - text.chars().count() + 2));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// `{class, code, message}` in a line.
pub(super) fn reason(reason: &Value) -> String {
    let word = |key: &str| clean(reason[key].as_str().unwrap_or("-"));
    format!("{} {}: {}", word("class"), word("code"), word("message"))
}

/// ms as people say it.
pub(super) fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h", ms / 3_600_000),
    }
}
