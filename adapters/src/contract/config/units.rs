//! Durations and sizes as text.

use std::time::Duration;

/// The shortest duration anywhere in settings or messages.
pub const DURATION_MIN: Duration = Duration::from_millis(10);

/// The longest: beyond it a duration is a mistake, and sums of durations could overflow.
pub const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// `"250ms" "30s" "5m" "1h" "7d"`.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let count: u64 = text[..digits].parse().ok()?;
    let unit_ms = match &text[digits..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    count.checked_mul(unit_ms).map(Duration::from_millis)
}

/// `"512B" "64KiB" "4MiB" "1GiB"`.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let count: u64 = text[..digits].parse().ok()?;
    let unit = match &text[digits..] {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    count.checked_mul(unit)
}

/// The inverse of [`parse_duration`], in the greatest unit that fits.
#[must_use]
pub fn show_duration(value: Duration) -> String {
    let ms = value.as_millis();
    for (unit_ms, unit) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")] {
        if ms > 0 && ms.is_multiple_of(unit_ms) {
            return format!("{}{unit}", ms / unit_ms);
        }
    }
    format!("{ms}ms")
}

/// The inverse of [`parse_size`], in the greatest unit that fits.
pub(super) fn show_size(bytes: u64) -> String {
    for (unit, name) in [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes > 0 && bytes.is_multiple_of(unit) {
            return format!("{}{name}", bytes / unit);
        }
    }
    format!("{bytes}B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_durations_and_sizes_read_back() {
        for text in ["250ms", "30s", "5m", "1h", "7d"] {
            assert_eq!(show_duration(parse_duration(text).expect(text)), text);
        }
        assert_eq!(parse_duration("1.5s"), None);
        assert_eq!(parse_duration("s"), None);
        assert_eq!(parse_duration("99999999999999999999d"), None);
        assert_eq!(parse_size("4MiB"), Some(4 << 20));
        assert_eq!(parse_size("4MB"), None);
    }
}
