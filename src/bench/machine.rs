//! What the machine tells about processes, and folders that go away.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rand::Rng;

use super::BenchError;

/// Linux tells CPU times in hundredths of a second, whatever its own clock does.
const TICKS_PER_SECOND: f64 = 100.0;

/// Below those that the kernel gives to connections, so that none of them is in the way when the node takes its port.
const PORTS: Range<u16> = 18_000..20_000;
/// Tries of one of them; on a machine where so many are taken nothing can be measured.
const PORT_TRIES_MAX: usize = 100;

fn unknown() -> BenchError {
    BenchError::Unmeasurable(io::Error::from(io::ErrorKind::Unsupported))
}

/// CPU seconds of user and system that a `stat` file of `/proc` tells.
fn cpu_of(path: &str) -> Result<f64, BenchError> {
    let text = fs::read_to_string(path).map_err(BenchError::Unmeasurable)?;
    // The name of the program may hold blanks and brackets; what follows the last one is numbers.
    let fields: Vec<&str> = text.rsplit_once(')').ok_or_else(unknown)?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).ok_or_else(unknown);
    Ok((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}

/// CPU seconds of this process so far, threads that ended included.
pub(super) fn cpu_seconds() -> Result<f64, BenchError> {
    cpu_of("/proc/self/stat")
}

/// CPU seconds of the calling thread so far.
pub(super) fn thread_cpu_seconds() -> Result<f64, BenchError> {
    cpu_of("/proc/thread-self/stat")
}

/// Resident bytes of a process; `None` = this one.
pub(super) fn resident_bytes(process: Option<u32>) -> Result<u64, BenchError> {
    let path = process.map_or_else(|| "/proc/self/status".to_owned(), |id| format!("/proc/{id}/status"));
    let text = fs::read_to_string(path).map_err(BenchError::Unmeasurable)?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or_else(unknown)?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().map_err(|_| unknown())?;
    Ok(kib * 1024)
}

/// A folder of its own below the system's folder for temporary files (`TMPDIR`), removed when dropped.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new() -> Result<Self, BenchError> {
        let path = std::env::temp_dir().join(format!("lakefeed-bench-{}", uuid::Uuid::new_v4().simple()));
        fs::create_dir_all(&path).map_err(BenchError::Folder)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// A new folder in it.
    pub(super) fn folder(&self, name: &str) -> Result<PathBuf, BenchError> {
        let path = self.0.join(name);
        fs::create_dir_all(&path).map_err(BenchError::Folder)?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is left to the system, which empties this folder by itself.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A port that nobody listens on at the moment. A node takes it some time later, and again after a kill.
pub(super) fn free_port() -> Result<u16, BenchError> {
    let mut rng = rand::rng();
    for _ in 0..PORT_TRIES_MAX {
        let port = rng.random_range(PORTS);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(BenchError::Stalled("a free port"))
}

/// A node in a process of its own. Killed when dropped.
#[derive(Debug)]
pub(super) struct NodeProcess {
    child: Child,
    log: PathBuf,
}

impl NodeProcess {
    /// `program run -c config`, its log beside the configuration.
    pub(super) fn start(program: &Path, config: &Path) -> Result<Self, BenchError> {
        let log = config.with_extension("log");
        let stderr = fs::File::create(&log).map_err(BenchError::Folder)?;
        let child = Command::new(program)
            .args(["run", "-c"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .map_err(BenchError::Program)?;
        Ok(Self { child, log })
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Fails where the process has ended by itself.
    pub(super) fn check(&mut self) -> Result<(), BenchError> {
        match self.child.try_wait().map_err(BenchError::Program)? {
            None => Ok(()),
            Some(status) => {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                let last = log.lines().last().unwrap_or("nothing").to_owned();
                Err(BenchError::Ended { status: status.to_string(), last })
            }
        }
    }

    /// SIGKILL, and its end.
    pub(super) fn kill(&mut self) -> Result<(), BenchError> {
        self.child.kill().and_then(|()| self.child.wait()).map(drop).map_err(BenchError::Program)
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // Only a process that has ended already refuses.
        let _ = self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_cpu_and_memory_are_those_of_the_process() {
        let before = thread_cpu_seconds().expect("readable");
        let mut sum = 0u64;
        while thread_cpu_seconds().expect("readable") < before + 0.03 {
            sum = (0..100_000u64).fold(sum, |sum, n| sum.wrapping_mul(31).wrapping_add(n));
        }
        assert!(cpu_seconds().expect("readable") >= 0.03, "{sum}");
        let rss = resident_bytes(None).expect("readable");
        let block = std::hint::black_box(vec![1u8; 64 << 20]);
        assert!(resident_bytes(Some(std::process::id())).expect("readable") > rss + (32 << 20), "{}", block.len());
    }

    #[test]
    fn test_scratch_folders_go_away() {
        let scratch = Scratch::new().expect("made");
        let folder = scratch.folder("a").expect("made");
        fs::write(folder.join("x"), "y").expect("written");
        let path = scratch.path().to_owned();
        drop(scratch);
        assert!(!path.exists());
    }
}
