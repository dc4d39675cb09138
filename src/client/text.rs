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

/// Scalars of a node of the tree that its line shows, in this order; the rest is for `--json`.
const SHOWN: [&str; 6] = ["state", "incarnation", "restarts", "attempt", "until_ms", "abandoned"];

/// The tree, one child a line. Shapes are taken as they come: a node has a path (or a name), scalars, and children.
pub(super) fn tree(out: &mut dyn Write, root: &Value) -> io::Result<()> {
    // Each entry: the node, what stands before its line, what stands before its children's. A stack of our own, so
    // that a deep answer cannot exhaust the thread's.
    let mut stack = vec![(root, String::new(), String::new())];
    while let Some((node, before, beneath)) = stack.pop() {
        writeln!(out, "{before}{}", node_line(node))?;
        let children = node["children"].as_array().map_or(&[][..], Vec::as_slice);
        for (place, child) in children.iter().enumerate().rev() {
            let (own, below) =
                if place + 1 == children.len() { ("└── ", "    ") } else { ("├── ", "│   ") };
            stack.push((child, format!("{beneath}{own}"), format!("{beneath}{below}")));
        }
    }
    Ok(())
}

fn node_line(node: &Value) -> String {
    let path = node["name"].as_str().or_else(|| node["path"].as_str()).unwrap_or("?");
    let mut line = clean(path.rsplit('/').next().unwrap_or(path));
    for key in SHOWN {
        match &node[key] {
            Value::Null => {}
            Value::Number(number) if number.as_u64() == Some(0) => {}
            Value::String(text) if key == "state" => line.push_str(&format!("  {}", clean(text))),
            other => line.push_str(&format!("  {key}={}", cell(other))),
        }
    }
    for key in ["reason", "last_error"] {
        if node[key].is_object() {
            line.push_str(&format!("  {}", reason(&node[key])));
            break;
        }
    }
    line
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
