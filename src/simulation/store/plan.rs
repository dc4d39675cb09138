//! Which requests are to fail, and what was done.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::fault::{Fault, Kind};
use crate::simulation::draw::Draw;

/// A fault that is meant for certain requests.
#[derive(Debug, Clone)]
pub(crate) struct Fail {
    /// `put`, `get`, `list`, `delete`, `multipart`.
    pub(crate) operation: &'static str,
    /// A part of the path.
    pub(crate) path: &'static str,
    pub(crate) fault: Fault,
    /// Matches to let pass first.
    pub(crate) skip: u32,
    /// Matches to fail then.
    pub(crate) times: u32,
}

impl Fail {
    pub(crate) fn put(path: &'static str, fault: Fault) -> Self {
        Self { operation: "put", path, fault, skip: 0, times: 1 }
    }
}

/// How the store is for a while.
#[derive(Debug, Clone, Default)]
pub(crate) struct Weather {
    /// Of 1000 requests so many meet each of these.
    pub(crate) faults: Vec<(u64, Fault)>,
    /// Only requests for such objects; all where empty.
    pub(crate) kinds: Vec<Kind>,
    /// Milliseconds that a request takes on its way, and its answer on its way back. Empty: none at all.
    pub(crate) latency_ms: Range<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) faults: Vec<Fail>,
    pub(super) weather: Weather,
    pub(super) draw: Option<Draw>,
    pub(super) fired: BTreeMap<&'static str, u32>,
    pub(super) log: Vec<String>,
}

/// What the plan has for one request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fate {
    pub(super) fault: Option<Fault>,
    pub(super) there: Duration,
    pub(super) back: Duration,
}

impl Plan {
    pub(super) fn ask(&mut self, operation: &'static str, path: &str) -> Fate {
        self.log.push(format!("{operation} {path}"));
        let fault = self.meant(operation, path).or_else(|| self.drawn(operation, path));
        if let Some(fault) = fault {
            *self.fired.entry(fault.name()).or_default() += 1;
        }
        let (there, back) = (self.delay(), self.delay());
        Fate { fault, there, back }
    }

    fn meant(&mut self, operation: &str, path: &str) -> Option<Fault> {
        let matches = |fail: &&mut Fail| fail.operation == operation && path.contains(fail.path) && fail.times > 0;
        let fail = self.faults.iter_mut().find(matches)?;
        if fail.skip > 0 {
            fail.skip -= 1;
            return None;
        }
        fail.times -= 1;
        Some(fail.fault)
    }

    fn drawn(&mut self, operation: &str, path: &str) -> Option<Fault> {
        let kind = Kind::of(path);
        if !self.weather.kinds.is_empty() && !self.weather.kinds.contains(&kind) {
            return None;
        }
        let mut drawn = self.draw.as_mut()?.below(1000);
        for (per_mille, fault) in self.weather.faults.iter().filter(|(_, fault)| fault.fits(operation, kind)) {
            if drawn < *per_mille {
                return Some(*fault);
            }
            drawn -= per_mille;
        }
        None
    }

    fn delay(&mut self) -> Duration {
        let range = &self.weather.latency_ms;
        match &mut self.draw {
            Some(draw) if !range.is_empty() => Duration::from_millis(draw.within(range)),
            _ => Duration::ZERO,
        }
    }
}
