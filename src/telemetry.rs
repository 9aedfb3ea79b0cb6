//! Log lines, on standard error: standard output belongs to the one line that says where the node listens. And spans of
//! decisions to an OpenTelemetry collector, in builds with the feature `otlp`.

#[cfg(feature = "otlp")]
mod otlp;

use std::io::{IsTerminal, stderr};

use tokio::runtime::Handle;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::{LogFilter, LogFormat, OtlpEndpoint};

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
    /// Spans cannot be sent.
    #[cfg(feature = "otlp")]
    #[error("spans cannot be sent to the collector")]
    Spans(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// What is said, how, and to whom.
#[derive(Clone, Debug)]
pub struct TelemetrySettings {
    /// How log lines look.
    pub format: LogFormat,
    /// What is logged.
    pub filter: LogFilter,
    /// Where spans of decisions go, if anywhere. Only a build with the feature `otlp` sends any.
    pub collector: Option<OtlpEndpoint>,
    /// The name of the node in these spans.
    pub node: String,
}

/// A process's log and spans. What has not been sent when it is dropped is sent then, which may take a few seconds: not
/// inside a task.
#[derive(Debug)]
pub struct Telemetry {
    #[cfg(feature = "otlp")]
    _spans: Option<otlp::Spans>,
}

/// Sends the process's log lines to standard error, and spans of decisions to a collector if one is named. For `main`
/// only: a process has one log. `runtime` is what spans are sent on.
///
/// # Errors
///
/// The filter or the collector's address cannot be used, or logging was set up before.
pub fn init(settings: &TelemetrySettings, runtime: &Handle) -> Result<Telemetry, TelemetryError> {
    let mut filter = EnvFilter::try_new(settings.filter.as_str())?;
    for library in LIBRARIES {
        filter = filter.add_directive(library.parse()?);
    }
    let lines = tracing_subscriber::fmt::layer().with_writer(stderr).with_ansi(stderr().is_terminal());
    let lines = match settings.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let log = tracing_subscriber::registry().with(lines.with_filter(filter));
    #[cfg(feature = "otlp")]
    if let Some(collector) = &settings.collector {
        let (layer, spans) = otlp::layer(collector, &settings.node, runtime)?;
        log.with(layer).try_init().map_err(|error| TelemetryError::Again(error.into()))?;
        return Ok(Telemetry { _spans: Some(spans) });
    }
    let _ = runtime;
    log.try_init().map_err(|error| TelemetryError::Again(error.into()))?;
    Ok(Telemetry {
        #[cfg(feature = "otlp")]
        _spans: None,
    })
}
