//! Parquet files, a batch of rows at a time.

use std::fs::File;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Int64Array, StringArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use arrow::record_batch::RecordBatch;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::log::Add;
use super::{OracleError, Place};

/// Large enough that the cost of a batch does not show, small enough that a batch of fat payloads stays small.
const BATCH_ROWS: usize = 8_192;

/// Reads `path` in batches; of `columns` those that are in the file, or all.
pub(crate) fn batches<'a>(
    place: &Place<'_>,
    path: &'a str,
    columns: Option<&[&str]>,
) -> Result<impl Iterator<Item = Result<RecordBatch, OracleError>> + use<'a>, OracleError> {
    let file = File::open(place.lake.join(path)).map_err(|source| OracleError::Io { path: path.to_owned(), source })?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)
        .map_err(|source| OracleError::Parquet { path: path.to_owned(), source })?;
    let mask = match columns {
        None => ProjectionMask::all(),
        Some(columns) => {
            let fields = builder.schema().fields();
            let roots: Vec<usize> =
                (0..fields.len()).filter(|i| columns.contains(&fields[*i].name().as_str())).collect();
            ProjectionMask::roots(builder.parquet_schema(), roots)
        }
    };
    let reader = builder
        .with_projection(mask)
        .with_batch_size(BATCH_ROWS)
        .build()
        .map_err(|source| OracleError::Parquet { path: path.to_owned(), source })?;
    Ok(reader.map(move |batch| batch.map_err(|source| OracleError::Arrow { path: path.to_owned(), source })))
}

/// Rows of one file of a table, with the columns that stand in the path of the file put back.
pub(crate) struct Chunk<'a> {
    path: &'a str,
    add: &'a Add,
    batch: RecordBatch,
}

/// Reads the file of `add` in the table at `table` (a path in the lake) and shows each batch to `visit`.
pub(crate) fn rows(
    place: &Place<'_>,
    table: &str,
    add: &Add,
    columns: Option<&[&str]>,
    mut visit: impl FnMut(&Chunk<'_>) -> Result<(), OracleError>,
) -> Result<(), OracleError> {
    let path = format!("{table}/{}", add.path);
    for batch in batches(place, &path, columns)? {
        visit(&Chunk { path: &path, add, batch: batch? })?;
    }
    Ok(())
}

impl Chunk<'_> {
    /// Rows in it.
    pub(crate) fn len(&self) -> usize {
        self.batch.num_rows()
    }

    /// The batch with the path's columns put back as strings at its end.
    pub(crate) fn whole(&self) -> Result<RecordBatch, OracleError> {
        let mut fields: Vec<(String, ArrayRef)> = Vec::new();
        for (i, field) in self.batch.schema().fields().iter().enumerate() {
            fields.push((field.name().clone(), Arc::clone(self.batch.column(i))));
        }
        for (name, value) in &self.add.partition_values {
            if self.batch.column_by_name(name).is_none() {
                fields.push((name.clone(), constant(value.as_deref(), self.len())));
            }
        }
        RecordBatch::try_from_iter_with_nullable(fields.into_iter().map(|(name, array)| (name, array, true)))
            .map_err(|source| OracleError::Arrow { path: self.path.to_owned(), source })
    }

    fn column(&self, name: &str) -> Result<ArrayRef, OracleError> {
        if let Some(column) = self.batch.column_by_name(name) {
            return Ok(Arc::clone(column));
        }
        match self.add.partition_values.get(name) {
            Some(value) => Ok(constant(value.as_deref(), self.len())),
            None => Err(OracleError::layout(self.path, format!("no column {name}"))),
        }
    }

    /// A column as text.
    pub(crate) fn texts(&self, name: &str) -> Result<StringArray, OracleError> {
        as_texts(self.path, &self.column(name)?)
    }

    /// A column as text; a column of nulls where the table has none of that name.
    pub(crate) fn texts_or_null(&self, name: &str) -> Result<StringArray, OracleError> {
        match self.column(name) {
            Ok(column) => as_texts(self.path, &column),
            Err(_) => as_texts(self.path, &new_null_array(&DataType::Utf8, self.len())),
        }
    }

    /// A column as integers.
    pub(crate) fn longs(&self, name: &str) -> Result<Int64Array, OracleError> {
        as_longs(self.path, &self.column(name)?)
    }

    /// A column of times as µs since the epoch.
    pub(crate) fn times(&self, name: &str) -> Result<Int64Array, OracleError> {
        let column = self.column(name)?;
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()));
        as_longs(self.path, &converted(self.path, &column, &utc)?)
    }

    /// A column as bytes.
    pub(crate) fn bytes(&self, name: &str) -> Result<BinaryArray, OracleError> {
        Ok(converted(self.path, &self.column(name)?, &DataType::Binary)?.as_binary::<i32>().clone())
    }
}

fn constant(value: Option<&str>, len: usize) -> ArrayRef {
    Arc::new(StringArray::from(vec![value; len]))
}

fn converted(path: &str, column: &dyn Array, to: &DataType) -> Result<ArrayRef, OracleError> {
    cast(column, to).map_err(|source| OracleError::Arrow { path: path.to_owned(), source })
}

pub(crate) fn as_texts(path: &str, column: &dyn Array) -> Result<StringArray, OracleError> {
    Ok(converted(path, column, &DataType::Utf8)?.as_string::<i32>().clone())
}

pub(crate) fn as_longs(path: &str, column: &dyn Array) -> Result<Int64Array, OracleError> {
    Ok(converted(path, column, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

/// The raw object's rows as binary.
pub(crate) fn as_bytes(path: &str, column: &dyn Array) -> Result<BinaryArray, OracleError> {
    Ok(converted(path, column, &DataType::Binary)?.as_binary::<i32>().clone())
}
