//! Secrets: references in settings, values only in memory.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// A resolved secret. Never printed: `Debug` shows where it came from, not what it is.
#[derive(Clone)]
pub struct Secret {
    value: Zeroizing<String>,
    /// `env:NAME` or `file:PATH` as written; `None` for a literal.
    reference: Option<String>,
}

impl Secret {
    /// A secret that was written out.
    pub fn literal(value: impl Into<String>) -> Self {
        Self { value: Zeroizing::new(value.into()), reference: None }
    }

    /// A secret that `reference` led to.
    pub fn resolved(value: impl Into<String>, reference: impl Into<String>) -> Self {
        Self { value: Zeroizing::new(value.into()), reference: Some(reference.into()) }
    }

    /// The value, for the one place that sends it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.value
    }

    /// `env:NAME` or `file:PATH`; `None` for a literal.
    #[must_use]
    pub fn reference(&self) -> Option<&str> {
        self.reference.as_deref()
    }

    /// Names the secret without telling it, so that all who use one key share its budgets: 16 hex digits of a hash.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let digest = Sha256::digest(format!("lakefeed secret {}", self.value.as_str()).as_bytes());
        hex::encode(&digest[..8])
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.reference.as_deref().unwrap_or("literal"))
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.value.as_str() == other.value.as_str()
    }
}

/// Where secret references lead.
pub trait SecretSource: Send + Sync + fmt::Debug {
    /// The environment variable `name`.
    fn env(&self, name: &str) -> Option<String>;

    /// The content of a file, without the line break at its end.
    ///
    /// # Errors
    /// Why it cannot be read, without its content.
    fn file(&self, path: &Path) -> Result<String, String>;

    /// Settings use `secret`, written out or followed to. For whoever keeps secrets out of logs; does nothing here.
    fn used(&self, secret: &str) {
        let _ = secret;
    }
}

/// A secret file longer than this is refused: it is not a secret but a mistake.
const SECRET_FILE_BYTES_MAX: u64 = 64 * 1024;

/// The process's environment and the machine's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessSecrets;

impl SecretSource for ProcessSecrets {
    fn env(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn file(&self, path: &Path) -> Result<String, String> {
        let size = std::fs::metadata(path).map_err(|e| e.kind().to_string())?.len();
        if size > SECRET_FILE_BYTES_MAX {
            return Err(format!("it has {size} bytes, more than {SECRET_FILE_BYTES_MAX}"));
        }
        let text = std::fs::read_to_string(path).map_err(|e| e.kind().to_string())?;
        Ok(text.trim_end_matches(['\n', '\r']).to_owned())
    }
}

/// Secrets by hand, for tests.
#[derive(Debug, Default, Clone)]
pub struct MapSecrets {
    /// Environment variables.
    pub env: HashMap<String, String>,
    /// Files.
    pub files: HashMap<PathBuf, String>,
}

impl SecretSource for MapSecrets {
    fn env(&self, name: &str) -> Option<String> {
        self.env.get(name).cloned()
    }

    fn file(&self, path: &Path) -> Result<String, String> {
        self.files.get(path).cloned().ok_or_else(|| "entity not found".to_owned())
    }
}
