//! Verifies everything that the layout promises, by reading all of it.
//!
//! For each stream: the log is walked from its oldest entry, each committed epoch is held against its record, each
//! record against the objects that it names, each row against the raw segment that it points to, and the dead table
//! against the records that it follows.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use serde::Serialize;

use super::error::LakeError;
use super::{Lake, layout, recover};
use crate::names::StreamId;

mod epochs;
mod files;
mod walk;

/// Problems that are reported one by one. Beyond them only their number is: whoever has so many does not read on.
const PROBLEMS_MAX: usize = 1_000;

/// Something that breaks a promise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// A stable name in snake case.
    pub code: &'static str,
    /// The path in the lake.
    pub path: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub remedy: &'static str,
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What is wrong, the first thousand.
    pub problems: Vec<Finding>,
    /// How much is wrong in all.
    pub problem_count: u64,
    /// Streams looked at.
    pub streams: u64,
    /// Committed epochs.
    pub epochs: u64,
    /// Rows in tables as of now.
    pub rows: u64,
    /// Dead letters.
    pub dead: u64,
    /// Raw segments that records name.
    pub raw_segments: u64,
    /// Objects that belong to no committed epoch: left by attempts that failed. Harmless but for their size.
    pub orphans: u64,
}

impl Report {
    fn problem(&mut self, code: &'static str, path: &str, what: impl Into<String>, remedy: &'static str) {
        self.problem_count += 1;
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Finding { code, path: path.to_owned(), what: what.into(), remedy });
        }
    }
}

const RESTORE: &str = "restore the object from a backup or an older version of the bucket";
const RESTART: &str = "start the stream: a new owner completes it";
const FOREIGN: &str = "find out who else writes below this path; restore the table to a version before it";

impl Lake {
    /// Checks one stream or all. Reads every object of them; changes nothing. Beside a running owner it may take an
    /// epoch that is just being committed for one whose dead letters are behind; look again then.
    ///
    /// # Errors
    /// The store's. What is wrong in the lake is no error but a finding.
    pub async fn check(&self, only: Option<&StreamId>) -> Result<Report, LakeError> {
        let mut report = Report::default();
        let streams = match only {
            Some(id) => BTreeSet::from([id.clone()]),
            None => self.streams(&mut report).await?,
        };
        for id in &streams {
            report.streams += 1;
            // A damaged object is a finding about one stream and must not hide what is wrong with the others.
            match Box::pin(epochs::check(&self.io, id, &mut report)).await {
                Err(error) if error.class == super::LakeErrorClass::Data => {
                    report.problem(error.code, &layout::table(id), error.message, RESTORE);
                }
                Err(error) if error.class == super::LakeErrorClass::Config => {
                    report.problem(error.code, &layout::table(id), error.message, FOREIGN);
                }
                other => other?,
            }
        }
        self.check_control(only, &mut report).await?;
        Ok(report)
    }

    /// Every stream that has left something anywhere.
    async fn streams(&self, report: &mut Report) -> Result<BTreeSet<StreamId>, LakeError> {
        let mut roots = recover::buckets(&self.io).await?;
        roots.extend(["tables", "dead", "raw"].map(str::to_owned));
        let mut streams = BTreeSet::new();
        for root in roots {
            let (tenants, _) = self.io.names(&root).await?;
            for tenant in tenants {
                let (names, _) = self.io.names(&format!("{root}/{tenant}")).await?;
                for name in names {
                    match StreamId::new(&tenant, &name) {
                        Ok(id) => {
                            streams.insert(id);
                        }
                        Err(_) => {
                            let path = format!("{root}/{tenant}/{name}");
                            report.problem("foreign_folder", &path, "no stream can have this name", FOREIGN);
                        }
                    }
                }
            }
        }
        Ok(streams)
    }

    async fn check_control(&self, only: Option<&StreamId>, report: &mut Report) -> Result<(), LakeError> {
        let mut objects = self.io.list(layout::CONTROL_STREAMS)?;
        while let Some(object) = objects.try_next().await? {
            let path = object.location.to_string();
            let parts: Vec<_> = path.split('/').skip(2).collect();
            let named = match parts[..] {
                [tenant, stream, name] => StreamId::new(tenant, stream).ok().zip(layout::parse_version(name)),
                _ => None,
            };
            let Some((id, version)) = named else {
                report.problem("foreign_object", &path, "no desired state can have this name", FOREIGN);
                continue;
            };
            if only.is_none_or(|only| *only == id)
                && let Err(error) = self.control_read(&id, version).await
            {
                report.problem("control_unreadable", &path, error.message, RESTORE);
            }
        }
        Ok(())
    }
}
