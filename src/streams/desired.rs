//! The desired state of a stream: a versioned, create-only document in the lake, cached in sled.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::api::Desired;
use crate::names::StreamId;
use crate::settings::SecretKey;

/// What stands in place of a literal secret wherever it would be stored or shown.
pub(super) const MASK: &str = "***";

/// Keys whose text is a secret when it is no reference.
const SECRET_KEYS: [&str; 5] = ["secret_key", "value", "token", "password", "secret"];

/// A stream's desired state in memory.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Control {
    /// Of the document in the lake; 0 where there is none and the configuration alone speaks.
    pub version: u64,
    pub adapter: String,
    pub desired: Desired,
    pub deleted: bool,
    /// What a message laid over the adapter, with literal secrets.
    pub overrides: Map<String, Value>,
    pub bucket: String,
    /// A literal secret was forgotten with the process that had it: there is no job until a message brings it back.
    pub secret_lost: bool,
}

/// The document `control/streams/<tenant>/<stream>/<version>.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Document {
    version: u64,
    tenant: String,
    stream: String,
    adapter: String,
    desired: Desired,
    #[serde(default)]
    deleted: bool,
    /// Literal secrets masked.
    settings: Map<String, Value>,
    bucket_name: String,
    /// The literal secrets, sealed with the node's key: base64 of nonce and ciphertext.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sealed: Option<String>,
    /// A literal secret is masked in `settings` and not sealed.
    #[serde(default)]
    secret_in_memory: bool,
    updated_at: String,
}

impl Control {
    /// What the configuration alone says.
    pub(super) fn configured(adapter: &str, desired: Desired) -> Self {
        Self {
            version: 0,
            adapter: adapter.to_owned(),
            desired,
            deleted: false,
            overrides: Map::new(),
            bucket: crate::names::DEFAULT_BUCKET.to_owned(),
            secret_lost: false,
        }
    }

    /// The overrides with literal secrets masked, and the bucket where a message named one: what a caller may send
    /// back, changed or not.
    pub(super) fn shown(&self) -> Value {
        let mut shown = Value::Object(self.overrides.clone());
        take_secrets(&mut shown);
        if self.bucket != crate::names::DEFAULT_BUCKET {
            shown["bucket_name"] = self.bucket.clone().into();
        }
        shown
    }

    /// Puts back the secrets that `overrides` left masked: a mask means unchanged.
    pub(super) fn unmask(&self, overrides: &mut Map<String, Value>) {
        for (key, value) in overrides {
            put_back(value, self.overrides.get(key));
        }
    }

    /// Whether a mask stands where a secret should: the secret is not known.
    pub(super) fn has_mask(&self) -> bool {
        has_mask(&Value::Object(self.overrides.clone()))
    }

    /// The document of `version`. With a key literal secrets are sealed into it, else they stay in memory only.
    pub(super) fn to_document(&self, id: &StreamId, version: u64, key: Option<&SecretKey>, now_us: i64) -> Value {
        let mut settings = Value::Object(self.overrides.clone());
        let has_secret = take_secrets(&mut settings);
        let sealed = key.filter(|_| has_secret).and_then(|key| seal(key, id, version, &self.overrides));
        let document = Document {
            version,
            tenant: id.tenant().to_owned(),
            stream: id.stream().to_owned(),
            adapter: self.adapter.clone(),
            desired: self.desired,
            deleted: self.deleted,
            settings: if let Value::Object(map) = settings { map } else { Map::new() },
            bucket_name: self.bucket.clone(),
            secret_in_memory: self.secret_lost || (has_secret && sealed.is_none()),
            sealed,
            updated_at: crate::times::timestamp(now_us),
        };
        serde_json::to_value(document).unwrap_or_default()
    }

    /// Reads a document back; `None` where it is not one.
    pub(super) fn from_document(document: Value, id: &StreamId, key: Option<&SecretKey>) -> Option<Self> {
        let document: Document = serde_json::from_value(document).ok()?;
        let opened = match (&document.sealed, key) {
            (Some(sealed), Some(key)) => open(key, id, document.version, sealed),
            _ => None,
        };
        let secret_lost = document.secret_in_memory || (document.sealed.is_some() && opened.is_none());
        Some(Self {
            version: document.version,
            adapter: document.adapter,
            desired: document.desired,
            deleted: document.deleted,
            overrides: opened.unwrap_or(document.settings),
            bucket: document.bucket_name,
            secret_lost,
        })
    }
}

/// Masks literal secrets in place; true if there was one. References (`env:`, `file:`) are no secrets.
fn take_secrets(value: &mut Value) -> bool {
    match value {
        Value::Object(map) => {
            let mut found = false;
            for (key, value) in map.iter_mut() {
                match value {
                    Value::String(text) if SECRET_KEYS.contains(&key.as_str()) => {
                        if !text.starts_with("env:") && !text.starts_with("file:") && text != MASK {
                            MASK.clone_into(text);
                            found = true;
                        }
                    }
                    other => found |= take_secrets(other),
                }
            }
            found
        }
        Value::Array(all) => all.iter_mut().fold(false, |found, value| take_secrets(value) | found),
        _ => false,
    }
}

fn has_mask(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.iter().any(|(key, value)| match value {
            Value::String(text) => text == MASK && SECRET_KEYS.contains(&key.as_str()),
            other => has_mask(other),
        }),
        Value::Array(all) => all.iter().any(has_mask),
        _ => false,
    }
}

fn put_back(value: &mut Value, known: Option<&Value>) {
    match value {
        Value::String(text) if text == MASK => {
            if let Some(known) = known {
                *value = known.clone();
            }
        }
        Value::Object(map) => {
            for (key, value) in map {
                put_back(value, known.and_then(|known| known.get(key)));
            }
        }
        Value::Array(all) => {
            for (index, value) in all.iter_mut().enumerate() {
                put_back(value, known.and_then(|known| known.get(index)));
            }
        }
        _ => {}
    }
}

/// A nonce that no other document under this key has: stream and version name a document, and it is create-only.
fn nonce(id: &StreamId, version: u64, plain: &[u8]) -> [u8; 12] {
    let mut hash = Sha256::new();
    hash.update(format!("lakefeed nonce {id} {version} "));
    hash.update(plain);
    let digest = hash.finalize();
    let mut nonce = [0; 12];
    nonce.copy_from_slice(&digest[..12]);
    nonce
}

fn seal(key: &SecretKey, id: &StreamId, version: u64, overrides: &Map<String, Value>) -> Option<String> {
    let plain = serde_json::to_vec(overrides).ok()?;
    let nonce = nonce(id, version, &plain);
    let context = format!("{id} {version}");
    let payload = Payload { msg: &plain, aad: context.as_bytes() };
    let cipher = ChaCha20Poly1305::new((&key.0).into()).encrypt(Nonce::from_slice(&nonce), payload).ok()?;
    Some(STANDARD.encode([&nonce[..], &cipher].concat()))
}

fn open(key: &SecretKey, id: &StreamId, version: u64, sealed: &str) -> Option<Map<String, Value>> {
    let bytes = STANDARD.decode(sealed).ok()?;
    let (nonce, cipher) = bytes.split_at_checked(12)?;
    let context = format!("{id} {version}");
    let payload = Payload { msg: cipher, aad: context.as_bytes() };
    let plain = ChaCha20Poly1305::new((&key.0).into()).decrypt(Nonce::from_slice(nonce), payload).ok()?;
    serde_json::from_slice(&plain).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn control() -> Control {
        let overrides = json!({"secret_key": "hunter2", "interval": 1000, "settings": {"auth": {"token": "hunter3"}}});
        Control {
            overrides: overrides.as_object().expect("object").clone(),
            ..Control::configured("A", Desired::Running)
        }
    }

    #[test]
    fn test_a_literal_secret_never_reaches_the_document() {
        let id: StreamId = "a/s".parse().expect("id");
        let document = control().to_document(&id, 1, None, 0);
        assert!(!document.to_string().contains("hunter"), "{document}");
        let back = Control::from_document(document, &id, None).expect("document");
        assert!(back.secret_lost);
        assert!(!control().shown().to_string().contains("hunter"));
    }

    #[test]
    fn test_with_a_key_the_secret_comes_back_for_this_stream_and_version_only() {
        let (id, other): (StreamId, StreamId) = ("a/s".parse().expect("id"), "a/t".parse().expect("id"));
        let key = SecretKey([7; 32]);
        let document = control().to_document(&id, 3, Some(&key), 0);
        assert!(!document.to_string().contains("hunter"), "{document}");
        let back = Control::from_document(document.clone(), &id, Some(&key)).expect("document");
        assert_eq!((back.overrides, back.secret_lost), (control().overrides, false));
        assert!(Control::from_document(document.clone(), &other, Some(&key)).expect("document").secret_lost);
        assert!(Control::from_document(document, &id, Some(&SecretKey([8; 32]))).expect("document").secret_lost);
    }

    #[test]
    fn test_a_mask_sent_back_means_unchanged() {
        let mut overrides = control().shown().as_object().expect("object").clone();
        overrides["interval"] = json!(2000);
        control().unmask(&mut overrides);
        assert_eq!(overrides["secret_key"], json!("hunter2"));
        assert_eq!(overrides["settings"], json!({"auth": {"token": "hunter3"}}));
        assert_eq!(overrides["interval"], json!(2000));
    }

    #[test]
    fn test_references_are_no_secrets() {
        let id: StreamId = "a/s".parse().expect("id");
        let overrides = json!({"secret_key": "env:KEY"}).as_object().expect("object").clone();
        let control = Control { overrides, ..Control::configured("A", Desired::Running) };
        let back = Control::from_document(control.to_document(&id, 1, None, 0), &id, None).expect("document");
        assert_eq!((back.secret_lost, back.overrides["secret_key"].as_str()), (false, Some("env:KEY")));
    }
}
