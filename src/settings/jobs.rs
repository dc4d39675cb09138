//! An adapter's table, with what a stream or a message lays over it, to a [`Job`].

use std::sync::Arc;

use adapters::contract::Kind;
use adapters::contract::config::{Entry, Node, Problems, Reader, SecretSource, Table, Value, nearest_hint};
use sha2::{Digest as _, Sha256};

use super::columns::Columns;
use super::sections::restart;
use super::{Allow, Digest, Job, OnBadRecord, RestartSettings};

/// A source that fails more often than this in a row is not failing now and then.
const FAILED_WORKLOADS_MAX: i64 = 10_000;
const FAILED_WORKLOADS_DEFAULT: u32 = 5;

/// What is read beside the job, because only the adapter itself has it.
#[derive(Debug)]
pub(super) struct Outcome {
    /// `None` where something is wrong.
    pub(super) job: Option<Job>,
    pub(super) kind: String,
    pub(super) allow: Allow,
}

/// What reading a job needs beside its table.
#[derive(Debug, Clone, Copy)]
pub(super) struct JobReader<'a> {
    pub(super) kinds: &'a [Arc<dyn Kind>],
    pub(super) secrets: &'a dyn SecretSource,
    pub(super) supervision: &'a RestartSettings,
}

impl JobReader<'_> {
    /// Reads `table`, the adapter `name`; its fields are named below `path` in `problems`.
    pub(super) fn read(&self, name: &str, table: &Table, path: &str, problems: &Problems) -> Outcome {
        let before = problems.errors();
        let reader = Reader::new(table, path, problems, self.secrets);
        let kind = self.kind(&reader);
        let raw_kept = reader.choice("raw", &[("keep", true), ("off", false)]);
        let on_bad_record =
            reader.choice("on_bad_record", &[("dead_letter", OnBadRecord::DeadLetter), ("park", OnBadRecord::Park)]);
        let failed = reader.integer("max_failed_workloads", 1, FAILED_WORKLOADS_MAX);
        let restart = restart(reader.section("restart"), self.supervision);
        let allow = allow(reader.section("allow"));
        let on_schema_change =
            reader.choice("on_schema_change", &[("add", false), ("dead_letter", false), ("park", true)]);
        let columns = Columns::read(reader.section("table"));
        let mount = kind.and_then(|kind| kind.read(&reader));
        if let (Some(mount), Some(columns)) = (&mount, &columns) {
            columns.check(&reader, mount.as_ref());
        }
        if kind.is_some() {
            reader.finish();
        }
        let job = mount.filter(|_| problems.errors() == before).map(|mount| {
            let Columns { partition_by, schema, generated } = columns.unwrap_or_default();
            Job {
                adapter: name.to_owned(),
                mount,
                raw_kept: raw_kept.unwrap_or(true),
                partition_by,
                schema,
                generated,
                park_on_schema_change: on_schema_change.unwrap_or(false),
                on_bad_record: on_bad_record.unwrap_or(OnBadRecord::DeadLetter),
                failed_workloads_max: failed.and_then(|n| u32::try_from(n).ok()).unwrap_or(FAILED_WORKLOADS_DEFAULT),
                restart,
            }
        });
        Outcome { job, kind: kind.map(|kind| kind.name().to_owned()).unwrap_or_default(), allow }
    }

    fn kind(&self, reader: &Reader<'_>) -> Option<&Arc<dyn Kind>> {
        let names: Vec<&str> = self.kinds.iter().map(|kind| kind.name()).collect();
        let expected = format!("one of {}", names.join(", "));
        let name =
            reader.string_required("kind", &expected, &format!("{:?}", names.first().unwrap_or(&"synthetic")))?;
        let kind = self.kinds.iter().find(|kind| kind.name() == name);
        if kind.is_none() {
            let what = format!("{} is {}", reader.path_of("kind"), reader.shown("kind", &name));
            reader.wrong(
                "kind",
                "UNKNOWN_KIND",
                what,
                format!("expected {expected}"),
                nearest_hint(&name, names.into_iter()),
            );
        }
        kind
    }
}

fn allow(reader: Option<Reader<'_>>) -> Allow {
    let Some(reader) = reader else { return Allow::default() };
    let endpoints = reader.strings("endpoints").unwrap_or_default();
    for endpoint in endpoints.iter().filter(|text| !is_endpoint(text)) {
        let what = format!("{} has {:?}", reader.path_of("endpoints"), without_user(endpoint));
        let expected = "expected URLs with http or https, a host, and neither user, ? nor #";
        reader.wrong(
            "endpoints",
            "INVALID_VALUE",
            what,
            expected,
            "write endpoints = [\"https://api.example.org/v2/\"]",
        );
    }
    let secrets: Vec<String> =
        reader.texts_verbatim("secrets").unwrap_or_default().into_iter().map(str::to_owned).collect();
    for _ in secrets.iter().filter(|text| !text.starts_with("env:") && !text.starts_with("file:")) {
        // Not shown: it may be the secret itself.
        let what = format!("{} has an entry that is not a reference", reader.path_of("secrets"));
        reader.wrong(
            "secrets",
            "INVALID_VALUE",
            what,
            "expected env:NAME or file:PATH",
            "write secrets = [\"env:NAME\"]",
        );
    }
    let settings = reader.strings("settings").unwrap_or_default();
    for key in settings.iter().filter(|key| NEVER_FROM_MESSAGES.contains(&key.as_str())) {
        let what = format!("{} has {key:?}, which no message may set", reader.path_of("settings"));
        let expected = format!("expected any keys but {}", NEVER_FROM_MESSAGES.join(", "));
        let remedy = "remove it; endpoints and secrets have lists of their own";
        reader.wrong("settings", "INVALID_VALUE", what, expected, remedy);
    }
    reader.finish();
    Allow { endpoints, secrets, settings }
}

/// They decide where requests go, with which credentials, and who may ask for it, or messages have a key of their own
/// for them.
pub(super) const NEVER_FROM_MESSAGES: [&str; 11] = [
    "kind",
    "allow",
    "network",
    "auth",
    "budgets",
    "base_url",
    "endpoint",
    "secret_key",
    "interval",
    "timeout",
    "partitions",
];

fn is_endpoint(text: &str) -> bool {
    url::Url::parse(text).is_ok_and(|url| {
        ["http", "https"].contains(&url.scheme())
            && url.host_str().is_some_and(|host| !host.is_empty())
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    })
}

/// A URL without the part before the `@`, which may be a password.
fn without_user(text: &str) -> String {
    let text = super::sections::shorten(text);
    text.rsplit_once('@').map_or_else(|| text.clone(), |(_, rest)| format!("…@{rest}"))
}

/// Lays a stream's own keys over its adapter's: `partitions` in place of the adapter's, `restart` key by key.
pub(super) fn lay(table: &mut Table, own: &Table) {
    if let Some(partitions) = own.get("partitions") {
        table.set("partitions", partitions.clone());
    }
    if let Some(restart) = own.get("restart") {
        lay_key(table, "restart", restart);
    }
}

/// Sets `key`, or where both are tables, lays the keys within over those that stand there.
pub(super) fn lay_key(table: &mut Table, key: &str, node: &Node) {
    let below = table.entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.node.value);
    match (below, &node.value) {
        (Some(Value::Table(old)), Value::Table(new)) => {
            for entry in &new.entries {
                lay_key(old, &entry.key, &entry.node);
            }
        }
        _ => table.set(key, node.clone()),
    }
}

/// Hashes `table` with what its secret references lead to, on top of `base`.
pub(super) fn digest(base: &[u8], table: &Table, secrets: &dyn SecretSource) -> Digest {
    let mut hash = Sha256::new();
    hash.update((base.len() as u64).to_le_bytes());
    hash.update(base);
    digest_table(&mut hash, table, secrets);
    Digest(hash.finalize().into())
}

fn digest_table(hash: &mut Sha256, table: &Table, secrets: &dyn SecretSource) {
    let mut entries: Vec<&Entry> = table.entries.iter().collect();
    entries.sort_by(|a, b| a.key.cmp(&b.key));
    for entry in entries {
        digest_text(hash, b'k', &entry.key);
        digest_node(hash, &entry.node, table, secrets);
    }
    hash.update(b"}");
}

fn digest_node(hash: &mut Sha256, node: &Node, table: &Table, secrets: &dyn SecretSource) {
    match &node.value {
        Value::String(text) => {
            digest_text(hash, b's', text);
            let secret = text.strip_prefix("env:").map(|name| secrets.env(name).unwrap_or_default());
            let folder = table.folder.as_deref().unwrap_or_else(|| std::path::Path::new(""));
            let secret = secret.or_else(|| {
                text.strip_prefix("file:").map(|path| secrets.file(&folder.join(path)).unwrap_or_default())
            });
            if let Some(secret) = secret {
                digest_text(hash, b'r', &secret);
            }
        }
        Value::Integer(number) => digest_text(hash, b'i', &number.to_string()),
        Value::Float(number) => digest_text(hash, b'f', &number.to_string()),
        Value::Bool(value) => digest_text(hash, b'b', &value.to_string()),
        Value::DateTime(text) => digest_text(hash, b'd', text),
        Value::Array(all) => {
            hash.update(b"[");
            all.iter().for_each(|item| digest_node(hash, item, table, secrets));
            hash.update(b"]");
        }
        Value::Table(below) => {
            hash.update(b"{");
            digest_table(hash, below, secrets);
        }
    }
}

/// With its length before it, so that two texts in a row cannot be mistaken for two others.
fn digest_text(hash: &mut Sha256, tag: u8, text: &str) {
    hash.update([tag]);
    hash.update((text.len() as u64).to_le_bytes());
    hash.update(text.as_bytes());
}
