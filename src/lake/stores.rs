//! From `[lake]` to a store.

use std::path::Path as FsPath;
use std::sync::Arc;
use std::time::Duration;

use adapters::contract::config::SecretSource;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::ClientConfigKey;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use url::Url;

use super::error::LakeError;
use super::file_store::FileStore;
use super::renew::{Make, Renewing, Values};
use crate::settings::{LakeSettings, lake_options};

/// The client library tries nothing again by itself: the lake's own tries know of the circuit, and a put that was made
/// twice behind its back would find its own object and look like a conflict.
const CLIENT_RETRIES: usize = 0;
/// A host that does not take a connection within this time is not there. Shorter than the guard waits for an answer
/// (`REMOTE_ANSWER` in `io.rs`), so that it is told as absent and not as silent.
///
/// Nothing else is limited here. How long a request may take depends on what it carries, which `guard.rs` knows: it
/// drops a request that is late, and with it the connection. A second limit beneath would either never be reached or
/// give up what the guard still grants, and a large put on a slow link would then never end. What the store has of a dropped
/// request it may carry out all the same, as after any lost answer; the protocol looks before it goes on.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle connections are closed after this long, before most servers and balancers do it without a word.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// The store of `settings`, rooted at the lake. `secrets` is where the references of its options lead.
pub(crate) fn open(
    settings: &LakeSettings,
    secrets: Arc<dyn SecretSource>,
    now_us: i64,
) -> Result<Arc<dyn ObjectStore>, LakeError> {
    let (scheme, rest) = settings.url.split_once(':').unwrap_or(("", ""));
    let Some(known) = lake_options(scheme) else {
        return Err(LakeError::config("lake_url", "the lake's url must begin with file:, s3://, gs:// or az://"));
    };
    for key in settings.options.keys() {
        if !known.contains(&key.as_str()) {
            let expected = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let message = format!("{scheme} takes no option {key:?}; expected one of: {expected}");
            return Err(LakeError::config("lake_option", message));
        }
    }
    if scheme == "file" {
        let path = rest.strip_prefix("//").unwrap_or(rest);
        let store = FileStore::open(FsPath::new(path), now_us).map_err(|e| LakeError::store("open of the lake", &e))?;
        return Ok(Arc::new(store));
    }
    let url = Url::parse(&settings.url).map_err(|_| LakeError::config("lake_url", "the lake's url is malformed"))?;
    let bucket = url.host_str().filter(|host| !host.is_empty());
    let bucket = bucket.ok_or_else(|| LakeError::config("lake_url", "the lake's url names no bucket"))?;
    let (scheme, bucket) = (scheme.to_owned(), bucket.to_owned());
    let make: Make = Box::new(move |values| cloud(&scheme, &bucket, values));
    let store: Arc<dyn ObjectStore> = Arc::new(Renewing::new(&settings.options, secrets, make)?);
    let prefix = url.path().trim_matches('/');
    if prefix.is_empty() {
        return Ok(store);
    }
    let prefix = Path::parse(prefix).map_err(|_| LakeError::config("lake_url", "the lake's url has a bad prefix"))?;
    Ok(Arc::new(PrefixStore::new(store, prefix)))
}

/// What Google's client calls the endpoint, which all others call so.
const ENDPOINT_GS: &str = "google_base_url";

/// Opens a builder with the options that are its own.
macro_rules! built {
    ($builder:expr, $key:ty, $options:expr, $scheme:expr, $client:expr, $retry:expr) => {{
        let mut builder = $builder;
        for (key, value) in $options {
            let unknown = |_| LakeError::config("lake_option", format!("{} takes no option {key:?}", $scheme));
            builder = builder.with_config(key.parse::<$key>().map_err(unknown)?, value);
        }
        let built = builder.with_client_options($client).with_retry($retry).build();
        built.map(|store| Arc::new(store) as Arc<dyn ObjectStore>)
    }};
}

fn client(options: &Values) -> ClientOptions {
    let client = ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_pool_idle_timeout(IDLE_TIMEOUT);
    match options.get("allow_http") {
        Some(allow) => client.with_config(ClientConfigKey::AllowHttp, allow),
        // An operator who writes http:// means it.
        None => client.with_allow_http(options.get("endpoint").is_some_and(|e| e.starts_with("http://"))),
    }
}

fn cloud(scheme: &str, bucket: &str, options: &Values) -> Result<Arc<dyn ObjectStore>, LakeError> {
    let retry = RetryConfig { max_retries: CLIENT_RETRIES, ..RetryConfig::default() };
    let client = client(options);
    let others = options.iter().filter(|(key, _)| *key != "allow_http");
    let opened = match scheme {
        "s3" => {
            let builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
            built!(builder, AmazonS3ConfigKey, others, scheme, client, retry)
        }
        "gs" => {
            let builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket);
            let others = others.map(|(key, value)| match key.as_str() {
                // Paths are added with their slash.
                "endpoint" => (ENDPOINT_GS, value.trim_end_matches('/')),
                key => (key, value.as_str()),
            });
            built!(builder, GoogleConfigKey, others, scheme, client, retry)
        }
        _ => {
            let builder = MicrosoftAzureBuilder::from_env().with_container_name(bucket);
            built!(builder, AzureConfigKey, others, scheme, client, retry)
        }
    };
    // What the client says of an option may show its value.
    opened.map_err(|error| LakeError::config("lake_option", super::error::scrub(&error.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::EpochLimits;
    use adapters::contract::config::{MapSecrets, Secret};
    use serde_json::json;

    fn settings(url: &str, options: &[(&str, &str)]) -> LakeSettings {
        let options = options.iter().map(|(k, v)| ((*k).to_owned(), Secret::literal(*v))).collect();
        LakeSettings { url: url.to_owned(), options, epoch: EpochLimits::default() }
    }

    fn open(settings: &LakeSettings, now_us: i64) -> Result<Arc<dyn ObjectStore>, LakeError> {
        super::open(settings, Arc::new(MapSecrets::default()), now_us)
    }

    #[test]
    fn test_options_outside_the_list_are_refused() {
        let error = open(&settings("s3://b/p", &[("proxy_url", "http://x")]), 0).unwrap_err();
        assert_eq!(error.code, "lake_option");
        assert!(error.message.contains("\"proxy_url\"") && !error.message.contains("://"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file:{}", folder.path().display());
        assert!(open(&settings(&url, &[("region", "x")]), 0).is_err());
        assert!(open(&settings(&url, &[]), 0).is_ok());
        assert!(open(&settings("ftp://x", &[]), 0).is_err());
        assert!(open(&settings("s3:///x", &[]), 0).is_err());
    }

    #[test]
    fn test_every_option_of_the_lists_is_known_to_its_store() {
        let checked = |scheme| lake_options(scheme).expect(scheme).iter().filter(|key| **key != "allow_http");
        for key in checked("s3") {
            assert!(key.parse::<AmazonS3ConfigKey>().is_ok(), "{key}");
        }
        assert!(ENDPOINT_GS.parse::<GoogleConfigKey>().is_ok());
        for key in checked("gs").filter(|key| **key != "endpoint") {
            assert!(key.parse::<GoogleConfigKey>().is_ok(), "{key}");
        }
        for key in checked("az") {
            assert!(key.parse::<AzureConfigKey>().is_ok(), "{key}");
        }
    }

    #[test]
    fn test_no_request_is_given_up_by_the_client_before_the_guard_does() {
        let client = client(&Values::new());
        assert_eq!(client.get_config_value(&ClientConfigKey::Timeout), None);
        assert!(CONNECT_TIMEOUT < super::super::io::REMOTE_ANSWER);
    }

    #[test]
    fn test_clouds_open_without_a_request() {
        let s3 = [
            ("endpoint", "http://127.0.0.1:9"),
            ("region", "r"),
            ("access_key_id", "a"),
            ("secret_access_key", "s"),
            ("session_token", "t"),
            ("virtual_hosted_style_request", "false"),
            ("unsigned_payload", "true"),
            ("allow_http", "true"),
        ];
        assert!(open(&settings("s3://bucket/prefix", &s3), 0).is_ok());
        // A well-known key of an emulator, as base64 as any.
        let key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
        let az: [&[(&str, &str)]; 4] = [
            &[("use_emulator", "true")],
            &[("account_name", "a"), ("access_key", key)],
            &[("account_name", "a"), ("sas_key", "sv=1&sig=x"), ("endpoint", "https://a.example.org")],
            &[("account_name", "a"), ("client_id", "i"), ("client_secret", "s"), ("tenant_id", "t")],
        ];
        for options in az {
            assert!(open(&settings("az://container/prefix", options), 0).is_ok(), "{options:?}");
        }
        let account = json!({
            "private_key": "not read before the first request", "private_key_id": "1",
            "client_email": "a@example.org", "disable_oauth": true, "gcs_base_url": "http://127.0.0.1:9",
        })
        .to_string();
        let elsewhere = [("service_account_key", account.as_str()), ("endpoint", "http://127.0.0.1:9/")];
        assert!(open(&settings("gs://bucket/prefix", &elsewhere), 0).is_ok());
        let opened = open(&settings("gs://bucket/prefix", &[("service_account_key", &account)]), 0);
        assert!(opened.is_ok(), "{:?}", opened.err());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("account.json");
        std::fs::write(&file, &account).unwrap();
        assert!(open(&settings("gs://bucket", &[("service_account", file.to_str().unwrap())]), 0).is_ok());
    }

    #[test]
    fn test_an_option_of_a_bad_value_is_refused_without_showing_it() {
        let canary = "canary-0123456789-abcdefghij";
        for (url, key) in [
            ("s3://bucket", "unsigned_payload"),
            ("az://container", "access_key"),
            ("gs://bucket", "service_account_key"),
        ] {
            let mut options = vec![(key, canary)];
            if url.starts_with("az") {
                options.push(("account_name", "a"));
            }
            let error = open(&settings(url, &options), 0).unwrap_err();
            assert_eq!((error.class, error.code), (super::super::LakeErrorClass::Config, "lake_option"), "{error}");
            assert!(!error.message.contains("canary"), "{error}");
        }
    }
}
