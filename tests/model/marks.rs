//! Events that have to happen at least once: a model in which nothing happens holds every property.

use std::sync::atomic::{AtomicU64, Ordering};

/// An event without which a check is vacuous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A transfer began.
    Revoking,
    /// Its second step was taken.
    Transferred,
    /// Control went straight to a client of another node.
    Granted,
    /// Control left a node that has crashed.
    TakenFromTheDead,
    /// Another node took control from a node whose lease had lapsed.
    TakenFromTheLapsed,
    /// A client came back on another socket as the controller.
    Returned,
    /// A replica took over that missed the last write.
    FailedOver,
    /// A node wrote a core again that the store had lost.
    Remembered,
    /// A client whose grant was lost by a failover keeps control, in the same epoch.
    DroveOn,
    /// A write came too late.
    Conflict,
    /// A state came too late.
    Fenced,
    /// A state arrived.
    Arrived,
    /// A lease lapsed and another was taken.
    NewLease,
    /// A node noticed that the store has lost its lineage.
    MemoryLost,
    /// A session was restored.
    Restored,
    /// A write was committed after its node had given it up.
    LandedLate,
}

/// How often each has been seen, in all states of a check.
#[derive(Debug, Default)]
pub struct Marks([AtomicU64; 16]);

impl Marks {
    pub fn note(&self, mark: Mark) {
        self.0[mark as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn seen(&self, mark: Mark) -> u64 {
        self.0[mark as usize].load(Ordering::Relaxed)
    }
}
