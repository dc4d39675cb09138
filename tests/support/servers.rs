//! Real servers: installed once into a cache folder of the home directory, started on a free port, stopped when dropped.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::lab::free_address;
use super::wait_for;

/// The module and the version that the project has tried.
const VERSITYGW: &str = "github.com/versity/versitygw/cmd/versitygw@v1.8.0";
/// S3 asks for at least three letters.
pub(crate) const BUCKET: &str = "lake";
pub(crate) const ACCESS_KEY: &str = "test-access";
pub(crate) const SECRET_KEY: &str = "test-secret-key";

/// An S3 server that keeps objects as files.
pub(crate) struct Versitygw {
    binary: PathBuf,
    child: Child,
    address: String,
    data: TempDir,
}

impl Versitygw {
    /// `http://…`.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Takes the server away, in the middle of whatever it does.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Brings a killed server back on the same address with the same data.
    pub(crate) async fn start_again(&mut self) {
        self.child = launch(&self.binary, &self.address, self.data.path());
        self.healthy().await;
    }

    async fn healthy(&self) {
        let health = format!("{}/health", self.endpoint());
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        wait_for("versitygw", Duration::from_secs(30), async || {
            http.get(&health).send().await.ok().filter(|answer| answer.status().is_success()).map(drop)
        })
        .await;
    }

    /// The folder in which the bucket's objects lie under their keys.
    pub(crate) fn bucket(&self) -> PathBuf {
        self.data.path().join(BUCKET)
    }
}

impl Drop for Versitygw {
    fn drop(&mut self) {
        self.kill();
    }
}

fn launch(binary: &Path, address: &str, data: &Path) -> Child {
    Command::new(binary)
        .args(["--quiet", "--port", address, "--health", "/health", "posix"])
        .arg(data)
        .env("ROOT_ACCESS_KEY", ACCESS_KEY)
        .env("ROOT_SECRET_KEY", SECRET_KEY)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Starts versitygw with one bucket. `None`, said on stderr, where it cannot be had; that is a failure in CI.
pub(crate) async fn versitygw() -> Option<Versitygw> {
    let binary = match installed() {
        Ok(binary) => binary,
        Err(why) => {
            assert!(std::env::var_os("CI").is_none(), "versitygw cannot be had: {why}");
            eprintln!("SKIPPED: versitygw cannot be had: {why}");
            return None;
        }
    };
    let data = TempDir::new().unwrap();
    std::fs::create_dir(data.path().join(BUCKET)).unwrap();
    let address = free_address();
    let child = launch(&binary, &address, data.path());
    let server = Versitygw { binary, child, address, data };
    server.healthy().await;
    Some(server)
}

/// The binary in the cache folder, built by `go install` where it is not there yet.
fn installed() -> Result<PathBuf, String> {
    let home = std::env::var_os("HOME").ok_or("no HOME")?;
    let folder = Path::new(&home).join(".cache/lakefeed/bin");
    let binary = folder.join("versitygw");
    if binary.exists() {
        return Ok(binary);
    }
    // Built beside its place and moved there, so that two tests at once, or one that is killed, leave no half of it.
    let staging = TempDir::new().map_err(|error| error.to_string())?;
    let built = Command::new("go")
        .args(["install", "-ldflags=-s -w", VERSITYGW])
        .env("GOBIN", staging.path())
        .env("CGO_ENABLED", "0")
        .output()
        .map_err(|error| format!("go cannot be run: {error}"))?;
    if !built.status.success() {
        return Err(String::from_utf8_lossy(&built.stderr).into_owned());
    }
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let beside = folder.join(format!("versitygw.{}", std::process::id()));
    std::fs::copy(staging.path().join("versitygw"), &beside).map_err(|error| error.to_string())?;
    std::fs::rename(beside, &binary).map_err(|error| error.to_string())?;
    Ok(binary)
}
