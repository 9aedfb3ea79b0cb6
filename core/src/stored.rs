//! A document in the store, and a write to it. The contract of the store itself belongs to the relay.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{Millis, NodeId};
use crate::session::{Core, Roster, Session};

/// The id of one write of a session's core, so that a caller that lost the answer can see whether its own write was
/// committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WriteId(Uuid);

impl WriteId {
    /// The id with these 128 bits. The caller must not give them to another write.
    #[must_use]
    pub fn from_bits(bits: u128) -> Self {
        Self(Uuid::from_u128(bits))
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
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stored {
    /// The document.
    pub session: Session,
    /// The number of writes; a higher one is newer. A report of activity does not change it.
    pub version: u64,
    /// The base that a write has to name.
    pub base: Base,
}

impl Stored {
    /// Carries a write out. The store has compared its base before.
    pub fn apply(&mut self, write: Write) {
        (self.session.core, self.base.write) = (write.core, write.id);
        for (node, roster) in write.rosters {
            if roster.clients.is_empty() {
                self.session.rosters.remove(&node);
                self.session.activity.remove(&node);
            } else {
                self.session.rosters.insert(node, roster);
            }
        }
        self.version += 1;
    }
}

/// The origin of a document that was read: it is written only on that server, and only over that write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Base {
    /// The write that the document stems from.
    pub write: WriteId,
    /// The lineage of the server that had it. A server that takes its place may have forgotten a later write.
    pub server: String,
}

/// The answer to a read of a document.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Loaded {
    /// The store's time when it answered.
    pub now: Millis,
    /// The lineage of the server that answered: one of [`crate::trust::StoreLineage::servers`], unless it has lost data
    /// since they were read.
    pub server: String,
    /// The document; `None` if it does not exist.
    pub found: Option<Stored>,
}

/// A change of a document, written completely or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Write {
    /// The new core.
    pub core: Core,
    /// The [`Stored::base`] that it is derived from. The write is refused if another one was committed since, or if
    /// another server answers.
    pub base: Base,
    /// The rosters to write; an empty one is removed, with its node's [`crate::session::Activity`].
    pub rosters: Vec<(NodeId, Roster)>,
    /// The id of this write. It becomes that of [`Stored::base`].
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
