//! The life of one node: it builds the parts, starts the background tasks, drains and stops.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::broker::{BrokerError, Delivery, MemoryBus, RedisBroker, SharedBroker};
use crate::config::Config;
use crate::drain::drain;
use crate::http;
use crate::ids::NodeId;
use crate::listen::{Listeners, Shutdown};
use crate::metrics::Metrics;
use crate::random::boot;
use crate::redis::{Evicts, RedisSettings};
use crate::relay::{Readiness, Relay, RelaySettings};
use crate::store::{MemoryStore, RedisStore, SharedStore, StoreError};

/// How long a stopping node waits for its last tasks.
const LAST_TASKS: Duration = Duration::from_secs(2);

/// How often a starting node checks whether it is ready.
const READY_POLL: Duration = Duration::from_millis(10);

/// The reason why a node cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A listener failed.
    #[error("cannot serve: {0}")]
    Serve(#[from] std::io::Error),
    /// The settings of the store cannot be used.
    #[error("cannot open the store: {0}")]
    Store(#[from] StoreError),
    /// The settings of the broker cannot be used.
    #[error("cannot open the channels between the nodes: {0}")]
    Broker(#[from] BrokerError),
    /// Redis did not answer in time, and the operator chose not to wait for it.
    #[error(
        "Redis cannot be reached within {} s; start it, correct --redis-url, or leave out --redis-fail-fast to wait for it",
        .0.as_secs_f32()
    )]
    RedisAway(Duration),
    /// Redis evicts sessions when its memory is full.
    #[error("{0}; set maxmemory-policy to noeviction, or pass --allow-evicting-redis if losing sessions is acceptable")]
    Evicts(#[from] Evicts),
}

/// The settings of a node.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// The name that the operator gives the node.
    pub name: String,
    /// Where the sessions live. `None` keeps them in this process, for this node only.
    pub redis: Option<RedisSettings>,
    /// The largest number of sessions in an embedded store.
    pub max_sessions: usize,
    /// The settings of the relay.
    pub relay: RelaySettings,
}

impl Default for NodeSettings {
    fn default() -> Self {
        Self { name: "node".to_owned(), redis: None, max_sessions: 100_000, relay: RelaySettings::default() }
    }
}

/// A running node. Dropping it stops its background tasks; [`Node::stop`] stops it in order.
#[derive(Debug)]
pub struct Node {
    relay: Relay,
    redis: Option<Arc<RedisStore>>,
    running: CancellationToken,
}

impl Node {
    /// Builds a node and starts it. The node serves sockets as soon as its relay is [`Readiness::Ready`]; with Redis
    /// that can take until Redis is reachable. The caller must be inside a Tokio runtime.
    ///
    /// # Errors
    ///
    /// [`RunError`] if the settings for Redis cannot be used.
    pub async fn start(settings: NodeSettings) -> Result<Self, RunError> {
        let metrics = Arc::new(Metrics::new());
        let node = boot(&settings.name);
        let heartbeat = settings.relay.timing.heartbeat;
        let Some(redis) = &settings.redis else {
            let (broker, inbox) = MemoryBus::new().join(node.clone());
            let store = Arc::new(MemoryStore::with_limit(settings.max_sessions));
            return Ok(Self::assemble(node, store, broker, inbox, metrics, settings.relay));
        };
        let store = Arc::new(RedisStore::connect(redis, metrics.clone()).await?);
        let (broker, inbox) = RedisBroker::connect(redis, node.clone(), metrics.clone(), heartbeat).await?;
        let mut built = Self::assemble(node, store.clone(), broker, inbox, metrics, settings.relay);
        built.redis = Some(store);
        Ok(built)
    }

    /// Starts a node over the caller's store and broker: for several nodes in one process, or for other kinds of store.
    /// The caller must be inside a Tokio runtime.
    #[must_use]
    pub fn assemble(
        node: NodeId,
        store: SharedStore,
        broker: SharedBroker,
        inbox: mpsc::Receiver<Delivery>,
        metrics: Arc<Metrics>,
        settings: RelaySettings,
    ) -> Self {
        let relay = Relay::new(node, store, broker, metrics, settings);
        let running = CancellationToken::new();
        relay.tasks().spawn(relay.clone().upkeep(running.clone()));
        relay.tasks().spawn(relay.clone().deliveries(inbox, running.clone()));
        Self { relay, redis: None, running }
    }

    /// Returns the node's relay.
    #[must_use]
    pub fn relay(&self) -> &Relay {
        &self.relay
    }

    /// Waits at most `limit` until the node can serve. Returns `false` if it still cannot.
    pub async fn ready(&self, limit: Duration) -> bool {
        let ready = async {
            while self.relay.readiness() != Readiness::Ready {
                tokio::time::sleep(READY_POLL).await;
            }
        };
        timeout(limit, ready).await.is_ok()
    }

    /// Closes all sockets in waves within `limit`, then ends all background tasks.
    pub async fn stop(self, limit: Duration) {
        let left = drain(&self.relay, limit).await;
        if left > 0 {
            tracing::warn!(sockets = left, "the drain timed out; the remaining sockets are cut off");
        }
        self.running.cancel();
        self.relay.tasks().close();
        // A task that still runs now waits for a client that does not answer.
        let _ = timeout(LAST_TASKS, self.relay.tasks().wait()).await;
        self.relay.retire().await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.running.cancel();
    }
}

/// Waits for Redis and checks its eviction policy. Returns only if Redis evicts keys.
async fn reject_evicting_redis(redis: Option<Arc<RedisStore>>) -> Evicts {
    if let Some(store) = redis {
        while !store.wait_until_connected(Duration::from_secs(3600)).await {}
        if let Err(evicts) = store.check_eviction().await {
            return evicts;
        }
    }
    std::future::pending().await
}

/// Runs a node to its end: serves until `shutdown` is requested, then drains.
///
/// # Errors
///
/// [`RunError`] if the node cannot start or a listener fails.
pub async fn run(config: Config, listeners: Listeners, shutdown: Shutdown) -> Result<(), RunError> {
    let node = Node::start(config.node()).await?;
    tracing::info!(node = %node.relay().node(), store = config.store_kind(), "starting");
    let serving = CancellationToken::new();
    let address = listeners.main.local_addr()?;
    let app = http::router(node.relay().clone(), config.http());
    let main = tokio::spawn(http::serve(listeners.main, app, serving.clone()));
    let ops = listeners
        .ops
        .map(|ops| tokio::spawn(http::serve(ops, http::ops_router(node.relay().clone()), serving.clone())));
    let rejected = reject_evicting_redis(node.redis.clone().filter(|_| !config.allow_evicting_redis));
    tokio::pin!(rejected);
    let started = tokio::select! {
        ready = node.ready(config.redis_connect_timeout) => ready,
        evicts = &mut rejected => return Err(evicts.into()),
    };
    if !started {
        if config.redis_fail_fast {
            return Err(RunError::RedisAway(config.redis_connect_timeout));
        }
        tracing::warn!("Redis cannot be reached yet; waiting for it, and not ready until then");
    }
    (listeners.on_ready)(address);
    let outcome = tokio::select! {
        () = shutdown.requested() => Ok(()),
        evicts = &mut rejected => Err(evicts.into()),
    };
    node.stop(config.drain_timeout).await;
    serving.cancel();
    let _ = timeout(LAST_TASKS, async {
        let _ = main.await;
        if let Some(ops) = ops {
            let _ = ops.await;
        }
    })
    .await;
    tracing::info!("stopped");
    outcome
}
