//! Raw segments: hashed, and looked into for the payload that a row came from.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::rc::Rc;

use arrow::array::{Array, BinaryArray, StringArray};
use arrow::compute::concat_batches;
use sha2::{Digest, Sha256};

use super::scan::{as_bytes, as_texts, batches};
use super::{OracleError, Place};

/// Segments kept open at a time: rows lie in the order of their segments, so a few are enough, and an epoch's raw
/// bytes are bounded by its own limit.
const SEGMENTS_KEPT: usize = 4;

/// A raw object's payloads.
pub(crate) struct Segment {
    partitions: StringArray,
    positions: StringArray,
    bytes: BinaryArray,
}

/// Segments by path, the last few.
#[derive(Default)]
pub(crate) struct Segments {
    kept: HashMap<String, Option<Rc<Segment>>>,
    order: VecDeque<String>,
}

/// The hex SHA-256 of a file of the lake; `None` where it is not there.
pub(crate) fn hash_of(place: &Place<'_>, path: &str) -> Result<Option<String>, OracleError> {
    let fault = |source| OracleError::Io { path: path.to_owned(), source };
    let mut file = match File::open(place.lake.join(path)) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fault(error)),
    };
    let mut hasher = Sha256::new();
    std::io::copy(&mut file, &mut hasher).map_err(fault)?;
    Ok(Some(hex::encode(hasher.finalize())))
}

impl Segments {
    /// The segment at `path`; `None` where it cannot be read (that it cannot is counted where objects are checked).
    pub(crate) fn get(&mut self, place: &Place<'_>, path: &str) -> Option<Rc<Segment>> {
        if let Some(segment) = self.kept.get(path) {
            return segment.clone();
        }
        let segment = Segment::read(place, path).ok().map(Rc::new);
        if self.order.len() == SEGMENTS_KEPT
            && let Some(oldest) = self.order.pop_front()
        {
            self.kept.remove(&oldest);
        }
        self.order.push_back(path.to_owned());
        self.kept.insert(path.to_owned(), segment.clone());
        segment
    }
}

impl Segment {
    fn read(place: &Place<'_>, path: &str) -> Result<Self, OracleError> {
        let all = batches(place, path, Some(&["partition", "position", "bytes"]))?.collect::<Result<Vec<_>, _>>()?;
        let Some(first) = all.first() else { return Err(OracleError::layout(path, "holds no row")) };
        let whole = concat_batches(&first.schema(), &all)
            .map_err(|source| OracleError::Arrow { path: path.to_owned(), source })?;
        let column = |name| {
            whole.column_by_name(name).ok_or_else(|| OracleError::layout(path, format!("a raw segment without {name}")))
        };
        Ok(Self {
            partitions: as_texts(path, column("partition")?)?,
            positions: as_texts(path, column("position")?)?,
            bytes: as_bytes(path, column("bytes")?)?,
        })
    }

    /// The payload in `row`.
    pub(crate) fn bytes(&self, row: usize) -> Option<&[u8]> {
        (row < self.bytes.len() && self.bytes.is_valid(row)).then(|| self.bytes.value(row))
    }

    /// Whether `row` holds the payload of a row with these properties.
    pub(crate) fn fits(&self, row: usize, partition: &str, position: Option<&str>, witness: Option<&str>) -> bool {
        let Some(bytes) = self.bytes(row) else { return false };
        let own_position = self.positions.is_valid(row).then(|| self.positions.value(row));
        self.partitions.value(row) == partition
            && own_position == position
            && witness.is_none_or(|witness| std::str::from_utf8(bytes).is_ok_and(|text| text.contains(witness)))
    }
}
