//! Statistics of a data file as Delta wants them, from what the Parquet writer has counted anyway.

use arrow::datatypes::{DataType, SchemaRef};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::statistics::Statistics;
use serde_json::{Map, Value, json};

use super::columns::LF_EPOCH;

/// How many columns get statistics, from the first; Delta's own default. The epoch's column always has some, because
/// readers of ours go by it.
const STATS_COLUMNS: usize = 32;

/// A column's bound in a form that compares.
#[derive(Debug, Clone, PartialEq, PartialOrd)]
enum Bound {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
}

/// `{"numRecords", "minValues", "maxValues", "nullCount"}` as a JSON string.
pub(crate) fn delta_stats(schema: &SchemaRef, metadata: &ParquetMetaData) -> String {
    let rows = metadata.file_metadata().num_rows();
    let (mut mins, mut maxs, mut nulls) = (Map::new(), Map::new(), Map::new());
    for (index, field) in schema.fields().iter().enumerate() {
        if index >= STATS_COLUMNS && field.name() != LF_EPOCH {
            continue;
        }
        let Some(column) = fold(metadata, field.name()) else { continue };
        nulls.insert(field.name().clone(), column.nulls.into());
        if let Some(min) = column.min.and_then(|b| show(&b, field.data_type())) {
            mins.insert(field.name().clone(), min);
        }
        if let Some(max) = column.max.and_then(|b| show(&b, field.data_type())) {
            maxs.insert(field.name().clone(), max);
        }
    }
    json!({"numRecords": rows, "minValues": mins, "maxValues": maxs, "nullCount": nulls}).to_string()
}

#[derive(Default)]
struct Column {
    nulls: u64,
    min: Option<Bound>,
    max: Option<Bound>,
}

/// The column over all row groups; `None` for nested columns and those without statistics. A bound that one row group
/// lacks is lacking as a whole, unless that group holds nothing but nulls.
fn fold(metadata: &ParquetMetaData, name: &str) -> Option<Column> {
    let mut all = Column::default();
    let (mut min_known, mut max_known) = (true, true);
    for group in metadata.row_groups() {
        let column = group.columns().iter().find(|c| c.column_path().parts() == [name])?;
        let stats = column.statistics()?;
        let nulls = stats.null_count_opt()?;
        all.nulls += nulls;
        if i64::try_from(nulls).ok() == Some(group.num_rows()) {
            continue;
        }
        let (min, max) = bounds(stats);
        min_known &= min.is_some();
        max_known &= max.is_some();
        if let Some(min) = min
            && all.min.as_ref().is_none_or(|mine| min < *mine)
        {
            all.min = Some(min);
        }
        if let Some(max) = max
            && all.max.as_ref().is_none_or(|mine| max > *mine)
        {
            all.max = Some(max);
        }
    }
    if !min_known {
        all.min = None;
    }
    if !max_known {
        all.max = None;
    }
    Some(all)
}

fn bounds(stats: &Statistics) -> (Option<Bound>, Option<Bound>) {
    // A truncated maximum is below the true one and would hide rows; a truncated minimum is merely too small.
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok().map(Bound::Text);
    match stats {
        Statistics::Boolean(s) => (s.min_opt().map(|v| Bound::Bool(*v)), s.max_opt().map(|v| Bound::Bool(*v))),
        Statistics::Int32(s) => {
            (s.min_opt().map(|v| Bound::Int((*v).into())), s.max_opt().map(|v| Bound::Int((*v).into())))
        }
        Statistics::Int64(s) => (s.min_opt().map(|v| Bound::Int(*v)), s.max_opt().map(|v| Bound::Int(*v))),
        Statistics::Float(s) => {
            (s.min_opt().map(|v| Bound::Float((*v).into())), s.max_opt().map(|v| Bound::Float((*v).into())))
        }
        Statistics::Double(s) => (s.min_opt().map(|v| Bound::Float(*v)), s.max_opt().map(|v| Bound::Float(*v))),
        Statistics::ByteArray(s) => (
            s.min_opt().and_then(|v| text(v.data())),
            s.max_opt().filter(|_| s.max_is_exact()).and_then(|v| text(v.data())),
        ),
        _ => (None, None),
    }
}

fn show(bound: &Bound, data_type: &DataType) -> Option<Value> {
    Some(match (bound, data_type) {
        (Bound::Bool(v), DataType::Boolean) => json!(v),
        (Bound::Int(v), DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64) => json!(v),
        (Bound::Int(days), DataType::Date32) => {
            let us = days.checked_mul(86_400_000_000)?;
            json!(chrono::DateTime::from_timestamp_micros(us)?.format("%Y-%m-%d").to_string())
        }
        (Bound::Int(us), DataType::Timestamp(_, _)) => {
            let time = chrono::DateTime::from_timestamp_micros(*us)?;
            json!(time.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string())
        }
        (Bound::Float(v), DataType::Float32 | DataType::Float64) if v.is_finite() => json!(v),
        (Bound::Text(v), DataType::Utf8) => json!(v),
        _ => return None,
    })
}
