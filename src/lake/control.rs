//! Desired states of streams: create-only versions of which the newest counts.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::TryStreamExt;
use serde_json::Value;

use super::error::LakeError;
use super::io::Put;
use super::{Lake, layout};
use crate::names::StreamId;

/// Whether a create-only version was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// It stands in the lake now, whole.
    Yes,
    /// Somebody else's stands there.
    AlreadyExists,
}

impl Lake {
    /// All streams that have a desired state, each with its newest version.
    ///
    /// # Errors
    /// The store's.
    pub async fn control_list(&self) -> Result<Vec<(StreamId, u64)>, LakeError> {
        let mut newest: BTreeMap<StreamId, u64> = BTreeMap::new();
        let mut objects = self.io.list(layout::CONTROL_STREAMS)?;
        while let Some(object) = objects.try_next().await? {
            let parts: Vec<_> = object.location.as_ref().split('/').skip(2).collect();
            let [tenant, stream, name] = parts[..] else { continue };
            let (Ok(id), Some(version)) = (StreamId::new(tenant, stream), layout::parse_version(name)) else {
                continue;
            };
            let entry = newest.entry(id).or_default();
            *entry = version.max(*entry);
        }
        Ok(newest.into_iter().collect())
    }

    /// A version of a stream's desired state.
    ///
    /// # Errors
    /// `data` where there is none or it is no JSON; else the store's.
    pub async fn control_read(&self, id: &StreamId, version: u64) -> Result<Value, LakeError> {
        let path = layout::control(id, version);
        let bytes = self.io.get(&path).await?;
        let value = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        value.ok_or_else(|| LakeError::data("control_unreadable", format!("{path} is missing or no JSON")))
    }

    /// Writes a version of a stream's desired state, once. An attempt that was applied although it ended in an error
    /// is recognised by its content.
    ///
    /// # Errors
    /// The store's.
    pub async fn control_create(&self, id: &StreamId, version: u64, value: &Value) -> Result<Created, LakeError> {
        self.ensure_create_only().await?;
        let bytes = Bytes::from(value.to_string());
        Ok(match self.io.put_or_compare(&layout::control(id, version), bytes).await? {
            Put::Created => Created::Yes,
            Put::Exists => Created::AlreadyExists,
        })
    }
}
