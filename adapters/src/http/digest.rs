//! Short digests of records: the same for the same content, whatever the order of keys or the white space.

use serde_json::Value;
use sha2::{Digest, Sha256};

/// The digest of several values in order; a missing one differs from `null`.
pub(crate) fn of_values<'v>(values: impl Iterator<Item = Option<&'v Value>>) -> u64 {
    let mut hasher = Sha256::new();
    for value in values {
        match value {
            Some(value) => feed(value, &mut hasher),
            None => hasher.update(b"-"),
        }
    }
    first_eight(hasher)
}

/// The digest of a text that is no JSON value we can read.
pub(crate) fn of_text(text: &str) -> u64 {
    let mut hasher = Sha256::new();
    hasher.update(b"raw");
    hasher.update(text);
    first_eight(hasher)
}

fn first_eight(hasher: Sha256) -> u64 {
    hasher.finalize().iter().take(8).fold(0, |all, byte| all << 8 | u64::from(*byte))
}

/// Every value is fed with its type and length, so that no two feed the same bytes. The depth is bounded by the
/// parser's.
fn feed(value: &Value, hasher: &mut Sha256) {
    match value {
        Value::Null => hasher.update(b"n"),
        Value::Bool(true) => hasher.update(b"t"),
        Value::Bool(false) => hasher.update(b"f"),
        Value::Number(number) => feed_text(b"#", &number.to_string(), hasher),
        Value::String(text) => feed_text(b"s", text, hasher),
        Value::Array(all) => {
            hasher.update(b"[");
            all.iter().for_each(|item| feed(item, hasher));
            hasher.update(b"]");
        }
        Value::Object(all) => {
            hasher.update(b"{");
            let mut keys: Vec<_> = all.iter().collect();
            keys.sort_unstable_by_key(|(key, _)| key.as_str());
            for (key, value) in keys {
                feed_text(b"k", key, hasher);
                feed(value, hasher);
            }
            hasher.update(b"}");
        }
    }
}

fn feed_text(tag: &[u8], text: &str, hasher: &mut Sha256) {
    hasher.update(tag);
    hasher.update((text.len() as u64).to_be_bytes());
    hasher.update(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> u64 {
        let value: Value = serde_json::from_str(text).expect("JSON");
        of_values(std::iter::once(Some(&value)))
    }

    #[test]
    fn test_digest_knows_content_not_spelling() {
        assert_eq!(of(r#"{"a":1,"b":[1,2]}"#), of(r#" {"b": [1, 2], "a": 1}"#));
        let all = ["1", "1.5", "\"1\"", "null", "[]", "{}", "[1]", "[[1]]", "[1,1]", "[11]", r#"{"a":1}"#, "true"];
        for (i, a) in all.iter().enumerate() {
            for b in &all[i + 1..] {
                assert_ne!(of(a), of(b), "{a} {b}");
            }
        }
        assert_ne!(of_values([None].into_iter()), of("null"));
    }
}
