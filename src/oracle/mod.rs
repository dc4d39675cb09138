//! A judge of a lake on a local folder, which shares no code with the writer.
//!
//! It reads `_delta_log` and Parquet by itself, straight from the file system: JSON through `serde_json`, checkpoints
//! and rows through the `parquet` crate. No store, no Delta library and nothing of the rooms that write stands in its
//! `use` lines (a test holds that), so a fault that writer and reader would share cannot hide here.
//!
//! ```text
//! log (Delta log replayed) + epoch records → rows, dead letters, raw segments → verdict against what was handed over
//! ```
//!
//! Everything is blocking I/O, and memory is bounded by the number of epochs, files and partitions plus one bit a
//! record (synthetic) or one line a distinct observation, never by the bytes in the lake.

mod expected;
mod facts;
mod judge;
mod log;
mod observation;
mod raw;
mod records;
mod references;
mod scan;
mod verdict;

#[cfg(test)]
mod tests;

pub use expected::{Expected, check_of};
pub use facts::{DeadRow, Row, StreamFacts, last_epoch, read_stream};
pub use judge::judge;
pub use log::{Add, Commit, Log};
pub use observation::normalise;
pub use records::{EpochRecord, FileEntry, Span};
pub use references::{ReferencesVerdict, references};
pub use verdict::Verdict;

use thiserror::Error;

/// Something in the lake that cannot be read. Paths are relative to the lake.
#[derive(Debug, Error)]
pub enum OracleError {
    /// The file system refused.
    #[error("{path} cannot be read")]
    Io {
        /// In the lake.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not the JSON that belongs there.
    #[error("{path} is not what belongs there")]
    Json {
        /// In the lake.
        path: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Not readable as Parquet.
    #[error("{path} cannot be read as Parquet")]
    Parquet {
        /// In the lake.
        path: String,
        /// Why.
        #[source]
        source: parquet::errors::ParquetError,
    },
    /// A column of another type than the layout says.
    #[error("{path} holds a column of another type")]
    Arrow {
        /// In the lake.
        path: String,
        /// Why.
        #[source]
        source: arrow::error::ArrowError,
    },
    /// Readable, but against the rules of a Delta log or of the lake's layout.
    #[error("{path}: {what}")]
    Layout {
        /// In the lake.
        path: String,
        /// What is wrong.
        what: String,
    },
}

impl OracleError {
    pub(crate) fn layout(path: &str, what: impl Into<String>) -> Self {
        Self::Layout { path: path.to_owned(), what: what.into() }
    }

    /// The error with everything under it, in one line.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        text
    }
}

/// A lake, a tenant and a stream: every path of the layout (interface §4) starts here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) lake: &'a std::path::Path,
    pub(crate) tenant: &'a str,
    pub(crate) stream: &'a str,
}

impl Place<'_> {
    pub(crate) fn under(&self, top: &str) -> String {
        format!("{top}/{}/{}", self.tenant, self.stream)
    }

    pub(crate) fn txn(&self, prefix: &str) -> String {
        format!("{prefix}/{}/{}", self.tenant, self.stream)
    }

    /// Names of the entries of a folder of the lake, sorted; empty where there is no such folder.
    pub(crate) fn names(&self, folder: &str) -> Result<Vec<String>, OracleError> {
        let fault = |source| OracleError::Io { path: folder.to_owned(), source };
        let entries = match std::fs::read_dir(self.lake.join(folder)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(fault(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            names.push(entry.map_err(fault)?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    pub(crate) fn read(&self, path: &str) -> Result<Vec<u8>, OracleError> {
        std::fs::read(self.lake.join(path)).map_err(|source| OracleError::Io { path: path.to_owned(), source })
    }
}
