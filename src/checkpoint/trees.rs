//! What the cache needs of a database, so that a simulation can put another one under it.

/// A key and its value.
pub(crate) type Entry = (Vec<u8>, Vec<u8>);
/// A key and its new value; `None` removes it.
pub(crate) type Change = (Vec<u8>, Option<Vec<u8>>);

/// Sorted trees of bytes by name. Errors are the database's own words.
pub(crate) trait Trees: Send + Sync {
    /// The value of `key`.
    fn get(&self, tree: &str, key: &[u8]) -> Result<Option<Vec<u8>>, String>;
    /// What begins with `prefix`, in order; entries that cannot be read stand for themselves.
    fn scan(&self, tree: &str, prefix: &[u8]) -> Result<Vec<Result<Entry, String>>, String>;
    /// Takes all changes over, or none.
    fn apply(&self, tree: &str, changes: Vec<Change>) -> Result<(), String>;
    /// Returns when everything so far has reached the operating system.
    fn flush(&self) -> Result<(), String>;
}

impl Trees for sled::Db {
    fn get(&self, tree: &str, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let found = self.open_tree(tree).and_then(|tree| tree.get(key)).map_err(|e| e.to_string())?;
        Ok(found.map(|value| value.to_vec()))
    }

    fn scan(&self, tree: &str, prefix: &[u8]) -> Result<Vec<Result<Entry, String>>, String> {
        let tree = self.open_tree(tree).map_err(|e| e.to_string())?;
        let entry = |item: sled::Result<(sled::IVec, sled::IVec)>| {
            item.map(|(key, value)| (key.to_vec(), value.to_vec())).map_err(|e| e.to_string())
        };
        Ok(tree.scan_prefix(prefix).map(entry).collect())
    }

    fn apply(&self, tree: &str, changes: Vec<Change>) -> Result<(), String> {
        let mut batch = sled::Batch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        self.open_tree(tree).and_then(|tree| tree.apply_batch(batch)).map_err(|e| e.to_string())
    }

    fn flush(&self) -> Result<(), String> {
        sled::Tree::flush(self).map(|_| ()).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
pub(crate) use disk::{Disk, Kept};

#[cfg(test)]
mod disk {
    use std::collections::BTreeMap;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use super::{Change, Entry, Trees};

    /// What is left of a disk after its node died.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Kept {
        /// Everything.
        All,
        /// As many of the writes as this share of 256 of those since the last flush; a kill takes the others along.
        Flushed(u8),
        /// As it was after this share of 256 of all writes: an older copy was put back.
        Older(u8),
        /// Nothing.
        Nothing,
    }

    /// Trees in memory that remember every write, so that a death can take some of them back.
    #[derive(Default)]
    pub(crate) struct Disk {
        state: Mutex<State>,
    }

    #[derive(Default)]
    struct State {
        writes: Vec<(String, Vec<Change>)>,
        flushed: usize,
        values: BTreeMap<(String, Vec<u8>), Vec<u8>>,
    }

    impl State {
        fn write(&mut self, tree: &str, changes: &[Change]) {
            for (key, value) in changes {
                let key = (tree.to_owned(), key.clone());
                match value {
                    Some(value) => self.values.insert(key, value.clone()),
                    None => self.values.remove(&key),
                };
            }
        }
    }

    impl Disk {
        fn lock(&self) -> MutexGuard<'_, State> {
            self.state.lock().unwrap_or_else(PoisonError::into_inner)
        }

        /// The disk after the death of its node.
        pub(crate) fn die(&self, kept: Kept) {
            let mut state = self.lock();
            let (all, flushed) = (state.writes.len(), state.flushed);
            let left = match kept {
                Kept::All => all,
                Kept::Flushed(share) => flushed + (all - flushed) * usize::from(share) / 256,
                Kept::Older(share) => all * usize::from(share) / 256,
                Kept::Nothing => 0,
            };
            let mut writes = std::mem::take(&mut state.writes);
            writes.truncate(left);
            state.values.clear();
            for (tree, changes) in &writes {
                state.write(tree, changes);
            }
            state.writes = writes;
            state.flushed = left;
        }
    }

    impl Trees for Disk {
        fn get(&self, tree: &str, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
            Ok(self.lock().values.get(&(tree.to_owned(), key.to_vec())).cloned())
        }

        fn scan(&self, tree: &str, prefix: &[u8]) -> Result<Vec<Result<Entry, String>>, String> {
            let state = self.lock();
            let from = (tree.to_owned(), prefix.to_vec());
            let found = state.values.range(from..).take_while(|((t, key), _)| t == tree && key.starts_with(prefix));
            Ok(found.map(|((_, key), value)| Ok((key.clone(), value.clone()))).collect())
        }

        fn apply(&self, tree: &str, changes: Vec<Change>) -> Result<(), String> {
            let mut state = self.lock();
            state.write(tree, &changes);
            state.writes.push((tree.to_owned(), changes));
            Ok(())
        }

        fn flush(&self) -> Result<(), String> {
            let mut state = self.lock();
            state.flushed = state.writes.len();
            Ok(())
        }
    }

    #[test]
    fn test_a_death_takes_back_what_was_not_flushed() {
        let disk = Disk::default();
        let put = |value: &[u8]| disk.apply("t", vec![(b"k".to_vec(), Some(value.to_vec()))]);
        put(b"1").unwrap();
        disk.flush().unwrap();
        put(b"2").unwrap();
        disk.die(Kept::Flushed(0));
        assert_eq!(disk.get("t", b"k").unwrap().as_deref(), Some(&b"1"[..]));
        put(b"3").unwrap();
        disk.die(Kept::All);
        assert_eq!(disk.scan("t", b"").unwrap().len(), 1);
        assert_eq!(disk.get("t", b"k").unwrap().as_deref(), Some(&b"3"[..]));
        disk.die(Kept::Nothing);
        assert_eq!(disk.get("t", b"k").unwrap(), None);
    }
}
