//! Columns that the runtime computes: dates, for tables that are partitioned by day.

use std::sync::Arc;

use adapters::contract::Payload;
use arrow::array::{ArrayRef, Date32Array, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;

use crate::settings::{DateOf, Generated};

const US_PER_DAY: i64 = 86_400_000_000;

/// What a decoder is to know of the table: its columns but the generated ones.
pub(crate) fn without_generated(schema: Option<&SchemaRef>, generated: &[Generated]) -> Option<SchemaRef> {
    if generated.is_empty() {
        return schema.cloned();
    }
    let own = schema?.fields().iter().filter(|field| !is_generated(field.name(), generated)).cloned();
    let own: Vec<FieldRef> = own.collect();
    (!own.is_empty()).then(|| Arc::new(Schema::new(own)))
}

fn is_generated(name: &str, generated: &[Generated]) -> bool {
    generated.iter().any(|date| date.column == name)
}

/// `batch` with its generated columns, in place of any of that name. `payload` has each row's index in `run`.
pub(crate) fn generate(
    batch: &RecordBatch,
    generated: &[Generated],
    event_time_us: &[Option<i64>],
    payload: &[u32],
    run: &[Payload],
) -> Result<RecordBatch, ArrowError> {
    let schema = batch.schema();
    let kept = schema.fields().iter().zip(batch.columns()).filter(|(field, _)| !is_generated(field.name(), generated));
    let (mut fields, mut columns): (Vec<FieldRef>, Vec<ArrayRef>) =
        kept.map(|(field, column)| (Arc::clone(field), Arc::clone(column))).unzip();
    for date in generated {
        let dates = match &date.of {
            DateOf::EventTime => days(event_time_us.iter().copied()),
            DateOf::ReceivedAt => days(payload.iter().map(|at| run.get(*at as usize).map(|p| p.received_at_us))),
            DateOf::Column(name) => match batch.column_by_name(name) {
                Some(column) => cast(column, &DataType::Date32)?,
                None => days(payload.iter().map(|_| None)),
            },
        };
        fields.push(Arc::new(Field::new(&date.column, DataType::Date32, true)));
        columns.push(dates);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
}

fn days(times_us: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    let day = |us: i64| i32::try_from(us.div_euclid(US_PER_DAY)).ok();
    Arc::new(times_us.map(|us| us.and_then(day)).collect::<Date32Array>())
}
