//! A state of the model: the store, the nodes, the messages in flight, and the faults that may still happen.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use gitorial_relay::ids::{ConnectionId, Epoch, NodeId};
use gitorial_relay::room::{LocalController, Room};
use gitorial_relay::route::RoutedFrame;
use gitorial_relay::session::Session;
use gitorial_relay::stored::{Stored, Write};
use gitorial_relay::trust::{Observer, StoreLineage};

use super::scene::{Budget, Wish};

/// One session on one node: the product's own. A socket stands for itself, and a caller for the client that joins.
pub type Machine = Room<ConnectionId, u8>;

/// A part of a state that many states share. It is hashed once, and compared by that hash.
pub struct Part<T> {
    value: T,
    print: u64,
}

impl<T: Hash> Part<T> {
    pub fn of(value: T) -> Arc<Self> {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        Arc::new(Self { value, print: hasher.finish() })
    }
}

impl<T> Deref for Part<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Hash for Part<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.print.hash(state);
    }
}

impl<T> PartialEq for Part<T> {
    fn eq(&self, other: &Self) -> bool {
        self.print == other.print
    }
}

impl<T> Eq for Part<T> {}

impl<T: fmt::Debug> fmt::Debug for Part<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

/// The store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Store {
    pub found: Option<Arc<Part<Stored>>>,
    /// The data of a replica that missed the last write, or all writes.
    pub replica: Option<Arc<Part<Stored>>>,
    /// The grant that a failover lost.
    pub forgotten: Option<(Epoch, ConnectionId)>,
    pub beats: Vec<Option<u64>>,
    pub lineage: Arc<Part<StoreLineage>>,
    /// The server that answers.
    pub server: u8,
    /// Names the last write.
    pub writes: u8,
}

/// What the driver of a room does next. Between two steps anything may happen, for any time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Pending {
    Nothing,
    /// It reads the document.
    Load,
    /// It has read a document of this epoch, and looks at the heartbeats of these nodes.
    Look(Vec<NodeId>, Epoch),
    /// It writes.
    Commit(Arc<Part<Write>>),
    /// It has written this version, and hands the answer over.
    Answer(u64),
    /// It creates the document.
    Create(Arc<Part<Session>>),
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    pub alive: bool,
    pub observer: Arc<Part<Observer>>,
    /// When the renewal in flight began.
    pub renewing: Option<u8>,
    pub beats: u64,
    pub room: Arc<Part<Machine>>,
    pub pending: Pending,
    /// The sockets of the room that are closed.
    pub closed: Vec<ConnectionId>,
    /// The probes that no client has answered yet.
    pub probes: Vec<(ConnectionId, u64)>,
    /// The newest epoch whose state its clients have received.
    pub shown: Epoch,
    /// The controller that a broken driver lets pass until its write is answered.
    pub unsuspended: Option<LocalController>,
}

impl Node {
    /// The open socket of this client.
    pub fn socket_of(&self, client: &str) -> Option<ConnectionId> {
        let mut open = self.open().filter(|member| member.client.id.as_str() == client);
        open.next().map(|member| member.connection)
    }

    /// The open sockets.
    pub fn open(&self) -> impl Iterator<Item = &gitorial_relay::room::Member<ConnectionId>> {
        let open = |member: &&gitorial_relay::room::Member<_>| !self.closed.contains(&member.connection);
        self.room.members().iter().filter(move |member| !member.superseded && open(member))
    }
}

/// A state on its way to a node. Two states of one epoch count as one.
#[derive(Clone, Debug)]
pub struct Routed {
    pub from: usize,
    pub to: usize,
    pub frame: Arc<RoutedFrame>,
    /// How often it may still arrive.
    pub copies: u8,
}

impl Routed {
    pub fn key(&self) -> (usize, Epoch, u8) {
        (self.to, self.frame.route.epoch, self.copies)
    }
}

impl Hash for Routed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl PartialEq for Routed {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Routed {}

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
    pub late: Option<Arc<Part<Write>>>,
    /// Clients without a socket that may come back.
    pub away: Vec<u8>,
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
    /// A node's driver performs what the room waits for.
    Work(usize),
    /// A write is committed, or is not yet; its node gets no answer. The room can read again (`true`), or cannot.
    LoseAnswer(usize, bool),
    /// A write whose answer was lost is committed.
    Land,
    /// A client asks for control, or gives it up.
    Wish(usize, u8, Wish),
    /// The controller sends a state.
    Pass(usize),
    /// A state arrives.
    Arrive(usize),
    /// A client answers a probe.
    Pong(usize),
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
