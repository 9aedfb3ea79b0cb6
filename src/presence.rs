//! Node leases: this node's own, and the sight of the others'.
//!
//! A lease is a deadline on this machine's clock. It is renewed only by a round that began before the renewal was
//! written and in which this node heard itself through its own inbox, since a deaf node must not let anybody drive. The
//! other nodes are declared dead only by somebody who has watched them miss their time over an unbroken connection to an
//! unchanged store: absent is not lapsed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use crate::broker::{BrokerError, SharedBroker};
use crate::clock::{StoreClock, since_boot};
use crate::ids::{Millis, NodeId};
use crate::store::{Memory, SharedStore, StoreError};

/// The intervals that everything about nodes derives from.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How often a node renews its lease and looks after the others.
    pub heartbeat: Duration,
    /// How long a lease lasts.
    pub lease: Duration,
    /// How much earlier its owner stops, and how much later the others take it for lapsed.
    pub margin: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { heartbeat: Duration::from_secs(1), lease: Duration::from_secs(5), margin: Duration::from_secs(1) }
    }
}

/// Why a renewal failed.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The heartbeat could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The node does not hear itself.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

/// What a renewal found out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Renewed {
    /// The lease had lapsed before: what was learnt under the old one is void.
    pub new_term: bool,
    /// The store may have forgotten something since the last renewal.
    pub memory_lost: bool,
}

/// The leases as one node sees them.
#[derive(Debug)]
pub struct Presence {
    /// This incarnation.
    pub node: NodeId,
    store: SharedStore,
    broker: SharedBroker,
    clock: Arc<StoreClock>,
    timing: Timing,
    deadline: AtomicU64,
    term: AtomicU64,
    count: AtomicU64,
    memory: Mutex<Option<Memory>>,
    /// The store has lost its memory, and whoever renews the lease has not been told yet.
    forgetful: AtomicBool,
    doubtful_until: AtomicU64,
    watched: Mutex<HashMap<NodeId, Sight>>,
    lapsed: RwLock<Arc<HashSet<NodeId>>>,
}

/// The last that was seen of another node's heartbeat.
#[derive(Clone, Copy, Debug)]
struct Sight {
    count: Option<u64>,
    since: Millis,
}

impl Presence {
    /// Nothing is held and nobody known before the first [`Presence::renew`].
    #[must_use]
    pub fn new(node: NodeId, store: SharedStore, broker: SharedBroker, clock: Arc<StoreClock>, timing: Timing) -> Self {
        Self {
            node,
            store,
            broker,
            clock,
            timing,
            deadline: AtomicU64::new(0),
            term: AtomicU64::new(0),
            count: AtomicU64::new(0),
            memory: Mutex::default(),
            forgetful: AtomicBool::new(false),
            doubtful_until: AtomicU64::new(0),
            watched: Mutex::default(),
            lapsed: RwLock::default(),
        }
    }

    /// The intervals.
    #[must_use]
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// The number of the lease held now; `None` if it has lapsed. Cheap: one read of the clock.
    #[must_use]
    pub fn term(&self) -> Option<u64> {
        (since_boot() < self.deadline.load(Ordering::Acquire)).then(|| self.term.load(Ordering::Acquire))
    }

    /// What is left of the lease held now; nothing if it has lapsed.
    #[must_use]
    pub fn left(&self) -> Duration {
        Duration::from_millis(self.deadline.load(Ordering::Acquire).saturating_sub(since_boot()))
    }

    /// Whether the store may have forgotten something so recently that not everybody has put it right: a session that it
    /// does not know may still be restored, and somebody may drive whom it does not know of.
    #[must_use]
    pub fn memory_is_doubtful(&self) -> bool {
        since_boot() < self.doubtful_until.load(Ordering::Acquire)
    }

    /// Whether the store was empty so recently that a session as old as this may be known to others and not to it. A node
    /// that has just started cannot have noticed.
    #[must_use]
    pub fn is_older_than_memory(&self, created_at: Millis, now: Millis) -> bool {
        let since = self.memory.lock().as_ref().map_or(0, |memory| memory.since);
        created_at < since && now < since.saturating_add(millis(self.timing.lease))
    }

    /// Takes note of the server that a document was read from: one that is not known may have forgotten something.
    pub fn heard_from(&self, server: &str) {
        let unknown = self.memory.lock().as_ref().is_some_and(|memory| !memory.servers.contains(server));
        if unknown {
            self.doubt();
        }
    }

    fn doubt(&self) {
        self.doubtful_until.store(since_boot() + millis(self.timing.lease), Ordering::Release);
    }

    /// Compares what the store remembers with what it did.
    fn remember(&self, memory: Memory) {
        let before = self.memory.lock().replace(memory.clone());
        if before.is_some_and(|before| before != memory) {
            self.doubt();
            self.begin_watching_anew();
            self.forgetful.store(true, Ordering::Release);
        }
    }

    /// Renews this node's lease.
    ///
    /// # Errors
    ///
    /// [`RenewError`] if the store did not answer or the inbox is silent. The lease then runs on to its deadline.
    pub async fn renew(&self) -> Result<Renewed, RenewError> {
        let began = since_boot();
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        // A key that outlives the lease a little tells a slow node from one that has ended.
        let keep = self.timing.lease + 2 * self.timing.margin;
        let (beat, heard) = tokio::join!(self.store.beat(&self.node, count, keep), self.broker.probe());
        let beat = beat?;
        self.clock.set(beat.now);
        self.remember(beat.memory);
        heard?;
        let memory_lost = self.forgetful.swap(false, Ordering::AcqRel);
        let lease = millis(self.timing.lease);
        let new_term = began >= self.deadline.load(Ordering::Acquire);
        if new_term {
            self.term.fetch_add(1, Ordering::AcqRel);
        }
        self.deadline.store(began + lease - millis(self.timing.margin), Ordering::Release);
        Ok(Renewed { new_term, memory_lost })
    }

    /// Asks the store what it remembers, without renewing anything.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store did not answer.
    pub async fn look_at_memory(&self) -> Result<(), StoreError> {
        let memory = self.store.memory().await?;
        self.remember(memory);
        Ok(())
    }

    /// Looks after the given nodes. Returns those whose lease has lapsed since the last look.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store did not answer: then nobody has been watched, and the watch begins anew.
    pub async fn watch(&self, nodes: &HashSet<NodeId>) -> Result<Vec<NodeId>, StoreError> {
        let nodes: Vec<NodeId> = nodes.iter().filter(|node| **node != self.node).cloned().collect();
        let counts = match self.store.beats(&nodes).await {
            Ok(counts) => counts,
            Err(error) => {
                self.begin_watching_anew();
                return Err(error);
            }
        };
        let (now, patience) = (since_boot(), millis(self.timing.lease + self.timing.margin));
        let mut watched = self.watched.lock();
        watched.retain(|node, _| nodes.contains(node));
        let mut lapsed = HashSet::new();
        for (node, count) in nodes.into_iter().zip(counts) {
            let sight = watched.entry(node.clone()).or_insert(Sight { count, since: now });
            if sight.count != count && count.is_some() {
                *sight = Sight { count, since: now };
            } else if now.saturating_sub(sight.since) >= patience {
                lapsed.insert(node);
            }
        }
        drop(watched);
        let mut known = self.lapsed.write();
        let new = lapsed.difference(&known).cloned().collect();
        *known = Arc::new(lapsed);
        Ok(new)
    }

    /// Those of `nodes` whose lease this node has seen lapse, as of now: one whose heart beats again is not among them.
    /// To be asked after a document is read and before it is decided on, since a node that is back claims its places
    /// anew only once its heart beats.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store did not answer.
    pub async fn still_lapsed(&self, nodes: &[NodeId]) -> Result<HashSet<NodeId>, StoreError> {
        let lapsed = self.lapsed();
        let nodes: Vec<NodeId> = nodes.iter().filter(|node| lapsed.contains(*node)).cloned().collect();
        if nodes.is_empty() {
            return Ok(HashSet::new());
        }
        let counts = self.store.beats(&nodes).await?;
        let watched = self.watched.lock();
        let silent = |node: &NodeId, count: Option<u64>| {
            count.is_none() || watched.get(node).is_some_and(|sight| sight.count == count)
        };
        Ok(nodes.into_iter().zip(counts).filter(|(node, count)| silent(node, *count)).map(|(node, _)| node).collect())
    }

    /// The nodes whose lease this node has seen lapse.
    #[must_use]
    pub fn lapsed(&self) -> Arc<HashSet<NodeId>> {
        self.lapsed.read().clone()
    }

    /// Gives the lease back: this node ends in good order.
    pub async fn retire(&self) {
        self.deadline.store(0, Ordering::Release);
        if let Err(error) = self.store.retire(&self.node).await {
            tracing::warn!(%error, "the heartbeat could not be removed; it lapses by itself");
        }
    }

    fn begin_watching_anew(&self) {
        let now = since_boot();
        for sight in self.watched.lock().values_mut() {
            sight.since = now;
        }
    }
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}
