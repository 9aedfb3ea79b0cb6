//! The relay's end of one WebSocket.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::Room;
use super::outbound::Outbound;
use crate::ids::ConnectionId;

/// The relay's end of one WebSocket. The socket's task and the room of its session share it.
#[derive(Debug)]
pub struct Socket {
    /// The id of the socket.
    pub connection: ConnectionId,
    /// Its session.
    pub room: Arc<Room>,
    /// The queue of frames for the socket.
    pub outbound: Outbound,
    deciding: AtomicBool,
    refused: AtomicU64,
}

impl Socket {
    /// Creates the relay's end of a socket that has just opened.
    #[must_use]
    pub fn new(connection: ConnectionId, room: Arc<Room>) -> Self {
        let (deciding, refused) = (AtomicBool::new(false), AtomicU64::new(0));
        Self { connection, room, outbound: Outbound::default(), deciding, refused }
    }

    /// Whether the client's last frame is not decided yet. Until it is, no other frame of the client may be read, so
    /// that each client's frames keep their order.
    #[must_use]
    pub fn is_deciding(&self) -> bool {
        self.deciding.load(Ordering::Acquire)
    }

    /// Notes whether the client's last frame is still to be decided. The caller wakes the socket's task.
    pub(crate) fn set_deciding(&self, deciding: bool) {
        self.deciding.store(deciding, Ordering::Release);
    }

    /// Counts a refused frame of the client.
    pub fn note_refusal(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// How many of the client's frames were refused so far.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}
