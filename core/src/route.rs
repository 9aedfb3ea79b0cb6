//! Messages between nodes: what a node publishes to the inbox of another.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::{ConnectionId, Epoch, Seq, SessionId};

/// A message from one node to another about one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The session.
    pub session: SessionId,
    /// The content.
    pub body: Body,
}

/// The content of a [`Message`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Body {
    /// The document has changed, up to this version, and has to be read.
    Changed {
        /// [`crate::stored::Stored::version`].
        version: u64,
    },
    /// A frame for clients of the receiving node.
    Frame(RoutedFrame),
    /// The hashes of the states that passed recently, oldest first, for a node that is new to the session.
    RecentStates(Vec<u64>),
}

/// A client's frame on its way to clients of another node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RoutedFrame {
    /// The sender, epoch, order and receivers.
    pub route: Route,
    /// The frame as its sender wrote it: one JSON object, UTF-8.
    pub text: Bytes,
}

/// The routing data of a [`RoutedFrame`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Route {
    /// The sender's socket.
    pub source: ConnectionId,
    /// The epoch in which it was let through.
    pub epoch: Epoch,
    /// The frame's number among the frames of `source`.
    pub seq: Seq,
    /// The hash of the state in the frame; zero if it has none.
    pub state_hash: u64,
    /// The receivers.
    pub target: Target,
    /// How the receiving node treats the frame.
    pub kind: Kind,
}

/// The clients of the receiving node that get a frame.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Target {
    /// All clients of the session except the source.
    Others,
    /// These sockets.
    Only(Vec<ConnectionId>),
}

impl Target {
    /// Whether this socket is among the receivers.
    #[must_use]
    pub fn includes(&self, connection: ConnectionId) -> bool {
        match self {
            Self::Others => true,
            Self::Only(connections) => connections.contains(&connection),
        }
    }
}

/// The kind of a frame, so that a receiving node need not read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A state of the ACTIVE client, or an initial push. A newer one of the same source may replace it in a queue.
    State,
    /// A state that answers the receiver's `request_sync`.
    Answer,
    /// A `request_sync`; the answers go back to its source.
    RequestSync,
    /// An `accept_control`. The client that loses control gets it together with its loss.
    Accept,
    /// A `release_control`, sent together with the end of its epoch.
    Release,
    /// Any other frame, forwarded as it is.
    Other,
}
