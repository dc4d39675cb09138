//! The built binary as somebody on call uses it: client verbs against a running node.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::{Node, PATIENCE};

fn command(node: &Node, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lakefeed"));
    command.args(arguments).args(["--api", node.api()]).env_remove("LAKEFEED_TOKEN").stdin(Stdio::null());
    command.kill_on_drop(true);
    command
}

/// What `lakefeed ARGUMENTS` prints; it must exit with 0.
pub(crate) async fn printed(node: &Node, arguments: &[&str]) -> String {
    let output = tokio::time::timeout(PATIENCE, command(node, arguments).output()).await.expect("in time").unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// The same with `--json`, which prints one document.
pub(crate) async fn document(node: &Node, arguments: &[&str]) -> Value {
    let text = printed(node, &[arguments, &["--json"]].concat()).await;
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// A verb that follows. It is killed when dropped.
pub(crate) struct Following {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Following {
    /// Starts `lakefeed ARGUMENTS`.
    pub(crate) fn start(node: &Node, arguments: &[&str]) -> Self {
        let mut child = command(node, arguments).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { _child: child, lines }
    }

    /// The next line that satisfies `fits`.
    pub(crate) async fn line(&mut self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                let line = self.lines.next_line().await.unwrap().expect("it goes on");
                if fits(&line) {
                    return line;
                }
            }
        });
        found.await.unwrap_or_else(|_| panic!("no {what} in time"))
    }
}
