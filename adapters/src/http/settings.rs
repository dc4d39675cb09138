//! What the engine needs to know of an adapter, read and checked. Kinds fill it in; see [`super::read`].

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use reqwest::header::HeaderName;
use url::Url;

use super::budget::BudgetRule;
use super::rules::Rule;
use super::template::Template;
use crate::contract::Partition;
use crate::contract::config::Secret;
use crate::json::Path;

/// A polled HTTP adapter.
#[derive(Debug)]
pub struct HttpSettings {
    /// The value of `kind`.
    pub kind: &'static str,
    /// Where requests go, without query and fragment.
    pub base: Url,
    /// Whether the operator wrote `base`; one from a message may not be private without `allow_private`.
    pub origin_trusted: bool,
    /// When to poll.
    pub schedule: Schedule,
    /// Limits of the network.
    pub network: Network,
    /// How the adapter proves who it is.
    pub auth: Auth,
    /// All must grant each request.
    pub budgets: Vec<BudgetRule>,
    /// The first request of a workload.
    pub request: RequestTemplate,
    /// What records are and which are new.
    pub records: Arc<Records>,
    /// Where the link to the next page stands.
    pub next: Option<NextLink>,
    /// Rules before the built-in ones.
    pub rules: Arc<[Rule]>,
    /// At least one, with unique names.
    pub partitions: Vec<Partition>,
}

/// When to poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Start to start.
    pub interval: Duration,
    /// Each beat is delayed by a random part of this.
    pub jitter: Duration,
    /// Of one workload with its retries.
    pub timeout: Duration,
}

/// `network`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// Refuse plain http.
    pub https_only: bool,
    /// Let redirects, page links and endpoints from messages lead to private addresses.
    pub allow_private: bool,
    /// Redirects that are followed for one page.
    pub max_redirects: u32,
    /// Bytes of one body, as it comes and with its content coding undone.
    pub max_body: usize,
}

impl Default for Network {
    fn default() -> Self {
        Self { https_only: false, allow_private: false, max_redirects: 0, max_body: 4 << 20 }
    }
}

/// `auth`.
#[derive(Debug, Clone)]
pub enum Auth {
    /// None.
    Open,
    /// A key in the query.
    Query {
        /// The parameter.
        name: String,
        /// The key.
        value: Secret,
    },
    /// A key in a header.
    Header {
        /// The header.
        name: HeaderName,
        /// The key.
        value: Secret,
    },
    /// `Authorization: Bearer`.
    Bearer {
        /// The token.
        token: Secret,
    },
    /// `Authorization: Basic`.
    Basic {
        /// The name.
        username: Secret,
        /// The password.
        password: Secret,
    },
}

impl Auth {
    /// The secret in it.
    #[must_use]
    pub fn secret(&self) -> Option<&Secret> {
        match self {
            Self::Open => None,
            Self::Query { value, .. } | Self::Header { value, .. } => Some(value),
            Self::Bearer { token } => Some(token),
            Self::Basic { password, .. } => Some(password),
        }
    }
}

/// A value of a query parameter or a header.
#[derive(Debug, Clone)]
pub enum Text {
    /// With placeholders.
    Template(Template),
    /// A secret reference that was followed.
    Secret(Secret),
}

/// `request`.
#[derive(Debug, Clone)]
pub struct RequestTemplate {
    /// `GET` or `POST`.
    pub method: Method,
    /// Appended to the path of the base.
    pub path: Template,
    /// In the order of the file.
    pub query: Vec<(String, Text)>,
    /// In the order of the file.
    pub headers: Vec<(HeaderName, Text)>,
}

impl RequestTemplate {
    /// A `GET` of the base itself.
    #[must_use]
    pub fn bare() -> Self {
        Self { method: Method::GET, path: Template::literal(""), query: Vec::new(), headers: Vec::new() }
    }

    /// All templates in it.
    pub fn templates(&self) -> impl Iterator<Item = &Template> {
        let values = self.query.iter().map(|(_, text)| text).chain(self.headers.iter().map(|(_, text)| text));
        values
            .filter_map(|text| if let Text::Template(template) = text { Some(template) } else { None })
            .chain(std::iter::once(&self.path))
    }
}

/// `records` and `cursor`.
#[derive(Debug, Clone)]
pub struct Records {
    /// Where the records stand in a body.
    pub select: Path,
    /// The fields that name a record.
    pub key: Vec<Path>,
    /// The field with its time.
    pub event_time: Option<Path>,
    /// The fields whose change makes a new observation; empty = all.
    pub content: Vec<Path>,
    /// The cursor; `None` = a current-value source.
    pub cursor: Option<CursorSpec>,
}

/// `cursor`.
#[derive(Debug, Clone)]
pub struct CursorSpec {
    /// The field with its value.
    pub field: Path,
    /// `{cursor}` before anything was handed over.
    pub start: String,
}

/// `next`.
#[derive(Debug, Clone)]
pub enum NextLink {
    /// A path into the body.
    Body(Path),
    /// The `rel="next"` of a header in the form of `Link`.
    Header(HeaderName),
}
