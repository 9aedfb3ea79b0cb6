//! The session documents and the nodes' heartbeats: the contract of every store.
//!
//! A store compares, sets and tells the time. It knows no rules of the protocol; they are in [`crate::control`]. The data
//! that it takes and gives is the core's ([`crate::stored`]).

mod keys;
mod memory;
mod primaries;
mod redis;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::ids::{Millis, NodeId, SessionId};
use crate::region::{Region, Regions};
use crate::session::{Activity, Core, Info, Session};

pub use gitorial_relay_core::stored::{Base, Committed, Loaded, Stored, Write, WriteId};
pub use gitorial_relay_core::trust::{Renewal, StoreLineage};
pub use memory::MemoryStore;
pub use redis::RedisStore;

/// How long a store keeps a node's last renewal: a node that starts on the same machine may ask when its predecessor
/// ended.
pub const RENEWAL_KEPT: Duration = Duration::from_secs(60 * 60);

/// An answer to [`Store::beat`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// The store's time.
    pub now: Millis,
    /// The lineage of the store.
    pub lineage: StoreLineage,
}

/// The reason why a store gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be reached, or did not answer in time. The operation may have been done all the same.
    #[error("the store gives no answer: {0}")]
    Unavailable(String),
    /// The store answered no, in these words. The operation may have been done in part.
    #[error("the store refuses: {0}")]
    Refused(String),
    /// The store takes no more documents: it holds its largest number, or its memory is nearly full.
    #[error("the store is full: it takes no more sessions")]
    Full,
    /// The store answered with data that this relay does not write.
    #[error("the store holds something this relay cannot read: {0}")]
    Corrupt(String),
}

/// Session documents and node heartbeats, shared by all nodes. Every method may be called from any task at any time.
///
/// Errors: [`StoreError::Unavailable`] and [`StoreError::Refused`] leave the outcome open, so every caller must be able to retry.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// Writes a new document under an unused id. Returns the store's time.
    async fn create(&self, id: SessionId, session: &Session, keep: Duration) -> Result<Millis, StoreError>;

    /// Reads a document, and the store's time.
    async fn load(&self, id: SessionId) -> Result<Loaded, StoreError>;

    /// Changes a document: the core (if the expected one is still there) and rosters in one step.
    async fn commit(&self, id: SessionId, write: Write) -> Result<Committed, StoreError>;

    /// Records the activity of a node's clients, without a new version. Returns `false` if the document does not exist.
    async fn touch(&self, id: SessionId, node: &NodeId, activity: Activity, keep: Duration)
    -> Result<bool, StoreError>;

    /// The ids of at most `limit` documents, tombstones included, in no particular order.
    async fn list(&self, limit: usize) -> Result<Vec<SessionId>, StoreError>;

    /// How many regions the sessions are divided into. A region fails apart from the others, so all below is about one.
    fn regions(&self) -> Regions;

    /// Writes a node's heartbeat and keeps it for `keep`. The heartbeat is a number that the node raises each time.
    /// `renewal`, which it is for, is kept for [`RENEWAL_KEPT`]. Returns only when the configured replicas have both.
    async fn beat(
        &self,
        region: Region,
        node: &NodeId,
        count: u64,
        renewal: Renewal,
        keep: Duration,
    ) -> Result<Beat, StoreError>;

    /// Connects again to the region's server, because the channels between the nodes are on another one.
    fn reconnect(&self, _: Region) {}

    /// The lineage of the region's data.
    async fn lineage(&self, region: Region) -> Result<StoreLineage, StoreError>;

    /// The last heartbeat of each node; `None` for a node without one.
    async fn beats(&self, region: Region, nodes: &[NodeId]) -> Result<Vec<Option<u64>>, StoreError>;

    /// The last renewal of each node.
    async fn renewals(&self, region: Region, nodes: &[NodeId]) -> Result<Vec<Option<Renewal>>, StoreError>;

    /// Removes the heartbeat of a node that has ended in order.
    async fn retire(&self, region: Region, node: &NodeId) -> Result<(), StoreError>;

    /// The time of the region's server.
    async fn time(&self, region: Region) -> Result<Millis, StoreError>;
}

/// A shared store.
pub type SharedStore = Arc<dyn Store>;

/// Builds a session from its fixed part and its core, for stores that keep the two as separate fields.
pub(crate) fn whole(info: Info, core: Core) -> Session {
    let mut session = Session::new(Arc::new(info));
    session.core = core;
    session
}
