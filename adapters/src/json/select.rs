//! Where the records stand in a payload.

use std::fmt;

use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::contract::DeadMark;

/// A path to the records of a payload: `$`, `$.data`, `$.items[*]`, `$.pages[0].items`.
///
/// An array at the end gives one record an element, an object gives one, `null` gives none. After a final `[*]` each
/// element is one record as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectPath {
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
    All,
}

/// A longer path is a mistake; each step costs one level of the stack.
const STEPS_MAX: usize = 16;

impl SelectPath {
    /// Reads a path.
    ///
    /// # Errors
    /// One sentence that says what is wrong with `text`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut rest = text.strip_prefix('$').ok_or("a path starts with $")?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('.') {
                let end = after.find(['.', '[']).unwrap_or(after.len());
                if end == 0 {
                    return Err("a . must be followed by a name".to_owned());
                }
                steps.push(Step::Key(after[..end].to_owned()));
                rest = &after[end..];
            } else if let Some(after) = rest.strip_prefix('[') {
                let end = after.find(']').ok_or("a [ has no ]")?;
                steps.push(match &after[..end] {
                    "*" => Step::All,
                    index => Step::Index(index.parse().map_err(|_| "in [ ] stands * or a number")?),
                });
                rest = &after[end + 1..];
            } else {
                return Err("after $ come .name, [*] or [number]".to_owned());
            }
        }
        if steps.len() > STEPS_MAX {
            return Err(format!("a path has at most {STEPS_MAX} steps"));
        }
        Ok(Self { steps })
    }

    /// The text of each selected record, as it stands in `payload`.
    ///
    /// # Errors
    /// `not_json` where the payload is not one JSON value, `select_missing` where the path leads nowhere.
    pub fn records<'a>(&self, payload: &'a str) -> Result<Vec<&'a str>, DeadMark> {
        let mut out = Vec::new();
        let mut found = false;
        let split = self.steps.last() != Some(&Step::All);
        let mut parser = serde_json::Deserializer::from_str(payload);
        Walk { steps: &self.steps, split, out: &mut out, found: &mut found }
            .deserialize(&mut parser)
            .and_then(|()| parser.end())
            .map_err(|error| super::not_json(&error))?;
        if !found {
            let message = "the payload has nothing where select leads".to_owned();
            return Err(DeadMark { code: "select_missing", message });
        }
        Ok(out)
    }
}

struct Walk<'p, 'o, 'a> {
    steps: &'p [Step],
    split: bool,
    out: &'o mut Vec<&'a str>,
    found: &'o mut bool,
}

impl<'a> Walk<'_, '_, 'a> {
    fn below(&mut self) -> Walk<'_, '_, 'a> {
        Walk { steps: &self.steps[1..], split: self.split, out: self.out, found: self.found }
    }

    fn take<E: serde::de::Error>(self, raw: &'a RawValue) -> Result<(), E> {
        *self.found = true;
        match raw.get().as_bytes().first() {
            Some(b'[') if self.split => {
                let items: Vec<&'a RawValue> = serde_json::from_str(raw.get()).map_err(E::custom)?;
                self.out.extend(items.into_iter().map(RawValue::get));
            }
            Some(b'n') if self.split => {}
            _ => self.out.push(raw.get()),
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.steps.is_empty() {
            return self.take(<&RawValue>::deserialize(deserializer)?);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(matches) = map.next_key_seed(Matches(&self.steps[0]))? {
            if matches {
                map.next_value_seed(self.below())?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        // An empty array has the records that `[*]` asks for: none.
        *self.found |= self.steps == [Step::All];
        for index in 0.. {
            let wanted = match &self.steps[0] {
                Step::All => true,
                Step::Index(wanted) => *wanted == index,
                Step::Key(_) => false,
            };
            let more = if wanted {
                seq.next_element_seed(self.below())?.is_some()
            } else {
                seq.next_element::<IgnoredAny>()?.is_some()
            };
            if !more {
                return Ok(());
            }
        }
        Err(A::Error::custom("an array without end"))
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Compares a key without copying it.
struct Matches<'p>(&'p Step);

impl<'de> DeserializeSeed<'de> for Matches<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Matches<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(matches!(self.0, Step::Key(wanted) if wanted == key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select<'a>(path: &str, payload: &'a str) -> Result<Vec<&'a str>, &'static str> {
        SelectPath::parse(path).expect("a good path").records(payload).map_err(|dead| dead.code)
    }

    #[test]
    fn test_select_finds_records_as_they_stand() {
        assert_eq!(select("$", r#" {"a": 1} "#), Ok(vec![r#"{"a": 1}"#]));
        assert_eq!(select("$", "[1, {}]"), Ok(vec!["1", "{}"]));
        assert_eq!(select("$.data", r#"{"x":[1],"data":[{"a":1}, {"a":2}]}"#), Ok(vec![r#"{"a":1}"#, r#"{"a":2}"#]));
        assert_eq!(select("$.data", r#"{"data":{"a":1}}"#), Ok(vec![r#"{"a":1}"#]));
        assert_eq!(select("$.items[*]", r#"{"items":[[1],2]}"#), Ok(vec!["[1]", "2"]));
        assert_eq!(select("$.p[*].i[*]", r#"{"p":[{"i":[1]},{"i":[]},{"i":[2]}]}"#), Ok(vec!["1", "2"]));
        assert_eq!(select("$.p[1]", r#"{"p":[{"a":1},{"a":2}]}"#), Ok(vec![r#"{"a":2}"#]));
    }

    #[test]
    fn test_select_tells_nothing_there_from_empty() {
        assert_eq!(select("$.data", r#"{"data":[]}"#), Ok(vec![]));
        assert_eq!(select("$.data[*]", r#"{"data":[]}"#), Ok(vec![]));
        assert_eq!(select("$.data", r#"{"data":null}"#), Ok(vec![]));
        assert_eq!(select("$.data", r#"{"status":"fail"}"#), Err("select_missing"));
        assert_eq!(select("$.data", r#"[1]"#), Err("select_missing"));
        assert_eq!(select("$.a.b", r#"{"a":5}"#), Err("select_missing"));
        assert_eq!(select("$.data", r#"{"data":[1"#), Err("not_json"));
        assert_eq!(select("$.data", r#"{"data":[1]} x"#), Err("not_json"));
    }

    #[test]
    fn test_wrong_paths_are_refused() {
        for path in ["", "data", "$data", "$.", "$..a", "$.a[", "$.a[x]", "$[*]x"] {
            assert!(SelectPath::parse(path).is_err(), "{path}");
        }
        assert!(SelectPath::parse(&format!("${}", ".a".repeat(17))).is_err());
    }
}
