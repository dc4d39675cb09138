//! "When a source misbehaves", sentence by sentence.

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;

use super::owed::gzip;
use super::*;
use crate::contract::{ErrorClass, Keep, MemoryKeep, SourceError};
use crate::http::testing::{FixedClock, Say, credits, env, env_with, rows, workload};

const GOOD: &str = r#"{"data":[{"id":1}]}"#;

/// A timeout that a workload runs into: enough for a busy machine to ask twice, short for a test.
const RUN_INTO: &str = "5s";

/// The error of one workload against `answers`, how many requests were made, and how many dead letters came of it.
async fn failure(answers: Vec<Say>, more: Value) -> (SourceError, usize, usize) {
    let server = RudeServer::say(answers).await;
    let mut settings = json!({"timeout": RUN_INTO});
    for (key, value) in more.as_object().expect("an object") {
        settings[key] = value.clone();
    }
    let mount = mounted(&server, settings);
    let mut source = open(&mount, None, &env()).await;
    let (batches, end) = workload(&mut *source, &credits()).await;
    assert!(batches.is_empty());
    let dead = source.workload_failed();
    assert!(source.workload_failed().is_none(), "at most once");
    (end.expect_err("a failed workload"), server.heads().len(), dead.map_or(0, |batch| batch.payloads.len()))
}

#[tokio::test]
async fn test_inside_one_workload_it_retries_with_back_off_until_it_heals() {
    let server = RudeServer::say(vec![
        Say::status(500),
        Say::Raw(Vec::new()),
        Say::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{\"data\":".to_vec()),
        Say::json("<html>"),
        Say::json(GOOD),
    ])
    .await;
    let mount = mounted(&server, json!({}));
    let mut source = open(&mount, None, &env()).await;
    let (batches, end) = workload(&mut *source, &credits()).await;
    assert!(end.is_ok());
    assert_eq!(rows(&*mount, &batches).len(), 1);
    assert_eq!(server.heads().len(), 5);
    assert!(source.workload_failed().is_none(), "junk that healed is forgotten");
}

#[tokio::test]
async fn test_retries_end_at_the_timeout_of_the_workload() {
    let (error, requests, dead) = failure(vec![Say::status(503)], json!({})).await;
    assert_eq!((error.class, error.code.as_str(), dead), (ErrorClass::Transient, "http_503", 0));
    assert!(requests >= 2, "{requests}");
    let started = Instant::now();
    let (error, requests, _) = failure(vec![Say::Hang], json!({})).await;
    assert_eq!((error.class, error.code.as_str(), requests), (ErrorClass::Transient, "timeout", 1));
    assert!(started.elapsed() >= Duration::from_millis(4_500), "{:?}", started.elapsed());
    let slow = Say::Drip(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{".to_vec(), Duration::from_millis(10));
    let (error, ..) = failure(vec![slow], json!({})).await;
    assert_eq!(error.code, "timeout");
}

#[tokio::test]
async fn test_retry_after_is_honoured_across_workloads_and_restarts() {
    for status in [429, 503] {
        let answers = vec![Say::status(status).with("retry-after", "100"), Say::json(GOOD)];
        let server = RudeServer::say(answers).await;
        let keep: Arc<dyn Keep> = Arc::new(MemoryKeep::default());
        let clock = Arc::new(FixedClock::at(0));
        let env = env_with(Arc::clone(&keep), Arc::<FixedClock>::clone(&clock));
        let mount = mounted(&server, json!({}));
        let mut source = open(&mount, None, &env).await;
        let (_, end) = workload(&mut *source, &credits()).await;
        let error = end.expect_err("limited");
        assert_eq!(error.class, ErrorClass::RateLimited);
        let wait = error.retry_after.expect("a wait");
        assert!((100..=110).contains(&wait.as_secs()), "{wait:?}");
        let until = i64::try_from(wait.as_micros()).expect("no age");
        for _ in 0..3 {
            // Another workload, and a process that started anew with the same memory.
            for mount in [Arc::clone(&mount), mounted(&server, json!({}))] {
                let (_, end) = workload(&mut *open(&mount, None, &env).await, &credits()).await;
                assert_eq!(end.expect_err("still limited").code, "retry_after");
            }
        }
        assert_eq!(server.heads().len(), 1, "no request inside the window");
        clock.set(until);
        let mut source = open(&mounted(&server, json!({})), None, &env).await;
        let (batches, _) = workload(&mut *source, &credits()).await;
        assert_eq!(rows(&*mount, &batches).len(), 1);
    }
}

#[tokio::test]
async fn test_retry_after_as_a_date_is_honoured() {
    let date = (chrono::Utc::now() + chrono::Duration::seconds(100)).format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let (error, requests, _) = failure(vec![Say::status(429).with("retry-after", &date)], json!({})).await;
    let wait = error.retry_after.expect("a wait");
    assert!(wait > Duration::from_secs(95) && wait <= Duration::from_secs(110), "{wait:?}");
    assert_eq!((error.class, requests), (ErrorClass::RateLimited, 1));
}

#[tokio::test]
async fn test_a_body_cut_short_is_a_transport_error_and_never_a_dead_letter() {
    let coded = gzip(GOOD.as_bytes());
    let mut gzip_cut =
        format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", coded.len() - 5);
    let mut gzip_cut_bytes = std::mem::take(&mut gzip_cut).into_bytes();
    gzip_cut_bytes.extend(&coded[..coded.len() - 5]);
    let whole = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{GOOD}", GOOD.len());
    let head = whole.len() - GOOD.len();
    let mut cuts: Vec<Vec<u8>> =
        (0..10).map(|tenth| whole.as_bytes()[..head + GOOD.len() * tenth / 10].to_vec()).collect();
    cuts.push(gzip_cut_bytes);
    cuts.push(
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{GOOD}\r\n", GOOD.len()).into_bytes(),
    );
    cuts.push(format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{}", &GOOD[..9]).into_bytes());
    cuts.push(b"HTTP/1.1 200".to_vec());
    let told = cuts.into_iter().map(async |cut| {
        let shown = String::from_utf8_lossy(&cut).into_owned();
        let (error, requests, dead) = failure(vec![Say::Raw(cut)], json!({})).await;
        assert_eq!((error.class, dead), (ErrorClass::Transient, 0), "{shown}: {error}");
        assert!(requests >= 2, "{shown}");
    });
    join_all(told).await;
}

#[tokio::test]
async fn test_a_whole_body_that_is_not_what_was_declared_is_retried_and_then_one_dead_letter() {
    let junk: [(&[u8], &str); 6] = [
        (b"<html>busy</html>", "not_json"),
        (b"", "not_json"),
        (b"\xff\xfe{}", "not_utf8"),
        (br#"{"data":null}"#, "select_missing"),
        (br#"{"status":"ok"}"#, "select_missing"),
        (br#"{"data":[{"id":1}"#, "not_json"),
    ];
    let told = junk.into_iter().map(async |(body, code)| {
        let server = RudeServer::say(vec![Say::status(200).body(body)]).await;
        let mount = mounted(&server, json!({"timeout": RUN_INTO}));
        let credits = credits();
        let mut source = open(&mount, None, &env()).await;
        let (batches, end) = workload(&mut *source, &credits).await;
        let error = end.expect_err("junk");
        assert_eq!((error.class, error.code.as_str(), batches.len()), (ErrorClass::Data, code, 0));
        assert!(server.heads().len() >= 2, "it was retried");
        let batch = source.workload_failed().expect("a dead letter");
        assert_eq!((batch.payloads.len(), &batch.from), (1, &batch.to));
        assert_eq!(&batch.payloads[0].bytes[..], body);
        assert_eq!(batch.payloads[0].dead.as_ref().map(|mark| mark.code), Some(code));
        assert!(source.workload_failed().is_none(), "exactly one");
        drop(batch);
        assert_eq!(credits.used_bytes(), 0);
    });
    join_all(told).await;
}

#[tokio::test]
async fn test_junk_is_kept_when_the_deadline_drops_its_retry() {
    let server = RudeServer::start(|index, _| if index == 0 { Say::json("junk") } else { Say::Hang }).await;
    let mount = mounted(&server, json!({"timeout": "60s"}));
    let credits = credits();
    let mut source = open(&mount, None, &env()).await;
    tokio::select! {
        end = source.next(&credits) => panic!("it ends by itself: {end:?}"),
        () = server.asked(2) => {}
    }
    assert_eq!(source.workload_failed().map(|batch| batch.payloads[0].bytes.to_vec()), Some(b"junk".to_vec()));
}

#[tokio::test]
async fn test_good_pages_before_a_junk_page_are_handed_over() {
    let script = |_: usize, head: &str| match head.split(' ').nth(1) {
        Some("/feed?since=0") => Say::json(r#"{"data":[{"id":1},{"id":2}],"next":"?p=2"}"#),
        _ => Say::json("junk"),
    };
    let server = RudeServer::start(script).await;
    let mount = mounted(&server, json!({"timeout": RUN_INTO, "next": {"body": "$.next"}}));
    let mut source = open(&mount, None, &env()).await;
    let (batches, end) = workload(&mut *source, &credits()).await;
    assert_eq!(rows(&*mount, &batches).len(), 2);
    assert_eq!(end.expect_err("junk").class, ErrorClass::Data);
    let dead = source.workload_failed().expect("a dead letter");
    assert_eq!((&dead.from, &dead.to), (&batches[0].to, &batches[0].to));
}

#[tokio::test]
async fn test_classes_config_and_auth_end_the_workload_at_once() {
    for (status, class) in
        [(400, ErrorClass::Config), (404, ErrorClass::Config), (401, ErrorClass::Auth), (403, ErrorClass::Auth)]
    {
        let (error, requests, dead) = failure(vec![Say::status(status)], json!({})).await;
        assert_eq!((error.class, requests, dead), (class, 1, 0));
    }
}

#[tokio::test]
async fn test_response_rules_come_before_the_status() {
    let rules = json!([
        {"status": [404], "body": {"path": "$.error", "matches": "no_data"}, "action": "ignore"},
        {"body": {"path": "$.error", "matches": "slow.down"}, "action": "rate_limited", "wait": "7s"},
        {"status": [403], "action": "retry"},
        {"status": [200], "body": {"path": "$.error", "matches": "expired"}, "action": "park", "class": "auth"},
    ]);
    let say = |status, body: &str| vec![Say::status(status).body(body.as_bytes())];
    let server = RudeServer::say(say(404, r#"{"error":"NO_DATA here"}"#)).await;
    let mount = mounted(&server, json!({"on_response": rules}));
    assert!(workload(&mut *open(&mount, None, &env()).await, &credits()).await.1.is_ok());
    let (error, ..) = failure(say(200, r#"{"error":"slow down"}"#), json!({"on_response": rules})).await;
    assert_eq!((error.class, error.retry_after >= Some(Duration::from_secs(7))), (ErrorClass::RateLimited, true));
    let (error, requests, _) = failure(say(403, ""), json!({"on_response": rules})).await;
    assert!(error.class == ErrorClass::Transient && requests >= 2);
    let (error, ..) = failure(say(200, r#"{"error":"key expired"}"#), json!({"on_response": rules})).await;
    assert_eq!(error.class, ErrorClass::Auth);
}

#[tokio::test]
async fn test_bodies_are_bounded_as_they_come_and_inflated() {
    let network = json!({"network": {"max_body": "64KiB"}});
    let bomb = gzip(&vec![b' '; 8 << 20]);
    let endless = |head: &str| {
        let mut bytes = head.as_bytes().to_vec();
        bytes.extend(std::iter::repeat_n(b' ', 1 << 20));
        Say::Raw(bytes)
    };
    for answer in [
        Say::status(200).with("content-encoding", "gzip").body(&bomb),
        Say::status(200).body(&vec![b' '; 1 << 20]),
        endless("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"),
        endless("HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n"),
    ] {
        let (error, requests, dead) = failure(vec![answer], network.clone()).await;
        assert_eq!((error.code.as_str(), requests, dead), ("body_too_large", 1, 0));
    }
    let mut head = "HTTP/1.1 200 OK\r\n".to_owned();
    (0..5000).for_each(|n| head.push_str(&format!("x-{n}: {}\r\n", "y".repeat(1000))));
    let (error, ..) = failure(vec![Say::Raw(head.into_bytes())], json!({})).await;
    assert_eq!(error.class, ErrorClass::Transient);
}

#[tokio::test]
async fn test_budget_waits_are_no_requests_and_shared_by_key() {
    let server = RudeServer::say(vec![Say::json(r#"{"data":[]}"#)]).await;
    let kind = HttpPoll::new(Arc::new(Budgets::new()));
    let budget = json!({"budgets": [{"key": "env:KEY", "limit": 3, "per": "1m"}]});
    let mounts = [mount_of(&kind, settings(&server, budget.clone())), mount_of(&kind, settings(&server, budget))];
    let env = env();
    let mut outcomes = Vec::new();
    for round in 0..3 {
        for mount in &mounts {
            outcomes.push((round, workload(&mut *open(mount, None, &env).await, &credits()).await.1));
        }
    }
    let refused: Vec<_> = outcomes.iter().filter_map(|(_, end)| end.as_ref().err()).collect();
    assert_eq!((refused.len(), server.heads().len()), (3, 3));
    assert!(
        refused.iter().all(|e| e.class == ErrorClass::RateLimited && e.retry_after > Some(Duration::from_secs(50)))
    );
}

#[tokio::test]
async fn test_an_error_whose_body_never_ends_is_judged_by_its_status() {
    let raw = b"HTTP/1.1 404 Not Found\r\ncontent-length: 1000\r\n\r\n{".to_vec();
    let (error, ..) = failure(vec![Say::Drip(raw, Duration::ZERO)], json!({"timeout": "20s"})).await;
    assert_eq!((error.code.as_str(), error.class), ("http_404", ErrorClass::Config));
}

#[tokio::test]
async fn test_a_failed_handshake_is_transient() {
    let server = RudeServer::say(vec![Say::Raw(b"no TLS here".to_vec())]).await;
    let base = format!("https://{}", server.address);
    let mount = mounted(&server, json!({"base_url": base, "timeout": "500ms"}));
    let (_, end) = workload(&mut *open(&mount, None, &env()).await, &credits()).await;
    assert_eq!(end.expect_err("no TLS").class, ErrorClass::Transient);
}

#[tokio::test]
async fn test_every_retry_and_page_costs_one_of_the_budget() {
    let budget = json!({"budgets": [{"key": "env:KEY", "limit": 2, "per": "1m"}], "timeout": "5s"});
    let (error, requests, dead) = failure(vec![Say::status(500)], budget.clone()).await;
    assert_eq!((error.class, error.code.as_str(), requests, dead), (ErrorClass::RateLimited, "budget_spent", 2, 0));
    // Junk is not forgotten because its retry would have to wait.
    let (error, requests, dead) = failure(vec![Say::json("junk")], budget.clone()).await;
    assert_eq!((error.class, error.code.as_str(), requests, dead), (ErrorClass::Data, "not_json", 2, 1));
    // Pages that came in order are handed over before the wait.
    let pages = ["[{\"id\":1},{\"id\":2}]", "[{\"id\":3}]", "[{\"id\":4}]"];
    let script = move |index: usize, _: &str| {
        Say::json(&format!(r#"{{"data":{},"next":"?p={index}"}}"#, pages.get(index).copied().unwrap_or("[]")))
    };
    let server = RudeServer::start(script).await;
    let mut more = budget;
    more["next"] = json!({"body": "$.next"});
    let mount = mounted(&server, more);
    let (batches, end) = workload(&mut *open(&mount, None, &env()).await, &credits()).await;
    assert_eq!((rows(&*mount, &batches).len(), server.heads().len()), (3, 2));
    assert_eq!(end.expect_err("spent").code, "budget_spent");
}
