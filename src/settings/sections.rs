//! `[node]`, `[api]`, `[supervision]`, and `restart` of adapters and streams.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use adapters::contract::config::{Reader, Secret, show_duration};

use super::{ApiSettings, NodeSettings, RestartSettings, SecretKey};

/// Shorter tokens can be guessed.
const TOKEN_CHARS_MIN: usize = 16;
const QUEUE_BYTES_DEFAULT: usize = 256 << 20;
/// Less would not hold one body of the default size for each of a few workers.
const QUEUE_BYTES_MIN: u64 = 16 << 20;
const QUEUE_BYTES_MAX: u64 = 1 << 40;
const DRAIN_DEFAULT: Duration = Duration::from_secs(30);
const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7400);
/// A day: a window that is longer never forgets, and the limit would be reached by age alone.
const WINDOW_SECONDS_MAX: i64 = 86_400;
const RESTARTS_MAX: i64 = 10_000;

/// `[node]`; all its keys have defaults.
pub(super) fn node(reader: Option<Reader<'_>>, folder: &Path) -> NodeSettings {
    let mut node = NodeSettings {
        name: "node-1".to_owned(),
        state_dir: folder.join("state"),
        drain: DRAIN_DEFAULT,
        queue_bytes: QUEUE_BYTES_DEFAULT,
        secrets_key: None,
    };
    let Some(reader) = reader else { return node };
    if let Some(name) = reader.string("name") {
        if !is_node_name(&name) {
            let what = format!("node.name is {}", reader.shown("name", &name));
            reader.wrong(
                "name",
                "INVALID_NAME",
                what,
                "expected [A-Za-z0-9][A-Za-z0-9._-]{0,62}",
                "choose such a name",
            );
        }
        node.name = name;
    }
    if let Some(dir) = reader.string("state_dir") {
        if dir.is_empty() {
            let remedy = "write state_dir = \"state\"";
            reader.wrong("state_dir", "INVALID_VALUE", "node.state_dir is empty", "expected a folder", remedy);
        }
        node.state_dir = absolute(folder, &dir);
    }
    node.drain = reader.duration("drain").unwrap_or(node.drain);
    if let Some(bytes) = reader.size("queue", QUEUE_BYTES_MIN, QUEUE_BYTES_MAX) {
        node.queue_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    }
    node.secrets_key = reader.secret("secrets_key").and_then(|secret| secret_key(&reader, &secret));
    reader.finish();
    node
}

/// `dir` against `folder`, whatever the working directory becomes later.
pub(super) fn absolute(folder: &Path, dir: &str) -> PathBuf {
    let path = folder.join(dir);
    std::path::absolute(&path).unwrap_or(path)
}

fn is_node_name(name: &str) -> bool {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    first && name.len() <= 63 && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Enough of a wrong name to recognise it.
pub(super) fn shorten(name: &str) -> String {
    name.chars().take(80).collect()
}

fn secret_key(reader: &Reader<'_>, secret: &Secret) -> Option<Arc<SecretKey>> {
    let mut key = [0; 32];
    if hex::decode_to_slice(secret.reveal(), &mut key).is_err() {
        let expected = "expected 64 hexadecimal digits";
        let remedy = "make one with: openssl rand -hex 32";
        reader.wrong("secrets_key", "INVALID_VALUE", "node.secrets_key is not a key", expected, remedy);
        return None;
    }
    if secret.reference().is_none() {
        let expected = "expected a reference";
        let remedy = "write secrets_key = \"file:node.key\" and keep the file from others";
        reader.warn(
            "secrets_key",
            "SECRET_IN_FILE",
            "node.secrets_key is written out in the configuration",
            expected,
            remedy,
        );
    }
    Some(Arc::new(SecretKey(key)))
}

/// `[api]`; all its keys have defaults.
pub(super) fn api(reader: Option<Reader<'_>>) -> ApiSettings {
    let mut api = ApiSettings { listen: LISTEN_DEFAULT, token: None };
    let Some(reader) = reader else { return api };
    let listen = reader.string("listen");
    match listen.as_deref().map(str::parse) {
        Some(Ok(address)) => api.listen = address,
        Some(Err(_)) => {
            let what = format!("api.listen is {}", reader.shown("listen", listen.as_deref().unwrap_or_default()));
            let remedy = "write listen = \"127.0.0.1:7400\"";
            reader.wrong("listen", "INVALID_VALUE", what, "expected an IP address and a port", remedy);
        }
        None => {}
    }
    api.token = reader.secret("token");
    let outside = !api.listen.ip().to_canonical().is_loopback();
    if outside && !reader.has("token") {
        reader.wrong(
            "listen",
            "TOKEN_REQUIRED",
            format!("api.listen is {}, which others can reach", api.listen),
            "expected api.token beyond loopback",
            "add token = \"env:LAKEFEED_TOKEN\" or listen on 127.0.0.1",
        );
    }
    if let Some(token) = &api.token {
        check_token(&reader, token, outside);
    }
    reader.finish();
    api
}

fn check_token(reader: &Reader<'_>, token: &Secret, outside: bool) {
    if token.reveal().chars().count() < TOKEN_CHARS_MIN {
        let what = format!("api.token has fewer than {TOKEN_CHARS_MIN} characters");
        let remedy = "make one with: openssl rand -hex 32";
        reader.wrong("token", "TOKEN_TOO_SHORT", what, format!("expected {TOKEN_CHARS_MIN} or more"), remedy);
    } else if !token.reveal().bytes().all(|b| b.is_ascii_graphic()) {
        let expected = "expected printable ASCII without spaces, which fits into a header";
        let remedy = "make one with: openssl rand -hex 32";
        reader.wrong("token", "INVALID_VALUE", "api.token cannot be sent in an Authorization header", expected, remedy);
    }
    if outside {
        let what = "api.token travels in the clear beyond loopback";
        let remedy = "listen on loopback behind a proxy that speaks TLS, or keep the network private";
        reader.warn("listen", "CLEAR_TEXT", what, "expected an encrypted way", remedy);
    }
}

/// The keys of `[supervision]` and of `restart`, over `base`.
pub(super) fn restart(reader: Option<Reader<'_>>, base: &RestartSettings) -> RestartSettings {
    let mut restart = base.clone();
    let Some(reader) = reader else { return restart };
    if let Some(count) = reader.integer("max_restarts", 0, RESTARTS_MAX) {
        restart.max_restarts = u32::try_from(count).unwrap_or(u32::MAX);
    }
    if let Some(seconds) = reader.integer("max_seconds", 1, WINDOW_SECONDS_MAX) {
        restart.window = Duration::from_secs(u64::try_from(seconds).unwrap_or(1));
    }
    restart.probe = reader.duration("probe").unwrap_or(restart.probe);
    if let Some(backoff) = reader.section("backoff") {
        restart.backoff_min = backoff.duration("min").unwrap_or(restart.backoff_min);
        restart.backoff_max = backoff.duration("max").unwrap_or(restart.backoff_max);
        restart.backoff_factor = backoff.number("factor", 1.0, 10.0).unwrap_or(restart.backoff_factor);
        restart.backoff_jitter = backoff.number("jitter", 0.0, 1.0).unwrap_or(restart.backoff_jitter);
        restart.reset_after = backoff.duration("reset_after").unwrap_or(restart.reset_after);
        if restart.backoff_min > restart.backoff_max {
            let key = if backoff.has("min") { "min" } else { "max" };
            let what = format!("{} is {}", backoff.path_of("min"), show_duration(restart.backoff_min));
            let expected = format!("expected at most max, which is {}", show_duration(restart.backoff_max));
            backoff.wrong(key, "OUT_OF_RANGE", what, expected, "lower min or raise max");
        }
        backoff.finish();
    }
    reader.finish();
    restart
}
