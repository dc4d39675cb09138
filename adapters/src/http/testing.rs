//! What the tests of this room share.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::contract::config::{MapSecrets, Mark, Node, Problem, Problems, Reader, Table, Value};
use crate::contract::{
    Batch, Clock, Credits, Env, Keep, Kind, MemoryKeep, Mount, Payload, Pull, Source, SourceError, SystemClock,
    SystemResolve,
};

/// A wall clock that stands until it is set.
#[derive(Debug)]
pub(crate) struct FixedClock(AtomicI64);

impl FixedClock {
    pub(crate) fn at(us: i64) -> Self {
        Self(AtomicI64::new(us))
    }

    pub(crate) fn set(&self, us: i64) {
        self.0.store(us, Ordering::SeqCst);
    }
}

impl Clock for FixedClock {
    fn now_us(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

pub(crate) fn env_with(keep: Arc<dyn Keep>, clock: Arc<dyn Clock>) -> Env {
    Env { clock, keep, resolve: Arc::new(SystemResolve), seed: 7, scope: "t/s/p".to_owned() }
}

/// What the rude server answers to one request.
#[derive(Debug, Clone)]
pub(crate) enum Say {
    /// A well-formed answer on a connection that stays open.
    Whole { status: u16, headers: Vec<(String, String)>, body: Vec<u8> },
    /// These bytes, and the end of the connection.
    Raw(Vec<u8>),
    /// These bytes one by one with a pause between, and then silence.
    Drip(Vec<u8>, Duration),
    /// Nothing, ever.
    Hang,
}

impl Say {
    pub(crate) fn json(body: &str) -> Self {
        Self::Whole { status: 200, headers: Vec::new(), body: body.as_bytes().to_vec() }
    }

    pub(crate) fn status(status: u16) -> Self {
        Self::Whole { status, headers: Vec::new(), body: Vec::new() }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        if let Self::Whole { headers, .. } = &mut self {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    pub(crate) fn body(mut self, bytes: &[u8]) -> Self {
        if let Self::Whole { body, .. } = &mut self {
            *body = bytes.to_vec();
        }
        self
    }
}

/// How the rude server finds its answer: the number of the request, from 0, and its head.
type Script = Arc<dyn Fn(usize, &str) -> Say + Send + Sync>;

/// A server on loopback that does what its script says.
#[derive(Debug)]
pub(crate) struct RudeServer {
    pub(crate) address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for RudeServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl RudeServer {
    pub(crate) async fn start(script: impl Fn(usize, &str) -> Say + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("an address");
        let (heads, connections) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let script: Script = Arc::new(script);
        let (seen, count) = (Arc::clone(&heads), Arc::clone(&connections));
        let task = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                open.spawn(serve(stream, Arc::clone(&script), Arc::clone(&seen)));
            }
        });
        Self { address, heads, connections, task }
    }

    /// Answers in order; the last one again and again.
    pub(crate) async fn say(answers: Vec<Say>) -> Self {
        Self::start(move |index, _| answers[index.min(answers.len() - 1)].clone()).await
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The heads of all requests so far.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("no panic").clone()
    }

    /// Waits until so many requests have come.
    pub(crate) async fn asked(&self, requests: usize) {
        while self.heads().len() < requests {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The targets of all requests so far.
    pub(crate) fn targets(&self) -> Vec<String> {
        self.heads().iter().filter_map(|head| head.split(' ').nth(1).map(str::to_owned)).collect()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn serve(mut stream: TcpStream, script: Script, heads: Arc<Mutex<Vec<String>>>) {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
            match stream.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        buffer.drain(..end);
        let index = {
            let mut heads = heads.lock().expect("no panic");
            heads.push(head.clone());
            heads.len() - 1
        };
        match script(index, &head) {
            Say::Whole { status, headers, body } => {
                let mut out = format!("HTTP/1.1 {status} X\r\n");
                for (name, value) in &headers {
                    out.push_str(&format!("{name}: {value}\r\n"));
                }
                if status != 204 && status != 304 {
                    out.push_str(&format!("content-length: {}\r\n", body.len()));
                }
                out.push_str("\r\n");
                let mut bytes = out.into_bytes();
                bytes.extend(body);
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Say::Raw(bytes) => {
                let _ = stream.write_all(&bytes).await;
                return;
            }
            Say::Drip(bytes, pause) => {
                for byte in bytes {
                    if stream.write_all(&[byte]).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(pause).await;
                }
                std::future::pending::<()>().await;
            }
            Say::Hang => std::future::pending::<()>().await,
        }
    }
}

/// Settings as an operator writes them: every value has a place.
pub(crate) fn written(settings: serde_json::Value) -> Table {
    fn mark(node: &mut Node, line: usize) {
        node.mark = Some(Mark { file: "test.toml".into(), line, col: 1 });
        match &mut node.value {
            Value::Table(table) => mark_all(table, line),
            Value::Array(all) => all.iter_mut().for_each(|item| mark(item, line)),
            _ => {}
        }
    }
    fn mark_all(table: &mut Table, line: usize) {
        table.header = Some(Mark { file: "test.toml".into(), line, col: 1 });
        for (index, entry) in table.entries.iter_mut().enumerate() {
            mark(&mut entry.node, line + index);
            entry.mark.clone_from(&entry.node.mark);
        }
    }
    let mut table = message(settings);
    mark_all(&mut table, 1);
    table
}

/// Settings as they come in a message: without places.
pub(crate) fn message(settings: serde_json::Value) -> Table {
    Table::from_json(settings.as_object().expect("an object"))
}

/// Reads `table` with `kind`; what is wrong, with warnings, where it is.
pub(crate) fn read_with(kind: &dyn Kind, table: &Table) -> (Option<Arc<dyn Mount>>, Vec<Problem>) {
    let problems = Problems::default();
    let mut secrets = MapSecrets::default();
    secrets.env.insert("KEY".to_owned(), CANARY.to_owned());
    let mount = {
        let reader = Reader::new(table, "adapter.X", &problems, &secrets);
        let mount = kind.read(&reader);
        reader.finish();
        mount
    };
    (mount, problems.into_sorted())
}

/// The mount of settings that must be good.
pub(crate) fn mount_of(kind: &dyn Kind, settings: serde_json::Value) -> Arc<dyn Mount> {
    let (mount, problems) = read_with(kind, &written(settings));
    assert!(problems.iter().all(|p| p.warning), "{problems:?}");
    mount.expect("good settings")
}

/// The secret behind `env:KEY`.
pub(crate) const CANARY: &str = "c4n4ry/+secret";

/// An environment with a memory of its own.
pub(crate) fn env() -> Env {
    env_with(Arc::new(MemoryKeep::default()), Arc::new(SystemClock))
}

pub(crate) fn credits() -> Credits {
    Credits::alone(64 << 20)
}

/// One workload as a worker drives it: the batches, and how it ended.
pub(crate) async fn workload(source: &mut dyn Source, credits: &Credits) -> (Vec<Batch>, Result<(), SourceError>) {
    let mut batches = Vec::new();
    loop {
        match source.next(credits).await {
            Ok(Pull::Batch(batch)) => batches.push(batch),
            Ok(Pull::Idle | Pull::End) => return (batches, Ok(())),
            Err(error) => return (batches, Err(error)),
        }
    }
}

/// The rows of batches, decoded as the runtime does, one JSON object each.
pub(crate) fn rows(mount: &dyn Mount, batches: &[Batch]) -> Vec<serde_json::Value> {
    let payloads: Vec<Payload> = batches.iter().flat_map(|batch| batch.payloads.clone()).collect();
    let rows = mount.decoder().decode(&payloads, mount.schema().as_ref());
    assert!(rows.dead.is_empty(), "{:?}", rows.dead);
    let mut bytes = Vec::new();
    let mut writer = arrow::json::LineDelimitedWriter::new(&mut bytes);
    writer.write(&rows.batch).expect("rows");
    writer.finish().expect("rows");
    let text = String::from_utf8(bytes).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}
