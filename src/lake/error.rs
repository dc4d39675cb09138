//! What can go wrong with the lake, in the classes that decide what happens next.

use std::error::Error as StdError;
use std::io;

use thiserror::Error;

/// What a failure means for the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LakeErrorClass {
    /// May heal by itself: connection, timeout, 5xx.
    Transient,
    /// Wrong or expired credentials.
    Auth,
    /// Wrong settings, or a table that was changed so that they no longer fit.
    Config,
    /// What stands in the lake is not what belongs there.
    Data,
    /// This machine lacks something: disk, descriptors.
    Resource,
    /// Another owner has claimed the stream.
    Fenced,
    /// A state that the code holds to be impossible.
    Bug,
}

/// An error of the lake. Its message names paths within the lake only, no machine, no host, no content.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{code}: {message}")]
pub struct LakeError {
    /// What it means for the stream.
    pub class: LakeErrorClass,
    /// A stable name in snake case.
    pub code: &'static str,
    /// One sentence for the person on call.
    pub message: String,
}

/// Characters of a store's own words that a message keeps.
const CAUSE_CHARS_MAX: usize = 240;

impl LakeError {
    pub(crate) fn new(class: LakeErrorClass, code: &'static str, message: impl Into<String>) -> Self {
        Self { class, code, message: message.into() }
    }

    pub(crate) fn config(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(LakeErrorClass::Config, code, message)
    }

    pub(crate) fn data(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(LakeErrorClass::Data, code, message)
    }

    pub(crate) fn bug(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(LakeErrorClass::Bug, code, message)
    }

    pub(crate) fn fenced(generation: u64, by: i64) -> Self {
        let message = format!("generation {by} has claimed this stream from generation {generation}");
        Self::new(LakeErrorClass::Fenced, "fenced", message)
    }

    /// Whether trying again may help without anything being changed.
    #[must_use]
    pub fn may_heal(&self) -> bool {
        matches!(self.class, LakeErrorClass::Transient | LakeErrorClass::Resource)
    }

    /// A store's error in our terms. `what` is the operation and the path within the lake.
    pub(crate) fn store(what: &str, error: &object_store::Error) -> Self {
        use object_store::Error as E;
        if let Some(io) = io_error(error) {
            return Self::io(what, io);
        }
        let (class, code) = match error {
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => (LakeErrorClass::Auth, "lake_denied"),
            E::NotFound { .. } => (LakeErrorClass::Data, "lake_object_missing"),
            E::NotSupported { .. } | E::NotImplemented { .. } => (LakeErrorClass::Config, "lake_unsupported"),
            E::InvalidPath { .. } => (LakeErrorClass::Bug, "lake_path"),
            E::UnknownConfigurationKey { .. } => (LakeErrorClass::Config, "lake_option"),
            _ => refusal(&error.to_string()).unwrap_or((LakeErrorClass::Transient, "lake_unavailable")),
        };
        Self::new(class, code, format!("{what}: {}", scrub(&error.to_string())))
    }

    fn io(what: &str, error: &io::Error) -> Self {
        use io::ErrorKind as K;
        /// Too many open files: of the process, of the system.
        const DESCRIPTORS_SPENT: [i32; 2] = [24, 23];
        let (class, code) = match error.kind() {
            K::StorageFull | K::QuotaExceeded => (LakeErrorClass::Resource, "disk_full"),
            K::ReadOnlyFilesystem => (LakeErrorClass::Resource, "disk_read_only"),
            K::PermissionDenied => (LakeErrorClass::Config, "lake_denied"),
            K::NotADirectory | K::Unsupported => (LakeErrorClass::Config, "lake_unsupported"),
            _ if error.raw_os_error().is_some_and(|n| DESCRIPTORS_SPENT.contains(&n)) => {
                (LakeErrorClass::Resource, "descriptors_spent")
            }
            _ => (LakeErrorClass::Transient, "lake_unavailable"),
        };
        Self::new(class, code, format!("{what}: {}", error.kind()))
    }
}

/// Passes the crash point `name`, which may be armed to fail.
pub(crate) fn crash(name: &str) -> Result<(), LakeError> {
    if crate::faults::fails(name) {
        return Err(LakeError::new(LakeErrorClass::Transient, "crash_point", "armed to fail"));
    }
    Ok(())
}

/// What a store's refusal means where no repetition can help; `None` where one may. The client library tells statuses
/// only in its words, and S3 says more in the code of the answer's body than in the status.
fn refusal(text: &str) -> Option<(LakeErrorClass, &'static str)> {
    /// Codes of 400 that are about the way, not about the request.
    const MAY_PASS: [&str; 5] =
        ["RequestTimeout", "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch", "InternalError"];
    const CREDENTIALS: [&str; 5] =
        ["ExpiredToken", "TokenRefreshRequired", "InvalidToken", "InvalidAccessKeyId", "RequestTimeTooSkewed"];
    const TOO_LARGE: [&str; 2] = ["EntityTooLarge", "RequestBodyTooLarge"];
    let (_, rest) = text.split_once("status code: ")?;
    let status: u16 = rest.get(..3)?.parse().ok()?;
    let says = |codes: &[&str]| codes.iter().any(|code| rest.contains(code));
    match status {
        413 => Some((LakeErrorClass::Config, "lake_too_large")),
        400 if says(&TOO_LARGE) => Some((LakeErrorClass::Config, "lake_too_large")),
        400 if says(&CREDENTIALS) => Some((LakeErrorClass::Auth, "lake_denied")),
        400 if says(&MAY_PASS) => None,
        400 | 405 | 411 | 414 | 415 | 501 => Some((LakeErrorClass::Config, "lake_refused")),
        _ => None,
    }
}

/// The operating system's error beneath, if there is one.
fn io_error(error: &object_store::Error) -> Option<&io::Error> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io);
        }
        next = error.source();
    }
    None
}

/// A store's words without addresses and absolute paths.
pub(crate) fn scrub(text: &str) -> String {
    let hide = |word: &str| word.contains("://") || word.trim_start_matches(['(', '"', '\'']).starts_with('/');
    let words = text.split_whitespace().map(|word| if hide(word) { "…" } else { word });
    words.collect::<Vec<_>>().join(" ").chars().take(CAUSE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_errors_hide_hosts_and_machine_paths() {
        let text = "Error performing PUT http://10.0.0.1:9000/b/k in 3ms at /home/x/lake/tables \"/etc/x\" status 503";
        assert_eq!(scrub(text), "Error performing PUT … in 3ms at … … status 503");
    }

    #[test]
    fn test_io_errors_are_classed_by_their_kind() {
        let full = object_store::Error::Generic {
            store: "file",
            source: Box::new(io::Error::from(io::ErrorKind::StorageFull)),
        };
        let error = LakeError::store("put of x", &full);
        assert_eq!((error.class, error.code), (LakeErrorClass::Resource, "disk_full"));
        let generic = object_store::Error::Generic { store: "s3", source: "status 503".into() };
        assert_eq!(LakeError::store("put of x", &generic).class, LakeErrorClass::Transient);
    }

    #[test]
    fn test_refusals_that_no_repetition_heals_are_told_from_those_that_may_pass() {
        use LakeErrorClass::{Auth, Config, Transient};
        let class = |status: &str, body: &str| {
            let text = format!("Error performing PUT x in 3ms - Server returned non-2xx status code: {status}: {body}");
            let error = object_store::Error::Generic { store: "S3", source: text.into() };
            let error = LakeError::store("put of x", &error);
            (error.class, error.code)
        };
        for (status, body, expected) in [
            ("400 Bad Request", "<Code>InvalidRequest</Code>", (Config, "lake_refused")),
            ("400 Bad Request", "<Code>EntityTooLarge</Code>", (Config, "lake_too_large")),
            ("413 Payload Too Large", "", (Config, "lake_too_large")),
            ("501 Not Implemented", "<Code>NotImplemented</Code>", (Config, "lake_refused")),
            ("400 Bad Request", "<Code>ExpiredToken</Code>", (Auth, "lake_denied")),
            ("400 Bad Request", "<Code>RequestTimeout</Code>", (Transient, "lake_unavailable")),
            ("503 Service Unavailable", "<Code>SlowDown</Code>", (Transient, "lake_unavailable")),
            ("429 Too Many Requests", "", (Transient, "lake_unavailable")),
        ] {
            assert_eq!(class(status, body), expected, "{status} {body}");
        }
    }
}
