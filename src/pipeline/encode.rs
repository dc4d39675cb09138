//! Parquet in memory.

use std::collections::HashSet;
use std::sync::Arc;

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

use super::columns::{LF_POSITION, LF_RAW};

/// Rows that decide whether a dictionary pays for a column.
const SAMPLE_ROWS: usize = 512;
/// A dictionary pays while at most this part of the sample is distinct.
const DISTINCT_PART_MAX: f64 = 0.5;

/// What every file of the lake has in common: zstd at its fastest level (but for very small ones), statistics for whole columns only.
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

/// Rows below this many bytes are stored as they are: a file has no less than a block of the disk anyway, and making zstd's
/// tables for each of its columns would cost more than everything else about it.
const PLAIN_BYTES_MAX: usize = 4096;

/// One file in the making.
pub(crate) enum Encoder {
    /// Nothing is decided before the second rows come, or the end.
    Begun { schema: SchemaRef, properties: WriterProperties, first: Option<RecordBatch> },
    /// More than a little.
    Writing(Box<ArrowWriter<Vec<u8>>>),
}

fn writer(schema: SchemaRef, properties: WriterProperties) -> Result<Box<ArrowWriter<Vec<u8>>>, ArrowError> {
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    ArrowWriter::try_new_with_options(Vec::new(), schema, options).map(Box::new).map_err(external)
}

/// Bytes of the values themselves; more than can be where an array cannot tell.
fn size(batch: &RecordBatch) -> usize {
    let sizes = batch.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(usize::MAX));
    sizes.fold(0, usize::saturating_add)
}

impl Encoder {
    pub(crate) fn new(schema: SchemaRef, properties: WriterProperties) -> Self {
        Self::Begun { schema, properties, first: None }
    }

    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        let (schema, properties, first) = match self {
            Self::Writing(writer) => return writer.write(batch).map_err(external),
            Self::Begun { first, .. } if first.is_none() && size(batch) <= PLAIN_BYTES_MAX => {
                *first = Some(batch.clone());
                return Ok(());
            }
            Self::Begun { schema, properties, first } => (schema, properties, first),
        };
        let mut writer = writer(Arc::clone(schema), properties.clone())?;
        for batch in first.iter().chain([batch]) {
            writer.write(batch).map_err(external)?;
        }
        *self = Self::Writing(writer);
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<(Bytes, ParquetMetaData), ArrowError> {
        let mut writer = match self {
            Self::Writing(writer) => writer,
            Self::Begun { schema, properties, first } => {
                let plain = properties.into_builder().set_compression(Compression::UNCOMPRESSED);
                let mut writer = writer(schema, plain.build())?;
                if let Some(first) = first {
                    writer.write(&first).map_err(external)?;
                }
                writer
            }
        };
        let metadata = writer.finish().map_err(external)?;
        let bytes = std::mem::take(writer.inner_mut());
        Ok((bytes.into(), metadata))
    }
}

fn external(error: ParquetError) -> ArrowError {
    ArrowError::from(error)
}
