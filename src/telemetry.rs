//! Log lines on standard error, because standard output is only for the line with the node's address. With JSON logs the
//! few lines that do not go through the log have its form, so that a collector can read every line. Builds with the
//! feature `otlp` also send spans of decisions to an OpenTelemetry collector.

#[cfg(feature = "otlp")]
mod otlp;

use std::io::{IsTerminal, Write, stderr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::time::interval;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::{LogFilter, LogFormat, OtlpEndpoint};
use crate::output::{LAST_WORDS, at_most};
use gitorial_relay::metrics::Metrics;

/// How many lines wait for a slow reader before lines are dropped.
const WAITING_LINES: usize = 8_192;

/// How often the dropped lines are counted.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// The most detailed level of these libraries, whatever the filter: in more detail they print addresses and store keys,
/// and so session ids. The library for Redis logs Redis's answers as they come; the relay logs them once, without secrets.
const LIBRARIES: [&str; 6] =
    ["fred=error", "hyper=info", "hyper_util=info", "tungstenite=info", "tokio_tungstenite=info", "axum=info"];

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

/// A process's log and spans. Dropping it sends the queued spans and writes the waiting lines, which may take a few
/// seconds, so a task must not drop it.
#[derive(Debug)]
pub(crate) struct Telemetry {
    // The spans end first, because their end may log.
    #[cfg(feature = "otlp")]
    spans: Option<otlp::Spans>,
    log: Log,
}

impl Telemetry {
    /// The log.
    pub(crate) fn log(&self) -> Log {
        self.log.clone()
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        #[cfg(feature = "otlp")]
        drop(self.spans.take());
        self.log.finish();
    }
}

/// The lines on their way to standard error. A thread writes them, so that nothing else waits for their reader. Clones
/// share one log.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    /// The thread, until the log is finished.
    writer: Arc<Mutex<Option<WorkerGuard>>>,
    dropped: ErrorCounter,
}

impl Log {
    /// Writes the lines that wait, as far as their reader takes them within a moment. Later lines may be lost.
    pub(crate) fn finish(&self) {
        let writer = self.writer.lock().take();
        at_most(LAST_WORDS, move || drop(writer));
    }

    /// Counts the lines that are dropped, and says how many they were once there is room for that line.
    pub(crate) async fn count_dropped(self, metrics: &Metrics) {
        let mut ticks = interval(COUNT_EVERY);
        let (mut counted, mut told) = (0, 0);
        loop {
            ticks.tick().await;
            let dropped = self.dropped.dropped_lines();
            metrics.dropped_log_lines.inc_by((dropped - counted) as u64);
            counted = dropped;
            if dropped > told {
                tracing::warn!(lines = dropped - told, "log lines were dropped, because nobody read them in time");
                // While there is no room, this line is dropped and counted too.
                if self.dropped.dropped_lines() == dropped {
                    told = dropped;
                }
            }
        }
    }
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
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(WAITING_LINES)
        .thread_name("log")
        .finish(stderr());
    let written = Log { dropped: writer.error_counter(), writer: Arc::new(Mutex::new(Some(guard))) };
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(stderr().is_terminal());
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
        std::panic::set_hook(Box::new(log_panic));
        return Ok(Telemetry { spans: Some(spans), log: written });
    }
    // Only a build with the feature sends spans.
    let _ = (runtime, &settings.collector, &settings.node);
    log.try_init().map_err(|error| TelemetryError::Again(error.into()))?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(Telemetry {
        #[cfg(feature = "otlp")]
        spans: None,
        log: written,
    })
}

/// Logs a panic. The usual hook writes to standard error itself, and would wait for its reader.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let reason = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or_default();
    tracing::error!(place, reason, "a task of the relay panicked");
}
