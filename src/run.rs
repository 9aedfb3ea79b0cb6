//! The life of a node in this process: it serves, drains and stops.

use std::future::pending;
use std::time::Duration;

use gitorial_relay::relay::Readiness;
use gitorial_relay::{Evicts, Node, NodeError, http};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::config::Config;
use crate::listen::{Listeners, Shutdown};
use crate::telemetry::Log;

/// How long the last requests may take when the node has stopped.
const LAST_REQUESTS: Duration = Duration::from_secs(2);

/// The reason why a node cannot run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// A listener failed.
    #[error("cannot serve: {0}")]
    Serve(#[from] std::io::Error),
    /// The node cannot start.
    #[error(transparent)]
    Start(#[from] NodeError),
    /// Redis did not answer in time, or answered no, and the operator chose not to wait for it.
    #[error(
        "Redis cannot be used within {} s ({why}); start it, correct --redis-url, or leave out --redis-fail-fast to wait",
        limit.as_secs_f32()
    )]
    NoRedis {
        /// How long the node waited.
        limit: Duration,
        /// Why it is not ready.
        why: String,
    },
    /// Redis evicts sessions when its memory is full.
    #[error("{0}; set maxmemory-policy to noeviction, or pass --allow-evicting-redis if losing sessions is acceptable")]
    Evicts(#[from] Evicts),
}

/// Runs a node to its end: serves until `shutdown` is requested, then drains.
///
/// # Errors
///
/// [`RunError`] if the node cannot start or a listener fails.
pub(crate) async fn run(config: Config, listeners: Listeners, shutdown: Shutdown, log: Log) -> Result<(), RunError> {
    let node = Node::start(config.node()).await?;
    let relay = node.relay().clone();
    let _counting = AbortOnDropHandle::new(tokio::spawn(async move { log.count_dropped(relay.metrics()).await }));
    tracing::info!(node = %node.relay().node(), store = config.store_kind(), version = env!("CARGO_PKG_VERSION"), "starting");
    let serving = CancellationToken::new();
    let address = listeners.main.local_addr()?;
    let app = http::router(node.relay().clone(), config.http());
    let main = tokio::spawn(http::serve(listeners.main, app, serving.clone()));
    let ops = listeners
        .ops
        .map(|ops| tokio::spawn(http::serve(ops, http::ops_router(node.relay().clone()), serving.clone())));
    let (evicting, allowed) = (node.evicting_redis(), config.allow_evicting_redis);
    let rejected = async move { if allowed { pending().await } else { evicting.await } };
    tokio::pin!(rejected);
    let started = tokio::select! {
        ready = node.ready(config.redis_connect_timeout) => ready,
        evicts = &mut rejected => return Err(evicts.into()),
    };
    if !started {
        let why = node.relay().why();
        if config.redis_fail_fast {
            return Err(RunError::NoRedis { limit: config.redis_connect_timeout, why });
        }
        // The log has the words of a refusal already.
        match node.relay().readiness() {
            Readiness::StoreRefuses => tracing::warn!("not ready: waiting until Redis agrees"),
            _ => tracing::warn!(why, "not ready: waiting for Redis"),
        }
    }
    (listeners.on_ready)(address);
    let outcome = tokio::select! {
        () = shutdown.requested() => Ok(()),
        evicts = &mut rejected => Err(evicts.into()),
    };
    node.stop(config.drain_timeout).await;
    serving.cancel();
    let _ = timeout(LAST_REQUESTS, async {
        let _ = main.await;
        if let Some(ops) = ops {
            let _ = ops.await;
        }
    })
    .await;
    tracing::info!("stopped");
    outcome
}
