//! Node leases: this node's own, and its observations of the others.
//!
//! A lease is a deadline on this machine's clock. A renewal counts from the time before the heartbeat was written, and
//! only if this node received its own probe through its inbox, because a node with a silent inbox must not have a
//! controller. Another node is declared dead only by a node that has watched it miss its deadline over an unbroken
//! connection to an unchanged store: a missing heartbeat alone does not mean a lapsed lease.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use crate::broker::{BrokerError, SharedBroker};
use crate::clock::{StoreClock, since_boot};
use crate::ids::{Millis, NodeId};
use crate::store::{SharedStore, StoreError, StoreLineage};

/// The intervals that all timing between nodes derives from.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How often a node renews its lease and watches the others.
    pub heartbeat: Duration,
    /// How long a lease lasts.
    pub lease: Duration,
    /// How much earlier the owner stops, and how much later the others count the lease as lapsed.
    pub margin: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { heartbeat: Duration::from_secs(1), lease: Duration::from_secs(5), margin: Duration::from_secs(1) }
    }
}

impl Timing {
    /// The deadline for the owner of a lease whose renewal began at `began`.
    #[must_use]
    pub fn deadline(&self, began: Millis) -> Millis {
        began + millis(self.lease) - millis(self.margin)
    }

    /// How long a heartbeat has to stand still, or a node to be without the store's lineage, before its lease has
    /// certainly lapsed.
    #[must_use]
    pub fn patience(&self) -> Millis {
        millis(self.lease + self.margin)
    }
}

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

/// The result of a renewal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Renewed {
    /// The lease had lapsed before, so everything that was learnt under the old one is void.
    pub new_term: bool,
    /// The store may have forgotten something since the last renewal.
    pub data_lost: bool,
}

/// The leases as one node sees them.
#[derive(Debug)]
pub struct Presence {
    /// This incarnation of the node.
    pub node: NodeId,
    store: SharedStore,
    broker: SharedBroker,
    clock: Arc<StoreClock>,
    timing: Timing,
    deadline: AtomicU64,
    term: AtomicU64,
    kept: AtomicU64,
    count: AtomicU64,
    lineage: Mutex<Option<StoreLineage>>,
    /// The store has lost its data, and the caller that renews the lease has not been told yet.
    loss_unreported: AtomicBool,
    doubtful_until: AtomicU64,
    watched: Mutex<HashMap<NodeId, HeartbeatMonitor>>,
    lapsed: RwLock<Arc<HashSet<NodeId>>>,
}

/// A node's own lease: its deadline on the node's clock, and its number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Lease {
    /// When the owner stops.
    pub deadline: Millis,
    /// The number of the lease. A new one begins after a lapse, and after the store has lost its data.
    pub term: u64,
    /// The number of the lease before, if it had not lapsed when the store lost its data.
    pub kept: Option<u64>,
}

impl Lease {
    /// The number of the lease held at `now`; `None` if it has lapsed.
    #[must_use]
    pub fn held(&self, now: Millis) -> Option<u64> {
        (now < self.deadline).then_some(self.term)
    }

    /// Notes that a renewal that began at `began` has succeeded at `now`. Returns `true` if the lease is a new one,
    /// because the last one lapsed during the renewal, or because the store has lost its data about the controllers.
    pub fn renew(&mut self, began: Millis, now: Millis, data_lost: bool, timing: &Timing) -> bool {
        let lapsed = now >= self.deadline;
        let new_term = data_lost || lapsed;
        if new_term {
            self.kept = (!lapsed).then_some(self.term);
            self.term += 1;
        }
        self.deadline = timing.deadline(began);
        new_term
    }

    /// Whether the lease `term` has been held ever since, apart from a loss of data in the store: no other node can
    /// have taken anything from this node meanwhile.
    #[must_use]
    pub fn covers(&self, term: u64, now: Millis) -> bool {
        self.held(now).is_some() && (self.term == term || self.kept == Some(term))
    }
}

/// The last observation of another node's heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HeartbeatMonitor {
    /// The heartbeat's number; `None` if there was none.
    pub count: Option<u64>,
    /// Since when the heartbeat has not changed.
    pub since: Millis,
}

impl HeartbeatMonitor {
    /// Records a new observation. Returns `true` if the heartbeat has not changed for so long that its lease has
    /// lapsed.
    pub fn look(&mut self, count: Option<u64>, now: Millis, patience: Millis) -> bool {
        let beats = self.count != count && count.is_some();
        if beats {
            *self = Self { count, since: now };
        }
        !beats && now.saturating_sub(self.since) >= patience
    }

    /// Whether a heartbeat that had lapsed at the last observation has still not changed.
    #[must_use]
    pub fn is_still(&self, count: Option<u64>) -> bool {
        count.is_none() || self.count == count
    }
}

impl Presence {
    /// Creates the leases. No lease is held and no node is known before the first [`Presence::renew`].
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
            kept: AtomicU64::new(0),
            count: AtomicU64::new(0),
            lineage: Mutex::default(),
            loss_unreported: AtomicBool::new(false),
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

    /// The number of the present lease; `None` if it has lapsed. Cheap: one read of the clock.
    #[must_use]
    pub fn term(&self) -> Option<u64> {
        self.lease().held(since_boot())
    }

    /// Whether the lease `term` has been held ever since ([`Lease::covers`]).
    #[must_use]
    pub fn covers(&self, term: u64) -> bool {
        self.lease().covers(term, since_boot())
    }

    fn lease(&self) -> Lease {
        // The deadline is read first, so that a term that is read with an older deadline never counts for longer than
        // it lasts.
        let deadline = self.deadline.load(Ordering::Acquire);
        let (term, kept) = (self.term.load(Ordering::Acquire), self.kept.load(Ordering::Acquire));
        Lease { deadline, term, kept: (kept > 0).then_some(kept) }
    }

    /// The time left of the present lease; zero if it has lapsed.
    #[must_use]
    pub fn left(&self) -> Duration {
        Duration::from_millis(self.deadline.load(Ordering::Acquire).saturating_sub(since_boot()))
    }

    /// Whether the store may have lost data so recently that not every node has restored it: a session that the store
    /// does not know may still be restored, and a session may have a controller that the store does not know.
    #[must_use]
    pub fn may_have_lost_data(&self) -> bool {
        since_boot() < self.doubtful_until.load(Ordering::Acquire)
    }

    /// Whether the store lost data so recently that other nodes may know more of a session of this age. A node that has
    /// just started cannot have noticed the loss itself.
    #[must_use]
    pub fn predates_lineage(&self, created_at: Millis, now: Millis) -> bool {
        let since = self.lineage.lock().as_ref().map_or(0, |lineage| lineage.since);
        created_at < since && now < since.saturating_add(self.timing.patience())
    }

    /// Notes the server that a document was read from. An unknown server may have lost data.
    pub fn heard_from(&self, server: &str) {
        let unknown = self.lineage.lock().as_ref().is_some_and(|lineage| !lineage.servers.contains(server));
        if unknown {
            self.doubt();
        }
    }

    fn doubt(&self) {
        self.doubtful_until.store(since_boot() + self.timing.patience(), Ordering::Release);
    }

    /// Compares the store's lineage with the one seen before.
    fn remember(&self, lineage: StoreLineage) {
        let before = self.lineage.lock().replace(lineage.clone());
        if before.is_some_and(|before| before != lineage) {
            self.doubt();
            self.reset_failure_detector();
            self.loss_unreported.store(true, Ordering::Release);
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
        self.remember(beat.lineage);
        heard?;
        let data_lost = self.loss_unreported.swap(false, Ordering::AcqRel);
        let mut lease = self.lease();
        let new_term = lease.renew(began, since_boot(), data_lost, &self.timing);
        self.kept.store(lease.kept.unwrap_or_default(), Ordering::Release);
        self.term.store(lease.term, Ordering::Release);
        self.deadline.store(lease.deadline, Ordering::Release);
        Ok(Renewed { new_term, data_lost })
    }

    /// Asks the store for its lineage, without a renewal.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store did not answer.
    pub async fn check_lineage(&self) -> Result<(), StoreError> {
        let lineage = self.store.lineage().await?;
        self.remember(lineage);
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
        let counts = match self.store.beats(&nodes).await {
            Ok(counts) => counts,
            Err(error) => {
                self.reset_failure_detector();
                return Err(error);
            }
        };
        let (now, patience) = (since_boot(), self.timing.patience());
        let mut watched = self.watched.lock();
        watched.retain(|node, _| nodes.contains(node));
        let mut lapsed = HashSet::new();
        for (node, count) in nodes.into_iter().zip(counts) {
            let monitor = watched.entry(node.clone()).or_insert(HeartbeatMonitor { count, since: now });
            if monitor.look(count, now, patience) {
                lapsed.insert(node);
            }
        }
        drop(watched);
        let mut known = self.lapsed.write();
        let new = lapsed.difference(&known).cloned().collect();
        *known = Arc::new(lapsed);
        Ok(new)
    }

    /// Those of `nodes` whose lease this node has seen lapse and whose heartbeat has not changed since. The caller asks
    /// after it has read a document and before it decides, because a node that is back claims its places again only
    /// once its heartbeat changes.
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
            count.is_none() || watched.get(node).is_some_and(|monitor| monitor.is_still(count))
        };
        Ok(nodes.into_iter().zip(counts).filter(|(node, count)| silent(node, *count)).map(|(node, _)| node).collect())
    }

    /// The nodes whose lease this node has seen lapse.
    #[must_use]
    pub fn lapsed(&self) -> Arc<HashSet<NodeId>> {
        self.lapsed.read().clone()
    }

    /// Gives the lease back, because this node ends in order.
    pub async fn retire(&self) {
        self.deadline.store(0, Ordering::Release);
        if let Err(error) = self.store.retire(&self.node).await {
            tracing::warn!(%error, "the heartbeat could not be removed; it lapses by itself");
        }
    }

    /// Starts the watch again: no node counts as dead until it has been watched for long enough.
    fn reset_failure_detector(&self) {
        let now = since_boot();
        *self.lapsed.write() = Arc::default();
        for monitor in self.watched.lock().values_mut() {
            monitor.since = now;
        }
    }
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(began: Millis) -> (Lease, Timing) {
        let (mut lease, timing) = (Lease::default(), Timing::default());
        assert!(lease.renew(began, began, false, &timing), "the first");
        (lease, timing)
    }

    #[test]
    fn a_lease_renewed_in_time_is_the_same() {
        let (mut lease, timing) = held(0);
        assert!(!lease.renew(3_000, 3_999, false, &timing));
        assert_eq!((lease.held(6_999), lease.held(7_000)), (Some(1), None));
    }

    #[test]
    fn a_lease_that_lapsed_during_renewal_is_a_new_one() {
        let (mut lease, timing) = held(0);
        assert!(lease.renew(3_999, 4_001, false, &timing));
        assert!(!lease.covers(1, 4_001), "others may have taken it for lapsed meanwhile");
    }

    #[test]
    fn a_store_that_lost_its_data_gives_a_lease_covering_the_old() {
        let (mut lease, timing) = held(0);
        assert!(lease.renew(1_000, 1_001, true, &timing));
        assert_eq!(lease.held(1_001), Some(2), "the controllers have to be read again");
        assert!(lease.covers(1, 1_001) && lease.covers(2, 1_001));
    }

    #[test]
    fn a_place_held_under_a_lapsed_lease_is_not_covered() {
        let (mut lease, timing) = held(0);
        assert!(lease.renew(5_000, 5_001, true, &timing));
        assert!(!lease.covers(1, 5_001) && lease.covers(2, 5_001));
    }

    #[test]
    fn a_heartbeat_lapses_after_lease_and_margin_without_change() {
        let patience = Timing::default().patience();
        let mut monitor = HeartbeatMonitor { count: Some(1), since: 0 };
        assert!(!monitor.look(Some(1), 5_999, patience) && monitor.look(Some(1), 6_000, patience));
        assert!(!monitor.look(Some(2), 6_001, patience) && !monitor.is_still(Some(3)) && monitor.is_still(None));
    }
}
