//! Crashes, rotation, damage and refusals of the restart log.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};

use proptest::prelude::*;

use super::super::{FAILURES, LIFECYCLE, Lane, Reason, ResumedFrom};
use super::*;
use crate::names::StreamId;

#[derive(Debug)]
struct Ticking(AtomicI64);

impl Clock for Ticking {
    fn now_us(&self) -> i64 {
        self.0.fetch_add(1_000, Ordering::Relaxed)
    }
}

fn clock(start: i64) -> Arc<dyn Clock> {
    Arc::new(Ticking(AtomicI64::new(start)))
}

fn open(dir: &Path) -> RestartLog {
    RestartLog::open(dir, clock(1_000_000)).expect("opens")
}

fn record(path: &str, incarnation: u64, event: &str) -> RestartRecord {
    RestartRecord { path: path.to_owned(), incarnation, event: event.to_owned(), ..Default::default() }
}

fn failed(path: &str, incident: &str, class: &str) -> RestartRecord {
    let reason = Reason { class: class.to_owned(), code: "c".to_owned(), message: "went wrong".to_owned() };
    RestartRecord { incident: Some(incident.to_owned()), reason: Some(reason), ..record(path, 1, "failed") }
}

fn all(log: &RestartLog) -> Vec<RestartRecord> {
    log.query(&Filter { limit: 1_000, ..Filter::default() }).expect("reads").0
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<_> =
        fs::read_dir(dir.join(FOLDER)).expect("folder").map(|entry| entry.expect("entry").path()).collect();
    all.sort_unstable();
    all
}

/// The only segment.
fn segment(dir: &Path) -> PathBuf {
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "jsonl");
    files(dir).into_iter().find(is_segment).expect("one")
}

#[test]
fn test_restart_log_has_every_key_of_the_interface() {
    let dir = tempfile::tempdir().expect("folder");
    let log = open(dir.path());
    let mut full = failed("lakefeed/tenants/acme/berlin/workers/p", "i1", "bug");
    full.resumed_from = Some(ResumedFrom { epoch: 3, positions: [("p".to_owned(), "7".to_owned())].into() });
    log.append(full);
    let text = fs::read_to_string(segment(dir.path())).expect("with the system when append returned");
    let value: serde_json::Value = serde_json::from_str(&text).expect("one line");
    let mut keys: Vec<_> = value.as_object().expect("object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    let mut expected = vec!["ts", "incident", "path", "incarnation", "event", "reason", "strategy", "attempt"];
    expected.extend(["delay_ms", "resumed_from", "recovered_in_ms", "remedy"]);
    // Beyond the interface: the line's number, and what the incident's story needs.
    expected.extend(["number", "because_of", "backtrace", "window", "flap_score", "stop"]);
    expected.sort_unstable();
    assert_eq!(keys, expected);
    assert!(value["remedy"].as_str().is_some_and(|text| text.contains("report it")));
    assert_eq!(value["ts"], "1970-01-01T00:00:01.001000Z");
}

#[test]
fn test_restart_log_survives_a_cut_at_every_byte_of_its_last_record() {
    let dir = tempfile::tempdir().expect("folder");
    {
        let log = open(dir.path());
        for n in 1..=3 {
            log.append(record("a", n, "restarted"));
        }
    }
    let file = segment(dir.path());
    let whole = fs::read(&file).expect("read");
    let last = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').expect("lines") + 1;
    for cut in last..whole.len() {
        fs::write(&file, &whole[..cut]).expect("cut");
        let log = open(dir.path());
        assert_eq!(all(&log).len(), 2, "cut at {cut}");
        let next = log.next_incarnation("a");
        assert_eq!(next, 4 + (cut - last) as u64, "never the same twice");
        log.append(record("a", next, "restarted"));
        assert_eq!(all(&log).len(), 3, "cut at {cut}");
        drop(log);
        assert_eq!(fs::read(&file).expect("read").iter().filter(|byte| **byte == b'\n').count(), 3);
    }
}

#[test]
fn test_restart_log_keeps_the_good_records_of_a_damaged_segment() {
    let dir = tempfile::tempdir().expect("folder");
    {
        let log = open(dir.path());
        (1..=5).for_each(|n| log.append(record("a", n, "restarted")));
    }
    let file = segment(dir.path());
    let mut bytes = fs::read(&file).expect("read");
    let second = bytes.iter().position(|byte| *byte == b'\n').expect("lines") + 3;
    bytes[second] = 0xff;
    fs::write(&file, &bytes).expect("damaged");
    let log = open(dir.path());
    assert_eq!(all(&log).iter().map(|record| record.incarnation).collect::<Vec<_>>(), [1, 3, 4, 5]);
    assert_eq!(log.next_incarnation("a"), 6);
    assert!(files(dir.path()).iter().any(|path| path.to_string_lossy().ends_with(".damaged")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn test_restart_log_opens_whatever_the_folder_holds(
        junk in proptest::collection::vec(any::<u8>(), 0..400),
        at in 0_usize..600,
        counts in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let dir = tempfile::tempdir().expect("folder");
        {
            let log = open(dir.path());
            (1..=4).for_each(|n| log.append(record("a", n, "restarted")));
        }
        let file = segment(dir.path());
        let mut bytes = fs::read(&file).expect("read");
        let at = at.min(bytes.len());
        bytes.splice(at..(at + junk.len()).min(bytes.len()), junk);
        fs::write(&file, &bytes).expect("damaged");
        for name in ["incarnations.json", "incarnations.journal", "incarnations.journal.old"] {
            fs::write(dir.path().join(FOLDER).join(name), &counts).expect("damaged");
        }
        fs::write(dir.path().join(FOLDER).join("restarts-99999999999999999999.jsonl"), b"{}").expect("stray");
        let log = open(dir.path());
        let before = all(&log).len();
        log.append(record("a", 9, "restarted"));
        prop_assert_eq!(all(&log).len(), before + 1);
        drop(log);
        prop_assert_eq!(all(&open(dir.path())).len(), before + 1);
    }
}

/// Bytes and number of a lane's files.
fn lane(dir: &Path, prefix: &str) -> Vec<u64> {
    let mine = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
    files(dir).iter().filter(|path| mine(path)).map(|path| fs::metadata(path).expect("file").len()).collect()
}

fn assert_bounded(dir: &Path, prefix: &str, bound: Lane) {
    let segments = lane(dir, prefix);
    assert_eq!(segments.len(), bound.segments_max, "{prefix}");
    assert!(segments.iter().all(|bytes| *bytes <= bound.segment_bytes_max), "{prefix}: {segments:?}");
}

#[test]
fn test_restart_log_is_bounded_and_incarnations_outlive_rotation() {
    let dir = tempfile::tempdir().expect("folder");
    let mut long = failed("old", "i", "bug");
    long.incarnation = 41;
    let log = open(dir.path());
    log.append(long.clone());
    long.path = "new".to_owned();
    long.reason.as_mut().expect("reason").message = "x".repeat(1_900);
    let needed = (FAILURES.segments_max as u64 + 2) * FAILURES.segment_bytes_max / 1_900;
    for _ in 0..needed {
        log.append(long.clone());
    }
    assert_bounded(dir.path(), "restarts-", FAILURES);
    assert_eq!(all(&log)[0].path, "new", "the oldest went first");
    drop(log);
    let again = open(dir.path());
    assert_eq!(again.next_incarnation("old"), 42);
    assert_eq!(again.next_incarnation("old"), 43);
}

#[test]
fn test_restart_log_starts_push_out_only_starts() {
    let dir = tempfile::tempdir().expect("folder");
    let log = open(dir.path());
    log.append(failed("lakefeed/tenants/acme/s/workers/a", "i1", "auth"));
    let first = "x".repeat(100);
    let needed = (LIFECYCLE.segments_max as u64 + 1) * LIFECYCLE.segment_bytes_max / 300;
    for n in 0..needed {
        log.append(record(&format!("{first}{n}"), 1, if n % 2 == 0 { "started" } else { "stopped" }));
    }
    log.append(failed("lakefeed/tenants/acme/s/workers/b", "i2", "auth"));
    assert_bounded(dir.path(), "starts-", LIFECYCLE);
    let page = all(&log);
    assert_eq!(page[0].incident.as_deref(), Some("i1"), "in the order in which they came");
    assert!(page[1].path.starts_with(&first) && page[1].path != format!("{first}0"), "the oldest starts went");
    let class = Filter { class: Some("auth".to_owned()), ..Filter::default() };
    assert_eq!(log.query(&class).expect("reads").0.len(), 2);
    drop(log);
    let again = open(dir.path());
    again.append(failed("lakefeed/tenants/acme/s/workers/b", "i3", "auth"));
    let found = again.query(&class).expect("reads").0;
    let incidents: Vec<_> = found.iter().filter_map(|record| record.incident.as_deref()).collect();
    assert_eq!(incidents, ["i1", "i2", "i3"]);
}

#[test]
fn test_restart_log_pages_through_both_lanes_in_one_order() {
    let dir = tempfile::tempdir().expect("folder");
    let mut log = open(dir.path());
    for n in 0..500 {
        match n % 3 {
            0 => log.append(failed(&n.to_string(), "i", "bug")),
            _ => log.append(record(&n.to_string(), 1, "started")),
        }
        if n == 250 {
            drop(log);
            log = open(dir.path());
        }
    }
    for limit in [1, 7, 128, 1_000] {
        let (mut after, mut paths) = (0, Vec::new());
        loop {
            let (page, next) = log.query(&Filter { after, limit, ..Filter::default() }).expect("reads");
            if page.is_empty() {
                break;
            }
            paths.extend(page.into_iter().map(|record| record.path));
            after = next;
        }
        assert_eq!(paths, (0..500).map(|n| n.to_string()).collect::<Vec<_>>(), "pages of {limit}");
    }
}

#[test]
fn test_restart_log_reads_lines_without_numbers() {
    let dir = tempfile::tempdir().expect("folder");
    let folder = dir.path().join(FOLDER);
    fs::create_dir_all(&folder).expect("folder");
    let lines: String =
        (1..=3).map(|n| serde_json::json!(failed("a", &format!("i{n}"), "bug")).to_string() + "\n").collect();
    fs::write(folder.join("restarts-00000000000000000007.jsonl"), lines).expect("written");
    let log = open(dir.path());
    let (found, next) = log.query(&Filter { after: 8, ..Filter::default() }).expect("reads");
    assert_eq!((found[0].incident.as_deref(), found.len(), next), (Some("i3"), 1, 9));
    log.append(failed("a", "i4", "bug"));
    assert_eq!(log.query(&Filter { after: 9, ..Filter::default() }).expect("reads").1, 10);
}

#[test]
fn test_restart_log_tells_a_backtrace_with_its_failure() {
    let dir = tempfile::tempdir().expect("folder");
    let log = open(dir.path());
    log.append(failed("a", "i1", "bug"));
    log.append(failed("b", "i2", "bug"));
    log.trace("a", 1, || Some("0: here".to_owned()));
    log.trace("b", 1, || None);
    // Its threads end with it, and have done their work then.
    drop(log);
    let told: Vec<_> = all(&open(dir.path())).into_iter().map(|record| record.backtrace).collect();
    assert_eq!(told, [Some("0: here".to_owned()), None]);
}

#[test]
fn test_restart_log_finds_by_stream_class_incident_and_time_in_pages() {
    let dir = tempfile::tempdir().expect("folder");
    let log = open(dir.path());
    for n in 0..300 {
        let stream = if n % 2 == 0 { "lakefeed/tenants/acme/berlin" } else { "lakefeed/tenants/acme/berlin-2" };
        let class = if n % 3 == 0 { "auth" } else { "bug" };
        log.append(failed(&format!("{stream}/workers/{n}"), &format!("i{}", n / 10), class));
    }
    let found = |filter: Filter| log.query(&filter).expect("reads").0;
    let stream = Some(StreamId::new("acme", "berlin").expect("names"));
    let base = Filter { limit: 1_000, ..Filter::default() };
    assert_eq!(found(Filter { stream: stream.clone(), ..base.clone() }).len(), 150);
    assert_eq!(found(Filter { stream, class: Some("auth".to_owned()), ..base.clone() }).len(), 50);
    assert_eq!(found(Filter { incident: Some("i2".to_owned()), ..base.clone() }).len(), 10);
    let since = crate::times::timestamp_us(&all(&log)[290].ts);
    assert_eq!(found(Filter { since_us: since, ..base.clone() }).len(), 10);
    assert_eq!(found(Filter { until_us: since, ..base.clone() }).len(), 291);
    let events = |events: &[&str]| Filter { events: events.iter().map(|e| (*e).to_owned()).collect(), ..base.clone() };
    assert_eq!(found(events(&["failed", "parked"])).len(), 300);
    assert_eq!(found(events(&["started"])).len(), 0);
    let (mut after, mut paged) = (0, Vec::new());
    loop {
        let (page, next) = log.query(&Filter { after, limit: 7, ..Filter::default() }).expect("reads");
        if page.is_empty() {
            assert_eq!(next, after);
            break;
        }
        paged.extend(page);
        after = next;
    }
    assert_eq!(paged, all(&log));
    assert_eq!(found(Filter { after: after + 1_000, ..base }).len(), 300, "a cursor of another log starts anew");
}

#[test]
fn test_restart_log_waits_in_memory_while_the_disk_refuses() {
    let dir = tempfile::tempdir().expect("folder");
    let folder = dir.path().join(FOLDER);
    let (mut counts, _) = Incarnations::open(&folder).expect("opens");
    let (mut segments, _) = Segments::open(FAILURES, &folder, &mut counts).expect("opens");
    let line = |n: u64| line_of(n, &serde_json::to_vec(&record("a", n, "started")).expect("json"));
    assert!(segments.append(1, line(1)).is_ok());
    fs::remove_dir_all(&folder).expect("somebody removes it");
    fs::write(&folder, b"and puts a file there").expect("written");
    assert!(segments.needs_sync().is_none(), "the loss is noticed");
    for n in 2..=4 {
        assert!(segments.append(n, line(n)).is_err());
    }
    let (extents, pending) = segments.after(0);
    assert_eq!((extents.len(), pending.len()), (1, 3), "what is lost on disk and what waits can still be read");
    fs::remove_file(&folder).expect("room again");
    assert!(segments.append(5, line(5)).is_ok());
    assert_eq!(segments.after(0).1.len(), 0);
    let (mut counts, _) = Incarnations::open(&folder).expect("opens");
    let (again, _) = Segments::open(FAILURES, &folder, &mut counts).expect("opens");
    assert_eq!((counts.next("a").0, again.newest()), (6, 5));
}

#[tokio::test]
async fn test_restart_log_long_poll_wakes_up_for_what_it_waits_for() {
    let dir = tempfile::tempdir().expect("folder");
    let log = Arc::new(open(dir.path()));
    let waiting = tokio::spawn({
        let log = Arc::clone(&log);
        let filter = Filter { class: Some("auth".to_owned()), ..Filter::default() };
        async move { log.page(filter, Duration::from_secs(60)).await }
    });
    for n in 0..10 {
        log.append(failed(&format!("p{n}"), "i", if n == 9 { "auth" } else { "bug" }));
        tokio::task::yield_now().await;
    }
    let (found, _) = waiting.await.expect("no panic").expect("reads");
    assert_eq!(found[0].path, "p9");
    let story = log.incident("i").await.expect("reads").expect("known");
    assert_eq!((story.records.len(), story.outcome.as_str()), (10, "open"));
    assert!(log.incident("j").await.expect("reads").is_none());
}

#[test]
fn test_restart_log_times_rise_with_the_numbers_whoever_writes() {
    let dir = tempfile::tempdir().expect("folder");
    let log = open(dir.path());
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let log = &log;
            scope.spawn(move || (0..200).for_each(|n| log.append(record(&format!("p{writer}"), n, "started"))));
        }
    });
    let times: Vec<_> = all(&log).into_iter().map(|record| record.ts).collect();
    assert!(times.len() == 800 && times.is_sorted(), "{times:?}");
}

#[test]
fn test_restart_log_takes_a_boot_of_50_000_children() {
    let dir = tempfile::tempdir().expect("folder");
    let log = open(dir.path());
    for n in 0..50_000 {
        let path = format!("lakefeed/tenants/acme/s{n}/workers/main");
        log.append(record(&path, log.next_incarnation(&path), "started"));
    }
    assert_eq!(log.query(&Filter { limit: 10, ..Filter::default() }).expect("reads").0.len(), 10);
}
