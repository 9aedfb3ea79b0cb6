//! Sessions as the HTTP API and an embedding application see them (docs/protocol.md, "Sessions").

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use super::driver::Input;
use super::{Relay, RelayEvent};
use crate::ids::{Millis, SessionId};
use crate::metrics::Refusal;
use crate::protocol::SessionData;
use crate::random::Random;
use crate::room::{Reply, keep};
use crate::session::{Info, Session, Status, Strategy};
use crate::store::StoreError;

/// The largest number of sessions in a list.
const MAX_LISTED: usize = 1000;

/// The options for a new session.
#[derive(Clone, Debug, Default)]
pub struct NewSession {
    /// Any JSON, kept as it was written.
    pub metadata: Option<Arc<RawValue>>,
    /// How long the session lives without activity, at most the longest lifetime that this relay allows.
    pub expires_in: Option<Duration>,
    /// How claims are decided.
    pub strategy: Option<Strategy>,
}

/// The reason why a session could not be created, read or deleted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RelayError {
    /// The store cannot be used now.
    #[error("the store cannot be used now")]
    Unavailable,
    /// The store refused, in these words.
    #[error("the store refuses: {0}")]
    Refused(String),
    /// The node is not ready, for this reason ([`Relay::why`]).
    #[error("{0}")]
    NotReady(String),
    /// The store is full.
    #[error("the store is full: it takes no more sessions")]
    TooManySessions,
    /// An internal error of the relay.
    #[error("internal error")]
    Internal,
}

impl From<StoreError> for RelayError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::Unavailable,
            StoreError::Refused(words) => Self::Refused(words),
            StoreError::Full => Self::TooManySessions,
            StoreError::Corrupt(_) => Self::Internal,
        }
    }
}

/// The numbers of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Open sockets on this node.
    pub connections: u64,
    /// Sessions with a socket on this node.
    pub sessions: usize,
}

impl Relay {
    /// Creates a session under a fresh id.
    ///
    /// # Errors
    ///
    /// [`RelayError`] if the node has no lease, or if the store cannot be reached, refuses or is full.
    pub async fn create_session(&self, new: NewSession) -> Result<SessionData, RelayError> {
        // A node without a lease would close the sockets of the new session. A draining node still creates sessions,
        // because its balancer may not have noticed yet, and other nodes serve them.
        if self.driver.presence.term().is_none() {
            self.driver.metrics.refused_session(Refusal::NotReady);
            return Err(RelayError::NotReady(self.why()));
        }
        let settings = &self.driver.settings;
        let created_at = self.driver.store.time().await.map_err(noted)?;
        let longest = settings.session_max_lifetime;
        let info = Info {
            created_at,
            ttl: millis(new.expires_in.unwrap_or(settings.session_ttl).min(longest)),
            ends_at: created_at.saturating_add(millis(longest)),
            strategy: new.strategy.unwrap_or(settings.strategy),
            metadata: new.metadata,
        };
        let (id, session) = (SessionId::random(), Session::new(Arc::new(info)));
        let write = self.driver.store.create(id, &session, keep(&session, created_at));
        match write.await {
            // A full store may be asked very often, so that is counted and not logged.
            Err(StoreError::Full) => {
                self.driver.metrics.refused_session(Refusal::Full);
                return Err(RelayError::TooManySessions);
            }
            written => written.map_err(noted)?,
        };
        self.driver.emit(RelayEvent::SessionCreated(id));
        tracing::debug!(session = id.tag(), "session created");
        Ok(SessionData::of(id, &session, created_at))
    }

    /// Reads a session. Returns `None` if it is unknown, has expired or was deleted.
    ///
    /// # Errors
    ///
    /// [`RelayError::Unavailable`] if the store cannot be reached, or has lost its data so recently that the session
    /// may still be restored.
    pub async fn session(&self, id: SessionId) -> Result<Option<SessionData>, RelayError> {
        let loaded = self.driver.store.load(id).await.map_err(noted)?;
        self.driver.clock.set_store(loaded.now);
        self.driver.presence.heard_from(&loaded.server);
        match loaded.found {
            None if self.driver.presence.may_have_lost_data() => Err(RelayError::Unavailable),
            None => Ok(None),
            Some(stored) if stored.session.status_at(loaded.now) != Status::Active => Ok(None),
            Some(stored) => Ok(Some(SessionData::of(id, &stored.session, loaded.now))),
        }
    }

    /// Reads at most a thousand live sessions, in no particular order.
    ///
    /// # Errors
    ///
    /// [`RelayError::Unavailable`] if the store cannot be reached.
    pub async fn sessions(&self) -> Result<Vec<SessionData>, RelayError> {
        let mut sessions = Vec::new();
        for id in self.driver.store.list(MAX_LISTED).await.map_err(noted)? {
            sessions.extend(self.session(id).await?);
        }
        Ok(sessions)
    }

    /// Ends a session for good; its sockets on every node are closed. Returns `false` if there was no such session.
    ///
    /// # Errors
    ///
    /// [`RelayError::Unavailable`] if the store cannot be reached. The result is then unknown, and a retry is safe.
    pub async fn delete_session(&self, id: SessionId) -> Result<bool, RelayError> {
        // A tombstone counts as deleted.
        if self.session(id).await?.is_none() {
            return Ok(false);
        }
        match self.driver.submit(id, |_, ticket| Input::Delete { ticket }).get().await {
            Reply::Missing => Ok(false),
            Reply::Unavailable => Err(RelayError::Unavailable),
            Reply::Done | Reply::Joined { .. } | Reply::Closed(_) => {
                self.driver.emit(RelayEvent::SessionDeleted(id));
                Ok(true)
            }
        }
    }

    /// The numbers of this node.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats { connections: self.connections(), sessions: self.driver.hub.len() }
    }
}

fn noted(error: StoreError) -> RelayError {
    tracing::warn!(%error, "a session could not be read or written");
    error.into()
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}
