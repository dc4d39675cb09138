//! Names that stand in paths: checked once, when they come in, and by their type from then on.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The tenant of messages that name none.
pub const DEFAULT_TENANT: &str = "default";

/// The first segment of the epoch records' path where no message asked for another.
pub const DEFAULT_BUCKET: &str = "results";

/// First segments that belong to other parts of the lake.
const RESERVED_BUCKETS: [&str; 4] = ["tables", "dead", "raw", "control"];

/// A name outside its alphabet.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what} {name:?} is not a valid name; expected {expected}")]
pub struct NameError {
    /// What was named.
    pub what: &'static str,
    /// As given, cut to 80 characters.
    pub name: String,
    /// The alphabet.
    pub expected: &'static str,
}

fn refuse(what: &'static str, name: &str, expected: &'static str) -> NameError {
    NameError { what, name: name.chars().take(80).collect(), expected }
}

/// `[a-z0-9][a-z0-9_-]{0,62}`, for tenants and streams.
fn is_stream_name(name: &str) -> bool {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let rest = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
    first && rest && name.len() <= 63
}

/// `[A-Za-z0-9][A-Za-z0-9_-]{0,62}`, for adapters.
#[must_use]
pub fn is_adapter_name(name: &str) -> bool {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    first && name.len() <= 63 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// `[a-z0-9][a-z0-9._-]{1,62}` and not a reserved first segment of the lake.
///
/// # Errors
/// With the alphabet, where the name is outside it.
pub fn check_bucket(name: &str) -> Result<(), NameError> {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let rest = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'));
    if first && rest && (2..=63).contains(&name.len()) && !RESERVED_BUCKETS.contains(&name) {
        Ok(())
    } else {
        Err(refuse("bucket_name", name, "[a-z0-9][a-z0-9._-]{1,62}, and not tables, dead, raw or control"))
    }
}

/// `<tenant>/<stream>`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    tenant: Arc<str>,
    stream: Arc<str>,
}

impl StreamId {
    /// Checks both names.
    ///
    /// # Errors
    /// Where one is outside `[a-z0-9][a-z0-9_-]{0,62}`.
    pub fn new(tenant: &str, stream: &str) -> Result<Self, NameError> {
        const EXPECTED: &str = "[a-z0-9][a-z0-9_-]{0,62}";
        if !is_stream_name(tenant) {
            return Err(refuse("tenant", tenant, EXPECTED));
        }
        if !is_stream_name(stream) {
            return Err(refuse("stream", stream, EXPECTED));
        }
        Ok(Self { tenant: tenant.into(), stream: stream.into() })
    }

    /// The tenant's name.
    #[must_use]
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// The stream's name within its tenant.
    #[must_use]
    pub fn stream(&self) -> &str {
        &self.stream
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.stream)
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.stream)
    }
}

impl FromStr for StreamId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (tenant, stream) = text.split_once('/').ok_or_else(|| refuse("stream", text, "<tenant>/<stream>"))?;
        Self::new(tenant, stream)
    }
}

/// `TENANT/STREAM`, or `TENANT/STREAM/PARTITION`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The stream.
    pub id: StreamId,
    /// One of its partitions, whose name may hold slashes; `None`: all of them.
    pub partition: Option<String>,
}

impl FromStr for Target {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let second = text.match_indices('/').nth(1).map(|(at, _)| at);
        let (id, partition) = second.map_or((text, None), |at| (&text[..at], Some(&text[at + 1..])));
        if partition == Some("") {
            return Err(refuse("partition", "", "a name after the second slash"));
        }
        Ok(Self { id: id.parse()?, partition: partition.map(str::to_owned) })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.partition {
            Some(partition) => write!(f, "{}/{partition}", self.id),
            None => write!(f, "{}", self.id),
        }
    }
}

impl Serialize for StreamId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StreamId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_names_outside_the_alphabet_are_refused() {
        for bad in ["", "..", "a/b", "A", "-a", "a.b", "ä", "a\0", "%2e", &"a".repeat(64)] {
            assert!(StreamId::new(bad, "ok").is_err(), "{bad:?}");
            assert!(StreamId::new("ok", bad).is_err(), "{bad:?}");
        }
        assert_eq!("acme/berlin".parse::<StreamId>().expect("valid").to_string(), "acme/berlin");
    }

    #[test]
    fn test_a_target_is_a_stream_and_perhaps_a_partition() {
        let target: Target = "acme/berlin/lat=52.52,lon=13.4".parse().expect("valid");
        assert_eq!(target.partition.as_deref(), Some("lat=52.52,lon=13.4"));
        assert_eq!(target.to_string(), "acme/berlin/lat=52.52,lon=13.4");
        let nested: Target = "a/b/c/d".parse().expect("valid");
        assert_eq!(nested.partition.as_deref(), Some("c/d"));
        assert_eq!("a/b".parse::<Target>().expect("valid").partition, None);
        for bad in ["", "a", "a/", "/b", "A/b", "a/../b", "a/b/", "a b/c"] {
            assert!(bad.parse::<Target>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn test_buckets_cannot_take_a_reserved_segment() {
        for bad in ["tables", "dead", "raw", "control", "a", "..", "a/b", "A1"] {
            assert!(check_bucket(bad).is_err(), "{bad:?}");
        }
        assert!(check_bucket("results").is_ok());
        assert!(check_bucket("my.bucket-1").is_ok());
    }
}
