//! Log lines on standard error, because standard output is only for the line with the node's address. With JSON logs the
//! few lines that do not go through the log have its form, so that a collector can read every line. Builds with the
//! feature `otlp` also send spans of decisions to an OpenTelemetry collector.

#[cfg(feature = "otlp")]
mod otlp;

use std::io::{IsTerminal, Write, stderr};
use std::time::SystemTime;

use serde_json::json;
use tokio::runtime::Handle;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::{LogFilter, LogFormat, OtlpEndpoint};

/// The most detailed level of these libraries, whatever the filter: in more detail they print addresses and store keys,
/// and so session ids.
const LIBRARIES: [&str; 6] =
    ["fred=info", "hyper=info", "hyper_util=info", "tungstenite=info", "tokio_tungstenite=info", "axum=info"];

/// The reason why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TelemetryError {
    /// The filter is invalid.
    #[error("the log filter cannot be read")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The process has a logger already.
    #[error("logging has been set up before")]
    Again(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Spans cannot be sent.
    #[cfg(feature = "otlp")]
    #[error("spans cannot be sent to the collector")]
    Spans(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// The settings of logs and spans.
#[derive(Clone, Debug)]
pub(crate) struct TelemetrySettings {
    /// The format of log lines.
    pub(crate) format: LogFormat,
    /// The log filter.
    pub(crate) filter: LogFilter,
    /// The collector for spans of decisions, if any. Only a build with the feature `otlp` sends spans.
    pub(crate) collector: Option<OtlpEndpoint>,
    /// The name of the node in the spans.
    pub(crate) node: String,
}

/// A process's log and spans. Dropping it sends the queued spans, which may take a few seconds, so a task must not drop
/// it.
#[derive(Debug)]
pub(crate) struct Telemetry {
    #[cfg(feature = "otlp")]
    _spans: Option<otlp::Spans>,
}

/// A line beside the log, in the form of its JSON lines. No log filter can hide it.
pub(crate) fn json_line(level: &str, message: &str) -> String {
    let timestamp = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
    json!({ "timestamp": timestamp, "level": level, "message": message, "target": "gitorial_relay" }).to_string()
}

/// Sends the process's log lines to standard error, and spans of decisions to a collector if one is set. Only `main`
/// calls this, because a process has one log. `runtime` sends the spans.
///
/// # Errors
///
/// The filter or the collector's address is invalid, or logging was set up before.
pub(crate) fn init(settings: &TelemetrySettings, runtime: &Handle) -> Result<Telemetry, TelemetryError> {
    let mut filter = EnvFilter::try_new(settings.filter.as_str())?;
    for library in LIBRARIES {
        filter = filter.add_directive(library.parse()?);
    }
    let lines = tracing_subscriber::fmt::layer().with_writer(stderr).with_ansi(stderr().is_terminal());
    let lines = match settings.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    if settings.format == LogFormat::Json {
        std::panic::set_hook(Box::new(|panic| {
            let _ = writeln!(stderr(), "{}", json_line("ERROR", &panic.to_string()));
        }));
    }
    let log = tracing_subscriber::registry().with(lines.with_filter(filter));
    #[cfg(feature = "otlp")]
    if let Some(collector) = &settings.collector {
        let (layer, spans) = otlp::layer(collector, &settings.node, runtime)?;
        log.with(layer).try_init().map_err(|error| TelemetryError::Again(error.into()))?;
        return Ok(Telemetry { _spans: Some(spans) });
    }
    // Only a build with the feature sends spans.
    let _ = (runtime, &settings.collector, &settings.node);
    log.try_init().map_err(|error| TelemetryError::Again(error.into()))?;
    Ok(Telemetry {
        #[cfg(feature = "otlp")]
        _spans: None,
    })
}
