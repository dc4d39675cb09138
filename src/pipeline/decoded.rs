//! From payloads to rows that fit the table, and to the dead letters that do not.

use adapters::contract::{Decode, Payload, Rows};
use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::json::LineDelimitedWriter;
use bytes::Bytes;
use std::sync::Arc;

use super::columns::{merge_columns, normalise};
use super::dead::Letter;

/// Rows of one run of payloads.
#[derive(Debug)]
pub(crate) struct Piece {
    /// Adapter columns, normalised, in the epoch's order as of then.
    pub(crate) batch: RecordBatch,
    /// For each row, its payload.
    pub(crate) payload: Vec<u32>,
}

/// What payloads decode to. Payloads are counted from the first one given.
#[derive(Default)]
pub(crate) struct Decoded {
    /// The adapter's columns with what these payloads brought.
    pub(crate) schema: Option<SchemaRef>,
    pub(crate) pieces: Vec<Piece>,
    pub(crate) letters: Vec<Letter>,
    /// The newest event time.
    pub(crate) watermark_us: Option<i64>,
}

/// Decodes the runs between payloads that the source has already given up.
pub(crate) fn decode(decoder: &dyn Decode, known: Option<&SchemaRef>, payloads: &[Payload]) -> Decoded {
    let mut decoded = Decoded { schema: known.cloned(), ..Decoded::default() };
    let mut start = 0;
    while start < payloads.len() {
        let base = u32::try_from(start).unwrap_or(u32::MAX);
        if let Some(mark) = &payloads[start].dead {
            let bytes = payloads[start].bytes.clone();
            decoded.letters.push(Letter { payload: base, code: mark.code, message: mark.message.clone(), bytes });
            start += 1;
            continue;
        }
        let length = payloads[start..].iter().take_while(|p| p.dead.is_none()).count();
        let run = &payloads[start..start + length];
        let rows = decoder.decode(run, decoded.schema.as_ref());
        decoded.take(rows, run, base);
        start += length;
    }
    decoded
}

impl Decoded {
    fn take(&mut self, rows: Rows, run: &[Payload], base: u32) {
        for record in rows.dead {
            let whole = run.get(record.payload as usize).map(|p| p.bytes.clone()).unwrap_or_default();
            let bytes = record.bytes.map_or(whole, Bytes::from);
            self.letters.push(Letter {
                payload: base + record.payload,
                code: record.code,
                message: record.message,
                bytes,
            });
        }
        let mut payload: Vec<u32> = rows.payload.iter().map(|p| base + p).collect();
        let mut times = rows.event_time_us;
        let (schema, unfit) = merge_columns(self.schema.as_ref(), &rows.batch.schema());
        let mut batch = rows.batch;
        if !unfit.is_empty() {
            let keep = self.refuse_unfit(&batch, &unfit, &payload);
            payload = retain(payload, &keep);
            times = retain(times, &keep);
            batch = filter_record_batch(&batch, &keep).unwrap_or_else(|_| batch.slice(0, 0));
        }
        let Ok(batch) = align(&batch, &schema) else {
            // The types agree in kind, so only a value out of range comes here (text above 2 GiB); none may be dropped.
            for (row, payload) in payload.into_iter().enumerate() {
                let message = "a value does not fit the table's column".to_owned();
                let bytes = row_as_json(&batch, row);
                self.letters.push(Letter { payload, code: "type_mismatch", message, bytes });
            }
            return;
        };
        self.watermark_us = self.watermark_us.max(times.into_iter().flatten().max());
        self.schema = Some(schema);
        if batch.num_rows() > 0 {
            self.pieces.push(Piece { batch, payload });
        }
    }

    /// Rows with a value in an unfit column become dead letters; gives which rows stay.
    fn refuse_unfit(&mut self, batch: &RecordBatch, unfit: &[(String, &'static str)], payload: &[u32]) -> BooleanArray {
        let mut keep = vec![true; batch.num_rows()];
        for (name, code) in unfit {
            let Some(column) = batch.column_by_name(name) else { continue };
            for (row, kept) in keep.iter_mut().enumerate() {
                if *kept && column.is_valid(row) {
                    *kept = false;
                    let message = match *code {
                        "type_mismatch" => format!("field {name:?} has another type than the table's column"),
                        _ => format!("field {name:?} cannot be a column of the table"),
                    };
                    let bytes = row_as_json(batch, row);
                    self.letters.push(Letter { payload: payload[row], code, message, bytes });
                }
            }
        }
        BooleanArray::from(keep)
    }
}

fn retain<T>(values: Vec<T>, keep: &BooleanArray) -> Vec<T> {
    values.into_iter().zip(keep.values()).filter_map(|(value, keep)| keep.then_some(value)).collect()
}

fn row_as_json(batch: &RecordBatch, row: usize) -> Bytes {
    let mut json = Vec::new();
    let mut writer = LineDelimitedWriter::new(&mut json);
    let written = writer.write(&batch.slice(row, 1)).and_then(|()| writer.finish());
    drop(writer);
    if written.is_err() {
        json.clear();
    }
    while json.last() == Some(&b'\n') {
        json.pop();
    }
    json.into()
}

/// `batch` with exactly the columns of `schema`: cast where only the form differs, null where it has none.
pub(crate) fn align(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let fitting = batch
            .column_by_name(field.name())
            .filter(|column| normalise(column.data_type()).as_ref() == Some(field.data_type()));
        columns.push(match fitting {
            Some(column) if column.data_type() == field.data_type() => Arc::clone(column),
            Some(column) => cast(column, field.data_type())?,
            None => new_null_array(field.data_type(), batch.num_rows()),
        });
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}
