//! This node's sockets, grouped by session. No rules and no I/O: only the data about each socket, and its queue.
//!
//! A [`Room`] is a session as this node sees it, and a [`Member`] is one socket in it. Locks are short, never held
//! across an await, and taken in the order room, member.

mod member;
mod outbound;
mod room;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::ids::SessionId;

pub use member::{Member, MemberState, OpenSync, Parcel};
pub use outbound::{ANSWER_HOLD, Item, LEAVE_HOLD, Next, Outbound, Pushed, QueueLimits};
pub use room::{Fence, Flush, LocalController, RecentStates, Room, RoomState, View};

/// The rooms of a node.
#[derive(Debug, Default)]
pub struct Hub {
    rooms: RwLock<HashMap<SessionId, Arc<Room>>>,
}

impl Hub {
    /// Returns the room of this session, and creates it if needed.
    pub fn open(&self, session: SessionId) -> Arc<Room> {
        if let Some(room) = self.find(session) {
            return room;
        }
        self.rooms.write().entry(session).or_insert_with(|| Arc::new(Room::new(session))).clone()
    }

    /// The room of this session, if this node has one.
    #[must_use]
    pub fn find(&self, session: SessionId) -> Option<Arc<Room>> {
        self.rooms.read().get(&session).cloned()
    }

    /// All rooms at this moment.
    #[must_use]
    pub fn rooms(&self) -> Vec<Arc<Room>> {
        self.rooms.read().values().cloned().collect()
    }

    /// How many rooms are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rooms.read().len()
    }

    /// Whether no room is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rooms.read().is_empty()
    }

    /// Removes this room if it is `idle`; nobody can open it during the check.
    pub fn close_if(&self, room: &Arc<Room>, idle: impl FnOnce(&Room) -> bool) -> bool {
        let mut rooms = self.rooms.write();
        let same = rooms.get(&room.id).is_some_and(|known| Arc::ptr_eq(known, room));
        let close = same && idle(room);
        if close {
            rooms.remove(&room.id);
            if rooms.capacity() > 1024 && rooms.len() * 4 < rooms.capacity() {
                rooms.shrink_to_fit();
            }
        }
        close
    }
}
