//! Values of arguments, checked by their types.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use adapters::contract::config::{DURATION_MAX, DURATION_MIN, parse_duration, show_duration};
use chrono::{DateTime, Utc};

use crate::times::timestamp;

/// `PARTITION=POSITION`. A partition's name may hold `=`, so the last one counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The partition's name.
    pub partition: String,
    /// The position, as `checkpoint show` prints it.
    pub position: String,
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.rsplit_once('=') {
            Some((partition, position)) if !partition.is_empty() && !position.is_empty() => {
                Ok(Self { partition: partition.to_owned(), position: position.to_owned() })
            }
            _ => Err("expected PARTITION=POSITION".to_owned()),
        }
    }
}

/// `KEY=VALUE` of `lake.options`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LakeOption {
    /// The option.
    pub key: String,
    /// Its value, which may be a secret reference.
    pub value: String,
}

impl FromStr for LakeOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Self { key: key.to_owned(), value: value.to_owned() }),
            _ => Err("expected KEY=VALUE".to_owned()),
        }
    }
}

/// `10m` (ago), or a time in RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// So long before now.
    Ago(Duration),
    /// At this time.
    At(DateTime<Utc>),
}

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(ago) = parse_duration(text) {
            return Ok(Self::Ago(ago));
        }
        let at = DateTime::parse_from_rfc3339(text);
        at.map(|at| Self::At(at.to_utc())).map_err(|_| "expected a duration like 10m or a time in RFC 3339".to_owned())
    }
}

impl fmt::Display for Since {
    /// As the API takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ago(ago) => f.write_str(&show_duration(*ago)),
            Self::At(at) => f.write_str(&timestamp(at.timestamp_micros())),
        }
    }
}

/// `"30s"`, within the bounds of all durations.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let value = parse_duration(text).ok_or("expected a whole number with ms, s, m, h or d, like 30s")?;
    if (DURATION_MIN..=DURATION_MAX).contains(&value) { Ok(value) } else { Err("expected 10ms to 366d".to_owned()) }
}

/// `http://HOST:PORT`, without a path.
pub(super) fn api_url(text: &str) -> Result<String, String> {
    let url = url::Url::parse(text).map_err(|_| "expected a URL like http://127.0.0.1:7400")?;
    if !["http", "https"].contains(&url.scheme()) || !url.username().is_empty() || url.password().is_some() {
        return Err("expected http:// or https:// and no user; the token belongs into LAKEFEED_TOKEN".to_owned());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// A JSON array of objects.
pub(super) fn partitions(text: &str) -> Result<serde_json::Value, String> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let sound = value.as_array().is_some_and(|all| all.iter().all(serde_json::Value::is_object));
    if sound { Ok(value) } else { Err("expected a JSON array of objects".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_a_positions_partition_may_hold_equals_signs() {
        let position: Position = "lat=1,lon=2=42".parse().expect("valid");
        assert_eq!((position.partition.as_str(), position.position.as_str()), ("lat=1,lon=2", "42"));
        assert!("x".parse::<Position>().is_err());
    }

    #[test]
    fn test_since_is_a_duration_or_a_time() {
        assert_eq!("10m".parse::<Since>().expect("valid"), Since::Ago(Duration::from_secs(600)));
        assert!(matches!("2026-01-02T03:04:05Z".parse::<Since>(), Ok(Since::At(_))));
        assert!("yesterday".parse::<Since>().is_err());
    }
}
