//! The decoder: records out of payloads, checked, then built by Arrow.

use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::kernels::cast_utils::string_to_datetime;
use arrow::datatypes::{DataType, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use arrow::json::ReaderBuilder;
use chrono::Utc;

use super::check::{Verdict, check};
use super::infer::learn;
use super::path::Path;
use super::shape::Shape;
use crate::contract::columns::keyed;
use crate::contract::{DeadMark, DeadRecord, Decode, Payload, Rows};

/// The key of [`Payload::meta`] that says which of the selected records to take, counted from 0: `0-4,7`. Absent: all.
pub const TAKE: &str = "lf.take";

/// How JSON payloads become records.
#[derive(Debug, Clone, Default)]
pub struct JsonSpec {
    /// Where the records stand ([`Path`]); `None`: the payload itself is the one record.
    pub select: Option<String>,
    /// The event time's column as a dotted path: a timestamp, an RFC 3339 string, or a number of seconds,
    /// milliseconds or microseconds since 1970, told apart by its size.
    pub event_time: Option<String>,
    /// The declared columns, which may say their keys in their metadata; `None` infers them.
    pub schema: Option<SchemaRef>,
    /// What a record's field means that no column takes.
    pub growth: Growth,
}

/// What happens to a record that brings what the table's columns do not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Growth {
    /// Declared columns are all there are and other fields are passed over; inferred ones grow.
    #[default]
    AsDeclared,
    /// The columns grow: new ones, new members of structs, and whole numbers of more bits.
    Add,
    /// The record is dead ([`SCHEMA_CHANGE`]), once there are columns.
    Refuse,
}

/// The code of a record that brings what the table's columns do not have, where they must not grow.
pub const SCHEMA_CHANGE: &str = "schema_change";

/// Decodes JSON as [`JsonSpec`] says.
#[derive(Debug)]
pub struct JsonDecoder {
    select: Option<Result<Path, String>>,
    event_time: Vec<String>,
    declared: Option<(SchemaRef, Shape)>,
    growth: Growth,
}

/// One record as it stands in its payload.
struct Record<'p> {
    payload: u32,
    text: &'p str,
    whole: bool,
}

impl Record<'_> {
    fn dead(&self, mark: DeadMark) -> DeadRecord {
        let bytes = (!self.whole).then(|| self.text.as_bytes().to_vec());
        DeadRecord { payload: self.payload, code: mark.code, message: mark.message, bytes }
    }
}

impl JsonDecoder {
    /// A decoder of `spec`. With a `select` that [`Path::parse`] refuses every payload is dead
    /// (`invalid_select`), so check it where it is configured.
    #[must_use]
    pub fn new(spec: JsonSpec) -> Self {
        let event_time = spec.event_time.map(|path| path.split('.').map(str::to_owned).collect()).unwrap_or_default();
        let declared = spec.schema.map(|schema| keyed(&schema)).map(|schema| (Arc::clone(&schema), Shape::of(&schema)));
        Self { select: spec.select.as_deref().map(Path::parse), event_time, declared, growth: spec.growth }
    }

    fn records<'p>(&self, index: u32, payload: &'p Payload, out: &mut Vec<Record<'p>>) -> Result<(), DeadMark> {
        let text = std::str::from_utf8(&payload.bytes).map_err(|_| super::not_utf8())?;
        let take = payload.meta.get(TAKE).map(|take| parse_take(take)).transpose()?;
        let taken = |at: usize| take.as_ref().is_none_or(|ranges| ranges.iter().any(|range| range.contains(&at)));
        match &self.select {
            None if taken(0) => out.push(Record { payload: index, text, whole: true }),
            None => {}
            Some(Ok(path)) => {
                let all = path.records(text)?.into_iter().enumerate().filter(|(at, _)| taken(*at));
                out.extend(all.map(|(_, text)| Record { payload: index, text, whole: false }));
            }
            Some(Err(why)) => {
                let message = format!("the configured select cannot be read: {why}");
                return Err(DeadMark { code: "invalid_select", message });
            }
        }
        Ok(())
    }
}

/// Reads [`TAKE`].
fn parse_take(text: &str) -> Result<Vec<RangeInclusive<usize>>, DeadMark> {
    let range = |part: &str| -> Option<RangeInclusive<usize>> {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    let ranges: Option<Vec<_>> = text.split(',').filter(|part| !part.is_empty()).map(range).collect();
    ranges.ok_or_else(|| DeadMark { code: "invalid_take", message: format!("{TAKE} is not a list of ranges") })
}

/// Writes [`TAKE`] for ascending `indexes`; the empty text takes none.
#[must_use]
pub fn format_take(indexes: impl IntoIterator<Item = usize>) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for index in indexes {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == index => *last = index,
            _ => ranges.push((index, index)),
        }
    }
    let show = |(first, last)| if first == last { format!("{first}") } else { format!("{first}-{last}") };
    ranges.into_iter().map(show).collect::<Vec<_>>().join(",")
}

impl Decode for JsonDecoder {
    fn decode(&self, payloads: &[Payload], known: Option<&SchemaRef>) -> Rows {
        let mut dead = Vec::new();
        let mut records = Vec::with_capacity(payloads.len());
        for (index, payload) in (0u32..).zip(payloads) {
            if let Err(mark) = self.records(index, payload, &mut records) {
                dead.push(DeadRecord { payload: index, code: mark.code, message: mark.message, bytes: None });
            }
        }
        let mut good = Vec::with_capacity(records.len());
        let fixed = match (&self.declared, self.growth, known) {
            (Some((schema, shape)), Growth::AsDeclared | Growth::Refuse, _) => {
                Some((Arc::clone(schema), shape.clone()))
            }
            (None, Growth::Refuse, Some(known)) => Some((Arc::clone(known), Shape::of(known))),
            _ => None,
        };
        let schema = match fixed {
            Some((schema, shape)) => {
                hold_against(&shape, self.growth == Growth::Refuse, records, &mut good, &mut dead);
                schema
            }
            None => {
                let known = known.or(self.declared.as_ref().map(|(schema, _)| schema));
                infer(known, records, &mut good, &mut dead)
            }
        };
        let batch = build_all(&schema, &mut good, &mut dead);
        dead.sort_by_key(|record| record.payload);
        let event_time_us = event_times(&batch, &self.event_time);
        Rows { batch, payload: good.iter().map(|record| record.payload).collect(), event_time_us, dead }
    }
}

/// Sorts `records` into good and dead by columns that stay as they are.
fn hold_against<'p>(
    shape: &Shape,
    refuse_surplus: bool,
    records: Vec<Record<'p>>,
    good: &mut Vec<Record<'p>>,
    dead: &mut Vec<DeadRecord>,
) {
    for record in records {
        match check(shape, record.text, refuse_surplus) {
            Verdict::Dead(mark) => dead.push(record.dead(mark)),
            Verdict::Surplus if refuse_surplus => {
                let message = "the record has a field that the table has no column for".to_owned();
                dead.push(record.dead(DeadMark { code: SCHEMA_CHANGE, message }));
            }
            _ => good.push(record),
        }
    }
}

/// Sorts `records` into good and dead, and gives `known` with what the good ones bring.
fn infer<'p>(
    known: Option<&SchemaRef>,
    records: Vec<Record<'p>>,
    good: &mut Vec<Record<'p>>,
    dead: &mut Vec<DeadRecord>,
) -> SchemaRef {
    let mut shape = known.map(|schema| Shape::of(schema)).unwrap_or_default();
    let mut learned = false;
    for record in records {
        if check(&shape, record.text, true) == Verdict::Fits {
            good.push(record);
            continue;
        }
        // Only the slow path knows whether a misfit can be helped by widening a column of this batch.
        match learn(&mut shape, record.text) {
            Ok(()) => {
                learned = true;
                good.push(record);
            }
            Err(mark) => dead.push(record.dead(mark)),
        }
    }
    match known {
        Some(known) if !learned => Arc::clone(known),
        _ => shape.schema(),
    }
}

/// One batch of all `records`; those that Arrow refuses move to `dead`.
fn build_all(schema: &SchemaRef, records: &mut Vec<Record<'_>>, dead: &mut Vec<DeadRecord>) -> RecordBatch {
    loop {
        if let Some(batch) = build(schema, records) {
            return batch;
        }
        let mut refused = Vec::new();
        find_refused(schema, records, 0, &mut refused);
        if refused.is_empty() {
            // Arrow takes the parts and not the whole: more text than one column can hold.
            let excess = records.split_off(records.len() / 2);
            dead.extend(excess.iter().map(|record| record.dead(too_much())));
            continue;
        }
        let mut at = 0;
        records.retain(|record| {
            let bad = refused.binary_search(&at).is_ok();
            at += 1;
            if bad {
                dead.push(record.dead(blame(schema, record)));
            }
            !bad
        });
    }
}

fn too_much() -> DeadMark {
    DeadMark { code: "batch_too_large", message: "the batch holds more text than one column can".to_owned() }
}

/// `None` where Arrow refuses any of them.
fn build(schema: &SchemaRef, records: &[Record<'_>]) -> Option<RecordBatch> {
    if records.is_empty() {
        return Some(RecordBatch::new_empty(Arc::clone(schema)));
    }
    if schema.fields().is_empty() {
        let options = RecordBatchOptions::new().with_row_count(Some(records.len()));
        return RecordBatch::try_new_with_options(Arc::clone(schema), Vec::new(), &options).ok();
    }
    let mut decoder = ReaderBuilder::new(Arc::clone(schema)).with_batch_size(records.len()).build_decoder().ok()?;
    for record in records {
        let text = record.text.as_bytes();
        if decoder.decode(text).ok()? < text.trim_ascii_end().len() {
            return None;
        }
    }
    decoder.flush().ok().flatten().filter(|batch| batch.num_rows() == records.len())
}

/// The indexes, from `start` on, of the records that Arrow refuses: by halves, so that a single bad one costs the
/// logarithm of the batch.
fn find_refused(schema: &SchemaRef, records: &[Record<'_>], start: usize, out: &mut Vec<usize>) {
    if build(schema, records).is_some() {
        return;
    }
    if records.len() == 1 {
        out.push(start);
        return;
    }
    let (left, right) = records.split_at(records.len() / 2);
    find_refused(schema, left, start, out);
    find_refused(schema, right, start + left.len(), out);
}

/// Which column Arrow refuses the record for.
fn blame(schema: &SchemaRef, record: &Record<'_>) -> DeadMark {
    let parses = ReaderBuilder::new(Arc::clone(schema))
        .build_decoder()
        .is_ok_and(|mut decoder| decoder.decode(record.text.as_bytes()).is_ok() && !decoder.has_partial_record());
    for field in schema.fields().iter().filter(|_| parses) {
        let alone = Arc::new(Schema::new(vec![Arc::clone(field)]));
        if build(&alone, std::slice::from_ref(record)).is_none() {
            let expected = Shape::of(&alone).members[0].slot.kind.expected();
            let message = format!("{} is not {expected} ({})", field.name(), field.data_type());
            return DeadMark { code: "type_mismatch", message };
        }
    }
    DeadMark { code: "not_json", message: "the record cannot be read as JSON".to_owned() }
}

/// The event time of each row.
fn event_times(batch: &RecordBatch, path: &[String]) -> Vec<Option<i64>> {
    let none = || vec![None; batch.num_rows()];
    let Some((first, rest)) = path.split_first() else { return none() };
    let Some(mut column) = batch.column_by_name(first).map(Arc::clone) else { return none() };
    for name in rest {
        let Some(parent) = column.as_struct_opt() else { return none() };
        let Some(child) = parent.column_by_name(name).map(Arc::clone) else { return none() };
        let Some(nulls) = parent.nulls() else {
            column = child;
            continue;
        };
        // A child's value under a null struct means nothing.
        let rows = UInt32Array::from_iter((0u32..).zip(nulls.iter()).map(|(row, valid)| valid.then_some(row)));
        let Ok(masked) = arrow::compute::take(&child, &rows, None) else { return none() };
        column = masked;
    }
    match column.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            column.as_primitive::<TimestampMicrosecondType>().iter().collect()
        }
        DataType::Int64 => column.as_primitive::<Int64Type>().iter().map(|at| at.map(epoch_us)).collect(),
        DataType::Utf8 => column
            .as_string::<i32>()
            .iter()
            .map(|text| text.and_then(|text| string_to_datetime(&Utc, text).ok()).map(|at| at.timestamp_micros()))
            .collect(),
        _ => none(),
    }
}

/// Up to here a number counts seconds since 1970 (the year 5138), then milliseconds, then microseconds.
const SECONDS_BELOW: u64 = 100_000_000_000;
const MILLISECONDS_BELOW: u64 = SECONDS_BELOW * 1000;

fn epoch_us(at: i64) -> i64 {
    match at.unsigned_abs() {
        n if n < SECONDS_BELOW => at * 1_000_000,
        n if n < MILLISECONDS_BELOW => at * 1000,
        _ => at,
    }
}
