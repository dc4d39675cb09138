//! The suite that every kind must pass.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::conformance::{Subject, all, error_is};
use crate::contract::ErrorClass;
use crate::http::testing::{CANARY, Say, credits, workload};

/// A feed of 40 records in pages of ten that answers from the cursor, inclusive.
fn feed(head: &str) -> Say {
    let target = head.split(' ').nth(1).expect("a target");
    let from: i64 = target.rsplit('=').next().and_then(|text| text.parse().ok()).expect("a number");
    let ids: Vec<String> =
        (from..(from + 10).min(41)).map(|id| format!("{{\"id\":{id},\"w\":\"payload-word\"}}")).collect();
    let next = if from + 10 < 41 { format!(",\"next\":\"/feed?p={}\"", from + 9) } else { String::new() };
    Say::json(&format!("{{\"data\":[{}]{next}}}", ids.join(",")))
}

#[tokio::test]
async fn test_http_poll_with_a_cursor_conforms() {
    let server = RudeServer::start(|_, head| feed(head)).await;
    let more = json!({"auth": {"type": "bearer", "token": "env:KEY"}, "next": {"body": "$.next"}});
    let mount = mounted(&server, more);
    all(&Subject::new(mount).canaries([CANARY, "payload-word"]).pool_bytes(64 * 1024)).await;
}

#[tokio::test]
async fn test_http_poll_without_a_cursor_conforms() {
    let body =
        r#"{"data":[{"k":1,"at":"2024-01-01T00:00:00Z","w":"payload-word"},{"k":2,"at":"2024-01-01T00:00:00Z"}]}"#;
    let server = RudeServer::say(vec![Say::json(body)]).await;
    let records = json!({"select": "$.data", "key": ["k"], "event_time": "at"});
    let mount = mounted(&server, json!({"cursor": null, "records": records}));
    all(&Subject::new(mount).canaries([CANARY, "payload-word"]).pool_bytes(32 * 1024)).await;
}

#[tokio::test]
async fn test_http_poll_errors_have_class_code_and_tell_nothing() {
    let echo = format!("{{\"error\":\"{CANARY}\"}}");
    let answer = |status: u16| Say::status(status).body(echo.as_bytes());
    let cases = [
        (answer(500), ErrorClass::Transient, "http_500"),
        (answer(429), ErrorClass::RateLimited, "http_429"),
        (answer(404), ErrorClass::Config, "http_404"),
        (answer(401), ErrorClass::Auth, "http_401"),
        (answer(200), ErrorClass::Data, "select_missing"),
        (answer(200).with("content-encoding", "zstd"), ErrorClass::Data, "content_coding"),
        (Say::Raw(Vec::new()), ErrorClass::Transient, "transport"),
        (Say::Hang, ErrorClass::Transient, "timeout"),
    ];
    let told = cases.into_iter().map(async |(say, class, code)| {
        let server = RudeServer::say(vec![say]).await;
        let mount = mounted(&server, json!({"timeout": "5s", "auth": {"type": "bearer", "token": "env:KEY"}}));
        let subject = Subject::new(Arc::clone(&mount)).canaries([CANARY]);
        let env = crate::http::testing::env();
        let (_, end) = workload(&mut *open(&mount, None, &env).await, &credits()).await;
        error_is(&subject, code, &end.expect_err(code), class, code);
    });
    futures::future::join_all(told).await;
}

#[tokio::test]
async fn test_waiting_for_credits_is_not_the_sources_failure() {
    // The retry comes after the wait, so it needs what was left of the time before it.
    let server = RudeServer::say(vec![Say::status(500), Say::json(r#"{"data":[{"id":1}]}"#)]).await;
    let mount = mounted(&server, json!({"timeout": "3s"}));
    let credits = crate::contract::Credits::alone(64 * 1024);
    let all = credits.reserve(64 * 1024).await;
    let mut source = open(&mount, None, &crate::http::testing::env()).await;
    let mut pull = std::pin::pin!(source.next(&credits));
    let waiting = tokio::time::timeout(Duration::from_millis(3500), &mut pull).await;
    assert!(waiting.is_err(), "it waits beyond its timeout");
    drop(all);
    assert!(matches!(pull.await, Ok(crate::contract::Pull::Batch(_))));
}
