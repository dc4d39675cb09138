//! What goes wrong, how often.

use std::fmt;
use std::str::FromStr;

use crate::simulate::share;

/// One way to answer badly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The body comes in drops.
    Slow,
    /// Nothing comes until the client goes.
    Hang,
    /// The connection ends in the middle of the body.
    Cut,
    /// Status 500.
    Http500,
    /// Status 429 with Retry-After.
    Http429,
    /// Status 200 with a whole body that is not what it should be.
    Garbage,
    /// The last station's key is always wrong: status 401.
    WrongKey,
}

impl Fault {
    /// All, in the order of the documentation.
    pub const ALL: [Self; 7] =
        [Self::Slow, Self::Hang, Self::Cut, Self::Http500, Self::Http429, Self::Garbage, Self::WrongKey];

    /// Its name in a SPEC and in the demo's counts.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Hang => "hang",
            Self::Cut => "cut",
            Self::Http500 => "http_500",
            Self::Http429 => "http_429",
            Self::Garbage => "garbage",
            Self::WrongKey => "wrong_key",
        }
    }

    /// How often it happens where only its name is given.
    fn usual(self) -> f64 {
        match self {
            Self::Slow | Self::Http500 => 0.1,
            Self::Cut | Self::Http429 | Self::Garbage => 0.05,
            Self::Hang => 0.02,
            Self::WrongKey => 1.0,
        }
    }
}

/// How often each fault happens.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Faults {
    rates: Vec<(Fault, f64)>,
}

impl Faults {
    /// None at all.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Each as often as it is usual.
    #[must_use]
    pub fn all() -> Self {
        Self { rates: Fault::ALL.iter().map(|fault| (*fault, fault.usual())).collect() }
    }

    /// Whether the last station's key is wrong.
    pub(super) fn wrong_key(&self) -> bool {
        self.rates.iter().any(|(fault, rate)| *fault == Fault::WrongKey && *rate > 0.0)
    }

    /// The fault of one request, decided by `parts` alone.
    pub(super) fn decide(&self, parts: &[u64]) -> Option<Fault> {
        let mut left = share(parts);
        for (fault, rate) in self.rates.iter().filter(|(fault, _)| *fault != Fault::WrongKey) {
            if left < *rate {
                return Some(*fault);
            }
            left -= rate;
        }
        None
    }
}

/// Why a SPEC cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; expected all, none, or faults such as slow=0.1,hang=0.02 out of {names}", names = names())]
pub struct SpecError(String);

fn names() -> String {
    Fault::ALL.map(Fault::name).join(", ")
}

impl FromStr for Faults {
    type Err = SpecError;

    fn from_str(spec: &str) -> Result<Self, SpecError> {
        match spec.trim() {
            "all" => return Ok(Self::all()),
            "none" | "" => return Ok(Self::none()),
            _ => {}
        }
        let mut rates: Vec<(Fault, f64)> = Vec::new();
        for part in spec.split(',') {
            let (name, rate) = part.split_once('=').map_or((part, None), |(name, rate)| (name, Some(rate)));
            let fault = Fault::ALL
                .into_iter()
                .find(|fault| fault.name() == name.trim())
                .ok_or_else(|| SpecError(format!("{:?} is no fault", name.trim())))?;
            let rate = match rate {
                None => fault.usual(),
                Some(text) => text
                    .trim()
                    .parse()
                    .ok()
                    .filter(|rate| (0.0..=1.0).contains(rate))
                    .ok_or_else(|| SpecError(format!("{} is no share from 0 to 1", text.trim())))?,
            };
            if rates.iter().any(|(other, _)| *other == fault) {
                return Err(SpecError(format!("{} is given twice", fault.name())));
            }
            rates.push((fault, rate));
        }
        let sum: f64 = rates.iter().filter(|(fault, _)| *fault != Fault::WrongKey).map(|(_, rate)| rate).sum();
        if sum > 1.0 + 1e-9 {
            return Err(SpecError(format!("the shares make {sum} together, more than 1")));
        }
        Ok(Self { rates })
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rates.is_empty() {
            return f.write_str("none");
        }
        let parts: Vec<_> = self.rates.iter().map(|(fault, rate)| format!("{}={rate}", fault.name())).collect();
        f.write_str(&parts.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_specs_read_back_and_wrong_ones_say_why() {
        for spec in ["none", "slow=0.1,hang=0.02", "wrong_key=1", "http_500=1"] {
            assert_eq!(spec.parse::<Faults>().expect(spec).to_string(), spec);
        }
        assert_eq!(Faults::all().to_string().parse(), Ok(Faults::all()));
        assert_eq!("slow".parse::<Faults>().expect("a name alone").to_string(), "slow=0.1");
        for (spec, why) in [
            ("slowly=1", "\"slowly\" is no fault"),
            ("slow=2", "2 is no share"),
            ("slow=x", "x is no share"),
            ("slow=0.6,cut=0.6", "more than 1"),
            ("cut,cut", "given twice"),
        ] {
            let error = spec.parse::<Faults>().expect_err(spec).to_string();
            assert!(error.contains(why) && error.contains("http_429"), "{spec}: {error}");
        }
    }

    #[test]
    fn test_faults_come_as_often_as_asked_and_the_same_each_time() {
        let faults: Faults = "slow=0.2,cut=0.05,wrong_key=1".parse().expect("a spec");
        let decided: Vec<_> = (0..10_000).map(|n| faults.decide(&[7, n])).collect();
        let count = |fault| decided.iter().filter(|other| **other == fault).count();
        assert!((1850..2150).contains(&count(Some(Fault::Slow))), "{}", count(Some(Fault::Slow)));
        assert!((400..600).contains(&count(Some(Fault::Cut))));
        assert_eq!(count(Some(Fault::WrongKey)), 0);
        assert_eq!(decided, (0..10_000).map(|n| faults.decide(&[7, n])).collect::<Vec<_>>());
    }
}
