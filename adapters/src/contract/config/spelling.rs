//! Keys as they are written, and what somebody may have meant by another one.

/// The longest names have 63 characters.
const NEAREST_CHARS_MAX: usize = 100;

/// `key` as TOML writes it: in quotes where it is not a bare key.
#[must_use]
pub fn show_key(key: &str) -> String {
    if !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
        key.to_owned()
    } else {
        format!("{key:?}")
    }
}

/// `did you mean x?`, or to choose one of the names where none is near.
pub fn nearest_hint<'n>(text: &str, names: impl Iterator<Item = &'n str>) -> String {
    nearest(text, names).map_or_else(|| "choose one of these".to_owned(), |name| format!("did you mean {name}?"))
}

/// The name nearest to `text`, if one is near enough that somebody may have meant it.
pub fn nearest<'n>(text: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    // Half of the letters may differ: beyond that a suggestion misleads more than it helps.
    let limit = (text.chars().count() / 2).clamp(1, 4);
    // A long text is near to no name, and comparing it would take long.
    let text: String = text.chars().take(NEAREST_CHARS_MAX).collect::<String>().to_lowercase();
    names
        .map(|name| (distance(&text, &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein's distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
