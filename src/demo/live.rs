//! What a person sees while the demo runs: the tree and the newest restarts on a terminal, plain lines otherwise.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::app::App;
use crate::client;
use crate::streams::DirectoryHandle;
use crate::streams::api::{Streams, TreeQuery};
use crate::telemetry::restarts::{Filter, RestartRecord};

/// Redraws a second: enough to watch, little to write.
const REDRAW: Duration = Duration::from_millis(500);

/// Plain lines come this often.
const LINE: Duration = Duration::from_secs(5);

/// Nodes of the tree that are shown: all that the demo has.
const NODES_SHOWN: usize = 100;

/// Restarts shown below the tree.
const RESTARTS_SHOWN: usize = 8;

/// Shows the node at work for `duration`.
pub(super) async fn show(app: &App, duration: Duration, quiet: bool) {
    let end = Instant::now() + duration;
    let terminal = std::io::stdout().is_terminal() && !quiet;
    let every = if terminal { REDRAW } else { LINE };
    let mut after = 0;
    let mut newest: Vec<RestartRecord> = Vec::new();
    while Instant::now() < end {
        sleep_until((Instant::now() + every).min(end)).await;
        let filter = Filter { after, limit: 1000, ..Filter::default() };
        if let Ok((page, next)) = app.restarts.query(&filter) {
            after = next;
            newest.extend(page.into_iter().filter(|r| !matches!(r.event.as_str(), "started" | "stopped")));
        }
        if !quiet {
            let text = if terminal { screen(app, &newest).await } else { lines(app, &newest, end).await };
            // Nobody may be reading any more; the demo's outcome does not depend on it.
            let _ = std::io::stdout().write_all(text.as_bytes());
            let _ = std::io::stdout().flush();
        }
        let keep = newest.len().saturating_sub(RESTARTS_SHOWN);
        newest.drain(..if terminal { keep } else { newest.len() });
    }
}

/// The whole screen, drawn over the last one.
async fn screen(app: &App, newest: &[RestartRecord]) -> String {
    let streams = DirectoryHandle(Arc::clone(&app.directory));
    let tree = tree(&streams.tree(&TreeQuery { limit: Some(NODES_SHOWN), ..TreeQuery::default() }).await);
    let restarts: Vec<_> = newest.iter().rev().take(RESTARTS_SHOWN).map(restart_line).collect();
    format!("\x1b[2J\x1b[H{tree}\n{}\n", restarts.join("\n"))
}

/// A few lines of what happened since the last ones.
async fn lines(app: &App, newest: &[RestartRecord], end: Instant) -> String {
    let streams = DirectoryHandle(Arc::clone(&app.directory)).list().await;
    let left = end.saturating_duration_since(Instant::now()).as_secs();
    let mut text = String::new();
    for view in streams {
        let parked = view.status.parked.map_or_else(String::new, |p| format!(", parked: {}", p.code));
        text.push_str(&format!(
            "{left:>4}s left  {}/{}: epoch {}{parked}\n",
            view.tenant, view.stream, view.status.epoch
        ));
    }
    for record in newest.iter().rev().take(RESTARTS_SHOWN).rev() {
        text.push_str(&format!("           {}\n", restart_line(record)));
    }
    text
}

fn restart_line(record: &RestartRecord) -> String {
    serde_json::to_value(record).map(|record| client::restart_line(&record)).unwrap_or_default()
}

fn tree(node: &serde_json::Value) -> String {
    let mut text = Vec::new();
    // Writing to memory cannot fail.
    let _ = client::draw_tree(&mut text, node, &client::Screen::default());
    String::from_utf8_lossy(&text).into_owned()
}
