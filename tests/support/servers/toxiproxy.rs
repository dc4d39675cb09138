//! A TCP proxy that can be told to misbehave.

use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::had;
use super::install::go_program;
use crate::support::lab::free_address;
use crate::support::{PATIENCE, wait_for};

const MODULE: &str = "github.com/Shopify/toxiproxy/v2/cmd/server@v2.5.0";

/// A running toxiproxy, which holds any number of proxies.
pub(crate) struct Toxiproxy {
    child: Child,
    api: String,
    http: reqwest::Client,
}

/// One of its proxies.
pub(crate) struct Proxy<'a> {
    server: &'a Toxiproxy,
    name: String,
    address: String,
}

/// What is done to connections. `up` is what the client sends, `down` what it is answered.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Toxic {
    /// Answers come so many milliseconds late.
    Latency(u32),
    /// The connection is reset at once.
    Reset,
    /// The connection is closed after so many bytes of requests.
    CutUp(u32),
    /// The connection is closed after so many bytes of answers: what was asked for is done, nobody is told.
    CutDown(u32),
    /// Requests vanish, nothing is closed.
    HoleUp,
    /// Answers vanish, nothing is closed: what was asked for is done, nobody is told.
    HoleDown,
}

impl Toxic {
    fn to_json(self) -> Value {
        let (kind, stream, attributes) = match self {
            Self::Latency(ms) => ("latency", "downstream", json!({"latency": ms, "jitter": ms / 2})),
            Self::Reset => ("reset_peer", "upstream", json!({"timeout": 0})),
            Self::CutUp(bytes) => ("limit_data", "upstream", json!({"bytes": bytes})),
            Self::CutDown(bytes) => ("limit_data", "downstream", json!({"bytes": bytes})),
            Self::HoleUp => ("timeout", "upstream", json!({"timeout": 0})),
            Self::HoleDown => ("timeout", "downstream", json!({"timeout": 0})),
        };
        json!({"name": "toxic", "type": kind, "stream": stream, "attributes": attributes})
    }
}

/// Starts toxiproxy. `None`, said on stderr, where it cannot be had; that is a failure in CI.
pub(crate) async fn toxiproxy() -> Option<Toxiproxy> {
    let binary = had("toxiproxy", go_program("toxiproxy", MODULE, "server"))?;
    let address = free_address();
    let (host, port) = address.split_once(':').unwrap();
    let child = Command::new(binary)
        .args(["-host", host, "-port", port])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let server = Toxiproxy { child, api: format!("http://{address}"), http };
    wait_for("toxiproxy", PATIENCE, async || {
        server.http.get(format!("{}/version", server.api)).send().await.ok().map(drop)
    })
    .await;
    Some(server)
}

impl Toxiproxy {
    async fn post(&self, path: &str, body: Value) {
        let request = self.http.post(format!("{}{path}", self.api)).header("content-type", "application/json");
        let answer = request.body(body.to_string()).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.text().await.unwrap());
    }

    /// A proxy in front of `upstream`.
    pub(crate) async fn before(&self, name: &str, upstream: &str) -> Proxy<'_> {
        let address = free_address();
        let proxy = json!({"name": name, "listen": address, "upstream": upstream, "enabled": true});
        self.post("/proxies", proxy).await;
        Proxy { server: self, name: name.to_owned(), address }
    }
}

impl Drop for Toxiproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Proxy<'_> {
    /// `http://…`.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Misbehaves from now on, towards connections that are open, too.
    pub(crate) async fn poison(&self, toxic: Toxic) {
        self.server.post(&format!("/proxies/{}/toxics", self.name), toxic.to_json()).await;
    }

    /// Behaves again.
    pub(crate) async fn cure(&self) {
        let toxic = format!("{}/proxies/{}/toxics/toxic", self.server.api, self.name);
        let answer = self.server.http.delete(toxic).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.status());
    }

    /// Refuses connections and closes those that are open, or takes them again.
    pub(crate) async fn enable(&self, enabled: bool) {
        self.server.post(&format!("/proxies/{}", self.name), json!({"enabled": enabled})).await;
    }
}
