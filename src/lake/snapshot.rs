//! A table's state from its checkpoint, where it has one.

use std::sync::Arc;

use deltalake::DeltaTableBuilder;
use futures::future::join_all;
use serde_json::Value;
use url::Url;

use super::error::{LakeError, LakeErrorClass, scrub};
use super::io::{Io, Tries};
use super::layout;
use super::log::{Apps, Entry, TableState};

/// Entries before the newest one that are read for the paths of their records: more than a positions snapshot lags.
const ENTRIES_BACK: u64 = 80;

/// The state to read on from: `None` to begin at the first entry, or where there is no table.
pub(crate) async fn load(io: &Io, table: &str, apps: &Apps) -> Result<Option<TableState>, LakeError> {
    let hint = io.get(&format!("{table}/_delta_log/_last_checkpoint")).await?;
    if hint.is_none() {
        // A new table is the common case and costs one look; an old one whose hint was lost shows in the listing.
        if io.size(&layout::log_entry(table, 0)).await?.is_some() {
            return Ok(None);
        }
        let (_, names) = io.names(&format!("{table}/_delta_log")).await?;
        if !names.iter().any(|name| name.ends_with(".json") || name.contains(".checkpoint.")) {
            return Ok(None);
        }
    }
    let mut tries = Tries::new(table);
    loop {
        let failures = io.failures();
        let error = match from_checkpoint(io, table, apps).await {
            Ok(state) => return Ok(Some(state)),
            Err(error) => error,
        };
        // deltalake may tell of an outage as of an unreadable log; while the store fails, nothing is known of the log.
        let outage = error.class == LakeErrorClass::Data && io.failures() != failures;
        let class = if outage { LakeErrorClass::Transient } else { error.class };
        tries.again(LakeError { class, ..error }).await?;
    }
}

/// An address of the table for deltalake, which wants one; the store behind it is ours.
pub(crate) fn address(table: &str) -> Result<Url, LakeError> {
    Url::parse(&format!("memory:///{table}/"))
        .map_err(|_| LakeError::bug("lake_path", format!("{table:?} is no path of the lake")))
}

/// deltalake's errors name what went wrong in its own words.
pub(crate) fn failed(table: &str, error: &deltalake::DeltaTableError) -> LakeError {
    // However deep in its errors the store's own is: an outage is no damage of the table.
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(store) = cause.downcast_ref::<object_store::Error>() {
            return LakeError::store(&format!("read of {table}"), store);
        }
        next = cause.source();
    }
    let message = format!("the log of {table} cannot be read: {}", scrub(&error.to_string()));
    LakeError::new(LakeErrorClass::Data, "log_unreadable", message)
}

async fn from_checkpoint(io: &Io, table: &str, apps: &Apps) -> Result<TableState, LakeError> {
    let builder = DeltaTableBuilder::from_url(address(table)?).map_err(|e| failed(table, &e))?;
    let builder = builder.with_storage_backend(io.store(), address(table)?);
    let loaded = Box::pin(builder.load()).await.map_err(|e| failed(table, &e))?;
    let snapshot = loaded.snapshot().map_err(|e| failed(table, &e))?;
    let json = |value: serde_json::Result<Value>| {
        value.map_err(|_| LakeError::data("log_unreadable", format!("the log of {table} has unknown metadata")))
    };
    let protocol = json(serde_json::to_value(snapshot.protocol()))?;
    let metadata = json(serde_json::to_value(snapshot.metadata()))?;
    let version = snapshot.version();
    let mut state = TableState::new(version, protocol, metadata)?;
    let store = loaded.log_store();
    let txn = async |app: &str| {
        let found = snapshot.transaction_version(Arc::clone(&store).as_ref(), app).await;
        let found = found.map_err(|e| failed(table, &e))?;
        Ok::<u64, LakeError>(found.and_then(|v| u64::try_from(v).ok()).unwrap_or(0))
    };
    state.epoch = txn(&apps.epoch).await?;
    if let Some(own) = &apps.own {
        state.own = txn(own).await?;
    }
    look_back(io, table, apps, &mut state).await?;
    Ok(state)
}

/// Reads what the newest entries say of their epochs. Entries may have been cleaned up; those stay unknown.
async fn look_back(io: &Io, table: &str, apps: &Apps, state: &mut TableState) -> Result<(), LakeError> {
    let first = state.version.saturating_sub(ENTRIES_BACK);
    let paths: Vec<_> = (first..=state.version).map(|v| (v, layout::log_entry(table, v))).collect();
    for window in paths.chunks(16) {
        let read = join_all(window.iter().map(|(_, path)| io.get(path))).await;
        for ((version, path), bytes) in window.iter().zip(read) {
            let Some(bytes) = bytes? else { continue };
            let entry = Entry::parse(path, &bytes, apps)?;
            state.tell(*version, &entry);
            if entry.own == Some(state.own) && entry.claim.is_some() {
                state.claim = entry.claim;
            }
        }
    }
    Ok(())
}

/// Writes a checkpoint of the table's newest version, so that a start need not read the whole log.
pub(crate) async fn write_checkpoint(io: &Io, table: &str) -> Result<(), LakeError> {
    let builder = DeltaTableBuilder::from_url(address(table)?).map_err(|e| failed(table, &e))?;
    let builder = builder.with_storage_backend(io.store(), address(table)?);
    let loaded = Box::pin(builder.load()).await.map_err(|e| failed(table, &e))?;
    let made = deltalake::protocol::checkpoints::create_checkpoint(&loaded, None);
    Box::pin(made).await.map_err(|e| failed(table, &e))
}
