//! A folder with a configuration, a lake and a state directory, in which nodes are started one after the other.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use lakefeed::oracle::{self, Expected, Verdict};
use tempfile::TempDir;

use super::servers::mirror::Mirror;
use super::{Node, PATIENCE, wait_for};

/// Below the range from which the kernel takes ports for connections, so that none is taken between two starts.
const PORTS_FROM: u16 = 20_000;
const PORTS_TO: u16 = 32_000;

/// A loopback address that nobody listens on, given once per process. Until the process ends no other run of the tests
/// on the machine is given it: who gets it listens only some time later.
pub(crate) fn free_address() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    static RESERVED: Mutex<Vec<File>> = Mutex::new(Vec::new());
    let folder = std::env::temp_dir().join("lakefeed-ports");
    fs::create_dir_all(&folder).unwrap();
    let start = (std::process::id() % 10_000) as u16;
    for _ in PORTS_FROM..PORTS_TO {
        let port = PORTS_FROM + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % (PORTS_TO - PORTS_FROM);
        let address = format!("127.0.0.1:{port}");
        let reserved = File::create(folder.join(port.to_string())).unwrap();
        if reserved.try_lock().is_ok() && TcpListener::bind(&address).is_ok() {
            RESERVED.lock().unwrap().push(reserved);
            return address;
        }
    }
    panic!("no free port");
}

/// One node's home.
pub(crate) struct Lab {
    dir: TempDir,
    lake: PathBuf,
    state: PathBuf,
    /// Where the lake's objects have to be fetched from before they can be read.
    mirror: Option<Mirror>,
    /// URL and, but for a folder, options.
    store: Option<(String, String)>,
    config: String,
    /// More lines of `[node]`.
    node: String,
    starts: Cell<u32>,
}

impl Lab {
    /// With a lake of its own. `config` has neither `[node]`, `[lake]` nor `[api]`.
    pub(crate) fn new(config: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let (lake, state) = (dir.path().join("lake"), dir.path().join("state"));
        Self {
            dir,
            lake,
            state,
            mirror: None,
            store: None,
            config: config.to_owned(),
            node: String::new(),
            starts: Cell::new(0),
        }
    }

    /// With lake and state directory in these folders.
    pub(crate) fn within(config: &str, lake: &Path, state: &Path) -> Self {
        Self { lake: lake.to_owned(), state: state.to_owned(), ..Self::new(config) }
    }

    /// With its lake in a store that is no folder; `options` is the TOML of `[lake] options`.
    pub(crate) fn on_store(config: &str, url: &str, options: &str) -> Self {
        Self { store: Some((url.to_owned(), options.to_owned())), ..Self::new(config) }
    }

    /// Where the lake's objects can be read as files.
    pub(crate) fn read_at(&mut self, folder: PathBuf) {
        self.lake = folder;
    }

    /// How the lake's objects become files that can be read.
    pub(crate) fn mirror(&mut self, mirror: Mirror) {
        self.lake = self.dir.path().join("mirror");
        self.mirror = Some(mirror);
    }

    /// With these lines in `[node]`.
    pub(crate) fn node_with(&mut self, lines: &str) {
        self.node = lines.to_owned();
    }

    /// Brings the copy of a store that is no folder up to date.
    pub(crate) fn refresh(&self) {
        if let Some(mirror) = &self.mirror {
            mirror.refresh(&self.lake);
        }
    }

    /// The configuration file, once a node was started.
    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("lakefeed.toml")
    }

    /// A folder for what else a test needs.
    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// With the lake of another.
    pub(crate) fn beside(other: &Self, config: &str) -> Self {
        Self { lake: other.lake.clone(), ..Self::new(config) }
    }

    /// The lake's folder.
    pub(crate) fn lake(&self) -> &Path {
        &self.lake
    }

    /// A file that is not there yet, for the test to make as a signal.
    pub(crate) fn signal_file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The state directory.
    pub(crate) fn state(&self) -> PathBuf {
        self.state.clone()
    }

    /// Starts a node.
    pub(crate) fn start(&self) -> Node {
        self.start_with(&[])
    }

    /// Starts a node with `env` added.
    pub(crate) fn start_with(&self, env: &[(&str, &str)]) -> Node {
        let (address, start) = (free_address(), self.starts.get() + 1);
        self.starts.set(start);
        // One connection of the API may be in the way of a new one on the same port, so each start has its own.
        let (url, options) = match &self.store {
            None => (format!("file:{}", self.lake.display()), String::new()),
            Some((url, options)) => (url.clone(), format!("options = {options}\n")),
        };
        let text = format!(
            "[node]\nstate_dir = {:?}\n{}\n[lake]\nurl = {url:?}\n{options}epoch = {{ max_age = \"50ms\" }}\n[api]\nlisten = {address:?}\n{}",
            self.state, self.node, self.config
        );
        let path = self.config();
        fs::write(&path, text).unwrap();
        Node::spawn(&path, &self.dir.path().join(format!("stderr-{start}.log")), &address, env)
    }

    /// The last committed epoch of a stream, read from the log itself.
    pub(crate) fn epoch(&self, stream: &str) -> u64 {
        self.refresh();
        let (tenant, stream) = stream.split_once('/').unwrap();
        oracle::last_epoch(&self.lake, tenant, stream).unwrap()
    }

    /// Waits until the stream has committed beyond `epoch`.
    pub(crate) async fn epoch_after(&self, stream: &str, epoch: u64) -> u64 {
        let what = format!("an epoch of {stream} after {epoch}");
        wait_for(what, PATIENCE, async || Some(self.epoch(stream)).filter(|now| *now > epoch)).await
    }

    /// The oracle's verdict.
    pub(crate) fn judge(&self, stream: &str, expected: &Expected) -> Verdict {
        self.refresh();
        let (tenant, stream) = stream.split_once('/').unwrap();
        oracle::judge(&self.lake, tenant, stream, expected)
    }
}

/// `[supervision]` with quick restarts, and more of them than any test has.
pub(crate) const QUICK: &str =
    "[supervision]\nmax_restarts = 20\nmax_seconds = 10\nbackoff = { min = \"20ms\", max = \"200ms\" }\n";

/// Records of a stream that outlasts every test, on every machine.
pub(crate) const ENDLESS: u64 = 1_000_000_000;

/// The table of a stream.
pub(crate) fn stream(name: &str, adapter: &str) -> String {
    format!("[stream.\"{name}\"]\nadapter = \"{adapter}\"\n")
}

/// The stream `acme/syn` on `kind = "synthetic"`.
#[derive(Clone, Copy)]
pub(crate) struct Synthetic {
    pub(crate) seed: u64,
    pub(crate) partitions: u64,
    /// Records per partition. A test for which epochs or moments count takes [`ENDLESS`]: how many epochs a stream of
    /// some seconds has is the machine's choice.
    pub(crate) total: u64,
    /// Records per second and partition.
    pub(crate) rate: u64,
}

impl Synthetic {
    pub(crate) const STREAM: &'static str = "acme/syn";

    /// The configuration, with quick restarts.
    pub(crate) fn config(&self) -> String {
        format!("{QUICK}{}{}", self.adapter("SYN"), stream(Self::STREAM, "SYN"))
    }

    /// The table of an adapter of this name.
    pub(crate) fn adapter(&self, name: &str) -> String {
        let Self { seed, partitions, total, rate } = self;
        format!(
            "[adapter.{name}]\nkind = \"synthetic\"\nseed = {seed}\npartitions = {partitions}\ntotal = {total}\n\
             rate = {rate}\nbytes = 120\n"
        )
    }

    /// Everything was handed over.
    pub(crate) fn expected(&self) -> Expected {
        let handed_over: BTreeMap<_, _> = (0..self.partitions).map(|p| (p, Some(self.total - 1))).collect();
        Expected::Synthetic { seed: self.seed, partitions: self.partitions, handed_over }
    }

    /// It is not known what was handed over: there must be no gap up to the last record that is there.
    pub(crate) fn so_far(&self) -> Expected {
        Expected::Synthetic { seed: self.seed, partitions: self.partitions, handed_over: BTreeMap::new() }
    }

    /// Waits until something that was not under way yet is committed, and judges what is there then: for a stream that
    /// does not end, however long whatever happens to it takes.
    pub(crate) async fn fresh(&self, lab: &Lab) -> Verdict {
        lab.epoch_after(Self::STREAM, lab.epoch(Self::STREAM) + 1).await;
        lab.judge(Self::STREAM, &self.so_far())
    }

    /// Waits until the whole of `stream`, which is of this kind and ends, is in the lake and judges it.
    pub(crate) async fn whole_of(&self, stream: &str, lab: &Lab, node: &Node) -> Verdict {
        let expected = self.expected();
        let all = self.partitions * self.total;
        let last = std::cell::RefCell::new(Verdict::default());
        let waited = tokio::time::timeout(
            PATIENCE,
            wait_for("the whole stream", Duration::MAX, async || {
                let verdict = lab.judge(stream, &expected);
                let whole = verdict.rows + verdict.dead >= all;
                last.replace(verdict.clone());
                whole.then_some(verdict)
            }),
        );
        waited.await.unwrap_or_else(|_| {
            let last = last.borrow();
            panic!("the stream does not come to its end: {}; the log:\n{}", last.summary(), node.log())
        })
    }
}

/// Nothing is wrong.
#[track_caller]
pub(crate) fn assert_sound(verdict: &Verdict, context: &str) {
    assert!(verdict.ok(), "{context}: {}\n{}", verdict.summary(), verdict.messages.join("\n"));
}
