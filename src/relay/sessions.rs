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
use crate::region::Region;
use crate::room::{Reply, keep};
use crate::session::{Info, Session, Status, Strategy};
use crate::store::StoreError;

/// How many ids are drawn to find one in a region that can be tried.
const MAX_DRAWS: usize = 1000;
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
    /// Creates a session under a fresh id. If the region of this id cannot take it, another one is tried.
    ///
    /// # Errors
    ///
    /// [`RelayError`] if the node has no lease, or if the store cannot be reached, refuses or is full.
    pub async fn create_session(&self, new: NewSession) -> Result<SessionData, RelayError> {
        let mut refused = None;
        let mut tried = Vec::new();
        // As long as most of the regions are there, one of them is found.
        while tried.len() <= self.driver.regions.division().count() / 2 {
            let Some(id) = self.free_id(&tried) else { break };
            match self.create(id, &new).await {
                Ok(data) => return Ok(data),
                Err(error) => refused = Some(error),
            }
            tried.push(self.driver.regions.division().of(id));
        }
        match refused {
            None => {
                self.driver.metrics.refused_session(Refusal::NotReady);
                Err(RelayError::NotReady(self.why()))
            }
            // A full store may be asked very often, so that is counted and not logged.
            Some(StoreError::Full) => {
                self.driver.metrics.refused_session(Refusal::Full);
                Err(RelayError::TooManySessions)
            }
            Some(error) => Err(noted(error)),
        }
    }

    /// A fresh id in a region that was not tried, and of which the node has the lease: without it the node would close
    /// the sockets of the new session. A draining node still creates sessions, because its balancer may not have noticed
    /// yet, and other nodes serve them.
    fn free_id(&self, tried: &[Region]) -> Option<SessionId> {
        let (regions, held) = (self.driver.regions.division(), &self.driver.regions);
        let is_free = |region: &Region| held.at(*region).presence.term().is_some() && !tried.contains(region);
        let is_well = |region: &Region| held.at(*region).trouble.lock().is_none();
        let mut free: Vec<Region> = regions.iter().filter(is_free).collect();
        if free.iter().any(is_well) {
            free.retain(is_well);
        }
        // Every region has the same chance, so this ends soon.
        let ids = std::iter::repeat_with(SessionId::random).take(MAX_DRAWS);
        if free.is_empty() { None } else { ids.into_iter().find(|id| free.contains(&regions.of(*id))) }
    }

    async fn create(&self, id: SessionId, new: &NewSession) -> Result<SessionData, StoreError> {
        let settings = &self.driver.settings;
        let created_at = self.driver.store.time(self.driver.regions.division().of(id)).await?;
        let longest = settings.session_max_lifetime;
        let info = Info {
            created_at,
            ttl: millis(new.expires_in.unwrap_or(settings.session_ttl).min(longest)),
            ends_at: created_at.saturating_add(millis(longest)),
            strategy: new.strategy.unwrap_or(settings.strategy),
            metadata: new.metadata.clone(),
        };
        let session = Session::new(Arc::new(info));
        self.driver.store.create(id, &session, keep(&session, created_at)).await?;
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
        let presence = &self.driver.regions.of(id).presence;
        presence.heard_from(&loaded.server);
        match loaded.found {
            None if presence.may_have_lost_data() => Err(RelayError::Unavailable),
            None => Ok(None),
            Some(stored) if stored.session.status_at(loaded.now) != Status::Active => Ok(None),
            Some(stored) => Ok(Some(SessionData::of(id, &stored.session, loaded.now))),
        }
    }

    /// Reads at most a thousand live sessions, in no particular order. Those of a region that is away are left out.
    ///
    /// # Errors
    ///
    /// [`RelayError::Unavailable`] if the store cannot be reached.
    pub async fn sessions(&self) -> Result<Vec<SessionData>, RelayError> {
        let mut sessions = Vec::new();
        for id in self.driver.store.list(MAX_LISTED).await.map_err(noted)? {
            match self.session(id).await {
                // Its region has gone away meanwhile; the others have not.
                Err(_)
                    if self.driver.regions.of(id).presence.term().is_none() && !self.driver.regions.are_all_away() => {}
                found => sessions.extend(found?),
            }
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
