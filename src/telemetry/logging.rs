//! Logs on stderr: for people on a terminal, JSON lines otherwise.

use std::io::{IsTerminal, stderr};

use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The environment variable with the filter, for example `info,lakefeed::streams=debug`.
const FILTER_VARIABLE: &str = "LAKEFEED_LOG";

/// What a node logs where the variable is not set. The libraries beneath us speak only of trouble.
pub const FILTER_NODE: &str = "warn,lakefeed=info,supervisors=info,adapters=info";

/// What the demo logs where the variable is not set: nothing, because it shows failures and restarts itself, and log
/// lines would run through its picture.
pub const FILTER_DEMO: &str = "off";

/// Logging could not be set up.
#[derive(Debug, Error)]
pub enum LoggingError {
    /// The filter is none.
    #[error("{FILTER_VARIABLE} is not a filter such as info,lakefeed::streams=debug")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    /// The process logs already.
    #[error("logging is set up already")]
    Twice(#[source] tracing_subscriber::util::TryInitError),
}

/// Sends `tracing` to stderr, as JSON unless that is a terminal. `default` is the filter where none is set.
///
/// # Errors
/// Where [`FILTER_VARIABLE`] is not a filter, or logging was set up before.
pub fn init(default: &str) -> Result<(), LoggingError> {
    let filter = filter(std::env::var(FILTER_VARIABLE).ok().as_deref(), default)?;
    let terminal = stderr().is_terminal();
    let registry = tracing_subscriber::registry().with(filter);
    let done = if !terminal {
        let layer = tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .with_span_events(FmtSpan::NONE)
            .with_writer(stderr);
        registry.with(layer).try_init()
    } else {
        let layer = tracing_subscriber::fmt::layer().with_target(false).with_writer(stderr);
        registry.with(layer).try_init()
    };
    done.map_err(LoggingError::Twice)
}

fn filter(text: Option<&str>, default: &str) -> Result<EnvFilter, LoggingError> {
    let text = text.map(str::trim).filter(|text| !text.is_empty()).unwrap_or(default);
    EnvFilter::try_new(text).map_err(LoggingError::Filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_logging_filter_falls_back_and_refuses_junk() {
        let shown = |text, default| filter(text, default).expect("a filter").to_string();
        assert_eq!(shown(Some("  "), FILTER_NODE), shown(None, FILTER_NODE));
        assert_eq!(shown(None, FILTER_DEMO), "off");
        assert!(filter(Some("debug,lakefeed=trace"), FILTER_DEMO).is_ok());
        assert!(matches!(filter(Some("lakefeed=loud"), FILTER_NODE), Err(LoggingError::Filter(_))));
    }
}
