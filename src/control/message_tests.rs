//! Every answer and every refusal of interface §3.

use super::*;
use crate::control::fake::FakeStreams;

async fn ask(streams: &FakeStreams, message: &Value) -> Answer {
    handle(streams, message.to_string().as_bytes()).await
}

#[tokio::test]
async fn test_message_answers_are_exactly_as_promised() {
    let streams = FakeStreams::new();
    let start = json!({"pattern": "worker:start", "id": "42", "data": {"adapter": "IQAIR_DAILY", "interval": 10,
        "timeout": 31_622_400_000_u64, "secret_key": "s", "endpoint": "https://a", "bucket_name": "b1",
        "partitions": [{"lat": 52.52, "lon": 13.4, "name": "x", "on": true}], "settings": {"a": {"b": 1}}}});
    let expected = json!({"success": true, "message": "Started fetching from adapter IQAIR_DAILY."});
    assert_eq!(ask(&streams, &start).await, Answer { status: 200, body: expected.clone() });
    assert_eq!(ask(&streams, &start).await.body, expected, "a duplicate");
    let asked = streams.asked();
    assert_eq!(asked[0], asked[1]);
    let mut overrides = start["data"].clone();
    overrides.as_object_mut().expect("object").retain(|key, _| OVERRIDES.contains(&key.as_str()));
    assert_eq!(asked[0], format!("start default/iqair_daily IQAIR_DAILY {overrides}"));

    let about = json!({"adapter": "IQAIR_DAILY"});
    let status = ask(&streams, &json!({"pattern": "worker:status", "data": about})).await;
    assert_eq!(
        status.body,
        json!({"success": true, "message": "Status of adapter IQAIR_DAILY.", "desired": "running",
            "actual": "waiting", "epoch": 12, "lag_seconds": 1.5, "next_at": null, "parked": null, "waits_for": null})
    );
    let interrupt = ask(&streams, &json!({"pattern": "worker:interrupt", "data": about})).await;
    assert_eq!(interrupt.body["success"], true);
    let stopped = json!({"success": true, "message": "Stopped fetching from adapter IQAIR_DAILY."});
    for _ in 0..2 {
        let answer = ask(&streams, &json!({"pattern": "worker:stop", "data": about})).await;
        assert_eq!(answer, Answer { status: 200, body: stopped.clone() });
    }
    let elsewhere = json!({"adapter": "OTHER", "tenant": "acme", "stream": "never-started"});
    let answer = ask(&streams, &json!({"pattern": "worker:stop", "data": elsewhere})).await;
    assert_eq!((answer.status, &answer.body["success"]), (200, &json!(true)), "stop of what does not run");
}

#[tokio::test]
async fn test_message_refusals_name_code_and_field() {
    let streams = FakeStreams::new();
    let start = |data: Value| json!({"pattern": "worker:start", "data": data});
    let with = |key: &str, value: Value| {
        let mut message = start(json!({"adapter": "IQAIR_DAILY"}));
        message["data"][key] = value;
        message
    };
    let about = |pattern: &str, data: Value| json!({"pattern": pattern, "data": data});
    let cases: Vec<(Value, u16, &str, Option<&str>)> = vec![
        (json!([]), 400, "not_an_object", None),
        (json!(null), 400, "not_an_object", None),
        (json!({}), 400, "missing_key", Some("pattern")),
        (json!({"pattern": 1}), 400, "invalid_type", Some("pattern")),
        (json!({"pattern": "worker:begin", "data": {}}), 400, "unknown_pattern", Some("pattern")),
        (json!({"pattern": "worker:start"}), 400, "missing_key", Some("data")),
        (json!({"pattern": "worker:start", "data": []}), 400, "invalid_type", Some("data")),
        (json!({"pattern": "worker:start", "data": {}, "x": 1}), 400, "unknown_key", Some("x")),
        (json!({"pattern": "worker:start", "data": {}, "id": 7}), 400, "invalid_type", Some("id")),
        (start(json!({})), 400, "missing_key", Some("adapter")),
        (start(json!({"adapter": null})), 400, "invalid_type", Some("adapter")),
        (start(json!({"adapter": "no/such"})), 400, "invalid_value", Some("adapter")),
        (start(json!({"adapter": "NO_SUCH"})), 404, "unknown_adapter", Some("adapter")),
        (with("colour", json!(1)), 400, "unknown_key", Some("colour")),
        (with("interval", json!("1h")), 400, "invalid_type", Some("interval")),
        (with("interval", json!(9)), 400, "invalid_value", Some("interval")),
        (with("interval", json!(-1)), 400, "invalid_value", Some("interval")),
        (with("interval", json!(10.5)), 400, "invalid_value", Some("interval")),
        (with("interval", json!(u64::MAX)), 400, "invalid_value", Some("interval")),
        (with("timeout", json!(0)), 400, "invalid_value", Some("timeout")),
        (with("timeout", json!(null)), 400, "invalid_type", Some("timeout")),
        (with("endpoint", json!(1)), 400, "invalid_type", Some("endpoint")),
        (with("endpoint", json!("")), 400, "invalid_value", Some("endpoint")),
        (with("secret_key", json!({})), 400, "invalid_type", Some("secret_key")),
        (with("secret_key", json!("x".repeat(9_000))), 400, "invalid_value", Some("secret_key")),
        (with("tenant", json!("Acme")), 400, "invalid_value", Some("tenant")),
        (with("stream", json!("../x")), 400, "invalid_value", Some("stream")),
        (with("stream", json!(5)), 400, "invalid_type", Some("stream")),
        (with("bucket_name", json!("tables")), 400, "invalid_value", Some("bucket_name")),
        (with("bucket_name", json!("a/b")), 400, "invalid_value", Some("bucket_name")),
        (with("bucket_name", json!(true)), 400, "invalid_type", Some("bucket_name")),
        (with("partitions", json!({})), 400, "invalid_type", Some("partitions")),
        (with("partitions", json!([])), 400, "invalid_value", Some("partitions")),
        (with("partitions", json!([1])), 400, "invalid_type", Some("partitions[0]")),
        (with("partitions", json!([{"a": {}}])), 400, "invalid_type", Some("partitions[0].a")),
        (with("settings", json!("x")), 400, "invalid_type", Some("settings")),
        (about("worker:stop", json!({"adapter": "NO_SUCH"})), 404, "unknown_adapter", Some("adapter")),
        (about("worker:stop", json!({"adapter": "OTHER", "interval": 10})), 400, "unknown_key", Some("interval")),
        (about("worker:status", json!({"adapter": "OTHER"})), 404, "unknown_stream", None),
        (about("worker:interrupt", json!({"adapter": "OTHER"})), 404, "unknown_stream", None),
    ];
    for (message, status, code, field) in cases {
        let answer = ask(&streams, &message).await;
        let body = answer.body.as_object().expect("object");
        let got = (answer.status, body["code"].as_str(), body.get("field").and_then(Value::as_str));
        assert_eq!(got, (status, Some(code), field), "{message}");
        assert_eq!(body["success"], false);
        assert!(body["message"].as_str().is_some_and(|text| !text.is_empty()));
        assert_eq!(body.len(), 3 + usize::from(field.is_some()), "no other keys: {message}");
    }
    assert_eq!(streams.asked(), Vec::<String>::new(), "a refused message asks nothing of the streams");
    let on_other = about("worker:start", json!({"adapter": "OTHER", "stream": "s"}));
    assert_eq!(ask(&streams, &on_other).await.status, 200);
    let wrong = about("worker:status", json!({"adapter": "IQAIR_DAILY", "stream": "s"}));
    assert_eq!(ask(&streams, &wrong).await.body["code"], "unknown_adapter");
}

#[tokio::test]
async fn test_message_refusals_do_not_repeat_what_was_sent() {
    let streams = FakeStreams::new();
    for bytes in [&b"{\"secret_key\": \"CANARY\""[..], b"\xff\xfeCANARY", b"CANARY"] {
        let answer = handle(&streams, bytes).await;
        assert_eq!(answer.status, 400);
        assert!(!answer.body.to_string().contains("CANARY"), "{}", answer.body);
    }
}
