//! Observations in one comparable form, whatever they were written as.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value};

/// Columns of `kind = "iqair"` that stand one level deep in the body of a response: (group, name there, column).
const NESTED: [(&str, &str, &str); 12] = [
    ("pollution", "ts", "pollution_ts"),
    ("pollution", "aqius", "aqius"),
    ("pollution", "mainus", "mainus"),
    ("pollution", "aqicn", "aqicn"),
    ("pollution", "maincn", "maincn"),
    ("weather", "ts", "weather_ts"),
    ("weather", "tp", "tp"),
    ("weather", "pr", "pr"),
    ("weather", "hu", "hu"),
    ("weather", "ws", "ws"),
    ("weather", "wd", "wd"),
    ("weather", "ic", "ic"),
];

/// An observation as canonical JSON: keys in order, nulls dropped, whole numbers without a point, times in UTC with
/// six digits. Takes a flat object of the table's columns, or the body (or its `data`) as IQAir sends it.
#[must_use]
pub fn normalise(observation: &Value) -> String {
    let inner = observation.get("data").unwrap_or(observation);
    let flat = if inner.get("current").is_some() { flattened(inner) } else { inner.clone() };
    canonical(&flat).to_string()
}

fn flattened(body: &Value) -> Value {
    let mut flat = Map::new();
    for (from, to) in
        [("country", "country"), ("state", "state"), ("city", "city"), ("station", "station"), ("name", "station")]
    {
        if let Some(value) = body.get(from) {
            flat.insert(to.to_owned(), value.clone());
        }
    }
    for (i, column) in ["lon", "lat"].into_iter().enumerate() {
        if let Some(value) = body.pointer(&format!("/location/coordinates/{i}")) {
            flat.insert(column.to_owned(), value.clone());
        }
    }
    for (group, name, column) in NESTED {
        if let Some(value) = body.pointer(&format!("/current/{group}/{name}")) {
            flat.insert(column.to_owned(), value.clone());
        }
    }
    Value::Object(flat)
}

fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut names: Vec<&String> = map.iter().filter(|(_, v)| !v.is_null()).map(|(name, _)| name).collect();
            names.sort();
            Value::Object(names.into_iter().map(|name| (name.clone(), canonical(&map[name]))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(canonical).collect()),
        Value::Number(number) => whole(number.as_f64()).map_or_else(|| value.clone(), Value::from),
        Value::String(text) => time(text).map_or_else(|| value.clone(), Value::from),
        other => other.clone(),
    }
}

/// A float that stands for a whole number, as that number.
fn whole(number: Option<f64>) -> Option<i64> {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    let number = number.filter(|n| n.fract() == 0.0 && n.abs() < EXACT_MAX)?;
    #[allow(clippy::cast_possible_truncation, reason = "whole and within 2^53")]
    Some(number as i64)
}

fn time(text: &str) -> Option<String> {
    // Only what looks like a date is tried, so that a station called "12" stays one.
    if text.len() < 19 || text.as_bytes().get(4) != Some(&b'-') {
        return None;
    }
    let with_zone = DateTime::parse_from_rfc3339(text).or_else(|_| DateTime::parse_from_rfc3339(&format!("{text}Z")));
    Some(with_zone.ok()?.with_timezone(&Utc).to_rfc3339_opts(SecondsFormat::Micros, true))
}
