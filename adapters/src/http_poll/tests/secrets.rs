//! A secret is sent where it belongs and seen nowhere else.

use serde_json::json;

use super::*;
use crate::http::testing::{CANARY, Say, credits, env, message, read_with, workload};

/// The secret in every spelling in which it travels.
const SPELLINGS: [&str; 5] = [CANARY, "c4n4ry%2F%2Bsecret", "c4n4ry/%2Bsecret", "Yzpj", "YzRuNHJ5LytzZWNyZXQ"];

fn check(what: &str, text: &str) {
    for spelling in SPELLINGS {
        assert!(!text.contains(spelling), "{what} shows the secret");
    }
    assert!(!text.contains("c4n4ry"), "{what} shows the secret");
}

fn auths() -> Vec<Value> {
    vec![
        json!({"auth": {"type": "api_key", "in": "query", "name": "key", "value": "env:KEY"}}),
        json!({"auth": {"type": "api_key", "in": "header", "name": "X-Key", "value": "env:KEY"}}),
        json!({"auth": {"type": "bearer", "token": CANARY}}),
        json!({"auth": {"type": "basic", "username": "c", "password": "env:KEY"}}),
        json!({"request": {"path": "/feed", "query": {"token": "env:KEY"}, "headers": {"X-Key": "env:KEY"}}}),
    ]
}

#[tokio::test]
async fn test_secrets_are_sent_and_in_no_error_meta_or_debug() {
    let echo = format!(r#"{{"data":[{{"id":1,"echo":"{CANARY}"}}],"error":"{CANARY}"}}"#);
    let whole = |status| Say::status(status).body(echo.as_bytes()).with("etag", CANARY).with("x-echo", CANARY);
    let answers = [
        whole(200),
        whole(500),
        whole(401),
        whole(404),
        whole(429).with("retry-after", "0"),
        whole(302).with("location", &format!("http://127.0.0.1:9/{CANARY}?key={CANARY}")),
        Say::json(CANARY),
        Say::Raw(format!("HTTP/1.1 {CANARY}").into_bytes()),
        Say::Hang,
        Say::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{".to_vec()),
    ];
    for more in auths() {
        for answer in &answers {
            let server = RudeServer::say(vec![answer.clone()]).await;
            let mut more = more.clone();
            more["timeout"] = json!("150ms");
            let mount = mounted(&server, more);
            check("a mount", &format!("{mount:?}"));
            let env = env();
            let mut source = open(&mount, None, &env).await;
            let (batches, end) = workload(&mut *source, &credits()).await;
            for batch in batches.iter().chain(&source.workload_failed()) {
                check("a batch", &format!("{batch:?}"));
                for payload in &batch.payloads {
                    check("meta", &format!("{:?} {:?}", payload.meta, payload.dead));
                }
            }
            if let Err(error) = end {
                check("an error", &format!("{error} {error:?}"));
            }
            let heads = server.heads();
            assert!(heads.iter().all(|head| SPELLINGS.iter().any(|s| head.contains(s))), "it is sent: {heads:?}");
        }
    }
}

#[tokio::test]
async fn test_an_unreachable_host_is_named_without_the_secret() {
    let server = RudeServer::say(vec![Say::Hang]).await;
    let more = json!({"timeout": "5s", "auth": auths()[0]["auth"]});
    let mut all = settings(&server, more);
    // A port on which nobody listens and which nobody else can take.
    let taken = tokio::net::TcpSocket::new_v4().expect("a socket");
    taken.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let port = taken.local_addr().expect("bound");
    all["base_url"] = json!(format!("http://{port}"));
    let mount = mount_of(&HttpPoll::new(Arc::new(Budgets::new())), all);
    let (_, end) = workload(&mut *open(&mount, None, &env()).await, &credits()).await;
    let error = end.expect_err("nobody listens");
    assert_eq!(error.code, "connect");
    check("an error", &format!("{error} {error:?}"));
    assert!(error.message.contains("127.0.0.1"));
}

#[test]
fn test_problems_of_settings_show_no_secret() {
    let broken = json!({
        "base_url": format!("https://user:{CANARY}@api.example.org/?key={CANARY}"),
        "interval": CANARY.len(), "timeout": 5,
        "auth": {"type": "bearer", "token": CANARY, "value": CANARY},
        "budgets": [{"key": CANARY, "limit": 0, "per": "x"}],
    });
    let (mount, problems) = read_with(&HttpPoll::new(Arc::new(Budgets::new())), &message(broken));
    assert!(mount.is_none() && problems.len() >= 4);
    check("a problem", &format!("{problems:?}"));
}
