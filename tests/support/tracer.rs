//! Makes system calls of a running process fail.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::servers::install;
use super::{Node, PATIENCE, wait_for};

/// strace at work on a process, until it is dropped.
pub(crate) struct Tracer {
    child: Child,
    output: PathBuf,
}

impl Tracer {
    /// Lets the calls `calls` of `node` end in an error, as `inject` says: `error=EIO:when=1..3`.
    pub(crate) async fn inject(node: &Node, calls: &str, inject: &str, folder: &Path) -> Result<Self, String> {
        install::system("strace", "strace")?;
        let output = folder.join("strace.log");
        let child = Command::new("strace")
            .args(["-f", "-p", &node.pid().to_string(), "-o", output.to_str().unwrap()])
            .args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:{inject}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut tracer = Self { child, output };
        let attached = wait_for("strace", PATIENCE, || {
            let ended = tracer.child.try_wait().unwrap();
            let ended = ended.map(|ended| Err(format!("strace ended with {ended}: tracing is not allowed here")));
            std::future::ready(ended.or_else(|| (tracer.injected() > 0).then_some(Ok(()))))
        });
        attached.await?;
        Ok(tracer)
    }

    /// Calls that it let fail so far.
    pub(crate) fn injected(&self) -> usize {
        let text = std::fs::read_to_string(&self.output).unwrap_or_default();
        text.lines().filter(|line| line.contains("(INJECTED)")).count()
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // Asked to end it lets go of the process; killed it would leave it stopped. On a busy machine it has been seen to
        // miss the first word, which SIGINT is to a job in the background of a script anyway.
        while matches!(self.child.try_wait(), Ok(None)) {
            let _ = Command::new("kill").args(["-s", "TERM", &self.child.id().to_string()]).status();
        }
    }
}
