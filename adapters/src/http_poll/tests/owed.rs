//! "What a polled source is owed": every record with a cursor, each observation once without.

use serde_json::json;

use super::*;
use crate::contract::Pull;
use crate::http::testing::{Say, credits, env, rows, workload};

#[tokio::test]
async fn test_cursor_source_gives_every_record_once_and_asks_from_the_cursor() {
    let server = RudeServer::say(vec![
        Say::json(r#"{"data":[{"id":1},{"id":2}]}"#),
        Say::json(r#"{"data":[{"id":2},{"id":2,"late":true},{"id":3}]}"#),
        Say::json(r#"{"data":[{"id":3}]}"#),
    ])
    .await;
    let mount = mounted(&server, json!({}));
    let (env, credits) = (env(), credits());
    let mut source = open(&mount, None, &env).await;
    let (first, end) = workload(&mut *source, &credits).await;
    assert!(end.is_ok());
    assert_eq!((first.len(), first[0].payloads.len()), (1, 1));
    assert_eq!(first[0].from, None);
    assert_eq!(first[0].payloads[0].position, first[0].to);
    assert_eq!(rows(&*mount, &first).len(), 2);

    // A new source at the committed position goes on exactly there.
    let mut source = open(&mount, first[0].to.as_ref(), &env).await;
    let (second, _) = workload(&mut *source, &credits).await;
    assert_eq!(second[0].from, first[0].to);
    assert_eq!(rows(&*mount, &second), [json!({"id":2,"late":true}), json!({"id":3})]);
    let (third, end) = workload(&mut *source, &credits).await;
    assert!(third.is_empty() && end.is_ok());
    assert_eq!(server.targets(), ["/feed?since=0", "/feed?since=2", "/feed?since=3"]);
}

#[tokio::test]
async fn test_raw_payload_is_the_body_as_it_came_with_its_coding_undone() {
    let body = b" {\"data\" : [ {\"id\":1} ] }\r\n";
    let gzip = gzip(body);
    let server =
        RudeServer::say(vec![Say::status(200).with("content-encoding", "gzip").with("etag", "\"x\"").body(&gzip)])
            .await;
    let mount = mounted(&server, json!({}));
    let (batches, _) = workload(&mut *open(&mount, None, &env()).await, &credits()).await;
    let payload = &batches[0].payloads[0];
    assert_eq!(&payload.bytes[..], body);
    assert_eq!(payload.meta["status"], "200");
    assert_eq!(payload.meta["etag"], "\"x\"");
    assert_eq!(payload.meta["url"], format!("{}/feed?since=0", server.url()));
}

#[tokio::test]
async fn test_pages_of_one_workload_are_one_batch_and_seen_pages_are_left_out() {
    for in_header in [false, true] {
        let script = move |_: usize, head: &str| {
            let (ids, next) = match head.split(' ').nth(1) {
                Some("/feed?since=0") => ("[{\"id\":9},{\"id\":8}]", Some("/feed?p=2")),
                Some("/feed?p=2") => ("[{\"id\":9},{\"id\":8}]", Some("?p=3")),
                Some("/feed?p=3") => ("[{\"id\":7},{\"id\":9}]", Some("?p=3")),
                other => panic!("{other:?}"),
            };
            match next.filter(|_| !in_header) {
                Some(next) => Say::json(&format!(r#"{{"data":{ids},"next":"{next}"}}"#)),
                None => Say::json(&format!(r#"{{"data":{ids},"next":null}}"#))
                    .with("link", &format!("<{}>; rel=\"next\"", next.unwrap_or("?p=3"))),
            }
        };
        let server = RudeServer::start(script).await;
        let next = if in_header { json!({"header": "link"}) } else { json!({"body": "$.next"}) };
        let mount = mounted(&server, json!({"next": next}));
        let (batches, end) = workload(&mut *open(&mount, None, &env()).await, &credits()).await;
        assert!(end.is_ok());
        assert_eq!((batches.len(), batches[0].payloads.len()), (1, 2));
        assert_eq!(batches[0].payloads[1].meta[crate::json::TAKE], "0");
        let ids: Vec<_> = rows(&*mount, &batches).iter().map(|row| row["id"].as_i64()).collect();
        assert_eq!(ids, [Some(9), Some(8), Some(7)]);
        assert_eq!(batches[0].to.as_ref().map(Position::as_str).map(|text| text.contains("\"9\"")), Some(true));
        assert_eq!(server.targets().len(), 3, "a page that links to itself is the last");
    }
}

#[tokio::test]
async fn test_ascending_pages_are_handed_over_in_parts_and_nothing_comes_twice() {
    let script = |_: usize, head: &str| {
        let target = head.split(' ').nth(1).expect("a target").to_owned();
        let from: usize = target.split('=').nth(1).and_then(|n| n.parse().ok()).expect("a number");
        let next = if from < 450 { format!(",\"next\":\"?p={}\"", from + 2) } else { String::new() };
        Say::json(&format!(r#"{{"data":[{{"id":{from}}},{{"id":{}}}]{next}}}"#, from + 1))
    };
    let server = RudeServer::start(script).await;
    let mount = mounted(&server, json!({"next": {"body": "$.next"}, "timeout": "60s"}));
    let (env, credits) = (env(), credits());
    let mut source = open(&mount, None, &env).await;
    let (batches, end) = workload(&mut *source, &credits).await;
    assert!(end.is_ok());
    assert!(batches.len() >= 2, "{}", batches.len());
    assert!(batches.windows(2).all(|pair| pair[0].to == pair[1].from));
    let ids: Vec<_> = rows(&*mount, &batches).iter().filter_map(|row| row["id"].as_i64()).collect();
    assert_eq!(ids, (0..452).collect::<Vec<i64>>());
}

#[tokio::test]
async fn test_current_value_source_gives_an_observation_once_and_a_changed_one_again() {
    let server = RudeServer::say(vec![
        Say::json(r#"{"data":{"at":"2024-01-01T00:00:00Z","v":1}}"#),
        Say::json(r#"{"data":{"v":1,"at":"2024-01-01T00:00:00Z"},"served":2}"#),
        Say::json(r#"{"data":{"at":"2024-01-01T00:00:00Z","v":2}}"#),
    ])
    .await;
    let mount = mounted(&server, json!({"cursor": null, "records": {"select": "$.data", "event_time": "at"}}));
    assert_eq!(mount.replay(), crate::contract::Replay::CurrentValue);
    let (env, credits) = (env(), credits());
    let mut source = open(&mount, None, &env).await;
    let (first, _) = workload(&mut *source, &credits).await;
    let mut source = open(&mount, first[0].to.as_ref(), &env).await;
    assert!(matches!(source.next(&credits).await, Ok(Pull::Idle)));
    let (third, _) = workload(&mut *source, &credits).await;
    assert_eq!(rows(&*mount, &third).len(), 1);
    assert!(third[0].to.as_ref().expect("moved").as_str().len() < 200);
}

#[tokio::test]
async fn test_dropped_workload_hands_over_nothing_and_the_next_one_starts_anew() {
    let server =
        RudeServer::start(|index, _| if index == 0 { Say::Hang } else { Say::json(r#"{"data":[{"id":1}]}"#) }).await;
    let mount = mounted(&server, json!({}));
    let (env, credits) = (env(), credits());
    let mut source = open(&mount, None, &env).await;
    tokio::select! {
        end = source.next(&credits) => panic!("it ends by itself: {end:?}"),
        () = server.asked(1) => {}
    }
    assert!(source.workload_failed().is_none());
    assert_eq!(credits.used_bytes(), 0);
    let (batches, _) = workload(&mut *source, &credits).await;
    assert_eq!(rows(&*mount, &batches).len(), 1);
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    use async_compression::tokio::bufread::GzipEncoder;
    use tokio::io::AsyncReadExt;
    let mut out = Vec::new();
    futures::executor::block_on(GzipEncoder::new(bytes).read_to_end(&mut out)).expect("compresses");
    out
}
