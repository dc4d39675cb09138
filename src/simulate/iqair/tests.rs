use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};

use reqwest::{Client, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;

const BERLIN: &str = "/v2/nearest_city?lat=52.52&lon=13.4&key=k";
const START_US: i64 = 1_767_225_600_000_000;

/// A clock that a test sets.
#[derive(Debug)]
struct Hand(AtomicI64);

fn hand() -> Arc<Hand> {
    Arc::new(Hand(AtomicI64::new(START_US)))
}

impl Clock for Hand {
    fn now_us(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

fn faulty(spec: &str) -> Options {
    Options { faults: spec.parse().expect("a spec"), slow: Duration::from_millis(80), ..Options::default() }
}

async fn start(options: Options) -> StandIn {
    StandIn::start(options, hand()).await.expect("a stand-in")
}

async fn get(stand_in: &StandIn, target: &str) -> reqwest::Result<Response> {
    Client::new().get(format!("http://{}{target}", stand_in.addr())).send().await
}

async fn get_json(stand_in: &StandIn, target: &str) -> (u16, Value) {
    let response = get(stand_in, target).await.expect("an answer");
    let status = response.status().as_u16();
    (status, serde_json::from_slice(&response.bytes().await.expect("a body")).expect("JSON"))
}

/// Waits for a state that must come.
async fn until(what: &str, state: impl Fn() -> bool) {
    for _ in 0..24_000 {
        if state() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{what} did not come");
}

#[tokio::test]
async fn test_each_endpoint_answers_as_the_service_does() {
    let stand_in = start(Options::default()).await;
    let (status, body) = get_json(&stand_in, BERLIN).await;
    assert_eq!(status, 200);
    let o = stand_in.observation(0, 0);
    let wanted = json!({"status": "success", "data": {
        "city": "Berlin", "state": "Berlin", "country": "Germany",
        "location": {"type": "Point", "coordinates": [13.4, 52.52]},
        "current": {
            "weather": {"ts": "2026-01-01T00:00:00.000Z", "tp": o.tp, "pr": o.pr, "hu": o.hu, "ws": o.ws, "wd": o.wd, "ic": o.ic},
            "pollution": {"ts": "2026-01-01T00:00:00.000Z", "aqius": o.aqius, "mainus": o.mainus, "aqicn": o.aqicn, "maincn": o.maincn}
        }
    }});
    assert_eq!(body, wanted);
    let near = get_json(&stand_in, "/v2/nearest_city?lat=52&lon=13&key=k").await;
    assert_eq!(near, (200, wanted.clone()));
    let city = get_json(&stand_in, "/v2/city?city=Los%20Angeles&state=California&country=USA&key=k").await;
    assert_eq!((city.0, &city.1["data"]["city"]), (200, &json!("Los Angeles")));
    let place = "city=Berlin&state=Berlin&country=Germany&key=k";
    let (_, station) = get_json(&stand_in, &format!("/v2/station?station=Berlin%20Center&{place}")).await;
    assert_eq!(station["data"]["station"], "Berlin Center");
    stand_in.stop().await;
}

#[tokio::test]
async fn test_each_refusal_has_the_services_status_and_word() {
    let stand_in = start(Options { key: Some("right".to_owned()), ..Options::default() }).await;
    let cases = [
        ("/v2/nearest_city?lat=1&lon=1", 401, "incorrect_api_key"),
        ("/v2/nearest_city?lat=1&lon=1&key=wrong", 401, "incorrect_api_key"),
        ("/v2/nearest_city?lat=x&lon=1&key=right", 400, "wrong_coordinates"),
        ("/v2/city?city=X&state=Berlin&country=Germany&key=right", 400, "city_not_found"),
        ("/v2/city?city=Berlin&state=X&country=Germany&key=right", 400, "state_not_found"),
        ("/v2/city?city=berlin&state=Berlin&country=germany&key=right", 400, "country_not_found"),
        ("/v2/station?station=X&city=Berlin&state=Berlin&country=Germany&key=right", 400, "station_not_found"),
        ("/v2/cities?key=right", 404, "unknown_endpoint"),
    ];
    for (target, status, message) in cases {
        let wanted = (status, json!({"status": "fail", "data": {"message": message}}));
        assert_eq!(get_json(&stand_in, target).await, wanted, "{target}");
    }
    assert_eq!(stand_in.truth().handed(), []);
    stand_in.stop().await;
}

#[tokio::test]
async fn test_observations_follow_from_the_seed_and_change_in_each_way() {
    let (a, b) = (
        start(Options { seed: 5, ..Options::default() }).await,
        start(Options { seed: 5, ..Options::default() }).await,
    );
    let c = start(Options { seed: 6, ..Options::default() }).await;
    let of = |stand_in: &StandIn| (0..300).map(|tick| stand_in.observation(3, tick)).collect::<Vec<_>>();
    let (ours, others) = (of(&a), of(&c));
    assert_eq!(ours, of(&b));
    assert_ne!(ours, others);
    let pairs = || ours.windows(2).map(|pair| (&pair[0], &pair[1]));
    let same_times =
        |a: &Observation, b: &Observation| a.pollution_ts == b.pollution_ts && a.weather_ts == b.weather_ts;
    assert!(pairs().any(|(a, b)| a == b), "some ticks bring nothing");
    assert!(pairs().any(|(a, b)| same_times(a, b) && a != b), "some bring a value under the same times");
    assert!(pairs().filter(|(a, b)| !same_times(a, b)).count() > 200, "most bring new times");
    let times: BTreeSet<_> = ours.iter().map(|o| &o.pollution_ts).collect();
    assert!(times.iter().all(|time| time.starts_with("2026-01-01T00:0")));
}

#[tokio::test]
async fn test_truth_holds_distinct_consecutive_observations_and_the_file_every_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("truth.jsonl");
    let clock = hand();
    let options = Options { truth: Some(path.clone()), keep_arrivals: true, ..Options::default() };
    let stand_in = StandIn::start(options, Arc::<Hand>::clone(&clock)).await.expect("a stand-in");
    let mut wanted: Vec<Observation> = Vec::new();
    for tick in 0..20 {
        clock.0.store(START_US + tick * 1_000_000, Ordering::SeqCst);
        for _ in 0..2 {
            assert_eq!(get_json(&stand_in, BERLIN).await.0, 200);
        }
        let now = stand_in.observation(0, tick.unsigned_abs());
        if wanted.last() != Some(&now) {
            wanted.push(now);
        }
    }
    let truth = stand_in.truth();
    stand_in.stop().await;
    let handed = truth.handed();
    assert_eq!(handed.iter().map(|h| h.observation.clone()).collect::<Vec<_>>(), wanted);
    assert!(handed.iter().all(|h| h.sent && h.partition == "lat=52.52,lon=13.4"));
    let lines: Vec<Value> = std::fs::read_to_string(&path)
        .expect("the file")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines.len(), 40);
    assert_eq!(lines[0], serde_json::to_value(&handed[0]).expect("JSON"));
    assert_eq!((truth.requests(), truth.arrivals().len()), (40, 40));
    assert_eq!((truth.overlaps(), truth.in_retry_after(), truth.unrecorded()), (0, 0, 0));
}

#[tokio::test]
async fn test_faults_that_answer_are_no_hand_over() {
    let stand_in = start(faulty("http_500=1")).await;
    assert_eq!(get(&stand_in, BERLIN).await.expect("an answer").status(), 500);
    assert_eq!((stand_in.truth().handed(), stand_in.truth().faults()), (vec![], BTreeMap::from([("http_500", 1)])));

    let stand_in = start(faulty("garbage=1")).await;
    for _ in 0..20 {
        let response = get(&stand_in, BERLIN).await.expect("an answer");
        assert_eq!(response.status(), 200);
        let body = response.bytes().await.expect("a whole body");
        let good = serde_json::from_slice::<Value>(&body).is_ok_and(|body| body["data"]["current"].is_object());
        assert!(!good);
    }
    assert_eq!(stand_in.truth().handed(), []);

    let stand_in = start(Options { stations: 3, ..faulty("wrong_key") }).await;
    assert_eq!(get_json(&stand_in, BERLIN).await.0, 200);
    let last = stand_in.stations()[2].clone();
    let wrong = get_json(&stand_in, &format!("/v2/nearest_city?lat={}&lon={}&key=k", last.lat, last.lon)).await;
    assert_eq!((wrong.0, &wrong.1["data"]["message"]), (401, &json!("incorrect_api_key")));
    assert_eq!(stand_in.truth().handed().len(), 1);
}

#[tokio::test]
async fn test_a_retry_after_comes_in_both_forms_and_asking_inside_it_is_counted() {
    let stand_in = start(Options { retry_after_secs: 60, ..faulty("http_429=1") }).await;
    let mut waits = Vec::new();
    for _ in 0..2 {
        let response = get(&stand_in, BERLIN).await.expect("an answer");
        assert_eq!(response.status(), 429);
        waits.push(response.headers()["retry-after"].to_str().expect("text").to_owned());
    }
    assert_eq!(waits, ["60", "Thu, 01 Jan 2026 00:01:00 GMT"]);
    assert_eq!(stand_in.truth().in_retry_after(), 1);
    get(&stand_in, "/v2/nearest_city?lat=48.86&lon=2.35&key=k").await.expect("an answer");
    assert_eq!(stand_in.truth().in_retry_after(), 1, "another partition was not asked to wait");
}

#[tokio::test]
async fn test_slow_is_whole_and_cut_and_hang_hand_nothing_over() {
    let stand_in = start(faulty("slow=1")).await;
    let before = std::time::Instant::now();
    assert_eq!(get_json(&stand_in, BERLIN).await.0, 200);
    assert!(before.elapsed() >= Duration::from_millis(80));
    until("the hand-over", || stand_in.truth().handed().iter().any(|handed| handed.sent)).await;

    let stand_in = start(faulty("cut=1")).await;
    let cut = get(&stand_in, BERLIN).await.expect("a head");
    assert_eq!(cut.status(), 200);
    assert!(cut.bytes().await.is_err(), "the body must end early");
    assert_eq!(stand_in.truth().handed(), []);

    let stand_in = start(faulty("hang=1")).await;
    let client = Client::builder().timeout(Duration::from_secs(1)).build().expect("a client");
    let url = format!("http://{}{BERLIN}", stand_in.addr());
    for _ in 0..3 {
        assert!(client.get(&url).send().await.expect_err("nothing comes").is_timeout());
    }
    assert_eq!(stand_in.truth().handed(), []);
    assert_eq!(stand_in.truth().faults(), BTreeMap::from([("hang", 3)]));
    assert_eq!(stand_in.truth().overlaps(), 0, "a client that left and came again does not overlap");
    stand_in.stop().await;
}

#[tokio::test]
async fn test_a_client_that_goes_before_the_last_byte_was_handed_nothing() {
    let stand_in = start(Options { slow: Duration::from_secs(60), ..faulty("slow=1") }).await;
    let truth = stand_in.truth();
    let mut stream = TcpStream::connect(stand_in.addr()).await.expect("a connection");
    stream.write_all(format!("GET {BERLIN} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.expect("a request");
    assert!(stream.read(&mut [0; 16]).await.expect("a head") > 0);
    drop(stream);
    stand_in.stop().await;
    assert_eq!((truth.requests(), truth.handed()), (1, vec![]));
}

#[tokio::test]
async fn test_an_unsure_hand_over_becomes_sure_when_the_same_is_given_again() {
    let stand_in = start(Options::default()).await;
    let truth = Truth::new(None, false).expect("a record");
    let handed = |tick| Handed {
        station: 0,
        partition: "p".to_owned(),
        tick,
        at_us: 0,
        sent: false,
        observation: stand_in.observation(0, if tick < 2 { 0 } else { 5 }),
    };
    truth.arrived("p", Some(0), 0);
    for (tick, sent) in [(0, false), (1, true), (2, false)] {
        let handing = truth.handing(handed(tick));
        truth.handed_over(handing, sent);
    }
    let seen: Vec<_> = truth.handed().iter().map(|handed| (handed.tick, handed.sent)).collect();
    assert_eq!(seen, [(0, true), (2, false)]);
}

#[tokio::test]
async fn test_requests_that_overlap_are_counted() {
    let stand_in = start(Options { slow: Duration::from_secs(2), ..faulty("slow=1") }).await;
    let truth = stand_in.truth();
    let (a, b) = tokio::join!(get_json(&stand_in, BERLIN), async {
        until("the first request", || truth.requests() == 1).await;
        get_json(&stand_in, BERLIN).await
    });
    assert_eq!((a.0, b.0), (200, 200));
    until("the end of both", || truth.overlaps() == 1).await;
    get_json(&stand_in, BERLIN).await;
    assert_eq!(truth.overlaps(), 1, "one after the other is no overlap");
}

#[tokio::test]
async fn test_stop_ends_what_hangs_and_junk_is_refused() {
    let stand_in = start(faulty("hang=1")).await;
    let truth = stand_in.truth();
    let mut hanging = TcpStream::connect(stand_in.addr()).await.expect("a connection");
    hanging.write_all(format!("GET {BERLIN} HTTP/1.1\r\n\r\n").as_bytes()).await.expect("a request");
    for junk in ["POST /v2/city HTTP/1.1\r\n\r\n", "\u{0}\r\n\r\n", "GET x HTTP/1.1\r\n\r\n", "GET\r\n\r\n"] {
        let mut stream = TcpStream::connect(stand_in.addr()).await.expect("a connection");
        stream.write_all(junk.as_bytes()).await.expect("junk");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 400 "), "{junk:?}: {answer}");
    }
    until("the hanging request", || truth.requests() == 1).await;
    stand_in.stop().await;
    assert_eq!(hanging.read(&mut [0; 1]).await.expect("the end"), 0);
}

#[tokio::test]
async fn test_ten_thousand_partitions_are_told_apart() {
    let stand_in = start(Options { stations: 10_000, ..Options::default() }).await;
    let mut stream = TcpStream::connect(stand_in.addr()).await.expect("a connection");
    let names: BTreeSet<_> = stand_in.stations().iter().map(|s| (s.lat.to_string(), s.lon.to_string())).collect();
    assert_eq!(names.len(), 10_000);
    // One connection is enough to see them apart.
    for (lat, lon) in names.iter().step_by(10) {
        let request = format!("GET /v2/nearest_city?lat={lat}&lon={lon}&key=k HTTP/1.1\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("a request");
        let mut head = [0; 4096];
        assert!(stream.read(&mut head).await.expect("an answer") > 0);
    }
    let truth = stand_in.truth();
    until("all requests", || truth.handed().len() == 1000).await;
    let stations: BTreeSet<_> = truth.handed().iter().map(|handed| handed.station).collect();
    assert_eq!((stations.len(), truth.requests(), truth.overlaps()), (1000, 1000, 0));
}
