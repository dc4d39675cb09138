//! `kind = "synthetic"`: records made on the spot, the same ones for the same seed, with a check that anybody can
//! compute. For tests, the demo, benchmarks and sizing a machine.
//!
//! A record is `{partition, seq, ts, check, pad}`; the position of a record is its `seq` as text, each record is one
//! payload. `ts` is when the record was made and the only part that differs when it is made again.

mod record;
mod source;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;

pub use record::check;

use crate::contract::config::{Reader, Value};
use crate::contract::{
    Cadence, Decode, Env, ErrorClass, Kind, Mount, Partition, Position, Replay, Source, SourceError,
};
use crate::json::{JsonDecoder, JsonSpec, timestamp_type};
use source::SyntheticSource;

/// The size of a record's JSON where nothing is said.
const BYTES_DEFAULT: i64 = 250;
/// Below it the fields leave no room for a pad.
const BYTES_MIN: i64 = 64;
/// A greater record would not fit the batches' buffers.
const BYTES_MAX: i64 = 1 << 20;
/// As many workers as the design plans for in one process.
const PARTITIONS_MAX: i64 = 100_000;
/// Slower than one record in three hours is not a source any more.
const RATE_MIN: f64 = 0.0001;
/// Faster than any core makes records.
const RATE_MAX: f64 = 100_000_000.0;

/// Is told of each batch at its hand-over: its partition and the `seq` of its last record.
pub type Observer = Arc<dyn Fn(&Partition, u64) + Send + Sync>;

/// The kind.
#[derive(Clone, Default)]
pub struct Synthetic {
    observer: Option<Observer>,
}

impl Synthetic {
    /// The kind with `observer` told of every batch, for those who judge what arrives.
    #[must_use]
    pub fn with_observer(observer: Observer) -> Self {
        Self { observer: Some(observer) }
    }
}

impl fmt::Debug for Synthetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Synthetic").field("observed", &self.observer.is_some()).finish()
    }
}

impl Kind for Synthetic {
    fn name(&self) -> &'static str {
        "synthetic"
    }

    fn read(&self, adapter: &Reader<'_>) -> Option<Arc<dyn Mount>> {
        // A key that is there and cannot be read has been reported; only then is its value missing here.
        let or = |key: &str, value: Option<i64>, default: i64| if adapter.has(key) { value } else { Some(default) };
        let seed = or("seed", adapter.integer("seed", 0, i64::MAX), 0);
        let partitions = or("partitions", adapter.integer("partitions", 1, PARTITIONS_MAX), 1);
        let total = or("total", adapter.integer("total", 1, i64::MAX), i64::MAX);
        let rate = adapter.number("rate", RATE_MIN, RATE_MAX);
        let rate_good = rate.is_some() || !adapter.has("rate");
        let bytes = match adapter.node("bytes").map(|node| &node.value) {
            Some(Value::String(_)) => adapter
                .size("bytes", BYTES_MIN.unsigned_abs(), BYTES_MAX.unsigned_abs())
                .and_then(|size| i64::try_from(size).ok()),
            _ => or("bytes", adapter.integer("bytes", BYTES_MIN, BYTES_MAX), BYTES_DEFAULT),
        };
        let (seed, partitions, total, bytes) = (seed?, partitions?, total?, bytes?);
        rate_good.then(|| -> Arc<dyn Mount> {
            Arc::new(SyntheticMount {
                seed: seed.unsigned_abs(),
                partitions: partitions.unsigned_abs(),
                total: total.unsigned_abs(),
                rate,
                bytes: usize::try_from(bytes).unwrap_or_default(),
                observer: self.observer.clone(),
            })
        })
    }
}

/// The columns of a synthetic table.
#[must_use]
pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("partition", DataType::Int64, true),
        Field::new("seq", DataType::Int64, true),
        Field::new("ts", timestamp_type(), true),
        Field::new("check", DataType::Utf8, true),
        Field::new("pad", DataType::Utf8, true),
    ]))
}

/// The kind with its settings.
#[derive(Clone)]
struct SyntheticMount {
    seed: u64,
    partitions: u64,
    /// Records per partition.
    total: u64,
    /// Records per second and partition; `None`: as fast as they are taken.
    rate: Option<f64>,
    /// About how long a record's JSON is.
    bytes: usize,
    observer: Option<Observer>,
}

impl fmt::Debug for SyntheticMount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyntheticMount")
            .field("seed", &self.seed)
            .field("partitions", &self.partitions)
            .field("total", &self.total)
            .field("rate", &self.rate)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Mount for SyntheticMount {
    fn replay(&self) -> Replay {
        Replay::Replayable
    }

    fn cadence(&self) -> Cadence {
        Cadence::Continuous
    }

    fn partitions(&self) -> Vec<Partition> {
        (0..self.partitions).map(|n| Partition { name: n.to_string(), ..Partition::main() }).collect()
    }

    fn schema(&self) -> Option<SchemaRef> {
        Some(schema())
    }

    fn decoder(&self) -> Arc<dyn Decode> {
        let event_time = Some("ts".to_owned());
        Arc::new(JsonDecoder::new(JsonSpec { event_time, schema: Some(schema()), ..JsonSpec::default() }))
    }

    async fn open(
        &self,
        partition: &Partition,
        position: Option<&Position>,
        env: Env,
    ) -> Result<Box<dyn Source>, SourceError> {
        let number = canonical(&partition.name).filter(|number| *number < self.partitions).ok_or_else(|| {
            let message = format!("the partition is none of the {} that the settings give", self.partitions);
            SourceError::new(ErrorClass::Config, "unknown_partition", message)
        })?;
        let next = match position {
            None => 0,
            Some(position) => canonical(position.as_str()).and_then(|seq| seq.checked_add(1)).ok_or_else(|| {
                SourceError::new(ErrorClass::Data, "invalid_position", "the position is no seq of this kind")
            })?,
        };
        Ok(Box::new(SyntheticSource::new(self.clone(), partition.clone(), number, next, env.clock)))
    }
}

/// A number written as this kind writes it.
fn canonical(text: &str) -> Option<u64> {
    text.parse::<u64>().ok().filter(|number| number.to_string() == text)
}
