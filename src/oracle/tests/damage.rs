//! One planted damage for each field of the verdict; the judge must name it.

use std::fs;
use std::path::{Path, PathBuf};

use super::handmade::{Epoch, Record, lake, plan};
use super::{Expected, expected, judge, judged};
use crate::oracle::Verdict;

/// The verdict on three epochs after `change`.
fn after(change: impl FnOnce(&mut Vec<Epoch>)) -> Verdict {
    let mut plan = plan(3);
    change(&mut plan);
    judged(lake(&plan).path(), 3)
}

/// The verdict on three epochs whose files `change` damaged.
fn after_files(change: impl FnOnce(&Path)) -> Verdict {
    let lake = lake(&plan(3));
    change(lake.path());
    judged(lake.path(), 3)
}

/// Only these faults, as often as told.
#[track_caller]
fn assert_faults(verdict: &Verdict, wanted: &[(&str, u64)]) {
    let found: Vec<_> = verdict.faults().into_iter().filter(|(_, count)| *count > 0).collect();
    assert_eq!(found, wanted, "{:?}", verdict.messages);
    assert!(!verdict.ok() && !verdict.messages.is_empty());
}

fn first_raw(lake: &Path) -> PathBuf {
    let folder = lake.join("raw/acme/syn/2026-01-02");
    fs::read_dir(folder).unwrap().next().unwrap().unwrap().path()
}

#[test]
fn test_damage_missing() {
    assert_faults(&after(|plan| drop(plan[1].rows.remove(3))), &[("missing", 1)]);
    let last = after(|plan| drop(plan[2].rows.pop()));
    assert_faults(&last, &[("missing", 1)]);
}

#[test]
fn test_damage_doubled() {
    let again = after(|plan| plan[1].dead.push(Record::new(0, 3)));
    assert_faults(&again, &[("doubled", 1)]);
    let whole = after(|plan| plan[1].rows = plan[0].rows.clone());
    assert_eq!((whole.doubled, whole.missing, whole.disorder), (20, 20, 2));
}

#[test]
fn test_damage_foreign() {
    assert_faults(&after(|plan| plan[2].rows.push(Record::new(9, 0))), &[("foreign", 1)]);
    assert_faults(&after(|plan| plan[2].rows.push(Record::new(1, 30))), &[("foreign", 1)]);
}

#[test]
fn test_damage_corrupt() {
    assert_faults(&after(|plan| plan[0].rows[0].check = "0123456789abcdef".to_owned()), &[("corrupt", 1)]);
}

#[test]
fn test_damage_disorder() {
    assert_faults(&after(|plan| plan[0].rows.swap(2, 3)), &[("disorder", 1)]);
    let across = after(|plan| {
        let (early, late) = (plan[0].rows.remove(9), plan[1].rows.remove(0));
        plan[0].rows.insert(9, late);
        plan[1].rows.insert(0, early);
    });
    assert_faults(&across, &[("disorder", 1)]);
}

#[test]
fn test_damage_epoch_gaps() {
    let skipped = after(|plan| {
        plan[2].epoch = 4;
        plan[2].dead_epoch = 4;
    });
    assert_faults(&skipped, &[("epoch_gaps", 1), ("commits_without_record", 1)]);
}

#[test]
fn test_damage_position_gaps() {
    assert_faults(&after(|plan| plan[1].positions[0].0 = Some(8)), &[("position_gaps", 1)]);
    assert_faults(&after(|plan| plan[0].positions[1].0 = Some(0)), &[("position_gaps", 1)]);
}

#[test]
fn test_damage_commits_without_record() {
    let verdict = after_files(|lake| fs::remove_file(lake.join(format!("results/acme/syn/{:020}-1.json", 3))).unwrap());
    assert_eq!(verdict.commits_without_record, 1);
    let other = after_files(|lake| {
        let path = lake.join(format!("results/acme/syn/{:020}-1.json", 3));
        let text = fs::read_to_string(&path).unwrap().replace("\"generation\":1", "\"generation\":2");
        fs::remove_file(path).unwrap();
        fs::write(lake.join(format!("results/acme/syn/{:020}-2.json", 3)), text).unwrap();
    });
    assert_eq!(other.commits_without_record, 1, "another owner's record is not the commit's");
}

#[test]
fn test_damage_records_without_commit() {
    let verdict = after(|plan| plan[1].committed = false);
    assert_eq!((verdict.records_without_commit, verdict.epoch_gaps, verdict.missing), (1, 1, 20));
}

#[test]
fn test_damage_records_wrong() {
    let verdict = after_files(|lake| {
        let path = lake.join(format!("results/acme/syn/{:020}-1.json", 2));
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("part-00002", "part-00009")).unwrap();
    });
    assert_faults(&verdict, &[("records_wrong", 1)]);
}

#[test]
fn test_damage_stale_commits() {
    let verdict = after(|plan| plan[1].generation = 2);
    assert_faults(&verdict, &[("stale_commits", 1)]);
}

#[test]
fn test_damage_raw_missing() {
    let verdict = after_files(|lake| fs::remove_file(first_raw(lake)).unwrap());
    assert_faults(&verdict, &[("raw_missing", 1), ("raw_ref_wrong", 20)]);
}

#[test]
fn test_damage_raw_hash_wrong() {
    let verdict = after_files(|lake| {
        let (first, mut bytes) = (first_raw(lake), fs::read(first_raw(lake)).unwrap());
        bytes.truncate(bytes.len() - 1);
        fs::write(first, bytes).unwrap();
    });
    assert_faults(&verdict, &[("raw_hash_wrong", 1), ("raw_ref_wrong", 20)]);
}

#[test]
fn test_damage_raw_ref_wrong() {
    assert_faults(&after(|plan| plan[0].rows[4].raw_shift = 1), &[("raw_ref_wrong", 1)]);
    assert_faults(&after(|plan| plan[0].rows[19].raw_shift = 1), &[("raw_ref_wrong", 1)]);
}

#[test]
fn test_damage_dead_leads() {
    let verdict = after(|plan| {
        let dead = plan[2].rows.pop().unwrap();
        plan[2].dead.push(dead);
        plan[2].dead_epoch = 4;
    });
    assert_eq!(verdict.dead_leads, 2, "the dead table's txn and the letter itself");
}

#[test]
fn test_damage_unreadable() {
    let cut = after_files(|lake| fs::write(lake.join("tables/acme/syn/part-00002.parquet"), b"PAR1").unwrap());
    assert_eq!((cut.unreadable, cut.missing), (1, 20));
    let log = "tables/acme/syn/_delta_log";
    let gap = after_files(|lake| fs::remove_file(lake.join(format!("{log}/{:020}.json", 3))).unwrap());
    assert_eq!((gap.unreadable, gap.missing), (1, 60));
    let empty = after_files(|lake| fs::write(lake.join(format!("{log}/{:020}.json", 4)), b"").unwrap());
    assert_eq!(empty.unreadable, 1, "what a power failure leaves of an entry that was not synced");
}

#[test]
fn test_any_judges_what_the_lake_says_about_itself() {
    let mut plan = plan(3);
    plan[1].rows[0].check = "0000000000000000".to_owned();
    let dir = lake(&plan);
    assert!(judge(dir.path(), "acme", "syn", &Expected::Any).ok(), "contents are not its matter");
    fs::remove_file(first_raw(dir.path())).unwrap();
    assert_eq!(judge(dir.path(), "acme", "syn", &Expected::Any).raw_missing, 1);
    assert!(matches!(expected(1), Expected::Synthetic { .. }));
}
