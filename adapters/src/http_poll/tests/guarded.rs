//! Where requests may not go. Each refusal is counted at the listener: no connection is made.

use std::net::IpAddr;
use std::sync::Mutex;

use async_trait::async_trait;
use serde_json::json;

use super::*;
use crate::contract::{ErrorClass, Resolve, SourceError};
use crate::http::testing::{CANARY, Say, credits, env, message, read_with, workload};

/// Names that lead where the test says, another place at each look-up.
#[derive(Debug, Default)]
struct Names {
    answers: Mutex<Vec<Vec<IpAddr>>>,
    asked: Mutex<Vec<String>>,
}

impl Names {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let ips = |all: &&[&str]| all.iter().map(|ip| ip.parse().expect("an address")).collect();
        Arc::new(Self { answers: Mutex::new(answers.iter().rev().map(ips).collect()), asked: Mutex::default() })
    }
}

#[async_trait]
impl Resolve for Names {
    async fn resolve(&self, host: &str) -> std::io::Result<Vec<IpAddr>> {
        self.asked.lock().expect("no panic").push(host.to_owned());
        let mut answers = self.answers.lock().expect("no panic");
        let last = answers.last().cloned().unwrap_or_default();
        if answers.len() > 1 {
            answers.pop();
        }
        Ok(last)
    }
}

const GOOD: &str = r#"{"data":[{"id":1}]}"#;

async fn poll(mount: &Arc<dyn Mount>, env: &Env) -> Result<usize, SourceError> {
    let (batches, end) = workload(&mut *open(mount, None, env).await, &credits()).await;
    end.map(|()| batches.len())
}

/// A mount of settings from a message.
fn from_message(server: &RudeServer, base_url: &str, more: Value) -> Option<Arc<dyn Mount>> {
    let mut all = settings(server, more);
    all["base_url"] = json!(base_url);
    all["timeout"] = json!("500ms");
    let table = message(all);
    read_with(&HttpPoll::new(Arc::new(Budgets::new())), &table).0
}

#[tokio::test]
async fn test_endpoint_from_a_message_never_reaches_a_private_address() {
    let server = RudeServer::say(vec![Say::json(GOOD)]).await;
    let port = server.address.port();
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "0.0.0.0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "169.254.169.254",
        "10.0.0.1",
    ] {
        assert!(from_message(&server, &format!("http://{host}:{port}"), json!({})).is_none(), "{host}");
    }
    let private = [
        "127.0.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "10.1.2.3",
        "192.168.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "fd00::1",
        "fe80::1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
    ];
    for ip in private {
        // A public address among private ones does not help.
        for answers in [&[&[ip][..]][..], &[&["93.184.216.34", ip]]] {
            let names = Names::new(answers);
            let mount = from_message(&server, &format!("http://feed.example:{port}"), json!({})).expect("a name");
            let env = Env { resolve: Arc::clone(&names) as Arc<dyn Resolve>, ..env() };
            let error = poll(&mount, &env).await.expect_err(ip);
            assert_eq!((error.class, error.code.as_str()), (ErrorClass::Config, "address_denied"), "{ip}");
            assert_eq!(names.asked.lock().expect("no panic").len(), 1);
        }
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn test_rebinding_a_name_between_look_ups_gains_nothing() {
    let server = RudeServer::say(vec![Say::json(GOOD)]).await;
    let base = format!("http://feed.example:{}", server.address.port());
    // A resolver that is good when it is asked first and bad ever after: what was checked is what is connected to.
    let names = Names::new(&[&["192.0.2.1"], &["127.0.0.1"]]);
    let mount = from_message(&server, &base, json!({"timeout": "900ms"})).expect("a name");
    let env = Env { resolve: names, ..env() };
    for _ in 0..3 {
        assert!(poll(&mount, &env).await.is_err());
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn test_private_endpoints_need_the_operator_or_allow_private() {
    let server = RudeServer::say(vec![Say::json(GOOD)]).await;
    let allowed = json!({"network": {"allow_private": true}});
    let mount = from_message(&server, &server.url(), allowed.clone()).expect("allowed");
    assert_eq!(poll(&mount, &env()).await, Ok(1));
    assert_eq!(poll(&mounted(&server, json!({})), &env()).await, Ok(1), "the operator wrote it");
    // Not even then a cloud's credentials by name.
    let names = Names::new(&[&["169.254.169.254"]]);
    let env = Env { resolve: names, ..env() };
    let mount = from_message(&server, "http://metadata.example", allowed).expect("a name");
    assert_eq!(poll(&mount, &env).await.expect_err("metadata").code, "address_denied");
}

#[tokio::test]
async fn test_redirects_are_refused_by_default_and_never_lead_to_private_addresses() {
    let inner = RudeServer::say(vec![Say::json(GOOD)]).await;
    let port = inner.address.port();
    for target in [
        format!("http://127.0.0.1:{port}/"),
        format!("http://127.1:{port}/"),
        format!("http://localhost:{port}/"),
        format!("http://[::ffff:7f00:1]:{port}/"),
        format!("//127.0.0.1:{port}/x"),
        "file:///etc/passwd".to_owned(),
        format!("http://u:p@127.0.0.1:{port}/"),
        "gopher://127.0.0.1/".to_owned(),
    ] {
        let server = RudeServer::say(vec![Say::status(302).with("location", &target)]).await;
        let error = poll(&mounted(&server, json!({})), &env()).await.expect_err("none is followed");
        assert_eq!((error.class, error.code.as_str()), (ErrorClass::Config, "redirect_refused"));
        let follows = json!({"network": {"max_redirects": 3}});
        let error = poll(&mounted(&server, follows), &env()).await.expect_err(&target);
        assert_eq!((error.class, error.code.as_str()), (ErrorClass::Config, "address_denied"), "{target}");
    }
    assert_eq!(inner.connections(), 0);
}

#[tokio::test]
async fn test_redirects_are_followed_as_far_as_allowed_without_credentials_elsewhere() {
    let other = RudeServer::say(vec![Say::json(GOOD)]).await;
    let script = {
        let other = other.url();
        move |_: usize, head: &str| match head.split([' ', '?']).nth(1) {
            Some("/feed") => Say::status(301).with("location", "/moved"),
            Some("/moved") => Say::status(302).with("location", &format!("{other}/there")),
            _ => Say::status(302).with("location", "/loop"),
        }
    };
    let server = RudeServer::start(script).await;
    for auth in [
        json!({"type": "api_key", "in": "query", "name": "key", "value": "env:KEY"}),
        json!({"type": "api_key", "in": "header", "name": "X-Key", "value": "env:KEY"}),
        json!({"type": "bearer", "token": "env:KEY"}),
        json!({"type": "basic", "username": "u", "password": "env:KEY"}),
    ] {
        let network = json!({"max_redirects": 2, "allow_private": true});
        let request = json!({"path": "/feed", "headers": {"X-Own": "own"}});
        let mount = mounted(&server, json!({"auth": auth, "network": network, "request": request}));
        assert_eq!(poll(&mount, &env()).await, Ok(1));
        let network = json!({"max_redirects": 1, "allow_private": true});
        let error = poll(&mounted(&server, json!({"network": network})), &env()).await.expect_err("one too many");
        assert_eq!(error.code, "redirect_refused");
    }
    for head in other.heads() {
        let head = head.to_lowercase();
        for secret in ["c4n4ry", "authorization", "x-key", "x-own", "key="] {
            assert!(!head.contains(secret), "{secret}");
        }
    }
    assert_eq!(other.heads().len(), 4);
    let looping = RudeServer::say(vec![Say::status(302).with("location", "/loop")]).await;
    let error = poll(&mounted(&looping, json!({"network": {"max_redirects": 5}})), &env()).await;
    assert_eq!((error.expect_err("a loop").code.as_str(), looping.heads().len()), ("redirect_refused", 6));
}

#[tokio::test]
async fn test_a_redirect_that_carries_the_secret_elsewhere_is_refused() {
    let other = RudeServer::say(vec![Say::json(GOOD)]).await;
    let target = format!("{}/?echo={}", other.url(), "c4n4ry%2F%2Bsecret");
    let server = RudeServer::say(vec![Say::status(302).with("location", &target)]).await;
    let auth = json!({"type": "bearer", "token": "env:KEY"});
    let network = json!({"max_redirects": 2, "allow_private": true});
    let error = poll(&mounted(&server, json!({"auth": auth, "network": network})), &env()).await.expect_err("a leak");
    assert_eq!((error.code.as_str(), other.connections()), ("redirect_refused", 0));
    assert!(!format!("{error:?}").contains(CANARY));
}

#[tokio::test]
async fn test_page_links_never_leave_the_origin() {
    let inner = RudeServer::say(vec![Say::json(GOOD)]).await;
    let links = [
        format!("{}/", inner.url()),
        format!("//{}/", inner.address),
        "https://api.example.org/".to_owned(),
        "file:///etc/passwd".to_owned(),
        "http://".to_owned(),
    ];
    for link in links {
        let server = RudeServer::say(vec![Say::json(&format!(r#"{{"data":[{{"id":1}}],"next":"{link}"}}"#))]).await;
        let user_info = format!("http://u@{}/x", server.address);
        for (next, allow) in [(json!({"body": "$.next"}), true), (json!({"body": "$.next"}), false)] {
            let mount = mounted(&server, json!({"next": next, "network": {"allow_private": allow}}));
            let error = poll(&mount, &env()).await.expect_err(&link);
            assert_eq!((error.class, error.code.as_str()), (ErrorClass::Config, "page_link_refused"), "{link}");
        }
        assert!(user_info.contains('@'));
    }
    assert_eq!(inner.connections(), 0);
}

#[tokio::test]
async fn test_partition_values_cannot_leave_their_place() {
    let server = RudeServer::say(vec![Say::json(GOOD)]).await;
    for value in ["a/../../admin", "x?y=1", "x#y", "..%2f..", "a\\b", "ü ñ", "%2e%2e"] {
        let request = json!({"path": "/feed/{part.a}/end", "query": {"q": "{part.a}"}});
        let mount = mounted(&server, json!({"partitions": [{"a": value}], "request": request}));
        assert_eq!(poll(&mount, &env()).await, Ok(1), "{value}");
    }
    for target in server.targets() {
        let (path, query) = target.split_once('?').expect("a query");
        assert_eq!((path.split('/').count(), query.matches('=').count()), (4, 1), "{target}");
        assert!(path.starts_with("/feed/") && path.ends_with("/end"));
    }
    let before = server.connections();
    for value in [".", ".."] {
        let request = json!({"path": "/feed/{part.a}/end"});
        let mount = mounted(&server, json!({"partitions": [{"a": value}], "request": request}));
        assert_eq!(poll(&mount, &env()).await.expect_err(value).class, ErrorClass::Config);
    }
    let mount =
        mounted(&server, json!({"partitions": [{"a": "x\r\ny: z"}], "request": {"headers": {"h": "{part.a}"}}}));
    assert_eq!(poll(&mount, &env()).await.expect_err("a header").class, ErrorClass::Config);
    assert_eq!(server.connections(), before);
}
