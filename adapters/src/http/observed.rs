//! Sources without a cursor: what is current now can be had, and each observation that was taken is taken once.
//!
//! What is observed is named by its key and event time. The position holds, for each name, digests of the contents it
//! had when it last gave something new; a record is new when its name did not have its content then. So an unchanged
//! value gives nothing however often it is seen, a changed one under the same time does, and one that comes back from
//! a stale cache under its old time does not.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::ledger::{Seen, bad_position};
use super::settings::Records;
use crate::contract::{ErrorClass, SourceError};
use crate::json::Path;

/// More current values than this in one partition make the position too large: such a source needs a cursor or
/// partitions.
pub(crate) const OBSERVED_MAX: usize = 2048;

/// Names that did not come again are remembered up to this number, so that a stale answer is known …
const REMEMBERED_MIN: usize = 32;

/// … or up to this many times the values of one workload, where that is more.
const REMEMBERED_FACTOR: usize = 2;

/// A digest of the name and one of the content.
type Pair = (u64, u64);

/// The position of a source without a cursor: the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ObservedLedger(Vec<Pair>);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    /// Pairs of 16 + 16 hex digits, one after the other.
    d: String,
}

const PAIR_DIGITS: usize = 32;

impl ObservedLedger {
    pub(crate) fn read(text: Option<&str>) -> Result<Self, SourceError> {
        let Some(text) = text else { return Ok(Self::default()) };
        let text: Text = serde_json::from_str(text).map_err(|_| bad_position())?;
        let digits = text.d.as_bytes();
        if !digits.len().is_multiple_of(PAIR_DIGITS) || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(bad_position());
        }
        let half = |digits: &[u8]| {
            let text = std::str::from_utf8(digits).map_err(|_| bad_position())?;
            u64::from_str_radix(text, 16).map_err(|_| bad_position())
        };
        let pairs = digits.chunks_exact(PAIR_DIGITS).map(|pair| Ok((half(&pair[..16])?, half(&pair[16..])?)));
        Ok(Self(pairs.collect::<Result<_, SourceError>>()?))
    }

    pub(crate) fn write(&self) -> String {
        let d = self.0.iter().map(|(name, content)| format!("{name:016x}{content:016x}")).collect();
        serde_json::to_string(&Text { d }).unwrap_or_default()
    }
}

/// One workload without a cursor.
#[derive(Debug)]
pub(crate) struct ObservedSession {
    base: ObservedLedger,
    known: HashSet<Pair>,
    /// What this workload saw, in order.
    seen: Vec<Pair>,
    seen_set: HashSet<Pair>,
    /// The names that gave something new: what they had before is forgotten.
    changed: HashSet<u64>,
}

impl ObservedSession {
    pub(crate) fn new(ledger: &ObservedLedger) -> Self {
        Self {
            base: ledger.clone(),
            known: ledger.0.iter().copied().collect(),
            seen: Vec::new(),
            seen_set: HashSet::new(),
            changed: HashSet::new(),
        }
    }

    pub(crate) fn take(&mut self, record: &Seen<'_>, records: &Records) -> bool {
        let name: Vec<Path> = records.key.iter().chain(&records.event_time).cloned().collect();
        let name = if name.is_empty() { 0 } else { record.digest(&name) };
        let pair = (name, record.digest(&records.content));
        if !self.seen_set.insert(pair) {
            return false;
        }
        self.seen.push(pair);
        let new = !self.known.contains(&pair);
        if new {
            self.changed.insert(name);
        }
        new
    }

    /// What was remembered and did not change, then what this workload saw, as far as there is room.
    pub(crate) fn ledger(&self, whole: bool) -> Result<ObservedLedger, SourceError> {
        if self.seen.len() > OBSERVED_MAX {
            let message = format!("the source gave more than {OBSERVED_MAX} current values: declare a cursor");
            return Err(SourceError::new(ErrorClass::Config, "too_many_values", message));
        }
        let room = if whole { (self.seen.len() * REMEMBERED_FACTOR).max(REMEMBERED_MIN) } else { OBSERVED_MAX };
        let room = room.min(OBSERVED_MAX).saturating_sub(self.seen.len());
        let old = self.base.0.iter().filter(|pair| !self.changed.contains(&pair.0) && !self.seen_set.contains(*pair));
        let old: Vec<Pair> = old.copied().collect();
        let mut pairs = old[old.len().saturating_sub(room)..].to_vec();
        pairs.extend(&self.seen);
        Ok(ObservedLedger(pairs))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::ledger::Ledger;
    use super::*;
    use crate::contract::Position;

    fn records(key: &[&str], event_time: Option<&str>) -> Arc<Records> {
        let field = |name: &str| Path::parse_field(name).expect("a field");
        Arc::new(Records {
            select: Path::parse("$").expect("a path"),
            key: key.iter().map(|name| field(name)).collect(),
            event_time: event_time.map(field),
            content: Vec::new(),
            cursor: None,
        })
    }

    /// Plays polls, each from the written position of the one before; gives how many were new in each.
    fn play(records: &Arc<Records>, polls: &[&[&str]]) -> Vec<usize> {
        let mut position: Option<Position> = None;
        polls
            .iter()
            .map(|answer| {
                let mut session = Ledger::read(position.as_ref(), records).expect("ours").session(records);
                let new = answer.iter().filter(|text| session.take(text)).count();
                if new > 0 {
                    position = Some(session.ledger(true).expect("small").1);
                }
                new
            })
            .collect()
    }

    #[test]
    fn test_unchanged_observation_gives_nothing_and_a_changed_one_does() {
        let records = records(&[], Some("ts"));
        let (a, b, stale) = (r#"{"ts":1,"v":1}"#, r#"{"ts":1,"v":2}"#, r#"{"v":1,"ts":1}"#);
        assert_eq!(play(&records, &[&[a], &[a], &[stale], &[b], &[b]]), [1, 0, 0, 1, 0]);
    }

    #[test]
    fn test_stale_answers_under_their_old_time_give_nothing() {
        for records in [records(&[], Some("ts")), records(&["ts"], None), records(&["k"], Some("ts"))] {
            let (old, new) = (r#"{"k":1,"ts":1,"v":1}"#, r#"{"k":1,"ts":2,"v":1}"#);
            assert_eq!(play(&records, &[&[old], &[new], &[old], &[new], &[old]]), [1, 1, 0, 0, 0]);
        }
    }

    #[test]
    fn test_a_state_without_a_time_comes_again_when_it_came_back() {
        let (up, down) = (r#"{"k":1,"s":"up"}"#, r#"{"k":1,"s":"down"}"#);
        assert_eq!(play(&records(&["k"], None), &[&[up], &[down], &[up], &[up]]), [1, 1, 1, 0]);
        assert_eq!(play(&records(&[], None), &[&[up], &[down], &[up], &[up]]), [1, 1, 1, 0]);
    }

    #[test]
    fn test_records_that_share_a_name_do_not_push_each_other_out() {
        let (a, b, c) = (r#"{"ts":1,"v":1}"#, r#"{"ts":1,"v":2}"#, r#"{"ts":1,"v":3}"#);
        for records in [records(&[], Some("ts")), records(&[], None)] {
            assert_eq!(play(&records, &[&[a, b], &[b, a], &[a, b, c], &[c, b, a]]), [2, 0, 1, 0]);
        }
    }

    #[test]
    fn test_position_stays_small_and_too_many_values_are_an_error() {
        let records = records(&[], Some("ts"));
        let mut position: Option<Position> = None;
        for ts in 0..500 {
            let mut session = Ledger::read(position.as_ref(), &records).expect("ours").session(&records);
            assert!(session.take(&format!(r#"{{"ts":{ts}}}"#)));
            position = Some(session.ledger(true).expect("small").1);
        }
        assert!(position.expect("moved").as_str().len() <= REMEMBERED_MIN * PAIR_DIGITS + 16);
        let mut session = Ledger::read(None, &records).expect("the beginning").session(&records);
        for ts in 0..=OBSERVED_MAX {
            session.take(&format!(r#"{{"ts":{ts}}}"#));
        }
        assert_eq!(session.ledger(true).expect_err("too many").code, "too_many_values");
    }

    #[test]
    fn test_foreign_positions_are_refused() {
        let records = records(&[], None);
        for text in ["", "{}", r#"{"d":"1"}"#, r#"{"c":"1"}"#, &format!(r#"{{"d":"{}"}}"#, "g".repeat(32))] {
            assert!(Ledger::read(Some(&Position::new(text)), &records).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn test_timed_observations_come_once_each_however_often_seen(
            polls in proptest::collection::vec((0u8..6, 0u8..3), 1..60),
        ) {
            // Each answer is one value of one of a few times; what came before may come again at any time.
            let records = records(&[], Some("ts"));
            let answers: Vec<String> = polls.iter().map(|(ts, _)| format!(r#"{{"ts":{ts},"v":{ts}}}"#)).collect();
            let answers: Vec<[&str; 1]> = answers.iter().map(|text| [text.as_str()]).collect();
            let polls_played: Vec<&[&str]> = answers.iter().map(|answer| answer.as_slice()).collect();
            let new: usize = play(&records, &polls_played).iter().sum();
            let distinct: HashSet<u8> = polls.iter().map(|(ts, _)| *ts).collect();
            prop_assert_eq!(new, distinct.len());
        }
    }
}
