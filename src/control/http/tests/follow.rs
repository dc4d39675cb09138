//! Long polls, server-sent events, and the end of the node.

use futures::StreamExt;

use super::*;

#[tokio::test]
async fn test_http_long_poll_wakes_up_for_references_events_and_restarts() {
    let api = Served::start(None).await;
    let get = |path: &'static str| {
        let request = api.http.get(api.url(path));
        tokio::spawn(async move { request.send().await.expect("answers").bytes().await.expect("whole") })
    };
    let waiting =
        [get("/v1/references?wait=60s"), get("/v1/events?wait=60"), get("/v1/restarts?wait=60000ms&class=bug")];
    while api.http.get(api.url("/health/live")).send().await.is_err() {}
    api.streams.publish(json!({"epoch": 1}));
    api.restarts.append(failed("p", "i1"));
    for (waiting, key) in waiting.into_iter().zip(["references", "events", "restarts"]) {
        let bytes = tokio::time::timeout(PATIENCE, waiting).await.expect("woken").expect("no panic");
        let body: Value = serde_json::from_slice(&bytes).expect("JSON");
        assert_eq!(body[key].as_array().map(Vec::len), Some(1), "{body}");
        assert!(body["next"].is_string());
    }
    let (_, body) = api.ask("GET", "/v1/references?after=1&wait=10ms", None).await;
    assert_eq!(body, json!({"references": [], "next": "1"}));
    let (status, body) = api.ask("GET", "/v1/references?after=x", None).await;
    assert_eq!((status, body["code"].as_str()), (400, Some("invalid_cursor")));
}

/// Reads server-sent events until `enough`.
async fn read_until(response: reqwest::Response, enough: impl Fn(&str) -> bool) -> String {
    let mut text = String::new();
    let mut chunks = response.bytes_stream();
    while !enough(&text) {
        let chunk = tokio::time::timeout(PATIENCE, chunks.next()).await.expect("in time");
        text.push_str(std::str::from_utf8(&chunk.expect("goes on").expect("whole")).expect("UTF-8"));
    }
    text
}

#[tokio::test]
async fn test_http_server_sent_events_follow_and_go_on_from_their_id() {
    let api = Served::start(None).await;
    api.streams.publish(json!({"epoch": 1}));
    let follow = |last: Option<&str>| {
        let mut request = api.http.get(api.url("/v1/references?after=0")).header("accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        request.send()
    };
    let response = follow(None).await.expect("answers");
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    api.streams.publish(json!({"epoch": 2}));
    let text = read_until(response, |text| text.contains("\"epoch\":2}")).await;
    assert!(
        text.contains("id: 1\nevent: data-streams:results\ndata: {\"epoch\":1}\n\n") || text.contains("id: 2\n"),
        "{text}"
    );
    let text = read_until(follow(Some("1")).await.expect("answers"), |text| text.contains("\n\n")).await;
    assert_eq!(text, "id: 2\nevent: data-streams:results\ndata: {\"epoch\":2}\n\n");
    assert_eq!(follow(Some("junk")).await.expect("answers").status(), 400);
}

#[tokio::test]
async fn test_http_followers_are_bounded() {
    let api = Served::start(None).await;
    let mut open = Vec::new();
    for _ in 0..limits::FOLLOWERS_MAX {
        let request = api.http.get(api.url("/v1/references")).header("accept", "text/event-stream");
        let response = request.send().await.expect("answers");
        assert_eq!(response.status(), 200);
        open.push(response);
    }
    let request = api.http.get(api.url("/v1/references")).header("accept", "text/event-stream");
    assert_eq!(request.send().await.expect("answers").status(), 429);
}

#[tokio::test]
async fn test_http_stop_answers_long_polls_and_closes() {
    let mut api = Served::start(None).await;
    let waiting = api.http.get(api.url("/v1/references?wait=60s"));
    let waiting = tokio::spawn(async move { waiting.send().await.expect("answers").status() });
    let following = api.http.get(api.url("/v1/references")).header("accept", "text/event-stream");
    let following = following.send().await.expect("answers");
    api.stop.take().expect("once").send(()).expect("served");
    let _ended = following.bytes().await;
    tokio::time::timeout(PATIENCE, &mut api.task).await.expect("ends").expect("no panic");
    // The poll either was under way, and was answered, or came too late for the listener.
    if let Ok(status) = waiting.await {
        assert_eq!(status, 200);
    }
    assert!(api.http.get(api.url("/health/live")).send().await.is_err());
}
