//! What the judge found.

use serde::Serialize;

/// Messages beyond this are counted, not kept: the first ones tell the story, and a wrecked lake has millions.
const MESSAGES_MAX: usize = 40;

/// Counts of everything that can be wrong with a stream in a lake. All but `rows`, `dead`, `epochs` and `orphans` must
/// be zero.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Rows in the table.
    pub rows: u64,
    /// Dead letters.
    pub dead: u64,
    /// The last committed epoch.
    pub epochs: u64,
    /// Handed over, but in neither table.
    pub missing: u64,
    /// More than once over both tables, counted from the second on.
    pub doubled: u64,
    /// Never issued, or of an epoch that is not committed.
    pub foreign: u64,
    /// Issued with another content.
    pub corrupt: u64,
    /// Before its predecessor of the same partition.
    pub disorder: u64,
    /// Epochs not numbered 1, 2, 3 … by the commits.
    pub epoch_gaps: u64,
    /// Positions of successive records that do not join.
    pub position_gaps: u64,
    /// Committed epochs without a record.
    pub commits_without_record: u64,
    /// Records up to the last epoch for which no commit ever came.
    pub records_without_commit: u64,
    /// Records that tell other files or counts than the commit and its files do.
    pub records_wrong: u64,
    /// Commits by an owner after a newer owner's claim.
    pub stale_commits: u64,
    /// Raw objects that a record names and that are not there.
    pub raw_missing: u64,
    /// Raw objects whose name is not the hash of their bytes.
    pub raw_hash_wrong: u64,
    /// Rows whose `_lf_raw` leads to nothing, or to another payload.
    pub raw_ref_wrong: u64,
    /// Dead letters of epochs that are not committed.
    pub dead_leads: u64,
    /// Things that cannot be read, or break the rules of a Delta log.
    pub unreadable: u64,
    /// Staged files, raw objects and records that no commit took: allowed, reclaimed by maintenance.
    pub orphans: u64,
    /// The first findings, in words.
    pub messages: Vec<String>,
    /// Findings beyond the kept messages.
    pub messages_left_out: u64,
}

impl Verdict {
    /// Nothing is wrong.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.faults().iter().all(|(_, count)| *count == 0)
    }

    /// Name and count of every kind of fault.
    #[must_use]
    pub fn faults(&self) -> [(&'static str, u64); 16] {
        [
            ("missing", self.missing),
            ("doubled", self.doubled),
            ("foreign", self.foreign),
            ("corrupt", self.corrupt),
            ("disorder", self.disorder),
            ("epoch_gaps", self.epoch_gaps),
            ("position_gaps", self.position_gaps),
            ("commits_without_record", self.commits_without_record),
            ("records_without_commit", self.records_without_commit),
            ("records_wrong", self.records_wrong),
            ("stale_commits", self.stale_commits),
            ("raw_missing", self.raw_missing),
            ("raw_hash_wrong", self.raw_hash_wrong),
            ("raw_ref_wrong", self.raw_ref_wrong),
            ("dead_leads", self.dead_leads),
            ("unreadable", self.unreadable),
        ]
    }

    /// One line: the counts that are not zero.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text =
            format!("{} rows, {} dead, {} epochs, {} orphans", self.rows, self.dead, self.epochs, self.orphans);
        for (name, count) in self.faults().iter().filter(|(_, count)| *count > 0) {
            text.push_str(&format!(", {count} {name}"));
        }
        text
    }

    pub(crate) fn say(&mut self, message: impl FnOnce() -> String) {
        if self.messages.len() < MESSAGES_MAX {
            self.messages.push(message());
        } else {
            self.messages_left_out += 1;
        }
    }
}
