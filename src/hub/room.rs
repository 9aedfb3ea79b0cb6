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
    /// The id of the session.
    pub id: SessionId,
    state: Mutex<RoomState>,
}

/// The document that the clients of this node were last told.
#[derive(Clone, Debug)]
pub struct View {
    /// The document.
    pub session: Arc<Session>,
    /// Its version.
    pub version: u64,
}

/// The local controller: its states may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalController {
    /// Its socket.
    pub connection: ConnectionId,
    /// The epoch of its grant.
    pub epoch: Epoch,
    /// The node's lease at the time of the grant. A lease that lapsed in between makes the grant void.
    pub term: u64,
    /// The controller has not sent a state of its own yet.
    pub provisional: bool,
    /// Control is leaving it: frames wait for the decision.
    pub suspended: bool,
}

/// A controller of this node that has been told that control is leaving it, and may have states under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flush {
    /// Its socket.
    pub connection: ConnectionId,
    /// The epoch that ends. It is also the number of the probe that follows the notice.
    pub epoch: Epoch,
    /// Everything that the client sent before it knew has been read.
    pub done: bool,
}

/// The newest state that arrived from another node, used to refuse older ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fence {
    epoch: Epoch,
    last: Option<(ConnectionId, Seq)>,
}

impl Fence {
    /// Checks whether a state is newer than all delivered ones; if so, it becomes the newest.
    pub fn admit(&mut self, epoch: Epoch, source: ConnectionId, seq: Seq) -> bool {
        let again = self.last.is_some_and(|(connection, number)| connection == source && seq <= number);
        if epoch < self.epoch || (epoch == self.epoch && again) {
            return false;
        }
        *self = Self { epoch, last: Some((source, seq)) };
        true
    }

    /// Refuses all states of an epoch before this one from now on.
    pub fn raise(&mut self, epoch: Epoch) {
        if self.epoch < epoch {
            *self = Self { epoch, last: None };
        }
    }
}

/// How many states a room remembers.
const MAX_PASSED: usize = 32;

/// The hashes of the states that passed in a session recently. A state among them is not new, whichever client sends
/// it.
#[derive(Debug, Default)]
pub struct RecentStates(VecDeque<u64>);

impl RecentStates {
    /// Adds a state.
    pub fn note(&mut self, hash: u64) {
        if self.0.len() == MAX_PASSED {
            self.0.pop_front();
        }
        self.0.push_back(hash);
    }

    /// Adds the states that another node knows, oldest first, as older than all that passed on this node.
    pub fn learn(&mut self, older: &[u64]) {
        let room = MAX_PASSED.saturating_sub(self.0.len());
        for hash in older.iter().rev().take(room) {
            self.0.push_front(*hash);
        }
    }

    /// Whether it has no state.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All hashes, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        self.0.iter().copied()
    }

    /// Whether it has this hash.
    #[must_use]
    pub fn contains(&self, hash: u64) -> bool {
        self.0.contains(&hash)
    }
}

/// The state of a room that changes.
#[derive(Debug, Default)]
pub struct RoomState {
    /// The document as this node last read it.
    pub view: Option<View>,
    /// The controller, if it is a client of this node.
    pub controller: Option<LocalController>,
    /// The client of this node that control is leaving, or was the last to leave.
    pub flush: Option<Flush>,
    /// The sockets on this node, in the order of joining.
    pub members: Vec<Arc<Member>>,
    /// The other nodes that have clients of the session.
    pub elsewhere: Vec<NodeId>,
    /// The fence that refuses late states of other nodes.
    pub fence: Fence,
    /// The states that passed recently.
    pub passed: RecentStates,
    /// The `release_control` that ended an epoch, until it is sent: its sender's socket, and the frame.
    pub release: Option<(ConnectionId, Bytes)>,
    /// The last activity of this node's clients.
    pub activity: Activity,
    /// The activity that the store knows, and when it was written.
    pub reported: (Activity, Millis),
    /// When something is due, in the store's time.
    pub due_at: Millis,
    /// The node's lease under which the places of this room were last claimed.
    pub term: Option<u64>,
    /// The document has to be read again before any decision.
    pub stale: bool,
    /// The clients on this node may have missed the controller's last state, or the clients on other nodes that of a
    /// controller on this node. The relay asks for the state with every change of the document, until a state arrives.
    pub needs_resync: bool,
    /// A node that the document, as this node last read it, does not name yet has asked for the controller's state.
    pub early_sync_request: bool,
    /// The client that was last asked for its state for this reason, and when.
    pub asked: Option<(ConnectionId, Instant)>,
    /// The core that this node last tried to replace. While it is in the store, that write may still be committed.
    pub unresolved_write: Option<WriteId>,
    /// A refresh waits in the queue and has not read the document yet.
    pub reload_queued: bool,
}

impl Room {
    pub(super) fn new(id: SessionId) -> Self {
        Self { id, state: Mutex::new(RoomState { due_at: Millis::MAX, ..RoomState::default() }) }
    }

    /// Locks the room's state.
    pub fn lock(&self) -> MutexGuard<'_, RoomState> {
        self.state.lock()
    }
}

impl RoomState {
    /// The member of this socket.
    #[must_use]
    pub fn member(&self, connection: ConnectionId) -> Option<&Arc<Member>> {
        self.members.iter().find(|member| member.connection == connection)
    }

    /// Removes a socket. Returns `false` if it is not in this room.
    pub fn remove(&mut self, connection: ConnectionId) -> bool {
        let before = self.members.len();
        self.members.retain(|member| member.connection != connection);
        before != self.members.len()
    }

    /// The controller, if it is this socket.
    #[must_use]
    pub fn local_controller_at(&self, connection: ConnectionId) -> Option<LocalController> {
        self.controller.filter(|controller| controller.connection == connection)
    }
}
