//! Where the session documents and the nodes' heartbeats live: the contract that every store keeps.
//!
//! A store compares, sets and tells the time. It knows no rule of the protocol: [`crate::control`] has those.

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
use crate::session::{Activity, Core, Info, Roster, Session};

pub use memory::MemoryStore;
pub use redis::RedisStore;

/// Names one write of a session's core, so that a caller who lost the answer can see whether it was its own that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WriteId(Uuid);

impl WriteId {
    /// A fresh id.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// The id as text, for a store that keeps text.
    #[must_use]
    pub fn to_text(self) -> String {
        self.0.simple().to_string()
    }

    /// The id that [`WriteId::to_text`] wrote.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().map(Self)
    }
}

/// A document as it stands in the store.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The document.
    pub session: Session,
    /// Counts the writes of core and rosters; a higher one is newer. [`Store::touch`] does not change it.
    pub version: u64,
    /// What a change of the core has to name.
    pub base: Base,
}

/// Where a core was read: a new one is written only there, and only over that one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// The write that the core stems from.
    pub write: WriteId,
    /// The server that had it: one that takes its place may have forgotten a later write.
    pub server: String,
}

/// An answer to [`Store::load`].
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The store's time when it answered.
    pub now: Millis,
    /// The server that answered: one of [`StoreLineage::servers`], unless it has forgotten something since they were named.
    pub server: String,
    /// The document, unless there is none.
    pub found: Option<Stored>,
}

/// A change of a document, written whole or not at all.
#[derive(Clone, Debug)]
pub struct Write {
    /// The new core and the [`Stored::base`] it was derived from: refused if another core was written since, or if
    /// another server answers. `None` leaves the core alone and is never refused.
    pub core: Option<(Core, Base)>,
    /// The rosters to write; an empty one is removed, with its node's [`Activity`].
    pub rosters: Vec<(NodeId, Roster)>,
    /// The name of this write, which becomes that of [`Stored::base`] if it has a core.
    pub id: WriteId,
    /// How long the store keeps the document if nothing else is written.
    pub keep: Duration,
}

/// What became of a [`Write`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// It stands.
    Done {
        /// The document's version now.
        version: u64,
        /// The store's time.
        now: Millis,
    },
    /// Somebody else changed the core first, or another server answers: load, decide again, write again.
    Conflict,
    /// There is no such document.
    Missing,
}

/// An answer to [`Store::beat`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// The store's time.
    pub now: Millis,
    /// What the store remembers.
    pub lineage: StoreLineage,
}

/// Names what a store remembers. It changes whenever the store may have forgotten something that it had confirmed: it
/// came back empty, or from what it had saved, or a replica took its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreLineage {
    /// Names everything since the store was last empty.
    pub marker: String,
    /// Since when it can have forgotten nothing, in the store's time: since it was last empty, or since another server
    /// answers for documents. Zero if nobody but this process can have known it before.
    pub since: Millis,
    /// The memories of the servers that answer for documents, by name.
    pub servers: BTreeSet<String>,
}

/// Why a store gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be reached, or did not answer in time. What was asked may have happened all the same.
    #[error("the store cannot be reached: {0}")]
    Unavailable(String),
    /// The embedded store holds as many documents as it may.
    #[error("the embedded store is full")]
    Full,
    /// The store answered, but not with what this relay writes.
    #[error("the store holds something this relay cannot read: {0}")]
    Corrupt(String),
}

/// Session documents and node heartbeats. Shared by all nodes; every method may be called from any task at any time.
///
/// Errors: [`StoreError::Unavailable`] leaves the outcome open, so every caller must be able to ask again.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// Writes a new document, named by an id nobody has used. Returns the store's time.
    async fn create(&self, id: SessionId, session: &Session, keep: Duration) -> Result<Millis, StoreError>;

    /// Reads a document, and the store's time.
    async fn load(&self, id: SessionId) -> Result<Loaded, StoreError>;

    /// Changes a document: core (if the expected one still stands) and rosters in one step.
    async fn commit(&self, id: SessionId, write: Write) -> Result<Committed, StoreError>;

    /// Notes what a node's clients did, without a new version. `false`: there is no such document.
    async fn touch(&self, id: SessionId, node: &NodeId, activity: Activity, keep: Duration)
    -> Result<bool, StoreError>;

    /// The ids of at most `limit` documents, tombstones included, in no particular order.
    async fn list(&self, limit: usize) -> Result<Vec<SessionId>, StoreError>;

    /// Writes a node's heartbeat, kept for `keep`: a number that the node raises each time. Returns only when the
    /// configured replicas have it.
    async fn beat(&self, node: &NodeId, count: u64, keep: Duration) -> Result<Beat, StoreError>;

    /// What the store remembers.
    async fn lineage(&self) -> Result<StoreLineage, StoreError>;

    /// The last heartbeat of each node, `None` where there is none.
    async fn beats(&self, nodes: &[NodeId]) -> Result<Vec<Option<u64>>, StoreError>;

    /// Removes a node's heartbeat: it has ended in good order.
    async fn retire(&self, node: &NodeId) -> Result<(), StoreError>;

    /// The store's time.
    async fn time(&self) -> Result<Millis, StoreError>;
}

/// A store as its users hold it.
pub type SharedStore = Arc<dyn Store>;

/// The fixed part of a document, for stores that keep it as a field of its own.
pub(crate) fn whole(info: Info, core: Core) -> Session {
    let mut session = Session::new(Arc::new(info));
    session.core = core;
    session
}
