//! Keeps secrets out of what the node tells about failures. Messages of sources hold none by their contract; the text of a
//! panic, or of a library's error in it, comes from anywhere.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use adapters::contract::config::{Secret, SecretSource};

/// Secrets that are looked for. A node has some for each adapter; those that came in messages beyond it push out the
/// oldest.
const SECRETS_MAX: usize = 1_000;

/// A shorter secret would be found in ordinary words, and is none.
const SECRET_CHARS_MIN: usize = 6;

/// What stands in a secret's place.
const MASK: &str = "***";

/// The secrets that the node has read, to be removed from texts.
#[derive(Debug, Default)]
pub struct Scrubber {
    known: RwLock<VecDeque<Secret>>,
}

impl Scrubber {
    /// Looks for `secret` from now on.
    pub fn learn(&self, secret: &str) {
        if secret.len() < SECRET_CHARS_MIN {
            return;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.iter().any(|old| old.reveal() == secret) {
            return;
        }
        if known.len() == SECRETS_MAX {
            known.pop_front();
        }
        known.push_back(Secret::literal(secret));
    }

    /// `text` without the secrets.
    #[must_use]
    pub fn scrub<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let mut text = Cow::Borrowed(text);
        for secret in known.iter().filter(|secret| !secret.reveal().is_empty()) {
            if text.contains(secret.reveal()) {
                text = Cow::Owned(text.replace(secret.reveal(), MASK));
            }
        }
        text
    }

    /// Takes the secrets out of `text`.
    pub fn clean(&self, text: &mut String) {
        if let Cow::Owned(clean) = self.scrub(text) {
            *text = clean;
        }
    }
}

/// Another source of secrets, of which a scrubber learns each secret that settings or messages use.
#[derive(Debug)]
pub struct Learning {
    source: Arc<dyn SecretSource>,
    scrubber: Arc<Scrubber>,
}

impl Learning {
    /// `source`, watched by `scrubber`.
    #[must_use]
    pub fn new(source: Arc<dyn SecretSource>, scrubber: Arc<Scrubber>) -> Self {
        Self { source, scrubber }
    }
}

impl SecretSource for Learning {
    fn env(&self, name: &str) -> Option<String> {
        self.source.env(name)
    }

    fn file(&self, path: &Path) -> Result<String, String> {
        self.source.file(path)
    }

    fn used(&self, secret: &str) {
        self.scrubber.learn(secret);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_scrubber_masks_what_it_has_learnt_and_stays_bounded() {
        let scrubber = Scrubber::default();
        assert_eq!(scrubber.scrub("GET /?key=canary-1"), "GET /?key=canary-1");
        scrubber.learn("canary-1");
        scrubber.learn("abc");
        assert_eq!(scrubber.scrub("GET /?key=canary-1&abc=canary-1"), "GET /?key=***&abc=***");
        let mut text = "no secret".to_owned();
        scrubber.clean(&mut text);
        assert_eq!(text, "no secret");
        (0..SECRETS_MAX).for_each(|n| scrubber.learn(&format!("secret-{n}-")));
        assert_eq!(scrubber.scrub("canary-1 secret-7-"), "canary-1 ***", "the oldest is forgotten");
    }
}
