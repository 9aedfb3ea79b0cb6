//! The only module that builds clients of Redis: their settings, their reconnects, and when a client is given up.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, EventInterface};
use fred::rustls;
use fred::types::config::{Config, ReconnectPolicy, ServerConfig, TlsConfig, TlsConnector};
use fred::types::{Builder, RespVersion};
use parking_lot::RwLock;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::metrics::{CommandResult, Metrics};
use crate::region::Regions;

mod eviction;
mod names;
mod script;
mod secret;
mod servers;
mod slots;
mod trouble;
mod words;

pub use eviction::Evicts;
pub(crate) use eviction::check_eviction;
pub(crate) use names::Names;
use script::NO_SCRIPT;
pub(crate) use script::Script;
pub use secret::{ClusterSecret, ClusterSecretError};
pub(crate) use servers::{Call, Server, Servers};
use slots::Address;
use trouble::Trouble;
use words::{Censor, is_answer, with_remedy};

/// How the relay reaches Redis. The `Debug` form never shows the URL, which may hold a password.
#[derive(Clone)]
pub struct RedisSettings {
    /// `redis://`, `rediss://` (TLS), or either with `-sentinel` or `-cluster`; credentials and database as usual.
    pub url: String,
    /// The time after which a command without an answer has failed.
    pub command_timeout: Duration,
    /// The time after which an attempt to connect has failed; the next one follows.
    pub connect_timeout: Duration,
    /// How many replicas must have a node's heartbeat before it counts. Zero without replicas.
    pub replicas: u32,
    /// Begins the name of every key and channel ([`RedisSettings::check_prefix`]).
    pub prefix: String,
    /// The percentage of `maxmemory` from which on no session is created, so that those that live have room.
    pub full_percent: u32,
    /// What the nodes sign their messages to each other with; without it they are not signed.
    pub secret: Option<ClusterSecret>,
}

impl RedisSettings {
    /// The schemes of a Redis URL.
    pub const SCHEMES: [&str; 6] =
        ["redis", "rediss", "redis-sentinel", "rediss-sentinel", "redis-cluster", "rediss-cluster"];

    /// The prefix unless another is set.
    pub const PREFIX: &str = "gitorial:";

    /// Settings for this URL with the defaults: 2 s for a command, 2 s for connecting, no replicas, the usual prefix.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        let timeout = Duration::from_secs(2);
        Self {
            url: url.into(),
            command_timeout: timeout,
            connect_timeout: timeout,
            replicas: 0,
            prefix: Self::PREFIX.to_owned(),
            full_percent: 90,
            secret: None,
        }
    }

    /// Checks whether this can begin the names of keys and channels. Braces would move keys to other slots of a Cluster,
    /// and a pattern must match nothing but itself.
    ///
    /// # Errors
    ///
    /// [`RedisSettingsError::Prefix`].
    pub fn check_prefix(prefix: &str) -> Result<(), RedisSettingsError> {
        let fits = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, ':' | '.' | '_' | '-');
        let good = (1..=64).contains(&prefix.len()) && prefix.chars().all(fits);
        if good { Ok(()) } else { Err(RedisSettingsError::Prefix) }
    }

    /// Checks whether these settings can be used. Opens no connection.
    ///
    /// # Errors
    ///
    /// One sentence about the first problem, without the URL.
    pub fn validate(&self) -> Result<(), RedisSettingsError> {
        self.config().map(drop)
    }

    fn config(&self) -> Result<Config, RedisSettingsError> {
        if self.command_timeout.is_zero() || self.connect_timeout.is_zero() {
            return Err(RedisSettingsError::Timeout);
        }
        Self::check_prefix(&self.prefix)?;
        let (scheme, rest) = self.url.split_once("://").ok_or(RedisSettingsError::Scheme)?;
        if !Self::SCHEMES.contains(&scheme) {
            return Err(RedisSettingsError::Scheme);
        }
        // The relay sets up TLS itself, below. The library picks the cryptography by a process-wide default and panics
        // if two are compiled in.
        let plain = scheme.replace("rediss", "redis");
        let mut config = Config::from_url(&format!("{plain}://{rest}"))
            .map_err(|error| RedisSettingsError::Url(error.details().trim_end_matches('.').to_lowercase()))?;
        if scheme.starts_with("rediss") {
            config.tls = Some(tls()?);
        }
        config.version = RespVersion::RESP3;
        // "Fail fast" here means the very first connection: a relay that starts before its Redis keeps trying.
        config.fail_fast = false;
        Ok(config)
    }

    /// Knows the passwords of these settings.
    fn censor(&self) -> Result<Censor, RedisSettingsError> {
        let config = self.config()?;
        let sentinels = match config.server {
            ServerConfig::Sentinel { password, .. } => password,
            _ => None,
        };
        Ok(Censor::of(config.password.into_iter().chain(sentinels)))
    }

    /// How many regions the sessions are divided into: one, unless the URL names a Cluster.
    pub(crate) fn regions(&self) -> Regions {
        let clustered = self.url.split_once("://").is_some_and(|(scheme, _)| scheme.ends_with("-cluster"));
        if clustered { Regions::OF_A_CLUSTER } else { Regions::ONE }
    }

    /// A client of the server at `address`; without one, of whatever the URL names.
    fn client(&self, address: Option<&Address>, channel_capacity: usize) -> Result<Client, RedisSettingsError> {
        let mut config = self.config()?;
        if let Some((host, port)) = address {
            config.server = ServerConfig::new_centralized(host.as_str(), *port);
        }
        let mut builder = Builder::from_config(config);
        let mut policy = ReconnectPolicy::new_exponential(0, 20, 1_000, 2);
        policy.set_jitter(50);
        builder.set_policy(policy);
        builder.with_performance_config(|performance| {
            performance.default_command_timeout = self.command_timeout;
            performance.broadcast_channel_capacity = channel_capacity;
        });
        builder.with_connection_config(|connection| {
            connection.connection_timeout = self.connect_timeout;
            connection.internal_command_timeout = self.connect_timeout;
            // A command whose outcome is unknown is never sent again: its caller has to check.
            connection.max_command_attempts = 1;
            connection.tcp.nodelay = Some(true);
        });
        builder.build().map_err(|error| RedisSettingsError::Url(error.details().to_owned()))
    }
}

impl fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSettings")
            .field("command_timeout", &self.command_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("replicas", &self.replicas)
            .field("prefix", &self.prefix)
            .field("full_percent", &self.full_percent)
            .field("secret", &self.secret)
            .finish_non_exhaustive()
    }
}

/// The problem with the [`RedisSettings`]. Never shows the URL.
#[derive(Debug, thiserror::Error)]
pub enum RedisSettingsError {
    /// The scheme is not one of Redis.
    #[error(
        "the redis url has to begin with redis:// or rediss://, or either with -sentinel or -cluster before the ://"
    )]
    Scheme,
    /// Another part of the URL is wrong.
    #[error("the redis url cannot be used: {0}")]
    Url(String),
    /// TLS cannot be set up on this machine.
    #[error("tls to redis cannot be set up: {0}")]
    Tls(String),
    /// The prefix has other letters than it may have.
    #[error("must be 1 to 64 letters, digits, colons, dots, underscores and hyphens (ASCII)")]
    Prefix,
    /// A timeout is zero.
    #[error("the redis timeouts have to be longer than zero")]
    Timeout,
}

fn tls() -> Result<TlsConfig, RedisSettingsError> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| RedisSettingsError::Tls(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConfig::from(TlsConnector::from(config)))
}

/// The reason why Redis did not do what it was asked, as text without secrets.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Redis answered no: in its own words, and what to do about it.
    #[error("redis refuses: {0}")]
    Refused(String),
    /// Redis answered something else than what it was asked.
    #[error("redis gives an answer that this relay cannot read")]
    Strange,
    /// Redis gave no answer.
    #[error("redis gives no answer: {0}")]
    Unanswered(String),
}

/// A connection to Redis that reconnects by itself until it is dropped.
///
/// The library notices a silent server only while nothing is written, and waits without end on a full socket. So the
/// relay replaces the whole client after a command that timed out with no answer since it was sent. (The same client
/// must not be used again: it counts the dropped commands as still to be sent, and so never flushes.)
#[derive(Debug)]
pub(crate) struct Connection {
    client: Arc<RwLock<Client>>,
    metrics: Arc<Metrics>,
    censor: Censor,
    trouble: Arc<Trouble>,
    made: watch::Receiver<u64>,
    silent: Arc<Notify>,
    started: Instant,
    /// When something was last received, in milliseconds since `started`.
    heard: AtomicU64,
    _task: AbortOnDropHandle<()>,
}

impl Connection {
    /// Connects to the server at `address`, or to what the URL names, in the background, and keeps trying.
    /// `channel_capacity`: the number of subscription messages that may wait. `fresh` gets each new client before it
    /// connects.
    fn open(
        settings: &RedisSettings,
        address: Option<&Address>,
        channel_capacity: usize,
        metrics: Arc<Metrics>,
        fresh: impl Fn(&Client) + Send + 'static,
    ) -> Result<Self, RedisSettingsError> {
        let client = Arc::new(RwLock::new(settings.client(address, channel_capacity)?));
        let (tell, made) = watch::channel(0);
        let silent = Arc::new(Notify::new());
        let trouble = Arc::<Trouble>::default();
        let censor = settings.censor()?;
        let keeper = Keeper {
            current: Arc::clone(&client),
            silent: Arc::clone(&silent),
            trouble: Arc::clone(&trouble),
            censor: censor.clone(),
            tell,
            metrics: Arc::clone(&metrics),
        };
        Ok(Self {
            client,
            metrics,
            censor,
            trouble,
            made,
            silent,
            started: Instant::now(),
            heard: AtomicU64::new(0),
            _task: AbortOnDropHandle::new(tokio::spawn(keeper.run(fresh))),
        })
    }

    /// The present client: for one command, through [`Connection::ask`].
    pub(crate) fn client(&self) -> Client {
        self.client.read().clone()
    }

    /// Whether there is a connection at this moment.
    pub(crate) fn is_up(&self) -> bool {
        self.client.read().is_connected()
    }

    /// Waits for the answer to a command, counts it under `name`, and notices a silent server.
    ///
    /// # Errors
    ///
    /// At once while there is no connection; otherwise after the command timeout at the latest.
    pub(crate) async fn ask<T>(
        &self,
        name: &'static str,
        command: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let (began, sent) = (Instant::now(), self.elapsed());
        let answer = if self.is_up() { command.await } else { Err(Error::new(ErrorKind::IO, NOT_CONNECTED)) };
        match &answer {
            Err(error) if *error.kind() == ErrorKind::Timeout => {
                if self.heard.load(Ordering::Relaxed) <= sent {
                    self.reconnect();
                }
            }
            Err(error) if error.details() == NOT_CONNECTED => {}
            _ => self.heard.store(self.elapsed(), Ordering::Relaxed),
        }
        if answer.is_ok() {
            self.trouble.answered(began);
        }
        // A server that does not have a script yet is sent it.
        let fine = answer.as_ref().err().is_none_or(|error| error.details().starts_with(NO_SCRIPT));
        self.metrics.redis_command(name, if fine { CommandResult::Ok } else { CommandResult::Error });
        answer
    }

    /// The reason for this error of [`Connection::ask`]. Without a connection it is the reason why there is none.
    pub(crate) fn failure(&self, error: &Error) -> Failure {
        let trouble = self.trouble.last().filter(|_| error.details() == NOT_CONNECTED);
        let cause = trouble.as_ref().unwrap_or(error);
        let local = matches!(cause.kind(), ErrorKind::IO | ErrorKind::Timeout | ErrorKind::Canceled);
        if !local && is_answer(cause.details()) {
            return Failure::Refused(with_remedy(&self.censor.fit(cause.details())));
        }
        if let Some(what) = self.trouble.unreadable() {
            return Failure::Unanswered(format!("what redis sends is refused, {}", self.censor.fit(&what)));
        }
        if matches!(cause.kind(), ErrorKind::Parse | ErrorKind::Protocol | ErrorKind::NotFound) {
            return Failure::Strange;
        }
        let why = self.censor.fit(cause.details().trim_end_matches('.'));
        Failure::Unanswered(if trouble.is_some() { format!("{NOT_CONNECTED}, {why}") } else { why })
    }

    /// Replaces the client by a new one.
    pub(crate) fn reconnect(&self) {
        self.silent.notify_one();
    }

    /// How often a connection was made; the value changes with each new one.
    pub(crate) fn made(&self) -> watch::Receiver<u64> {
        self.made.clone()
    }

    /// Waits until there is a connection. Returns `false` if that takes longer than `deadline`.
    pub(crate) async fn wait_until_connected(&self, deadline: Duration) -> bool {
        let connected = async {
            while !self.is_up() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(deadline, connected).await.is_ok()
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The text of the error of a command that was not sent.
const NOT_CONNECTED: &str = "not connected";

/// The task of one [`Connection`]: it connects, and connects again whenever the library's own task has ended or is
/// stuck.
struct Keeper {
    current: Arc<RwLock<Client>>,
    silent: Arc<Notify>,
    trouble: Arc<Trouble>,
    censor: Censor,
    tell: watch::Sender<u64>,
    metrics: Arc<Metrics>,
}

impl Keeper {
    async fn run(self, fresh: impl Fn(&Client)) {
        let mut told = None;
        loop {
            let client = self.current.read().clone();
            fresh(&client);
            let (mut made, mut errors) = (client.reconnect_rx(), client.error_rx());
            let mut running = AbortOnDropHandle::new(client.connect());
            loop {
                tokio::select! {
                    ended = &mut running => {
                        if let Ok(Err(error)) = ended {
                            let why = self.censor.fit(&error.to_string());
                            // An end that repeats itself every second is told once.
                            if told.as_ref() != Some(&why) {
                                tracing::warn!(error = why, "the connection to redis ended, trying again");
                            }
                            told = Some(why);
                            self.trouble.note(error);
                        }
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        break;
                    }
                    () = self.silent.notified() => {
                        tracing::warn!("redis is silent, or has moved; connecting again");
                        break;
                    }
                    Ok((error, _)) = errors.recv() => self.trouble.note(error),
                    Ok(_) = made.recv() => {
                        if *self.tell.borrow() > 0 {
                            self.metrics.redis_reconnects.inc();
                        }
                        told = None;
                        self.tell.send_modify(|times| *times += 1);
                    }
                }
            }
            *self.current.write() = client.clone_new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_scheme_is_accepted() {
        for scheme in RedisSettings::SCHEMES {
            let settings = RedisSettings::new(format!("{scheme}://user:pass@127.0.0.1:7000?sentinelServiceName=main"));
            settings.validate().unwrap_or_else(|error| panic!("{scheme}: {error}"));
        }
    }

    #[test]
    fn a_wrong_url_is_one_sentence_without_the_password() {
        for url in [
            "",
            "redis",
            "http://u:hunter2@h",
            "redis://u:hunter2@",
            "redis://u:hunter2@h/x/y",
            "rediss://u:hunter2@h:99999",
        ] {
            let error = RedisSettings::new(url).validate().expect_err(url);
            let text = format!("{error} {error:?}");
            assert!(!text.contains("hunter2") && !text.contains('\n'), "{text}");
        }
        assert!(!format!("{:?}", RedisSettings::new("redis://u:hunter2@h")).contains("hunter2"));
    }
}
