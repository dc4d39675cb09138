//! What stands for the other clouds: Azurite for Azure, fake-gcs-server for Google.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use object_store::ObjectStore;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::had;
use super::install::{go_program, node_packages};
use super::mirror::Mirror;
use crate::support::lab::{Lab, free_address};
use crate::support::{PATIENCE, Synthetic, wait_for};

const FAKE_GCS: &str = "github.com/fsouza/fake-gcs-server@v1.56.1";
/// The container, or bucket.
const CONTAINER: &str = "lake";
const ACCOUNT: &str = "testaccount";
/// What the account's keys are before they are encoded.
const KEY: &[u8] = b"a key of this test and of nobody else";
const NEXT_KEY: &[u8] = b"what the account's key is changed to";
/// No request of a test is larger.
const BODY_MAX: usize = 64 << 20;

fn http() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// A process that ends when dropped.
struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running Azurite with one container.
pub(crate) struct Azurite {
    process: Process,
    folder: PathBuf,
    address: String,
    endpoint: String,
    data: TempDir,
}

/// The account's key as clients take it.
pub(crate) fn azure_key() -> String {
    STANDARD.encode(KEY)
}

/// The one that it is changed to.
pub(crate) fn azure_next_key() -> String {
    STANDARD.encode(NEXT_KEY)
}

/// Starts Azurite. `None`, said on stderr, where it cannot be had; that is a failure in CI.
pub(crate) async fn azurite() -> Option<Azurite> {
    let (package, lock) = (include_str!("azurite/package.json"), include_str!("azurite/package-lock.json"));
    let folder = had("Azurite", node_packages("azurite", package, lock))?;
    let data = TempDir::new().unwrap();
    let address = free_address();
    let process = launch(&folder, &address, data.path(), &azure_key());
    let endpoint = format!("http://{address}/{ACCOUNT}");
    let server = Azurite { process, folder, address, endpoint, data };
    wait_for("Azurite", PATIENCE, async || server.make_container().await.then_some(())).await;
    Some(server)
}

fn launch(folder: &Path, address: &str, data: &Path, key: &str) -> Process {
    let (host, port) = address.split_once(':').unwrap();
    let mut command = Command::new("node");
    command
        .arg(folder.join("node_modules/azurite/dist/src/blob/main.js"))
        .args(["--silent", "--disableTelemetry", "--blobHost", host, "--blobPort", port, "--location"])
        .arg(data)
        .env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{key}"));
    Process::start(&mut command)
}

/// HMAC-SHA256.
fn signature(key: &[u8], text: &str) -> String {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let inner = Sha256::new().chain_update(block.map(|b| b ^ 0x36)).chain_update(text).finalize();
    STANDARD.encode(Sha256::new().chain_update(block.map(|b| b ^ 0x5c)).chain_update(inner).finalize())
}

impl Azurite {
    /// No client of ours makes containers, so this is signed by hand. False while nobody listens.
    async fn make_container(&self) -> bool {
        const VERSION: &str = "2021-08-06";
        let date = chrono::Utc::now().format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let signed = format!(
            "PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:{date}\nx-ms-version:{VERSION}\n\
             /{ACCOUNT}/{ACCOUNT}/{CONTAINER}\nrestype:container"
        );
        let request = http()
            .put(format!("{}/{CONTAINER}?restype=container", self.endpoint))
            .header("x-ms-date", date)
            .header("x-ms-version", VERSION)
            .header("content-length", "0")
            .header("authorization", format!("SharedKey {ACCOUNT}:{}", signature(KEY, &signed)));
        let Ok(answer) = request.send().await else { return false };
        let (status, said) = (answer.status(), answer.text().await.unwrap());
        assert!(status == 201, "{status}: {said}");
        true
    }

    /// Ends the server in order, since it keeps its index in memory, and starts it with the account's next key.
    pub(crate) async fn change_key(&mut self) {
        let stopped = Command::new("kill").args(["-s", "TERM", &self.process.0.id().to_string()]).status().unwrap();
        assert!(stopped.success());
        self.process.0.wait().unwrap();
        self.process = launch(&self.folder, &self.address, self.data.path(), &azure_next_key());
        wait_for("Azurite", PATIENCE, async || http().get(&self.endpoint).send().await.ok().map(drop)).await;
    }

    /// A client of the container.
    pub(crate) fn client(&self) -> Arc<dyn ObjectStore> {
        azure_client(&self.endpoint, azure_key())
    }

    /// Has the lake read with the account's next key from now on.
    pub(crate) fn read_with_next_key(&self, lab: &mut Lab) {
        let endpoint = self.endpoint.clone();
        lab.mirror(Mirror::new(move || azure_client(&endpoint, azure_next_key())));
    }

    /// A lake on this server, with the account's key as it stands in the configuration.
    pub(crate) fn lab_with(&self, stream: &Synthetic, key: &str) -> Lab {
        self.lab_in(CONTAINER, stream, key)
    }

    /// The same in a container of the caller's.
    pub(crate) fn lab_in(&self, container: &str, stream: &Synthetic, key: &str) -> Lab {
        let endpoint = self.endpoint.clone();
        let options = format!("{{ endpoint = {endpoint:?}, account_name = {ACCOUNT:?}, access_key = {key} }}");
        let mut lab = Lab::on_store(&stream.config(), &format!("az://{container}/prefix"), &options);
        lab.mirror(Mirror::new(move || azure_client(&endpoint, azure_key())));
        lab
    }

    /// The same with the account's key.
    pub(crate) fn lab(&self, stream: &Synthetic) -> Lab {
        self.lab_with(stream, &format!("{:?}", azure_key()))
    }
}

fn azure_client(endpoint: &str, key: String) -> Arc<dyn ObjectStore> {
    let store = MicrosoftAzureBuilder::new()
        .with_endpoint(endpoint.to_owned())
        .with_account(ACCOUNT)
        .with_access_key(key)
        .with_container_name(CONTAINER)
        .with_allow_http(true);
    Arc::new(store.build().unwrap())
}

/// A running fake-gcs-server with one bucket, behind a front.
///
/// The server takes uploads in Google's JSON way only, our client makes them in the XML way. The front turns the one
/// into the other, precondition and all; everything else passes as it is.
pub(crate) struct Gcs {
    _process: Process,
    /// Of its own: tests block theirs while they read the lake.
    front: Option<Runtime>,
    endpoint: String,
    data: TempDir,
}

/// What becomes of the precondition of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conditions {
    Kept,
    /// As by a store that never heard of them.
    Ignored,
}

/// Starts fake-gcs-server; as [`azurite`].
pub(crate) async fn gcs(conditions: Conditions) -> Option<Gcs> {
    let binary = had("fake-gcs-server", go_program("fake-gcs-server", FAKE_GCS, "fake-gcs-server"))?;
    let data = TempDir::new().unwrap();
    fs::create_dir(data.path().join(CONTAINER)).unwrap();
    let address = free_address();
    let (host, port) = address.split_once(':').unwrap();
    let mut command = Command::new(binary);
    command
        .args(["-scheme", "http", "-host", host, "-port", port, "-public-host", &address])
        .args(["-backend", "filesystem", "-filesystem-root"])
        .arg(data.path());
    let process = Process::start(&mut command);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let state = Arc::new(Front { http: http(), upstream: format!("http://{address}"), conditions });
    let router = Router::new().fallback(pass).with_state(state);
    let front = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    front.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        axum::serve(listener, router).await.unwrap();
    });
    let server = Gcs { _process: process, front: Some(front), endpoint, data };
    wait_for("fake-gcs-server", PATIENCE, async || {
        let health = format!("http://{address}/_internal/healthcheck");
        http().get(health).send().await.ok().filter(|answer| answer.status().is_success()).map(drop)
    })
    .await;
    Some(server)
}

struct Front {
    http: reqwest::Client,
    upstream: String,
    conditions: Conditions,
}

async fn pass(State(front): State<Arc<Front>>, request: Request) -> Response {
    const CONDITION: &str = "x-goog-if-generation-match";
    let (head, body) = request.into_parts();
    let body = to_bytes(body, BODY_MAX).await.unwrap();
    let path = head.uri.path_and_query().map_or("", |path| path.as_str());
    let upload = head.method == "PUT";
    let mut asked = match path.trim_start_matches('/').split_once('/').filter(|_| upload) {
        Some((bucket, name)) => {
            let mut url = format!("{}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}", front.upstream);
            let condition = head.headers.get(CONDITION).filter(|_| front.conditions == Conditions::Kept);
            if let Some(generation) = condition {
                url += &format!("&ifGenerationMatch={}", generation.to_str().unwrap());
            }
            front.http.post(url)
        }
        None => front.http.request(head.method, format!("{}{path}", front.upstream)),
    };
    for (name, value) in head.headers.iter().filter(|(name, _)| *name != "host" && *name != CONDITION) {
        asked = asked.header(name, value);
    }
    let answer = asked.body(body).send().await;
    let Ok(answer) = answer else { return Response::builder().status(502).body(Body::empty()).unwrap() };
    let mut told = Response::builder().status(answer.status());
    for (name, value) in answer.headers().iter().filter(|(name, _)| *name != "transfer-encoding") {
        told = told.header(name, value);
    }
    if !upload || !answer.status().is_success() {
        return told.body(Body::from(answer.bytes().await.unwrap())).unwrap();
    }
    // The XML way tells in headers what the JSON way tells in the body.
    let made: serde_json::Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    let text = |key: &str| made[key].as_str().unwrap().to_owned();
    let told = Response::builder().status(200).header("etag", text("etag"));
    told.header("x-goog-generation", text("generation")).body(Body::empty()).unwrap()
}

impl Drop for Gcs {
    fn drop(&mut self) {
        self.front.take().unwrap().shutdown_background();
    }
}

impl Gcs {
    /// A client of the bucket.
    pub(crate) fn client(&self) -> Arc<dyn ObjectStore> {
        gcs_client(&self.endpoint)
    }

    /// A lake on this server.
    pub(crate) fn lab(&self, stream: &Synthetic) -> Lab {
        // Not looked at by the server; the client wants one.
        let account = self.data.path().join("account.json");
        fs::write(&account, ACCOUNT_FILE).unwrap();
        let endpoint = self.endpoint.clone();
        let options = format!("{{ endpoint = {endpoint:?}, service_account = {:?} }}", account.to_str().unwrap());
        let mut lab = Lab::on_store(&stream.config(), &format!("gs://{CONTAINER}/prefix"), &options);
        lab.mirror(Mirror::new(move || gcs_client(&endpoint)));
        lab
    }
}

/// A service account that asks nobody for tokens.
const ACCOUNT_FILE: &str = r#"{"private_key": "", "private_key_id": "", "client_email": "", "disable_oauth": true}"#;

fn gcs_client(endpoint: &str) -> Arc<dyn ObjectStore> {
    let store = GoogleCloudStorageBuilder::new()
        .with_config("google_base_url".parse().unwrap(), endpoint)
        .with_service_account_key(ACCOUNT_FILE)
        .with_bucket_name(CONTAINER)
        .with_client_options(object_store::ClientOptions::new().with_allow_http(true));
    Arc::new(store.build().unwrap())
}
