//! How many times each child has been started, also when the records of it have been rotated away.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Paths that are remembered. Far above the children of a node (five for each of 10,000 streams); a path costs about
/// 120 bytes. Beyond it the ones that were started longest ago are forgotten and count from 1 again.
const PATHS_MAX: usize = 500_000;

/// Forgotten at once, so that the search for the oldest is not done at every start.
const FORGET: usize = PATHS_MAX / 10;

/// The file of all counts, in the log's folder.
const FILE: &str = "incarnations.json";

/// The file of what was counted since, one `[path, incarnation]` a line.
const JOURNAL: &str = "incarnations.journal";

/// The journal while it is being folded into the file of all counts.
const JOURNAL_OLD: &str = "incarnations.journal.old";

/// A longer journal is folded into the file of all counts: some 100,000 starts.
const JOURNAL_BYTES_MAX: u64 = 8 << 20;

#[derive(Debug, Clone, Copy)]
struct Count {
    incarnation: u64,
    touched: u64,
}

/// The highest incarnation of each path. A number is with the operating system before it is handed out, so a child
/// that commits under it can never share it with one of the process's next life.
#[derive(Debug)]
pub(super) struct Incarnations {
    dir: PathBuf,
    counts: HashMap<Box<str>, Count>,
    clock: u64,
    journal: Option<(File, u64)>,
}

impl Incarnations {
    /// Reads what is known in the folder `dir`. A damaged file is moved aside, and its new path returned.
    pub(super) fn open(dir: &Path) -> io::Result<(Self, Option<PathBuf>)> {
        let mut all = Self { dir: dir.to_owned(), counts: HashMap::new(), clock: 0, journal: None };
        let aside = all.load()?;
        for journal in [JOURNAL_OLD, JOURNAL] {
            let journal = read(&dir.join(journal))?.unwrap_or_default();
            // A torn or damaged line is one number less; the segments know most of them too.
            for line in journal.split(|byte| *byte == b'\n') {
                if let Ok((path, incarnation)) = serde_json::from_slice::<(Cow<'_, str>, u64)>(line) {
                    all.saw(&path, incarnation);
                }
            }
        }
        Ok((all, aside))
    }

    /// The next incarnation of `path`; never the same twice. An error means that it could not be written down.
    pub(super) fn next(&mut self, path: &str) -> (u64, io::Result<()>) {
        let next = self.counts.get(path).map_or(0, |count| count.incarnation) + 1;
        self.saw(path, next);
        (next, self.write_down(path, next))
    }

    /// As [`Self::saw`], and writes down what was not known.
    pub(super) fn note(&mut self, path: &str, incarnation: u64) -> io::Result<()> {
        let known = self.counts.get(path).is_some_and(|count| count.incarnation >= incarnation);
        self.saw(path, incarnation);
        if known { Ok(()) } else { self.write_down(path, incarnation) }
    }

    fn write_down(&mut self, path: &str, incarnation: u64) -> io::Result<()> {
        let (file, bytes) = match &mut self.journal {
            Some(journal) => journal,
            none => {
                fs::create_dir_all(&self.dir)?;
                let file = OpenOptions::new().append(true).create(true).open(self.dir.join(JOURNAL))?;
                let bytes = file.metadata()?.len();
                none.insert((file, bytes))
            }
        };
        // The line break comes first: after a torn line this one still stands alone.
        let mut line = vec![b'\n'];
        serde_json::to_writer(&mut line, &(path, incarnation))?;
        file.write_all(&line)?;
        *bytes += line.len() as u64;
        Ok(())
    }

    /// Takes note that `path` has come to `incarnation`.
    pub(super) fn saw(&mut self, path: &str, incarnation: u64) {
        self.clock += 1;
        let touched = self.clock;
        if let Some(count) = self.counts.get_mut(path) {
            *count = Count { incarnation: count.incarnation.max(incarnation), touched };
            return;
        }
        if self.counts.len() >= PATHS_MAX {
            self.forget_oldest();
        }
        self.counts.insert(path.into(), Count { incarnation, touched });
    }

    fn forget_oldest(&mut self) {
        let mut ages: Vec<u64> = self.counts.values().map(|count| count.touched).collect();
        let (_, limit, _) = ages.select_nth_unstable(FORGET);
        let limit = *limit;
        self.counts.retain(|_, count| count.touched > limit);
    }

    /// Where the journal has grown long: sets it aside and hands out what the file of all counts shall hold. Short, so
    /// that it can be done under the lock; the writing is [`Fold::finish`].
    pub(super) fn begin_fold(&mut self) -> Option<Fold> {
        self.journal.as_ref().filter(|(_, bytes)| *bytes > JOURNAL_BYTES_MAX)?;
        self.fold()
    }

    fn fold(&mut self) -> Option<Fold> {
        let old = self.dir.join(JOURNAL_OLD);
        // One that is there is from a fold that failed; it goes once this one succeeds.
        if !old.exists() {
            fs::rename(self.dir.join(JOURNAL), &old).ok()?;
            self.journal = None;
        }
        let mut pairs: Vec<_> = self.counts.iter().map(|(path, count)| (path.clone(), *count)).collect();
        pairs.sort_unstable_by_key(|(_, count)| count.touched);
        Some(Fold { dir: self.dir.clone(), pairs })
    }

    /// Somebody may have removed the folder under a running node: the next number opens a new journal.
    pub(super) fn reopen_if_lost(&mut self) {
        if !self.dir.join(JOURNAL).exists() {
            self.journal = None;
        }
    }

    fn load(&mut self) -> io::Result<Option<PathBuf>> {
        let path = self.dir.join(FILE);
        let Some(bytes) = read(&path)? else { return Ok(None) };
        if let Ok(counts) = serde_json::from_slice::<HashMap<String, u64>>(&bytes) {
            counts.iter().for_each(|(path, incarnation)| self.saw(path, *incarnation));
            return Ok(None);
        }
        let aside = self.dir.join(format!("{FILE}.damaged"));
        fs::rename(&path, &aside)?;
        Ok(Some(aside))
    }
}

/// Counts on their way to the disk.
#[derive(Debug)]
pub(super) struct Fold {
    dir: PathBuf,
    pairs: Vec<(Box<str>, Count)>,
}

impl Fold {
    /// Writes the file of all counts, whole or not at all, and removes the old journal.
    pub(super) fn finish(self) -> io::Result<()> {
        let object: serde_json::Map<String, Value> =
            self.pairs.into_iter().map(|(path, count)| (path.into(), Value::from(count.incarnation))).collect();
        let temporary = self.dir.join(format!("{FILE}.new"));
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(&object)?)?;
        file.sync_data()?;
        fs::rename(&temporary, self.dir.join(FILE))?;
        fs::remove_file(self.dir.join(JOURNAL_OLD))
    }
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path) -> Incarnations {
        Incarnations::open(dir).expect("never fatal").0
    }

    fn next(counts: &mut Incarnations, path: &str) -> u64 {
        let (next, written) = counts.next(path);
        written.expect("written");
        next
    }

    #[test]
    fn test_incarnations_are_down_before_they_are_handed_out() {
        let dir = tempfile::tempdir().expect("folder");
        let mut counts = open(dir.path());
        assert_eq!((next(&mut counts, "a"), next(&mut counts, "a"), next(&mut counts, "b")), (1, 2, 1));
        // No record was appended and nothing closed: as after SIGKILL.
        std::mem::forget(counts);
        let mut again = open(dir.path());
        again.saw("a", 9);
        again.saw("a", 3);
        assert_eq!((next(&mut again, "a"), next(&mut again, "b")), (10, 2));
        again.note("c", 5).expect("written");
        let fold = again.fold().expect("a journal");
        assert_eq!(next(&mut again, "b"), 3, "goes on meanwhile");
        let mut killed_meanwhile = open(dir.path());
        assert_eq!((next(&mut killed_meanwhile, "a"), next(&mut killed_meanwhile, "c")), (11, 6));
        fold.finish().expect("written");
        assert!(!dir.path().join(JOURNAL_OLD).exists());
        let mut last = open(dir.path());
        assert_eq!((next(&mut last, "a"), next(&mut last, "b"), next(&mut last, "c")), (12, 4, 7));
    }

    #[test]
    fn test_incarnations_survive_a_journal_cut_anywhere() {
        let dir = tempfile::tempdir().expect("folder");
        let mut counts = open(dir.path());
        assert_eq!([1, 2, 3].map(|_| next(&mut counts, "a")), [1, 2, 3]);
        let journal = dir.path().join(JOURNAL);
        let whole = fs::read(&journal).expect("read");
        for cut in whole.len() - 7..whole.len() {
            fs::write(&journal, &whole[..cut]).expect("cut");
            assert_eq!(next(&mut open(dir.path()), "a"), 3);
            assert_eq!(next(&mut open(dir.path()), "a"), 4);
        }
    }

    #[test]
    fn test_incarnations_damaged_file_is_moved_aside() {
        let dir = tempfile::tempdir().expect("folder");
        fs::write(dir.path().join(FILE), b"{\"a\": 4").expect("written");
        let (mut counts, aside) = Incarnations::open(dir.path()).expect("never fatal");
        assert!(aside.is_some_and(|aside| aside.exists()));
        assert_eq!(next(&mut counts, "a"), 1);
    }

    #[test]
    fn test_incarnations_are_bounded_and_forget_the_oldest() {
        let dir = tempfile::tempdir().expect("folder");
        let mut counts = open(dir.path());
        for n in 0..=PATHS_MAX {
            counts.saw(&n.to_string(), 1);
        }
        assert!(counts.counts.len() <= PATHS_MAX);
        assert_eq!(next(&mut counts, "0"), 1);
        assert_eq!(next(&mut counts, &PATHS_MAX.to_string()), 2);
    }
}
