//! From payloads to rows that fit the table, and to the dead letters that do not.

use std::collections::BTreeMap;

use adapters::contract::{Decode, Payload, Rows};
use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::json::LineDelimitedWriter;
use bytes::Bytes;

use super::dead::Letter;
use super::evolve::{Misfit, Unfit, align, merge_columns};
use super::generate::generate;
use super::naming::{keys_known, named, rename};
use crate::settings::Generated;

/// What is known of the table before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known<'a> {
    /// The adapter's columns, the generated ones among them.
    pub(crate) schema: Option<&'a SchemaRef>,
    /// The columns that are computed.
    pub(crate) generated: &'a [Generated],
}

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
    /// The newest event time by partition, µs UTC.
    pub(crate) newest: BTreeMap<u32, i64>,
}

/// Decodes the runs between payloads that the source has already given up. `partitions` has each payload's.
pub(crate) fn decode(decoder: &dyn Decode, known: Known<'_>, payloads: &[Payload], partitions: &[u32]) -> Decoded {
    let mut decoded = Decoded { schema: known.schema.cloned(), ..Decoded::default() };
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
        let schema = keys_known(decoded.schema.as_ref(), known.generated);
        let rows = decoder.decode(run, schema.as_ref());
        decoded.take(rows, run, base, known.generated, partitions);
        start += length;
    }
    decoded
}

impl Decoded {
    fn take(&mut self, rows: Rows, run: &[Payload], base: u32, generated: &[Generated], partitions: &[u32]) {
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
        let named = named(self.schema.as_ref(), generated, &rows.batch.schema());
        let (schema, unfit) = merge_columns(self.schema.as_ref(), &named);
        let mut records = rows.batch;
        if !unfit.is_empty() {
            let keep = self.refuse_unfit(&records, &named, &unfit, &payload);
            payload = retain(payload, &keep);
            times = retain(times, &keep);
            records = filter_record_batch(&records, &keep).unwrap_or_else(|_| records.slice(0, 0));
        }
        let columns = || {
            let batch = rename(&records, &named)?;
            let indexes: Vec<u32> = payload.iter().map(|p| p - base).collect();
            let batch = if generated.is_empty() { batch } else { generate(&batch, generated, &times, &indexes, run)? };
            align(&batch, &schema)
        };
        let Ok(batch) = columns() else {
            // The types agree in kind, so only a value out of range comes here (text above 2 GiB); none may be dropped.
            for (row, payload) in payload.into_iter().enumerate() {
                let message = "a value does not fit the table's column".to_owned();
                let bytes = row_as_json(&records, row);
                self.letters.push(Letter { payload, code: "type_mismatch", message, bytes });
            }
            return;
        };
        for (time, payload) in times.into_iter().zip(&payload) {
            let (Some(time), Some(partition)) = (time, partitions.get(*payload as usize)) else { continue };
            self.newest.entry(*partition).and_modify(|newest| *newest = time.max(*newest)).or_insert(time);
        }
        self.schema = Some(schema);
        if batch.num_rows() > 0 {
            self.pieces.push(Piece { batch, payload });
        }
    }

    /// Rows with a value in an unfit column become dead letters; gives which rows stay. `named` has the columns of
    /// `records` by the names that they have in `unfit`.
    fn refuse_unfit(
        &mut self,
        records: &RecordBatch,
        named: &SchemaRef,
        unfit: &Unfit,
        payload: &[u32],
    ) -> BooleanArray {
        let mut keep = vec![true; records.num_rows()];
        for (name, why) in unfit {
            let Ok(index) = named.index_of(name) else { continue };
            let (key, column) = (records.schema().field(index).name().clone(), records.column(index));
            for (row, kept) in keep.iter_mut().enumerate() {
                if *kept && column.is_valid(row) {
                    *kept = false;
                    let (code, says) = match why {
                        Misfit::TypeMismatch => ("type_mismatch", "has another type than the table's column"),
                        _ => ("unsupported_type", "has a type that no table holds"),
                    };
                    let (message, bytes) = (format!("field {key:?} {says}"), row_as_json(records, row));
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
