//! The kind against a stand-in on loopback.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::decode::IqairDecoder;
use super::{COLUMNS, Iqair, schema};
use crate::contract::{Decode, Env, ErrorClass, Kind, Mount, Payload, Position, Source, SourceError};
use crate::http::Budgets;
use crate::http::testing::{
    CANARY, RudeServer, Say, credits, env, message, mount_of, read_with, rows, workload, written,
};

/// An observation in the API's form.
fn observation(aqius: i64, pollution_ts: &str) -> String {
    json!({"status": "success", "data": {
        "city": "Kashgar", "state": "Xinjiang", "country": "China",
        "location": {"type": "Point", "coordinates": [75.9511, 39.4689]},
        "current": {
            "weather": {"ts": "2020-03-18T15:00:00.000Z", "tp": 14, "pr": 1021, "hu": 17, "ws": 2.5, "wd": 60, "ic": "04n"},
            "pollution": {"ts": pollution_ts, "aqius": aqius, "mainus": "p1", "aqicn": 189, "maincn": "p1"},
        },
    }})
    .to_string()
}

const TS: &str = "2020-03-18T14:00:00.000Z";

fn settings(endpoint: &str) -> Value {
    json!({
        "endpoint": endpoint, "secret_key": "env:KEY", "interval": "1h", "timeout": "5s",
        "partitions": [{"lat": 52.52, "lon": 13.40}],
    })
}

fn mounted(server: &RudeServer) -> Arc<dyn Mount> {
    let kind = Iqair::new(Arc::new(Budgets::new()));
    mount_of(&kind, settings(&format!("{}/v2/nearest_city", server.url())))
}

async fn open(mount: &Arc<dyn Mount>, position: Option<&Position>, env: &Env) -> Box<dyn Source> {
    mount.open(&mount.partitions()[0], position, env.clone()).await.expect("opens")
}

async fn failure(say: Say) -> (SourceError, usize) {
    let server = RudeServer::say(vec![say]).await;
    let mount = mounted(&server);
    let (_, end) = workload(&mut *open(&mount, None, &env()).await, &credits()).await;
    (end.expect_err("refused"), server.heads().len())
}

#[tokio::test]
async fn test_iqair_observation_becomes_one_row_of_the_promised_columns() {
    let server = RudeServer::say(vec![Say::json(&observation(186, TS))]).await;
    let mount = mounted(&server);
    let (batches, end) = workload(&mut *open(&mount, None, &env()).await, &credits()).await;
    assert!(end.is_ok());
    let names: Vec<_> = schema().fields().iter().map(|field| field.name().clone()).collect();
    let promised = "country, state, city, station, lon, lat, pollution_ts, aqius, mainus, aqicn, maincn, weather_ts, \
                    tp, pr, hu, ws, wd, ic";
    assert_eq!(names.join(", "), promised);
    assert_eq!(
        rows(&*mount, &batches),
        [json!({
            "country": "China", "state": "Xinjiang", "city": "Kashgar", "lon": 75.9511, "lat": 39.4689,
            "pollution_ts": "2020-03-18T14:00:00Z", "aqius": 186, "mainus": "p1", "aqicn": 189, "maincn": "p1",
            "weather_ts": "2020-03-18T15:00:00Z", "tp": 14.0, "pr": 1021.0, "hu": 17.0, "ws": 2.5, "wd": 60.0,
            "ic": "04n",
        })]
    );
    let decoded = mount.decoder().decode(&batches[0].payloads, None);
    assert_eq!(decoded.event_time_us, [Some(1_584_540_000_000_000)]);
    let target = server.targets().remove(0);
    assert_eq!(target, "/v2/nearest_city?lat=52.52&lon=13.4&key=c4n4ry%2F%2Bsecret");
    assert!(!format!("{:?}", batches[0].payloads[0].meta).contains("c4n4ry"));
}

#[tokio::test]
async fn test_iqair_unchanged_makes_no_row_and_changed_under_the_same_time_does() {
    let reordered = observation(186, TS).replace(r#""status":"success""#, r#""status" : "success", "x":1"#);
    let extra = observation(186, TS).replace(r#""country":"China""#, r#""country":"China","forecasts":[1]"#);
    let server = RudeServer::say(vec![
        Say::json(&observation(186, TS)),
        Say::json(&reordered),
        Say::json(&extra),
        Say::json(&observation(187, TS)),
        Say::json(&observation(187, TS)),
        Say::json(&observation(187, "2020-03-18T15:00:00.000Z")),
        Say::json(&observation(187, TS)),
    ])
    .await;
    let mount = mounted(&server);
    let env = env();
    let mut position: Option<Position> = None;
    let mut counts = Vec::new();
    for _ in 0..7 {
        // Each poll by a worker that was started anew at the committed position.
        let (batches, end) = workload(&mut *open(&mount, position.as_ref(), &env).await, &credits()).await;
        assert!(end.is_ok());
        counts.push(rows(&*mount, &batches).len());
        position = batches.last().and_then(|batch| batch.to.clone()).or(position);
    }
    assert_eq!(counts, [1, 0, 0, 1, 0, 1, 0]);
}

#[tokio::test]
async fn test_iqair_refusals_have_their_classes_by_body_before_status() {
    let fail = |message: &str| json!({"status": "fail", "data": {"message": message}}).to_string();
    let table = [
        (400, "city_not_found", ErrorClass::Config),
        (400, "station_not_found", ErrorClass::Config),
        (200, "country_not_found", ErrorClass::Config),
        (401, "incorrect_api_key", ErrorClass::Auth),
        (401, "api_key_expired", ErrorClass::Auth),
        (403, "Forbidden", ErrorClass::Auth),
        (403, "permission_denied (you don't have access to this endpoint)", ErrorClass::Auth),
        (403, "Payment Required", ErrorClass::Auth),
        (404, "no_nearest_station", ErrorClass::Config),
        (404, "node not found", ErrorClass::Config),
        (404, "unknown_key", ErrorClass::Config),
        (200, "wrong_coordinates", ErrorClass::Config),
        (400, "feature_not_available", ErrorClass::Auth),
        (429, "call_limit_reached", ErrorClass::RateLimited),
        (429, "too_many_requests", ErrorClass::RateLimited),
        (403, "call_per_month_limit_reached", ErrorClass::RateLimited),
        (200, "CALL_PER_MINUTE_LIMIT_REACHED", ErrorClass::RateLimited),
        (500, "boom", ErrorClass::Transient),
        (400, "ip_location_failed", ErrorClass::Transient),
        (200, "never heard of", ErrorClass::Data),
    ];
    let told = table.into_iter().map(async |(status, text, class)| {
        let (error, requests) = failure(Say::status(status).body(fail(text).as_bytes())).await;
        assert_eq!(error.class, class, "{text}: {error}");
        assert_eq!(requests > 1, matches!(class, ErrorClass::Transient | ErrorClass::Data), "{text}");
        assert_eq!(error.retry_after.is_some(), class == ErrorClass::RateLimited);
    });
    futures::future::join_all(told).await;
    for (body, class) in [
        ("\"node not found\"", ErrorClass::Config),
        ("city_not_found", ErrorClass::Config),
        ("too_many_requests", ErrorClass::RateLimited),
        ("Forbidden", ErrorClass::Auth),
    ] {
        assert_eq!(failure(Say::json(body)).await.0.class, class, "{body}");
    }
}

#[tokio::test]
async fn test_iqair_sudden_expiry_after_a_rate_limit_is_doubted_once() {
    let fail = |status, message: &str| {
        Say::status(status).body(json!({"status": "fail", "data": {"message": message}}).to_string().as_bytes())
    };
    let expired = fail(401, "api_key_expired");
    let server = RudeServer::say(vec![fail(429, "too_many_requests"), expired.clone(), expired]).await;
    let mount = mounted(&server);
    let mut classes = Vec::new();
    let keep: Arc<dyn crate::contract::Keep> = Arc::new(crate::contract::MemoryKeep::default());
    // The waits are over each time: the clock goes on between processes.
    for minutes in 0..3 {
        let clock = Arc::new(crate::http::testing::FixedClock::at(1_600_000_000_000_000 + minutes * 120_000_000));
        let env = crate::http::testing::env_with(Arc::clone(&keep), clock);
        let mount =
            mount_of(&Iqair::new(Arc::new(Budgets::new())), settings(&format!("{}/v2/nearest_city", server.url())));
        let (_, end) = workload(&mut *open(&mount, None, &env).await, &credits()).await;
        classes.push(end.expect_err("refused").class);
    }
    assert_eq!(classes, [ErrorClass::RateLimited, ErrorClass::RateLimited, ErrorClass::Auth]);
    assert!(mount.partitions().len() == 1 && server.heads().len() == 3);
}

#[test]
fn test_iqair_settings_report_everything_at_once() {
    let kind = Iqair::new(Arc::new(Budgets::new()));
    let codes = |settings: Value| -> Vec<(String, &'static str)> {
        let (mount, problems) = read_with(&kind, &written(settings));
        assert_eq!(mount.is_none(), problems.iter().any(|p| !p.warning), "{problems:?}");
        problems.into_iter().map(|p| (p.field.trim_start_matches("adapter.X.").to_owned(), p.code)).collect()
    };
    let own = |pairs: &[(&str, &'static str)]| pairs.iter().map(|(f, c)| ((*f).to_owned(), *c)).collect::<Vec<_>>();
    let good = "https://api.airvisual.com/v2/nearest_city";
    assert_eq!(codes(settings(good)), []);
    assert_eq!(codes(settings("http://api.airvisual.com/v2/nearest_city")), own(&[("endpoint", "SECRET_IN_CLEAR")]));
    assert_eq!(codes(settings("https://api.airvisual.com/v2/countries")), own(&[("endpoint", "INVALID_VALUE")]));
    let wrong = json!({"endpoint": "ftp://x/city", "intervall": "1h", "partitions": [{"lat": 91, "lon": 0}]});
    let mut found = codes(wrong);
    found.sort();
    assert_eq!(
        found,
        own(&[
            ("endpoint", "INVALID_URL"),
            ("interval", "MISSING_KEY"),
            ("intervall", "UNKNOWN_KEY"),
            ("secret_key", "MISSING_KEY"),
        ])
    );
    for (call, partition) in [
        ("nearest_city", json!({"lat": 91, "lon": 0})),
        ("nearest_city", json!({"lat": 1})),
        ("nearest_city", json!({"lat": "x", "lon": 0})),
        ("city", json!({"city": "Athens", "state": "Attica"})),
        ("station", json!({"city": "Athens", "state": "Attica", "country": "Greece"})),
        ("city", json!({"city": "A", "state": "B", "country": "C", "station": "D"})),
    ] {
        let mut all = settings(&format!("https://api.airvisual.com/v2/{call}/"));
        all["partitions"] = json!([partition]);
        assert_eq!(codes(all), own(&[("partitions", "INVALID_PARTITION")]), "{call} {partition}");
    }
    let mut by_address = settings(good);
    by_address.as_object_mut().expect("an object").remove("partitions");
    assert_eq!(codes(by_address), [], "without coordinates it is the nearest to the node");
}

#[test]
fn test_iqair_endpoint_from_a_message_may_not_be_private() {
    let kind = Iqair::new(Arc::new(Budgets::new()));
    let (mount, problems) = read_with(&kind, &message(settings("http://127.0.0.1:9/v2/city")));
    assert!(mount.is_none());
    assert!(problems.iter().any(|p| p.code == "PRIVATE_ADDRESS" && p.field == "adapter.X.endpoint"));
    assert!(!format!("{problems:?}").contains(CANARY));
    assert_eq!(kind.name(), "iqair");
}

fn payload(bytes: &[u8]) -> Payload {
    Payload { position: None, received_at_us: 0, meta: BTreeMap::new(), bytes: bytes.to_vec().into(), dead: None }
}

#[test]
fn test_iqair_decoder_takes_gaps_and_refuses_wrong_types() {
    let decoder = IqairDecoder::default();
    let no_pollution =
        r#"{"status":"success","data":{"name":"S","current":{"weather":{"ts":"2020-01-01T00:00:00Z"}}}}"#;
    let wrong = observation(1, TS).replace("189", "\"many\"");
    let all = [
        no_pollution,
        wrong.as_str(),
        "{}",
        "x",
        r#"{"data":{"city":"A"}}"#,
        r#"{"data":{"current":{"pollution":{"ts":"now"}}}}"#,
    ];
    let payloads: Vec<_> = all.iter().map(|text| payload(text.as_bytes())).collect();
    let rows = decoder.decode(&payloads, None);
    assert_eq!((rows.batch.num_rows(), &rows.payload[..]), (1, &[0][..]));
    assert_eq!(rows.event_time_us, [Some(1_577_836_800_000_000)]);
    let dead: Vec<_> = rows.dead.iter().map(|dead| (dead.payload, dead.code)).collect();
    let expected = ["type_mismatch", "select_missing", "not_json", "missing_field", "type_mismatch"];
    assert_eq!(dead, (1..).zip(expected).collect::<Vec<_>>());
    assert!(rows.dead.iter().all(|dead| !dead.message.contains("many")));
}

proptest! {
    #[test]
    fn test_iqair_decoder_never_fails_and_accounts_for_every_payload(
        bodies in proptest::collection::vec(any::<String>(), 0..5), aqi in any::<i64>(), cut in 0usize..400,
    ) {
        let whole = observation(aqi, TS);
        let mut payloads: Vec<_> = bodies.iter().map(|body| payload(body.as_bytes())).collect();
        payloads.push(payload(&whole.as_bytes()[..cut.min(whole.len())]));
        payloads.push(payload(whole.as_bytes()));
        let rows = IqairDecoder::default().decode(&payloads, None);
        prop_assert_eq!(rows.batch.num_rows() + rows.dead.len(), payloads.len());
        prop_assert_eq!(rows.batch.num_columns(), COLUMNS.len());
        prop_assert_eq!(rows.payload.len(), rows.batch.num_rows());
    }
}

#[tokio::test]
async fn test_iqair_conforms() {
    let server = RudeServer::say(vec![Say::json(&observation(42, TS))]).await;
    let subject = crate::conformance::Subject::new(mounted(&server)).canaries([CANARY, "Kashgar"]);
    crate::conformance::all(&subject.pool_bytes(32 * 1024)).await;
}

#[test]
fn test_iqair_cadence_is_as_configured() {
    let mount = mount_of(&Iqair::new(Arc::new(Budgets::new())), settings("https://api.airvisual.com/v2/nearest_city"));
    let expected = crate::contract::Cadence::Polled {
        interval: Duration::from_secs(3600),
        jitter: Duration::ZERO,
        timeout: Duration::from_secs(5),
    };
    assert_eq!(mount.cadence(), expected);
}
