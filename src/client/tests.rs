//! The verbs against the real API before streams that only remember.

use std::sync::Arc;

use adapters::contract::config::Secret;
use adapters::contract::{Clock, SystemClock};
use serde_json::{Map, json};

use super::*;
use crate::control::fake::FakeStreams;
use crate::control::http::{Deps, serve};
use crate::settings::ApiSettings;
use crate::streams::api::Streams;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::restarts::{Reason, RestartLog, RestartRecord};

struct Node {
    api: Api,
    url: String,
    streams: Arc<FakeStreams>,
    restarts: Arc<RestartLog>,
    _dir: tempfile::TempDir,
}

async fn node(token: Option<&str>) -> Node {
    let dir = tempfile::tempdir().expect("folder");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let restarts = Arc::new(RestartLog::open(dir.path(), Arc::clone(&clock)).expect("opens"));
    let streams = Arc::new(FakeStreams::new());
    let deps = Deps {
        streams: Arc::clone(&streams) as Arc<dyn Streams>,
        restarts: Arc::clone(&restarts),
        metrics: Metrics::install().expect("installs"),
        validate: Arc::new(|_| Vec::new()),
        clock,
    };
    let listen = "127.0.0.1:0".parse().expect("address");
    let settings = ApiSettings { listen, token: token.map(Secret::literal) };
    let (address, _) = serve(&settings, deps, std::future::pending()).await.expect("listens");
    let url = format!("http://{address}");
    Node { api: Api::new(&url, token).expect("address"), url, streams, restarts, _dir: dir }
}

fn target(text: &str) -> Target {
    text.parse().expect("a target")
}

fn utf8(out: Vec<u8>) -> String {
    String::from_utf8(out).expect("UTF-8")
}

async fn started(node: &Node) {
    let mut out = Vec::new();
    start(&node.api, &target("acme/berlin"), Some("IQAIR_DAILY"), Map::new(), false, &mut out).await.expect("starts");
    assert_eq!(utf8(out), "Started fetching from adapter IQAIR_DAILY.\n");
}

#[tokio::test]
async fn test_client_controls_a_stream() {
    let node = node(None).await;
    started(&node).await;
    let words = [
        (Verb::Stop, "stopped"),
        (Verb::Pause, "paused"),
        (Verb::Resume, "running"),
        (Verb::Restart, "restarted"),
        (Verb::Interrupt, "interrupted"),
    ];
    for (verb, word) in words {
        let mut out = Vec::new();
        control(&node.api, verb, &target("acme/berlin"), false, &mut out).await.expect("done");
        assert_eq!(utf8(out), format!("acme/berlin: {word}\n"));
    }
    let mut out = Vec::new();
    let partition = target("acme/berlin/lat=1,lon=2/x");
    control(&node.api, Verb::Restart, &partition, false, &mut out).await.expect("done");
    assert!(node.streams.asked().contains(&r#"restart acme/berlin Some("lat=1,lon=2/x")"#.to_owned()));
    let refused = control(&node.api, Verb::Stop, &partition, false, &mut out).await.expect_err("whole streams only");
    assert_eq!(refused.exit_code(), 2);
    start(&node.api, &target("acme/berlin"), None, Map::new(), true, &mut out).await.expect("runs again");
    assert!(node.streams.asked().contains(&"desire acme/berlin Running".to_owned()));
}

#[tokio::test]
async fn test_client_exit_codes_tell_what_is_wrong() {
    let node = node(Some("secret")).await;
    let mut out = Vec::new();
    for token in [None, Some("wrong")] {
        let api = Api::new(&node.url, token).expect("address");
        let error = status(&api, None, false, &mut out).await.expect_err("not allowed");
        assert_eq!(error.exit_code(), 4, "{error}");
    }
    let unknown = status(&node.api, Some(&target("a/b")), false, &mut out).await.expect_err("unknown");
    assert_eq!(unknown.exit_code(), 1);
    assert!(unknown.to_string().contains("unknown_stream"), "{unknown}");
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        format!("http://user:canary@{}", listener.local_addr().expect("address"))
    };
    let api = Api::new(&closed, None).expect("address");
    let error = status(&api, None, false, &mut out).await.expect_err("nobody there");
    assert_eq!(error.exit_code(), 3);
    assert!(!format!("{error} {error:?}").contains("canary"));
    for wrong in ["", "127.0.0.1:7400", "ftp://x", "http://"] {
        assert_eq!(Api::new(wrong, None).expect_err("no address").exit_code(), 2, "{wrong}");
    }
    assert!(out.is_empty(), "what fails prints nothing on stdout");
}

#[tokio::test]
async fn test_client_shows_status_and_tree() {
    let node = node(None).await;
    started(&node).await;
    let mut out = Vec::new();
    status(&node.api, None, false, &mut out).await.expect("shown");
    let text = utf8(out);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0].find("DESIRED"), lines[1].find("running"), "{text}");
    let mut out = Vec::new();
    status(&node.api, Some(&target("acme/berlin")), true, &mut out).await.expect("shown");
    let value: Value = serde_json::from_str(&utf8(out)).expect("one document");
    assert_eq!(value["epoch"], 12);
    let mut out = Vec::new();
    node.streams.asked();
    let ask = TreeAsk { depth: Some(3), only: vec!["parked".into(), "running".into()], ..TreeAsk::default() };
    tree(&node.api, &ask, &Screen::default, false, &mut out).await.expect("shown");
    let text = utf8(out);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("lakefeed  running 3.0 s  #1  restarts 2  1 in window, 4 left"), "{text}");
    assert!(lines[3].starts_with("    └── 2  parked: auth http_401: the key"), "{text}");
    assert!(!text.contains('\u{1b}'), "nothing from outside steers the terminal");
    let asked = node.streams.asked();
    assert!(asked[0].contains(r#"depth: Some(3), only: ["parked", "running"], limit: Some(200)"#), "{asked:?}");
    let mut head = Head { lines: 12, text: Vec::new() };
    let ask = TreeAsk { watch: Some(std::time::Duration::from_millis(1)), ..TreeAsk::default() };
    let end = tree(&node.api, &ask, &Screen::default, false, &mut head).await.expect_err("its reader is gone");
    assert!(end.is_closed_pipe());
    assert_eq!(utf8(head.text).matches("lakefeed  running").count(), 3, "a tree of four lines under a line each");
}

fn record(n: u64, event: &str, class: Option<&str>) -> RestartRecord {
    let reason = class.map(|class| Reason {
        class: class.to_owned(),
        code: "panic".to_owned(),
        message: "went \u{1b}[31m wrong".to_owned(),
    });
    RestartRecord {
        incident: Some("i1".to_owned()),
        path: "lakefeed/tenants/acme/berlin/workers/main".to_owned(),
        incarnation: n,
        event: event.to_owned(),
        reason,
        ..RestartRecord::default()
    }
}

#[tokio::test]
async fn test_client_tells_restarts_and_the_story_of_an_incident() {
    let node = node(None).await;
    node.restarts.append(record(1, "failed", Some("bug")));
    node.restarts.append(RestartRecord { delay_ms: Some(200), ..record(1, "restarting", Some("bug")) });
    node.restarts.append(RestartRecord { recovered_in_ms: Some(1_234), ..record(2, "restarted", None) });
    let mut out = Vec::new();
    restarts(&node.api, &RestartsQuery::default(), false, &mut out).await.expect("shown");
    let text = utf8(out);
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.contains("again in 200 ms") && text.contains("recovered in 1.2 s"), "{text}");
    assert!(!text.contains('\u{1b}'), "nothing from outside steers the terminal");
    let long = RestartsQuery { format: crate::cli::Format::Long, events: vec!["failed".into()], ..Default::default() };
    let mut out = Vec::new();
    restarts(&node.api, &long, false, &mut out).await.expect("shown");
    let text = utf8(out);
    assert!(
        text.contains("\n    why        bug panic: went \u{fffd}[31m wrong\n") && text.contains("    to do "),
        "{text}"
    );
    assert_eq!(text.lines().filter(|line| !line.starts_with(' ')).count(), 1);
    let lines = RestartsQuery { format: crate::cli::Format::Json, ..Default::default() };
    let mut out = Vec::new();
    restarts(&node.api, &lines, false, &mut out).await.expect("shown");
    let text = utf8(out);
    assert_eq!(text.lines().filter(|line| serde_json::from_str::<RestartRecord>(line).is_ok()).count(), 3);
    let query = RestartsQuery { class: Some("bug".to_owned()), since: Some("1h".to_owned()), ..Default::default() };
    let mut out = Vec::new();
    restarts(&node.api, &query, true, &mut out).await.expect("shown");
    let value: Value = serde_json::from_str(&utf8(out)).expect("one document");
    assert_eq!(value["restarts"].as_array().map(Vec::len), Some(2));
    let mut out = Vec::new();
    incident(&node.api, "i1", false, &mut out).await.expect("shown");
    let text = utf8(out);
    for part in
        ["Incident i1\nover", "bug panic", "the first cause", "after 1.2 s", "running 5.0 s", "What to do", "report it"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert_eq!(incident(&node.api, "../x", false, &mut Vec::new()).await.expect_err("no id").exit_code(), 2);
    assert_eq!(incident(&node.api, "none", false, &mut Vec::new()).await.expect_err("unknown").exit_code(), 1);
}

/// Output whose reader goes away after some lines, as `head` does.
struct Head {
    lines: usize,
    text: Vec<u8>,
}

impl Write for Head {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.lines == 0 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.lines -= bytes.iter().filter(|byte| **byte == b'\n').count().min(self.lines);
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn test_client_follows_until_its_reader_is_gone() {
    let node = node(None).await;
    node.streams.publish(json!({"tenant": "acme", "stream": "berlin", "epoch": 1, "timestamp": "1646496980"}));
    let mut out = Head { lines: 2, text: Vec::new() };
    let streams = Arc::clone(&node.streams);
    let later = tokio::spawn(async move {
        for epoch in 2..5 {
            tokio::task::yield_now().await;
            streams.publish(json!({"tenant": "acme", "stream": "berlin", "epoch": epoch}));
        }
    });
    let end = references(&node.api, None, None, (true, true), &mut out).await.expect_err("its reader is gone");
    assert!(end.is_closed_pipe());
    later.await.expect("no panic");
    let epochs: Vec<u64> = utf8(out.text)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON lines")["epoch"].as_u64().expect("epoch"))
        .collect();
    assert_eq!(epochs, [1, 2]);
    let mut out = Vec::new();
    references(&node.api, None, Some("0"), (false, false), &mut out).await.expect("shown");
    assert!(utf8(out).starts_with("2022-03-05T16:16:20Z  acme/berlin  epoch 1"));
}

#[tokio::test]
async fn test_client_shows_checkpoints_dead_letters_and_records() {
    let node = node(None).await;
    started(&node).await;
    let berlin = target("acme/berlin");
    let positions = [("main".to_owned(), "9".to_owned())];
    let mut out = Vec::new();
    let refused = checkpoint_set(&node.api, &berlin, &positions, false, &mut out).await.expect_err("it runs");
    assert!(refused.to_string().contains("not_stopped") && refused.to_string().contains("Stop the stream first"));
    control(&node.api, Verb::Stop, &berlin, false, &mut out).await.expect("stops");
    out.clear();
    checkpoint_set(&node.api, &berlin, &positions, false, &mut out).await.expect("set");
    checkpoint_reset(&node.api, &berlin, true, &mut out).await.expect("reset");
    checkpoint_show(&node.api, &berlin, false, &mut out).await.expect("shown");
    assert!(utf8(out).starts_with("epoch 13, generation 3\nPARTITION  POSITION\nmain       9\n{"));
    let mut out = Vec::new();
    dead_list(&node.api, &berlin, None, 10, false, &mut out).await.expect("shown");
    assert!(utf8(out).contains("3.0.1  3"));
    let mut out = Vec::new();
    dead_show(&node.api, &berlin, "3.0.1", false, &mut out).await.expect("shown");
    assert!(utf8(out).contains("not_json"));
    assert_eq!(dead_show(&node.api, &berlin, "9", false, &mut Vec::new()).await.expect_err("unknown").exit_code(), 1);
    let mut out = Vec::new();
    records(&node.api, &berlin, None, 3, true, &mut out).await.expect("shown");
    let value: Value = serde_json::from_str(&utf8(out)).expect("one document");
    assert_eq!((value["records"].as_array().map(Vec::len), value["next"].as_str()), (Some(3), Some("3")));
    let mut out = Vec::new();
    records(&node.api, &berlin, None, 100, false, &mut out).await.expect("shown");
    let text = utf8(out);
    assert_eq!(text.lines().count(), 6);
    assert!(!text.contains('\u{1b}'));
}
