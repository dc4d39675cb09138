//! Values that know where they stand.

use std::fmt;
use std::sync::Arc;

/// A place in a file, lines and columns from 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    /// The file as the operator named it.
    pub file: Arc<str>,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub col: usize,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.col)
    }
}

/// A value and its place. Values from messages have none.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Where it stands.
    pub mark: Option<Mark>,
}

/// What TOML and JSON have in common. A TOML date-time is kept as its text and refused by every reader method.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Text; may be a secret reference (`env:NAME`, `file:PATH`).
    String(String),
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// `true` or `false`.
    Bool(bool),
    /// A list.
    Array(Vec<Node>),
    /// A table.
    Table(Table),
    /// A TOML date-time, as written.
    DateTime(String),
}

impl Value {
    /// What a message calls it.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::String(_) => "a string",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Bool(_) => "a boolean",
            Self::Array(_) => "an array",
            Self::Table(_) => "a table",
            Self::DateTime(_) => "a date-time",
        }
    }
}

/// One key of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub mark: Option<Mark>,
    /// Its value.
    pub node: Node,
}

/// Keys in the order of the file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Table {
    /// In the order of the file.
    pub entries: Vec<Entry>,
    /// The line of the table's header, where missing keys are reported.
    pub header: Option<Mark>,
    /// The folder of the file, to which relative `file:` paths belong. `None` for messages.
    pub folder: Option<Arc<std::path::Path>>,
}

impl Table {
    /// The node of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    /// Sets `key`, in place of what stood there.
    pub fn set(&mut self, key: &str, node: Node) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.key == key) {
            entry.mark.clone_from(&node.mark);
            entry.node = node;
        } else {
            let mark = node.mark.clone();
            self.entries.push(Entry { key: key.to_owned(), mark, node });
        }
    }

    /// A table from a JSON object, as messages carry it.
    #[must_use]
    pub fn from_json(object: &serde_json::Map<String, serde_json::Value>) -> Self {
        let entries = object
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| Entry { key: key.clone(), mark: None, node: Node::from_json(value) })
            .collect();
        Self { entries, header: None, folder: None }
    }
}

impl Node {
    /// A node from JSON, without a place. `null` becomes an empty string; objects leave null members out.
    #[must_use]
    pub fn from_json(value: &serde_json::Value) -> Self {
        let value = match value {
            serde_json::Value::Null => Value::String(String::new()),
            serde_json::Value::Bool(b) => Value::Bool(*b),
            serde_json::Value::Number(n) => {
                n.as_i64().map_or_else(|| Value::Float(n.as_f64().unwrap_or(f64::NAN)), Value::Integer)
            }
            serde_json::Value::String(s) => Value::String(s.clone()),
            serde_json::Value::Array(all) => Value::Array(all.iter().map(Self::from_json).collect()),
            serde_json::Value::Object(object) => Value::Table(Table::from_json(object)),
        };
        Self { value, mark: None }
    }
}
