//! The history: what every client sent, received and was told, in order.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A client: its session's number, and its own in the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Who {
    /// The session.
    pub session: usize,
    /// The client in it.
    pub client: usize,
}

impl Who {
    /// The id in its frames.
    pub fn id(self) -> String {
        format!("client_{}_{}", self.session, self.client)
    }

    /// Reads [`Who::id`].
    pub fn parse(id: &str) -> Option<Self> {
        let (session, client) = id.strip_prefix("client_")?.split_once('_')?;
        Some(Self { session: session.parse().ok()?, client: client.parse().ok()? })
    }
}

/// A state in flight: its author, its number among the author's, and the frame that carried it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateFrame {
    /// Unique among all frames of the run.
    pub frame: u64,
    /// The client whose step it is.
    pub author: Who,
    /// Counts its author's steps.
    pub step: u64,
    /// It repeats a state that was sent before: an answer to `request_sync`, or a state that may have been lost with a
    /// connection.
    pub repeated: bool,
    /// The epoch in the frame, if its reader or writer has done the handshake.
    pub epoch: Option<u64>,
}

/// The role that a client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It has control.
    Active,
    /// It does not have control.
    Other,
}

/// An event of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Its socket opened.
    Opened,
    /// Its socket ended with this code and reason; 1006 without a close frame.
    Closed(u16, String),
    /// It sent a state.
    Sent(StateFrame),
    /// It received a state.
    Got(StateFrame),
    /// It was told its role, and the epoch if that was named.
    ClientView(Role, Option<u64>),
    /// One of its frames was refused with this code.
    Refused(String),
    /// The relay did something to it that must never be done to a client.
    Hurt(String),
}

/// One entry.
#[derive(Clone, Debug)]
pub struct Event {
    /// The time since the run began.
    pub at: Duration,
    /// The client.
    pub who: Who,
    /// The event.
    pub what: What,
}

/// A client's knowledge when all is quiet.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The client.
    pub who: Who,
    /// It believes that it has control.
    pub active: bool,
    /// It believes that it follows.
    pub follows: bool,
    /// Its socket is open.
    pub connected: bool,
    /// It keeps its role over a reconnect, independent of the relay (the first generation).
    pub stubborn: bool,
    /// Its user has called `disconnect()`, and it came back by itself: no frame changes its role.
    pub deserted: bool,
    /// It has come back on another socket, and has not done the handshake.
    pub returned: bool,
    /// It was told that it has no role in an epoch in which it had been told that it follows.
    pub lost_role: bool,
    /// The last state it sent or received.
    pub last: Option<(Who, u64)>,
}

/// A session when all is quiet.
#[derive(Clone, Debug)]
pub struct Quiet {
    /// The controller according to the store.
    pub controller: Option<Who>,
    /// How many clients the store counts.
    pub clients: usize,
    /// The clients.
    pub standings: Vec<Standing>,
}

/// The record of one run.
#[derive(Debug)]
pub struct History {
    began: Instant,
    events: Mutex<Vec<Event>>,
}

impl History {
    /// Nothing has happened yet.
    pub fn new() -> Self {
        Self { began: Instant::now(), events: Mutex::default() }
    }

    /// Records an event of a client, now.
    pub fn note(&self, who: Who, what: What) {
        let mut events = self.events.lock();
        // Read under the lock, so that times and order agree.
        let at = self.began.elapsed();
        events.push(Event { at, who, what });
    }

    /// All entries so far.
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().clone()
    }
}
