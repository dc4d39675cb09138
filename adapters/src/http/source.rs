//! An open partition of a polled HTTP source.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::Instant;

use super::budget::Budgets;
use super::client::Wire;
use super::ledger::Ledger;
use super::settings::HttpSettings;
use super::workload::{After, Walk};
use crate::contract::{Batch, Credits, Env, ErrorClass, Hold, Partition, Payload, Position, Pull, Source, SourceError};

/// Pages of a workload are handed over in parts above this many bytes, where their order allows it.
const PART_BYTES: usize = 8 << 20;

/// … or this many pages, so that a long catch-up reaches the lake as it goes.
const PART_PAGES: usize = 100;

/// Where their order does not allow it, a workload may have this many bytes in hand and no more.
const WORKLOAD_BYTES_MAX: usize = 64 << 20;

/// Pages of one workload; the next one goes on where it ended.
const WORKLOAD_PAGES_MAX: usize = 10_000;

/// What the partitions of an adapter share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Arc<HttpSettings>,
    pub(crate) budgets: Arc<Budgets>,
    pub(crate) wire: Wire,
    /// Whom a Retry-After binds: all that use the same key at the same origin.
    pub(crate) wait_key: String,
}

/// An open partition.
pub(crate) struct HttpSource {
    pub(crate) shared: Arc<Shared>,
    pub(crate) partition: Partition,
    pub(crate) env: Env,
    pub(crate) rng: StdRng,
    /// The last body that was whole and not what was declared, if nothing else came since.
    pub(crate) junk: Option<Junk>,
    ledger: Ledger,
    position: Option<Position>,
    /// The rest of a workload that was handed over in part.
    rest: Option<Box<Walk>>,
    /// The workload was handed over whole: there is nothing more of it.
    over: bool,
    /// The workload failed after its good part was handed over.
    failed: Option<SourceError>,
}

/// A junk body and what pays for it.
pub(crate) struct Junk {
    pub(crate) payload: Payload,
    pub(crate) hold: Hold,
}

impl HttpSource {
    /// Opens `partition` after `position`.
    ///
    /// # Errors
    /// `bad_position`.
    pub(crate) fn new(
        shared: Arc<Shared>,
        partition: Partition,
        position: Option<&Position>,
        env: Env,
    ) -> Result<Self, SourceError> {
        let ledger = Ledger::read(position, &shared.settings.records)?;
        Ok(Self {
            rng: StdRng::seed_from_u64(env.seed),
            shared,
            partition,
            env,
            junk: None,
            ledger,
            position: position.cloned(),
            rest: None,
            over: false,
            failed: None,
        })
    }

    fn begin(&mut self) -> Box<Walk> {
        self.junk = None;
        let records = &self.shared.settings.records;
        Box::new(Walk {
            session: self.ledger.session(records),
            cursor: self.ledger.cursor_text(records),
            deadline: Instant::now() + self.shared.settings.schedule.timeout,
            left: Duration::ZERO,
            next: None,
            visited: HashSet::new(),
            pages: 0,
            payloads: Vec::new(),
            bytes: 0,
            hold: Hold::default(),
        })
    }

    /// Works until there is something to hand over or the workload is done.
    async fn work(&mut self, mut walk: Box<Walk>, credits: &Credits) -> Result<Pull, SourceError> {
        loop {
            match self.page(&mut walk, credits).await {
                Ok(After::End) => return self.hand_over(walk, true),
                Ok(After::Page(link)) => walk.next = Some(link),
                Err(error) => {
                    if !walk.payloads.is_empty() && walk.session.may_split() {
                        self.failed = Some(error);
                        return self.hand_over(walk, false);
                    }
                    let wait = error.retry_after.filter(|_| error.class == ErrorClass::RateLimited);
                    // Throwing the pages away would make the same requests again, for ever where the budget is
                    // smaller than the number of pages.
                    match wait.filter(|wait| walk.pages > 0 && Instant::now() + *wait < walk.deadline) {
                        Some(wait) => tokio::time::sleep(wait).await,
                        None => return Err(error),
                    }
                    continue;
                }
            }
            if walk.pages >= WORKLOAD_PAGES_MAX && walk.session.may_split() {
                return self.hand_over(walk, true);
            }
            let full = walk.bytes >= PART_BYTES || walk.payloads.len() >= PART_PAGES;
            if full && walk.session.may_split() {
                return self.hand_over(walk, false);
            }
            if walk.bytes >= WORKLOAD_BYTES_MAX || walk.pages >= WORKLOAD_PAGES_MAX {
                let message = "the pages are too many to be taken at once and not in ascending order of the cursor";
                return Err(SourceError::new(ErrorClass::Config, "pages_unordered", message));
            }
        }
    }

    /// Hands over what `walk` has in hand. From here to the return nothing awaits.
    fn hand_over(&mut self, mut walk: Box<Walk>, whole: bool) -> Result<Pull, SourceError> {
        if walk.payloads.is_empty() {
            return Ok(Pull::Idle);
        }
        let (ledger, to) = walk.session.ledger(whole)?;
        let mut payloads = std::mem::take(&mut walk.payloads);
        if let Some(last) = payloads.last_mut() {
            last.position = Some(to.clone());
        }
        let mut hold = std::mem::take(&mut walk.hold);
        hold.shrink_to(walk.bytes);
        let batch = Batch { from: self.position.replace(to.clone()), to: Some(to), payloads, hold };
        self.ledger = ledger;
        if whole {
            self.over = true;
        } else if self.failed.is_none() {
            walk.bytes = 0;
            walk.left = walk.deadline.saturating_duration_since(Instant::now());
            self.rest = Some(walk);
        }
        Ok(Pull::Batch(batch))
    }

    /// The error of a workload that is over before it is done: what its last body was, if that was junk.
    pub(crate) fn timed_out(&self) -> SourceError {
        if let Some(mark) = self.junk.as_ref().and_then(|junk| junk.payload.dead.as_ref()) {
            return SourceError::new(ErrorClass::Data, mark.code, mark.message.clone());
        }
        SourceError::new(ErrorClass::Transient, "timeout", "the workload did not end within its timeout")
    }
}

#[async_trait]
impl Source for HttpSource {
    async fn next(&mut self, credits: &Credits) -> Result<Pull, SourceError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if std::mem::take(&mut self.over) {
            return Ok(Pull::Idle);
        }
        // Taken, so that a future that is dropped leaves a fresh workload behind.
        let walk = match self.rest.take() {
            Some(mut rest) => {
                // The time in between was the lake's.
                rest.deadline = Instant::now() + rest.left;
                rest
            }
            None => self.begin(),
        };
        self.work(walk, credits).await
    }

    fn workload_failed(&mut self) -> Option<Batch> {
        (self.rest, self.failed, self.over) = (None, None, false);
        let Junk { payload, mut hold } = self.junk.take()?;
        hold.shrink_to(payload.bytes.len());
        Some(Batch { from: self.position.clone(), to: self.position.clone(), payloads: vec![payload], hold })
    }
}
