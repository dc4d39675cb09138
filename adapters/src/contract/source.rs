//! The traits that a kind implements.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;

use super::config::Reader;
use super::{Batch, Credits, Decode, Env, Partition, Position, SourceError};

/// What happens to records that were given but not committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// Opened at a position it gives exactly what comes after it, as often as asked.
    Replayable,
    /// Others push into it; what is not acknowledged is pushed again.
    Pushed,
    /// Only what is current now can be had.
    CurrentValue,
}

/// How a worker drives the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cadence {
    /// One workload a beat, start to start; a running one skips beats.
    Polled {
        /// Start to start.
        interval: Duration,
        /// Each beat is delayed by a random part of this.
        jitter: Duration,
        /// The deadline of one workload with all its retries.
        timeout: Duration,
    },
    /// Pulled without pause; the source itself waits where it must.
    Continuous,
}

/// What a pull gave.
#[derive(Debug)]
pub enum Pull {
    /// Something to commit.
    Batch(Batch),
    /// Nothing more in this workload.
    Idle,
    /// Nothing more ever: the worker ends normally.
    End,
}

/// An open partition.
#[async_trait]
pub trait Source: Send {
    /// Pulls the next batch, paying for its bytes with `credits` as they arrive.
    ///
    /// Cancel-safe: the future may be dropped at any await; what was not returned was not handed over.
    /// Retries that may heal within the workload happen inside; an error returned ends the workload as failed
    /// (class `rate_limited`: as waiting).
    ///
    /// # Errors
    /// See [`super::ErrorClass`]; neither payload nor secret stands in them.
    async fn next(&mut self, credits: &Credits) -> Result<Pull, SourceError>;

    /// Everything up to `position` is committed and announced. Sources that keep nothing back need not care.
    ///
    /// # Errors
    /// Where the other side could not be told; it is told again with the next position.
    async fn acknowledge(&mut self, position: &Position) -> Result<(), SourceError> {
        let _ = position;
        Ok(())
    }

    /// The workload's deadline has passed and its future was dropped: what the source has to hand over of the failed
    /// workload, for example the junk body that becomes a dead letter. Called at most once a workload, does no I/O.
    fn workload_failed(&mut self) -> Option<Batch> {
        None
    }
}

/// A kind with its settings read and checked: everything about a source but the partition and the position.
#[async_trait]
pub trait Mount: Send + Sync + fmt::Debug {
    /// What happens to uncommitted records.
    fn replay(&self) -> Replay;

    /// How the worker drives it.
    fn cadence(&self) -> Cadence;

    /// The partitions to work on, at least one, with unique names.
    fn partitions(&self) -> Vec<Partition>;

    /// The columns where they are fixed by the kind or declared; `None` means inferred.
    fn schema(&self) -> Option<SchemaRef>;

    /// The decoder of its payloads.
    fn decoder(&self) -> Arc<dyn Decode>;

    /// Opens `partition` right after `position` (`None` = from the beginning). Does no I/O that can hang: the first
    /// request belongs to the first [`Source::next`].
    ///
    /// # Errors
    /// Settings that only show to be wrong now, or a position that this kind did not make (`data`).
    async fn open(
        &self,
        partition: &Partition,
        position: Option<&Position>,
        env: Env,
    ) -> Result<Box<dyn Source>, SourceError>;
}

/// A kind of adapter: reads its own keys of `[adapter.X]`.
pub trait Kind: Send + Sync + fmt::Debug {
    /// The value of `kind` in TOML.
    fn name(&self) -> &'static str;

    /// Reads the kind's own keys from the adapter's table, in which what a stream or a message overrides (partitions,
    /// endpoint, …) is already laid over. Everything wrong is reported into the reader, all at once; `None` then.
    ///
    /// Keys common to all adapters (`kind`, `raw`, `table`, `on_bad_record`, `max_failed_workloads`, `restart`,
    /// `allow`) are read by the caller. `interval`, `timeout`, `jitter`, `network` and `partitions` are the kind's.
    fn read(&self, adapter: &Reader<'_>) -> Option<Arc<dyn Mount>>;
}
