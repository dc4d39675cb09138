//! Stations and what they observe: everything follows from seed, station and tick.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::{Value, json};

use crate::simulate::{mix, share};

/// Of a hundred ticks, in so many pollution or weather stay as they are.
const UNCHANGED_PERCENT: u64 = 20;
/// Of a hundred ticks, in so many a value changes under the same timestamp.
const REVISED_PERCENT: u64 = 10;

/// The places of the first stations; further ones stand on a grid.
const PLACES: [(&str, &str, &str, f64, f64); 12] = [
    ("Berlin", "Berlin", "Germany", 52.52, 13.4),
    ("Paris", "Ile-de-France", "France", 48.86, 2.35),
    ("Los Angeles", "California", "USA", 34.05, -118.24),
    ("Delhi", "Delhi", "India", 28.61, 77.21),
    ("Lagos", "Lagos", "Nigeria", 6.52, 3.38),
    ("Sao Paulo", "Sao Paulo", "Brazil", -23.55, -46.63),
    ("Tokyo", "Tokyo", "Japan", 35.68, 139.69),
    ("Sydney", "New South Wales", "Australia", -33.87, 151.21),
    ("Nairobi", "Nairobi", "Kenya", -1.29, 36.82),
    ("Oslo", "Oslo", "Norway", 59.91, 10.75),
    ("Lima", "Lima", "Peru", -12.05, -77.04),
    ("Kashgar", "Xinjiang", "China", 39.47, 75.95),
];
/// Stations in one row of the grid.
const GRID_COLUMNS: usize = 400;

/// Where a station stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Station {
    /// Its number, from 0.
    pub index: usize,
    /// Its own name.
    pub station: String,
    /// Its city.
    pub city: String,
    /// The state of the city.
    pub state: String,
    /// The country of the state.
    pub country: String,
    /// Degrees north.
    pub lat: f64,
    /// Degrees east.
    pub lon: f64,
}

impl Station {
    fn numbered(index: usize) -> Self {
        let (city, state, country, lat, lon) = match PLACES.get(index) {
            Some((city, state, country, lat, lon)) => {
                ((*city).to_owned(), (*state).to_owned(), (*country).to_owned(), *lat, *lon)
            }
            None => {
                let at = index - PLACES.len();
                let (row, column) = (at / GRID_COLUMNS, at % GRID_COLUMNS);
                // The quarter steps are exact in binary, so names of partitions read as they are written.
                let (lat, lon) = (-60.0 + row as f64 * 0.25, -50.0 + column as f64 * 0.25);
                (format!("City {index}"), format!("State {row}"), "Simulia".to_owned(), lat, lon)
            }
        };
        Self { index, station: format!("{city} Center"), city, state, country, lat, lon }
    }
}

/// What a station shows at a tick: pollution and weather, each with its own time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Observation {
    /// When the pollution was measured, RFC 3339 with milliseconds.
    pub pollution_ts: String,
    /// US air quality index.
    pub aqius: i64,
    /// Its main pollutant.
    pub mainus: &'static str,
    /// Chinese air quality index.
    pub aqicn: i64,
    /// Its main pollutant.
    pub maincn: &'static str,
    /// When the weather was measured, RFC 3339 with milliseconds.
    pub weather_ts: String,
    /// °C.
    pub tp: i64,
    /// hPa.
    pub pr: i64,
    /// Percent.
    pub hu: i64,
    /// m/s.
    pub ws: f64,
    /// Degrees from north.
    pub wd: i64,
    /// The code of an icon.
    pub ic: &'static str,
}

/// All stations of a stand-in.
#[derive(Debug)]
pub(super) struct Stations {
    seed: u64,
    start_us: i64,
    tick_us: i64,
    pub(super) all: Vec<Station>,
    by_place: HashMap<(u64, u64), usize>,
    by_name: HashMap<(String, String, String), usize>,
}

/// The two halves of an observation change independently of each other.
const POLLUTION: u64 = 1;
const WEATHER: u64 = 2;

enum Step {
    Fresh,
    Revised,
    Unchanged,
}

impl Stations {
    pub(super) fn new(seed: u64, count: usize, start_us: i64, tick_us: i64) -> Self {
        let all: Vec<Station> = (0..count).map(Station::numbered).collect();
        let by_place = all.iter().map(|s| ((s.lat.to_bits(), s.lon.to_bits()), s.index)).collect();
        let name = |s: &Station| (s.country.clone(), s.state.clone(), s.city.clone());
        let by_name = all.iter().map(|s| (name(s), s.index)).collect();
        Self { seed, start_us, tick_us: tick_us.max(1), all, by_place, by_name }
    }

    pub(super) fn tick_at(&self, now_us: i64) -> u64 {
        u64::try_from((now_us - self.start_us) / self.tick_us).unwrap_or(0)
    }

    pub(super) fn nearest(&self, lat: f64, lon: f64) -> Option<usize> {
        if let Some(index) = self.by_place.get(&(lat.to_bits(), lon.to_bits())) {
            return Some(*index);
        }
        let distance = |s: &Station| (s.lat - lat).powi(2) + (s.lon - lon).powi(2);
        self.all.iter().min_by(|a, b| distance(a).total_cmp(&distance(b))).map(|s| s.index)
    }

    /// By names, which must be spelled exactly; the error is the service's own word for what it does not find.
    pub(super) fn city(&self, country: &str, state: &str, city: &str) -> Result<usize, &'static str> {
        let key = (country.to_owned(), state.to_owned(), city.to_owned());
        if let Some(index) = self.by_name.get(&key) {
            return Ok(*index);
        }
        if !self.all.iter().any(|s| s.country == country) {
            return Err("country_not_found");
        }
        let state_known = self.all.iter().any(|s| s.country == country && s.state == state);
        Err(if state_known { "city_not_found" } else { "state_not_found" })
    }

    fn step(&self, station: usize, half: u64, tick: u64) -> Step {
        match mix(&[self.seed, station as u64, half, tick, 0]) % 100 {
            _ if tick == 0 => Step::Fresh,
            n if n < UNCHANGED_PERCENT => Step::Unchanged,
            n if n < UNCHANGED_PERCENT + REVISED_PERCENT => Step::Revised,
            _ => Step::Fresh,
        }
    }

    /// The ticks from which the timestamp and the values of one half come.
    fn sources(&self, station: usize, half: u64, tick: u64) -> (u64, u64) {
        let mut values = None;
        for at in (0..=tick).rev() {
            match self.step(station, half, at) {
                Step::Fresh => return (at, values.unwrap_or(at)),
                Step::Revised => values = values.or(Some(at)),
                Step::Unchanged => {}
            }
        }
        (0, values.unwrap_or(0))
    }

    fn time(&self, tick: u64) -> String {
        let us = self.start_us + i64::try_from(tick).unwrap_or(i64::MAX).saturating_mul(self.tick_us);
        let at = chrono::DateTime::from_timestamp_micros(us).unwrap_or_default();
        at.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
    }

    /// What the station shows at `tick`.
    pub(super) fn observation(&self, station: usize, tick: u64) -> Observation {
        const POLLUTANTS: [&str; 6] = ["p2", "p1", "o3", "n2", "s2", "co"];
        const ICONS: [&str; 8] = ["01d", "02d", "03d", "04n", "09d", "10d", "11n", "50d"];
        let (pollution_tick, pollution) = self.sources(station, POLLUTION, tick);
        let (weather_tick, weather) = self.sources(station, WEATHER, tick);
        let pick = |half: u64, tick: u64, what: u64, least: i64, most: i64| {
            let span = (most - least) as f64 + 1.0;
            least + (share(&[self.seed, station as u64, half, tick, what]) * span) as i64
        };
        let p = |what, least, most| pick(POLLUTION, pollution, what, least, most);
        let w = |what, least, most| pick(WEATHER, weather, what, least, most);
        Observation {
            pollution_ts: self.time(pollution_tick),
            aqius: p(1, 1, 480),
            mainus: POLLUTANTS[p(2, 0, 5) as usize],
            aqicn: p(3, 1, 480),
            maincn: POLLUTANTS[p(4, 0, 5) as usize],
            weather_ts: self.time(weather_tick),
            tp: w(1, -15, 42),
            pr: w(2, 985, 1040),
            hu: w(3, 5, 100),
            ws: w(4, 0, 2500) as f64 / 100.0,
            wd: w(5, 0, 359),
            ic: ICONS[w(6, 0, 7) as usize],
        }
    }

    /// The body that the service gives for the observation; `paid` with what only stations have.
    pub(super) fn body(&self, station: usize, observation: &Observation, paid: bool) -> Value {
        let s = &self.all[station];
        let o = observation;
        let mut data = json!({
            "city": s.city, "state": s.state, "country": s.country,
            "location": {"type": "Point", "coordinates": [s.lon, s.lat]},
            "current": {
                "pollution": {
                    "ts": o.pollution_ts, "aqius": o.aqius, "mainus": o.mainus, "aqicn": o.aqicn, "maincn": o.maincn
                },
                "weather": {
                    "ts": o.weather_ts, "tp": o.tp, "pr": o.pr, "hu": o.hu, "ws": o.ws, "wd": o.wd, "ic": o.ic
                },
            },
        });
        if paid {
            data["name"] = json!(s.station);
            data["station"] = json!(s.station);
        }
        json!({"status": "success", "data": data})
    }
}
