//! A scene of the model: the nodes and clients in it, and how much may happen.

use std::time::Duration;

use gitorial_relay::trust::Timing;
use gitorial_relay::session::Strategy;

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

/// The rule of the shell that is broken on purpose: the check has to find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Receivers take any state.
    Fence,
    /// A deleted document is simply gone, and a missing one is always written again.
    Tombstone,
    /// A store that has lost its data is trusted at once.
    Generation,
    /// A write succeeds even if another was committed since the read.
    VersionCheck,
    /// A node that declares another dead waits for its lease only, and not for the margin.
    Margin,
    /// The controller continues while its loss is written.
    Suspension,
    /// A controller's states are forwarded without a check of the lease.
    Deadline,
    /// A node ignores a write whose outcome is unknown.
    Forestalling,
    /// A controller that its node has not confirmed sends states at once.
    SureHolder,
    /// A decision on a document of the failed server is written to its replica.
    ServerCheck,
    /// No node notices that another server answers.
    Notice,
    /// A node in doubt does not write its last known core again.
    Remembrance,
    /// A write is taken for done before the store has it.
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
