//! The log's files: append-only segments of JSON lines. Each line begins with its number, which counts over all files of
//! the log, so that what lies in two lanes can be read in one order.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::incarnations::Incarnations;

/// A lane of the log: files with a bound of their own, so that what fills one pushes nothing out of another.
#[derive(Debug, Clone, Copy)]
pub struct Lane {
    /// What its files' names begin with.
    prefix: &'static str,
    /// A segment is closed before it grows beyond this.
    pub segment_bytes_max: u64,
    /// Segments that are kept, the open one included; the oldest go first.
    pub segments_max: usize,
}

/// What failed and what followed from it: at most 32 MiB, some 60,000 records.
pub const FAILURES: Lane = Lane { prefix: "restarts", segment_bytes_max: 8 << 20, segments_max: 4 };

/// Starts and stops that no failure caused: at most 16 MiB. Each start of a node with 10,000 streams writes some 60,000 of
/// them, which is a little more than this holds; they can only push out their like.
pub const LIFECYCLE: Lane = Lane { prefix: "starts", segment_bytes_max: 4 << 20, segments_max: 4 };

/// How a line begins.
const NUMBER_KEY: &str = "{\"number\":";

/// Lines that wait in memory while the disk refuses them (full, read-only): some MiB. Beyond it the oldest are lost.
const PENDING_MAX: usize = 10_000;

/// Every so many lines a segment remembers where one begins, so that a follower's look at the end reads little.
const MARK_EVERY: u64 = 128;

/// Numbers of lines start at a clock in µs; a file's name beyond this is not ours, and sums with it could overflow.
const NUMBER_MAX: u64 = 1 << 62;

/// Damaged segments that are kept for whoever wants to look; older ones are removed.
const ASIDE_MAX: usize = 4;

/// One file.
#[derive(Debug)]
struct Segment {
    path: PathBuf,
    /// Kept open, so that the records stay readable when somebody removes the folder under a running node.
    file: Arc<File>,
    /// The numbers of its first and its newest line.
    first: u64,
    last: u64,
    count: u64,
    bytes: u64,
    /// Number and offset of the lines 0, [`MARK_EVERY`], 2 × [`MARK_EVERY`], …
    marks: Vec<(u64, u64)>,
}

/// A part of a file to read without the lock.
#[derive(Debug)]
pub(super) struct Extent {
    file: Arc<File>,
    offset: u64,
    end: u64,
    /// The number of its first line.
    first: u64,
}

impl Extent {
    /// Its text; what is not UTF-8 is no record of ours and reads as damaged lines.
    pub(super) fn read(&self) -> io::Result<String> {
        let mut bytes = vec![0; usize::try_from(self.end - self.offset).unwrap_or(0)];
        self.file.read_exact_at(&mut bytes, self.offset)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The lines of its text, each with its number.
    pub(super) fn lines<'t>(&self, text: &'t str) -> impl Iterator<Item = (u64, &'t str)> {
        let mut next = self.first;
        text.lines().map(move |line| {
            let number = number_of(line.as_bytes(), next);
            next = number + 1;
            (number, line)
        })
    }
}

/// A record's JSON, an object, as the line `number` with its line break.
pub(super) fn line_of(number: u64, json: &[u8]) -> Vec<u8> {
    let mut line = format!("{NUMBER_KEY}{number},").into_bytes();
    line.extend_from_slice(json.get(1..).unwrap_or_default());
    line.push(b'\n');
    line
}

/// The number of a line, not below `next`: numbers grow whatever a damaged line says. Lines of the time when the place in
/// the file was the number have none.
fn number_of(line: &[u8], next: u64) -> u64 {
    let digits = line.strip_prefix(NUMBER_KEY.as_bytes()).unwrap_or_default();
    let digits = &digits[..digits.iter().position(|byte| *byte == b',').unwrap_or(0)];
    let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    number.filter(|number| (next..NUMBER_MAX).contains(number)).unwrap_or(next)
}

/// All files of a lane.
#[derive(Debug)]
pub(super) struct Segments {
    lane: Lane,
    dir: PathBuf,
    list: VecDeque<Segment>,
    /// Whether the last of `list` may take more lines.
    open: bool,
    pending: VecDeque<(u64, Vec<u8>)>,
}

impl Segments {
    /// Opens the lane in its folder, repairs what a crash or a bad disk left, and tells `counts` what the records say.
    /// Returns also what was repaired, for the logs.
    pub(super) fn open(lane: Lane, dir: &Path, counts: &mut Incarnations) -> io::Result<(Self, Vec<String>)> {
        fs::create_dir_all(dir)?;
        let mut repaired = Vec::new();
        let mut list = VecDeque::new();
        for (first, path) in found(lane, dir)? {
            if let Some(segment) = load(lane, first, path, counts, &mut repaired)? {
                list.push_back(segment);
            }
        }
        let open = !list.is_empty();
        let mut segments = Self { lane, dir: dir.to_owned(), list, open, pending: VecDeque::new() };
        segments.trim();
        Ok((segments, repaired))
    }

    /// The number of the newest line, waiting ones included; 0 if there is none.
    pub(super) fn newest(&self) -> u64 {
        let written = self.list.iter().map(|segment| segment.last).max();
        self.pending.back().map(|(number, _)| *number).max(written).unwrap_or(0)
    }

    /// Adds a line (with its line break), whose number is above those before. An error means that it waits in memory.
    pub(super) fn append(&mut self, number: u64, line: Vec<u8>) -> io::Result<()> {
        if self.pending.is_empty() {
            let written = self.write(number, &line);
            if written.is_err() {
                self.pending.push_back((number, line));
            }
            return written;
        }
        if self.pending.len() == PENDING_MAX {
            self.pending.pop_front();
        }
        self.pending.push_back((number, line));
        self.flush_pending()
    }

    /// Tries again to write what waits in memory.
    pub(super) fn flush_pending(&mut self) -> io::Result<()> {
        while let Some((number, line)) = self.pending.pop_front() {
            if let Err(error) = self.write(number, &line) {
                self.pending.push_front((number, line));
                return Err(error);
            }
        }
        Ok(())
    }

    fn write(&mut self, number: u64, line: &[u8]) -> io::Result<()> {
        let length = line.len() as u64;
        let room = self.lane.segment_bytes_max;
        let fits = self.open && self.list.back().is_some_and(|last| last.bytes + length <= room);
        if !fits {
            self.rotate(number)?;
        }
        let Some(last) = self.list.back_mut() else { return Err(io::Error::other("no segment is open")) };
        if let Err(error) = (&*last.file).write_all(line) {
            // Half a line must not stand before the next one; where it cannot be cut off, the segment is done.
            self.open = last.file.set_len(last.bytes).is_ok();
            return Err(error);
        }
        if last.count % MARK_EVERY == 0 {
            last.marks.push((number, last.bytes));
        }
        last.last = number;
        last.count += 1;
        last.bytes += length;
        Ok(())
    }

    fn rotate(&mut self, first: u64) -> io::Result<()> {
        self.open = false;
        // An empty segment left by a refused write would stand in the way of its own name.
        if self.list.back().is_some_and(|last| last.count == 0)
            && let Some(empty) = self.list.pop_back()
        {
            let _gone_or_not = fs::remove_file(empty.path);
        }
        fs::create_dir_all(&self.dir)?;
        let path = self.dir.join(name_of(self.lane, first));
        let file = OpenOptions::new().read(true).append(true).create_new(true).open(&path)?;
        let file = Arc::new(file);
        self.list.push_back(Segment { path, file, first, last: first, count: 0, bytes: 0, marks: Vec::new() });
        self.open = true;
        Ok(())
    }

    /// Removes the oldest segments beyond the lane's bound.
    pub(super) fn trim(&mut self) {
        while self.list.len() > self.lane.segments_max {
            if let Some(oldest) = self.list.pop_front() {
                let _gone_or_not = fs::remove_file(oldest.path);
            }
        }
    }

    /// The open file, to sync without the lock. Where somebody removed it, the next line opens a new one.
    pub(super) fn needs_sync(&mut self) -> Option<Arc<File>> {
        let last = self.list.back()?;
        if self.open && !last.path.exists() {
            self.open = false;
            return None;
        }
        Some(Arc::clone(&last.file))
    }

    /// Where the lines after number `after` stand, in order; the last lines may still be in memory.
    pub(super) fn after(&self, after: u64) -> (Vec<Extent>, Vec<(u64, Vec<u8>)>) {
        let mut extents = Vec::new();
        for segment in self.list.iter().filter(|segment| segment.count > 0 && segment.last > after) {
            let mark = segment.marks.partition_point(|(number, _)| *number <= after + 1).saturating_sub(1);
            let (first, offset) = segment.marks.get(mark).copied().unwrap_or((segment.first, 0));
            extents.push(Extent { file: Arc::clone(&segment.file), offset, end: segment.bytes, first });
        }
        let pending = self.pending.iter().filter(|(number, _)| *number > after).cloned().collect();
        (extents, pending)
    }
}

fn name_of(lane: Lane, first: u64) -> String {
    format!("{}-{first:020}.jsonl", lane.prefix)
}

/// Segments of the folder by their first number.
fn found(lane: Lane, dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
        let number = name.strip_prefix(lane.prefix).and_then(|rest| rest.strip_prefix('-')?.strip_suffix(".jsonl"));
        let first = number.and_then(|digits| digits.parse().ok());
        if let Some(first) = first.filter(|first| name == name_of(lane, *first) && *first < NUMBER_MAX) {
            all.push((first, path));
        }
    }
    all.sort_unstable();
    Ok(all)
}

#[derive(serde::Deserialize)]
struct Seen<'a> {
    #[serde(borrow)]
    path: std::borrow::Cow<'a, str>,
    incarnation: u64,
}

/// Reads a segment. A torn last line is cut off; other damage moves the file aside and keeps its good lines.
fn load(
    lane: Lane,
    first: u64,
    path: PathBuf,
    counts: &mut Incarnations,
    repaired: &mut Vec<String>,
) -> io::Result<Option<Segment>> {
    let name = name_of(lane, first);
    let length = fs::metadata(&path)?.len();
    // Nothing of ours grows like this, and reading it could take all memory.
    let bytes = if length > 2 * lane.segment_bytes_max { Vec::new() } else { fs::read(&path)? };
    let mut good = Vec::with_capacity(bytes.len());
    let (mut count, mut damaged, mut torn) = (0, bytes.is_empty() && length > 0, false);
    let (mut marks, mut next) = (Vec::new(), first);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let seen = line.strip_suffix(b"\n").and_then(|text| serde_json::from_slice::<Seen<'_>>(text).ok());
        match seen {
            Some(seen) => {
                damaged |= torn;
                counts.saw(&seen.path, seen.incarnation);
                let number = number_of(line, next);
                next = number + 1;
                if count % MARK_EVERY == 0 {
                    marks.push((number, good.len() as u64));
                }
                count += 1;
                good.extend_from_slice(line);
            }
            None => {
                damaged |= torn;
                torn = true;
            }
        }
    }
    if damaged {
        let aside = move_aside(&path)?;
        repaired.push(format!("{name} was damaged: {count} records kept, the file moved to {aside}"));
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        file.write_all(&good)?;
        file.sync_data()?;
    }
    let file = OpenOptions::new().read(true).append(true).open(&path)?;
    if torn && !damaged {
        file.set_len(good.len() as u64)?;
        repaired.push(format!("{name} ended in half a record, which was cut off"));
    }
    if count == 0 {
        fs::remove_file(&path)?;
        return Ok(None);
    }
    Ok(Some(Segment { path, file: Arc::new(file), first, last: next - 1, count, bytes: good.len() as u64, marks }))
}

/// Renames a damaged file, keeping at most [`ASIDE_MAX`] such; returns its new name.
fn move_aside(path: &Path) -> io::Result<String> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut aside: Vec<PathBuf> = fs::read_dir(dir)?.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    aside.retain(|path| path.extension().is_some_and(|extension| extension == "damaged"));
    aside.sort_unstable();
    for old in aside.iter().take((aside.len() + 1).saturating_sub(ASIDE_MAX)) {
        fs::remove_file(old)?;
    }
    let target = path.with_extension("jsonl.damaged");
    fs::rename(path, &target)?;
    Ok(target.file_name().unwrap_or_default().to_string_lossy().into_owned())
}
