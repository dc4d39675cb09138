//! A partition and its name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// An independently ordered part of a source.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Partition {
    /// Unique within the stream; stands in epoch records and in `_lf_partition`.
    pub name: String,
    /// The values for templates and requests (`{part.KEY}`), numbers in their shortest form.
    pub values: BTreeMap<String, String>,
}

impl Partition {
    /// The one partition of a source that has none.
    #[must_use]
    pub fn main() -> Self {
        Self { name: "main".to_owned(), values: BTreeMap::new() }
    }

    /// Named by its `name`, else by its values as `key=value` joined by commas in key order.
    #[must_use]
    pub fn from_values(values: BTreeMap<String, String>) -> Self {
        if values.is_empty() {
            return Self::main();
        }
        let name = values.get("name").cloned().unwrap_or_else(|| {
            values.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
        });
        Self { name, values }
    }

    /// A number in the form that names and templates use: the shortest that reads back the same.
    #[must_use]
    pub fn number(value: f64) -> String {
        format!("{value}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_names_follow_the_interface() {
        let values = [("lon".to_owned(), Partition::number(13.40)), ("lat".to_owned(), Partition::number(52.52))];
        assert_eq!(Partition::from_values(values.into()).name, "lat=52.52,lon=13.4");
        assert_eq!(Partition::from_values(BTreeMap::new()).name, "main");
        let named = [("name".to_owned(), "a".to_owned()), ("x".to_owned(), "1".to_owned())];
        assert_eq!(Partition::from_values(named.into()).name, "a");
    }
}
