//! Columns of a table: the adapter's own and the five that the runtime adds.

use std::collections::BTreeSet;
use std::sync::Arc;

use adapters::contract::columns::{caseless, is_column_name, key_of, with_key};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};

/// Number of the epoch, long.
pub const LF_EPOCH: &str = "_lf_epoch";
/// The partition's name.
pub const LF_PARTITION: &str = "_lf_partition";
/// Position of the payload that the row came from.
pub const LF_POSITION: &str = "_lf_position";
/// `raw path#row`.
pub const LF_RAW: &str = "_lf_raw";
/// When the payload had arrived.
pub const LF_RECEIVED_AT: &str = "_lf_received_at";

/// The columns that the runtime adds, in their order.
pub const LF_COLUMNS: [&str; 5] = [LF_EPOCH, LF_PARTITION, LF_POSITION, LF_RAW, LF_RECEIVED_AT];

/// Timestamps of the lake: µs, UTC.
#[must_use]
pub(crate) fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The fields of [`LF_COLUMNS`].
pub(crate) fn lf_fields() -> Vec<FieldRef> {
    vec![
        Arc::new(Field::new(LF_EPOCH, DataType::Int64, true)),
        Arc::new(Field::new(LF_PARTITION, DataType::Utf8, true)),
        Arc::new(Field::new(LF_POSITION, DataType::Utf8, true)),
        Arc::new(Field::new(LF_RAW, DataType::Utf8, true)),
        Arc::new(Field::new(LF_RECEIVED_AT, timestamp(), true)),
    ]
}

/// The adapter's columns with the runtime's behind them.
#[must_use]
pub fn table_columns(adapter: Option<&SchemaRef>) -> SchemaRef {
    let own = adapter.into_iter().flat_map(|s| s.fields().iter().cloned());
    Arc::new(Schema::new(own.chain(lf_fields()).collect::<Vec<_>>()))
}

/// The columns of a table without the runtime's.
#[must_use]
pub fn adapter_columns(table: &SchemaRef) -> SchemaRef {
    let own = table.fields().iter().filter(|f| !LF_COLUMNS.contains(&f.name().as_str()));
    Arc::new(Schema::new(own.cloned().collect::<Vec<_>>()))
}

/// The type as the lake stores it: everything nullable, timestamps in µs UTC, lists of `item`; fields keep their keys. `None` for a type or a
/// nested name that a Delta table cannot hold.
#[must_use]
pub fn normalise(data_type: &DataType) -> Option<DataType> {
    let inner = |field: &FieldRef, name: &str| Some(Field::new(name, normalise(field.data_type())?, true));
    Some(match data_type {
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Date32 => data_type.clone(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            DataType::Binary
        }
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::Timestamp(_, Some(_)) => timestamp(),
        DataType::Decimal128(p, s) if *p <= 38 && *s >= 0 => data_type.clone(),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            DataType::List(Arc::new(inner(item, "item")?))
        }
        DataType::Struct(fields) => {
            let mut seen = BTreeSet::new();
            let fields = fields.iter().map(|field| {
                let fresh = seen.insert(caseless(field.name()));
                let named = (fresh && is_column_name(field.name())).then(|| inner(field, field.name())).flatten();
                named.map(|named| with_key(named, key_of(field)))
            });
            let fields = fields.collect::<Option<Vec<_>>>()?;
            // A struct without fields has no place in Parquet.
            if fields.is_empty() {
                return None;
            }
            DataType::Struct(fields.into())
        }
        DataType::Map(entries, _) => map_of(entries)?,
        _ => return None,
    })
}

fn map_of(entries: &FieldRef) -> Option<DataType> {
    let DataType::Struct(pair) = entries.data_type() else { return None };
    let [key, value] = &pair[..] else { return None };
    let key = Field::new("keys", normalise(key.data_type())?, false);
    let value = Field::new("values", normalise(value.data_type())?, true);
    let pair = DataType::Struct(vec![key, value].into());
    Some(DataType::Map(Arc::new(Field::new("entries", pair, false)), false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_types_normalise_recursively() {
        let list = DataType::List(Arc::new(Field::new("element", DataType::UInt8, false)));
        let fields = vec![Field::new("t", DataType::Timestamp(TimeUnit::Second, Some("+01:00".into())), false)];
        assert_eq!(normalise(&list), Some(DataType::List(Arc::new(Field::new("item", DataType::Int16, true)))));
        assert_eq!(
            normalise(&DataType::Struct(fields.into())),
            Some(DataType::Struct(vec![Field::new("t", timestamp(), true)].into()))
        );
        assert_eq!(normalise(&DataType::Timestamp(TimeUnit::Second, None)), None);
    }
}
