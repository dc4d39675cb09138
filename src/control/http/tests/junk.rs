//! Whatever is sent: a refusal with a body that says why, never a 5xx, and the node goes on.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

/// Sends bytes as they are and reads the first answer: status and body.
async fn raw(address: SocketAddr, bytes: &[u8]) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    // The node may refuse before it has read all.
    let _sent_or_refused = stream.write_all(bytes).await;
    let _closed_or_not = stream.shutdown().await;
    let mut answer = Vec::new();
    let _whole_or_cut = stream.read_to_end(&mut answer).await;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.split(' ').nth(1)?.parse().ok()?;
    Some((status, text.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned())))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime")
}

#[tokio::test]
async fn test_http_junk_paths_and_methods_are_refused_with_the_error_body() {
    let api = Served::start(None).await;
    let cases: [(&str, &str, u16); 17] = [
        ("GET", "/", 404),
        ("GET", "/v1", 404),
        ("GET", "/v1/streams/acme", 404),
        ("GET", "/v1/streams/acme/berlin/dead/replay", 404),
        ("POST", "/v1/streams/acme/berlin/dead/discard", 404),
        ("GET", "/v1/streams/acme/berlin/nothing", 404),
        ("GET", "/v1/streams/Acme/berlin", 400),
        ("GET", "/v1/streams/%ff/berlin", 400),
        ("GET", "/v1/streams/%zz/berlin", 400),
        ("GET", "/v1/streams/..%2f..%2fetc/passwd", 400),
        ("GET", "/v1/incidents/%ff", 400),
        ("GET", "/v1/streams?x=%ff", 400),
        ("GET", "/v1/tree?x=1", 400),
        ("GET", "/metrics?x=1", 400),
        ("GET", "/health/live?x", 400),
        ("DELETE", "/v1/streams", 405),
        ("BREW", "/v1/tree", 405),
    ];
    for (method, path, expected) in cases {
        let request = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let (status, body) = raw(api.address, request.as_bytes()).await.expect("answers");
        assert_eq!(status, expected, "{method} {path}");
        assert_error(status, &serde_json::from_str(&body).unwrap_or_else(|_| panic!("{method} {path}: {body}")));
    }
    for method in ["GET", "PUT", "DELETE"] {
        let (status, body) = api.ask(method, "/v1/messages", None).await;
        assert_eq!((status, body["success"].as_bool()), (405, Some(false)), "messages have their own form");
    }
    let (status, body) = api.ask("PUT", "/v1/streams/a/b/pause", Some(json!({"x": 1}))).await;
    assert_eq!((status, body["code"].as_str()), (400, Some("unexpected_body")));
}

const BODY_ROUTES: [(&str, &str); 7] = [
    ("POST", "/v1/messages"),
    ("PUT", "/v1/streams/acme/berlin"),
    ("PATCH", "/v1/streams/acme/berlin"),
    ("PATCH", "/v1/streams/acme/berlin/checkpoint"),
    ("PUT", "/v1/streams/acme/berlin/pause"),
    ("POST", "/v1/streams/acme/berlin/restart"),
    ("DELETE", "/v1/streams/acme/berlin"),
];

#[test]
fn test_http_junk_bodies_are_refused_on_every_route() {
    let runtime = runtime();
    let api = runtime.block_on(Served::start(None));
    runtime.block_on(api.start_stream());
    let json_junk = prop_oneof![
        Just("[".repeat(5_000)),
        Just("{\"a\":".repeat(5_000)),
        "\\PC{1,60}",
        Just(r#"{"positions": {"a": null}}"#.to_owned()),
        Just(r#"{"pattern": "worker:start", "data": {"adapter": "IQAIR_DAILY", "interval": 1e400}}"#.to_owned()),
        Just("1e999".to_owned()),
    ];
    let body = prop_oneof![json_junk.prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 1..300)];
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(150));
    runner
        .run(&(0..BODY_ROUTES.len(), body), |(route, body)| {
            let (method, path) = BODY_ROUTES[route];
            prop_assume!(body.as_slice() != b"{}" && !body.iter().all(u8::is_ascii_whitespace));
            let request = api.http.request(method.parse().expect("method"), api.url(path)).body(body);
            let (status, answer) = runtime.block_on(async {
                let response = request.send().await.expect("answers");
                (response.status().as_u16(), response.bytes().await.expect("whole"))
            });
            prop_assert!((400..500).contains(&status), "{method} {path}: {status}");
            let answer: Value = serde_json::from_slice(&answer).expect("JSON");
            prop_assert!(answer["code"].is_string() && answer["message"].is_string(), "{answer}");
            prop_assert_eq!(answer.get("error_code").is_some(), path != "/v1/messages");
            Ok(())
        })
        .expect("holds");
}

#[test]
fn test_http_junk_requests_never_become_5xx() {
    let runtime = runtime();
    let api = runtime.block_on(Served::start(None));
    let path = prop_oneof!["/[ -~]{0,40}", "/v1/(streams|references|restarts|events|incidents)[/?][ -~]{0,30}"];
    let method = prop_oneof![Just("GET"), Just("PUT"), Just("POST"), Just("PATCH"), Just("DELETE"), Just("X")];
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(200));
    runner
        .run(&(method, path), |(method, path)| {
            let request = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
            if let Some((status, _)) = runtime.block_on(raw(api.address, request.as_bytes())) {
                prop_assert!(status < 500, "{request}: {status}");
            }
            Ok(())
        })
        .expect("holds");
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(60));
    runner
        .run(&prop::collection::vec(any::<u8>(), 1..200), |bytes| {
            if let Some((status, _)) = runtime.block_on(raw(api.address, &bytes)) {
                prop_assert!((400..500).contains(&status), "{status}");
            }
            Ok(())
        })
        .expect("holds");
    assert_eq!(runtime.block_on(api.ask("GET", "/health/live", None)).0, 200);
}
