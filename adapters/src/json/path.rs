//! Paths into JSON without building a tree of the whole body.
//!
//! A path is `$` followed by up to [`STEPS_MAX`] steps `.name`, `[*]`, `[number]`. Selecting gives the text of each
//! record as it stands in the body: an array at the end of the path gives one record an element, an object one; after
//! a final `[*]` each element is one record as it is. Who fetches and who decodes select with the same path, so the
//! index of a record means the same to both.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::contract::DeadMark;

/// A path into JSON: `$`, `$.data`, `$.items[*]`, `$.pages[0].items`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
    All,
}

/// A longer path is a mistake; each step reads the rest of the body once more.
const STEPS_MAX: usize = 16;

/// Why nothing could be selected.
#[derive(Debug)]
pub(crate) enum SelectError {
    /// Not one JSON value.
    NotJson(serde_json::Error),
    /// JSON, with nothing where the path leads, or with a bare value there.
    NotThere,
}

impl From<serde_json::Error> for SelectError {
    fn from(error: serde_json::Error) -> Self {
        Self::NotJson(error)
    }
}

impl From<SelectError> for DeadMark {
    fn from(error: SelectError) -> Self {
        match error {
            SelectError::NotJson(error) => super::not_json(&error),
            SelectError::NotThere => {
                Self { code: "select_missing", message: "it has no records where select leads".to_owned() }
            }
        }
    }
}

impl Path {
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

    /// Reads the path of a field within a record: `id`, `current.pollution.ts`, or the same after `$.`.
    ///
    /// # Errors
    /// One sentence that says what is wrong with `text`.
    pub fn parse_field(text: &str) -> Result<Self, String> {
        let path = if text.starts_with('$') { Self::parse(text)? } else { Self::parse(&format!("$.{text}"))? };
        if path.steps.is_empty() || path.steps.contains(&Step::All) {
            return Err("a field is a name, or names joined by dots".to_owned());
        }
        Ok(path)
    }

    /// Whether it leads to the whole.
    pub(crate) fn is_root(&self) -> bool {
        self.steps.is_empty()
    }

    /// The value of the field in a record that was read.
    #[must_use]
    pub fn field<'v>(&self, record: &'v Value) -> Option<&'v Value> {
        self.steps.iter().try_fold(record, |value, step| match step {
            Step::Key(key) => value.get(key),
            Step::Index(index) => value.get(index),
            Step::All => None,
        })
    }

    /// The records of `body`, as they stand there.
    pub(crate) fn records<'b>(&self, body: &'b str) -> Result<Vec<&'b str>, SelectError> {
        let whole: &RawValue = serde_json::from_str(body)?;
        let split = self.steps.last() != Some(&Step::All);
        let mut out = Vec::new();
        let mut found = false;
        walk(whole.get(), &self.steps, &mut |text, in_array| {
            found = true;
            match text.map(|text| (text, text.as_bytes().first().copied())) {
                // An empty array behind `[*]` was found and holds nothing.
                None => {}
                Some((text, Some(b'['))) if split => match serde_json::from_str::<Vec<&RawValue>>(text) {
                    Ok(items) => out.extend(items.into_iter().map(RawValue::get)),
                    Err(_) => found = false,
                },
                Some((text, first)) if in_array || first == Some(b'{') => out.push(text),
                Some(_) => found = false,
            }
        })?;
        if found { Ok(out) } else { Err(SelectError::NotThere) }
    }

    /// The text of the one scalar that the path leads to: strings without their quotes. `None` for anything else.
    pub(crate) fn text<'b>(&self, body: &'b str) -> Option<Cow<'b, str>> {
        let whole: &RawValue = serde_json::from_str(body).ok()?;
        let mut found = None;
        let walked = walk(whole.get(), &self.steps, &mut |text, _| found = found.or(text));
        let text = walked.ok().and(found)?;
        match text.as_bytes().first()? {
            b'"' => serde_json::from_str::<String>(text).ok().map(Cow::Owned),
            b'{' | b'[' | b'n' => None,
            _ => Some(Cow::Borrowed(text)),
        }
    }
}

/// Calls `found` for everything that `steps` lead to from `text`; with `None` for an array behind `[*]`, whose
/// elements follow one by one.
fn walk<'b>(
    text: &'b str,
    steps: &[Step],
    found: &mut impl FnMut(Option<&'b str>, bool),
) -> Result<(), serde_json::Error> {
    let Some((step, rest)) = steps.split_first() else {
        found(Some(text), false);
        return Ok(());
    };
    match (step, text.as_bytes().first()) {
        (Step::Key(key), Some(b'{')) => {
            for value in members(text, key)? {
                walk(value, rest, found)?;
            }
        }
        (Step::All, Some(b'[')) => {
            let items: Vec<&'b RawValue> = serde_json::from_str(text)?;
            if rest.is_empty() {
                found(None, true);
            }
            for item in items {
                match rest {
                    [] => found(Some(item.get()), true),
                    _ => walk(item.get(), rest, found)?,
                }
            }
        }
        (Step::Index(index), Some(b'[')) => {
            let items: Vec<&'b RawValue> = serde_json::from_str(text)?;
            if let Some(item) = items.get(*index) {
                walk(item.get(), rest, found)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// The values of `key` in an object; more than one where the object repeats it.
fn members<'b>(text: &'b str, key: &str) -> Result<Vec<&'b str>, serde_json::Error> {
    struct Members<'k>(&'k str);

    impl<'de> Visitor<'de> for Members<'_> {
        type Value = Vec<&'de str>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut values = Vec::new();
            while let Some(name) = map.next_key::<Cow<'de, str>>()? {
                let value: &'de RawValue = map.next_value()?;
                if name == self.0 {
                    values.push(value.get());
                }
            }
            Ok(values)
        }
    }
    serde_json::Deserializer::from_str(text).deserialize_map(Members(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Why nothing was selected, and whether the body only lacks its end.
    type Why = (&'static str, bool);

    const GONE: Why = ("select_missing", false);

    fn select<'a>(path: &str, body: &'a str) -> Result<Vec<&'a str>, Why> {
        Path::parse(path).expect("a good path").records(body).map_err(|error| {
            let cut = matches!(&error, SelectError::NotJson(error) if error.is_eof());
            (DeadMark::from(error).code, cut)
        })
    }

    #[test]
    fn test_records_are_given_as_they_stand() {
        assert_eq!(select("$", r#" {"a": 1} "#), Ok(vec![r#"{"a": 1}"#]));
        assert_eq!(select("$", "[1, {}]"), Ok(vec!["1", "{}"]));
        assert_eq!(select("$.data", r#"{"x":[1],"data":[{"a":1}, {"a":2}]}"#), Ok(vec![r#"{"a":1}"#, r#"{"a":2}"#]));
        assert_eq!(select("$.data", r#"{"da\u0074a":{"a":1}}"#), Ok(vec![r#"{"a":1}"#]));
        assert_eq!(select("$.items[*]", r#"{"items":[[1],2]}"#), Ok(vec!["[1]", "2"]));
        assert_eq!(select("$.p[*].i[*]", r#"{"p":[{"i":[1]},{"i":[]},{"i":[2]}]}"#), Ok(vec!["1", "2"]));
        assert_eq!(select("$.p[1]", r#"{"p":[{"a":1},{"a":2}]}"#), Ok(vec![r#"{"a":2}"#]));
        assert_eq!(select("$[*]", "[]"), Ok(vec![]));
        assert_eq!(select("$.data", r#"{"data":[]}"#), Ok(vec![]));
    }

    #[test]
    fn test_nothing_there_is_told_from_empty_and_from_junk() {
        assert_eq!(select("$.data", r#"{"data":null}"#), Err(GONE));
        assert_eq!(select("$.data", r#"{"status":"fail"}"#), Err(GONE));
        assert_eq!(select("$.data", "[1]"), Err(GONE));
        assert_eq!(select("$", "5"), Err(GONE));
        assert_eq!(select("$.a.b", r#"{"a":5}"#), Err(GONE));
        assert_eq!(select("$.data", r#"{"data":[1"#), Err(("not_json", true)));
        assert_eq!(select("$.data", r#"{"data":[1]} x"#), Err(("not_json", false)));
        assert_eq!(select("$", "<html>"), Err(("not_json", false)));
    }

    #[test]
    fn test_deep_nesting_is_no_stack_overflow() {
        let deep = "[".repeat(100_000);
        assert_eq!(select("$.a", &deep), Err(("not_json", true)));
        let closed = format!("{{\"data\":[{}{}]}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(select("$.data", &closed).map(|all| all.len()), Ok(1));
    }

    #[test]
    fn test_texts_of_scalars() {
        let text = |path: &str, body| Path::parse(path).expect(path).text(body).map(Cow::into_owned);
        assert_eq!(text("$.e", r#"{"e":"a\"b"}"#).as_deref(), Some("a\"b"));
        assert_eq!(text("$.e", r#"{"e":12}"#).as_deref(), Some("12"));
        assert_eq!(text("$.e", r#"{"e":null}"#), None);
        assert_eq!(text("$.e", r#"{"e":{}}"#), None);
        assert_eq!(text("$", r#""node not found""#).as_deref(), Some("node not found"));
    }

    #[test]
    fn test_wrong_paths_are_refused() {
        for path in ["", "data", "$data", "$.", "$..a", "$.a[", "$.a[x]", "$[*]x"] {
            assert!(Path::parse(path).is_err(), "{path}");
        }
        assert!(Path::parse(&format!("${}", ".a".repeat(17))).is_err());
        for field in ["", "a..b", "$", "a[*].b"] {
            assert!(Path::parse_field(field).is_err(), "{field}");
        }
        assert_eq!(Path::parse_field("a.b"), Path::parse("$.a.b"));
    }
}
