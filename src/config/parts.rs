//! The small structs for the parts, so that no part sees the whole configuration.

use super::Config;
use crate::telemetry::TelemetrySettings;
use gitorial_relay::NodeSettings;
use gitorial_relay::RedisSettings;
use gitorial_relay::clock::TimeSource;
use gitorial_relay::control::Rules;
use gitorial_relay::hub::QueueLimits;
use gitorial_relay::presence::Timing;
use gitorial_relay::relay::RelaySettings;

impl Config {
    /// The settings of the node.
    #[must_use]
    pub(crate) fn node(&self) -> NodeSettings {
        NodeSettings {
            name: self.node_name().as_str().to_owned(),
            redis: self.redis(),
            max_sessions: self.max_sessions,
            relay: self.relay(),
        }
    }

    /// The settings of Redis, if it is used.
    #[must_use]
    pub(crate) fn redis(&self) -> Option<RedisSettings> {
        self.redis_url.as_ref().map(|url| RedisSettings {
            url: url.reveal().to_owned(),
            command_timeout: self.redis_command_timeout,
            connect_timeout: self.redis_connect_timeout,
            replicas: u32::try_from(self.redis_wait_replicas).unwrap_or(u32::MAX),
            prefix: self.redis_prefix.clone(),
            full_percent: u32::try_from(self.redis_full_percent).unwrap_or(100),
            secret: self.cluster_secret.clone(),
        })
    }

    /// The settings of logs and spans.
    #[must_use]
    pub(crate) fn telemetry(&self) -> TelemetrySettings {
        TelemetrySettings {
            format: self.log_format,
            filter: self.log_level.clone(),
            collector: self.otlp_endpoint.clone(),
            node: self.node_name().as_str().to_owned(),
        }
    }

    /// The kind of store, for the log.
    #[must_use]
    pub(crate) fn store_kind(&self) -> &'static str {
        if self.redis_url.is_some() { "redis" } else { "embedded" }
    }

    fn relay(&self) -> RelaySettings {
        let rules = Rules { grace: self.grace_period, max_clients: self.max_clients_per_session, ..Rules::default() };
        let timing = Timing { heartbeat: self.heartbeat_interval, lease: self.lease_ttl, margin: self.lease_margin };
        RelaySettings {
            time: TimeSource::Boot,
            rules,
            timing,
            queue: QueueLimits::for_frames_of(self.max_frame_bytes),
            session_ttl: self.session_ttl,
            session_max_lifetime: self.session_max_lifetime,
            strategy: self.conflict_resolution,
            ping_interval: self.ping_interval,
            max_connections: self.max_connections,
        }
    }
}
