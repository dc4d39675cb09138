//! What can go wrong with the lake, in the classes that decide what happens next.

use std::error::Error as StdError;
use std::io;

use thiserror::Error;

use super::circuit::Resting;
use super::guard::Silent;

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
/// Longer words may be keys; nothing that helps has longer ones.
const WORD_CHARS_MAX: usize = 24;
/// The longest name of an error of S3 or Azure is about forty characters long.
const CODE_CHARS_MAX: usize = 64;
/// How servers say that their disk is full.
const OUT_OF_SPACE: [&str; 4] = [
    "507 Insufficient Storage",
    "<Code>XMinioStorageFull</Code>",
    "<Code>QuotaExceeded</Code>",
    "InsufficientCapacity",
];
/// How servers call credentials that are wrong or over. versitygw says the first with a status of 404.
const DENIED: [&str; 7] = [
    "<Code>XAdminUserNotFound</Code>",
    "<Code>InvalidAccessKeyId</Code>",
    "<Code>SignatureDoesNotMatch</Code>",
    "<Code>AccessDenied</Code>",
    "<Code>ExpiredToken</Code>",
    "<Code>InvalidToken</Code>",
    "<Code>TokenRefreshRequired</Code>",
];
/// How servers say that there is no such place at all.
const NO_BUCKET: [&str; 2] = ["<Code>NoSuchBucket</Code>", "<Code>ContainerNotFound</Code>"];
/// How servers name an object that is not there. An answer of 404 that names anything else tells nothing of the object.
const ABSENT: [&str; 6] =
    ["NoSuchKey", "NoSuchVersion", "NoSuchUpload", "BlobNotFound", "ResourceNotFound", "NotFound"];

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
        if let Some(io) = error_as::<io::Error>(error).filter(|_| is_local(error)) {
            return Self::io(what, io);
        }
        if error_as::<Silent>(error).is_some() {
            return Self::new(LakeErrorClass::Transient, "lake_silent", format!("{what}: {Silent}"));
        }
        if let Some(resting) = error_as::<Resting>(error) {
            return Self::new(LakeErrorClass::Transient, "lake_circuit_open", format!("{what}: {resting}"));
        }
        let text = error.to_string();
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        let (class, code) = match error {
            E::Generic { .. } | E::PermissionDenied { .. } if says(&OUT_OF_SPACE) => {
                (LakeErrorClass::Resource, "lake_full")
            }
            _ if says(&DENIED) => (LakeErrorClass::Auth, "lake_denied"),
            _ if says(&NO_BUCKET) => (LakeErrorClass::Config, "lake_bucket_missing"),
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => (LakeErrorClass::Auth, "lake_denied"),
            E::NotFound { .. } => (LakeErrorClass::Data, "lake_object_missing"),
            E::NotSupported { .. } | E::NotImplemented { .. } => (LakeErrorClass::Config, "lake_unsupported"),
            E::InvalidPath { .. } => (LakeErrorClass::Bug, "lake_path"),
            E::UnknownConfigurationKey { .. } => (LakeErrorClass::Config, "lake_option"),
            _ => refusal(&error.to_string()).unwrap_or((LakeErrorClass::Transient, "lake_unavailable")),
        };
        Self::new(class, code, format!("{what}: {}", scrub(&text)))
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
        401 | 403 => Some((LakeErrorClass::Auth, "lake_denied")),
        413 => Some((LakeErrorClass::Config, "lake_too_large")),
        400 if says(&TOO_LARGE) => Some((LakeErrorClass::Config, "lake_too_large")),
        400 if says(&CREDENTIALS) => Some((LakeErrorClass::Auth, "lake_denied")),
        400 if says(&MAY_PASS) => None,
        400 | 405 | 411 | 414 | 415 | 501 => Some((LakeErrorClass::Config, "lake_refused")),
        _ => None,
    }
}

/// The error, unless it says that an object is not there and means something else: who believes that would take a lake
/// for an empty one because its own key is wrong.
pub(crate) fn honest(error: object_store::Error) -> object_store::Error {
    match error {
        object_store::Error::NotFound { source, .. }
            if answer_code(&source.to_string()).is_some_and(|code| !ABSENT.contains(&code)) =>
        {
            object_store::Error::Generic { store: "lake", source }
        }
        error => error,
    }
}

/// Whether the local store says it. A remote one's i/o errors are its connection's.
fn is_local(error: &object_store::Error) -> bool {
    use object_store::Error as E;
    !matches!(error, E::Generic { store, .. } if !["file", "LocalFileSystem"].contains(store))
}

/// The error of type `T` beneath, if there is one.
fn error_as<T: StdError + 'static>(error: &object_store::Error) -> Option<&T> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// A store's words without what is nobody's business: addresses, paths, bodies of answers (they quote keys, signatures
/// and what was sent), values, and whatever is long enough to be a secret.
pub(crate) fn scrub(text: &str) -> String {
    let said = text.find(['<', '{']).map_or(text, |body| &text[..body]);
    let hide = |word: &str| {
        let bare = word.trim_matches(|c: char| c.is_ascii_punctuation());
        word.contains(['/', '=', '%', '@', '\\']) || bare.len() > WORD_CHARS_MAX
    };
    let words: Vec<_> = said.split_whitespace().map(|word| if hide(word) { "…" } else { word }).collect();
    let mut kept: String = words.join(" ").trim_end_matches([':', ' ']).chars().take(CAUSE_CHARS_MAX).collect();
    if let Some(code) = answer_code(text) {
        kept.push_str(&format!(": {code}"));
    }
    kept
}

/// The error's name in the body of an answer of S3 or Azure.
fn answer_code(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    let name = (1..=CODE_CHARS_MAX).contains(&code.len()) && code.chars().all(|c| c.is_ascii_alphanumeric());
    name.then_some(code)
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
    fn test_errors_hide_what_a_server_quotes_and_keep_its_code() {
        let text = "Error performing PUT http://h:9/b/day=monday/k in 3ms - Server returned non-2xx status code: 403 \
                    Forbidden: <?xml?><Error><Code>InvalidAccessKeyId</Code><AWSAccessKeyId>AKIACANARY</AWSAccessKeyId>\
                    <Resource>/b/day=monday</Resource></Error>";
        let kept = scrub(text);
        assert!(kept.ends_with("non-2xx status code: 403 Forbidden: InvalidAccessKeyId"), "{kept}");
        assert!(!kept.contains("CANARY") && !kept.contains("monday"), "{kept}");
        let kept = scrub("bad key wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY for customer=42 {\"error\": \"x\"}");
        assert_eq!(kept, "bad key … for …");
    }

    #[test]
    fn test_answers_of_servers_are_classed_by_what_they_mean() {
        let generic = |text: &str| object_store::Error::Generic { store: "S3", source: text.into() };
        let class = |error: &object_store::Error| LakeError::store("put of x", error).class;
        let expired = generic("status code: 400 Bad Request: <Code>ExpiredToken</Code>");
        assert_eq!(class(&expired), LakeErrorClass::Auth);
        for full in ["status code: 507 Insufficient Storage", "500: <Code>XMinioStorageFull</Code>"] {
            assert_eq!(LakeError::store("put of x", &generic(full)).code, "lake_full");
        }
        // A broken connection is no trouble of this machine's disk.
        let pipe = io::Error::from(io::ErrorKind::PermissionDenied);
        assert_eq!(
            class(&object_store::Error::Generic { store: "S3", source: pipe.into() }),
            LakeErrorClass::Transient
        );
        let path = "x".to_owned();
        let missing = object_store::Error::NotFound { path, source: "404: <Code>NoSuchBucket</Code>".into() };
        assert_eq!(class(&missing), LakeErrorClass::Config);
    }

    #[test]
    fn test_an_absent_object_is_one_that_the_server_calls_so() {
        let missing =
            |body: &str| honest(object_store::Error::NotFound { path: "x".to_owned(), source: body.to_owned().into() });
        for body in ["404 Not Found: ", "404: <Code>NoSuchKey</Code>", "No such file or directory"] {
            assert!(matches!(missing(body), object_store::Error::NotFound { .. }), "{body}");
        }
        let denied = missing("404: <Code>XAdminUserNotFound</Code>");
        assert_eq!(LakeError::store("get of x", &denied).code, "lake_denied");
        let unknown = missing("404: <Code>Whatever</Code>");
        assert_eq!(LakeError::store("get of x", &unknown).class, LakeErrorClass::Transient);
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
            // A listing that is refused is no error of its own to the client library.
            ("403 Forbidden", "<Code>AuthenticationFailed</Code>", (Auth, "lake_denied")),
            ("401 Unauthorized", "", (Auth, "lake_denied")),
        ] {
            assert_eq!(class(status, body), expected, "{status} {body}");
        }
    }
}
