//! The store of the model: it compares and swaps, and it loses answers and data.

use std::collections::BTreeSet;
use std::sync::Arc;

use gitorial_relay::ids::{ConnectionId, Epoch};
use gitorial_relay::session::{Session, Status};
use gitorial_relay::stored::{Base, Committed, Stored, Write, WriteId};
use gitorial_relay::trust::StoreLineage;

use super::check::Check;
use super::marks::Mark;
use super::names::{millis, node_id};
use super::node::Stage;
use super::scene::Broken;
use super::world::{Part, Pending, Store, World};

impl Store {
    pub fn new(nodes: usize) -> Self {
        let lineage = Part::of(lineage(1, 1, 0));
        Self { found: None, replica: None, forgotten: None, beats: vec![None; nodes], lineage, server: 1, writes: 0 }
    }

    pub fn server_name(&self) -> String {
        format!("server {}", self.server)
    }

    /// The document and the controller's grant in it.
    fn grant(stored: Option<&Part<Stored>>) -> Option<(Epoch, ConnectionId)> {
        grant(&stored?.session)
    }

    /// The store comes back empty, under its old name.
    pub fn forget(&mut self, now: u8) {
        (self.found, self.replica) = (None, None);
        self.lineage = Part::of(lineage(2, self.server, now));
        self.beats.fill(None);
    }

    /// A replica takes over.
    pub fn fail_over(&mut self, now: u8) {
        let replicas = Self::grant(self.replica.as_deref());
        self.forgotten = Self::grant(self.found.as_deref()).filter(|known| Some(*known) != replicas);
        self.found = self.replica.take();
        self.server += 1;
        self.lineage = Part::of(lineage(1, self.server, now));
    }
}

fn lineage(marker: u8, server: u8, since: u8) -> StoreLineage {
    let server = format!("server {server}");
    let servers = BTreeSet::from([server.clone()]);
    StoreLineage { marker: marker.to_string(), since: millis(since), server, servers }
}

fn grant(session: &Session) -> Option<(Epoch, ConnectionId)> {
    let controller = session.core.controller.as_ref();
    controller.map(|controller| (session.core.epoch, controller.place.connection))
}

impl Stage<'_> {
    /// A write reaches the store.
    pub fn land(&mut self, write: &Write) -> Committed {
        let Some(stored) = self.world.store.found.clone() else { return self.land_on_nothing(write) };
        let changed = stored.base.write != write.base.write && !self.scene.is(Broken::VersionCheck);
        let replaced = self.world.store.server_name() != write.base.server && !self.scene.is(Broken::ServerCheck);
        if changed || replaced {
            self.marks.note(Mark::Conflict);
            return Committed::Conflict;
        }
        let mut after = Stored::clone(&stored);
        after.apply(write.clone());
        let version = after.version;
        self.note_move(&stored.session, &after.session);
        if write.core == stored.session.core && self.scene.is(Broken::Forestalling) {
            after.base.write = stored.base.write;
        }
        let active = after.session.core.status == Status::Active;
        self.world.deleted |= !active;
        self.note_grant(Some(&stored.session), &after.session);
        self.world.store.replica = self.left_replica(stored);
        let gone = !active && self.scene.is(Broken::Tombstone);
        self.world.store.found = (!gone).then(|| Part::of(after));
        Committed::Done { version, now: millis(self.world.now) }
    }

    /// A write of a document that the store does not have. Only a broken store makes one of it.
    fn land_on_nothing(&mut self, write: &Write) -> Committed {
        if !self.scene.is(Broken::Tombstone) {
            return Committed::Missing;
        }
        self.world.faults.came_back |= self.world.deleted;
        let base = Base { write: write.id, server: self.world.store.server_name() };
        let mut stored = Stored { session: Check::empty_session(self.scene), version: 0, base };
        stored.apply(write.clone());
        self.world.store.found = Some(Part::of(stored));
        Committed::Done { version: 1, now: millis(self.world.now) }
    }

    /// A document is written, unless one is there.
    pub fn create(&mut self, session: &Session) {
        if self.world.store.found.is_some() {
            return;
        }
        self.world.store.writes += 1;
        self.world.faults.came_back |= self.world.deleted;
        self.note_grant(None, session);
        let write = WriteId::from_bits(self.world.store.writes.into());
        let base = Base { write, server: self.world.store.server_name() };
        self.world.store.found = Some(Part::of(Stored { session: session.clone(), version: 1, base }));
        self.marks.note(Mark::Restored);
    }

    /// The replica's data after this was replaced in the store.
    fn left_replica(&self, stored: Arc<Part<Stored>>) -> Option<Arc<Part<Stored>>> {
        let left = self.world.store.replica.clone().filter(|_| self.scene.far_behind);
        left.or(Some(stored)).filter(|_| self.world.left.fail_overs > 0)
    }

    /// Records the connection that this epoch belongs to.
    fn note_grant(&mut self, before: Option<&Session>, after: &Session) {
        let Some((epoch, controller)) = grant(after) else { return };
        match self.world.granted.iter().find(|(known, _)| *known == epoch) {
            Some((_, known)) => {
                self.world.faults.granted_twice |= *known != controller;
                if before.is_some_and(|before| before.core.epoch < epoch) {
                    self.marks.note(Mark::Remembered);
                }
            }
            None => self.world.granted.push((epoch, controller)),
        }
    }

    /// Records how control moved by a write of a core.
    fn note_move(&self, before: &Session, after: &Session) {
        let (from, to) = (&before.core, &after.core);
        let Some(controller) = &from.controller else { return };
        if from.transfer.is_none() && to.transfer.is_some() {
            self.marks.note(Mark::Revoking);
        }
        if after.controls(controller.place.connection) {
            return;
        }
        let mut nodes = self.world.nodes.iter().enumerate();
        let alive = nodes.any(|(index, node)| *node_id(index) == controller.place.node && node.alive);
        let next = to.controller.as_ref();
        let lost_its_place =
            before.client(controller.place.connection).is_some() && after.client(controller.place.connection).is_none();
        let mark = match next {
            Some(next) if next.client == controller.client => Mark::Returned,
            _ if !alive => Mark::TakenFromTheDead,
            _ if lost_its_place => Mark::TakenFromTheLapsed,
            Some(_) if from.transfer.is_some() => Mark::Transferred,
            Some(next) if next.place.node != controller.place.node => Mark::Granted,
            _ => return,
        };
        self.marks.note(mark);
    }
}

impl World {
    /// An epoch below that of every document there is cannot be reached again: the next is always above the last.
    pub fn forget_old_grants(&mut self) {
        let pending = self.nodes.iter().filter_map(|node| match &node.pending {
            Pending::Look(_, epoch) => Some(*epoch),
            Pending::Commit(write) => Some(write.core.epoch),
            Pending::Create(session) => Some(session.core.epoch),
            Pending::Nothing | Pending::Load | Pending::Answer(_) => None,
        });
        let stored = [&self.store.found, &self.store.replica].into_iter().flatten();
        let stored = stored.map(|stored| stored.session.core.epoch);
        let views = self.nodes.iter().filter_map(|node| node.room.view()).map(|view| view.session.core.epoch);
        let late = self.late.iter().map(|write| write.core.epoch);
        if let Some(least) = stored.chain(views).chain(pending).chain(late).min() {
            self.granted.retain(|(epoch, _)| *epoch >= least);
        }
        self.granted.sort_unstable();
    }
}
