//! Carries frames from node to node: the contract that every broker keeps.
//!
//! A message is addressed to a node's inbox. From one node to another messages arrive in the order they were published,
//! once; what is lost is noticed and reported to its sender as [`Delivery::Lost`], which says which sessions to mend.

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

/// Something a node tells another about one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The session.
    pub session: SessionId,
    /// What.
    pub body: Body,
}

/// What a [`Message`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// The document has changed, up to this version: read it.
    Changed {
        /// [`crate::store::Stored::version`].
        version: u64,
    },
    /// A frame for clients of the receiving node.
    Frame(RoutedFrame),
    /// The hashes of the states that passed lately, oldest first, for a node that is new to the session.
    RecentStates(Vec<u64>),
}

/// A client's frame on its way to clients of another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutedFrame {
    /// Who, when and what for.
    pub route: Route,
    /// The frame as its sender wrote it: one JSON object, UTF-8.
    pub text: Bytes,
}

/// The address label of a [`RoutedFrame`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The sender's socket.
    pub source: ConnectionId,
    /// The epoch it was let through in.
    pub epoch: Epoch,
    /// Its number among the frames of `source`.
    pub seq: Seq,
    /// The hash of the state in it; zero if it is none.
    pub state_hash: u64,
    /// For whom.
    pub target: Target,
    /// How it is to be treated.
    pub kind: Kind,
}

/// For whom of the receiving node's clients a frame is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// All of the session but its source.
    Others,
    /// These sockets.
    Only(Vec<ConnectionId>),
}

/// What a receiving node has to know of a frame without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A state of the ACTIVE client, or an initial push: a newer one of the same source may replace it in a queue.
    State,
    /// A state that answers the target's `request_sync`.
    Answer,
    /// A `request_sync`: its answers go back to its source.
    RequestSync,
    /// An `accept_control`, told to the client that it takes control from when that client is told of its loss.
    Accept,
    /// A `release_control`, told together with the end of its epoch.
    Release,
    /// Anything else: passed on as it is.
    Other,
}

/// What comes out of a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// A message of another node.
    Message {
        /// Whose.
        from: NodeId,
        /// What.
        message: Message,
    },
    /// Messages from this node to `to` did not arrive.
    Lost {
        /// Who misses them.
        to: NodeId,
        /// The sessions they were about; `None` when that is not known any more and any session may be meant.
        sessions: Option<Vec<SessionId>>,
    },
}

/// Why the broker could not prove that it delivers.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The channels cannot be reached.
    #[error("the channels between the nodes cannot be reached: {0}")]
    Unavailable(String),
    /// They can, but this node's own inbox stays silent.
    #[error("this node's inbox is silent: a probe did not come back in time")]
    InboxSilent,
}

/// The way out to the other nodes. Its way in is the stream of [`Delivery`] that its constructor returns.
#[async_trait]
pub trait Broker: Send + Sync + fmt::Debug {
    /// Sends a message to a node's inbox. Never waits: what does not fit into the bounded queue is lost, and reported.
    fn publish(&self, to: &NodeId, message: Message);

    /// Sends a message through this node's own inbox and waits for it: proof that this node hears.
    async fn probe(&self) -> Result<(), BrokerError>;

    /// How many messages wait to be sent.
    fn queued(&self) -> usize;

    /// Drops what is remembered of a node that has ended.
    fn forget(&self, node: &NodeId);
}

/// A broker as its users hold it.
pub type SharedBroker = Arc<dyn Broker>;
