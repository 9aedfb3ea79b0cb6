//! A store in the memory of one process: for a single node, for embedding and for tests.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    Base, Beat, Committed, Loaded, RENEWAL_KEPT, Renewal, Store, StoreError, StoreLineage, Stored, Write, WriteId,
};
use crate::ids::{Millis, NodeId, SessionId};
use crate::random::Random;
use crate::region::{Region, Regions};
use crate::session::{Activity, Session};

/// The store looks for lapsed entries after this many writes, or later if it has more entries.
const PURGE_EVERY: usize = 1_024;

/// The sessions and heartbeats of one process. Clones share one store, so that several nodes of a process can use it.
#[derive(Clone)]
pub struct MemoryStore {
    inner: Arc<Inner>,
}

struct Inner {
    /// The wall clock when the store was created. From then on the store keeps its own time, which never jumps.
    born_at: Millis,
    born: Instant,
    generation: String,
    limit: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    documents: HashMap<SessionId, Kept<Stored>>,
    beats: HashMap<NodeId, Kept<u64>>,
    renewals: HashMap<NodeId, Kept<Renewal>>,
    writes_since_purge: usize,
}

struct Kept<T> {
    value: T,
    until: Millis,
}

impl<T> Kept<T> {
    fn extend(&mut self, until: Millis) {
        self.until = self.until.max(until);
    }
}

impl MemoryStore {
    /// Creates an empty store without a limit.
    #[must_use]
    pub fn new() -> Self {
        Self::with_limit(usize::MAX)
    }

    /// Creates an empty store that takes this many documents, tombstones included.
    #[must_use]
    pub fn with_limit(limit: usize) -> Self {
        let born_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis);
        let generation = format!("{:032x}", rand::random::<u128>());
        Self { inner: Arc::new(Inner { born_at, born: Instant::now(), generation, limit, state: Mutex::default() }) }
    }

    fn remembers(&self) -> StoreLineage {
        let marker = self.inner.generation.clone();
        let servers = BTreeSet::from([marker.clone()]);
        StoreLineage { server: marker.clone(), marker, since: 0, servers }
    }

    fn now(&self) -> Millis {
        self.inner.born_at + millis(self.inner.born.elapsed())
    }

    /// Runs `change` on the present state, without lapsed entries.
    fn with<T>(&self, change: impl FnOnce(&mut State, Millis) -> T) -> T {
        let now = self.now();
        change(&mut self.inner.state.lock(), now)
    }
}

impl State {
    fn document(&mut self, id: SessionId, now: Millis) -> Option<&mut Kept<Stored>> {
        self.documents.get_mut(&id).filter(|kept| now < kept.until)
    }

    /// Counts a write, and sometimes removes lapsed entries, at a cost per write that does not grow.
    fn wrote(&mut self, now: Millis) {
        self.writes_since_purge += 1;
        if self.writes_since_purge >= PURGE_EVERY.max(self.documents.len()) {
            self.purge(now);
        }
    }

    fn purge(&mut self, now: Millis) {
        self.writes_since_purge = 0;
        self.documents.retain(|_, kept| now < kept.until);
        self.beats.retain(|_, kept| now < kept.until);
        self.renewals.retain(|_, kept| now < kept.until);
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn create(&self, id: SessionId, session: &Session, keep: Duration) -> Result<Millis, StoreError> {
        let limit = self.inner.limit;
        self.with(|state, now| {
            if state.documents.len() >= limit {
                state.purge(now);
            }
            if state.documents.len() >= limit {
                return Err(StoreError::Full);
            }
            if state.document(id, now).is_some() {
                return Err(StoreError::Corrupt("the id of a new document is taken".into()));
            }
            let base = Base { write: WriteId::random(), server: self.inner.generation.clone() };
            let stored = Stored { session: session.clone(), version: 1, base };
            state.documents.insert(id, Kept { value: stored, until: now + millis(keep) });
            state.wrote(now);
            Ok(now)
        })
    }

    async fn load(&self, id: SessionId) -> Result<Loaded, StoreError> {
        self.with(|state, now| {
            let found = state.document(id, now).map(|kept| kept.value.clone());
            Ok(Loaded { now, server: self.inner.generation.clone(), found })
        })
    }

    async fn commit(&self, id: SessionId, write: Write) -> Result<Committed, StoreError> {
        self.with(|state, now| {
            let Some(kept) = state.document(id, now) else { return Ok(Committed::Missing) };
            if kept.value.base != write.base {
                return Ok(Committed::Conflict);
            }
            kept.extend(now + millis(write.keep));
            kept.value.apply(write);
            let version = kept.value.version;
            state.wrote(now);
            Ok(Committed::Done { version, now })
        })
    }

    async fn touch(
        &self,
        id: SessionId,
        node: &NodeId,
        activity: Activity,
        keep: Duration,
    ) -> Result<bool, StoreError> {
        self.with(|state, now| {
            let Some(kept) = state.document(id, now) else { return Ok(false) };
            kept.value.session.activity.insert(node.clone(), activity);
            kept.extend(now + millis(keep));
            Ok(true)
        })
    }

    async fn list(&self, limit: usize) -> Result<Vec<SessionId>, StoreError> {
        self.with(|state, now| {
            let living = state.documents.iter().filter(|(_, kept)| now < kept.until);
            Ok(living.map(|(id, _)| *id).take(limit).collect())
        })
    }

    fn regions(&self) -> Regions {
        Regions::ONE
    }

    async fn beat(
        &self,
        _: Region,
        node: &NodeId,
        count: u64,
        renewal: Renewal,
        keep: Duration,
    ) -> Result<Beat, StoreError> {
        self.with(|state, now| {
            state.renewals.insert(node.clone(), Kept { value: renewal, until: now + millis(RENEWAL_KEPT) });
            state.beats.insert(node.clone(), Kept { value: count, until: now + millis(keep) });
            state.wrote(now);
            Ok(Beat { now, lineage: self.remembers() })
        })
    }

    async fn lineage(&self, _: Region) -> Result<StoreLineage, StoreError> {
        Ok(self.remembers())
    }

    async fn beats(&self, _: Region, nodes: &[NodeId]) -> Result<Vec<Option<u64>>, StoreError> {
        self.with(|state, now| {
            let beat = |node| state.beats.get(node).filter(|kept| now < kept.until).map(|kept| kept.value);
            Ok(nodes.iter().map(beat).collect())
        })
    }

    async fn renewals(&self, _: Region, nodes: &[NodeId]) -> Result<Vec<Option<Renewal>>, StoreError> {
        self.with(|state, now| {
            let last = |node| state.renewals.get(node).filter(|kept| now < kept.until).map(|kept| kept.value);
            Ok(nodes.iter().map(last).collect())
        })
    }

    async fn retire(&self, _: Region, node: &NodeId) -> Result<(), StoreError> {
        self.with(|state, _| state.beats.remove(node));
        Ok(())
    }

    async fn time(&self, _: Region) -> Result<Millis, StoreError> {
        Ok(self.now())
    }
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX / 4)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::session::{Info, Strategy};

    #[tokio::test(start_paused = true)]
    async fn later_writes_remove_expired_entries() {
        let store = MemoryStore::new();
        let info = Info { created_at: 0, ttl: 1, ends_at: 1, strategy: Strategy::default(), metadata: None };
        let session = Session::new(Arc::new(info));
        for _ in 0..PURGE_EVERY {
            store.create(SessionId::random(), &session, Duration::from_secs(1)).await.expect("memory answers");
        }
        tokio::time::advance(Duration::from_secs(2)).await;
        let renewal = Renewal { machine: None, began: 0, at: 0 };
        let region = Regions::ONE.iter().next().expect("one");
        for _ in 0..PURGE_EVERY {
            store
                .beat(region, &NodeId::from_text("a@1"), 1, renewal, Duration::from_secs(1))
                .await
                .expect("memory answers");
        }
        assert_eq!(store.inner.state.lock().documents.len(), 0);
    }
}
