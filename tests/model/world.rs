//! A state of the model: the store, the nodes, the messages in flight, and the faults that may still happen.

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

/// Identifies a server and the data that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StoreLineage {
    /// Changes when the store was empty.
    pub marker: u8,
    /// Changes when a replica takes over. Every answer names it.
    pub server: u8,
}

/// The store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Store {
    pub found: Option<Stored>,
    /// The data of a replica that missed the last write, or all writes.
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

/// The document that a worker has read, and the lease that its node held before.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Basis {
    pub stored: Stored,
    pub server: u8,
    pub term: Option<u64>,
}

/// A write: a core replaces only the one that it was derived from, and only on the server where that was read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Write {
    pub base: Stored,
    pub server: u8,
    pub after: Arc<Doc>,
    pub core: bool,
    pub id: u8,
}

/// A decision: the resulting document, and the number of jobs that it decides.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Decision {
    pub write: Write,
    pub taken: u8,
    pub term: Option<u64>,
}

/// Where a node's worker is. Between two steps anything may happen, for any time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Worker {
    Idle,
    /// It has read, and looks at the heartbeats next.
    Read(Basis),
    /// It has decided and suspended its controller, and writes next.
    Decided(Decision),
    /// It has written this version, and waits for the answer.
    Written(Decision, u8),
    /// It does not know the outcome of its write.
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
    /// When the renewal in flight began.
    pub renewing: Option<u8>,
    pub beats: u64,
    pub lineage: StoreLineage,
    /// The store's lineage has changed, and no renewal has reported it yet.
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
    /// How many of the jobs the worker is deciding.
    pub batch: usize,
    pub worker: Worker,
    /// A read of the document is queued among the jobs.
    pub reload_queued: bool,
    pub stale: bool,
    /// The core that it last tried to replace.
    pub unresolved_write: Option<u8>,
    /// The newest epoch whose state its clients have received.
    pub shown: Epoch,
}

/// A socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    pub client: u8,
    pub connection: ConnectionId,
    /// Its place as last seen, from which it can be restored.
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

/// Violations: each is an `always` property of the model, kept until the checker reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Faults {
    pub out_of_order: bool,
    pub granted_twice: bool,
    pub came_back: bool,
}

/// The whole world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub now: u8,
    pub store: Store,
    pub nodes: Vec<Node>,
    pub routed: Vec<Routed>,
    /// A write whose answer was lost, and that may still be committed.
    pub late: Option<(usize, Write)>,
    /// Clients without a socket that may come back.
    pub away: Vec<u8>,
    pub sent: u8,
    pub left: Budget,
    pub deleted: bool,
    /// The client of each grant, as long as some document could lead to its epoch again.
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
    /// The renewal is in the store, and the node learns of it.
    Renewed(usize),
    /// A node looks at the others' heartbeats.
    Watch(usize),
    /// A node learns that the document changed, or reads it on a timer.
    Hear(usize),
    /// A node's worker takes its next step.
    Work(usize),
    /// A write is committed, or is not yet; its node gets no answer and retries (`true`), or gives up.
    LoseAnswer(usize, bool),
    /// A write whose answer was lost is committed.
    Land,
    /// A client asks for control, or gives it up.
    Wish(usize, u8, Wish),
    /// The controller's state is forwarded.
    Pass(usize),
    /// A state arrives.
    Arrive(usize),
    /// A client's socket breaks without a close frame.
    Break(usize, u8),
    /// A client comes back on this node.
    Return(usize, u8),
    /// A node is gone.
    Crash(usize),
    /// The session is deleted.
    Delete(usize),
    /// The store comes back empty.
    Forget,
    /// A replica takes over that misses the last write.
    FailOver,
}
