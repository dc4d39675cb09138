//! The verb `run`: a node from its configuration to its end.

use std::path::Path;
use std::sync::Arc;

use adapters::contract::config::{Problem, SecretSource};
use supervisors::{Pulse, RootEnd};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::{App, Parts, StartError, kinds};
use crate::cli::{exit, output};
use crate::settings::{self, Settings};

/// Runs a node until it is told to stop or gives up; its exit code.
pub async fn run(path: &Path) -> u8 {
    let parts = Parts::process();
    let (settings, warnings) = match settings::load(path, &parts.kinds, parts.secrets.as_ref()) {
        Ok(loaded) => loaded,
        Err(problems) => return refuse(&problems),
    };
    output::problems_to_stderr(&warnings);
    let Some(mut signals) = Signals::install() else {
        tracing::error!("signals cannot be received");
        return exit::FAILED;
    };
    let secrets = Arc::clone(&parts.secrets);
    // A start takes as long as the lake is away, and must not be deaf meanwhile; there is nothing to drain yet.
    let started = tokio::select! {
        started = App::start(settings, parts) => started,
        () = signals.end() => return exit::DONE,
    };
    match started {
        Ok(app) => supervise(&app, path, secrets.as_ref(), &mut signals).await,
        Err(StartError::Settings(problems)) => refuse(&problems),
        Err(e) => {
            tracing::error!(error = %chain(&e), "the node did not start");
            exit::FAILED
        }
    }
}

/// Half a minute without one free thread: whatever holds them all will not let go, and no supervisor runs any more.
const BEATS_MISSED_MAX: u32 = 60;

/// Keeps the runtime's timers alive beside a worker that holds its thread, and ends the process, as a root supervisor
/// that gives up would, when all threads are held: only the node's own supervisor can help then.
pub(crate) fn pulse(runtime: &tokio::runtime::Handle) -> Option<Pulse> {
    let stalled = || {
        tracing::error!(code = "runtime_stalled", "all threads are held by tasks that do not await; the node gives up");
        std::process::exit(i32::from(exit::GAVE_UP));
    };
    match Pulse::start(runtime.clone(), BEATS_MISSED_MAX, stalled) {
        Ok(pulse) => Some(pulse),
        Err(e) => {
            tracing::warn!(error = %e, "no thread for the pulse; a worker that holds its thread may go unnoticed");
            None
        }
    }
}

/// The signals that a node understands.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn install() -> Option<Self> {
        Some(Self {
            terminate: signal(SignalKind::terminate()).ok()?,
            interrupt: signal(SignalKind::interrupt()).ok()?,
            hangup: signal(SignalKind::hangup()).ok()?,
        })
    }

    /// Completes at the next SIGTERM or SIGINT.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Waits for signals and the tree's own end.
async fn supervise(app: &App, path: &Path, secrets: &dyn SecretSource, signals: &mut Signals) -> u8 {
    loop {
        tokio::select! {
            end = app.ended() => return gave_up(&end),
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
            _ = signals.hangup.recv() => reload(app, path, secrets).await,
        }
    }
    tracing::info!("draining; a second signal ends at once");
    tokio::select! {
        drained = app.stop() => {
            if !drained {
                tracing::warn!("not everything was drained in time; it is asked for again at the next start");
            }
            exit::DONE
        }
        () = signals.end() => exit::FAILED,
    }
}

/// Completes at the first SIGTERM or SIGINT.
pub async fn stop_signal() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
    let Ok(mut interrupt) = signal(SignalKind::interrupt()) else { return };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn gave_up(end: &RootEnd) -> u8 {
    match end {
        RootEnd::GaveUp { incident, reason } => {
            tracing::error!(
                incident = incident.as_ref(),
                class = reason.class.as_str(),
                code = reason.code,
                message = reason.message,
                "the root supervisor gave up"
            );
            exit::GAVE_UP
        }
        RootEnd::Stopped => exit::DONE,
    }
}

async fn reload(app: &App, path: &Path, secrets: &dyn SecretSource) {
    match settings::load(path, &kinds(), secrets) {
        Ok((settings, warnings)) => {
            output::problems_to_stderr(&warnings);
            app.reload(settings).await;
            tracing::info!("the changed configuration is applied");
        }
        Err(problems) => {
            output::problems_to_stderr(&problems);
            tracing::error!(
                problems = problems.len(),
                "the changed configuration is wrong; the old one stays in force"
            );
        }
    }
}

fn refuse(problems: &[Problem]) -> u8 {
    output::problems_to_stderr(problems);
    exit::USAGE
}

/// An error with all its causes.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Settings for a node that is not made from a file: the demo and the benchmarks write TOML and read it back, so that
/// they say what an operator would have to write.
///
/// # Errors
/// The problems of the text.
pub fn from_text(text: &str, folder: &Path, parts: &Parts) -> Result<Settings, Vec<Problem>> {
    let path = folder.join("lakefeed.toml");
    if let Err(e) = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, text)) {
        return Err(vec![Problem {
            mark: None,
            code: "UNREADABLE",
            field: String::new(),
            what: format!("{} cannot be written: {}", path.display(), e.kind()),
            expected: "expected a folder to work in".to_owned(),
            remedy: "choose another with --data".to_owned(),
            warning: false,
        }]);
    }
    settings::load(&path, &parts.kinds, parts.secrets.as_ref()).map(|(settings, _)| settings)
}
