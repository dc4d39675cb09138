//! What SIGHUP finds changed.

use std::collections::{BTreeMap, BTreeSet};

use super::{Digest, Settings};
use crate::names::StreamId;

/// The difference between two configurations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Streams that are new.
    pub added: BTreeSet<StreamId>,
    /// Streams whose own keys, adapter, secrets or supervision are others; another `state` alone does not count.
    pub changed: BTreeSet<StreamId>,
    /// Streams that are gone.
    pub removed: BTreeSet<StreamId>,
    /// Adapters that are new, others or gone: streams that messages started on them are to be read again.
    pub adapters: BTreeSet<String>,
    /// Sections that only count at the next start.
    pub at_next_start: Vec<&'static str>,
}

impl Changes {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Compares two configurations by what they mean: comments, places and the order of keys do not count, the secrets that
/// references lead to do.
#[must_use]
pub fn diff(old: &Settings, new: &Settings) -> Changes {
    let streams = |s: &Settings| s.streams.iter().map(|(id, stream)| (id.clone(), stream.digest)).collect();
    let adapters = |s: &Settings| s.adapters.iter().map(|(name, adapter)| (name.clone(), adapter.digest)).collect();
    let (added, changed, removed) = compare(&streams(old), &streams(new));
    let (new_adapters, other_adapters, gone_adapters) = compare(&adapters(old), &adapters(new));
    let mut at_next_start = Vec::new();
    if old.node != new.node {
        at_next_start.push("node");
    }
    if old.lake != new.lake {
        at_next_start.push("lake");
    }
    if old.api != new.api {
        at_next_start.push("api");
    }
    let adapters = new_adapters.into_iter().chain(other_adapters).chain(gone_adapters).collect();
    Changes { added, changed, removed, adapters, at_next_start }
}

type Sets<K> = (BTreeSet<K>, BTreeSet<K>, BTreeSet<K>);

fn compare<K: Ord + Clone>(old: &BTreeMap<K, Digest>, new: &BTreeMap<K, Digest>) -> Sets<K> {
    let added = new.keys().filter(|key| !old.contains_key(key)).cloned().collect();
    let removed = old.keys().filter(|key| !new.contains_key(key)).cloned().collect();
    let changed = new.iter().filter(|(key, digest)| old.get(key).is_some_and(|was| was != *digest));
    (added, changed.map(|(key, _)| key.clone()).collect(), removed)
}

#[cfg(test)]
mod tests {
    use adapters::contract::config::MapSecrets;

    use super::super::tests::{kinds, load_text, secrets};
    use super::*;

    const TEXT: &str = "[lake]\nurl = \"file:/lake\"\n[node]\nstate_dir = \"/state\"\n[adapter.A]\nkind = \"fake\"\n\
                        base_url = \"env:KEY\"\n[adapter.B]\nkind = \"fake\"\n[stream.\"t/a\"]\nadapter = \"A\"\n\
                        [stream.\"t/b\"]\nadapter = \"B\"\n";

    fn settings(text: &str) -> Settings {
        load_text(text).expect("valid").0
    }

    fn ids<const N: usize>(names: [&str; N]) -> BTreeSet<StreamId> {
        names.iter().map(|name| name.parse().expect("valid")).collect()
    }

    #[test]
    fn test_places_comments_and_order_are_no_change() {
        let moved = format!("# new\n\n{}", TEXT.replace("[lake]", "[ lake ] # the lake"));
        let moved = moved.replace("kind = \"fake\"\nbase_url = \"env:KEY\"", "base_url = \"env:KEY\"\nkind = \"fake\"");
        assert!(diff(&settings(TEXT), &settings(&moved)).is_empty());
    }

    #[test]
    fn test_each_change_is_found_where_it_is() {
        let old = settings(TEXT);
        let changes = diff(&old, &settings(&TEXT.replace("base_url = \"env:KEY\"\n", "")));
        assert_eq!((changes.changed, changes.adapters), (ids(["t/a"]), BTreeSet::from(["A".to_owned()])));
        let changes = diff(&old, &settings(&TEXT.replace("t/b", "t/c")));
        assert_eq!((changes.added, changes.removed), (ids(["t/c"]), ids(["t/b"])));
        let changes = diff(&old, &settings(&format!("{TEXT}partitions = [ {{ name = \"p\" }} ]\n")));
        assert_eq!(changes.changed, ids(["t/b"]));
        assert!(diff(&old, &settings(&format!("{TEXT}state = \"paused\"\n"))).is_empty());
        let changes = diff(&old, &settings(&format!("{TEXT}[supervision]\nmax_restarts = 9\n")));
        assert_eq!(changes.changed, ids(["t/a", "t/b"]));
        let changes = diff(&old, &settings(&TEXT.replace("[node]", "[node]\ndrain = \"1s\"")));
        assert_eq!(changes, Changes { at_next_start: vec!["node"], ..Changes::default() });
    }

    #[test]
    fn test_a_rotated_secret_is_a_change() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.toml");
        std::fs::write(&path, TEXT).expect("written");
        let load = |secrets: &MapSecrets| super::super::load(&path, &kinds(), secrets).expect("valid").0;
        let mut rotated = secrets();
        rotated.env.insert("KEY".to_owned(), "another".to_owned());
        assert_eq!(diff(&load(&secrets()), &load(&rotated)).changed, ids(["t/a"]));
    }
}
