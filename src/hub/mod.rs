//! This node's rooms, and the sockets in them. No rules and no I/O.
//!
//! A [`Room`] has the state machine of one session on this node, behind a lock. A [`Socket`] is the relay's end of one
//! WebSocket: the queue of frames for it. Locks are short, never held across an await, and taken in the order map of
//! rooms, room, queue.

mod outbound;
mod socket;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::sync::oneshot;
use tracing::Span;

use crate::ids::SessionId;
use crate::region::{Region, Regions};
use crate::room::{self, Reply};

pub use crate::room::Item;
pub use outbound::{Next, Outbound, Pushed, QueueLimits};
pub use socket::Socket;

/// A caller that waits for a reply.
#[derive(Debug)]
pub struct Ticket {
    /// Where the reply goes.
    pub reply: oneshot::Sender<Reply>,
    /// The caller's span, the parent of the decision's spans.
    pub span: Span,
}

/// The state machine of one session on this node.
pub type Machine = room::Room<Arc<Socket>, Ticket>;

/// A session on this node.
#[derive(Debug)]
pub struct Room {
    /// The id of the session.
    pub id: SessionId,
    state: Mutex<RoomState>,
}

/// The part of a room that changes.
#[derive(Debug, Default)]
pub struct RoomState {
    /// The state machine.
    pub machine: Machine,
    /// The hub has dropped the room: a caller that found it before has to find the session's new one.
    pub closed: bool,
}

impl Room {
    /// Locks the room.
    pub fn lock(&self) -> MutexGuard<'_, RoomState> {
        self.state.lock()
    }
}

/// The rooms of a node, by region.
#[derive(Debug)]
pub struct Hub {
    regions: Regions,
    rooms: Vec<RwLock<Rooms>>,
}

type Rooms = HashMap<SessionId, Arc<Room>>;

impl Hub {
    /// Creates a hub without rooms.
    #[must_use]
    pub fn new(regions: Regions) -> Self {
        Self { regions, rooms: regions.iter().map(|_| RwLock::default()).collect() }
    }

    fn rooms_with(&self, session: SessionId) -> &RwLock<Rooms> {
        &self.rooms[self.regions.of(session).index()]
    }

    /// Returns the room of this session, and creates it if needed.
    pub fn open(&self, session: SessionId) -> Arc<Room> {
        if let Some(room) = self.find(session) {
            return room;
        }
        let new = || Arc::new(Room { id: session, state: Mutex::default() });
        self.rooms_with(session).write().entry(session).or_insert_with(new).clone()
    }

    /// The room of this session, if this node has one.
    #[must_use]
    pub fn find(&self, session: SessionId) -> Option<Arc<Room>> {
        self.rooms_with(session).read().get(&session).cloned()
    }

    /// All rooms at this moment.
    #[must_use]
    pub fn rooms(&self) -> Vec<Arc<Room>> {
        self.rooms.iter().flat_map(|rooms| rooms.read().values().cloned().collect::<Vec<_>>()).collect()
    }

    /// The rooms of one region at this moment.
    #[must_use]
    pub fn rooms_of(&self, region: Region) -> Vec<Arc<Room>> {
        self.rooms[region.index()].read().values().cloned().collect()
    }

    /// How many rooms are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rooms.iter().map(|rooms| rooms.read().len()).sum()
    }

    /// Whether no room is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops this room if it is `idle`. A room that is dropped counts as closed.
    pub fn close_if(&self, room: &Arc<Room>, idle: impl Fn(&Machine) -> bool) -> bool {
        // Most rooms are busy, and the map of all rooms is locked only for the others.
        if !idle(&room.lock().machine) {
            return false;
        }
        let mut rooms = self.rooms_with(room.id).write();
        let mut state = room.lock();
        if state.closed || !idle(&state.machine) {
            return false;
        }
        state.closed = true;
        rooms.remove(&room.id);
        if rooms.capacity() > 1024 && rooms.len() * 4 < rooms.capacity() {
            rooms.shrink_to_fit();
        }
        true
    }
}
