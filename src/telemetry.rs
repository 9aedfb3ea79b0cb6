//! Log lines, on standard error: standard output belongs to the one line that says where the node listens.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;

use crate::config::{LogFilter, LogFormat};

/// What the libraries below may say at most, whatever the filter: in more detail they print addresses and store keys,
/// and so session ids.
const LIBRARIES: [&str; 6] =
    ["fred=info", "hyper=info", "hyper_util=info", "tungstenite=info", "tokio_tungstenite=info", "axum=info"];

/// Why there are no logs.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be read.
    #[error("the log filter cannot be read")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The process logs elsewhere already.
    #[error("logging has been set up before")]
    Again(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Sends the process's log lines to standard error. For `main` only: a process has one log.
///
/// # Errors
///
/// The filter cannot be read, or logging was set up before.
pub fn init(format: LogFormat, filter: &LogFilter) -> Result<(), TelemetryError> {
    let mut filter = EnvFilter::try_new(filter.as_str())?;
    for library in LIBRARIES {
        filter = filter.add_directive(library.parse()?);
    }
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).with_ansi(stderr().is_terminal());
    match format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    }
    .map_err(TelemetryError::Again)
}
