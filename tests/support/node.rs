//! The built binary as a process.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::{PATIENCE, wait_for};

/// Beyond what the API gives itself for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// A running `lakefeed run`. It is killed when dropped.
pub(crate) struct Node {
    child: Child,
    api: String,
    log: PathBuf,
    http: reqwest::Client,
}

impl Node {
    /// Starts the binary on `config`, with `env` added, its stderr in `log`.
    pub(crate) fn spawn(config: &Path, log: &Path, api: &str, env: &[(&str, &str)]) -> Self {
        let stderr = File::create(log).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_lakefeed"))
            .args(["run", "-c"])
            .arg(config)
            .env_remove("LAKEFEED_CRASH")
            .env_remove("LAKEFEED_BUG")
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap();
        // A kept connection may be closed by the node, which has a limit for idle ones, just when it is used again.
        let http = reqwest::Client::builder().timeout(ANSWER_MAX).no_proxy().pool_max_idle_per_host(0).build().unwrap();
        Self { child, api: format!("http://{api}"), log: log.to_owned(), http }
    }

    /// Everything it wrote to stderr so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until `/health/ready` says yes.
    pub(crate) async fn ready(&mut self) {
        self.up("/health/ready").await;
    }

    /// Waits until the API answers.
    pub(crate) async fn live(&mut self) {
        self.up("/health/live").await;
    }

    async fn up(&mut self, path: &str) {
        let began = std::time::Instant::now();
        loop {
            let answer = self.http.get(format!("{}{path}", self.api)).send().await;
            let said = match answer {
                Ok(answer) if answer.status().is_success() => return,
                Ok(answer) => answer.text().await.unwrap_or_default(),
                Err(error) => error.to_string(),
            };
            if let Some(status) = self.exited() {
                panic!("the node ended with {status} before it was up; its log:\n{}", self.log());
            }
            assert!(began.elapsed() < PATIENCE, "{path} is not well: {said}; the log:\n{}", self.log());
            super::wait::strike_after(Duration::from_millis(20)).await;
        }
    }

    /// Its exit status, once it ended.
    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let log = self.log.clone();
        let child = &mut self.child;
        let began = std::time::Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            let text = || String::from_utf8_lossy(&fs::read(&log).unwrap_or_default()).into_owned();
            assert!(began.elapsed() < PATIENCE, "the node does not end; its log:\n{}", text());
            super::wait::strike_after(Duration::from_millis(20)).await;
        }
    }

    /// The process's number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that it ever held, bytes.
    pub(crate) fn memory_max(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// The sum of a metric over all its labels.
    pub(crate) async fn metric_sum(&self, name: &str) -> f64 {
        let answer = self.http.get(format!("{}/metrics", self.api)).send().await;
        let text = answer.unwrap().text().await.unwrap();
        let of = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
        text.lines().filter(of).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// SIGKILL, and its end.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal by name, as `TERM`, `STOP`, `CONT`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success(), "no process took SIG{name}");
    }

    /// SIGTERM, and the exit code.
    pub(crate) async fn terminate(&mut self) -> Option<i32> {
        self.signal("TERM");
        self.ended().await.code()
    }

    /// `GET path`: status and JSON body (null where it is none).
    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        let answer = self.http.get(format!("{}{path}", self.api)).send().await;
        let answer = answer.unwrap_or_else(|error| panic!("GET {path}: {error}; the log:\n{}", self.log()));
        (answer.status().as_u16(), body_of(answer).await.unwrap_or_default())
    }

    /// Any other request, with a JSON body: status and answer.
    pub(crate) async fn send(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let request =
            self.http.request(method, format!("{}{path}", self.api)).header("content-type", "application/json");
        let answer = request.body(body.to_string()).send().await;
        let answer = answer.unwrap_or_else(|error| panic!("{path}: {error}; the log:\n{}", self.log()));
        (answer.status().as_u16(), body_of(answer).await.unwrap_or_default())
    }

    /// The same, `None` where the node does not answer.
    pub(crate) async fn try_get(&self, path: &str) -> Option<Value> {
        let answer = self.http.get(format!("{}{path}", self.api)).send().await.ok()?;
        body_of(answer).await
    }

    /// `POST /v1/messages`: status and answer.
    pub(crate) async fn message(&self, pattern: &str, data: Value) -> (u16, Value) {
        let sent = self.try_message(pattern, data).await;
        sent.unwrap_or_else(|| panic!("{pattern} has no answer; the log:\n{}", self.log()))
    }

    /// The same, `None` where the node does not answer.
    pub(crate) async fn try_message(&self, pattern: &str, data: Value) -> Option<(u16, Value)> {
        let body = json!({"pattern": pattern, "data": data}).to_string();
        let request = self.http.post(format!("{}/v1/messages", self.api)).header("content-type", "application/json");
        let answer = request.body(body).send().await.ok()?;
        Some((answer.status().as_u16(), body_of(answer).await.unwrap_or_default()))
    }

    /// The stream's status.
    pub(crate) async fn status(&self, stream: &str) -> Value {
        self.get(&format!("/v1/streams/{stream}/status")).await.1
    }

    /// Waits until the stream's status satisfies `fits`.
    pub(crate) async fn status_until(&self, stream: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let last = std::cell::RefCell::new(Value::Null);
        let waited = tokio::time::timeout(
            PATIENCE,
            wait_for(format!("{stream} {what}"), Duration::MAX, async || {
                let status = self.try_get(&format!("/v1/streams/{stream}/status")).await?;
                let found = fits(&status).then(|| status.clone());
                last.replace(status);
                found
            }),
        );
        waited.await.unwrap_or_else(|_| panic!("{stream} is not {what}: {}; the log:\n{}", last.borrow(), self.log()))
    }

    /// All references of a stream, page after page.
    pub(crate) async fn references(&self, stream: &str) -> Vec<Value> {
        let (mut all, mut after) = (Vec::new(), "0".to_owned());
        loop {
            let (_, page) = self.get(&format!("/v1/references?stream={stream}&after={after}&limit=500")).await;
            let items = page["references"].as_array().cloned().unwrap_or_default();
            if items.is_empty() {
                return all;
            }
            all.extend(items);
            after = page["next"].as_str().unwrap().to_owned();
        }
    }

    /// The restart log, page after page.
    pub(crate) async fn restarts(&self) -> Vec<Value> {
        let (mut all, mut after) = (Vec::new(), "0".to_owned());
        loop {
            let (_, page) = self.get(&format!("/v1/restarts?limit=1000&after={after}")).await;
            let lines = page["restarts"].as_array().cloned().unwrap_or_default();
            if lines.is_empty() {
                return all;
            }
            all.extend(lines);
            after = page["next"].as_str().unwrap().to_owned();
        }
    }

    /// The lines of the restart log about `path` and everything below it.
    pub(crate) async fn restarts_under(&self, path: &str) -> Vec<Value> {
        let mut lines = self.restarts().await;
        let below = format!("{path}/");
        lines.retain(|line| line["path"].as_str().is_some_and(|at| at == path || at.starts_with(&below)));
        lines
    }

    /// The node of the tree at `path`.
    pub(crate) async fn tree_at(&self, path: &str) -> Value {
        let (_, tree) = self.get("/v1/tree").await;
        let mut open = vec![tree.get("tree").cloned().unwrap_or(tree)];
        while let Some(at) = open.pop() {
            if at["path"] == path {
                return at;
            }
            open.extend(at["children"].as_array().cloned().unwrap_or_default());
        }
        Value::Null
    }

    /// The value of the metric `name` with all of `labels`; `None` while it does not exist.
    pub(crate) async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let text = self.http.get(format!("{}/metrics", self.api)).send().await.ok()?.text().await.ok()?;
        let labels: Vec<_> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let fits = |line: &&str| {
            line.split(['{', ' ']).next() == Some(name) && labels.iter().all(|label| line.contains(label.as_str()))
        };
        text.lines().find(fits)?.rsplit(' ').next()?.parse().ok()
    }

    /// Waits for a line of the restart log.
    pub(crate) async fn restart_where(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let waited = tokio::time::timeout(
            PATIENCE,
            wait_for(what, Duration::MAX, async || self.restarts().await.into_iter().find(|line| fits(line))),
        );
        match waited.await {
            Ok(found) => found,
            Err(_) => panic!("no {what} in the restart log: {:#?}", self.restarts().await),
        }
    }

    /// The address of its API, `http://…`.
    pub(crate) fn api(&self) -> &str {
        &self.api
    }
}

async fn body_of(answer: reqwest::Response) -> Option<Value> {
    serde_json::from_slice(&answer.bytes().await.ok()?).ok()
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// From now until a waiting stream's `next_at`; zero where it is past or the stream does not wait.
pub(crate) fn next_beat_in(status: &Value) -> Duration {
    let at = status["next_at"].as_str().and_then(|at| chrono::DateTime::parse_from_rfc3339(at).ok());
    at.and_then(|at| (at.to_utc() - chrono::Utc::now()).to_std().ok()).unwrap_or_default()
}
