//! Sources with a cursor: every record is owed.
//!
//! The position holds the greatest value handed over, and digests of the records that have exactly that value. A
//! record below it was seen, one above it is new, one at it is new unless its digest is known: so a source may answer
//! "from" or "after" the cursor and may add to a value that was seen. A record without a value of the cursor's type
//! is taken once, by digest, and moves nothing.

use std::cmp::Ordering;
use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ledger::{Seen, bad_position};
use super::settings::Records;
use crate::contract::{ErrorClass, SourceError};

/// More records with one value, or without one, make the position too large: the cursor is too coarse.
pub(crate) const BOUNDARY_DIGESTS_MAX: usize = 1024;

/// A value of the cursor field.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum CursorValue {
    Integer(i128),
    Float(f64),
    Text(String),
}

impl CursorValue {
    fn from_json(value: &Value) -> Option<Self> {
        match value {
            Value::Number(number) => Self::number(&number.to_string()),
            Value::String(text) => Some(Self::Text(text.clone())),
            _ => None,
        }
    }

    fn number(text: &str) -> Option<Self> {
        if let Ok(integer) = text.parse() {
            return Some(Self::Integer(integer));
        }
        text.parse().ok().filter(|value: &f64| value.is_finite()).map(Self::Float)
    }

    fn text(&self) -> String {
        match self {
            Self::Integer(value) => value.to_string(),
            // With its point or exponent, so that it reads back as the float it was.
            Self::Float(value) => format!("{value:?}"),
            Self::Text(text) => text.clone(),
        }
    }

    /// Numbers by value, strings by bytes; `None` between the two.
    fn order(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => Some(a.cmp(b)),
            (Self::Float(a), Self::Float(b)) => a.partial_cmp(b),
            (Self::Integer(a), Self::Float(b)) => Some(order_mixed(*a, *b)),
            (Self::Float(a), Self::Integer(b)) => Some(order_mixed(*b, *a).reverse()),
            (Self::Text(a), Self::Text(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
            _ => None,
        }
    }
}

/// An integer against a finite float, exactly.
#[allow(clippy::cast_possible_truncation, reason = "the float is whole, and the cast saturates")]
fn order_mixed(integer: i128, float: f64) -> Ordering {
    let floor = float.floor();
    integer.cmp(&(floor as i128)).then(if float > floor { Ordering::Less } else { Ordering::Equal })
}

/// The position of a source with a cursor.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct CursorLedger {
    value: Option<CursorValue>,
    /// Digests of the records at `value`.
    seen: Vec<u64>,
    /// Digests of the records without a value.
    odd: Vec<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    /// The value. As text, so that no digit is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    c: Option<String>,
    /// `n` for a number, `s` for a string. Where an operator left it out: a number if it reads as one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    t: Option<char>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    seen: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    odd: Vec<String>,
}

fn digests(texts: &[String]) -> Result<Vec<u64>, SourceError> {
    texts.iter().map(|text| u64::from_str_radix(text, 16).map_err(|_| bad_position())).collect()
}

fn hex(digests: &[u64]) -> Vec<String> {
    digests.iter().map(|digest| format!("{digest:016x}")).collect()
}

impl CursorLedger {
    pub(crate) fn read(text: Option<&str>) -> Result<Self, SourceError> {
        let Some(text) = text else { return Ok(Self::default()) };
        let text: Text = serde_json::from_str(text).map_err(|_| bad_position())?;
        let value = match (text.c, text.t) {
            (None, _) => None,
            (Some(c), Some('n')) => Some(CursorValue::number(&c).ok_or_else(bad_position)?),
            (Some(c), Some('s')) => Some(CursorValue::Text(c)),
            (Some(c), None) => Some(CursorValue::number(&c).unwrap_or(CursorValue::Text(c))),
            _ => return Err(bad_position()),
        };
        Ok(Self { value, seen: digests(&text.seen)?, odd: digests(&text.odd)? })
    }

    pub(crate) fn write(&self) -> String {
        let t = self.value.as_ref().map(|value| if matches!(value, CursorValue::Text(_)) { 's' } else { 'n' });
        let c = self.value.as_ref().map(CursorValue::text);
        let text = Text { c, t, seen: hex(&self.seen), odd: hex(&self.odd) };
        serde_json::to_string(&text).unwrap_or_default()
    }

    /// The value's text.
    pub(crate) fn text(&self) -> Option<String> {
        self.value.as_ref().map(CursorValue::text)
    }
}

/// One workload with a cursor.
#[derive(Debug)]
pub(crate) struct CursorSession {
    base: CursorLedger,
    now: CursorLedger,
    /// Digests of everything taken in this workload: pages shift while they are read.
    taken: HashSet<u64>,
    /// The values taken so far never fell …
    falls: bool,
    /// … and rose at least once: a single value says nothing about the order.
    rises: bool,
    last: Option<CursorValue>,
}

impl CursorSession {
    pub(crate) fn new(ledger: &CursorLedger) -> Self {
        Self {
            base: ledger.clone(),
            now: ledger.clone(),
            taken: HashSet::new(),
            falls: false,
            rises: false,
            last: None,
        }
    }

    pub(crate) fn ascending(&self) -> bool {
        self.rises && !self.falls
    }

    pub(crate) fn take(&mut self, record: &Seen<'_>, records: &Records) -> bool {
        let Some(spec) = &records.cursor else { return false };
        let value = record.field(&spec.field).and_then(CursorValue::from_json);
        // The first value that ever came decides between numbers and strings.
        let typed = value.filter(|value| self.now.value.as_ref().is_none_or(|now| value.order(now).is_some()));
        let Some(value) = typed else { return self.take_odd(record.digest(&[])) };
        let digest = record.digest(&records.key);
        match self.base.value.as_ref().and_then(|base| value.order(base)) {
            Some(Ordering::Less) => return false,
            Some(Ordering::Equal) if self.base.seen.contains(&digest) => return false,
            _ => {}
        }
        self.note_order(&value);
        // The same key with another value is another version of the record, and as new as any.
        let version = super::digest::of_text(&format!("{digest:016x}{}", value.text()));
        if !self.taken.insert(version) {
            return false;
        }
        match self.now.value.as_ref().map_or(Some(Ordering::Greater), |now| value.order(now)) {
            Some(Ordering::Greater) => {
                self.now.seen = vec![digest];
                self.now.value = Some(value);
            }
            Some(Ordering::Equal) => self.now.seen.push(digest),
            // Later pages may stand before earlier ones; the greatest value stays.
            _ => {}
        }
        true
    }

    fn take_odd(&mut self, digest: u64) -> bool {
        if self.now.odd.contains(&digest) {
            return false;
        }
        self.now.odd.push(digest);
        true
    }

    fn note_order(&mut self, value: &CursorValue) {
        match self.last.as_ref().and_then(|last| value.order(last)) {
            Some(Ordering::Less) => self.falls = true,
            Some(Ordering::Greater) => self.rises = true,
            _ => {}
        }
        self.last = Some(value.clone());
    }

    pub(crate) fn ledger(&self) -> Result<CursorLedger, SourceError> {
        for (digests, what) in [(&self.now.seen, "with one cursor value"), (&self.now.odd, "without a cursor value")] {
            if digests.len() > BOUNDARY_DIGESTS_MAX {
                let message = format!(
                    "the source gave more than {BOUNDARY_DIGESTS_MAX} records {what}: choose a finer cursor field"
                );
                return Err(SourceError::new(ErrorClass::Config, "cursor_too_coarse", message));
            }
        }
        Ok(self.now.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::ledger::Ledger;
    use super::super::settings::CursorSpec;
    use super::*;
    use crate::contract::Position;
    use crate::json::Path;

    fn records(key: &[&str]) -> Arc<Records> {
        let field = |name: &str| Path::parse_field(name).expect("a field");
        Arc::new(Records {
            select: Path::parse("$").expect("a path"),
            key: key.iter().map(|name| field(name)).collect(),
            event_time: None,
            content: Vec::new(),
            cursor: Some(CursorSpec { field: field("id"), start: "0".to_owned() }),
        })
    }

    /// Polls once: which of `answer` are new, and the position after.
    fn poll(position: Option<&Position>, answer: &[String], records: &Arc<Records>) -> (Vec<String>, Position) {
        let ledger = Ledger::read(position, records).expect("a position of ours");
        let mut session = ledger.session(records);
        let new = answer.iter().filter(|text| session.take(text)).cloned().collect();
        (new, session.ledger(true).expect("small").1)
    }

    fn texts(all: &[&str]) -> Vec<String> {
        all.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn test_cursor_boundary_records_come_once_and_late_equals_come_too() {
        let records = records(&[]);
        let (new, position) = poll(None, &texts(&[r#"{"id":1}"#, r#"{"id":2,"v":"a"}"#]), &records);
        assert_eq!(new.len(), 2);
        let again = texts(&[r#"{"v":"a", "id":2}"#, r#"{"id":2,"v":"b"}"#, r#"{"id":1}"#, r#"{"id":10}"#]);
        let (new, position) = poll(Some(&position), &again, &records);
        assert_eq!(new, [r#"{"id":2,"v":"b"}"#, r#"{"id":10}"#]);
        let ledger = Ledger::read(Some(&position), &records).expect("ours");
        assert_eq!(ledger.cursor_text(&records), "10", "numbers by value, not by bytes");
    }

    #[test]
    fn test_cursor_key_decides_what_is_the_same_at_the_boundary() {
        let records = records(&["k"]);
        let (_, position) = poll(None, &texts(&[r#"{"id":5,"k":1,"x":1}"#]), &records);
        let (new, _) = poll(Some(&position), &texts(&[r#"{"id":5,"k":1,"x":2}"#, r#"{"id":5,"k":2}"#]), &records);
        assert_eq!(new, [r#"{"id":5,"k":2}"#]);
    }

    #[test]
    fn test_cursor_strings_order_by_bytes_and_odd_records_come_once() {
        let records = records(&[]);
        let answer = texts(&[r#"{"id":"b"}"#, r#"{"id":"ä"}"#, r#"{"x":1}"#, r#"{"id":7}"#, r#"{"id":null}"#, "5"]);
        let (new, position) = poll(None, &answer, &records);
        assert_eq!(new.len(), 6);
        assert!(poll(Some(&position), &answer, &records).0.is_empty());
    }

    #[test]
    fn test_cursor_too_coarse_is_a_config_error() {
        let records = records(&[]);
        let ledger = Ledger::read(None, &records).expect("the beginning");
        let mut session = ledger.session(&records);
        for n in 0..=BOUNDARY_DIGESTS_MAX {
            session.take(&format!(r#"{{"id":1,"n":{n}}}"#));
        }
        let error = session.ledger(true).expect_err("too coarse");
        assert_eq!((error.class, error.code.as_str()), (ErrorClass::Config, "cursor_too_coarse"));
    }

    #[test]
    fn test_only_a_rising_order_may_be_split() {
        let records = records(&[]);
        for (ids, split) in
            [(&[1, 2][..], true), (&[1], false), (&[1, 1], false), (&[2, 1], false), (&[1, 3, 2], false)]
        {
            let mut session = Ledger::read(None, &records).expect("the beginning").session(&records);
            ids.iter().for_each(|id| assert!(session.take(&format!(r#"{{"id":{id},"r":{}}}"#, ids.len())) || *id == 1));
            assert_eq!(session.may_split(), split, "{ids:?}");
        }
    }

    #[test]
    fn test_foreign_positions_are_refused() {
        let records = records(&[]);
        for text in ["", "{", "5", r#"{"c":5}"#, r#"{"c":"x","t":"n"}"#, r#"{"d":""}"#, r#"{"c":"1","seen":["x"]}"#] {
            assert!(Ledger::read(Some(&Position::new(text)), &records).is_err(), "{text}");
        }
        assert!(Ledger::read(Some(&Position::new(r#"{"c":"500"}"#)), &records).is_ok(), "an operator's own");
    }

    proptest! {
        #[test]
        fn test_cursor_gives_each_record_once_however_polls_overlap(
            mut ids in proptest::collection::vec((0i64..30, 0u8..4), 0..60),
            polls in proptest::collection::vec(0usize..60, 1..8),
            inclusive: bool,
        ) {
            let records = records(&[]);
            ids.sort_unstable();
            ids.dedup();
            let all: Vec<String> = ids.iter().map(|(id, v)| format!(r#"{{"id":{id},"v":{v}}}"#)).collect();
            let mut position: Option<Position> = None;
            let mut got: Vec<String> = Vec::new();
            for limit in polls.iter().copied().chain([60]) {
                // The source has the first `limit` records now; it answers from or after the cursor.
                let cursor = Ledger::read(position.as_ref(), &records).expect("ours").cursor_text(&records);
                let from: i64 = if position.is_some() { cursor.parse().unwrap_or(-1) } else { -1 };
                let visible = limit.max(got.len()).min(all.len());
                let answer: Vec<String> = (0..visible)
                    .filter(|i| ids[*i].0 > from || (ids[*i].0 == from && (inclusive || i >= &got.len())))
                    .map(|i| all[i].clone())
                    .collect();
                let (new, to) = poll(position.as_ref(), &answer, &records);
                if !new.is_empty() {
                    position = Some(to);
                }
                got.extend(new);
            }
            prop_assert_eq!(got, all);
        }

        #[test]
        fn test_cursor_numbers_read_back_as_they_were(a in any::<f64>(), b in any::<i64>(), c in any::<u64>()) {
            for value in [serde_json::json!(a), serde_json::json!(b), serde_json::json!(c)] {
                let Some(value) = CursorValue::from_json(&value) else { continue };
                let ledger = CursorLedger { value: Some(value.clone()), seen: vec![1, u64::MAX], odd: vec![] };
                prop_assert_eq!(CursorLedger::read(Some(&ledger.write())), Ok(ledger));
            }
        }

        #[test]
        fn test_cursor_order_of_integers_and_floats_is_exact(a in -1000i64..1000, b in -1000.0f64..1000.0) {
            #[allow(clippy::cast_precision_loss, reason = "within 1000 of zero")]
            let expected = (a as f64).partial_cmp(&b);
            prop_assert_eq!(CursorValue::Integer(a.into()).order(&CursorValue::Float(b)), expected);
        }
    }
}
