//! What is refused, and how.

use serde_json::{Value, json};

use crate::support::scripted::{Answer, Scripted};
use crate::support::{Lab, Node};

async fn refused(node: &Node, method: &str, path: &str, body: Value, status: u16, code: &str, field: Option<&str>) {
    let (got, answer) = match method {
        "GET" => node.get(path).await,
        _ => node.send(method, path, &body).await,
    };
    assert_eq!((got, answer["code"].as_str()), (status, Some(code)), "{method} {path}: {answer}");
    assert_eq!(answer["error_code"], status, "{answer}");
    assert_eq!(answer["field"].as_str(), field, "{answer}");
}

#[tokio::test]
async fn test_junk_in_queries_and_positions_is_a_bad_request() {
    let source = Scripted::start(Answer::record(1)).await;
    let lab = Lab::new(&source.config("cursor = { field = \"id\", start = \"0\" }"));
    let mut node = lab.start();
    node.ready().await;
    lab.epoch_after(Scripted::STREAM, 0).await;
    let at = |rest: &str| format!("/v1/streams/{}{rest}", Scripted::STREAM);
    for list in ["/records", "/dead"] {
        let path = at(&format!("{list}?after=junk"));
        refused(&node, "GET", &path, Value::Null, 400, "invalid_cursor", Some("after")).await;
    }
    refused(&node, "GET", "/v1/restarts?class=junk", Value::Null, 400, "invalid_value", Some("class")).await;
    assert_eq!(node.get("/v1/restarts?class=rate_limited").await.0, 200);

    let set = |name: &str, to: &str| json!({"positions": {name: to}});
    let path = at("/checkpoint");
    refused(&node, "PATCH", &path, set("main", "{\"c\":\"1\"}"), 409, "not_stopped", None).await;
    assert_eq!(node.send("PUT", &at("/stop"), &json!({})).await.0, 202);
    refused(&node, "PATCH", &path, set("other", "1"), 400, "unknown_partition", Some("positions.other")).await;
    // By its answer all that was collected before the stop is committed.
    let epoch = lab.epoch(Scripted::STREAM);
    refused(&node, "PATCH", &path, set("other", "1"), 400, "unknown_partition", Some("positions.other")).await;
    refused(&node, "PATCH", &path, set("main", "junk"), 400, "invalid_value", Some("positions.main")).await;
    assert_eq!(lab.epoch(Scripted::STREAM), epoch, "nothing of it is in the lake");
    let (status, answer) = node.send("PATCH", &path, &set("main", "{\"c\":\"0\"}")).await;
    assert_eq!((status, &answer["positions"]["main"]), (200, &json!("{\"c\":\"0\"}")), "{answer}");
}

#[tokio::test]
async fn test_private_endpoint_of_a_message_is_not_allowed() {
    let source = Scripted::start(Answer::record(1)).await;
    let allow = format!("allow = {{ endpoints = [\"http://{}/\"] }}", source.address());
    let ask = json!({"adapter": "SRC", "stream": "own", "endpoint": format!("http://{}/deeper", source.address())});
    for (network, wanted) in [("", 403), ("network = { allow_private = true }", 200)] {
        let lab = Lab::new(&source.config(&format!("{allow}\n{network}")));
        let mut node = lab.start();
        node.ready().await;
        let (status, answer) = node.message("worker:start", ask.clone()).await;
        assert_eq!(status, wanted, "{answer}");
        if wanted == 403 {
            assert_eq!((&answer["code"], &answer["field"]), (&json!("not_allowed"), &json!("endpoint")), "{answer}");
        }
    }
}

#[tokio::test]
async fn test_a_lost_secret_is_asked_for_and_never_guessed() {
    let source = Scripted::start(Answer::record(1)).await;
    let lab = Lab::new(&source.config("auth = { type = \"bearer\", token = \"operators-own\" }"));
    let mut node = lab.start();
    node.ready().await;
    let start = json!({"adapter": "SRC", "stream": "own", "secret_key": "customers-own"});
    assert_eq!(node.message("worker:start", start.clone()).await.0, 200);
    lab.epoch_after("default/own", 0).await;
    node.kill();
    let mut node = lab.start();
    node.ready().await;
    let path = "/v1/streams/default/own";
    refused(&node, "PATCH", path, json!({"interval": 500}), 409, "secret_lost", None).await;
    let masked = source.asked().iter().any(|asked| asked.headers["authorization"] == "Bearer ***");
    assert!(!masked, "the mask went out as a secret");
    assert_eq!(node.message("worker:start", start).await.0, 200);
    let (status, answer) = node.send("PATCH", path, &json!({"interval": 500})).await;
    assert_eq!((status, &answer["settings"]["secret_key"]), (200, &json!("***")), "{answer}");
}
