//! From `[lake]` to a store.

use std::collections::BTreeMap;
use std::path::Path as FsPath;
use std::sync::Arc;
use std::time::Duration;

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
use crate::settings::{LakeSettings, lake_options};

/// What the client library tries again by itself; the protocol's own tries come on top.
const CLIENT_RETRIES: usize = 3;
/// The same in time: below the protocol's limit for one try.
const CLIENT_RETRY_FOR: Duration = Duration::from_secs(15);
/// One HTTP request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(25);

/// The store of `settings`, rooted at the lake.
pub(crate) fn open(settings: &LakeSettings, now_us: i64) -> Result<Arc<dyn ObjectStore>, LakeError> {
    let (scheme, rest) = settings.url.split_once(':').unwrap_or(("", ""));
    let Some(known) = lake_options(scheme) else {
        return Err(LakeError::config("lake_url", "the lake's url must begin with file:, s3://, gs:// or az://"));
    };
    let mut options = BTreeMap::new();
    for (key, value) in &settings.options {
        if !known.contains(&key.as_str()) {
            let expected = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let message = format!("{scheme} takes no option {key:?}; expected one of: {expected}");
            return Err(LakeError::config("lake_option", message));
        }
        options.insert(key.as_str(), value.reveal());
    }
    if scheme == "file" {
        let path = rest.strip_prefix("//").unwrap_or(rest);
        let store = FileStore::open(FsPath::new(path), now_us).map_err(|e| LakeError::store("open of the lake", &e))?;
        return Ok(Arc::new(store));
    }
    let url = Url::parse(&settings.url).map_err(|_| LakeError::config("lake_url", "the lake's url is malformed"))?;
    let bucket = url.host_str().filter(|host| !host.is_empty());
    let bucket = bucket.ok_or_else(|| LakeError::config("lake_url", "the lake's url names no bucket"))?;
    let client = ClientOptions::new().with_timeout(REQUEST_TIMEOUT);
    let store = cloud(scheme, bucket, &options, client)?;
    let prefix = url.path().trim_matches('/');
    if prefix.is_empty() {
        return Ok(store);
    }
    let prefix = Path::parse(prefix).map_err(|_| LakeError::config("lake_url", "the lake's url has a bad prefix"))?;
    Ok(Arc::new(PrefixStore::new(store, prefix)))
}

fn cloud(
    scheme: &str,
    bucket: &str,
    options: &BTreeMap<&str, &str>,
    client: ClientOptions,
) -> Result<Arc<dyn ObjectStore>, LakeError> {
    let retry = RetryConfig { max_retries: CLIENT_RETRIES, retry_timeout: CLIENT_RETRY_FOR, ..RetryConfig::default() };
    let client = match options.get("allow_http") {
        Some(allow) => client.with_config(ClientConfigKey::AllowHttp, *allow),
        // An operator who writes http:// means it.
        None => client.with_allow_http(options.get("endpoint").is_some_and(|e| e.starts_with("http://"))),
    };
    let others = options.iter().filter(|(key, _)| **key != "allow_http");
    let unknown = |key: &str| LakeError::config("lake_option", format!("{scheme} takes no option {key:?}"));
    let opened = match scheme {
        "s3" => {
            let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
            for (key, value) in others {
                let known: AmazonS3ConfigKey = key.parse().map_err(|_| unknown(key))?;
                builder = builder.with_config(known, *value);
            }
            builder.with_client_options(client).with_retry(retry).build().map(|s| Arc::new(s) as Arc<dyn ObjectStore>)
        }
        "gs" => {
            let mut builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket);
            for (key, value) in others {
                let known: GoogleConfigKey = key.parse().map_err(|_| unknown(key))?;
                builder = builder.with_config(known, *value);
            }
            builder.with_client_options(client).with_retry(retry).build().map(|s| Arc::new(s) as Arc<dyn ObjectStore>)
        }
        _ => {
            let mut builder = MicrosoftAzureBuilder::from_env().with_container_name(bucket);
            for (key, value) in others {
                let known: AzureConfigKey = key.parse().map_err(|_| unknown(key))?;
                builder = builder.with_config(known, *value);
            }
            builder.with_client_options(client).with_retry(retry).build().map(|s| Arc::new(s) as Arc<dyn ObjectStore>)
        }
    };
    opened.map_err(|error| LakeError::config("lake_option", super::error::scrub(&error.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::EpochLimits;
    use adapters::contract::config::Secret;

    fn settings(url: &str, options: &[(&str, &str)]) -> LakeSettings {
        let options = options.iter().map(|(k, v)| ((*k).to_owned(), Secret::literal(*v))).collect();
        LakeSettings { url: url.to_owned(), options, epoch: EpochLimits::default() }
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
        for key in checked("gs") {
            assert!(key.parse::<GoogleConfigKey>().is_ok(), "{key}");
        }
        for key in checked("az") {
            assert!(key.parse::<AzureConfigKey>().is_ok(), "{key}");
        }
    }

    #[test]
    fn test_clouds_open_without_a_request() {
        let s3 =
            [("endpoint", "http://127.0.0.1:9"), ("region", "r"), ("access_key_id", "a"), ("secret_access_key", "s")];
        assert!(open(&settings("s3://bucket/prefix", &s3), 0).is_ok());
        assert!(open(&settings("az://container", &[("use_emulator", "true")]), 0).is_ok());
    }
}
