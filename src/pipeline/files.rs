//! Parquet files of one table in the making.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use sha2::{Digest, Sha256};

use super::encode::{Encoder, properties_for};
use super::seal::DataFile;
use super::split::{Key, partition_name, split, values};
use super::stats::delta_stats;

/// Names files by epoch, generation and content: the same file staged twice is the same object, two different ones
/// never are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Namer {
    pub(crate) epoch: u64,
    pub(crate) generation: u64,
}

impl Namer {
    /// One owner seals an epoch once, so the name has to tell apart accidents and not forgeries: a checksum of all bytes
    /// and a hash of the footer, which holds sizes, offsets and bounds of every column, do that at a tenth of the cost of
    /// a hash of all bytes.
    fn name(self, folder: &str, key: &Key, bytes: &[u8]) -> String {
        let footer =
            bytes.last_chunk::<8>().map_or(0, |end| u32::from_le_bytes([end[0], end[1], end[2], end[3]]) as usize);
        let footer = &bytes[bytes.len().saturating_sub(footer + 8)..];
        // The partition's values are hashed too: two of them may have files of the same content, even in one folder,
        // where one is the text that stands for the other.
        let hash = Sha256::new()
            .chain_update(format!("{key:?}"))
            .chain_update(crc32fast::hash(bytes).to_le_bytes())
            .chain_update((bytes.len() as u64).to_le_bytes())
            .chain_update(footer)
            .finalize();
        let name = format!("part-{}-{}-{}.parquet", self.epoch, self.generation, hex::encode(&hash[..16]));
        if folder.is_empty() { name } else { format!("{folder}/{name}") }
    }
}

/// The files of one table, one for each value of its partition columns; more where columns came meanwhile.
pub(crate) struct Files {
    namer: Namer,
    partition_by: Vec<String>,
    /// The columns of the open ones.
    table: Option<SchemaRef>,
    open: HashMap<Key, Open>,
    /// The keys of `open` as they came.
    order: Vec<Key>,
    done: Vec<DataFile>,
}

struct Open {
    schema: SchemaRef,
    rows: usize,
    encoder: Encoder,
}

impl Files {
    pub(crate) fn new(namer: Namer, partition_by: &[String]) -> Self {
        Self {
            namer,
            partition_by: partition_by.to_vec(),
            table: None,
            open: HashMap::new(),
            order: Vec::new(),
            done: Vec::new(),
        }
    }

    /// Writes rows of the table. A file has one set of columns, so new columns begin new files.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        if self.table.as_ref().is_some_and(|table| *table != batch.schema()) {
            self.close()?;
        }
        self.table = Some(batch.schema());
        if self.partition_by.is_empty() {
            return self.write_key(Key::new(), batch);
        }
        for (key, batch) in split(batch, &self.partition_by)? {
            self.write_key(key, &batch)?;
        }
        Ok(())
    }

    fn write_key(&mut self, key: Key, batch: &RecordBatch) -> Result<(), ArrowError> {
        let open = match self.open.entry(key) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(place) => {
                self.order.push(place.key().clone());
                let encoder = Encoder::new(batch.schema(), properties_for(batch))?;
                place.insert(Open { schema: batch.schema(), rows: 0, encoder })
            }
        };
        open.rows += batch.num_rows();
        open.encoder.write(batch)
    }

    fn close(&mut self) -> Result<(), ArrowError> {
        for key in std::mem::take(&mut self.order) {
            let Some(Open { schema, rows, encoder }) = self.open.remove(&key) else { continue };
            let (bytes, metadata) = encoder.finish()?;
            let folder = partition_name(&self.partition_by, &key);
            self.done.push(DataFile {
                path: self.namer.name(&folder, &key, &bytes),
                stats: delta_stats(&schema, &metadata),
                bytes,
                rows,
                partition_values: values(&self.partition_by, &key),
            });
        }
        Ok(())
    }

    /// All files.
    pub(crate) fn finish(mut self) -> Result<Vec<DataFile>, ArrowError> {
        self.close()?;
        Ok(self.done)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::super::split::HIVE_NULL;
    use super::*;

    /// Rows that differ in nothing but the partition's value are not one file, even where two values share a folder.
    #[test]
    fn test_each_partition_value_has_a_file_of_its_own() {
        let long = "x".repeat(1000);
        let cut = partition_name(&["k".to_owned()], &[Some(long.clone())]);
        let cut = cut.strip_prefix("k=").unwrap().to_owned();
        let values = [None, Some(HIVE_NULL), Some(long.as_str()), Some(cut.as_str()), Some("a"), Some("")];
        let keys: ArrayRef = Arc::new(StringArray::from(values.to_vec()));
        let same: ArrayRef = Arc::new(Int64Array::from(vec![7; values.len()]));
        let mut files = Files::new(Namer { epoch: 1, generation: 1 }, &["k".to_owned()]);
        files
            .write(&RecordBatch::try_from_iter_with_nullable([("k", keys, true), ("n", same, true)]).unwrap())
            .unwrap();
        let files = files.finish().unwrap();
        // The empty text is null to readers of Delta, and one file with it.
        assert_eq!(files.iter().map(|file| file.rows).collect::<BTreeSet<_>>(), [1, 2].into());
        assert_eq!(files.iter().map(|file| &file.path).collect::<BTreeSet<_>>().len(), 5);
        assert!(files.iter().all(|file| file.path.len() < 200));
    }
}
