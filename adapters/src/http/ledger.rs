//! What a partition has handed over: the meaning of its position.
//!
//! A [`Ledger`] is the position read; a [`Session`] is one workload's view, which says of each record whether it is
//! new and what the position is after all records so far. The ledger changes only when a batch is handed over.

use std::sync::Arc;

use serde_json::Value;

use super::cursor::{CursorLedger, CursorSession};
use super::observed::{ObservedLedger, ObservedSession};
use super::{digest, settings::Records};
use crate::contract::{ErrorClass, Position, SourceError};
use crate::json::Path;

/// The position, read.
#[derive(Debug, Clone)]
pub(crate) enum Ledger {
    Cursor(CursorLedger),
    Observed(ObservedLedger),
}

/// One workload's view of a ledger.
#[derive(Debug)]
pub(crate) struct Session {
    records: Arc<Records>,
    kind: SessionKind,
}

#[derive(Debug)]
enum SessionKind {
    Cursor(CursorSession),
    Observed(ObservedSession),
}

/// A record as ledgers see it.
pub(crate) struct Seen<'r> {
    pub(crate) value: Option<Value>,
    pub(crate) text: &'r str,
}

impl Seen<'_> {
    pub(crate) fn field(&self, path: &Path) -> Option<&Value> {
        path.field(self.value.as_ref()?)
    }

    /// The digest of `fields`; of everything where there are none.
    pub(crate) fn digest(&self, fields: &[Path]) -> u64 {
        match &self.value {
            None => digest::of_text(self.text),
            Some(value) if fields.is_empty() => digest::of_values(std::iter::once(Some(value))),
            Some(value) => digest::of_values(fields.iter().map(|path| path.field(value))),
        }
    }
}

/// A position that this kind did not make.
pub(crate) fn bad_position() -> SourceError {
    SourceError::new(ErrorClass::Data, "bad_position", "the position was not made by this kind of adapter")
}

impl Ledger {
    /// Reads `position`.
    ///
    /// # Errors
    /// `bad_position`.
    pub(crate) fn read(position: Option<&Position>, records: &Records) -> Result<Self, SourceError> {
        let text = position.map(Position::as_str);
        Ok(if records.cursor.is_some() {
            Self::Cursor(CursorLedger::read(text)?)
        } else {
            Self::Observed(ObservedLedger::read(text)?)
        })
    }

    /// What stands for `{cursor}`.
    pub(crate) fn cursor_text(&self, records: &Records) -> String {
        match (self, &records.cursor) {
            (Self::Cursor(ledger), Some(spec)) => ledger.text().unwrap_or_else(|| spec.start.clone()),
            _ => String::new(),
        }
    }

    /// Begins a workload.
    pub(crate) fn session(&self, records: &Arc<Records>) -> Session {
        let kind = match self {
            Self::Cursor(ledger) => SessionKind::Cursor(CursorSession::new(ledger)),
            Self::Observed(ledger) => SessionKind::Observed(ObservedSession::new(ledger)),
        };
        Session { records: Arc::clone(records), kind }
    }
}

impl Session {
    /// Whether the record is new; if so it counts as seen from now on.
    pub(crate) fn take(&mut self, text: &str) -> bool {
        let record = Seen { value: serde_json::from_str(text).ok(), text };
        match &mut self.kind {
            SessionKind::Cursor(session) => session.take(&record, &self.records),
            SessionKind::Observed(session) => session.take(&record, &self.records),
        }
    }

    /// Whether what was taken so far may be handed over before the rest of the workload: nothing that comes later
    /// can stand before it.
    pub(crate) fn may_split(&self) -> bool {
        match &self.kind {
            SessionKind::Cursor(session) => session.ascending(),
            SessionKind::Observed(_) => true,
        }
    }

    /// The ledger after everything taken so far; `whole` where the workload is at its end.
    ///
    /// # Errors
    /// `config` where the source cannot be followed with a bounded position.
    pub(crate) fn ledger(&self, whole: bool) -> Result<(Ledger, Position), SourceError> {
        Ok(match &self.kind {
            SessionKind::Cursor(session) => {
                let ledger = session.ledger()?;
                let text = ledger.write();
                (Ledger::Cursor(ledger), Position::new(text))
            }
            SessionKind::Observed(session) => {
                let ledger = session.ledger(whole)?;
                let text = ledger.write();
                (Ledger::Observed(ledger), Position::new(text))
            }
        })
    }
}
