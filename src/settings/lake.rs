//! `[lake]`: where the lake is, the options of its store, and when an epoch closes.

use std::collections::HashMap;
use std::path::Path;

use adapters::contract::config::{Entry, Reader, Secret, Value, nearest};
use url::Url;

use super::sections::absolute;
use super::{EpochLimits, LakeSettings};

const URL_EXPECTED: &str = "a place like \"file:lake\", \"s3://bucket/prefix\", \"gs://bucket/prefix\" or \
                            \"az://container/prefix\"";
const EPOCH_BYTES_MIN: u64 = 64 << 10;
/// One Parquet file of an epoch is built in memory.
const EPOCH_BYTES_MAX: u64 = 4 << 30;
const EPOCH_ROWS_MAX: i64 = 100_000_000;

/// Options that each store takes. Its client knows others, which lead to files and proxies of this machine that nobody
/// meant to open, so the lists are closed.
const OPTIONS_S3: [&str; 8] = [
    "endpoint",
    "region",
    "access_key_id",
    "secret_access_key",
    "session_token",
    "virtual_hosted_style_request",
    "unsigned_payload",
    "allow_http",
];
const OPTIONS_GS: [&str; 4] = ["endpoint", "service_account", "service_account_key", "allow_http"];
const OPTIONS_AZ: [&str; 9] = [
    "account_name",
    "access_key",
    "sas_key",
    "client_id",
    "client_secret",
    "tenant_id",
    "endpoint",
    "use_emulator",
    "allow_http",
];

/// The options that stores of `scheme` take; `None` where no lake is there.
#[must_use]
pub fn lake_options(scheme: &str) -> Option<&'static [&'static str]> {
    match scheme {
        "file" => Some(&[]),
        "s3" => Some(&OPTIONS_S3),
        "gs" => Some(&OPTIONS_GS),
        "az" => Some(&OPTIONS_AZ),
        _ => None,
    }
}

/// `[lake]`; its `url` must be there.
pub(super) fn read(reader: &Reader<'_>, folder: &Path) -> Option<LakeSettings> {
    let url = url(reader, folder);
    let scheme = url.as_deref().and_then(|url| url.split(':').next()).unwrap_or_default();
    let options = options(reader, scheme, folder);
    let epoch = epoch(reader.section("epoch"));
    Some(LakeSettings { url: url?, options, epoch })
}

fn url(reader: &Reader<'_>, folder: &Path) -> Option<String> {
    if !reader.has("url") {
        reader.missing("url", URL_EXPECTED, "\"file:lake\"");
        return None;
    }
    // `file:` is where the lake is and not a secret reference; `env:` is one.
    let text = reader.text_verbatim("url")?;
    let text = if text.starts_with("env:") { reader.string("url")? } else { text.to_owned() };
    let wrong = |what: &str, remedy: &str| {
        let what = format!("lake.url is {}{what}", reader.shown("url", &text));
        reader.wrong("url", "INVALID_VALUE", what, format!("expected {URL_EXPECTED}"), remedy);
        None
    };
    if let Some(path) = text.strip_prefix("file:") {
        let path = match path.strip_prefix("//") {
            Some(rest) if rest.starts_with('/') => rest,
            Some(_) => return wrong(", which names another machine", "write file:folder or file:///folder"),
            None => path,
        };
        if path.is_empty() {
            return wrong("", "name a folder after file:");
        }
        return Some(format!("file:{}", absolute(folder, path).to_string_lossy()));
    }
    let Ok(parsed) = Url::parse(&text) else {
        return wrong("", "begin it with file:, s3://, gs:// or az://");
    };
    if !["s3", "gs", "az"].contains(&parsed.scheme()) {
        return wrong("", "begin it with file:, s3://, gs:// or az://");
    }
    if parsed.host_str().is_none_or(str::is_empty) {
        return wrong("", "name the bucket after the two slashes");
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        // Not shown: it holds credentials.
        let what = "lake.url has credentials in it";
        let remedy = "move them to lake.options, as references like env:S3_KEY";
        reader.wrong("url", "INVALID_VALUE", what, format!("expected {URL_EXPECTED}"), remedy);
        return None;
    }
    if parsed.query().is_some() || parsed.fragment().is_some() || parsed.port().is_some() {
        return wrong("", "leave out port, ? and #; an endpoint belongs into lake.options");
    }
    Some(text.trim_end_matches('/').to_owned())
}

fn options(reader: &Reader<'_>, scheme: &str, folder: &Path) -> HashMap<String, Secret> {
    let mut options = HashMap::new();
    let Some(section) = reader.section("options") else { return options };
    // Where the address is wrong already, which options fit it cannot be said.
    let Some(known) = lake_options(scheme) else { return options };
    if known.is_empty() {
        if !section.table().entries.is_empty() {
            let what = "lake.options is for stores in the cloud";
            let expected = "expected none for a folder on this machine";
            reader.wrong("options", "NOT_APPLICABLE", what, expected, "remove it or correct lake.url");
        }
        return options;
    }
    for entry in section.entries() {
        if !known.contains(&entry.key.as_str()) {
            let path = section.path_of(&entry.key);
            let what = format!("{path} is not a known option of {scheme}://");
            let expected = format!("expected one of {}", known.join(", "));
            let near = nearest(&entry.key, known.iter().copied());
            let remedy = near.map_or_else(|| "remove it".to_owned(), |name| format!("did you mean {name}?"));
            section.wrong(&entry.key, "UNKNOWN_KEY", what, expected, remedy);
        } else if let Some(value) = option(&section, entry) {
            options.insert(entry.key.clone(), anchored(value, folder));
        }
    }
    if let Some(endpoint) = options.get("endpoint") {
        check_endpoint(&section, endpoint);
        if options.get("use_emulator").is_some_and(|emulator| emulator.reveal() == "true") {
            let what = "lake.options has both endpoint and use_emulator, which is an endpoint of its own";
            let remedy =
                "remove use_emulator; give account_name, access_key and an endpoint that ends with the account";
            section.wrong("use_emulator", "NOT_APPLICABLE", what, "expected one of them", remedy);
        }
    }
    options
}

/// A reference that can be followed again later, when nobody knows any more which file it stood in.
fn anchored(secret: Secret, folder: &Path) -> Secret {
    let Some(path) = secret.reference().and_then(|reference| reference.strip_prefix("file:")) else { return secret };
    let reference = format!("file:{}", absolute(folder, path).display());
    Secret::resolved(secret.reveal(), reference)
}

/// Options that say where the store is and not how to get in.
const OPEN_OPTIONS: [&str; 3] = ["endpoint", "region", "account_name"];

fn option(section: &Reader<'_>, entry: &Entry) -> Option<Secret> {
    match &entry.node.value {
        Value::Bool(value) => Some(Secret::literal(value.to_string())),
        // Kept apart from secrets, so that they may be seen in messages.
        _ if OPEN_OPTIONS.contains(&entry.key.as_str()) => section.reference(&entry.key),
        _ => section.secret(&entry.key),
    }
}

fn check_endpoint(section: &Reader<'_>, endpoint: &Secret) {
    let parsed = Url::parse(endpoint.reveal()).ok().filter(|url| ["http", "https"].contains(&url.scheme()));
    let Some(endpoint) = parsed else {
        let what = "lake.options.endpoint is not a URL";
        let remedy = "write endpoint = \"https://host:port\"";
        section.wrong("endpoint", "INVALID_VALUE", what, "expected http:// or https:// and a host", remedy);
        return;
    };
    if endpoint.scheme() == "http" && !is_loopback(&endpoint) {
        let what = "lake.options.endpoint takes data and credentials in the clear beyond loopback";
        section.warn("endpoint", "CLEAR_TEXT", what, "expected https://", "use https:// or keep the network private");
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.to_canonical().is_loopback(),
        Some(url::Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        None => false,
    }
}

fn epoch(reader: Option<Reader<'_>>) -> EpochLimits {
    let mut epoch = EpochLimits::default();
    let Some(reader) = reader else { return epoch };
    epoch.max_age = reader.duration("max_age").unwrap_or(epoch.max_age);
    if let Some(bytes) = reader.size("max_bytes", EPOCH_BYTES_MIN, EPOCH_BYTES_MAX) {
        epoch.max_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    }
    if let Some(rows) = reader.integer("max_rows", 1, EPOCH_ROWS_MAX) {
        epoch.max_rows = usize::try_from(rows).unwrap_or(usize::MAX);
    }
    reader.finish();
    epoch
}
