//! Parquet in memory.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use std::collections::HashSet;

use super::columns::{LF_POSITION, LF_RAW};

/// Rows that decide whether a dictionary pays for a column.
const SAMPLE_ROWS: usize = 512;
/// A dictionary pays while at most this part of the sample is distinct.
const DISTINCT_PART_MAX: f64 = 0.5;

/// What every file of the lake has in common: zstd at its fastest level, statistics for whole columns only.
pub(crate) fn properties() -> WriterPropertiesBuilder {
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
}

/// Properties for rows that look like `sample`. Strings that hardly repeat are stored as what they differ by from the
/// one before, which costs next to nothing for positions and raw references.
pub(crate) fn properties_for(sample: &RecordBatch) -> WriterProperties {
    let mut properties = properties();
    for (field, column) in sample.schema().fields().iter().zip(sample.columns()) {
        let name = field.name().as_str();
        let front_coded = name == LF_RAW || name == LF_POSITION;
        if front_coded || !dictionary_pays(column) {
            properties = properties.set_column_dictionary_enabled(name.into(), false);
        }
        if front_coded {
            properties = properties.set_column_encoding(name.into(), Encoding::DELTA_BYTE_ARRAY);
        }
        // Nobody looks for rows by the bounds of a path.
        if name == LF_RAW {
            properties = properties.set_column_statistics_enabled(name.into(), EnabledStatistics::None);
        }
    }
    properties.build()
}

fn dictionary_pays(column: &ArrayRef) -> bool {
    let rows = column.len().min(SAMPLE_ROWS);
    // A handful of rows costs nothing either way.
    if rows < 32 {
        return true;
    }
    let distinct = match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().iter().take(rows).collect::<HashSet<_>>().len(),
        DataType::Int64 => {
            let values = column.as_primitive::<arrow::datatypes::Int64Type>();
            values.iter().take(rows).collect::<HashSet<_>>().len()
        }
        DataType::Timestamp(_, _) => {
            let values = column.as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
            values.iter().take(rows).collect::<HashSet<_>>().len()
        }
        DataType::Float64 => {
            let values = column.as_primitive::<arrow::datatypes::Float64Type>();
            values.iter().take(rows).map(|v| v.map(f64::to_bits)).collect::<HashSet<_>>().len()
        }
        _ => return true,
    };
    #[allow(clippy::cast_precision_loss, reason = "at most SAMPLE_ROWS")]
    let part = distinct as f64 / rows as f64;
    part <= DISTINCT_PART_MAX
}

/// One file in the making.
pub(crate) struct Encoder {
    writer: ArrowWriter<Vec<u8>>,
}

impl Encoder {
    pub(crate) fn new(schema: SchemaRef, properties: WriterProperties) -> Result<Self, ArrowError> {
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(Vec::new(), schema, options).map_err(external)?;
        Ok(Self { writer })
    }

    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        self.writer.write(batch).map_err(external)
    }

    pub(crate) fn finish(mut self) -> Result<(Bytes, ParquetMetaData), ArrowError> {
        let metadata = self.writer.finish().map_err(external)?;
        let bytes = std::mem::take(self.writer.inner_mut());
        Ok((bytes.into(), metadata))
    }
}

fn external(error: ParquetError) -> ArrowError {
    ArrowError::from(error)
}
