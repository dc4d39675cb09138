//! Where things stand in the lake. Pure; the one place that knows.

use crate::names::StreamId;

/// First segments of the root that are not buckets of epoch records.
pub(crate) const RESERVED: [&str; 4] = ["tables", "dead", "raw", "control"];

/// The Delta table of a stream.
pub(crate) fn table(id: &StreamId) -> String {
    format!("tables/{id}")
}

/// The Delta table of its dead letters.
pub(crate) fn dead(id: &StreamId) -> String {
    format!("dead/{id}")
}

/// An epoch record.
pub(crate) fn record(bucket: &str, id: &StreamId, epoch: u64, generation: u64) -> String {
    format!("{bucket}/{id}/{epoch:020}-{generation}.json")
}

/// `(epoch, generation)` of an epoch record's or a positions snapshot's file name.
pub(crate) fn parse_record(name: &str) -> Option<(u64, u64)> {
    let (epoch, generation) = name.strip_suffix(".json")?.split_once('-')?;
    if epoch.len() != 20 {
        return None;
    }
    Some((epoch.parse().ok()?, generation.parse().ok()?))
}

/// Positions of all partitions as of an epoch.
pub(crate) fn positions(id: &StreamId, epoch: u64, generation: u64) -> String {
    format!("{}/{epoch:020}-{generation}.json", positions_folder(id))
}

/// The folder of [`positions`].
pub(crate) fn positions_folder(id: &StreamId) -> String {
    format!("control/positions/{id}")
}

/// The root of all desired states.
pub(crate) const CONTROL_STREAMS: &str = "control/streams";

/// A version of a stream's desired state.
pub(crate) fn control(id: &StreamId, version: u64) -> String {
    format!("{CONTROL_STREAMS}/{id}/{version:020}.json")
}

/// The version of a desired state's file name.
pub(crate) fn parse_version(name: &str) -> Option<u64> {
    name.strip_suffix(".json").filter(|digits| digits.len() == 20)?.parse().ok()
}

/// An entry of a table's log.
pub(crate) fn log_entry(table: &str, version: u64) -> String {
    format!("{table}/_delta_log/{version:020}.json")
}

/// The `txn` id whose version is the epoch.
pub(crate) fn epoch_app(id: &StreamId) -> String {
    format!("lakefeed/{id}")
}

/// The `txn` id whose version is the owner's generation.
pub(crate) fn own_app(id: &StreamId) -> String {
    format!("lakefeed-own/{id}")
}

/// The `txn` id of the dead table whose version is the epoch.
pub(crate) fn dead_app(id: &StreamId) -> String {
    format!("lakefeed-dead/{id}")
}
