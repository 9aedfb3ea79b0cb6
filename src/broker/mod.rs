//! Carries frames from node to node: the contract of every broker.
//!
//! A message is addressed to a node's inbox. Messages from one node to another arrive once and in the order of
//! publishing. A loss is noticed and reported to the sender as [`Delivery::Lost`], which names the sessions to resync.

mod exchange;
mod link;
mod memory;
mod redis;
mod wire;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::{ConnectionId, Epoch, NodeId, Seq, SessionId};

pub use memory::{MemoryBroker, MemoryBus};
pub use redis::RedisBroker;

/// A message from one node to another about one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The session.
    pub session: SessionId,
    /// The content.
    pub body: Body,
}

/// The content of a [`Message`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// The document has changed, up to this version, and has to be read.
    Changed {
        /// [`crate::store::Stored::version`].
        version: u64,
    },
    /// A frame for clients of the receiving node.
    Frame(RoutedFrame),
    /// The hashes of the states that passed recently, oldest first, for a node that is new to the session.
    RecentStates(Vec<u64>),
}

/// A client's frame on its way to clients of another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutedFrame {
    /// The sender, epoch, order and receivers.
    pub route: Route,
    /// The frame as its sender wrote it: one JSON object, UTF-8.
    pub text: Bytes,
}

/// The routing data of a [`RoutedFrame`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// All clients of the session except the source.
    Others,
    /// These sockets.
    Only(Vec<ConnectionId>),
}

/// The kind of a frame, so that a receiving node need not read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// An event that a broker delivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// A message from another node.
    Message {
        /// The sender.
        from: NodeId,
        /// The message.
        message: Message,
    },
    /// Messages from this node to `to` were lost.
    Lost {
        /// The node that misses them.
        to: NodeId,
        /// The sessions of these messages; `None` if they are not known any more, so that any session may be concerned.
        sessions: Option<Vec<SessionId>>,
    },
}

/// The reason why the broker could not prove that it delivers.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The channels cannot be reached.
    #[error("the channels between the nodes cannot be reached: {0}")]
    Unavailable(String),
    /// The channels can be reached, but this node's own inbox stays silent.
    #[error("this node's inbox is silent: a probe did not come back in time")]
    InboxSilent,
}

/// Sends to the other nodes. The constructor of a broker also returns the stream of [`Delivery`] values that this node
/// receives.
#[async_trait]
pub trait Broker: Send + Sync + fmt::Debug {
    /// Sends a message to a node's inbox. Never waits: a message that does not fit into the bounded queue is lost, and
    /// reported.
    fn publish(&self, to: &NodeId, message: Message);

    /// Sends a message to this node's own inbox and waits for it, which proves that this node receives.
    async fn probe(&self) -> Result<(), BrokerError>;

    /// How many messages wait to be sent.
    fn queued(&self) -> usize;

    /// Drops the data about a node that has ended.
    fn forget(&self, node: &NodeId);
}

/// A shared broker.
pub type SharedBroker = Arc<dyn Broker>;
