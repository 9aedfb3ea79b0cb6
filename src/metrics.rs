//! Every metric of a node, in one place. Labels come from closed sets only: never a session id, a client id or a peer's
//! text.

use std::time::Duration;

use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::control::Transition;
use crate::protocol::{CloseReason, ErrorCode, Flow, FrameType};

/// The result of a command to Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandResult {
    /// Redis answered.
    Ok,
    /// Redis did not answer, or answered with an error.
    Error,
}

/// How a client joined its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinKind {
    /// The client joined as a new one.
    New,
    /// The client resumed its place.
    Resumed,
    /// The client was refused.
    Refused,
}

impl JoinKind {
    /// Every kind, in order.
    pub const ALL: [Self; 3] = [Self::New, Self::Resumed, Self::Refused];

    /// The value of the `kind` label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Resumed => "resumed",
            Self::Refused => "refused",
        }
    }
}

/// Why a node created no session, although the request was right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The node has no lease.
    NotReady,
    /// The store is full, or nearly.
    Full,
}

impl Refusal {
    /// Every reason, in order.
    pub const ALL: [Self; 2] = [Self::NotReady, Self::Full];

    /// The value of the `reason` label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotReady => "not_ready",
            Self::Full => "full",
        }
    }
}

/// Why a message in this node's inbox is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disbelief {
    /// It is not signed.
    Unsigned,
    /// It is signed with another secret, or was changed.
    WronglySigned,
    /// No node of this version writes it.
    Unreadable,
}

impl Disbelief {
    /// Every reason, in order.
    pub const ALL: [Self; 3] = [Self::Unsigned, Self::WronglySigned, Self::Unreadable];

    /// The value of the `reason` label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unsigned => "unsigned",
            Self::WronglySigned => "wrongly_signed",
            Self::Unreadable => "unreadable",
        }
    }
}

/// The state of a node at one moment. It is not counted as things happen, but read when the metrics are scraped
/// ([`crate::relay::Relay::measure`]).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Whether the node serves.
    pub ready: bool,
    /// Whether the node is shutting down.
    pub draining: bool,
    /// The open sockets still to be closed, while the node is shutting down.
    pub drain_sockets: usize,
    /// The time left of the node's lease, of the one that lasts longest if there are several regions.
    pub lease: Duration,
    /// The regions without a lease.
    pub regions_without_lease: usize,
    /// The frames that wait for the node's sockets.
    pub queued_frames: usize,
    /// The frames that wait for the socket with the longest queue.
    pub longest_queue_frames: usize,
    /// The messages that wait to be published to other nodes.
    pub broker_queue: usize,
    /// The sessions with a socket on the node.
    pub sessions: usize,
}

/// One node's metrics, in a registry of its own. Cheap to update from any task.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Open sockets.
    pub connections: IntGauge,
    /// Times the store did not answer.
    pub store_errors: IntCounter,
    /// Reconnects to Redis.
    pub redis_reconnects: IntCounter,
    /// Gaps in the messages from this node to another.
    pub link_gaps: IntCounter,
    /// States that a newer one replaced in a slow reader's queue.
    pub conflated: IntCounter,
    /// Frames dropped without an answer: under way when their sender lost control, or from a superseded socket.
    pub dropped: IntCounter,
    /// Log lines dropped because nobody read them. The program counts them; the library has no log of its own.
    pub dropped_log_lines: IntCounter,
    /// The time from publishing on one node to delivery on another, by the wall clocks of both.
    pub delivery_seconds: Histogram,
    /// Round trips to the store.
    pub store_seconds: Histogram,
    /// The duration of connections that joined a session.
    pub connection_seconds: Histogram,
    views: Views,
    joins: Vec<IntCounter>,
    refused_sessions: Vec<IntCounter>,
    refused_messages: Vec<IntCounter>,
    frames: IntCounterVec,
    frames_in: Vec<IntCounter>,
    frames_out: Vec<IntCounter>,
    refusals: Vec<IntCounter>,
    closes: Vec<IntCounter>,
    transitions: Vec<IntCounter>,
    redis_commands: IntCounterVec,
}

/// The gauges of a [`Snapshot`].
#[derive(Debug)]
struct Views {
    sessions: IntGauge,
    ready: IntGauge,
    draining: IntGauge,
    drain_sockets: IntGauge,
    lease_seconds: Gauge,
    regions_without_lease: IntGauge,
    queued_frames: IntGauge,
    longest_queue_frames: IntGauge,
    broker_queue_messages: IntGauge,
}

/// The buckets of round trips and deliveries: 50 µs to 1.6 s, doubling, since a hop over Redis takes some 100 µs.
fn hops() -> Vec<f64> {
    prometheus::exponential_buckets(0.000_05, 2.0, 16).expect("valid buckets")
}

/// The buckets of connections: from a page that is only looked at to an editor that stays open overnight.
const LIVES: [f64; 9] = [1.0, 10.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 43_200.0, 86_400.0];

impl Metrics {
    /// Creates all metrics at zero.
    ///
    /// # Panics
    ///
    /// Never: the names below are valid and distinct, which the unit test of this module checks.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(format!("gitorial_relay_{name}"), help).expect("valid name");
            registry.register(Box::new(gauge.clone())).expect("distinct name");
            gauge
        };
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let opts = Opts::new(format!("gitorial_relay_{name}"), help);
            let counters = IntCounterVec::new(opts, labels).expect("valid name");
            registry.register(Box::new(counters.clone())).expect("distinct name");
            counters
        };
        let counter = |name: &str, help: &str| counters(name, help, &[]).with_label_values::<&str>(&[]);
        let histogram = |name: &str, help: &str, buckets: Vec<f64>| {
            let opts = HistogramOpts::new(format!("gitorial_relay_{name}"), help).buckets(buckets);
            let histogram = Histogram::with_opts(opts).expect("valid name");
            registry.register(Box::new(histogram.clone())).expect("distinct name");
            histogram
        };
        let frames = counters("frames_total", "Frames by type and direction.", &["type", "direction"]);
        let refusals = counters("refusals_total", "Frames refused, by code.", &["code"]);
        let closes = counters("closes_total", "Connections that the relay closed, by reason.", &["reason"]);
        let transitions = counters("role_transitions_total", "Decisions about control, by kind.", &["transition"]);
        let refused = counters("refused_sessions_total", "Sessions that were not created, by reason.", &["reason"]);
        let messages = counters("refused_messages_total", "Messages of other nodes ignored, by reason.", &["reason"]);
        let joins = counters("joins_total", "Attempts to join a session, by result.", &["kind"]);
        let lease = Gauge::new("gitorial_relay_lease_seconds", "Time left of the node's lease that lasts longest.")
            .expect("valid name");
        registry.register(Box::new(lease.clone())).expect("distinct name");
        let opts = Opts::new("gitorial_relay_build_info", "Always 1; the label is the running version.");
        let build = IntGaugeVec::new(opts, &["version"]).expect("valid name");
        registry.register(Box::new(build.clone())).expect("distinct name");
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        watch_process(&registry);
        let by_direction = |direction: Flow| {
            let child = |kind: &FrameType| frames.with_label_values(&[kind.wire(), direction.label()]);
            FrameType::ALL.iter().map(child).collect()
        };
        Self {
            connections: gauge("connections", "Open sockets."),
            store_errors: counter("store_errors_total", "Operations that the store did not answer."),
            redis_reconnects: counter("redis_reconnects_total", "Reconnects to Redis."),
            link_gaps: counter("link_gaps_total", "Times that another node missed messages of this one."),
            conflated: counter("conflated_states_total", "States that a newer one replaced in a slow reader's queue."),
            dropped: counter("dropped_frames_total", "Frames dropped without an answer after a change of control."),
            dropped_log_lines: counter("dropped_log_lines_total", "Log lines dropped because nobody read them."),
            delivery_seconds: histogram(
                "delivery_seconds",
                "Time from publishing on one node to delivery on another.",
                hops(),
            ),
            store_seconds: histogram("store_seconds", "Round trips to Redis, heartbeats included.", hops()),
            connection_seconds: histogram("connection_seconds", "Duration of connections.", LIVES.to_vec()),
            joins: JoinKind::ALL.iter().map(|kind| joins.with_label_values(&[kind.label()])).collect(),
            refused_sessions: Refusal::ALL.iter().map(|reason| refused.with_label_values(&[reason.label()])).collect(),
            refused_messages: Disbelief::ALL
                .iter()
                .map(|reason| messages.with_label_values(&[reason.label()]))
                .collect(),
            views: Views {
                sessions: gauge("sessions", "Sessions with a socket on this node."),
                ready: gauge("ready", "1 while the node serves, as /readyz says."),
                draining: gauge("draining", "1 while the node is shutting down."),
                drain_sockets: gauge("drain_sockets", "Sockets still to be closed while the node is shutting down."),
                lease_seconds: lease,
                regions_without_lease: gauge("regions_without_lease", "Regions whose lease the node does not hold."),
                queued_frames: gauge("queued_frames", "Frames that wait for all sockets of the node."),
                longest_queue_frames: gauge("longest_queue_frames", "Frames in the longest queue of a socket."),
                broker_queue_messages: gauge("broker_queue_messages", "Messages that wait to be sent to other nodes."),
            },
            frames_in: by_direction(Flow::In),
            frames_out: by_direction(Flow::Out),
            refusals: ErrorCode::ALL.iter().map(|code| refusals.with_label_values(&[code.code()])).collect(),
            closes: CloseReason::ALL.iter().map(|reason| closes.with_label_values(&[reason.label()])).collect(),
            transitions: Transition::ALL.iter().map(|(_, label)| transitions.with_label_values(&[label])).collect(),
            redis_commands: counters("redis_commands_total", "Commands sent to Redis.", &["command", "outcome"]),
            frames,
            registry,
        }
    }

    /// Counts a frame.
    pub fn frame(&self, kind: FrameType, direction: Flow) {
        let children = match direction {
            Flow::In => &self.frames_in,
            Flow::Out => &self.frames_out,
        };
        children[kind as usize].inc();
    }

    /// Counts a refusal.
    pub fn refusal(&self, code: ErrorCode) {
        self.refusals[code as usize].inc();
    }

    /// Counts a connection that the relay closed.
    pub fn close(&self, reason: CloseReason) {
        self.closes[reason as usize].inc();
    }

    /// Counts a decision about control.
    pub fn transition(&self, transition: Transition) {
        self.transitions[transition as usize].inc();
    }

    /// Counts a session that was not created.
    pub fn refused_session(&self, reason: Refusal) {
        self.refused_sessions[reason as usize].inc();
    }

    /// Counts a message that is ignored.
    pub fn refused_message(&self, reason: Disbelief) {
        self.refused_messages[reason as usize].inc();
    }

    /// Counts an attempt to join.
    pub fn join(&self, kind: JoinKind) {
        self.joins[kind as usize].inc();
    }

    /// Sets the gauges to this snapshot.
    pub fn show(&self, snapshot: &Snapshot) {
        let count = |gauge: &IntGauge, number: usize| gauge.set(i64::try_from(number).unwrap_or(i64::MAX));
        let views = &self.views;
        count(&views.sessions, snapshot.sessions);
        count(&views.ready, usize::from(snapshot.ready));
        count(&views.draining, usize::from(snapshot.draining));
        count(&views.drain_sockets, snapshot.drain_sockets);
        views.lease_seconds.set(snapshot.lease.as_secs_f64());
        count(&views.regions_without_lease, snapshot.regions_without_lease);
        count(&views.queued_frames, snapshot.queued_frames);
        count(&views.longest_queue_frames, snapshot.longest_queue_frames);
        count(&views.broker_queue_messages, snapshot.broker_queue);
    }

    /// Counts a command to Redis. `command` is its name in lower case.
    pub fn redis_command(&self, command: &'static str, outcome: CommandResult) {
        let outcome = match outcome {
            CommandResult::Ok => "ok",
            CommandResult::Error => "error",
        };
        self.redis_commands.with_label_values(&[command, outcome]).inc();
    }

    /// How many frames of this type went in this direction so far.
    #[must_use]
    pub fn frames_so_far(&self, kind: FrameType, direction: Flow) -> u64 {
        self.frames.with_label_values(&[kind.wire(), direction.label()]).get()
    }

    /// Records how long a frame was under way between two nodes.
    pub fn delivered_after(&self, elapsed: Duration) {
        self.delivery_seconds.observe(elapsed.as_secs_f64());
    }

    /// The Prometheus text format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics cannot be rendered");
        }
        String::from_utf8(text).unwrap_or_default()
    }
}

/// Registers memory, CPU time and open files of the process, under the names that all Prometheus clients use. The
/// process is the same for every node in it.
fn watch_process(registry: &Registry) {
    #[cfg(target_os = "linux")]
    {
        let process = prometheus::process_collector::ProcessCollector::for_self();
        registry.register(Box::new(process)).expect("distinct name");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = registry;
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_starts_at_zero_under_its_own_name() {
        let text = Metrics::new().render();
        let labelled = [r#"refusals_total{code="not_active"} 0"#, r#"joins_total{kind="resumed"} 0"#];
        for name in ["connections 0", "sessions 0", "ready 0", "lease_seconds 0"].iter().chain(&labelled) {
            assert!(text.contains(&format!("gitorial_relay_{name}")), "{name}");
        }
    }

    #[test]
    fn a_snapshot_is_shown_as_it_is() {
        let metrics = Metrics::new();
        let snapshot = Snapshot {
            sessions: 4,
            ready: true,
            draining: true,
            drain_sockets: 2,
            lease: Duration::from_millis(2_500),
            regions_without_lease: 6,
            queued_frames: 7,
            longest_queue_frames: 5,
            broker_queue: 3,
        };
        metrics.show(&snapshot);
        let text = metrics.render();
        let shown = ["ready 1", "draining 1", "drain_sockets 2", "lease_seconds 2.5", "queued_frames 7"];
        for name in shown.iter().chain(&[
            "longest_queue_frames 5",
            "regions_without_lease 6",
            "broker_queue_messages 3",
            "sessions 4",
        ]) {
            assert!(text.contains(&format!("gitorial_relay_{name}\n")), "{name}");
        }
        metrics.show(&Snapshot::default());
        assert!(metrics.render().contains("gitorial_relay_lease_seconds 0\n"));
    }

    #[test]
    fn two_nodes_in_one_process_both_show_its_memory() {
        for metrics in [Metrics::new(), Metrics::new()] {
            let text = metrics.render();
            let memory = text.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
            assert!(memory.is_some_and(|bytes| bytes.parse::<f64>().unwrap() > 0.0), "{text}");
            assert!(text.contains("process_cpu_seconds_total ") && text.contains("process_open_fds "));
        }
    }

    #[test]
    fn the_running_version_is_named() {
        let expected = format!("gitorial_relay_build_info{{version=\"{}\"}} 1\n", env!("CARGO_PKG_VERSION"));
        assert!(Metrics::new().render().contains(&expected));
    }
}
