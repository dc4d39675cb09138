//! Logs on stderr: for people on a terminal, JSON lines otherwise.

use std::io::{IsTerminal, stderr};

use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The environment variable with the filter, for example `info,lakefeed::streams=debug`.
const FILTER_VARIABLE: &str = "LAKEFEED_LOG";

/// Where the variable is not set. The libraries beneath us speak only of trouble.
const FILTER_DEFAULT: &str = "warn,lakefeed=info,supervisors=info,adapters=info";

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

/// Sends `tracing` to stderr. `json`: `None` = JSON unless stderr is a terminal.
///
/// # Errors
/// Where [`FILTER_VARIABLE`] is not a filter, or logging was set up before.
pub fn init(json: Option<bool>) -> Result<(), LoggingError> {
    let filter = filter(std::env::var(FILTER_VARIABLE).ok().as_deref())?;
    let terminal = stderr().is_terminal();
    let registry = tracing_subscriber::registry().with(filter);
    let done = if json.unwrap_or(!terminal) {
        let layer = tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .with_span_events(FmtSpan::NONE)
            .with_writer(stderr);
        registry.with(layer).try_init()
    } else {
        let layer = tracing_subscriber::fmt::layer().with_ansi(terminal).with_target(false).with_writer(stderr);
        registry.with(layer).try_init()
    };
    done.map_err(LoggingError::Twice)
}

fn filter(text: Option<&str>) -> Result<EnvFilter, LoggingError> {
    let text = text.map(str::trim).filter(|text| !text.is_empty()).unwrap_or(FILTER_DEFAULT);
    EnvFilter::try_new(text).map_err(LoggingError::Filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_logging_filter_falls_back_and_refuses_junk() {
        assert_eq!(filter(Some("  ")).expect("default").to_string(), filter(None).expect("default").to_string());
        assert!(filter(Some("debug,lakefeed=trace")).is_ok());
        assert!(matches!(filter(Some("lakefeed=loud")), Err(LoggingError::Filter(_))));
    }
}
