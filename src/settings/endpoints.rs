//! Endpoints from messages.

use url::Url;

/// Whether `url` is covered by an entry of `list`: scheme, host and port equal, the entry's path a prefix by whole
/// segments, no user info. Stands here until `adapters::http` has it.
pub(super) fn allows(list: &[String], url: &str) -> bool {
    let parse = |text: &str| {
        let url = Url::parse(text).ok()?;
        let sound = ["http", "https"].contains(&url.scheme()) && url.username().is_empty() && url.password().is_none();
        (sound && !url.path().to_lowercase().contains("%2f")).then_some(url)
    };
    let Some(asked) = parse(url) else { return false };
    list.iter().filter_map(|entry| parse(entry)).any(|entry| {
        let mut path = asked.path().split('/');
        entry.origin() == asked.origin()
            && entry.path().trim_end_matches('/').split('/').all(|segment| path.next() == Some(segment))
    })
}
