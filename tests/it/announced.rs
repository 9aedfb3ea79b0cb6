//! A node reads the document after another node's announcement, even if that comes during a read.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use gitorial_relay::broker::{Delivery, MemoryBus};
use gitorial_relay::hub::Socket;
use gitorial_relay::ids::{Millis, NodeId, SessionId};
use gitorial_relay::metrics::Metrics;
use gitorial_relay::random::boot;
use gitorial_relay::region::{Region, Regions};
use gitorial_relay::relay::{JoinRequest, NewSession, Relay, RelayEvent, RelaySettings};
use gitorial_relay::session::{Activity, Role, Session};
use gitorial_relay::store::{Beat, Committed, Loaded, MemoryStore, Renewal, Store, StoreError, StoreLineage, Write};
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::support::cluster::PATIENCE;

/// A store whose answers to reads are as old as the test wants: each read waits for a permit before it returns.
#[derive(Debug)]
struct SlowReads {
    store: MemoryStore,
    /// How many reads may return.
    permits: Semaphore,
    /// How many reads have reached the store.
    begun: Semaphore,
}

#[async_trait]
impl Store for SlowReads {
    async fn load(&self, id: SessionId) -> Result<Loaded, StoreError> {
        let loaded = self.store.load(id).await;
        self.begun.add_permits(1);
        self.permits.acquire().await.expect("it stays open").forget();
        loaded
    }

    async fn create(&self, id: SessionId, session: &Session, keep: Duration) -> Result<Millis, StoreError> {
        self.store.create(id, session, keep).await
    }

    async fn commit(&self, id: SessionId, write: Write) -> Result<Committed, StoreError> {
        self.store.commit(id, write).await
    }

    async fn touch(&self, id: SessionId, node: &NodeId, done: Activity, keep: Duration) -> Result<bool, StoreError> {
        self.store.touch(id, node, done, keep).await
    }

    async fn list(&self, limit: usize) -> Result<Vec<SessionId>, StoreError> {
        self.store.list(limit).await
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
        self.store.beat(region, node, count, renewal, keep).await
    }

    async fn lineage(&self, region: Region) -> Result<StoreLineage, StoreError> {
        self.store.lineage(region).await
    }

    async fn beats(&self, region: Region, nodes: &[NodeId]) -> Result<Vec<Option<u64>>, StoreError> {
        self.store.beats(region, nodes).await
    }

    async fn renewals(&self, region: Region, nodes: &[NodeId]) -> Result<Vec<Option<Renewal>>, StoreError> {
        self.store.renewals(region, nodes).await
    }

    async fn retire(&self, region: Region, node: &NodeId) -> Result<(), StoreError> {
        self.store.retire(region, node).await
    }

    async fn time(&self, region: Region) -> Result<Millis, StoreError> {
        self.store.time(region).await
    }
}

/// A node whose inbox the test drains by hand.
struct ByHand {
    relay: Relay,
    inbox: mpsc::Receiver<Delivery>,
}

impl ByHand {
    /// A node that holds its lease.
    async fn start(name: &str, bus: &MemoryBus, store: Arc<dyn Store>) -> Self {
        let id = boot(name);
        let (broker, mut inbox) = bus.join(id.clone());
        let relay = Relay::new(id, store, broker, Arc::new(Metrics::new()), RelaySettings::default());
        let ticking = relay.clone();
        let mut tick = std::pin::pin!(ticking.on_tick());
        loop {
            tokio::select! {
                () = &mut tick => break,
                Some(delivery) = inbox.recv() => relay.on_delivery(delivery),
            }
        }
        Self { relay, inbox }
    }

    fn deliver(&mut self) -> usize {
        let deliveries: Vec<_> = std::iter::from_fn(|| self.inbox.try_recv().ok()).collect();
        let count = deliveries.len();
        deliveries.into_iter().for_each(|delivery| self.relay.on_delivery(delivery));
        count
    }

    async fn join(&self, session: SessionId) -> Arc<Socket> {
        self.relay.join(JoinRequest { session, client: None, resume: None }).await.expect("there is a seat")
    }

    async fn chooses(&self, socket: &Arc<Socket>, direction: &str) {
        let data = json!({ "preferredDirection": direction });
        let frame = json!({ "type": "coordinate_sync_direction", "clientId": "client_x", "data": data });
        self.relay.on_frame(socket, Bytes::from(frame.to_string()));
        self.relay.decided(socket).await;
    }
}

#[tokio::test]
async fn a_change_announced_during_a_read_is_read_too() {
    let (bus, lineage) = (MemoryBus::new(), MemoryStore::new());
    let slow = SlowReads { store: lineage.clone(), permits: Semaphore::new(1_000), begun: Semaphore::new(0) };
    let slow = Arc::new(slow);
    let mut near = ByHand::start("near", &bus, slow.clone()).await;
    let far = ByHand::start("far", &bus, Arc::new(lineage)).await;
    let session = near.relay.create_session(NewSession::default()).await.expect("a session").id();
    let _seen = near.join(session).await;
    let mut events = near.relay.events();

    slow.permits.forget_permits(1_000);
    slow.begun.forget_permits(1_000);
    let socket = far.join(session).await;
    assert!(near.deliver() > 0, "the join is announced");
    slow.begun.acquire().await.expect("it reads").forget();
    far.chooses(&socket, "PASSIVE").await;
    assert!(near.deliver() > 0, "the choice is announced while the join is read");
    slow.permits.add_permits(1_000);

    let told = async { while events.recv().await.expect("an event") != follows(session, &socket) {} };
    timeout(PATIENCE, told).await.expect("the choice is told");
}

fn follows(session: SessionId, socket: &Socket) -> RelayEvent {
    let room = socket.room.lock();
    let mut members = room.machine.members().iter();
    let member = members.find(|member| member.connection == socket.connection).expect("it has joined");
    RelayEvent::RoleChanged(session, member.client.name().clone(), Role::Passive)
}
