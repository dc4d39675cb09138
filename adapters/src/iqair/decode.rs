//! From bodies of the API to rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use chrono::DateTime;
use serde_json::Value;

use crate::contract::{DeadMark, DeadRecord, Decode, Payload, Rows};
use crate::json::Path;

/// A column: its name, its type, where it stands in `data`, and what it says in which unit.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// The name.
    pub name: &'static str,
    /// The type.
    pub kind: ColumnKind,
    /// Where it stands below `data`; the first that is there counts.
    pub at: &'static [&'static str],
    /// What it says, with its unit.
    pub says: &'static str,
}

/// The types of columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    /// UTF-8.
    Text,
    /// A 64-bit float.
    Double,
    /// A 64-bit integer.
    Long,
    /// µs, UTC.
    Timestamp,
}

const fn column(name: &'static str, kind: ColumnKind, at: &'static [&'static str], says: &'static str) -> Column {
    Column { name, kind, at, says }
}

/// The columns, in the order of the table. All may be null: a station publishes what it has.
pub const COLUMNS: [Column; 18] = {
    use ColumnKind::{Double, Long, Text, Timestamp};
    [
        column("country", Text, &["country"], "country, as the API names it"),
        column("state", Text, &["state"], "state or region"),
        column("city", Text, &["city"], "city"),
        column("station", Text, &["station", "name"], "station; null for a city"),
        column("lon", Double, &["location.coordinates[0]"], "longitude in degrees east"),
        column("lat", Double, &["location.coordinates[1]"], "latitude in degrees north"),
        column("pollution_ts", Timestamp, &["current.pollution.ts"], "when the pollution was measured"),
        column("aqius", Long, &["current.pollution.aqius"], "air quality index, US EPA scale, 0 to 500"),
        column(
            "mainus",
            Text,
            &["current.pollution.mainus"],
            "main pollutant by the US scale: p2 = PM2.5, p1 = PM10, o3, n2 = NO2, s2 = SO2, co",
        ),
        column("aqicn", Long, &["current.pollution.aqicn"], "air quality index, scale of China's MEP, 0 to 500"),
        column("maincn", Text, &["current.pollution.maincn"], "main pollutant by China's scale"),
        column("weather_ts", Timestamp, &["current.weather.ts"], "when the weather was measured"),
        column("tp", Double, &["current.weather.tp"], "temperature in °C"),
        column("pr", Double, &["current.weather.pr"], "atmospheric pressure in hPa"),
        column("hu", Double, &["current.weather.hu"], "relative humidity in %"),
        column("ws", Double, &["current.weather.ws"], "wind speed in m/s"),
        column("wd", Double, &["current.weather.wd"], "direction the wind comes from, in degrees clockwise from north"),
        column("ic", Text, &["current.weather.ic"], "code of the weather icon"),
    ]
};

/// The columns as Arrow sees them.
#[must_use]
pub fn schema() -> SchemaRef {
    let kind = |column: &Column| match column.kind {
        ColumnKind::Text => DataType::Utf8,
        ColumnKind::Double => DataType::Float64,
        ColumnKind::Long => DataType::Int64,
        ColumnKind::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
    };
    Arc::new(Schema::new(COLUMNS.iter().map(|column| Field::new(column.name, kind(column), true)).collect::<Vec<_>>()))
}

/// Every field that a column is made of: a change of anything else is no new observation.
pub(super) fn content_fields() -> Vec<Path> {
    COLUMNS.iter().flat_map(|column| column.at).filter_map(|at| Path::parse_field(at).ok()).collect()
}

/// One value of a row.
#[derive(Debug, Clone, PartialEq)]
enum Cell {
    Null,
    Text(String),
    Double(f64),
    Long(i64),
}

/// Decodes bodies of the API into [`COLUMNS`].
#[derive(Debug)]
pub(super) struct IqairDecoder {
    data: Option<Path>,
    at: Vec<Vec<Path>>,
    schema: SchemaRef,
}

impl Default for IqairDecoder {
    fn default() -> Self {
        let paths = |column: &Column| column.at.iter().filter_map(|at| Path::parse_field(at).ok()).collect();
        Self { data: Path::parse_field("data").ok(), at: COLUMNS.iter().map(paths).collect(), schema: schema() }
    }
}

/// Where the two timestamps stand among [`COLUMNS`].
const POLLUTION_TS: usize = 6;
const WEATHER_TS: usize = 11;

impl IqairDecoder {
    fn row(&self, bytes: &[u8]) -> Result<Vec<Cell>, DeadMark> {
        let dead = |code, message: String| DeadMark { code, message };
        let body: Value =
            serde_json::from_slice(bytes).map_err(|_| dead("not_json", "the body is not JSON".to_owned()))?;
        let data = self.data.as_ref().and_then(|path| path.field(&body)).filter(|data| data.is_object());
        let data = data.ok_or_else(|| dead("select_missing", "the body has no object data".to_owned()))?;
        let mut cells = Vec::with_capacity(COLUMNS.len());
        for (column, at) in COLUMNS.iter().zip(&self.at) {
            let value = at.iter().find_map(|path| path.field(data).filter(|value| !value.is_null()));
            let cell = value.map_or(Some(Cell::Null), |value| cell(column.kind, value));
            let misfit = || dead("type_mismatch", format!("{} cannot be read as {:?}", column.name, column.kind));
            cells.push(cell.ok_or_else(misfit)?);
        }
        if cells[POLLUTION_TS] == Cell::Null && cells[WEATHER_TS] == Cell::Null {
            let message = "it holds neither a pollution's nor a weather's time".to_owned();
            return Err(dead("missing_field", message));
        }
        Ok(cells)
    }
}

fn cell(kind: ColumnKind, value: &Value) -> Option<Cell> {
    match kind {
        ColumnKind::Text => value.as_str().map(|text| Cell::Text(text.to_owned())),
        ColumnKind::Double => value.as_f64().map(Cell::Double),
        ColumnKind::Long => value.as_i64().or_else(|| whole(value.as_f64()?)).map(Cell::Long),
        ColumnKind::Timestamp => {
            let time = DateTime::parse_from_rfc3339(value.as_str()?).ok()?;
            Some(Cell::Long(time.timestamp_micros()))
        }
    }
}

/// A float that is a whole number.
#[allow(clippy::cast_possible_truncation, reason = "it was checked to be whole and small")]
fn whole(value: f64) -> Option<i64> {
    (value.fract() == 0.0 && value.abs() < 1e15).then_some(value as i64)
}

impl Decode for IqairDecoder {
    fn decode(&self, payloads: &[Payload], _known: Option<&SchemaRef>) -> Rows {
        let mut rows: Vec<Vec<Cell>> = Vec::with_capacity(payloads.len());
        let (mut payload, mut event_time_us, mut dead) = (Vec::new(), Vec::new(), Vec::new());
        for (index, given) in (0u32..).zip(payloads) {
            match self.row(&given.bytes) {
                Ok(row) => {
                    let time = |at: usize| if let Cell::Long(us) = row[at] { Some(us) } else { None };
                    event_time_us.push(time(POLLUTION_TS).or_else(|| time(WEATHER_TS)));
                    payload.push(index);
                    rows.push(row);
                }
                Err(DeadMark { code, message }) => {
                    dead.push(DeadRecord { payload: index, code, message, bytes: None });
                }
            }
        }
        let columns = COLUMNS.iter().enumerate().map(|(at, column)| array(column.kind, &rows, at)).collect();
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns)
            .unwrap_or_else(|_| RecordBatch::new_empty(Arc::clone(&self.schema)));
        Rows { batch, payload, event_time_us, dead }
    }
}

fn array(kind: ColumnKind, rows: &[Vec<Cell>], at: usize) -> ArrayRef {
    let longs = || rows.iter().map(|row| if let Cell::Long(value) = row[at] { Some(value) } else { None });
    match kind {
        ColumnKind::Text => {
            let text = |row: &'_ Vec<Cell>| if let Cell::Text(text) = &row[at] { Some(text.clone()) } else { None };
            Arc::new(rows.iter().map(text).collect::<StringArray>())
        }
        ColumnKind::Double => {
            let double = |row: &Vec<Cell>| if let Cell::Double(value) = row[at] { Some(value) } else { None };
            Arc::new(rows.iter().map(double).collect::<Float64Array>())
        }
        ColumnKind::Long => Arc::new(longs().collect::<Int64Array>()),
        ColumnKind::Timestamp => Arc::new(longs().collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
    }
}
