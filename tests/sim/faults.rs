//! What can go wrong in a simulated world, and the mutations that its checks have to find.

use gitorial_relay::ids::Millis;
use rand::Rng;
use rand::rngs::StdRng;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A node is gone at once; it starts again later.
    Kill(usize),
    /// A node stands still.
    Pause(usize),
    /// A node loses its connections to the store and to the others.
    Cut(usize),
    /// A node hears nothing from the others.
    Deafen(usize),
    /// A node ends in order; it starts again later.
    Drain(usize),
    /// The store does not answer, and may carry out what it is asked.
    StoreAway,
    /// The answers of the store are lost now and then.
    LostAnswers,
    /// All keys of the store are deleted.
    Flush,
    /// The store comes back without its data.
    RestartEmpty,
    /// A replica takes over that lacks the last writes.
    FailOver(usize),
    /// The messages between the nodes are late.
    Delay,
    /// Messages between the nodes are lost.
    Loss,
    /// A client's socket breaks.
    CutClient(usize),
    /// A client loses its network: the old socket stays open and silent.
    Ghost(usize),
    /// A client reads nothing.
    Stall(usize),
    /// A client is gone for good, without a goodbye.
    Gone(usize),
}

/// How long the clients act in a world with a mutation that needs faults of its own.
pub const EAGER: Millis = 20_000;

/// A fault, when it begins, and how long it lasts.
#[derive(Clone, Copy, Debug)]
pub struct Scheduled {
    pub fault: Fault,
    pub at: Millis,
    pub lasts: Millis,
}

/// The faults of one world.
pub fn schedule(rng: &mut StdRng, nodes: usize, clients: usize) -> Vec<Scheduled> {
    let count = [0, 1, 1, 1, 2, 2, 3][rng.random_range(0..7)];
    let mut faults: Vec<_> = (0..count)
        .map(|_| {
            let (node, client) = (rng.random_range(0..nodes), rng.random_range(0..clients));
            let fault = match rng.random_range(0..15) {
                0 => Fault::Kill(node),
                1 => Fault::Pause(node),
                2 => Fault::Cut(node),
                3 => Fault::Deafen(node),
                4 => Fault::Drain(node),
                5 => Fault::StoreAway,
                6 => Fault::LostAnswers,
                7 => Fault::Flush,
                8 => Fault::RestartEmpty,
                9 => Fault::FailOver(rng.random_range(0..=3)),
                10 => Fault::Delay,
                11 => Fault::Loss,
                12 => Fault::CutClient(client),
                13 => Fault::Ghost(client),
                _ => Fault::Stall(client),
            };
            let lasts = [50, 500, 1_500, 3_000, 6_000][rng.random_range(0..5)] + rng.random_range(0..500);
            Scheduled { fault, at: rng.random_range(500..4_000), lasts }
        })
        .collect();
    faults.sort_by_key(|scheduled| scheduled.at);
    faults
}

/// A driver or a store that is wrong on purpose: the simulator has to find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// The store writes a core without comparing it.
    Careless,
    /// The store writes a core that was read from a server that is gone.
    AnyServer,
    /// A lease never lapses for its owner.
    EternalLease,
    /// A renewal counts from its answer.
    LateRenewal,
    /// A renewal counts although the inbox is silent.
    DeafRenewal,
    /// Another node counts as dead after half a lease.
    Impatient,
    /// The heartbeats are not looked at again after the document was read.
    StaleHeartbeats,
    /// No answer of the store tells that another server answers.
    UnknownServer,
    /// A change of the store's lineage goes unnoticed.
    UnknownLineage,
    /// A write without an answer counts as refused.
    LostIsConflict,
    /// Lost messages are not reported.
    SilentLoss,
    /// The outputs of a step are performed in the reverse order.
    Reversed,
    /// Other nodes do not hear that the document has changed.
    Unannounced,
    /// A frame of a client is read although the one before is not decided.
    Overtaking,
    /// Nothing is held for clients without the handshake.
    NoHold,
    /// A room is dropped while it still has something to do.
    ForgottenRoom,
}

impl Mutation {
    /// Faults that this mutation needs, for worlds that are to find it. The faults of the usual worlds are too varied to
    /// bring about often what takes a moment.
    pub fn needs(self, rng: &mut StdRng, nodes: usize, clients: usize) -> Vec<Scheduled> {
        let node = rng.random_range(0..nodes);
        let (fault, lasts, every) = match self {
            // Longer than a lease: others take what the node has.
            Self::LateRenewal | Self::StaleHeartbeats => (Fault::Pause(node), 2_300..3_200, 4_000),
            Self::EternalLease => (Fault::Cut(node), 3_000..4_500, 6_000),
            Self::DeafRenewal => (Fault::Deafen(node), 8_000..9_000, 10_000),
            Self::Impatient => (Fault::Cut(node), 1_200..2_000, 3_000),
            Self::ForgottenRoom => (Fault::Gone(rng.random_range(0..clients)), 1..2, EAGER),
            Self::AnyServer => (Fault::FailOver(rng.random_range(1..=2)), 1..30, 4_000),
            _ => return Vec::new(),
        };
        let mut times = || rng.random_range(0..every / 2);
        let at: Vec<Millis> = (0..).map(|turn| 500 + turn * every + times()).take_while(|at| *at < EAGER).collect();
        at.into_iter().map(|at| Scheduled { fault, at, lasts: rng.random_range(lasts.clone()) }).collect()
    }

    pub const ALL: [Self; 16] = [
        Self::Careless,
        Self::AnyServer,
        Self::EternalLease,
        Self::LateRenewal,
        Self::DeafRenewal,
        Self::Impatient,
        Self::StaleHeartbeats,
        Self::UnknownServer,
        Self::UnknownLineage,
        Self::LostIsConflict,
        Self::SilentLoss,
        Self::Reversed,
        Self::Unannounced,
        Self::Overtaking,
        Self::NoHold,
        Self::ForgottenRoom,
    ];
}
