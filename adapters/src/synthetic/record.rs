//! The text of one record.

use std::fmt::Write as _;

use bytes::BytesMut;
use sha2::{Digest, Sha256};

/// The record's JSON without its pad, in the greatest length of its numbers; what a record may take beyond `bytes`.
pub(super) const FIELDS_BYTES_MAX: usize = 128;

/// The first 16 hex digits of SHA-256 of `"<seed>:<partition>:<seq>"`.
#[must_use]
pub fn check(seed: u64, partition: u64, seq: u64) -> String {
    let mut text = BytesMut::with_capacity(64);
    push_check(&mut text, seed, partition, seq);
    String::from_utf8_lossy(&text).into_owned()
}

fn push_check(out: &mut BytesMut, seed: u64, partition: u64, seq: u64) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut hash = Sha256::new();
    let mut digits = Digits::default();
    hash.update(digits.of(seed));
    hash.update(b":");
    hash.update(digits.of(partition));
    hash.update(b":");
    hash.update(digits.of(seq));
    let mut text = [0; 16];
    for (pair, byte) in text.chunks_exact_mut(2).zip(hash.finalize()) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 15)];
    }
    out.extend_from_slice(&text);
}

/// The decimal digits of a number, without allocating.
#[derive(Default)]
struct Digits([u8; 20]);

impl Digits {
    fn of(&mut self, mut number: u64) -> &[u8] {
        let mut at = self.0.len();
        loop {
            at -= 1;
            self.0[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return &self.0[at..];
            }
        }
    }
}

/// A moment in RFC 3339 with milliseconds.
pub(super) fn timestamp(us: i64) -> String {
    let at = chrono::DateTime::from_timestamp_micros(us).unwrap_or_default();
    let mut text = String::with_capacity(24);
    // Writing into a String cannot fail.
    let _ = write!(text, "{}", at.format("%Y-%m-%dT%H:%M:%S%.3fZ"));
    text
}

/// Appends the record's JSON, about `bytes` long.
pub(super) fn push(out: &mut BytesMut, seed: u64, partition: u64, seq: u64, ts: &str, bytes: usize) {
    let start = out.len();
    let mut digits = Digits::default();
    out.extend_from_slice(b"{\"partition\":");
    out.extend_from_slice(digits.of(partition));
    out.extend_from_slice(b",\"seq\":");
    out.extend_from_slice(digits.of(seq));
    out.extend_from_slice(b",\"ts\":\"");
    out.extend_from_slice(ts.as_bytes());
    out.extend_from_slice(b"\",\"check\":\"");
    push_check(out, seed, partition, seq);
    out.extend_from_slice(b"\",\"pad\":\"");
    let end = b"\"}";
    let pad = bytes.saturating_sub(out.len() - start + end.len());
    push_pad(out, seed ^ partition.rotate_left(40) ^ seq.rotate_left(20), pad);
    out.extend_from_slice(end);
}

/// Letters and digits that no compression shrinks to much less than six bits each.
fn push_pad(out: &mut BytesMut, seed: u64, length: usize) {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    /// 64 random bits hold ten letters of six.
    const LETTERS_PER_WORD: usize = 10;
    let mut state = seed;
    let mut left = length;
    while left > 0 {
        let mut word = splitmix(&mut state);
        let mut letters = [0; LETTERS_PER_WORD];
        for letter in &mut letters {
            *letter = LETTERS[(word & 63) as usize];
            word >>= 6;
        }
        let taken = left.min(LETTERS_PER_WORD);
        out.extend_from_slice(&letters[..taken]);
        left -= taken;
    }
}

/// One step of the splitmix64 generator.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
