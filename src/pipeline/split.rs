//! Rows by the values of the table's partition columns.

use std::collections::{BTreeMap, HashMap};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use arrow::error::ArrowError;
use sha2::{Digest, Sha256};

/// The value that stands in a path for null, as Hive has it.
pub(crate) const HIVE_NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// A value longer than this, as escaped, stands in a path by its beginning and its hash: a file system takes 255 bytes a
/// segment and an object store 1,024 a key. Readers take the value from the log, never from the path.
const VALUE_BYTES_MAX: usize = 96;

/// Of a value that is cut, and of its hash.
const BEGINNING_BYTES: usize = 64;
const HASH_BYTES: usize = 12;

/// A value of each partition column, as Delta serialises it; `None` is null.
pub(crate) type Key = Vec<Option<String>>;

/// Whether a column of this type can partition a table.
pub(crate) fn can_partition(data_type: &DataType) -> bool {
    use DataType as T;
    matches!(
        data_type,
        T::Utf8 | T::Boolean | T::Int8 | T::Int16 | T::Int32 | T::Int64 | T::Date32 | T::Timestamp(_, _)
    )
}

/// The rows of each key, in their order, without the partition columns.
pub(crate) fn split(batch: &RecordBatch, by: &[String]) -> Result<Vec<(Key, RecordBatch)>, ArrowError> {
    let mut columns = Vec::with_capacity(by.len());
    for name in by {
        let index = batch.schema().index_of(name)?;
        columns.push(serialise(batch.column(index))?);
    }
    let mut rows: HashMap<Key, Vec<u32>> = HashMap::new();
    for row in 0..batch.num_rows() {
        let key = columns.iter().map(|c| c[row].clone()).collect::<Key>();
        rows.entry(key).or_default().push(u32::try_from(row).unwrap_or(u32::MAX));
    }
    let kept: Vec<usize> =
        (0..batch.num_columns()).filter(|i| !by.iter().any(|name| name == batch.schema().field(*i).name())).collect();
    let narrow = batch.project(&kept)?;
    let mut split = Vec::with_capacity(rows.len());
    for (key, rows) in rows {
        split.push((key, take_record_batch(&narrow, &UInt32Array::from(rows))?));
    }
    split.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(split)
}

fn serialise(column: &ArrayRef) -> Result<Vec<Option<String>>, ArrowError> {
    if let DataType::Timestamp(_, _) = column.data_type() {
        let micros = column.as_primitive::<TimestampMicrosecondType>();
        let show = |us: i64| {
            let time = chrono::DateTime::from_timestamp_micros(us).unwrap_or_default();
            time.format("%Y-%m-%d %H:%M:%S%.6f").to_string()
        };
        return Ok(micros.iter().map(|v| v.map(show)).collect());
    }
    let text = cast(column, &DataType::Utf8)?;
    // Delta reads an empty partition value as null, so it is written as what it will be read as.
    Ok(text.as_string::<i32>().iter().map(|v| v.filter(|v| !v.is_empty()).map(str::to_owned)).collect())
}

/// `a=1/b=x%20y`, for the path of a file of this key.
#[must_use]
pub fn partition_name(by: &[String], key: &[Option<String>]) -> String {
    let parts = by.iter().zip(key).map(|(name, value)| {
        let value = value.as_deref().map_or_else(|| HIVE_NULL.to_owned(), shorten);
        format!("{}={value}", escape(name))
    });
    parts.collect::<Vec<_>>().join("/")
}

/// The values by their columns, as an `add` action holds them.
pub(crate) fn values(by: &[String], key: &Key) -> BTreeMap<String, Option<String>> {
    by.iter().cloned().zip(key.iter().cloned()).collect()
}

fn shorten(value: &str) -> String {
    let escaped = escape(value);
    if escaped.len() <= VALUE_BYTES_MAX {
        return escaped;
    }
    let hash = hex::encode(&Sha256::digest(value.as_bytes())[..HASH_BYTES]);
    // A cut through an escape would be none.
    let beginning = escaped.get(..BEGINNING_BYTES).unwrap_or_default();
    let whole = beginning.rfind('%').filter(|at| at + 3 > BEGINNING_BYTES).unwrap_or(BEGINNING_BYTES);
    format!("{}-{hash}", escaped.get(..whole).unwrap_or_default())
}

/// Percent-escapes everything that some store, shell or Hive reader would take for something else.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.') {
            escaped.push(byte.into());
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    // A segment of dots alone would climb.
    if escaped.bytes().all(|b| b == b'.') { escaped.replace('.', "%2E") } else { escaped }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(value: &str) -> String {
        partition_name(&["k".to_owned()], &[Some(value.to_owned())])
    }

    #[test]
    fn test_long_partition_values_make_short_paths_that_differ() {
        assert_eq!(folder("a/b c"), "k=a%2Fb%20c");
        assert_eq!(folder(&"x".repeat(96)), format!("k={}", "x".repeat(96)));
        let long = |tail: &str| folder(&format!("{}{tail}", "x".repeat(100_000)));
        assert!(long("a").len() < 100 && long("a") != long("b"));
        assert_eq!(long("a"), long("a"));
        for before in 0..5 {
            let cut = folder(&format!("{}{}", "x".repeat(before), "ü".repeat(200)));
            let escapes = cut.split('%').skip(1);
            assert!(
                escapes.into_iter().all(|e| e.len() >= 2 && e.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit)),
                "{cut}"
            );
        }
    }
}
