//! A scene of the model: the nodes and clients in it, and how much may happen.

use std::time::Duration;

use gitorial_relay::session::Strategy;
use gitorial_relay::trust::Timing;

/// A client's wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wish {
    /// Take control, from any controller.
    Take,
    /// Ask for control.
    Ask,
    /// Grant control to the first client that asked.
    Grant,
    /// Release control.
    Release,
}

/// What is broken on purpose, in the driver or in the store: the check has to find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A node shows its clients a state that its room has dropped.
    Fence,
    /// The store forgets a deleted document at once, and a write to a missing document creates it.
    Tombstone,
    /// A node's doubt ends as soon as the store has a document again.
    Generation,
    /// A write succeeds even if another was committed since the read.
    VersionCheck,
    /// The clock of a lease's owner lags behind by more than the margin.
    Margin,
    /// The states of the controller pass until the write that takes control from it is answered.
    Suspension,
    /// A room is told that its node's lease never lapses.
    Deadline,
    /// The store gives no new id to a core that a write does not change.
    Forestalling,
    /// A room hears of its node's doubt when it reads, but not when it decides.
    SureHolder,
    /// A decision on a document of the failed server is written to its replica.
    ServerCheck,
    /// No node notices that another server answers.
    Notice,
    /// A write is answered before the store has it.
    EarlyAnswer,
    /// The heartbeats are not read again after the document.
    StaleLook,
}

/// How often each event may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    pub ticks: u8,
    pub renewals: u8,
    pub wishes: u8,
    pub states: u8,
    pub breaks: u8,
    pub returns: u8,
    pub crashes: u8,
    pub lost_answers: u8,
    pub deletes: u8,
    pub memory_losses: u8,
    pub fail_overs: u8,
}

/// A scene.
#[derive(Clone, Debug)]
pub struct Scene {
    pub name: &'static str,
    pub nodes: usize,
    /// The node of each client, and whether it has done the handshake. The first one has control at the start.
    pub clients: Vec<(usize, bool)>,
    pub strategy: Strategy,
    pub wishes: Vec<Wish>,
    /// Leases of this many ticks; `None`: they never end.
    pub lease: Option<u8>,
    /// The nodes that renew their lease with every tick, and whose workers are never interrupted.
    pub steady: Vec<usize>,
    /// A replica that takes over has missed all writes, not only the last one.
    pub far_behind: bool,
    /// How often a state may arrive.
    pub copies: u8,
    pub budget: Budget,
    pub broken: Option<Broken>,
}

impl Scene {
    /// The clocks of two nodes drift apart by the whole margin within a lease: the owner's clock lags behind, and the
    /// other's runs ahead. On the one clock of the model that leaves a margin of zero.
    pub fn timing(&self) -> Timing {
        let lease = Duration::from_millis(self.lease.unwrap_or(200).into());
        Timing { heartbeat: Duration::from_millis(1), lease, margin: Duration::ZERO }
    }

    pub fn is_steady(&self, node: usize) -> bool {
        self.steady.contains(&node)
    }

    pub fn is(&self, broken: Broken) -> bool {
        self.broken == Some(broken)
    }
}
