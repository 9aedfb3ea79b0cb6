//! A store that executes every call, and whose answers come late or get lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use gitorial_relay::broker::{Delivery, MemoryBus};
use gitorial_relay::ids::{Millis, NodeId, SessionId};
use gitorial_relay::metrics::Metrics;
use gitorial_relay::presence::Timing;
use gitorial_relay::protocol::CloseReason;
use gitorial_relay::random::boot;
use gitorial_relay::region::{Region, Regions};
use gitorial_relay::relay::{JoinRequest, NewSession, Readiness, Relay, RelaySettings};
use gitorial_relay::session::{Activity, Session};
use gitorial_relay::store::{Beat, Committed, Loaded, MemoryStore, Renewal, Store, StoreError, StoreLineage, Write};
use tokio::sync::{Mutex, Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::support::cluster::PATIENCE;
use super::support::eventually;

/// The embedded store, behind a line that breaks with the next commit until it is repaired, and on which
/// the answers to commits wait while the test holds it.
#[derive(Debug)]
struct Line {
    store: MemoryStore,
    breaks: AtomicBool,
    broken: AtomicBool,
    slow: Mutex<()>,
    /// A commit was made, and its answer is in flight.
    written: Notify,
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
        self.written.notify_one();
        drop(self.slow.lock().await);
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

    fn regions(&self) -> Regions {
        self.store.regions()
    }

    async fn beat(
        &self,
        region: Region,
        node: &NodeId,
        count: u64,
        renewal: Renewal,
        keep: Duration,
    ) -> Result<Beat, StoreError> {
        self.passes(self.store.beat(region, node, count, renewal, keep).await)
    }

    async fn lineage(&self, region: Region) -> Result<StoreLineage, StoreError> {
        self.passes(self.store.lineage(region).await)
    }

    async fn beats(&self, region: Region, nodes: &[NodeId]) -> Result<Vec<Option<u64>>, StoreError> {
        self.passes(self.store.beats(region, nodes).await)
    }

    async fn renewals(&self, region: Region, nodes: &[NodeId]) -> Result<Vec<Option<Renewal>>, StoreError> {
        self.passes(self.store.renewals(region, nodes).await)
    }

    async fn retire(&self, region: Region, node: &NodeId) -> Result<(), StoreError> {
        self.passes(self.store.retire(region, node).await)
    }

    async fn time(&self, region: Region) -> Result<Millis, StoreError> {
        self.passes(self.store.time(region).await)
    }
}

/// A node on this bus whose line leads to this store.
async fn start(bus: &MemoryBus, store: &MemoryStore, name: &str) -> (Relay, Arc<Line>, mpsc::Receiver<Delivery>) {
    let line = Line {
        store: store.clone(),
        breaks: AtomicBool::new(false),
        broken: AtomicBool::new(false),
        slow: Mutex::default(),
        written: Notify::new(),
    };
    let (line, node) = (Arc::new(line), boot(name));
    let (broker, inbox) = bus.join(node.clone());
    let timing = Timing { heartbeat: Duration::from_millis(50), ..Timing::default() };
    let settings = RelaySettings { timing, ..RelaySettings::default() };
    let relay = Relay::new(node, line.clone(), broker, Arc::new(Metrics::new()), settings);
    tokio::spawn(relay.clone().upkeep(CancellationToken::new()));
    eventually(PATIENCE, async || (relay.readiness() == Readiness::Ready).then_some(())).await;
    (relay, line, inbox)
}

fn join_request(session: SessionId) -> JoinRequest {
    JoinRequest { session, client: None, resume: None }
}

#[tokio::test]
async fn a_place_written_for_a_refused_socket_is_removed() {
    let (relay, line, _inbox) = start(&MemoryBus::new(), &MemoryStore::new(), "a").await;
    let session = relay.create_session(NewSession::default()).await.unwrap().id();
    line.breaks.store(true, Ordering::Release);
    assert_eq!(relay.join(join_request(session)).await.err(), Some(CloseReason::StoreUnavailable));
    let clients = async || line.store.load(session).await.unwrap().found.unwrap().session.live_clients();
    assert_eq!(clients().await, 1, "it was written");
    line.broken.store(false, Ordering::Release);
    eventually(PATIENCE, async || (clients().await == 0).then_some(())).await;
    eventually(PATIENCE, async || (relay.stats().sessions == 0).then_some(())).await;
}

#[tokio::test]
async fn a_client_that_joins_between_a_write_and_its_answer_is_seen() {
    let (bus, store) = (MemoryBus::new(), MemoryStore::new());
    let (here, line, mut inbox) = start(&bus, &store, "a").await;
    let (there, ..) = start(&bus, &store, "b").await;
    let session = here.create_session(NewSession::default()).await.unwrap().id();
    let slow = line.slow.lock().await;
    let joining = tokio::spawn({
        let here = here.clone();
        async move { here.join(join_request(session)).await }
    });
    line.written.notified().await;
    there.join(join_request(session)).await.unwrap();
    // Its announcement arrives before the answer.
    here.on_delivery(inbox.recv().await.unwrap());
    drop(slow);
    let member = joining.await.unwrap().unwrap();
    let known = async || (member.room.lock().machine.elsewhere() == [there.node().clone()]).then_some(());
    eventually(PATIENCE, known).await;
}
