//! Wrong settings give all their problems at once, each at its place.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::contract::config::Problem;
use crate::contract::{Cadence, Replay};
use crate::http::testing::{message, read_with, written};

fn full() -> Value {
    json!({
        "base_url": "https://api.example.org/v1",
        "interval": "1m", "timeout": "20s", "jitter": "5s",
        "network": {"https_only": true, "allow_private": false, "max_redirects": 0, "max_body": "4MiB"},
        "auth": {"type": "api_key", "in": "query", "name": "key", "value": "env:KEY"},
        "budgets": [{"key": "env:KEY", "limit": 5, "per": "1m"}, {"key": "env:KEY", "limit": 10000, "per": "calendar_month"}],
        "cursor": {"field": "id", "start": "0"},
        "next": {"body": "$.next"},
        "partitions": [{"feed": "main"}, {"feed": "side", "name": "two"}],
        "request": {"method": "GET", "path": "/feed/{part.feed}", "query": {"since": "{cursor}", "limit": 100}, "headers": {}},
        "records": {"select": "$.data", "key": ["id"], "event_time": "$.at"},
        "on_response": [{"status": [400, 404], "body": {"path": "$.error", "matches": "not_found"}, "action": "park", "class": "config"},
            {"status": 429, "action": "rate_limited", "wait": "60s"}],
        "table": {"schema": {"id": "long", "at": "timestamp"}},
    })
}

fn read(settings: Value) -> (Option<Arc<dyn Mount>>, Vec<Problem>) {
    read_with(&HttpPoll::new(Arc::new(Budgets::new())), &written(settings))
}

#[test]
fn test_everything_in_the_interface_is_taken() {
    let (mount, problems) = read(full());
    assert_eq!(problems, []);
    let mount = mount.expect("good settings");
    let expected = Cadence::Polled {
        interval: Duration::from_secs(60),
        jitter: Duration::from_secs(5),
        timeout: Duration::from_secs(20),
    };
    assert_eq!((mount.cadence(), mount.replay()), (expected, Replay::Replayable));
    let names: Vec<_> = mount.partitions().into_iter().map(|partition| partition.name).collect();
    assert_eq!(names, ["feed=main", "two"]);
    assert_eq!(mount.schema().map(|schema| schema.fields().len()), Some(2));
}

#[test]
fn test_defaults_are_the_interfaces() {
    let (mount, problems) = read(json!({"base_url": "http://127.0.0.1:1", "interval": "30s"}));
    assert_eq!(problems, []);
    let mount = mount.expect("good settings");
    let interval = Duration::from_secs(30);
    assert_eq!(mount.cadence(), Cadence::Polled { interval, jitter: Duration::ZERO, timeout: interval });
    assert_eq!(
        (mount.replay(), mount.partitions()[0].name.as_str(), mount.schema()),
        (Replay::CurrentValue, "main", None)
    );
}

/// Settings with one thing wrong each, and the field and code of the one problem.
fn wrong() -> Vec<(&'static str, Value, &'static str, &'static str)> {
    vec![
        ("/base_url", json!(null), "base_url", "MISSING_KEY"),
        ("/base_url", json!("api.example.org"), "base_url", "INVALID_URL"),
        ("/base_url", json!("ftp://api.example.org"), "base_url", "INVALID_URL"),
        ("/base_url", json!("https://api.example.org/?a=1"), "base_url", "INVALID_URL"),
        ("/base_url", json!("https://u:p@api.example.org"), "base_url", "URL_WITH_USER_INFO"),
        ("/base_url", json!("http://api.example.org"), "base_url", "PLAIN_HTTP"),
        ("/interval", json!(null), "interval", "MISSING_KEY"),
        ("/interval", json!("5"), "interval", "INVALID_DURATION"),
        ("/interval", json!("1ms"), "interval", "OUT_OF_RANGE"),
        ("/timeout", json!(5), "timeout", "WRONG_TYPE"),
        ("/network/max_body", json!("4MB"), "network.max_body", "INVALID_SIZE"),
        ("/network/max_redirects", json!(11), "network.max_redirects", "OUT_OF_RANGE"),
        ("/network/https", json!(true), "network.https", "UNKNOWN_KEY"),
        ("/auth/type", json!("oauth"), "auth.type", "INVALID_VALUE"),
        ("/auth/in", json!("cookie"), "auth.in", "INVALID_VALUE"),
        ("/auth/value", json!("env:NOPE"), "auth.value", "SECRET_NOT_FOUND"),
        ("/auth/value", json!(null), "auth.value", "MISSING_KEY"),
        ("/budgets/0/limit", json!(0), "budgets[0].limit", "OUT_OF_RANGE"),
        ("/budgets/1/per", json!("month"), "budgets[1].per", "INVALID_DURATION"),
        ("/budgets/0/key", json!(null), "budgets[0].key", "MISSING_KEY"),
        ("/budgets", json!(5), "budgets", "WRONG_TYPE"),
        ("/cursor/field", json!("a..b"), "cursor.field", "INVALID_PATH"),
        ("/cursor/start", json!(null), "cursor.start", "MISSING_KEY"),
        ("/cursor", json!(null), "request.query.since", "UNKNOWN_PLACEHOLDER"),
        ("/next", json!({"body": "$.a", "header": "link"}), "next", "INVALID_VALUE"),
        ("/next", json!({}), "next", "INVALID_VALUE"),
        ("/next/body", json!("next"), "next.body", "INVALID_PATH"),
        ("/partitions", json!([]), "partitions", "OUT_OF_RANGE"),
        ("/partitions/0/feed", json!([1]), "partitions[0].feed", "WRONG_TYPE"),
        ("/partitions/0/feed", json!("env:KEY"), "partitions[0].feed", "INVALID_VALUE"),
        ("/partitions/1", json!({"feed": "main"}), "partitions", "DUPLICATE_PARTITION"),
        ("/partitions/1", json!({"food": "x"}), "request.path", "UNKNOWN_PLACEHOLDER"),
        ("/request/method", json!("PUT"), "request.method", "INVALID_VALUE"),
        ("/request/path", json!("/a/../b"), "request.path", "INVALID_VALUE"),
        ("/request/path", json!("/a?b=1"), "request.path", "INVALID_VALUE"),
        ("/request/path", json!("feed"), "request.path", "INVALID_VALUE"),
        ("/request/path", json!("/{part.x}"), "request.path", "UNKNOWN_PLACEHOLDER"),
        ("/request/query/since", json!("{curser}"), "request.query.since", "UNKNOWN_PLACEHOLDER"),
        ("/request/headers", json!({"bad name": "x"}), "request.headers", "INVALID_VALUE"),
        ("/request/body", json!("x"), "request.body", "UNKNOWN_KEY"),
        ("/records/select", json!("data"), "records.select", "INVALID_PATH"),
        ("/records/key", json!("id"), "records.key", "WRONG_TYPE"),
        ("/records/event_time", json!("a[*]"), "records.event_time", "INVALID_PATH"),
        ("/on_response/0/action", json!("stop"), "on_response[0].action", "INVALID_VALUE"),
        ("/on_response/0/class", json!("data"), "on_response[0].class", "INVALID_VALUE"),
        ("/on_response/0/wait", json!("1s"), "on_response[0].wait", "INVALID_VALUE"),
        ("/on_response/0/body/matches", json!("("), "on_response[0].body.matches", "INVALID_PATTERN"),
        ("/on_response/1/status", json!(42), "on_response[1].status", "INVALID_VALUE"),
        ("/on_response/1", json!({"action": "retry"}), "on_response[1].action", "INVALID_VALUE"),
        ("/intervall", json!("1m"), "intervall", "UNKNOWN_KEY"),
    ]
}

fn set(all: &mut Value, pointer: &str, value: &Value) {
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    let parent = all.pointer_mut(parent).expect(pointer);
    match (parent.as_object_mut(), value) {
        (Some(object), Value::Null) => drop(object.remove(key)),
        (Some(object), _) => drop(object.insert(key.to_owned(), value.clone())),
        _ => parent[key.parse::<usize>().expect("an index")] = value.clone(),
    }
}

#[test]
fn test_each_wrong_setting_gives_its_one_problem() {
    for (pointer, value, field, code) in wrong() {
        let mut all = full();
        set(&mut all, pointer, &value);
        let (mount, problems) = read(all);
        let found: Vec<_> = problems.iter().map(|p| (p.field.trim_start_matches("adapter.X."), p.code)).collect();
        assert_eq!(found, [(field, code)], "{pointer} = {value}: {problems:?}");
        assert_eq!(mount.is_none(), code != "UNKNOWN_KEY", "{pointer}");
        assert!(problems.iter().all(|p| p.mark.is_some() && !p.what.is_empty() && !p.remedy.is_empty()));
    }
}

#[test]
fn test_all_problems_come_at_once() {
    let mut all = full();
    for (pointer, value) in [
        ("/base_url", json!(5)),
        ("/timeout", json!("x")),
        ("/cursor/field", json!("")),
        ("/records/select", json!("x")),
        ("/auth/type", json!("x")),
        ("/next/body", json!("x")),
    ] {
        set(&mut all, pointer, &value);
    }
    assert_eq!(read(all).1.len(), 6);
}

#[test]
fn test_validate_warns_where_a_secret_travels_in_the_clear() {
    for (url, warned) in [
        ("http://api.example.org", true),
        ("http://10.0.0.1", true),
        ("http://127.0.0.1:80", false),
        ("http://localhost", false),
        ("http://[::1]", false),
        ("https://api.example.org", false),
    ] {
        for with in
            [json!({"auth": {"type": "bearer", "token": "env:KEY"}}), json!({"request": {"headers": {"x": "env:KEY"}}})]
        {
            let mut all = json!({"base_url": url, "interval": "1m"});
            all.as_object_mut().expect("an object").extend(with.as_object().expect("an object").clone());
            let (mount, problems) = read(all);
            assert!(mount.is_some());
            let codes: Vec<_> = problems.iter().map(|p| (p.code, p.warning)).collect();
            assert_eq!(codes, if warned { vec![("SECRET_IN_CLEAR", true)] } else { vec![] }, "{url}");
        }
    }
    assert_eq!(read(json!({"base_url": "http://api.example.org", "interval": "1m"})).1, [], "no secret, no warning");
}

#[test]
fn test_settings_of_a_message_take_milliseconds_and_no_private_endpoint() {
    let kind = HttpPoll::new(Arc::new(Budgets::new()));
    let (mount, problems) =
        read_with(&kind, &message(json!({"base_url": "https://api.example.org", "interval": 1500})));
    assert_eq!(problems, []);
    let Some(Cadence::Polled { interval, .. }) = mount.map(|mount| mount.cadence()) else { panic!("polled") };
    assert_eq!(interval, Duration::from_millis(1500));
    let (mount, problems) = read_with(&kind, &message(json!({"base_url": "http://192.168.0.1", "interval": 1500})));
    assert!(mount.is_none());
    assert_eq!(problems.iter().map(|p| p.code).collect::<Vec<_>>(), ["PRIVATE_ADDRESS"]);
}
