//! Carries frames from node to node: the contract of every broker.
//!
//! A message is addressed to a node's inbox. Messages from one node to another about one session arrive once and in the
//! order of publishing. A loss is noticed and reported to the sender as [`Delivery::Lost`], which names the sessions to resync.

mod exchange;
mod link;
mod memory;
mod redis;
mod seal;
mod wire;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::ids::{NodeId, SessionId};
use crate::region::Region;

pub use gitorial_relay_core::route::{Body, Kind, Message, Route, RoutedFrame, Target};
pub use memory::{MemoryBroker, MemoryBus};
pub use redis::RedisBroker;

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
    #[error("the channels between the nodes give no answer: {0}")]
    Unavailable(String),
    /// The channels are refused, in these words.
    #[error("the channels between the nodes are refused: {0}")]
    Refused(String),
    /// The channels can be reached, but this node's own inbox stays silent.
    #[error("this node's inbox is silent: a probe did not come back in time")]
    InboxSilent,
    /// The channels are on another server than the store, so that nodes could be divided without a sign of it.
    #[error("this node's connections are on different redis servers; they are made again")]
    Apart,
}

/// Sends to the other nodes. The constructor of a broker also returns the stream of [`Delivery`] values that this node
/// receives.
#[async_trait]
pub trait Broker: Send + Sync + fmt::Debug {
    /// Sends a message to a node's inbox. Never waits: a message that does not fit into the bounded queue is lost, and
    /// reported.
    fn publish(&self, to: &NodeId, message: Message);

    /// Sends a message to this node's own inbox for this region and waits for it, which proves that this node receives.
    async fn probe(&self, region: Region) -> Result<(), BrokerError>;

    /// Checks that the channels of this region are on the server that answers for its documents, by the name of its
    /// lineage. If one is elsewhere, they are connected again.
    ///
    /// # Errors
    ///
    /// [`BrokerError::Apart`] if a channel was elsewhere; the others if its server did not say.
    async fn follow(&self, region: Region, server: &str) -> Result<(), BrokerError>;

    /// How many messages wait to be sent.
    fn queued(&self) -> usize;

    /// Drops the data about a node that has ended, as far as they are about this region.
    fn forget(&self, region: Region, node: &NodeId);
}

/// A shared broker.
pub type SharedBroker = Arc<dyn Broker>;
