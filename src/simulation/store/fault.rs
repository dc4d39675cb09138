//! What can befall a request to a store.

use std::time::Duration;

use object_store::Error;

/// What a store answers when it does not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Unavailable,
    Throttled,
    /// The connection was reset.
    Reset,
    /// The credentials have expired.
    Unauthenticated,
    /// The credentials do not allow it.
    Denied,
    /// The request can never be right.
    Invalid,
    /// The object can never be taken.
    TooLarge,
}

impl Answer {
    /// The error in the words of the client library.
    pub(crate) fn error(self, path: &str) -> Error {
        let (status, body) = match self {
            Self::Unavailable => ("503 Service Unavailable", "<Code>ServiceUnavailable</Code>"),
            Self::Throttled => ("429 Too Many Requests", "<Code>SlowDown</Code>"),
            Self::Invalid => ("400 Bad Request", "<Code>InvalidRequest</Code>"),
            Self::TooLarge => ("400 Bad Request", "<Code>EntityTooLarge</Code>"),
            Self::Unauthenticated => ("401 Unauthorized", "<Code>ExpiredToken</Code>"),
            Self::Denied => ("403 Forbidden", "<Code>AccessDenied</Code>"),
            Self::Reset => ("", "connection reset"),
        };
        let source = || format!("Server returned non-2xx status code: {status}: {body}").into();
        match self {
            Self::Unauthenticated => Error::Unauthenticated { path: path.to_owned(), source: source() },
            Self::Denied => Error::PermissionDenied { path: path.to_owned(), source: source() },
            Self::Reset => {
                let source = Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
                Error::Generic { store: "failing", source }
            }
            _ => Error::Generic { store: "failing", source: source() },
        }
    }
}

/// What befalls a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Refused before anything was done.
    Before(Answer),
    /// Done, and the answer was lost on the way.
    After(Answer),
    /// Never answered, and never done.
    Silent,
    /// Never answered, but done.
    SilentDone,
    /// Answered with an error now, done this much later.
    Late(Duration),
    /// A create-only put that is refused as existing because another one is thought to be under way; nothing is there.
    Conflict,
    /// Somebody else's entry takes the place in the log first.
    Overtaken,
    /// A listing or a get that does not know the newest objects yet.
    Stale,
    /// A multipart upload loses its last part and its completion is refused.
    Torn,
}

impl Fault {
    /// The usual error, before and after.
    pub(crate) const BEFORE: Self = Self::Before(Answer::Unavailable);
    pub(crate) const AFTER: Self = Self::After(Answer::Unavailable);

    /// A name to count by.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Before(Answer::Unavailable) => "unavailable",
            Self::Before(Answer::Throttled) => "throttled",
            Self::Before(Answer::Reset) => "reset",
            Self::Before(Answer::Unauthenticated) => "unauthenticated",
            Self::Before(Answer::Denied) => "denied",
            Self::Before(Answer::Invalid) => "invalid",
            Self::Before(Answer::TooLarge) => "too_large",
            Self::After(_) => "answer_lost",
            Self::Silent => "silent",
            Self::SilentDone => "silent_done",
            Self::Late(_) => "late",
            Self::Conflict => "conflict",
            Self::Overtaken => "overtaken",
            Self::Stale => "stale",
            Self::Torn => "torn",
        }
    }

    /// Whether it can befall this operation; what cannot is no fault.
    pub(crate) fn fits(self, operation: &str, kind: Kind) -> bool {
        match self {
            Self::Late(_) | Self::Conflict => operation == "put",
            Self::Overtaken => operation == "put" && kind == Kind::Entry,
            // What a listing of the desired states does not show is taken for never said; stores that can do that are
            // not supported.
            Self::Stale => operation == "list" && kind != Kind::Control,
            Self::Torn => operation == "multipart",
            _ => true,
        }
    }
}

/// What an object is, by its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// An entry of the table's log.
    Entry,
    /// An entry of the dead table's log.
    DeadEntry,
    /// A file of the table.
    Data,
    /// A file of the dead table.
    Dead,
    Raw,
    /// An epoch record.
    Record,
    /// A desired state.
    Control,
    /// A note of all positions.
    Note,
}

impl Kind {
    pub(crate) const ALL: [Self; 8] =
        [Self::Entry, Self::DeadEntry, Self::Data, Self::Dead, Self::Raw, Self::Record, Self::Control, Self::Note];

    pub(crate) fn of(path: &str) -> Self {
        let top = path.split('/').next().unwrap_or_default();
        match top {
            "tables" if path.contains("/_delta_log/") => Self::Entry,
            "dead" if path.contains("/_delta_log/") => Self::DeadEntry,
            "tables" => Self::Data,
            "dead" => Self::Dead,
            "raw" => Self::Raw,
            "control" if path.starts_with("control/positions") => Self::Note,
            "control" => Self::Control,
            _ => Self::Record,
        }
    }
}
