//! Trust: what a node may believe of its own lease, of its store, and of the other nodes.
//!
//! A lease is a deadline on the node's own clock. A renewal counts from the time before the heartbeat was written.
//! Another node is taken for dead only by a node that has watched its heartbeat stand still for longer than a lease,
//! over an unbroken connection to an unchanged store: a missing heartbeat alone does not mean a lapsed lease. Of a node
//! on the same machine the time of the last renewal says the same ([`Observer::meet`]).
//!
//! A store may lose data that it had confirmed: it comes back empty, or a replica takes its place. Its
//! [`StoreLineage`] then changes. From that moment on, for as long as a lease lasts, another node may have a controller
//! that the store does not know. [`Trust::assess`] is the one place that says so.
//!
//! [`Observer`] notes the answers of the store. It makes a [`Trust`], a small copy for one step of a room.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{Millis, NodeId};

/// The intervals that all timing between nodes derives from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

/// One moment on the two clocks of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Now {
    /// The node's own clock, which nobody can set. Its origin has no meaning.
    pub local: Millis,
    /// The store's time, as far as the node knows it.
    pub store: Millis,
}

/// The identity of a store's data. It changes whenever the store may have lost something that it had confirmed: after
/// it came back empty or from a snapshot, or after a replica took its place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StoreLineage {
    /// The id of all data since the store was last empty.
    pub marker: String,
    /// The time since when the store cannot have lost data, in the store's time: since it was last empty, or since
    /// another server answers for documents. Zero if only this process can have known it before.
    pub since: Millis,
    /// The lineage of the server that answered, by name.
    pub server: String,
    /// The lineages of all servers that may answer for documents without a loss, by name.
    pub servers: BTreeSet<String>,
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

/// How far a node may rely on what the store says, or does not say, about a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Assessment {
    /// The store knows everything that was ever confirmed.
    Certain,
    /// The store may have lost data so recently that not every node has restored it. The session may have a controller
    /// that the store does not know, and a session that the store does not know may exist. Nothing new is granted.
    Recovering,
}

impl Assessment {
    /// Whether the store may have lost data.
    #[must_use]
    pub fn is_recovering(self) -> bool {
        self == Self::Recovering
    }
}

/// What a node believes at one moment: its lease, and how far it may rely on its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Trust {
    /// The node's own lease.
    pub lease: Lease,
    /// Until when the store may lack what other nodes have not restored yet, on the node's clock.
    pub doubtful_until: Millis,
    /// Since when the store cannot have lost data, in the store's time ([`StoreLineage::since`]).
    pub lineage_since: Millis,
    /// How long the leases of the time before a loss last at most ([`Timing::patience`]).
    pub patience: Millis,
}

impl Trust {
    /// The number of the present lease; `None` if it has lapsed.
    #[must_use]
    pub fn term(&self, now: Now) -> Option<u64> {
        self.lease.held(now.local)
    }

    /// Whether the lease `term` has been held ever since ([`Lease::covers`]).
    #[must_use]
    pub fn covers(&self, term: u64, now: Now) -> bool {
        self.lease.covers(term, now.local)
    }

    /// How far the node may rely on the document of a session that was created at `created_at`, or on its absence
    /// (`None`). A node that has just started cannot have noticed a loss itself: it goes by the session's age. So a
    /// client that proves that its session existed counts as one that was created at 0.
    #[must_use]
    pub fn assess(&self, created_at: Option<Millis>, now: Now) -> Assessment {
        let noticed = now.local < self.doubtful_until;
        let older = created_at.is_some_and(|created_at| created_at < self.lineage_since);
        if noticed || older && now.store < self.lineage_since.saturating_add(self.patience) {
            Assessment::Recovering
        } else {
            Assessment::Certain
        }
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
        !beats && self.has_lapsed(now, patience)
    }

    fn has_lapsed(&self, now: Millis, patience: Millis) -> bool {
        now.saturating_sub(self.since) >= patience
    }

    /// Whether a heartbeat that had lapsed at the last observation has still not changed.
    #[must_use]
    pub fn is_still(&self, count: Option<u64>) -> bool {
        count.is_none() || self.count == count
    }
}

/// The machine that a node runs on, since it last booted. The nodes of one machine share a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MachineId(pub u64);

/// A node's last renewal, as the store has it for a while after the node is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Renewal {
    /// The machine of the node; `None` if nobody else reads its clock.
    pub machine: Option<MachineId>,
    /// When the renewal began, on the clock of that machine.
    pub began: Millis,
    /// The same moment in the store's time.
    pub at: Millis,
}

/// The result of a renewal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Renewed {
    /// The lease had lapsed before, so everything that was learnt under the old one is void.
    pub new_term: bool,
    /// The store may have forgotten something since the last renewal.
    pub data_lost: bool,
}

/// Everything that a node has observed of its lease, its store and the other nodes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Observer {
    timing: Timing,
    machine: Option<MachineId>,
    lease: Lease,
    lineage: Option<StoreLineage>,
    /// The store has lost its data, and no renewal has reported it yet.
    loss_unreported: bool,
    doubtful_until: Millis,
    watched: BTreeMap<NodeId, HeartbeatMonitor>,
    lapsed: Arc<BTreeSet<NodeId>>,
}

impl Observer {
    /// An observer without a lease, that knows no store and no other node. `machine`: whose clock it reads.
    #[must_use]
    pub fn new(timing: Timing, machine: Option<MachineId>) -> Self {
        Self {
            timing,
            machine,
            lease: Lease::default(),
            lineage: None,
            loss_unreported: false,
            doubtful_until: 0,
            watched: BTreeMap::new(),
            lapsed: Arc::default(),
        }
    }

    /// The intervals.
    #[must_use]
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// What the node believes now.
    #[must_use]
    pub fn trust(&self) -> Trust {
        Trust {
            lease: self.lease,
            // A loss that the rooms have not heard of stays in doubt, however long the renewal takes.
            doubtful_until: if self.loss_unreported { Millis::MAX } else { self.doubtful_until },
            lineage_since: self.lineage.as_ref().map_or(0, |lineage| lineage.since),
            patience: self.timing.patience(),
        }
    }

    /// Notes that the renewal that began at `began` is in the store, and that the node's inbox works.
    pub fn renewed(&mut self, began: Millis, now: Millis) -> Renewed {
        let data_lost = std::mem::take(&mut self.loss_unreported);
        if data_lost {
            self.doubt(now);
        }
        let new_term = self.lease.renew(began, now, data_lost, &self.timing);
        Renewed { new_term, data_lost }
    }

    /// Compares the store's lineage with the one seen before.
    pub fn read_lineage(&mut self, lineage: StoreLineage, now: Millis) {
        let changed = self.lineage.as_ref().is_some_and(|before| {
            let same_data = before.marker == lineage.marker && before.since == lineage.since;
            !same_data || !before.servers.contains(&lineage.server)
        });
        self.lineage = Some(lineage);
        if changed {
            self.doubt(now);
            self.reset_failure_detector(now);
            self.loss_unreported = true;
        }
    }

    /// Notes the server that a document was read from. An unknown server may have lost data.
    pub fn heard_from(&mut self, server: &str, now: Millis) {
        if self.lineage.as_ref().is_some_and(|lineage| !lineage.servers.contains(server)) {
            self.doubt(now);
        }
    }

    fn doubt(&mut self, now: Millis) {
        self.doubtful_until = now + self.timing.patience();
    }

    /// Records the heartbeats of the nodes that matter now, and forgets all others. Returns those whose lease has
    /// lapsed since the last call.
    pub fn watched(&mut self, beats: Vec<(NodeId, Option<u64>)>, now: Millis) -> Vec<NodeId> {
        let patience = self.timing.patience();
        let mut before = std::mem::take(&mut self.watched);
        let mut lapsed = BTreeSet::new();
        for (node, count) in beats {
            let mut monitor = before.remove(&node).unwrap_or(HeartbeatMonitor { count, since: now });
            if monitor.look(count, now, patience) {
                lapsed.insert(node.clone());
            }
            self.watched.insert(node, monitor);
        }
        let new = lapsed.difference(&self.lapsed).cloned().collect();
        self.lapsed = Arc::new(lapsed);
        new
    }

    /// Those of `nodes` that this node does not watch yet.
    #[must_use]
    pub fn strangers(&self, nodes: &[NodeId]) -> Vec<NodeId> {
        nodes.iter().filter(|node| !self.watched.contains_key(*node)).cloned().collect()
    }

    /// Starts to watch a node, whose heartbeat now is `count`. The lease of one that ran on this machine has not been
    /// renewed since its last renewal: a node that is started again need not wait for what lapsed while it was down.
    pub fn meet(&mut self, node: NodeId, count: Option<u64>, renewal: Option<Renewal>, now: Now) {
        let known = renewal.filter(|renewal| {
            // A store that has lost data may lack later renewals.
            self.machine.is_some()
                && renewal.machine == self.machine
                && !self.trust().assess(Some(0), now).is_recovering()
        });
        // The two clocks have to agree: a copy of a machine takes its id along, but not the time.
        let age = |renewal: Renewal| now.local.saturating_sub(renewal.began).min(now.store.saturating_sub(renewal.at));
        let since = now.local - known.map_or(0, age).min(now.local);
        let monitor = HeartbeatMonitor { count, since };
        if monitor.has_lapsed(now.local, self.timing.patience()) {
            Arc::make_mut(&mut self.lapsed).insert(node.clone());
        }
        self.watched.insert(node, monitor);
    }

    /// Those of `nodes` whose lease this node has seen lapse. [`Observer::still_lapsed`] says which of them are dead, when
    /// their heartbeats have been read again.
    #[must_use]
    pub fn suspects(&self, nodes: Vec<NodeId>) -> Vec<NodeId> {
        nodes.into_iter().filter(|node| self.lapsed.contains(node)).collect()
    }

    /// Those nodes among `beats` whose lease has lapsed and whose heartbeat has not changed since. The caller asks after
    /// it has read a document and before it decides, because a node that is back claims its places again only once its
    /// heartbeat changes.
    #[must_use]
    pub fn still_lapsed(&self, beats: Vec<(NodeId, Option<u64>)>) -> BTreeSet<NodeId> {
        let silent = |node: &NodeId, count: Option<u64>| {
            count.is_none() || self.watched.get(node).is_some_and(|monitor| monitor.is_still(count))
        };
        let lapsed = beats.into_iter().filter(|(node, count)| self.lapsed.contains(node) && silent(node, *count));
        lapsed.map(|(node, _)| node).collect()
    }

    /// The nodes whose lease this node has seen lapse.
    #[must_use]
    pub fn lapsed(&self) -> Arc<BTreeSet<NodeId>> {
        self.lapsed.clone()
    }

    /// Starts the watch again: no node counts as dead until it has been watched for long enough.
    pub fn reset_failure_detector(&mut self, now: Millis) {
        self.lapsed = Arc::default();
        for monitor in self.watched.values_mut() {
            monitor.since = now;
        }
    }

    /// Gives the lease back, because the node ends in order.
    pub fn retire(&mut self) {
        self.lease.deadline = 0;
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

    fn lineage(marker: &str, since: Millis) -> StoreLineage {
        let server = "one".to_owned();
        StoreLineage { marker: marker.to_owned(), since, servers: BTreeSet::from([server.clone()]), server }
    }

    #[test]
    fn a_changed_lineage_is_in_doubt_for_lease_and_margin() {
        let mut observer = Observer::new(Timing::default(), None);
        observer.read_lineage(lineage("first", 0), 10);
        let at = |local| Now { local, store: local };
        assert_eq!(observer.trust().assess(None, at(10)), Assessment::Certain);
        observer.read_lineage(lineage("second", 0), 1_000);
        assert_eq!(observer.trust().assess(None, at(60_000)), Assessment::Recovering, "no room has heard of it");
        assert!(observer.renewed(60_000, 60_001).data_lost && !observer.renewed(60_002, 60_003).data_lost);
        assert_eq!(observer.trust().assess(None, at(66_000)), Assessment::Recovering);
        assert_eq!(observer.trust().assess(None, at(66_001)), Assessment::Certain);
    }

    #[test]
    fn a_lease_that_lapsed_before_this_node_started_is_not_waited_for() {
        let (here, node) = (MachineId(7), NodeId::from_text("a@1"));
        let renewal = |machine| Renewal { machine: Some(machine), began: 1_000, at: 501_000 };
        let met = |renewal, now: Now, lineage_since| {
            let mut observer = Observer::new(Timing::default(), Some(here));
            observer.read_lineage(lineage("first", lineage_since), 10);
            assert_eq!(observer.strangers(std::slice::from_ref(&node)).len(), 1);
            observer.meet(node.clone(), None, Some(renewal), now);
            !observer.suspects(vec![node.clone()]).is_empty()
        };
        let later = Now { local: 7_000, store: 507_000 };
        assert!(met(renewal(here), later, 0), "six seconds after the last renewal");
        assert!(!met(renewal(here), Now { local: 6_999, store: 506_999 }, 0), "the margin is not over");
        assert!(!met(renewal(MachineId(8)), later, 0), "the clock of another machine");
        assert!(!met(renewal(here), Now { local: 7_000, store: 503_000 }, 0), "the store's clock says otherwise");
        assert!(!met(renewal(here), Now { local: 90_000, store: 503_000 }, 0), "a copy of the machine");
        assert!(!met(renewal(here), later, 503_000), "the store may lack the last renewals");
    }

    #[test]
    fn a_node_met_again_is_watched_as_before() {
        let (here, node) = (MachineId(7), NodeId::from_text("a@1"));
        let mut observer = Observer::new(Timing::default(), Some(here));
        observer.read_lineage(lineage("first", 0), 10);
        let renewal = Renewal { machine: Some(here), began: 1_000, at: 501_000 };
        observer.meet(node.clone(), Some(5), Some(renewal), Now { local: 5_000, store: 505_000 });
        assert!(observer.watched(vec![(node.clone(), Some(6))], 7_500).is_empty(), "it beats");
        assert!(observer.watched(vec![(node.clone(), Some(6))], 13_499).is_empty());
        assert_eq!(observer.watched(vec![(node.clone(), Some(6))], 13_500), [node]);
    }

    #[test]
    fn an_unknown_server_is_in_doubt() {
        let mut observer = Observer::new(Timing::default(), None);
        observer.read_lineage(lineage("first", 0), 10);
        observer.heard_from("one", 20);
        assert_eq!(observer.trust().doubtful_until, 0);
        observer.heard_from("two", 20);
        assert_eq!(observer.trust().doubtful_until, 6_020);
    }

    #[test]
    fn a_node_that_just_started_doubts_sessions_older_than_the_lineage() {
        let mut observer = Observer::new(Timing::default(), None);
        observer.read_lineage(lineage("first", 100_000), 10);
        let (trust, now) = (observer.trust(), Now { local: 10, store: 100_010 });
        assert_eq!(trust.assess(Some(99_999), now), Assessment::Recovering);
        assert_eq!(trust.assess(Some(100_000), now), Assessment::Certain);
        assert_eq!(trust.assess(None, now), Assessment::Certain);
        assert_eq!(trust.assess(Some(0), Now { local: 10, store: 106_000 }), Assessment::Certain);
    }
}
