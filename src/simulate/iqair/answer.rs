//! What a request gets: the service's endpoints, its words for what is wrong, and the faults.

use std::collections::BTreeMap;
use std::time::Duration;

use adapters::contract::Partition;
use serde_json::{Value, json};
use tokio::time::Instant;
use url::Url;

use super::faults::Fault;
use super::stations::Observation;
use super::{Options, Shared};
use crate::simulate::mix;

/// A request, as far as the stand-in looks at it.
#[derive(Debug)]
pub(super) struct Asked {
    path: String,
    query: BTreeMap<String, String>,
}

/// How the bytes of an answer go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    AtOnce,
    InDrops,
    Half,
    Never,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
    pub(super) manner: Manner,
    /// The station, tick and observation that a whole body hands over.
    pub(super) hands: Option<(usize, u64, Observation)>,
    /// Until when the client is asked to stay away.
    pub(super) window: Option<Instant>,
}

impl Answer {
    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self::raw(status, "application/json; charset=utf-8", body.to_string().into_bytes())
    }

    fn raw(status: u16, content_type: &str, body: Vec<u8>) -> Self {
        let headers = vec![("content-type", content_type.to_owned()), ("cache-control", "no-store".to_owned())];
        Self { status, headers, body, manner: Manner::AtOnce, hands: None, window: None }
    }

    pub(super) fn fail(status: u16, message: &str) -> Self {
        Self::json(status, &json!({"status": "fail", "data": {"message": message}}))
    }
}

impl Asked {
    /// Reads a request's target.
    pub(super) fn parse(target: &str) -> Option<Self> {
        let url = Url::parse("http://stand-in").ok()?.join(target).ok()?;
        Some(Self { path: url.path().to_owned(), query: url.query_pairs().into_owned().collect() })
    }

    /// The partition as a stream names it: by the values of the request without the key.
    pub(super) fn partition(&self) -> String {
        let mut values = self.query.clone();
        values.remove("key");
        Partition::from_values(values).name
    }

    fn of(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    /// The station that is asked for, or the status and message of the refusal.
    pub(super) fn station(&self, shared: &Shared) -> Result<usize, (u16, &'static str)> {
        let city = || shared.stations.city(self.of("country"), self.of("state"), self.of("city"));
        match self.path.as_str() {
            "/v2/nearest_city" if !self.query.contains_key("lat") && !self.query.contains_key("lon") => Ok(0),
            "/v2/nearest_city" => {
                let degrees = |name: &str, most: f64| self.of(name).parse().ok().filter(|at: &f64| at.abs() <= most);
                let place = degrees("lat", 90.0).zip(degrees("lon", 180.0)).ok_or((400, "wrong_coordinates"))?;
                shared.stations.nearest(place.0, place.1).ok_or((404, "no_nearest_station"))
            }
            "/v2/city" => city().map_err(|message| (400, message)),
            "/v2/station" => {
                let index = city().map_err(|message| (400, message))?;
                let right = shared.stations.all[index].station == self.of("station");
                if right { Ok(index) } else { Err((400, "station_not_found")) }
            }
            _ => Err((404, "unknown_endpoint")),
        }
    }

    /// The answer to the `nth` request of its partition.
    pub(super) fn answer(&self, shared: &Shared, station: Result<usize, (u16, &'static str)>, nth: u64) -> Answer {
        let options = &shared.options;
        let key = self.of("key");
        if key.is_empty() || options.key.as_deref().is_some_and(|right| right != key) {
            return Answer::fail(401, "incorrect_api_key");
        }
        let station = match station {
            Ok(station) => station,
            Err((status, message)) => return Answer::fail(status, message),
        };
        // The last station has the wrong key, unless it is the only one.
        if options.faults.wrong_key() && station > 0 && station + 1 == shared.stations.all.len() {
            shared.truth.fault(Fault::WrongKey);
            return Answer::fail(401, "incorrect_api_key");
        }
        let parts = [options.seed, station as u64, nth, mix(&self.path.bytes().map(u64::from).collect::<Vec<_>>())];
        let fault = options.faults.decide(&parts);
        if let Some(fault) = fault {
            shared.truth.fault(fault);
        }
        match fault {
            Some(Fault::Http500) => Answer::raw(500, "text/html", b"<html>Internal Server Error</html>".to_vec()),
            Some(Fault::Http429) => too_many(shared, options, nth),
            Some(Fault::Garbage) => garbage(mix(&parts)),
            Some(Fault::Hang) => Answer { manner: Manner::Never, ..Answer::fail(200, "") },
            Some(Fault::Slow) => Answer { manner: Manner::InDrops, ..self.observed(shared, station) },
            Some(Fault::Cut) => Answer { manner: Manner::Half, ..self.observed(shared, station) },
            Some(Fault::WrongKey) | None => self.observed(shared, station),
        }
    }

    fn observed(&self, shared: &Shared, station: usize) -> Answer {
        let tick = shared.stations.tick_at(shared.clock.now_us());
        let observation = shared.stations.observation(station, tick);
        let body = shared.stations.body(station, &observation, self.path == "/v2/station");
        Answer { hands: Some((station, tick, observation)), ..Answer::json(200, &body) }
    }
}

/// Status 429, with Retry-After in seconds and as a date by turns.
fn too_many(shared: &Shared, options: &Options, nth: u64) -> Answer {
    let wait = Duration::from_secs(options.retry_after_secs);
    let mut answer = Answer::fail(429, "too_many_requests");
    let now_us = shared.clock.now_us();
    let retry_after = if nth.is_multiple_of(2) {
        answer.window = Some(Instant::now() + wait);
        options.retry_after_secs.to_string()
    } else {
        // A date has whole seconds, so the window ends up to a second early.
        let cut_off = Duration::from_micros(now_us.rem_euclid(1_000_000).unsigned_abs());
        answer.window = Some(Instant::now() + wait.saturating_sub(cut_off));
        http_date(now_us + i64::try_from(wait.as_micros()).unwrap_or(0))
    };
    answer.headers.push(("retry-after", retry_after));
    answer
}

/// A date as HTTP writes it.
pub(super) fn http_date(us: i64) -> String {
    chrono::DateTime::from_timestamp_micros(us).unwrap_or_default().format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// A whole body that is not what it should be.
fn garbage(choice: u64) -> Answer {
    let bodies: [&[u8]; 6] = [
        b"<!doctype html><title>Please stand by</title>",
        b"\"node not found\"",
        b"{\"status\":\"success\",\"data\":{\"city\":\"Ber",
        b"{\"status\":\"success\",\"data\":\xff\xfe}",
        b"[]",
        b"",
    ];
    let body = bodies[(choice % bodies.len() as u64) as usize];
    Answer::raw(200, "application/json; charset=utf-8", body.to_vec())
}
