//! One node from start to end: builds the parts, starts what runs by itself, drains, stops.

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

/// How long a node that ends waits for its last tasks.
const LAST_TASKS: Duration = Duration::from_secs(2);

/// How often a node that starts looks whether it is ready.
const READY_POLL: Duration = Duration::from_millis(10);

/// Why a node could not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A listener failed.
    #[error("cannot serve: {0}")]
    Serve(#[from] std::io::Error),
    /// The store's settings are unusable.
    #[error("cannot open the store: {0}")]
    Store(#[from] StoreError),
    /// The broker's settings are unusable.
    #[error("cannot open the channels between the nodes: {0}")]
    Broker(#[from] BrokerError),
    /// Redis was not there in time, and the operator does not want to wait for it.
    #[error(
        "Redis cannot be reached within {} s; start it, correct --redis-url, or leave out --redis-fail-fast to wait for it",
        .0.as_secs_f32()
    )]
    RedisAway(Duration),
    /// Redis would throw sessions away when its memory is full.
    #[error("{0}; set maxmemory-policy to noeviction, or pass --allow-evicting-redis if losing sessions is acceptable")]
    Evicts(#[from] Evicts),
}

/// What a node is made of.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// The operator's name for it.
    pub name: String,
    /// Where the sessions live; `None` keeps them in this process, for this node alone.
    pub redis: Option<RedisSettings>,
    /// How many sessions an embedded store takes.
    pub max_sessions: usize,
    /// The relay's numbers.
    pub relay: RelaySettings,
}

impl Default for NodeSettings {
    fn default() -> Self {
        Self { name: "node".to_owned(), redis: None, max_sessions: 100_000, relay: RelaySettings::default() }
    }
}

/// A running node. Dropping it stops what runs by itself; [`Node::stop`] does so in good order.
#[derive(Debug)]
pub struct Node {
    relay: Relay,
    redis: Option<Arc<RedisStore>>,
    running: CancellationToken,
}

impl Node {
    /// Builds a node and starts it. It serves sockets as soon as its relay is [`Readiness::Ready`], which over Redis may
    /// take until Redis is there. Must be called inside a Tokio runtime.
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

    /// Starts a node over a store and a broker of the caller's: several nodes in one process, or stores of other kinds.
    /// Must be called inside a Tokio runtime.
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

    /// Its relay.
    #[must_use]
    pub fn relay(&self) -> &Relay {
        &self.relay
    }

    /// Waits until the node can serve, for at most `limit`. `false`: it still cannot.
    pub async fn ready(&self, limit: Duration) -> bool {
        let ready = async {
            while self.relay.readiness() != Readiness::Ready {
                tokio::time::sleep(READY_POLL).await;
            }
        };
        timeout(limit, ready).await.is_ok()
    }

    /// Closes all sockets in waves, at the latest within `limit`, then ends everything that runs by itself.
    pub async fn stop(self, limit: Duration) {
        let left = drain(&self.relay, limit).await;
        if left > 0 {
            tracing::warn!(sockets = left, "the drain timed out; these sockets are cut");
        }
        self.running.cancel();
        self.relay.tasks().close();
        // What is still running then waits for a client that does not answer.
        let _ = timeout(LAST_TASKS, self.relay.tasks().wait()).await;
        self.relay.retire().await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.running.cancel();
    }
}

/// Waits for Redis and looks whether it can be trusted with sessions. Returns only if it cannot.
async fn reject_evicting_redis(redis: Option<Arc<RedisStore>>) -> Evicts {
    if let Some(store) = redis {
        while !store.wait_until_connected(Duration::from_secs(3600)).await {}
        if let Err(evicts) = store.check_eviction().await {
            return evicts;
        }
    }
    std::future::pending().await
}

/// Runs a node to its end: serves until `shutdown` is asked for, then drains.
///
/// # Errors
///
/// [`RunError`] if it cannot start, or its ports break.
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
