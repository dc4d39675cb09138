//! Backtraces of panics, in files beside the records: looking up the names of calls takes so long that no supervisor may
//! wait for it, so a backtrace comes a moment after the record to which it belongs.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file that takes backtraces, one `[path, incarnation, text]` a line.
const FILE: &str = "backtraces.jsonl";

/// The one before.
const OLD: &str = "backtraces.jsonl.old";

/// A longer file becomes the old one: in files and in memory at most twice this, some 1,000 backtraces.
const BYTES_MAX: u64 = 2 << 20;

/// A longer backtrace is cut at its outer end: what failed stands first.
const CHARS_MAX: usize = 8_000;

type Texts = HashMap<(String, u64), Arc<str>>;

/// The newest backtraces, by the path and incarnation of the child that panicked.
#[derive(Debug)]
pub(super) struct Backtraces {
    dir: PathBuf,
    file: Option<(File, u64)>,
    new: Texts,
    old: Texts,
}

impl Backtraces {
    /// Reads what the folder holds. What is damaged is left out: a record without its backtrace still tells its place.
    pub(super) fn open(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), file: None, new: read(&dir.join(FILE)), old: read(&dir.join(OLD)) }
    }

    /// The backtrace of this life of the child at `path`.
    pub(super) fn get(&self, path: &str, incarnation: u64) -> Option<&str> {
        let key = (path.to_owned(), incarnation);
        self.new.get(&key).or_else(|| self.old.get(&key)).map(AsRef::as_ref)
    }

    /// Whether there is none at all.
    pub(super) fn is_empty(&self) -> bool {
        self.new.is_empty() && self.old.is_empty()
    }

    /// Keeps a backtrace. An error means that it is in memory only.
    pub(super) fn add(&mut self, path: &str, incarnation: u64, text: &str) -> io::Result<()> {
        let text: String = text.chars().take(CHARS_MAX).collect();
        // The line break comes first: after a torn line this one still stands alone.
        let mut line = vec![b'\n'];
        serde_json::to_writer(&mut line, &(path, incarnation, &text))?;
        self.new.insert((path.to_owned(), incarnation), text.into());
        let (file, bytes) = match &mut self.file {
            Some(open) => open,
            none => {
                fs::create_dir_all(&self.dir)?;
                let file = OpenOptions::new().append(true).create(true).open(self.dir.join(FILE))?;
                let bytes = file.metadata()?.len();
                none.insert((file, bytes))
            }
        };
        *bytes += line.len() as u64;
        file.write_all(&line)?;
        if *bytes > BYTES_MAX {
            self.file = None;
            self.old = std::mem::take(&mut self.new);
            fs::rename(self.dir.join(FILE), self.dir.join(OLD))?;
        }
        Ok(())
    }
}

fn read(path: &Path) -> Texts {
    // Nothing of ours grows like this, and reading it could take all memory.
    let sound = fs::metadata(path).is_ok_and(|metadata| metadata.len() <= 2 * BYTES_MAX);
    let bytes = if sound { fs::read(path).unwrap_or_default() } else { Vec::new() };
    let lines = bytes.split(|byte| *byte == b'\n');
    let parsed = lines.filter_map(|line| serde_json::from_slice::<(Cow<'_, str>, u64, Cow<'_, str>)>(line).ok());
    parsed.map(|(path, incarnation, text)| ((path.into_owned(), incarnation), text.into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_backtraces_survive_a_torn_line_and_stay_bounded() {
        let dir = tempfile::tempdir().expect("folder");
        let mut all = Backtraces::open(dir.path());
        assert!(all.is_empty());
        all.add("a", 1, "0: here\n1: there").expect("written");
        all.add("a", 2, &"x".repeat(20_000)).expect("written");
        let bytes = fs::read(dir.path().join(FILE)).expect("file");
        fs::write(dir.path().join(FILE), &bytes[..bytes.len() - 9]).expect("torn");
        let mut all = Backtraces::open(dir.path());
        assert_eq!((all.get("a", 1), all.get("a", 2)), (Some("0: here\n1: there"), None));
        all.add("a", 3, &"x".repeat(20_000)).expect("written");
        let mut again = Backtraces::open(dir.path());
        assert_eq!(again.get("a", 3).map(str::len), Some(CHARS_MAX));
        for n in 0..1_000 {
            again.add("b", n, &"x".repeat(CHARS_MAX)).expect("written");
        }
        assert_eq!(again.get("a", 1), None, "the oldest went");
        assert!(again.get("b", 999).is_some());
        let bytes: u64 =
            [FILE, OLD].iter().filter_map(|name| fs::metadata(dir.path().join(name)).ok()).map(|m| m.len()).sum();
        assert!(bytes <= 2 * (BYTES_MAX + 10_000), "{bytes}");
    }
}
