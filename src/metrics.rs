//! Every metric of a node, in one place. Labels come from closed sets only: never a session, a client or a peer's text.

use std::time::Duration;

use prometheus::{Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

use crate::control::Transition;
use crate::protocol::{CloseReason, Direction, ErrorCode, FrameType};

/// How a question to Redis ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered.
    Ok,
    /// It was not, or with an error.
    Error,
}

/// One node's metrics, in a registry of its own. Cheap to update from any task.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Open sockets.
    pub connections: IntGauge,
    /// Sessions with a socket on this node.
    pub sessions: IntGauge,
    /// Times the store did not answer.
    pub store_errors: IntCounter,
    /// Times the connection to Redis was made again.
    pub redis_reconnects: IntCounter,
    /// Gaps in what another node should have received from this one.
    pub link_gaps: IntCounter,
    /// States that a newer one replaced in a slow reader's queue.
    pub conflated: IntCounter,
    /// Frames dropped without an answer: under way when their sender lost control, or from a replaced socket.
    pub dropped: IntCounter,
    /// From publishing on one node to delivery on another, by the wall clocks of both.
    pub delivery_seconds: Histogram,
    /// Round trips to the store.
    pub store_seconds: Histogram,
    frames: IntCounterVec,
    frames_in: Vec<IntCounter>,
    frames_out: Vec<IntCounter>,
    refusals: Vec<IntCounter>,
    closes: Vec<IntCounter>,
    transitions: Vec<IntCounter>,
    redis_commands: IntCounterVec,
}

impl Metrics {
    /// A fresh set, all at zero.
    ///
    /// # Panics
    ///
    /// Never: the names below are valid and distinct, which the unit test of this module holds.
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
        let histogram = |name: &str, help: &str| {
            // 50 µs to 1.6 s, doubling: a hop over Redis takes some 100 µs.
            let buckets = prometheus::exponential_buckets(0.000_05, 2.0, 16).expect("valid buckets");
            let opts = HistogramOpts::new(format!("gitorial_relay_{name}"), help).buckets(buckets);
            let histogram = Histogram::with_opts(opts).expect("valid name");
            registry.register(Box::new(histogram.clone())).expect("distinct name");
            histogram
        };
        let frames = counters("frames_total", "Frames by type and direction.", &["type", "direction"]);
        let refusals = counters("refusals_total", "Frames refused, by code.", &["code"]);
        let closes = counters("closes_total", "Connections that the relay closed, by reason.", &["reason"]);
        let transitions = counters("role_transitions_total", "Decisions about control, by kind.", &["transition"]);
        let by_direction = |direction: Direction| {
            let child = |kind: &FrameType| frames.with_label_values(&[kind.wire(), direction.label()]);
            FrameType::ALL.iter().map(child).collect()
        };
        Self {
            connections: gauge("connections", "Open sockets."),
            sessions: gauge("sessions", "Sessions with a socket on this node."),
            store_errors: counter("store_errors_total", "Questions that the store did not answer."),
            redis_reconnects: counter("redis_reconnects_total", "Connections to Redis that were made again."),
            link_gaps: counter("link_gaps_total", "Times that another node missed frames of this one."),
            conflated: counter("conflated_states_total", "States that a newer one replaced in a slow reader's queue."),
            dropped: counter("dropped_frames_total", "Frames dropped unanswered: overtaken by a change of control."),
            delivery_seconds: histogram("delivery_seconds", "From publishing on one node to delivery on another."),
            store_seconds: histogram("store_seconds", "Round trips to the store."),
            frames_in: by_direction(Direction::In),
            frames_out: by_direction(Direction::Out),
            refusals: ErrorCode::ALL.iter().map(|code| refusals.with_label_values(&[code.code()])).collect(),
            closes: CloseReason::ALL.iter().map(|reason| closes.with_label_values(&[reason.label()])).collect(),
            transitions: Transition::ALL.iter().map(|(_, label)| transitions.with_label_values(&[label])).collect(),
            redis_commands: counters("redis_commands_total", "Commands sent to Redis.", &["command", "outcome"]),
            frames,
            registry,
        }
    }

    /// Counts a frame.
    pub fn frame(&self, kind: FrameType, direction: Direction) {
        let children = match direction {
            Direction::In => &self.frames_in,
            Direction::Out => &self.frames_out,
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

    /// Counts a command to Redis. `command` is its name in lower case.
    pub fn redis_command(&self, command: &'static str, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Ok => "ok",
            Outcome::Error => "error",
        };
        self.redis_commands.with_label_values(&[command, outcome]).inc();
    }

    /// How many frames of this type went this way so far.
    #[must_use]
    pub fn frames_so_far(&self, kind: FrameType, direction: Direction) -> u64 {
        self.frames.with_label_values(&[kind.wire(), direction.label()]).get()
    }

    /// Notes how long a frame was under way between two nodes.
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
        for name in ["connections 0", "sessions 0", r#"refusals_total{code="not_active"} 0"#] {
            assert!(text.contains(&format!("gitorial_relay_{name}")), "{name}");
        }
    }
}
