//! The session documents and the nodes' heartbeats: the contract of every store.
//!
//! A store compares, sets and tells the time. It knows no rules of the protocol; they are in [`crate::control`].

mod memory;
mod redis;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{Millis, NodeId, SessionId};
use crate::random;
use crate::session::{Activity, Core, Info, Roster, Session};

pub use memory::MemoryStore;
pub use redis::RedisStore;

/// The id of one write of a session's core, so that a caller that lost the answer can see whether its own write was
/// committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WriteId(Uuid);

impl WriteId {
    /// Returns a new id.
    #[must_use]
    pub fn random() -> Self {
        Self(random::uuid())
    }

    /// The id as text, for a store that keeps text.
    #[must_use]
    pub fn to_text(self) -> String {
        self.0.simple().to_string()
    }

    /// Parses the text of [`WriteId::to_text`].
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().map(Self)
    }
}

/// A document as it is in the store.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The document.
    pub session: Session,
    /// The number of writes of core and rosters; a higher one is newer. [`Store::touch`] does not change it.
    pub version: u64,
    /// The base that a change of the core has to name.
    pub base: Base,
}

/// The origin of a core that was read: a new core is written only on that server, and only over that core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// The write that created the core.
    pub write: WriteId,
    /// The lineage of the server that had it. A server that takes its place may have forgotten a later write.
    pub server: String,
}

/// An answer to [`Store::load`].
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The store's time when it answered.
    pub now: Millis,
    /// The lineage of the server that answered: one of [`StoreLineage::servers`], unless it has lost data since they
    /// were read.
    pub server: String,
    /// The document; `None` if it does not exist.
    pub found: Option<Stored>,
}

/// A change of a document, written completely or not at all.
#[derive(Clone, Debug)]
pub struct Write {
    /// The new core, and the [`Stored::base`] that it is derived from. The write is refused if another core was written
    /// since, or if another server answers. `None` leaves the core alone and is never refused.
    pub core: Option<(Core, Base)>,
    /// The rosters to write; an empty one is removed, with its node's [`Activity`].
    pub rosters: Vec<(NodeId, Roster)>,
    /// The id of this write. It becomes that of [`Stored::base`] if the write has a core.
    pub id: WriteId,
    /// How long the store keeps the document without another write.
    pub keep: Duration,
}

/// The result of a [`Write`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// The write is committed.
    Done {
        /// The new version of the document.
        version: u64,
        /// The store's time.
        now: Millis,
    },
    /// Another writer changed the core first, or another server answers: load, decide again, write again.
    Conflict,
    /// The document does not exist.
    Missing,
}

/// An answer to [`Store::beat`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// The store's time.
    pub now: Millis,
    /// The lineage of the store.
    pub lineage: StoreLineage,
}

/// The identity of a store's data. It changes whenever the store may have lost something that it had confirmed: after
/// it came back empty or from a snapshot, or after a replica took its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreLineage {
    /// The id of all data since the store was last empty.
    pub marker: String,
    /// The time since when the store cannot have lost data, in the store's time: since it was last empty, or since
    /// another server answers for documents. Zero if only this process can have known it before.
    pub since: Millis,
    /// The lineages of the servers that answer for documents, by name.
    pub servers: BTreeSet<String>,
}

/// The reason why a store gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be reached, or did not answer in time. The operation may have been done all the same.
    #[error("the store cannot be reached: {0}")]
    Unavailable(String),
    /// The embedded store holds its largest number of documents.
    #[error("the embedded store is full")]
    Full,
    /// The store answered with data that this relay does not write.
    #[error("the store holds something this relay cannot read: {0}")]
    Corrupt(String),
}

/// Session documents and node heartbeats, shared by all nodes. Every method may be called from any task at any time.
///
/// Errors: [`StoreError::Unavailable`] leaves the outcome open, so every caller must be able to retry.
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

    /// Writes a node's heartbeat and keeps it for `keep`. The heartbeat is a number that the node raises each time.
    /// Returns only when the configured replicas have it.
    async fn beat(&self, node: &NodeId, count: u64, keep: Duration) -> Result<Beat, StoreError>;

    /// The lineage of the store.
    async fn lineage(&self) -> Result<StoreLineage, StoreError>;

    /// The last heartbeat of each node; `None` for a node without one.
    async fn beats(&self, nodes: &[NodeId]) -> Result<Vec<Option<u64>>, StoreError>;

    /// Removes the heartbeat of a node that has ended in order.
    async fn retire(&self, node: &NodeId) -> Result<(), StoreError>;

    /// The store's time.
    async fn time(&self) -> Result<Millis, StoreError>;
}

/// A shared store.
pub type SharedStore = Arc<dyn Store>;

/// Builds a session from its fixed part and its core, for stores that keep the two as separate fields.
pub(crate) fn whole(info: Info, core: Core) -> Session {
    let mut session = Session::new(Arc::new(info));
    session.core = core;
    session
}
