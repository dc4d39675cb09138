//! S3 servers: versitygw, whose objects are files under their keys, and MinIO, the one that is met in the field.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use tempfile::TempDir;

use super::had;
use super::install::go_program;
use super::mirror::Mirror;
use crate::support::lab::{Lab, free_address};
use crate::support::{PATIENCE, Synthetic, wait_for};

/// The modules and the versions that the project has tried.
const VERSITYGW: &str = "github.com/versity/versitygw/cmd/versitygw@v1.8.0";
const MINIO: &str = "github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c";
/// S3 asks for at least three letters.
pub(crate) const BUCKET: &str = "lake";
pub(crate) const ACCESS_KEY: &str = "test-access";
pub(crate) const SECRET_KEY: &str = "test-secret-key";
/// What a node gets so that `env:TEST_S3_SECRET` leads to the key.
pub(crate) const ENV: [(&str, &str); 1] = [("TEST_S3_SECRET", SECRET_KEY)];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Brand {
    Versitygw,
    Minio,
}

/// Access key and secret key, which the reader of a lake follows, too.
type Keys = Arc<Mutex<(String, String)>>;

/// A running S3 server with one bucket.
pub(crate) struct S3 {
    brand: Brand,
    binary: PathBuf,
    child: Child,
    address: String,
    data: PathBuf,
    keys: Keys,
    _own: Option<TempDir>,
}

impl S3 {
    async fn start(brand: Brand, own: Option<TempDir>, data: PathBuf) -> Option<Self> {
        let binary = match brand {
            Brand::Versitygw => had("versitygw", go_program("versitygw", VERSITYGW, "versitygw")),
            Brand::Minio => had("MinIO", go_program("minio", MINIO, "minio")),
        }?;
        fs::create_dir(data.join(BUCKET)).unwrap();
        let keys: Keys = Arc::new(Mutex::new((ACCESS_KEY.to_owned(), SECRET_KEY.to_owned())));
        let address = free_address();
        let child = launch(brand, &binary, &address, &data, &keys);
        let server = Self { brand, binary, child, address, data, keys, _own: own };
        server.healthy().await;
        Some(server)
    }

    /// `http://…`.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Host and port.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Takes the server away, in the middle of whatever it does.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Brings a killed server back on the same address with the same data.
    pub(crate) async fn start_again(&mut self) {
        self.child = launch(self.brand, &self.binary, &self.address, &self.data, &self.keys);
        self.healthy().await;
    }

    /// From its next start on it knows these keys only.
    pub(crate) fn change_keys(&mut self, access: &str, secret: &str) {
        *self.keys.lock().unwrap() = (access.to_owned(), secret.to_owned());
    }

    async fn healthy(&self) {
        let path = match self.brand {
            Brand::Versitygw => "/health",
            Brand::Minio => "/minio/health/ready",
        };
        let health = format!("{}{path}", self.endpoint());
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        wait_for("the S3 server", PATIENCE, async || {
            http.get(&health).send().await.ok().filter(|answer| answer.status().is_success()).map(drop)
        })
        .await;
    }

    /// A lake on this server for nodes of this configuration, reached through `endpoint`, read back past it.
    pub(crate) fn lab_of(&self, config: &str, endpoint: &str) -> Lab {
        self.lab_with(config, endpoint, &format!("{ACCESS_KEY:?}"), "\"env:TEST_S3_SECRET\"")
    }

    /// The same for `stream`.
    pub(crate) fn lab(&self, stream: &Synthetic, endpoint: &str) -> Lab {
        self.lab_of(&stream.config(), endpoint)
    }

    /// The same with the keys as they stand in the configuration.
    pub(crate) fn lab_with(&self, config: &str, endpoint: &str, access: &str, secret: &str) -> Lab {
        let options = format!(
            "{{ endpoint = {endpoint:?}, region = \"us-east-1\", access_key_id = {access}, \
             secret_access_key = {secret}, allow_http = \"true\" }}"
        );
        let mut lab = Lab::on_store(config, &format!("s3://{BUCKET}/prefix"), &options);
        match self.brand {
            Brand::Versitygw => lab.read_at(self.data.join(BUCKET).join("prefix")),
            Brand::Minio => {
                let (endpoint, keys) = (self.endpoint(), Arc::clone(&self.keys));
                lab.mirror(Mirror::new(move || client(&endpoint, &keys)));
            }
        }
        lab
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.kill();
    }
}

fn launch(brand: Brand, binary: &Path, address: &str, data: &Path, keys: &Keys) -> Child {
    let keys = keys.lock().unwrap().clone();
    let mut command = Command::new(binary);
    match brand {
        Brand::Versitygw => command
            .args(["--quiet", "--port", address, "--health", "/health", "posix"])
            .env("ROOT_ACCESS_KEY", &keys.0)
            .env("ROOT_SECRET_KEY", &keys.1),
        Brand::Minio => command
            .args(["server", "--quiet", "--address", address])
            .env("MINIO_ROOT_USER", &keys.0)
            .env("MINIO_ROOT_PASSWORD", &keys.1)
            .env("MINIO_BROWSER", "off"),
    };
    command.arg(data).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Starts versitygw. `None`, said on stderr, where it cannot be had; that is a failure in CI.
pub(crate) async fn versitygw() -> Option<S3> {
    let own = TempDir::new().unwrap();
    let data = own.path().to_owned();
    S3::start(Brand::Versitygw, Some(own), data).await
}

/// The same on a folder of the caller's.
pub(crate) async fn versitygw_on(data: &Path) -> Option<S3> {
    S3::start(Brand::Versitygw, None, data.to_owned()).await
}

/// Starts MinIO; as [`versitygw`].
pub(crate) async fn minio() -> Option<S3> {
    let own = TempDir::new().unwrap();
    let data = own.path().to_owned();
    S3::start(Brand::Minio, Some(own), data).await
}

/// The same on a folder of the caller's, whose file system takes direct writes.
pub(crate) async fn minio_on(data: &Path) -> Option<S3> {
    S3::start(Brand::Minio, None, data.to_owned()).await
}

fn client(endpoint: &str, keys: &Keys) -> Arc<dyn ObjectStore> {
    let (access, secret) = keys.lock().unwrap().clone();
    let store = AmazonS3Builder::new()
        .with_endpoint(endpoint)
        .with_region("us-east-1")
        .with_bucket_name(BUCKET)
        .with_access_key_id(access)
        .with_secret_access_key(secret)
        .with_allow_http(true);
    Arc::new(store.build().unwrap())
}
