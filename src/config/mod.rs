//! Every setting of a node: one doc comment, one default, one unit.
//!
//! A setting comes from its flag, else its environment variable (`RELAY_` and the name in capitals), else the TOML file
//! that `--config` names (same name), else its default. Only `node` sees the whole [`Config`]; the parts below it get
//! small structs of their own.

mod effective;
mod error;
mod load;
mod parts;
mod validate;
mod values;

use std::net::SocketAddr;
use std::time::Duration;

pub(crate) use effective::Effective;
pub(crate) use error::ConfigError;
pub(crate) use gitorial_relay::http::Secret;
pub(crate) use load::{Invocation, command, read};
pub(crate) use values::{
    LogFilter, LogFormat, NodeName, OtlpEndpoint, PathPrefix, RedisUrl, SessionListing, WsPaths, duration,
};

use gitorial_relay::http::{HttpSettings, Listing, Origins};
use gitorial_relay::session::Strategy;
use gitorial_relay::{ClusterSecret, RedisSettings};
use values::{number, redis_prefix, strategy, switch};

/// The checked settings of one node. The `Debug` form shows no secret.
#[derive(Clone, Debug, PartialEq, clap::Args)]
pub(crate) struct Config {
    /// Address and port to serve clients on; port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:8080", value_parser = values::address, value_name = "ADDR:PORT")]
    #[arg(help_heading = "Network")]
    pub(crate) listen: SocketAddr,

    /// Address and port for /healthz, /readyz and /metrics alone; without it they are served with the rest.
    #[arg(long, value_parser = values::address, value_name = "ADDR:PORT", help_heading = "Network")]
    pub(crate) ops_listen: Option<SocketAddr>,

    /// Web origins that may use the relay, separated by commas; `*` allows any. They apply to the HTTP API (CORS) and
    /// to WebSocket upgrades that carry an Origin header.
    #[arg(long, default_value = "*", value_name = "ORIGINS", help_heading = "Network")]
    pub(crate) allowed_origins: Origins,

    /// Paths that accept WebSockets, separated by commas; `/` and `/ws` always do.
    #[arg(long, default_value = "/,/ws", value_name = "PATHS", help_heading = "Network")]
    pub(crate) ws_paths: WsPaths,

    /// The path prefix that a proxy in front of the node keeps, as in /relay: the API and the paths that accept
    /// WebSockets answer under it, too.
    #[arg(long, default_value = "/", value_name = "PATH", help_heading = "Network")]
    pub(crate) path_prefix: PathPrefix,

    /// Whether a browser that opens `/` sees the demo page: on or off.
    #[arg(long, default_value = "on", value_parser = switch, value_name = "ON|OFF", help_heading = "Network")]
    #[arg(action = clap::ArgAction::Set)]
    pub(crate) demo_page: bool,

    /// The Redis that holds the sessions and connects the nodes: redis://, rediss:// (TLS), redis-sentinel://,
    /// rediss-sentinel://, redis-cluster:// or rediss-cluster://. Without it one node keeps everything in its own
    /// memory.
    #[arg(long, value_name = "URL", help_heading = "Redis")]
    pub(crate) redis_url: Option<RedisUrl>,

    /// What the names of all keys and channels in Redis begin with. Relays with different prefixes can share one Redis.
    #[arg(long, default_value = RedisSettings::PREFIX, value_parser = redis_prefix, value_name = "PREFIX")]
    #[arg(help_heading = "Redis")]
    pub(crate) redis_prefix: String,

    /// How many replicas must have a lease renewal before it counts.
    #[arg(long, default_value = "0", value_parser = number::<0, 16>, value_name = "COUNT", help_heading = "Redis")]
    pub(crate) redis_wait_replicas: usize,

    /// Give up with exit code 1 when Redis cannot be reached at the start, instead of waiting for it.
    #[arg(long, default_value = "false", value_parser = switch, value_name = "ON|OFF", help_heading = "Redis")]
    #[arg(action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) redis_fail_fast: bool,

    /// How long making a connection to Redis may take, as in 5s.
    #[arg(long, default_value = "5s", value_parser = duration, value_name = "DURATION", help_heading = "Redis")]
    pub(crate) redis_connect_timeout: Duration,

    /// How long one Redis command may take, as in 2s.
    #[arg(long, default_value = "2s", value_parser = duration, value_name = "DURATION", help_heading = "Redis")]
    pub(crate) redis_command_timeout: Duration,

    /// Start even if Redis may evict keys, and with them live sessions, when its memory is full.
    #[arg(long, default_value = "false", value_parser = switch, value_name = "ON|OFF", help_heading = "Redis")]
    #[arg(action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) allow_evicting_redis: bool,

    /// The percentage of Redis's maxmemory from which on no new sessions are created, so that those that live have room.
    #[arg(long, default_value = "90", value_parser = number::<1, 100>, value_name = "PERCENT", help_heading = "Redis")]
    pub(crate) redis_full_percent: usize,

    /// Signs the messages between the nodes: 16 characters or more, the same on each node. To change it, name several,
    /// separated by commas: the first one signs, each is accepted, and an empty one accepts what is not signed. Set it in
    /// the environment, so that it stays secret.
    #[arg(long, value_name = "SECRETS", help_heading = "Redis")]
    pub(crate) cluster_secret: Option<ClusterSecret>,

    /// How long a session lives after the last activity in it, as in 30m.
    #[arg(long, default_value = "30m", value_parser = duration, value_name = "DURATION", help_heading = "Sessions")]
    pub(crate) session_ttl: Duration,

    /// How long a session lives at most, however busy it is, as in 12h.
    #[arg(long, default_value = "12h", value_parser = duration, value_name = "DURATION", help_heading = "Sessions")]
    pub(crate) session_max_lifetime: Duration,

    /// Which callers may list all sessions, and so learn their ids: none, those with the admin token, or all.
    #[arg(long, default_value = "off", value_enum, value_name = "WHO", help_heading = "Sessions")]
    pub(crate) session_listing: SessionListing,

    /// The bearer token for listing sessions, 16 characters or more. Set it in the environment, so that it stays
    /// secret.
    #[arg(long, value_name = "TOKEN", help_heading = "Sessions")]
    pub(crate) admin_token: Option<Secret>,

    /// How a claim is decided while another client has control, unless the session's creator says otherwise:
    /// first_come_first_served, user_choice or deny_both.
    #[arg(long, default_value = "first_come_first_served", value_parser = strategy, value_name = "STRATEGY")]
    #[arg(help_heading = "Sessions")]
    pub(crate) conflict_resolution: Strategy,

    /// How long an ACTIVE client that lost its connection keeps control, as in 15s.
    #[arg(long, default_value = "15s", value_parser = duration, value_name = "DURATION", help_heading = "Sessions")]
    pub(crate) grace_period: Duration,

    /// The largest frame that a client may send, in bytes.
    #[arg(long, default_value = "262144", value_parser = number::<1024, 16_777_216>, value_name = "BYTES")]
    #[arg(help_heading = "Limits")]
    pub(crate) max_frame_bytes: usize,

    /// The largest metadata of a session, in bytes.
    #[arg(long, default_value = "16384", value_parser = number::<0, 1_048_576>, value_name = "BYTES")]
    #[arg(help_heading = "Limits")]
    pub(crate) max_metadata_bytes: usize,

    /// The largest number of clients in one session, over all nodes.
    #[arg(long, default_value = "256", value_parser = number::<1, 100_000>, value_name = "COUNT")]
    #[arg(help_heading = "Limits")]
    pub(crate) max_clients_per_session: usize,

    /// The largest number of open sockets on this node.
    #[arg(long, default_value = "100000", value_parser = number::<1, 10_000_000>, value_name = "COUNT")]
    #[arg(help_heading = "Limits")]
    pub(crate) max_connections: usize,

    /// The largest number of sessions that the node keeps in its own memory when there is no Redis.
    #[arg(long, default_value = "100000", value_parser = number::<1, 100_000_000>, value_name = "COUNT")]
    #[arg(help_heading = "Limits")]
    pub(crate) max_sessions: usize,

    /// The node's name in logs and in Redis; the host's name by default.
    #[arg(long, value_name = "NAME", help_heading = "Node")]
    pub(crate) node_id: Option<NodeName>,

    /// How long the node may take to close its sockets after a stop signal, as in 25s; it closes them in waves spread
    /// over this time.
    #[arg(long, default_value = "25s", value_parser = duration, value_name = "DURATION", help_heading = "Node")]
    pub(crate) drain_timeout: Duration,

    /// How often each socket is pinged, as in 30s; one that is silent for two intervals is closed.
    #[arg(long, default_value = "30s", value_parser = duration, value_name = "DURATION", help_heading = "Node")]
    pub(crate) ping_interval: Duration,

    /// How often the node renews its lease, as in 1s.
    #[arg(long, default_value = "1s", value_parser = duration, value_name = "DURATION", help_heading = "Node")]
    pub(crate) heartbeat_interval: Duration,

    /// How long a lease lasts after a renewal, and so how long the node's clients may control without one, as in 5s.
    #[arg(long, default_value = "5s", value_parser = duration, value_name = "DURATION", help_heading = "Node")]
    pub(crate) lease_ttl: Duration,

    /// The safety margin of a lease, as in 1s: its owner stops this much earlier, and the other nodes wait this much
    /// longer.
    #[arg(long, default_value = "1s", value_parser = duration, value_name = "DURATION", help_heading = "Node")]
    pub(crate) lease_margin: Duration,

    /// The format of log lines on standard error. With `json` all other lines of the node are JSON, too.
    #[arg(long, default_value = "text", value_enum, value_name = "FORMAT", help_heading = "Node")]
    pub(crate) log_format: LogFormat,

    /// The log filter: error, warn, info, debug, trace or off, also per module as in `info,gitorial_relay::http=debug`.
    #[arg(long, default_value = "info", value_name = "FILTER", help_heading = "Node")]
    pub(crate) log_level: LogFilter,

    /// The address of an OpenTelemetry collector for spans of decisions, by HTTP; only in builds with the feature
    /// `otlp`.
    #[arg(long, value_name = "URL", help_heading = "Node")]
    pub(crate) otlp_endpoint: Option<OtlpEndpoint>,
}

impl Config {
    /// The name of the node: the one that was set, or the host's, or `node`.
    #[must_use]
    pub(crate) fn node_name(&self) -> NodeName {
        self.node_id.clone().unwrap_or_else(NodeName::of_host)
    }

    /// The settings of the HTTP side.
    #[must_use]
    pub(crate) fn http(&self) -> HttpSettings {
        let listing = match (self.session_listing, &self.admin_token) {
            (SessionListing::Public, _) => Listing::Public,
            (SessionListing::Admin, Some(token)) => Listing::Admin(token.clone()),
            // `validate` refuses `admin` without a token. If that check is ever forgotten, no caller may list.
            (SessionListing::Admin, None) | (SessionListing::Off, _) => Listing::Off,
        };
        HttpSettings {
            listing,
            origins: self.allowed_origins.clone(),
            ws_paths: self.ws_paths.as_slice().to_vec(),
            path_prefix: self.path_prefix.as_str().to_owned(),
            max_frame_bytes: self.max_frame_bytes,
            max_metadata_bytes: self.max_metadata_bytes,
            session_max_lifetime: self.session_max_lifetime,
            demo_page: self.demo_page,
            serve_ops: self.ops_listen.is_none(),
        }
    }
}

impl Default for Config {
    /// Every setting at its default.
    fn default() -> Self {
        load::defaults()
    }
}
