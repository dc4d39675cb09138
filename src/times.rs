//! Times as texts, one form for all that the node writes.

use chrono::{DateTime, SecondsFormat};

/// `us` (µs since the epoch) as RFC 3339 in UTC with six decimals. Such texts sort as the times they name.
#[must_use]
pub fn timestamp(us: i64) -> String {
    DateTime::from_timestamp_micros(us).unwrap_or_default().to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// The inverse of [`timestamp`]; any RFC 3339 time is taken. `None` where `text` is none.
#[must_use]
pub fn timestamp_us(text: &str) -> Option<i64> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_timestamp_reads_back_and_sorts_as_its_time() {
        for us in [0, 1, 999_999, 1_646_496_980_000_000, 1_646_496_980_000_001] {
            assert_eq!(timestamp_us(&timestamp(us)), Some(us));
        }
        assert!(timestamp(1_646_496_980_000_000) < timestamp(1_646_496_980_000_001));
        assert_eq!(timestamp_us("2022-03-05T16:16:20+01:00"), Some(1_646_493_380_000_000));
        assert_eq!(timestamp_us("yesterday"), None);
    }
}
