//! The store of a simulated world: one Redis with one session, and what can happen to it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use gitorial_relay::ids::{Millis, NodeId};
use gitorial_relay::session::{Activity, Session};
use gitorial_relay::store::{Base, Beat, Committed, Loaded, StoreLineage, Stored, Write, WriteId};

/// The store's clock when a world begins.
const BEGAN: Millis = 1_700_000_000_000;

/// How many writes a replica may be behind.
const REPLICA_LAG: usize = 3;

/// The data of a server.
#[derive(Clone, Debug, Default)]
struct Data {
    found: Option<Stored>,
    beats: BTreeMap<NodeId, u64>,
}

/// The store.
#[derive(Debug)]
pub struct Store {
    data: Data,
    /// The data before each of the last writes, oldest first: what a replica may have.
    before: VecDeque<Data>,
    marker: u64,
    server: u64,
    since: Millis,
    /// A mutation: the store compares nothing.
    pub careless: bool,
    /// A mutation: the store does not compare the server.
    pub any_server: bool,
}

impl Store {
    pub fn new(session: Session) -> Self {
        let base = Base { write: WriteId::from_bits(0), server: server(1) };
        let found = Some(Stored { session, version: 1, base });
        let data = Data { found, beats: BTreeMap::new() };
        Self { data, before: VecDeque::new(), marker: 1, server: 1, since: 0, careless: false, any_server: false }
    }

    /// The store's time at this time of the world.
    pub fn clock(now: Millis) -> Millis {
        BEGAN + now
    }

    pub fn document(&self) -> Option<&Stored> {
        self.data.found.as_ref()
    }

    pub fn load(&self, now: Millis) -> Loaded {
        let found = self.data.found.clone().map(|stored| {
            let base = Base { server: server(self.server), ..stored.base };
            Stored { base, ..stored }
        });
        Loaded { now: Self::clock(now), server: server(self.server), found }
    }

    pub fn commit(&mut self, write: Write, now: Millis) -> Committed {
        let Some(stored) = &self.data.found else { return Committed::Missing };
        let stale = stored.base.write != write.base.write;
        let elsewhere = write.base.server != server(self.server) && !self.any_server;
        if (stale || elsewhere) && !self.careless {
            return Committed::Conflict;
        }
        self.remember();
        let Some(stored) = &mut self.data.found else { return Committed::Missing };
        stored.apply(write);
        Committed::Done { version: stored.version, now: Self::clock(now) }
    }

    /// Writes a document again, unless one is there.
    pub fn create(&mut self, session: Session, id: u128) {
        if self.data.found.is_none() {
            let base = Base { write: WriteId::from_bits(id), server: server(self.server) };
            self.data.found = Some(Stored { session, version: 1, base });
        }
    }

    pub fn touch(&mut self, node: &NodeId, activity: Activity) -> bool {
        let Some(stored) = &mut self.data.found else { return false };
        stored.session.activity.insert(node.clone(), activity);
        true
    }

    pub fn beat(&mut self, node: &NodeId, count: u64, now: Millis) -> Beat {
        self.data.beats.insert(node.clone(), count);
        Beat { now: Self::clock(now), lineage: self.lineage() }
    }

    pub fn retire(&mut self, node: &NodeId) {
        self.data.beats.remove(node);
    }

    pub fn beats(&self, nodes: &[NodeId]) -> Vec<(NodeId, Option<u64>)> {
        nodes.iter().map(|node| (node.clone(), self.data.beats.get(node).copied())).collect()
    }

    pub fn lineage(&self) -> StoreLineage {
        let server = server(self.server);
        let servers = BTreeSet::from([server.clone()]);
        StoreLineage { marker: format!("marker {}", self.marker), since: self.since, server, servers }
    }

    /// Someone deletes all keys of the running server.
    pub fn flush(&mut self, now: Millis) {
        self.data = Data::default();
        self.before.clear();
        self.marker += 1;
        self.since = Self::clock(now);
    }

    /// A server without its data takes the place of this one.
    pub fn restart_empty(&mut self, now: Millis) {
        self.flush(now);
        self.server += 1;
    }

    /// A replica takes the place of the server. `behind`: how many of the last writes it does not have.
    pub fn fail_over(&mut self, behind: usize, now: Millis) {
        for _ in 0..behind {
            if let Some(before) = self.before.pop_back() {
                self.data = before;
            }
        }
        self.before.clear();
        self.server += 1;
        self.since = Self::clock(now);
    }

    fn remember(&mut self) {
        if self.before.len() == REPLICA_LAG {
            self.before.pop_front();
        }
        self.before.push_back(self.data.clone());
    }
}

fn server(number: u64) -> String {
    format!("server {number}")
}
