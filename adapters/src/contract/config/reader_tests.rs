//! The reader against wrong tables.

use serde_json::json;

use super::super::MapSecrets;
use super::*;

fn problems_of(value: serde_json::Value, read: impl Fn(&Reader<'_>)) -> Vec<Problem> {
    let table = Table::from_json(value.as_object().expect("an object"));
    let problems = Problems::default();
    let secrets = MapSecrets::default();
    let reader = Reader::new(&table, "adapter.X", &problems, &secrets);
    read(&reader);
    reader.finish();
    problems.into_sorted()
}

#[test]
fn test_all_problems_come_at_once_and_unknown_keys_get_the_nearest_name() {
    let found = problems_of(json!({"intervall": "1h", "timeout": 5.5, "size": "4MB"}), |r| {
        r.duration("interval");
        r.duration("timeout");
        r.size("size", 1, 1 << 20);
    });
    let codes: Vec<_> = found.iter().map(|p| p.code).collect();
    assert_eq!(codes, ["WRONG_TYPE", "INVALID_SIZE", "UNKNOWN_KEY"]);
    assert_eq!(found[2].remedy, "did you mean interval?");
}

#[test]
fn test_a_secret_is_never_shown() {
    let secret = Secret::resolved("hunter2", "env:KEY");
    assert_eq!(format!("{secret:?}"), "Secret(env:KEY)");
    assert!(!format!("{:?}", Secret::literal("hunter2")).contains("hunter2"));
}
