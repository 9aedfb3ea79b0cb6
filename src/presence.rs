//! Node leases in one region: this node renews its own, and watches those of the others.
//!
//! The rules of leases and of doubt are in [`crate::trust`]. This part asks the store and the broker, and keeps what they
//! answered. A renewal counts only if this node received its own probe through its inbox, because a node with a silent
//! inbox must not have a controller.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::broker::{BrokerError, SharedBroker};
use crate::clock::Clock;
use crate::ids::{Millis, NodeId};
use crate::region::Region;
use crate::store::{Renewal, SharedStore, StoreError};
use crate::trust::{Lease, MachineId, Observer, Trust};

pub use crate::trust::{HeartbeatMonitor, Renewed, Timing};

/// The reason why a renewal failed.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The heartbeat could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The node does not receive its own probe.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

/// The leases of one region as one node sees them.
#[derive(Debug)]
pub struct Presence {
    region: Region,
    /// This incarnation of the node.
    node: NodeId,
    store: SharedStore,
    broker: SharedBroker,
    clock: Arc<Clock>,
    machine: Option<MachineId>,
    timing: Timing,
    count: AtomicU64,
    observer: Mutex<Observer>,
    published: Published,
}

/// A copy of the node's trust that is read without a lock, because every state is checked against it.
#[derive(Debug, Default)]
struct Published {
    deadline: AtomicU64,
    term: AtomicU64,
    kept: AtomicU64,
    doubtful_until: AtomicU64,
    lineage_since: AtomicU64,
}

impl Published {
    fn store(&self, trust: &Trust) {
        self.doubtful_until.store(trust.doubtful_until, Ordering::Release);
        self.lineage_since.store(trust.lineage_since, Ordering::Release);
        self.kept.store(trust.lease.kept.unwrap_or_default(), Ordering::Release);
        self.term.store(trust.lease.term, Ordering::Release);
        self.deadline.store(trust.lease.deadline, Ordering::Release);
    }

    fn load(&self, patience: Millis) -> Trust {
        // The deadline is read first, so that a term that is read with an older deadline never counts for longer than
        // it lasts.
        let deadline = self.deadline.load(Ordering::Acquire);
        let (term, kept) = (self.term.load(Ordering::Acquire), self.kept.load(Ordering::Acquire));
        Trust {
            lease: Lease { deadline, term, kept: (kept > 0).then_some(kept) },
            doubtful_until: self.doubtful_until.load(Ordering::Acquire),
            lineage_since: self.lineage_since.load(Ordering::Acquire),
            patience,
        }
    }
}

impl Presence {
    /// Creates the leases. No lease is held and no node is known before the first [`Presence::renew`].
    #[must_use]
    pub fn new(
        region: Region,
        node: NodeId,
        store: SharedStore,
        broker: SharedBroker,
        clock: Arc<Clock>,
        timing: Timing,
    ) -> Self {
        let machine = clock.machine();
        let observer = Mutex::new(Observer::new(timing, machine));
        let published = Published::default();
        let count = AtomicU64::new(0);
        Self { region, node, store, broker, clock, machine, timing, count, observer, published }
    }

    /// What the node believes at this moment. Cheap: no lock.
    #[must_use]
    pub fn trust(&self) -> Trust {
        self.published.load(self.timing.patience())
    }

    /// The number of the present lease; `None` if it has lapsed.
    #[must_use]
    pub fn term(&self) -> Option<u64> {
        self.trust().lease.held(self.clock.local())
    }

    /// The time left of the present lease; zero if it has lapsed.
    #[must_use]
    pub fn left(&self) -> Duration {
        Duration::from_millis(self.trust().lease.deadline.saturating_sub(self.clock.local()))
    }

    /// Whether the store may lack a session that it does not know.
    #[must_use]
    pub fn may_have_lost_data(&self) -> bool {
        self.trust().assess(None, self.clock.now()).is_recovering()
    }

    /// Notes the server that a document was read from. An unknown server may have lost data.
    pub fn heard_from(&self, server: &str) {
        self.observe(|observer, now| observer.heard_from(server, now));
    }

    fn observe<A>(&self, change: impl FnOnce(&mut Observer, Millis) -> A) -> A {
        let mut observer = self.observer.lock();
        let answer = change(&mut observer, self.clock.local());
        self.published.store(&observer.trust());
        answer
    }

    /// Renews this node's lease.
    ///
    /// # Errors
    ///
    /// [`RenewError`] if the store did not answer or the inbox is silent. The lease then runs on to its deadline.
    pub async fn renew(&self) -> Result<Renewed, RenewError> {
        let began = self.clock.now();
        let renewal = Renewal { machine: self.machine, began: began.local, at: began.store };
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        // A key that outlives the lease a little tells a slow node from one that has ended.
        let keep = self.timing.lease + 2 * self.timing.margin;
        let (beat, heard) = tokio::join!(
            self.store.beat(self.region, &self.node, count, renewal, keep),
            self.broker.probe(self.region)
        );
        let beat = beat?;
        self.clock.set_store(beat.now);
        let server = beat.lineage.server.clone();
        self.observe(|observer, now| observer.read_lineage(beat.lineage, now));
        let heard = match heard {
            Ok(()) => self.broker.follow(self.region, &server).await,
            silent => silent,
        };
        // Whichever connection has moved was right to do so, and takes the others along.
        if matches!(heard, Err(BrokerError::Apart)) {
            self.store.reconnect(self.region);
        }
        heard?;
        Ok(self.observe(|observer, now| observer.renewed(began.local, now)))
    }

    /// Asks the store for its lineage, without a renewal.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store did not answer.
    pub async fn read_lineage(&self) -> Result<(), StoreError> {
        let lineage = self.store.lineage(self.region).await?;
        self.observe(|observer, now| observer.read_lineage(lineage, now));
        Ok(())
    }

    /// Watches the given nodes. Returns those whose lease has lapsed since the last call.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store did not answer: then no node has been watched, and the failure detector starts
    /// again.
    pub async fn watch(&self, nodes: &HashSet<NodeId>) -> Result<Vec<NodeId>, StoreError> {
        let nodes: Vec<NodeId> = nodes.iter().filter(|node| **node != self.node).cloned().collect();
        match self.store.beats(self.region, &nodes).await {
            Ok(counts) => {
                Ok(self.observe(|observer, now| observer.watched(nodes.into_iter().zip(counts).collect(), now)))
            }
            Err(error) => {
                self.observe(Observer::reset_failure_detector);
                Err(error)
            }
        }
    }

    /// Those of `nodes` whose lease this node has seen lapse and whose heartbeat has not changed since
    /// ([`Observer::still_lapsed`]).
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store did not answer.
    pub async fn still_lapsed(&self, nodes: Vec<NodeId>) -> Result<BTreeSet<NodeId>, StoreError> {
        let strangers = self.observer.lock().strangers(&nodes);
        self.meet(strangers).await?;
        let nodes = self.observer.lock().suspects(nodes);
        if nodes.is_empty() {
            return Ok(BTreeSet::new());
        }
        let counts = self.store.beats(self.region, &nodes).await?;
        Ok(self.observer.lock().still_lapsed(nodes.into_iter().zip(counts).collect()))
    }

    /// Starts to watch these nodes.
    async fn meet(&self, strangers: Vec<NodeId>) -> Result<(), StoreError> {
        if strangers.is_empty() {
            return Ok(());
        }
        // In this order: a node that renews its lease in between is not taken for one that has not.
        let counts = self.store.beats(self.region, &strangers).await?;
        let renewals = self.store.renewals(self.region, &strangers).await?;
        let now = self.clock.now();
        let mut observer = self.observer.lock();
        for ((node, renewal), count) in strangers.into_iter().zip(renewals).zip(counts) {
            observer.meet(node, count, renewal, now);
        }
        Ok(())
    }

    /// The nodes whose lease this node has seen lapse.
    #[must_use]
    pub fn lapsed(&self) -> Arc<BTreeSet<NodeId>> {
        self.observer.lock().lapsed()
    }

    /// Gives the lease back, because this node ends in order.
    pub async fn retire(&self) {
        self.observe(|observer, _| observer.retire());
        if let Err(error) = self.store.retire(self.region, &self.node).await {
            tracing::warn!(%error, "the heartbeat could not be removed; it lapses by itself");
        }
    }
}
