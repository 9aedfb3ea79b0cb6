//! What is looked at: who is there, and how much may happen.

use std::time::Duration;

use gitorial_relay::presence::Timing;
use gitorial_relay::session::Strategy;

/// What a client may want.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wish {
    /// Control, whoever has it.
    Take,
    /// Control, if it may.
    Ask,
    /// To give control to the first who asked.
    Grant,
    /// To let go.
    Release,
}

/// The rule of the shell that is broken on purpose: the check has to find out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Receivers take any state.
    Fence,
    /// A deleted document is simply gone, and a missing one is always written anew.
    Tombstone,
    /// A store that has lost its memory is trusted at once.
    Generation,
    /// A write succeeds whatever was written meanwhile.
    VersionCheck,
    /// Whoever takes a node for dead waits for its lease only, and not for the margin.
    Margin,
    /// The driver goes on while its loss is written.
    Suspension,
    /// A driver's states pass without a look at the lease.
    Deadline,
    /// After a write whose outcome is unknown a node goes on as if it had not been.
    Forestalling,
    /// A holder of whom its node is not sure drives at once.
    SureHolder,
    /// What was decided on a document of the server that failed is written to its replica.
    ServerCheck,
    /// Nobody notices that another server answers.
    Notice,
    /// A node in doubt does not write again what it last knew of.
    Remembrance,
}

/// How often each thing may happen.
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
    /// The node of each client, and whether it has done the handshake. The first one drives at the start.
    pub clients: Vec<(usize, bool)>,
    pub strategy: Strategy,
    pub wishes: Vec<Wish>,
    /// Leases of this many ticks; none: they never end.
    pub lease: Option<u8>,
    /// By how much the owner's clock may lag behind, and another's run ahead, within one lease. The margin is one tick.
    pub drift: u8,
    /// The nodes that renew their lease with every tick, and whose workers are never interrupted.
    pub steady: Vec<usize>,
    /// A place is kept for ever, or not at all.
    pub grace: bool,
    /// A replica that takes over has missed all writes, and not the last one alone.
    pub far_behind: bool,
    /// How often a state may arrive.
    pub copies: u8,
    pub budget: Budget,
    pub broken: Option<Broken>,
}

impl Scene {
    pub fn timing(&self) -> Timing {
        let lease = Duration::from_millis(self.lease.unwrap_or(200).into());
        Timing { heartbeat: Duration::from_millis(1), lease, margin: Duration::from_millis(1) }
    }

    pub fn is_steady(&self, node: usize) -> bool {
        self.steady.contains(&node)
    }

    pub fn is(&self, broken: Broken) -> bool {
        self.broken == Some(broken)
    }
}
