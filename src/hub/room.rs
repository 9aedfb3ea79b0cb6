//! A session as one node sees it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};

use super::member::Member;
use crate::ids::{ConnectionId, Epoch, Millis, NodeId, Seq, SessionId};
use crate::session::{Activity, Session};
use crate::store::WriteId;

/// A session with sockets on this node.
#[derive(Debug)]
pub struct Room {
    /// Which.
    pub id: SessionId,
    state: Mutex<RoomState>,
}

/// The document as the clients of this node were last told of it.
#[derive(Clone, Debug)]
pub struct View {
    /// The document.
    pub session: Arc<Session>,
    /// Its version.
    pub version: u64,
}

/// The local client whose states may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalController {
    /// Its socket.
    pub connection: ConnectionId,
    /// Its grant.
    pub epoch: Epoch,
    /// The node's lease that this was learnt under: a lease that lapsed in between makes it void.
    pub term: u64,
    /// It has yet to send something of its own.
    pub provisional: bool,
    /// Control is just leaving it: frames wait for the decision.
    pub suspended: bool,
}

/// A controller of this node that has been told that control is leaving it, and may have states on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flush {
    /// Its socket.
    pub connection: ConnectionId,
    /// The epoch that ends; also the number of the probe that it was sent behind the news.
    pub epoch: Epoch,
    /// Everything has been read that it sent before it knew.
    pub done: bool,
}

/// The newest state that came in from another node, to refuse older ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fence {
    epoch: Epoch,
    last: Option<(ConnectionId, Seq)>,
}

impl Fence {
    /// Whether a state is newer than all that were delivered; if so it is the newest now.
    pub fn admit(&mut self, epoch: Epoch, source: ConnectionId, seq: Seq) -> bool {
        let again = self.last.is_some_and(|(connection, number)| connection == source && seq <= number);
        if epoch < self.epoch || (epoch == self.epoch && again) {
            return false;
        }
        *self = Self { epoch, last: Some((source, seq)) };
        true
    }

    /// What is of an epoch before this one comes too late from now on.
    pub fn raise(&mut self, epoch: Epoch) {
        if self.epoch < epoch {
            *self = Self { epoch, last: None };
        }
    }
}

/// How many states a room remembers.
const MAX_PASSED: usize = 32;

/// The hashes of the states that passed in a session lately: an old one is nothing new, whoever sends it.
#[derive(Debug, Default)]
pub struct RecentStates(VecDeque<u64>);

impl RecentStates {
    /// Notes one.
    pub fn note(&mut self, hash: u64) {
        if self.0.len() == MAX_PASSED {
            self.0.pop_front();
        }
        self.0.push_back(hash);
    }

    /// Takes over what another node knows, oldest first: older than all that passed here.
    pub fn learn(&mut self, older: &[u64]) {
        let room = MAX_PASSED.saturating_sub(self.0.len());
        for hash in older.iter().rev().take(room) {
            self.0.push_front(*hash);
        }
    }

    /// Whether none has passed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        self.0.iter().copied()
    }

    /// Whether it is one of them.
    #[must_use]
    pub fn contains(&self, hash: u64) -> bool {
        self.0.contains(&hash)
    }
}

/// What changes about a room.
#[derive(Debug, Default)]
pub struct RoomState {
    /// The document as last seen.
    pub view: Option<View>,
    /// Who may drive, if it is a client of this node.
    pub driver: Option<LocalController>,
    /// The client of this node that control is leaving, or was the last to leave.
    pub flush: Option<Flush>,
    /// The sockets here, in the order of joining.
    pub members: Vec<Arc<Member>>,
    /// The other nodes that have clients of the session.
    pub elsewhere: Vec<NodeId>,
    /// What refuses the states of other nodes that come too late.
    pub fence: Fence,
    /// The states that passed lately.
    pub passed: RecentStates,
    /// The `release_control` that ended an epoch, until it is told: its sender's socket, and the frame.
    pub release: Option<(ConnectionId, Bytes)>,
    /// What this node's clients last did.
    pub activity: Activity,
    /// What of it the store knows, and when it was written.
    pub reported: (Activity, Millis),
    /// When something is due, in the store's time.
    pub due_at: Millis,
    /// The node's lease under which the places of this room were last claimed.
    pub term: Option<u64>,
    /// The document has to be read again before anything else.
    pub stale: bool,
    /// The clients here may have missed the last state of whoever drives, or those elsewhere that of the driver here. It
    /// is asked for with every change of the document, until a state comes.
    pub needs_resync: bool,
    /// A node that the document, as it was read here, does not name yet has asked for the driver's state.
    pub early_sync_request: bool,
    /// Who was last asked for that reason, and when.
    pub asked: Option<(ConnectionId, Instant)>,
    /// The core that this node last tried to replace. As long as it stands, that write may yet land.
    pub unresolved_write: Option<WriteId>,
    /// A refresh waits in the queue and has not read the document yet.
    pub reload_queued: bool,
}

impl Room {
    pub(super) fn new(id: SessionId) -> Self {
        Self { id, state: Mutex::new(RoomState { due_at: Millis::MAX, ..RoomState::default() }) }
    }

    /// Its state.
    pub fn lock(&self) -> MutexGuard<'_, RoomState> {
        self.state.lock()
    }
}

impl RoomState {
    /// The seat of this socket.
    #[must_use]
    pub fn member(&self, connection: ConnectionId) -> Option<&Arc<Member>> {
        self.members.iter().find(|member| member.connection == connection)
    }

    /// Takes a socket out. `false`: it is not here.
    pub fn remove(&mut self, connection: ConnectionId) -> bool {
        let before = self.members.len();
        self.members.retain(|member| member.connection != connection);
        before != self.members.len()
    }

    /// The driver, if it is this socket.
    #[must_use]
    pub fn local_controller_at(&self, connection: ConnectionId) -> Option<LocalController> {
        self.driver.filter(|driver| driver.connection == connection)
    }
}
