//! Each route, its answers, and who may ask.

use super::*;
use crate::control::http::openapi::OPERATIONS;

fn concrete(path: &str) -> String {
    path.replace("{tenant}", "acme").replace("{stream}", "berlin").replace("{id}", "i1")
}

#[tokio::test]
async fn test_http_stream_lives_through_its_routes() {
    let api = Served::start(None).await;
    api.start_stream().await;
    let (status, body) = api.ask("GET", "/v1/streams", None).await;
    assert_eq!((status, body["streams"][0]["stream"].as_str()), (200, Some("berlin")));
    assert_eq!(api.ask("GET", "/v1/streams?tenant=nobody", None).await.1, json!({"streams": []}));
    let stream = "/v1/streams/acme/berlin";
    let response = api.http.get(api.url(stream)).send().await.expect("answers");
    assert_eq!(response.headers()["etag"], "\"1\"");
    assert_eq!(api.ask("GET", &format!("{stream}/status"), None).await.1["desired"], "running");
    let (status, body) =
        api.ask("PATCH", &format!("{stream}/checkpoint"), Some(json!({"positions": {"a": "1"}}))).await;
    assert_eq!((status, body["code"].as_str()), (409, Some("not_stopped")));
    assert!(body["remedy"].is_string());
    for (verb, desired) in [("pause", "paused"), ("resume", "running"), ("stop", "stopped")] {
        let (status, body) = api.ask("PUT", &format!("{stream}/{verb}"), None).await;
        assert_eq!((status, body["desired"].as_str()), (202, Some(desired)));
    }
    let (status, body) =
        api.ask("PATCH", &format!("{stream}/checkpoint"), Some(json!({"positions": {"a": "1"}}))).await;
    assert_eq!((status, &body["positions"]), (200, &json!({"a": "1"})));
    assert_eq!(api.ask("DELETE", &format!("{stream}/checkpoint"), None).await.0, 200);
    assert_eq!(api.ask("GET", &format!("{stream}/checkpoint"), None).await.1["epoch"], 12);
    assert_eq!(api.ask("POST", &format!("{stream}/restart?partition=lat%3D52.5%2Clon%3D13.4"), None).await.0, 200);
    assert_eq!(api.ask("POST", &format!("{stream}/interrupt"), Some(json!({}))).await.0, 200);
    assert!(api.streams.asked().contains(&r#"restart acme/berlin Some("lat=52.5,lon=13.4")"#.to_owned()));
    let (status, body) = api.ask("GET", &format!("{stream}/records?limit=2&after=1"), None).await;
    assert_eq!((status, body["records"][0]["seq"].as_u64(), body["next"].as_str()), (200, Some(1), Some("3")));
    assert_eq!(api.ask("GET", &format!("{stream}/dead"), None).await.1["dead"][0]["code"], "not_json");
    assert_eq!(api.ask("DELETE", stream, None).await.0, 200);
    let (status, body) = api.ask("GET", stream, None).await;
    assert_eq!(status, 404);
    assert_error(404, &body);
    for verb in ["pause", "resume", "stop", "checkpoint"] {
        let method = if verb == "checkpoint" { "GET" } else { "PUT" };
        assert_eq!(api.ask(method, &format!("{stream}/{verb}"), None).await.0, 404);
    }
}

#[tokio::test]
async fn test_http_etag_guards_every_change() {
    let api = Served::start(None).await;
    api.start_stream().await;
    let stream = api.url("/v1/streams/acme/berlin");
    let put = |header: &'static str, value: &'static str| {
        let body = json!({"adapter": "IQAIR_DAILY"}).to_string();
        let request = api.http.put(&stream).header(header, value).body(body);
        async move { request.send().await.expect("answers").status().as_u16() }
    };
    assert_eq!(put("if-match", "\"7\"").await, 409);
    assert_eq!(put("if-none-match", "*").await, 409);
    assert_eq!(put("if-match", "junk").await, 400);
    assert_eq!(put("if-match", "\"1\"").await, 200);
    assert_eq!(put("if-match", "\"1\"").await, 409, "the version moved on");
    assert_eq!(put("if-match", "*").await, 200);
    let stale = api.http.delete(&stream).header("if-match", "\"1\"").send().await.expect("answers");
    assert_eq!(stale.status(), 409);
    let paused = api.http.put(format!("{stream}/pause")).header("if-match", "\"1\"").send().await.expect("answers");
    assert_eq!(paused.status(), 409);
}

#[tokio::test]
async fn test_http_patch_merges_and_keeps_what_it_does_not_name() {
    let api = Served::start(None).await;
    api.start_stream().await;
    api.streams.asked();
    let patch = json!({"timeout": 500, "interval": null, "settings": {"a": null, "c": {"d": 3}}, "bucket_name": "b1"});
    let (status, body) = api.ask("PATCH", "/v1/streams/acme/berlin", Some(patch)).await;
    assert_eq!((status, body["version"].as_u64()), (200, Some(2)));
    let expected = json!({"secret_key": "***", "timeout": 500, "settings": {"b": 2, "c": {"d": 3}}});
    assert_eq!(api.streams.asked(), [format!("start acme/berlin IQAIR_DAILY {expected}")]);
    let (_, body) = api.ask("PATCH", "/v1/streams/acme/berlin", Some(json!({"timeout": 600}))).await;
    assert_eq!(body["settings"]["bucket_name"], "b1", "kept");
    assert_eq!(api.ask("PATCH", "/v1/streams/acme/berlin", Some(json!({"timeout": 5}))).await.0, 400);
    assert_eq!(api.ask("PUT", "/v1/streams/acme/berlin/stop", None).await.0, 202);
    let (status, body) = api.ask("PATCH", "/v1/streams/acme/berlin", Some(json!({"timeout": 700}))).await;
    assert_eq!((status, body["code"].as_str()), (409, Some("not_running")), "a patch starts nothing");
}

#[tokio::test]
async fn test_http_restarts_incidents_tree_health_and_metrics() {
    let api = Served::start(None).await;
    api.restarts.append(failed("lakefeed/tenants/acme/berlin/workers/main", "i1"));
    api.restarts.append(failed("lakefeed/tenants/other/x/workers/main", "i2"));
    let (status, body) = api.ask("GET", "/v1/restarts?stream=acme/berlin&since=1h&class=bug", None).await;
    assert_eq!((status, body["restarts"].as_array().map(Vec::len)), (200, Some(1)), "{body}");
    let next = body["next"].as_str().expect("a string").to_owned();
    assert_eq!(api.ask("GET", &format!("/v1/restarts?after={next}"), None).await.1["restarts"], json!([]));
    for bad in ["after=x", "since=yesterday", "stream=acme", "limit=0", "wait=soon", "events=1"] {
        let (status, body) = api.ask("GET", &format!("/v1/restarts?{bad}"), None).await;
        assert_eq!(status, 400, "{bad}");
        assert_error(400, &body);
    }
    let (status, body) = api.ask("GET", "/v1/incidents/i1", None).await;
    assert_eq!((status, body["cause"]["reason"]["code"].as_str()), (200, Some("panic")));
    assert_eq!(api.ask("GET", "/v1/incidents/none", None).await.1["code"], "unknown_incident");
    assert_eq!(api.ask("GET", "/v1/tree", None).await.1["path"], "lakefeed");
    assert_eq!(api.ask("GET", "/health/live", None).await.0, 200);
    assert_eq!(api.ask("GET", "/health/ready", None).await.0, 200);
    *api.streams.ready.lock().expect("lock") = Err(json!({"waiting": ["acme/berlin"]}));
    let (status, body) = api.ask("GET", "/health/ready", None).await;
    assert_error(503, &body);
    assert_eq!((status, &body["detail"]["waiting"][0]), (503, &json!("acme/berlin")));
    let response = api.http.get(api.url("/metrics")).send().await.expect("answers");
    assert!(response.headers()["content-type"].to_str().expect("text").starts_with("text/plain; version=0.0.4"));
    assert!(response.text().await.expect("text").contains("lakefeed_build_info"));
}

#[tokio::test]
async fn test_http_validate_gives_all_problems() {
    let api = Served::start(None).await;
    let post = |body: &'static str| {
        let request = api.http.post(api.url("/v1/validate")).body(body);
        async move {
            let response = request.send().await.expect("answers");
            let status = response.status().as_u16();
            (status, serde_json::from_slice::<Value>(&response.bytes().await.expect("whole")).expect("JSON"))
        }
    };
    assert_eq!(post("good = 1").await, (200, json!({"valid": true, "problems": []})));
    let (status, body) = post("bad = 1").await;
    assert_eq!(
        (status, body["valid"].as_bool(), body["problems"].as_array().map(Vec::len)),
        (200, Some(false), Some(1))
    );
    let (status, body) = post("{{{").await;
    assert_eq!((status, body["problems"].as_array().map(Vec::len)), (400, Some(1)));
    assert_error(400, &body);
}

#[tokio::test]
async fn test_http_every_route_wants_the_token() {
    let api = Served::start(Some("correct horse")).await;
    for operation in OPERATIONS {
        let method: reqwest::Method = operation.method.to_uppercase().parse().expect("method");
        let url = api.url(&concrete(operation.path));
        let open = operation.path.starts_with("/health/");
        for wrong in [
            None,
            Some("Bearer wrong"),
            Some("Bearer "),
            Some("Basic Y29ycmVjdCBob3JzZQ=="),
            Some("correct horse"),
            Some("Bearer correct hors"),
            Some("Bearer correct horse2"),
        ] {
            let mut request = api.http.request(method.clone(), &url);
            if let Some(wrong) = wrong {
                request = request.header("authorization", wrong);
            }
            let response = request.send().await.expect("answers");
            assert_eq!(response.status() == 401, !open, "{method} {url} {wrong:?}");
            if !open {
                assert_eq!(response.headers()["www-authenticate"], "Bearer");
                let body: Value = serde_json::from_slice(&response.bytes().await.expect("whole")).expect("JSON");
                if operation.path == "/v1/messages" {
                    assert_eq!((body["success"].as_bool(), body.get("error_code")), (Some(false), None));
                } else {
                    assert_error(401, &body);
                }
            }
        }
        let good = api.http.request(method.clone(), &url).header("authorization", "bearer correct horse");
        let status = good.send().await.expect("answers").status().as_u16();
        assert!(status != 401 && status != 403 && status < 500, "{method} {url} {status}");
    }
    let nowhere = api.http.get(api.url("/nowhere")).send().await.expect("answers");
    assert_eq!(nowhere.status(), 401, "not even whether a route exists");
}

#[tokio::test]
async fn test_http_beyond_loopback_needs_a_token() {
    let dir = tempfile::tempdir().expect("folder");
    let serve_on = |listen: &'static str, token: Option<&'static str>| {
        let (deps, _) = deps(&dir);
        async move { serve(&settings(listen, token), deps, std::future::pending()).await }
    };
    for open in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        assert!(matches!(serve_on(open, None).await, Err(ServeError::TokenNeeded(_))), "{open}");
    }
    assert!(matches!(serve_on("127.0.0.1:0", Some("")).await, Err(ServeError::TokenEmpty)));
    assert!(matches!(serve_on("192.0.2.1:9", Some("t")).await, Err(ServeError::Listen { .. })));
    assert!(serve_on("0.0.0.0:0", Some("t")).await.is_ok());
}

#[tokio::test]
async fn test_http_without_a_token_refuses_pages_of_other_origins() {
    let api = Served::start(None).await;
    let ask = |method: &'static str, path: &'static str, name: &'static str, value: &'static str| {
        let request = api.http.request(method.parse().expect("method"), api.url(path)).header(name, value);
        async move { request.send().await.expect("answers").status().as_u16() }
    };
    assert_eq!(ask("GET", "/v1/streams", "host", "evil.example").await, 403);
    assert_eq!(ask("GET", "/v1/streams", "host", "localhost:1").await, 200);
    assert_eq!(ask("PUT", "/v1/streams/a/b/stop", "origin", "https://evil.example").await, 403);
    assert_eq!(ask("PUT", "/v1/streams/a/b/stop", "origin", "null").await, 403);
    assert_eq!(ask("PUT", "/v1/streams/a/b/stop", "origin", "http://localhost:3000").await, 404);
    let with_token = Served::start(Some("t")).await;
    let named = with_token.http.get(with_token.url("/v1/streams")).header("host", "node.example");
    assert_eq!(named.bearer_auth("t").send().await.expect("answers").status(), 200);
}

#[tokio::test]
async fn test_http_openapi_and_router_know_the_same_routes() {
    let api = Served::start(None).await;
    let (_, document) = api.ask("GET", "/v1/openapi.json", None).await;
    let paths = document["paths"].as_object().expect("paths");
    for (path, methods) in paths {
        for method in ["get", "put", "post", "patch", "delete", "options"] {
            let described = methods.get(method).is_some();
            let (status, body) = api.ask(&method.to_uppercase(), &concrete(path), None).await;
            assert_ne!(body["code"], "unknown_route", "{method} {path}");
            assert_eq!(status == 405, !described, "{method} {path}");
        }
    }
    let routed: Vec<String> = include_str!("../routes.rs")
        .split(['\n', '('])
        .filter_map(|piece| piece.trim().strip_prefix('"')?.split('"').next().map(str::to_owned))
        .filter(|path| path.starts_with('/'))
        .collect();
    assert!(routed.len() > 15);
    for path in routed {
        assert!(paths.keys().any(|known| known.ends_with(path.trim_end_matches('/'))), "{path} is not described");
    }
    let text = document.to_string();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap_or("");
        assert!(document["components"]["schemas"].get(name).is_some(), "{name}");
    }
}
