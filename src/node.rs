//! The life of one node: it builds the parts, starts the background tasks, drains and stops.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::broker::{BrokerError, Delivery, MemoryBus, RedisBroker, SharedBroker};
use crate::drain::drain;
use crate::ids::NodeId;
use crate::metrics::Metrics;
use crate::random::boot;
use crate::redis::{Evicts, RedisSettings};
use crate::relay::{Readiness, Relay, RelaySettings};
use crate::store::{MemoryStore, RedisStore, SharedStore, StoreError};

/// How long a stopping node waits for its last tasks.
const LAST_TASKS: Duration = Duration::from_secs(2);

/// How often a starting node checks whether it is ready.
const READY_POLL: Duration = Duration::from_millis(10);

/// The reason why a node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The settings of the store cannot be used.
    #[error("cannot open the store: {0}")]
    Store(#[from] StoreError),
    /// The settings of the broker cannot be used.
    #[error("cannot open the channels between the nodes: {0}")]
    Broker(#[from] BrokerError),
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
    /// [`NodeError`] if the settings for Redis cannot be used.
    pub async fn start(settings: NodeSettings) -> Result<Self, NodeError> {
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

    /// Waits until Redis can be asked for its eviction policy. The future returns only if Redis evicts keys when its
    /// memory is full, and live sessions can vanish.
    pub fn evicting_redis(&self) -> impl Future<Output = Evicts> + Send + use<> {
        let redis = self.redis.clone();
        async move {
            if let Some(store) = redis {
                while !store.wait_until_connected(Duration::from_secs(3600)).await {}
                if let Err(evicts) = store.check_eviction().await {
                    return evicts;
                }
            }
            std::future::pending().await
        }
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
