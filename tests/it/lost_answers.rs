//! A store that does what it is asked and whose answers get lost on the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use gitorial_relay::broker::MemoryBus;
use gitorial_relay::ids::{Millis, NodeId, SessionId};
use gitorial_relay::metrics::Metrics;
use gitorial_relay::presence::Timing;
use gitorial_relay::protocol::CloseReason;
use gitorial_relay::relay::{NewSession, Readiness, Relay, RelaySettings, Ticket};
use gitorial_relay::session::{Activity, Session};
use gitorial_relay::store::{Beat, Committed, Loaded, Memory, MemoryStore, Store, StoreError, Write};
use tokio_util::sync::CancellationToken;

use super::support::cluster::PATIENCE;
use super::support::eventually;

/// The embedded store, behind a line that breaks with the next commit and stays broken until it is mended.
#[derive(Debug)]
struct Line {
    store: MemoryStore,
    breaks: AtomicBool,
    broken: AtomicBool,
}

impl Line {
    fn passes<T>(&self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        if self.broken.load(Ordering::Acquire) { Err(StoreError::Unavailable("broken".to_owned())) } else { answer }
    }
}

#[async_trait]
impl Store for Line {
    async fn create(&self, id: SessionId, session: &Session, keep: Duration) -> Result<Millis, StoreError> {
        self.passes(self.store.create(id, session, keep).await)
    }

    async fn load(&self, id: SessionId) -> Result<Loaded, StoreError> {
        self.passes(self.store.load(id).await)
    }

    async fn commit(&self, id: SessionId, write: Write) -> Result<Committed, StoreError> {
        let done = self.store.commit(id, write).await;
        self.broken.fetch_or(self.breaks.swap(false, Ordering::AcqRel), Ordering::AcqRel);
        self.passes(done)
    }

    async fn touch(
        &self,
        id: SessionId,
        node: &NodeId,
        activity: Activity,
        keep: Duration,
    ) -> Result<bool, StoreError> {
        self.passes(self.store.touch(id, node, activity, keep).await)
    }

    async fn list(&self, limit: usize) -> Result<Vec<SessionId>, StoreError> {
        self.passes(self.store.list(limit).await)
    }

    async fn beat(&self, node: &NodeId, count: u64, keep: Duration) -> Result<Beat, StoreError> {
        self.passes(self.store.beat(node, count, keep).await)
    }

    async fn memory(&self) -> Result<Memory, StoreError> {
        self.passes(self.store.memory().await)
    }

    async fn beats(&self, nodes: &[NodeId]) -> Result<Vec<Option<u64>>, StoreError> {
        self.passes(self.store.beats(nodes).await)
    }

    async fn retire(&self, node: &NodeId) -> Result<(), StoreError> {
        self.passes(self.store.retire(node).await)
    }

    async fn time(&self) -> Result<Millis, StoreError> {
        self.passes(self.store.time().await)
    }
}

#[tokio::test]
async fn a_place_written_for_a_socket_that_was_refused_is_taken_back() {
    let line =
        Arc::new(Line { store: MemoryStore::new(), breaks: AtomicBool::new(false), broken: AtomicBool::new(false) });
    let node = NodeId::boot("a");
    let (broker, inbox) = MemoryBus::new().join(node.clone());
    let timing = Timing { heartbeat: Duration::from_millis(50), ..Timing::default() };
    let settings = RelaySettings { timing, ..RelaySettings::default() };
    let relay = Relay::new(node, line.clone(), broker, Arc::new(Metrics::new()), settings);
    let stop = CancellationToken::new();
    tokio::spawn(relay.clone().upkeep(stop.clone()));
    tokio::spawn(relay.clone().deliveries(inbox, stop.clone()));
    eventually(PATIENCE, async || (relay.readiness() == Readiness::Ready).then_some(())).await;
    let session = relay.create_session(NewSession::default()).await.unwrap().id();
    line.breaks.store(true, Ordering::Release);
    let ticket = Ticket { session, client: None, resume: None };
    assert_eq!(relay.join(ticket).await.err(), Some(CloseReason::StoreUnavailable));
    let clients = async || line.store.load(session).await.unwrap().found.unwrap().session.live_clients();
    assert_eq!(clients().await, 1, "it was written");
    line.broken.store(false, Ordering::Release);
    eventually(PATIENCE, async || (clients().await == 0).then_some(())).await;
    eventually(PATIENCE, async || (relay.stats().sessions == 0).then_some(())).await;
    stop.cancel();
}
