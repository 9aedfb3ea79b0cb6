//! What a node holds for each region: its lease, and why the lease was not renewed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::readiness::Trouble;
use crate::broker::SharedBroker;
use crate::clock::Clock;
use crate::ids::{Millis, NodeId, SessionId};
use crate::presence::{Presence, Timing};
use crate::region::{Region, Regions};
use crate::store::SharedStore;

/// One region as this node sees it.
#[derive(Debug)]
pub(super) struct Held {
    /// This node's lease, and what it knows of those of the others.
    pub(super) presence: Presence,
    /// Whether the lease was ever held.
    started: AtomicBool,
    /// Why the lease was not renewed the last time; `None` after a renewal.
    pub(super) trouble: Mutex<Option<Trouble>>,
}

impl Held {
    pub(super) fn has_started(&self) -> bool {
        self.started.load(Ordering::Acquire)
    }

    pub(super) fn start(&self) {
        self.started.store(true, Ordering::Release);
    }
}

/// All regions.
#[derive(Debug)]
pub(super) struct HeldRegions {
    regions: Regions,
    held: Vec<Held>,
    /// Until when a node that has just started waits for all regions, on its own clock.
    patient_until: Millis,
    met: AtomicBool,
}

impl HeldRegions {
    /// No lease is held yet.
    pub(super) fn new(
        node: &NodeId,
        store: &SharedStore,
        broker: &SharedBroker,
        clock: &Arc<Clock>,
        timing: Timing,
    ) -> Self {
        let regions = store.regions();
        let held = |region| Held {
            presence: Presence::new(region, node.clone(), store.clone(), broker.clone(), clock.clone(), timing),
            started: AtomicBool::new(false),
            trouble: Mutex::default(),
        };
        let patience = Millis::try_from(timing.lease.as_millis()).unwrap_or(Millis::MAX);
        Self {
            regions,
            held: regions.iter().map(held).collect(),
            patient_until: clock.local().saturating_add(patience),
            met: AtomicBool::new(false),
        }
    }

    /// The region of a session.
    pub(super) fn of(&self, session: SessionId) -> &Held {
        self.at(self.regions.of(session))
    }

    /// One region.
    pub(super) fn at(&self, region: Region) -> &Held {
        &self.held[region.index()]
    }

    /// Every region.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Held> {
        self.held.iter()
    }

    /// Their division.
    pub(super) fn division(&self) -> Regions {
        self.regions
    }

    /// How many have no lease.
    pub(super) fn away(&self) -> usize {
        self.held.iter().filter(|held| held.presence.term().is_none()).count()
    }

    /// Whether no region has a lease.
    pub(super) fn are_all_away(&self) -> bool {
        self.held.iter().all(|held| held.presence.term().is_none())
    }

    /// Whether the node has held every lease at once, or has tried to for as long as a lease lasts: a node that has just
    /// started would refuse the clients of the regions that it has not reached yet.
    pub(super) fn have_been_met(&self, now: Millis) -> bool {
        if !self.met.load(Ordering::Acquire) && (self.away() == 0 || now >= self.patient_until) {
            self.met.store(true, Ordering::Release);
        }
        self.met.load(Ordering::Acquire)
    }

    /// The time left of the lease that lasts longest.
    pub(super) fn left(&self) -> Duration {
        self.held.iter().map(|held| held.presence.left()).max().unwrap_or_default()
    }

    /// Gives every lease back. A region that is away delays no other.
    pub(super) async fn retire(&self) {
        futures_util::future::join_all(self.held.iter().map(|held| held.presence.retire())).await;
    }
}
