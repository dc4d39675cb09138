//! An incident told as a story: what failed first, who was restarted because of it, how long it took, what to do.

use serde::{Deserialize, Serialize};

use super::RestartRecord;
use crate::times::timestamp_us;

/// One child of an incident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Affected {
    /// Its path.
    pub path: String,
    /// Its newest incarnation here.
    pub incarnation: u64,
    /// How often it failed itself; 0 = it was only taken along by the strategy.
    pub failures: usize,
    /// How often it was started again.
    pub restarts: usize,
    /// From its failure to being up, the last time.
    pub recovered_in_ms: Option<u64>,
    /// recovered, parked, abandoned, escalated, stopped, open.
    pub outcome: String,
}

/// An incident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
        let affected = affected(&records);
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

fn affected(records: &[RestartRecord]) -> Vec<Affected> {
    let mut order: Vec<Affected> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for record in records {
        let place = *places.entry(record.path.as_str()).or_insert_with(|| {
            order.push(Affected {
                path: record.path.clone(),
                incarnation: 0,
                failures: 0,
                restarts: 0,
                recovered_in_ms: None,
                outcome: String::new(),
            });
            order.len() - 1
        });
        let child = &mut order[place];
        child.incarnation = child.incarnation.max(record.incarnation);
        child.failures += usize::from(record.event == "failed");
        child.restarts += usize::from(record.event == "restarted");
        child.recovered_in_ms = record.recovered_in_ms.or(child.recovered_in_ms);
        child.outcome = outcome_of(&record.event).to_owned();
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
        let records =
            vec![record(999, "t/workers", "restarting"), failed, back, record(1_800, "t/workers", "restarted")];
        let story = Story::of("i-1", records, 10).expect("a story");
        assert_eq!(story.cause.path, "t/committer");
        assert_eq!(
            (story.outcome.as_str(), story.lasted_ms, story.remedy.as_deref()),
            ("recovered", 801, Some("do this"))
        );
        let workers = &story.affected[0];
        assert_eq!((workers.path.as_str(), workers.failures, workers.restarts), ("t/workers", 0, 1));
        assert_eq!(story.affected[1].recovered_in_ms, Some(700));
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
