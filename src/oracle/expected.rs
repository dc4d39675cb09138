//! What the sources handed over, and the tally of what of it was found.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::observation::normalise;
use super::scan::Chunk;
use super::{OracleError, Verdict, facts};

/// A sequence number from here on cannot be real: its bitmap alone would take 256 MiB.
const SEQ_MAX: u64 = 1 << 31;

/// What a stream's source handed over.
#[derive(Debug, Clone)]
pub enum Expected {
    /// `kind = "synthetic"`: every record can be computed.
    Synthetic {
        /// `seed`.
        seed: u64,
        /// `partitions`.
        partitions: u64,
        /// Per partition the last sequence number that was handed over; `None`, or no entry, where it is not known:
        /// then everything up to the greatest one found must be there.
        handed_over: BTreeMap<u64, Option<u64>>,
    },
    /// Per partition every distinct observation that was handed over, in a form that [`normalise`] takes.
    Observations(BTreeMap<String, Vec<Value>>),
    /// Not known: only what the lake says about itself is judged.
    Any,
}

/// The `check` of a synthetic record: the first 16 hex digits of SHA-256 of `<seed>:<partition>:<seq>`.
#[must_use]
pub fn check_of(seed: u64, partition: u64, seq: u64) -> String {
    let mut check = String::new();
    write_check(&mut check, &mut String::new(), seed, partition, seq);
    check
}

/// A million records go through here in a debug build, so it reuses its buffers.
fn write_check(check: &mut String, scratch: &mut String, seed: u64, partition: u64, seq: u64) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    scratch.clear();
    write!(scratch, "{seed}:{partition}:{seq}").expect("writing to a string cannot fail");
    let digest = Sha256::digest(scratch.as_bytes());
    check.clear();
    for byte in &digest[..8] {
        check.push(char::from(HEX[usize::from(byte >> 4)]));
        check.push(char::from(HEX[usize::from(byte & 15)]));
    }
}

/// The running count for one judgement.
pub(crate) enum Tally {
    Synthetic(Box<SyntheticTally>),
    Observations(HashMap<(String, String), Count>),
    Any,
}

/// How often something was handed over and found.
#[derive(Default)]
pub(crate) struct Count {
    expected: u64,
    found: u64,
}

impl Tally {
    pub(crate) fn new(expected: &Expected) -> Self {
        match expected {
            Expected::Any => Self::Any,
            Expected::Synthetic { seed, partitions, handed_over } => Self::Synthetic(Box::new(SyntheticTally {
                seed: *seed,
                partitions: *partitions,
                handed_over: handed_over.clone(),
                seen: BTreeMap::new(),
                spans: BTreeMap::new(),
                check: String::new(),
                scratch: String::new(),
            })),
            Expected::Observations(truth) => {
                let mut counts: HashMap<_, Count> = HashMap::new();
                for (partition, observations) in truth {
                    for observation in observations {
                        counts.entry((partition.clone(), normalise(observation))).or_default().expected += 1;
                    }
                }
                Self::Observations(counts)
            }
        }
    }

    /// Columns of the table that it needs beside the runtime's own; `None` = all.
    pub(crate) fn columns(&self) -> Option<&'static [&'static str]> {
        match self {
            Self::Synthetic(_) => Some(&["partition", "seq", "check"]),
            Self::Observations(_) => None,
            Self::Any => Some(&[]),
        }
    }

    /// Whether a row's own text must stand in its raw payload: the column that holds it.
    pub(crate) fn raw_witness(&self) -> Option<&'static str> {
        matches!(self, Self::Synthetic(_)).then_some("check")
    }

    /// Takes rows of one file of the table.
    pub(crate) fn take(&mut self, chunk: &Chunk<'_>, verdict: &mut Verdict) -> Result<(), OracleError> {
        match self {
            Self::Any => Ok(()),
            Self::Synthetic(tally) => tally.take(chunk, verdict),
            Self::Observations(counts) => {
                let partitions = chunk.texts("_lf_partition")?;
                for (i, row) in facts::columns_of(chunk)?.into_iter().enumerate() {
                    let key = (partitions.value(i).to_owned(), normalise(&Value::Object(row)));
                    counts.entry(key).or_default().found += 1;
                }
                Ok(())
            }
        }
    }

    /// Takes a dead letter.
    pub(crate) fn take_dead(&mut self, partition: &str, bytes: Option<&[u8]>, verdict: &mut Verdict) {
        let Self::Synthetic(tally) = self else { return };
        match bytes.and_then(|bytes| serde_json::from_slice::<SyntheticRecord>(bytes).ok()) {
            Some(record) => tally.count(record.partition, record.seq, &record.check, verdict),
            None => {
                verdict.foreign += 1;
                verdict.say(|| format!("a dead letter of partition {partition} holds no synthetic record"));
            }
        }
    }

    /// Counts what was not found.
    pub(crate) fn finish(self, verdict: &mut Verdict) {
        match self {
            Self::Any => {}
            Self::Synthetic(tally) => tally.finish(verdict),
            Self::Observations(counts) => {
                for ((partition, observation), count) in counts {
                    let (fault, n) = match count {
                        Count { expected: 0, found } => (&mut verdict.foreign, found),
                        Count { expected, found } if found < expected => (&mut verdict.missing, expected - found),
                        Count { expected, found } => (&mut verdict.doubled, found - expected),
                    };
                    *fault += n;
                    if n > 0 {
                        let Count { expected, found } = count;
                        verdict.say(|| format!("{partition}: {expected} handed over, {found} found: {observation}"));
                    }
                }
            }
        }
    }
}

#[derive(Deserialize)]
struct SyntheticRecord {
    partition: u64,
    seq: u64,
    check: String,
}

/// One bit a record.
pub(crate) struct SyntheticTally {
    seed: u64,
    partitions: u64,
    handed_over: BTreeMap<u64, Option<u64>>,
    seen: BTreeMap<u64, Bits>,
    /// Least and greatest sequence number by (partition, epoch).
    spans: BTreeMap<(u64, i64), (u64, u64)>,
    check: String,
    scratch: String,
}

impl SyntheticTally {
    fn take(&mut self, chunk: &Chunk<'_>, verdict: &mut Verdict) -> Result<(), OracleError> {
        let (partitions, seqs, checks) = (chunk.longs("partition")?, chunk.longs("seq")?, chunk.texts("check")?);
        let (epochs, names) = (chunk.longs("_lf_epoch")?, chunk.texts("_lf_partition")?);
        let mut previous: HashMap<u64, (i64, u64)> = HashMap::new();
        for i in 0..chunk.len() {
            let (partition, seq) = (partitions.value(i).cast_unsigned(), seqs.value(i).cast_unsigned());
            self.count(partition, seq, checks.value(i), verdict);
            if names.value(i).parse() != Ok(partition) {
                verdict.foreign += 1;
                verdict.say(|| format!("{partition}:{seq} stands in partition {}", names.value(i)));
            }
            let epoch = epochs.value(i);
            if let Some((_, before)) =
                previous.insert(partition, (epoch, seq)).filter(|(e, s)| *e == epoch && *s >= seq)
            {
                verdict.disorder += 1;
                verdict.say(|| format!("{partition}:{seq} follows {partition}:{before} in epoch {epoch}"));
            }
            let span = self.spans.entry((partition, epoch)).or_insert((seq, seq));
            *span = (span.0.min(seq), span.1.max(seq));
        }
        Ok(())
    }

    fn count(&mut self, partition: u64, seq: u64, check: &str, verdict: &mut Verdict) {
        let beyond = self.handed_over.get(&partition).copied().flatten().is_some_and(|last| seq > last);
        if partition >= self.partitions || beyond || seq >= SEQ_MAX {
            verdict.foreign += 1;
            return verdict.say(|| format!("{partition}:{seq} was never handed over"));
        }
        write_check(&mut self.check, &mut self.scratch, self.seed, partition, seq);
        if check != self.check {
            verdict.corrupt += 1;
            verdict.say(|| format!("{partition}:{seq} has another check than it was issued with"));
        }
        if !self.seen.entry(partition).or_default().set(seq) {
            verdict.doubled += 1;
            verdict.say(|| format!("{partition}:{seq} is there again"));
        }
    }

    fn finish(self, verdict: &mut Verdict) {
        for partition in 0..self.partitions {
            let seen = self.seen.get(&partition);
            let last = self.handed_over.get(&partition).copied().flatten().or_else(|| seen.and_then(Bits::greatest));
            let Some(last) = last else { continue };
            let (found, first) = seen.map_or((0, Some(0)), |bits| bits.count_to(last));
            let missing = last + 1 - found;
            verdict.missing += missing;
            if missing > 0 {
                verdict
                    .say(|| format!("partition {partition}: {missing} missing, the first is {}", first.unwrap_or(0)));
            }
        }
        let mut before: Option<(u64, i64, u64)> = None;
        for ((partition, epoch), (least, greatest)) in self.spans {
            if let Some((_, earlier, max)) = before.filter(|(p, _, max)| *p == partition && *max >= least) {
                verdict.disorder += 1;
                verdict.say(|| {
                    format!("partition {partition}: epoch {epoch} begins at {least}, epoch {earlier} went to {max}")
                });
            }
            before = Some((partition, epoch, greatest));
        }
    }
}

/// A set of sequence numbers.
#[derive(Default)]
struct Bits(Vec<u64>);

impl Bits {
    /// False where it was set already.
    fn set(&mut self, at: u64) -> bool {
        let word = usize::try_from(at / 64).expect("below SEQ_MAX");
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        let mask = 1 << (at % 64);
        let fresh = self.0[word] & mask == 0;
        self.0[word] |= mask;
        fresh
    }

    fn greatest(&self) -> Option<u64> {
        let (word, bits) = self.0.iter().enumerate().rev().find(|(_, bits)| **bits != 0)?;
        Some(word as u64 * 64 + 63 - u64::from(bits.leading_zeros()))
    }

    /// How many of `0..=last` are set, and the first that is not.
    fn count_to(&self, last: u64) -> (u64, Option<u64>) {
        let (mut count, mut first) = (0, None);
        for word in 0..=last / 64 {
            let bits = usize::try_from(word).ok().and_then(|i| self.0.get(i)).copied().unwrap_or(0);
            let wanted = if word == last / 64 { u64::MAX >> (63 - last % 64) } else { u64::MAX };
            count += u64::from((bits & wanted).count_ones());
            if first.is_none() && bits & wanted != wanted {
                first = Some(word * 64 + u64::from((!bits).trailing_zeros()));
            }
        }
        (count, first)
    }
}
