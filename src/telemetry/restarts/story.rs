//! An incident told as a story: what failed first, who was restarted because of it, how long it took, what to do.

use serde::{Deserialize, Serialize};

use super::{Reason, RestartRecord, ResumedFrom};
use crate::times::timestamp_us;

/// One child of an incident.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Affected {
    /// Its path.
    pub path: String,
    /// Its newest incarnation here.
    pub incarnation: u64,
    /// How often it failed itself; 0 = it was only taken along by the strategy.
    pub failures: usize,
    /// How often it was started again.
    pub restarts: usize,
    /// The child whose failure took it along; `None` for the first cause and what failed by itself.
    pub because_of: Option<String>,
    /// The strategy under which it was restarted.
    pub strategy: Option<String>,
    /// What it last failed with; `None` where it did not fail itself.
    pub reason: Option<Reason>,
    /// Where it went on, the last time.
    pub resumed_from: Option<ResumedFrom>,
    /// From its failure to being up, the last time.
    pub recovered_in_ms: Option<u64>,
    /// recovered, parked, abandoned, escalated, stopped, open: how the incident ended for it.
    pub outcome: String,
    /// Its node of the tree without children, at the moment of the question; `None` where it is no longer there.
    pub now: Option<serde_json::Value>,
    /// What to do about its own failure, where that is something else than about the first cause.
    pub remedy: Option<String>,
}

/// An incident.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Story {
    /// Its id.
    pub incident: String,
    /// When the first record was written.
    pub started_at: String,
    /// When the last was.
    pub last_at: String,
    /// Between the two.
    pub lasted_ms: u64,
    /// recovered, parked, abandoned, escalated, stopped; open while something is still under way.
    pub outcome: String,
    /// What failed first.
    pub cause: RestartRecord,
    /// What to do.
    pub remedy: Option<String>,
    /// All children, in the order in which they came in.
    pub affected: Vec<Affected>,
    /// All records, in order.
    pub records: Vec<RestartRecord>,
    /// More records exist than are shown.
    pub truncated: bool,
}

/// What is left of a child after `event`.
fn outcome_of(event: &str) -> &'static str {
    match event {
        "started" | "restarted" => "recovered",
        "parked" => "parked",
        "abandoned" => "abandoned",
        "escalated" => "escalated",
        "stopped" => "stopped",
        _ => "open",
    }
}

/// The worst first: the whole story ends as badly as its worst child.
const OUTCOMES: [&str; 6] = ["escalated", "parked", "abandoned", "open", "recovered", "stopped"];

impl Story {
    /// The story that `records` (in order) tell; `None` where there are none. `max` records mean that there may be more.
    pub(super) fn of(incident: &str, records: Vec<RestartRecord>, max: usize) -> Option<Self> {
        let (first, last) = (records.first()?, records.last()?);
        let cause = records.iter().find(|record| record.reason.is_some()).unwrap_or(first).clone();
        let lasted_us = timestamp_us(&last.ts).zip(timestamp_us(&first.ts)).map_or(0, |(end, start)| end - start);
        let affected = affected(&records, &cause);
        let worst = OUTCOMES.iter().find(|outcome| affected.iter().any(|child| child.outcome == **outcome));
        Some(Self {
            incident: incident.to_owned(),
            started_at: first.ts.clone(),
            last_at: last.ts.clone(),
            lasted_ms: u64::try_from(lasted_us / 1_000).unwrap_or(0),
            outcome: (*worst.unwrap_or(&"open")).to_owned(),
            remedy: cause.remedy.clone(),
            cause,
            affected,
            truncated: records.len() >= max,
            records,
        })
    }
}

fn affected(records: &[RestartRecord], cause: &RestartRecord) -> Vec<Affected> {
    let mut order: Vec<Affected> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for record in records {
        let place = *places.entry(record.path.as_str()).or_insert_with(|| {
            order.push(Affected { path: record.path.clone(), ..Affected::default() });
            order.len() - 1
        });
        let child = &mut order[place];
        child.incarnation = child.incarnation.max(record.incarnation);
        child.restarts += usize::from(record.event == "restarted");
        child.recovered_in_ms = record.recovered_in_ms.or(child.recovered_in_ms);
        child.strategy = record.strategy.clone().or(child.strategy.take());
        child.resumed_from = record.resumed_from.clone().or(child.resumed_from.take());
        child.because_of = record.because_of.clone().or(child.because_of.take());
        outcome_of(&record.event).clone_into(&mut child.outcome);
        if record.event == "failed" {
            child.failures += 1;
            child.reason = record.reason.clone();
            child.remedy = record.remedy.clone().filter(|remedy| Some(remedy) != cause.remedy.as_ref());
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::super::Reason;
    use super::*;

    fn record(ms: i64, path: &str, event: &str) -> RestartRecord {
        let ts = crate::times::timestamp(ms * 1_000);
        RestartRecord { ts, path: path.to_owned(), event: event.to_owned(), incarnation: 1, ..Default::default() }
    }

    #[test]
    fn test_story_tells_cause_cascade_and_end() {
        let mut failed = record(1_000, "t/committer", "failed");
        failed.reason = Some(Reason { class: "bug".into(), code: "panic".into(), message: "boom".into() });
        failed.remedy = Some("do this".into());
        let mut back = record(1_700, "t/committer", "restarted");
        back.recovered_in_ms = Some(700);
        let mut taken_along = record(1_800, "t/workers", "restarted");
        taken_along.because_of = Some("t/committer".into());
        taken_along.strategy = Some("rest_for_one".into());
        taken_along.resumed_from =
            Some(ResumedFrom { epoch: 7, positions: [("p".to_owned(), "41".to_owned())].into() });
        let records = vec![record(999, "t/workers", "stopped"), failed, back, taken_along];
        let story = Story::of("i-1", records, 10).expect("a story");
        assert_eq!(story.cause.path, "t/committer");
        assert_eq!(
            (story.outcome.as_str(), story.lasted_ms, story.remedy.as_deref()),
            ("recovered", 801, Some("do this"))
        );
        let workers = &story.affected[0];
        assert_eq!((workers.path.as_str(), workers.failures, workers.restarts), ("t/workers", 0, 1));
        assert_eq!(workers.because_of.as_deref(), Some("t/committer"));
        assert_eq!(workers.strategy.as_deref(), Some("rest_for_one"));
        assert_eq!(workers.resumed_from.as_ref().map(|from| from.epoch), Some(7));
        let committer = &story.affected[1];
        assert_eq!((committer.failures, committer.recovered_in_ms), (1, Some(700)));
        assert_eq!(committer.reason.as_ref().map(|reason| reason.code.as_str()), Some("panic"));
        assert_eq!(committer.remedy, None, "it is the cause's");
        assert!(Story::of("i-2", vec![], 10).is_none());
    }

    #[test]
    fn test_story_is_open_until_all_came_back_and_ends_as_its_worst() {
        let open = vec![record(1, "a", "failed"), record(2, "b", "failed"), record(3, "b", "restarted")];
        assert_eq!(Story::of("i", open, 10).expect("a story").outcome, "open");
        let parked = vec![record(1, "a", "failed"), record(2, "a", "parked"), record(3, "b", "restarted")];
        assert_eq!(Story::of("i", parked, 10).expect("a story").outcome, "parked");
    }
}
