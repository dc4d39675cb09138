//! How many times each child has been started, also when the records of it have been rotated away.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Paths that are remembered. Far above the children of a node (five for each of 10,000 streams); a path costs about
/// 120 bytes. Beyond it the ones that were started longest ago are forgotten and count from 1 again.
const PATHS_MAX: usize = 500_000;

/// Forgotten at once, so that the search for the oldest is not done at every start.
const FORGET: usize = PATHS_MAX / 10;

/// The file's name in the log's folder.
const FILE: &str = "incarnations.json";

#[derive(Debug, Clone, Copy)]
struct Count {
    incarnation: u64,
    touched: u64,
}

/// The highest incarnation of each path.
#[derive(Debug, Default)]
pub(super) struct Incarnations {
    counts: HashMap<Box<str>, Count>,
    clock: u64,
}

impl Incarnations {
    /// The next incarnation of `path`; never the same twice.
    pub(super) fn next(&mut self, path: &str) -> u64 {
        let next = self.counts.get(path).map_or(0, |count| count.incarnation) + 1;
        self.saw(path, next);
        next
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

    /// Writes all counts beside the segments, whole or not at all.
    pub(super) fn save(&self, dir: &Path) -> io::Result<()> {
        let mut pairs: Vec<_> = self.counts.iter().collect();
        pairs.sort_unstable_by_key(|(_, count)| count.touched);
        let object: serde_json::Map<String, Value> =
            pairs.into_iter().map(|(path, count)| (path.to_string(), Value::from(count.incarnation))).collect();
        let temporary = dir.join(format!("{FILE}.new"));
        let mut file = fs::File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(&object)?)?;
        file.sync_data()?;
        fs::rename(&temporary, dir.join(FILE))
    }

    /// Reads what [`Self::save`] wrote. A file that cannot be read as such is moved aside, and its new path returned.
    pub(super) fn load(&mut self, dir: &Path) -> io::Result<Option<PathBuf>> {
        let path = dir.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match serde_json::from_slice::<HashMap<String, u64>>(&bytes) {
            Ok(counts) => {
                counts.iter().for_each(|(path, incarnation)| self.saw(path, *incarnation));
                Ok(None)
            }
            Err(_) => {
                let aside = dir.join(format!("{FILE}.damaged"));
                fs::rename(&path, &aside)?;
                Ok(Some(aside))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_incarnations_grow_and_survive_saving() {
        let dir = tempfile::tempdir().expect("folder");
        let mut counts = Incarnations::default();
        assert_eq!((counts.next("a"), counts.next("a"), counts.next("b")), (1, 2, 1));
        counts.saw("a", 9);
        counts.saw("a", 3);
        counts.save(dir.path()).expect("saved");
        let mut again = Incarnations::default();
        assert_eq!(again.load(dir.path()).expect("read"), None);
        assert_eq!((again.next("a"), again.next("b"), again.next("c")), (10, 2, 1));
    }

    #[test]
    fn test_incarnations_damaged_file_is_moved_aside() {
        let dir = tempfile::tempdir().expect("folder");
        fs::write(dir.path().join(FILE), b"{\"a\": 4").expect("written");
        let mut counts = Incarnations::default();
        assert!(counts.load(dir.path()).expect("never fatal").is_some_and(|aside| aside.exists()));
        assert_eq!(counts.next("a"), 1);
    }

    #[test]
    fn test_incarnations_are_bounded_and_forget_the_oldest() {
        let mut counts = Incarnations::default();
        for n in 0..=PATHS_MAX {
            counts.next(&n.to_string());
        }
        assert!(counts.counts.len() <= PATHS_MAX);
        assert_eq!(counts.next("0"), 1);
        assert_eq!(counts.next(&PATHS_MAX.to_string()), 2);
    }
}
