//! Polling over HTTP: what every kind that asks a server at intervals shares.
//!
//! A kind reads its keys into [`HttpSettings`] (with the readers of [`read`]) and gives them to an [`HttpMount`].
//! One workload is one poll with all its pages and retries:
//!
//! ```text
//! gate      Retry-After still running? budget left?                 hold_off.rs, budget.rs
//! request   template → URL, credentials for the own origin          template.rs, request.rs
//! wire      resolve → check → connect, bounded body, credits        guard.rs, client.rs
//! judge     the adapter's rules, then the status                    rules.rs
//! page      select records, link to the next page                   json/path.rs, page.rs
//! ledger    which records are new, the position after them          ledger.rs, cursor.rs, observed.rs
//! ```

mod budget;
mod client;
mod cursor;
mod digest;
mod guard;
mod hold_off;
mod ledger;
mod mount;
mod observed;
mod page;
pub mod read;
mod request;
mod rules;
mod settings;
mod source;
mod template;
#[cfg(test)]
pub(crate) mod testing;
mod workload;

pub use budget::{BudgetRule, Budgets, Window};
pub use guard::{Denied, allows};
pub use mount::HttpMount;
pub use rules::{Action, Pattern, Rule};
pub use settings::{Auth, CursorSpec, HttpSettings, Network, NextLink, Records, RequestTemplate, Schedule, Text};
pub use template::{Template, climbs};
