//! Large, slow and many.

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

#[tokio::test]
async fn test_http_body_beyond_its_limit_is_413_announced_or_not() {
    let api = Served::start(None).await;
    let large = vec![b' '; limits::BODY_BYTES_MAX + 1];
    for path in ["/v1/validate", "/v1/messages"] {
        let announced = api.http.post(api.url(path)).body(large.clone()).send().await.expect("answers");
        assert_eq!(announced.status(), 413);
        let chunks = futures::stream::iter(
            large.chunks(1 << 16).map(|chunk| Ok::<_, io::Error>(chunk.to_vec())).collect::<Vec<_>>(),
        );
        let chunked =
            api.http.post(api.url(path)).body(reqwest::Body::wrap_stream(chunks)).send().await.expect("answers");
        assert_eq!(chunked.status(), 413);
        let body: Value = serde_json::from_slice(&chunked.bytes().await.expect("whole")).expect("JSON");
        assert_eq!(body["code"], "body_too_large");
    }
    let fits = vec![b' '; limits::BODY_BYTES_MAX];
    let fits = api.http.post(api.url("/v1/validate")).body(fits).send().await.expect("answers");
    assert_eq!(fits.status(), 200);
}

#[tokio::test]
async fn test_http_headers_beyond_their_limit_are_refused() {
    let api = Served::start(None).await;
    let long = "x".repeat(2 * limits::HEADER_BYTES_MAX);
    let status = api.http.get(api.url("/health/live")).header("x", long).send().await.map(|response| response.status());
    assert!(status.is_err() || status.is_ok_and(|status| status == 431));
}

#[tokio::test]
async fn test_http_requests_beyond_their_number_are_429_and_health_answers() {
    let api = Served::start(None).await;
    api.start_stream().await;
    api.streams.gate.send_replace(false);
    const BEYOND: usize = 20;
    let mut waiting: FuturesUnordered<_> = (0..limits::REQUESTS_MAX + BEYOND)
        .map(|_| {
            let request = api.http.get(api.url("/v1/streams/acme/berlin/records"));
            async move { request.send().await.expect("answers").status().as_u16() }
        })
        .collect();
    // The gate is shut, so whoever answers now was refused.
    for _ in 0..BEYOND {
        assert_eq!(waiting.next().await, Some(429));
    }
    let (status, body) = api.ask("GET", "/v1/tree", None).await;
    assert_eq!(status, 429);
    assert_error(429, &body);
    assert_eq!(api.ask("GET", "/health/live", None).await.0, 200);
    api.streams.gate.send_replace(true);
    let served: Vec<u16> = waiting.collect().await;
    assert_eq!(served, [200; limits::REQUESTS_MAX]);
}

#[tokio::test]
async fn test_http_long_polls_leave_room_for_others() {
    let api = Served::start(None).await;
    const BEYOND: usize = 10;
    let mut polls: FuturesUnordered<_> = (0..limits::LONG_POLLS_MAX + BEYOND)
        .map(|_| {
            let request = api.http.get(api.url("/v1/references?wait=60"));
            async move { request.send().await.expect("answers").status().as_u16() }
        })
        .collect();
    // Nothing is published yet, so whoever answers now was refused.
    for _ in 0..BEYOND {
        assert_eq!(polls.next().await, Some(429));
    }
    assert_eq!(api.ask("GET", "/v1/references", None).await.0, 200, "without waiting there is room");
    api.streams.publish(json!({"epoch": 1}));
    let served: Vec<u16> = polls.collect().await;
    assert_eq!(served, [200; limits::LONG_POLLS_MAX]);
}

#[tokio::test]
async fn test_http_slow_senders_do_not_keep_others_out() {
    let api = Served::start(None).await;
    let mut slow = Vec::new();
    for _ in 0..limits::CONNECTIONS_MAX + 100 {
        let mut stream = TcpStream::connect(api.address).await.expect("connects");
        stream.write_all(b"GET /health/live HTTP/1.1\r\nx: ").await.expect("sent");
        slow.push(stream);
    }
    let (status, _) = api.ask("GET", "/health/live", None).await;
    assert_eq!(status, 200);
    let mut rest = Vec::new();
    let put_out = tokio::time::timeout(PATIENCE, slow[0].read_to_end(&mut rest)).await;
    assert!(put_out.is_ok(), "the oldest idle connection is put out");
    // Both came before the last one had used up its time: nobody had to wait for that.
    let last = slow.last().expect("many").try_read(&mut [0; 1]);
    assert_eq!(last.map_err(|e| e.kind()), Err(std::io::ErrorKind::WouldBlock), "only once the slow ones timed out");
}

#[tokio::test]
async fn test_http_headers_that_never_end_are_cut() {
    let api = Served::start(None).await;
    let mut stream = TcpStream::connect(api.address).await.expect("connects");
    stream.write_all(b"GET /health/live HTTP/1.1\r\nx: ").await.expect("sent");
    let mut rest = Vec::new();
    let cut = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    assert!(cut.is_ok(), "the node closed it");
    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&rest));
}

#[tokio::test]
async fn test_http_body_that_never_ends_is_408() {
    let api = Served::start(None).await;
    let mut stream = TcpStream::connect(api.address).await.expect("connects");
    stream
        .write_all(b"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{")
        .await
        .expect("sent");
    let mut answer = vec![0; 12];
    let read = tokio::time::timeout(PATIENCE, stream.read_exact(&mut answer)).await;
    read.expect("in time").expect("answers");
    assert_eq!(answer, b"HTTP/1.1 408");
}
