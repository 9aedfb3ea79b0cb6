//! A state of the model: the store, the nodes, what is under way between them, and what may still go wrong.

use std::collections::BTreeMap;
use std::sync::Arc;

use gitorial_relay::hub::Fence;
use gitorial_relay::ids::{ConnectionId, Epoch, Seq};
use gitorial_relay::presence::{HeartbeatMonitor, Lease};
use gitorial_relay::session::Client;

use super::doc::Doc;
use super::scene::{Budget, Wish};

/// A document as it stands in the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stored {
    pub doc: Arc<Doc>,
    pub version: u8,
    pub write: u8,
}

/// Names what a server remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StoreLineage {
    /// Another after the store was empty.
    pub marker: u8,
    /// Another if a replica has taken over. Every answer names it.
    pub server: u8,
}

/// The store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Store {
    pub found: Option<Stored>,
    /// What a replica has that missed the last write, or all.
    pub replica: Option<Stored>,
    /// The grant that a failover lost.
    pub forgotten: Option<(Epoch, ConnectionId)>,
    pub beats: Vec<Option<u64>>,
    pub lineage: StoreLineage,
    /// Names the next write.
    pub writes: u8,
}

/// Something to decide.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Job {
    Tick,
    Frame { client: u8, connection: ConnectionId, wish: Wish, epoch: Option<Epoch> },
    Join { client: u8, connection: ConnectionId },
    Leave { connection: ConnectionId },
    Delete,
}

/// What a worker has read, and the lease that its node held before.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Basis {
    pub stored: Stored,
    pub server: u8,
    pub term: Option<u64>,
}

/// What is written: a core only over the one that it was derived from, and only where that was read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Write {
    pub base: Stored,
    pub server: u8,
    pub after: Arc<Doc>,
    pub core: bool,
    pub id: u8,
}

/// A decision: what it makes of the document, and of how many jobs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Decision {
    pub write: Write,
    pub taken: u8,
    pub term: Option<u64>,
}

/// Where a node's worker is. Between two steps anything may happen, for as long as it likes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Worker {
    Idle,
    /// It has read, and looks at the heartbeats next.
    Read(Basis),
    /// It has decided and suspended its driver, and writes next.
    Decided(Decision),
    /// It has written, and has yet to hear so: the version.
    Written(Decision, u8),
    /// It has not heard what became of its write.
    Unknown(Decision),
    /// It has found no document and writes its own next.
    Restoring(Arc<Doc>),
}

/// The local client whose states pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LocalController {
    pub connection: ConnectionId,
    pub epoch: Epoch,
    pub term: u64,
    pub suspended: bool,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    pub alive: bool,
    pub lease: Lease,
    /// When the renewal that is under way began.
    pub renewing: Option<u8>,
    pub beats: u64,
    pub lineage: StoreLineage,
    /// The store's memory is another, and no renewal has said so yet.
    pub loss_unreported: bool,
    pub doubtful_until: u8,
    pub monitors: BTreeMap<usize, HeartbeatMonitor>,
    pub lapsed: Vec<usize>,
    pub view: Option<(Arc<Doc>, u8)>,
    pub driver: Option<LocalController>,
    /// The lease under which it has claimed its places.
    pub claimed: Option<u64>,
    pub fence: Fence,
    pub members: Vec<Member>,
    pub jobs: Vec<Job>,
    /// How many of the jobs the worker has before it.
    pub batch: usize,
    pub worker: Worker,
    /// A look at the document waits among the jobs.
    pub reload_queued: bool,
    pub stale: bool,
    /// The core that it last tried to replace.
    pub unresolved_write: Option<u8>,
    /// The newest epoch of which its clients got a state.
    pub shown: Epoch,
}

/// A socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    pub client: u8,
    pub connection: ConnectionId,
    /// Its place as last seen, to restore it by.
    pub place: Arc<Client>,
    pub open: bool,
    pub superseded: bool,
}

/// A state on its way to a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Routed {
    pub to: usize,
    pub epoch: Epoch,
    pub source: ConnectionId,
    pub seq: Seq,
    /// How often it may still arrive.
    pub copies: u8,
}

/// What has gone wrong: each is an `always` of the model, kept until somebody looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Faults {
    pub out_of_order: bool,
    pub granted_twice: bool,
    pub came_back: bool,
}

/// Everything there is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub now: u8,
    pub store: Store,
    pub nodes: Vec<Node>,
    pub routed: Vec<Routed>,
    /// A write whose answer was lost, and that may land yet.
    pub late: Option<(usize, Write)>,
    /// Clients without a socket that may come back.
    pub away: Vec<u8>,
    pub sent: u8,
    pub left: Budget,
    pub deleted: bool,
    /// Whose each grant was, as long as some document could lead to its epoch again.
    pub granted: Vec<(Epoch, ConnectionId)>,
    pub faults: Faults,
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Time passes.
    Time,
    /// A node begins to renew its lease.
    Renew(usize),
    /// The renewal is in the store, and the node hears so.
    Renewed(usize),
    /// A node looks at the others' heartbeats.
    Watch(usize),
    /// A node hears that the document changed, or looks at it by the clock.
    Hear(usize),
    /// A node's worker takes its next step.
    Work(usize),
    /// A write happens, or does not yet; its node hears nothing and asks again (`true`), or gives up.
    LoseAnswer(usize, bool),
    /// A write whose answer was lost lands.
    Land,
    /// A client asks for control, or gives it up.
    Wish(usize, u8, Wish),
    /// The driver's state is let through.
    Pass(usize),
    /// A state arrives.
    Arrive(usize),
    /// A client's socket is gone, without a goodbye.
    Break(usize, u8),
    /// A client comes back on this node.
    Return(usize, u8),
    /// A node is gone.
    Crash(usize),
    /// Somebody deletes the session.
    Delete(usize),
    /// The store comes back empty.
    Forget,
    /// A replica takes over that misses the last write.
    FailOver,
}
