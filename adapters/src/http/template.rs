//! `{part.KEY}` and `{cursor}` in paths, query values and headers.

use std::collections::BTreeMap;

/// Text with placeholders. `{{` stands for `{`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Part(String),
    Cursor,
}

/// What stands for the placeholders.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a> {
    /// The partition's.
    pub part: &'a BTreeMap<String, String>,
    /// The cursor's text.
    pub cursor: &'a str,
}

impl Template {
    /// Text without placeholders, whatever stands in it.
    #[must_use]
    pub fn literal(text: &str) -> Self {
        Self(vec![Piece::Text(text.to_owned())])
    }

    /// Reads `text`.
    ///
    /// # Errors
    /// One sentence that says which placeholder is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            plain.push_str(&rest[..open]);
            let after = &rest[open + 1..];
            if let Some(tail) = after.strip_prefix('{') {
                plain.push('{');
                rest = tail;
                continue;
            }
            let close = after.find('}').ok_or("a { has no }")?;
            let name = &after[..close];
            let piece = match name.strip_prefix("part.") {
                Some(key) if !key.is_empty() => Piece::Part(key.to_owned()),
                _ if name == "cursor" => Piece::Cursor,
                _ => return Err(format!("{{{name}}} is not a known placeholder")),
            };
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(piece);
            rest = &after[close + 1..];
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self(pieces))
    }

    /// The partition keys it asks for.
    pub fn part_keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| if let Piece::Part(key) = piece { Some(key.as_str()) } else { None })
    }

    /// Whether it asks for the cursor.
    #[must_use]
    pub fn has_cursor(&self) -> bool {
        self.0.contains(&Piece::Cursor)
    }

    /// Fills in, with `escape` applied to what is filled in and not to the template's own text. A key that the
    /// partition lacks gives nothing; readers refuse such settings.
    #[must_use]
    pub fn render(&self, values: Values<'_>, escape: impl Fn(&str, &mut String)) -> String {
        let mut out = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Part(key) => escape(values.part.get(key).map_or("", String::as_str), &mut out),
                Piece::Cursor => escape(values.cursor, &mut out),
            }
        }
        out
    }
}

/// Takes a value as it is, for places that are encoded as a whole afterwards.
pub(crate) fn verbatim(value: &str, out: &mut String) {
    out.push_str(value);
}

/// Percent-encodes all but the unreserved characters, so that a value stays within its path segment.
pub(crate) fn segment(value: &str, out: &mut String) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(b"0123456789ABCDEF"[usize::from(byte >> 4)]));
            out.push(char::from(b"0123456789ABCDEF"[usize::from(byte & 15)]));
        }
    }
}

/// Whether a path would climb: a URL parser drops `.` and `..` segments, in encoded spellings too.
#[must_use]
pub fn climbs(path: &str) -> bool {
    path.split(['/', '\\']).any(|part| {
        let part = part.to_ascii_lowercase().replace("%2e", ".");
        part == "." || part == ".."
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn render(text: &str, part: &[(&str, &str)]) -> String {
        let part = part.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let template = Template::parse(text).expect("a good template");
        template.render(Values { part: &part, cursor: "c 1" }, segment)
    }

    #[test]
    fn test_values_are_filled_in_and_stay_in_their_segment() {
        assert_eq!(render("/feed/{part.a}/x", &[("a", "b/../c?d#e")]), "/feed/b%2F..%2Fc%3Fd%23e/x");
        assert_eq!(render("/{cursor}", &[]), "/c%201");
        assert_eq!(render("/{{part.a}", &[]), "/{part.a}");
    }

    #[test]
    fn test_unknown_placeholders_are_refused() {
        for text in ["{", "{x}", "{part.}", "{part}", "a{cursor", "{}"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn test_climbing_paths_are_found() {
        for path in ["/..", "/a/../b", "/.", "/%2E%2e/x", "/.%2e", "a\\..\\b"] {
            assert!(climbs(path), "{path}");
        }
        assert!(!climbs("/a/..b/c."));
    }

    proptest! {
        #[test]
        fn test_a_value_cannot_leave_its_segment(value in any::<String>()) {
            let path = render("/feed/{part.a}/end", &[("a", &value)]);
            prop_assume!(!climbs(&path));
            let url = url::Url::parse(&format!("http://example.org{path}")).expect("a URL");
            prop_assert_eq!(url.path_segments().expect("segments").count(), 3);
            prop_assert!(url.path().starts_with("/feed/") && url.path().ends_with("/end"));
            prop_assert!(url.query().is_none() && url.fragment().is_none());
        }
    }
}
