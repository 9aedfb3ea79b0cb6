//! A node as src/relay makes one of the rules: one worker per session that reads, looks, decides, writes and tells, and
//! the gate before the controller. Every decision is made by `apply`.

use std::collections::HashSet;
use std::sync::Arc;

use gitorial_relay::control::{Context, Direction, Event, Intent, Join, Rules, StateClaim, apply};
use gitorial_relay::ids::{ConnectionId, Epoch, Millis, NodeId};
use gitorial_relay::session::{Client, Core, Session, Status};

use super::doc::{Doc, millis, name, node_id, place, token};
use super::marks::{Mark, Marks};
use super::scene::{Broken, Scene, Wish};
use super::world::{Basis, Decision, Job, LocalController, Member, Stored, Worker, World, Write};

/// No lease has this number.
const NO_TERM: u64 = 0;

/// One step of one world.
pub struct Stage<'a> {
    pub scene: &'a Scene,
    pub rules: &'a Rules,
    pub marks: &'a Marks,
    pub world: World,
}

impl Stage<'_> {
    /// The lease of this node on its own clock, which may lag behind.
    pub fn term(&self, node: usize) -> Option<u64> {
        self.world.nodes[node].lease.held(millis(self.world.now.saturating_sub(self.scene.drift)))
    }

    /// The local client whose states this node would forward now.
    pub fn passing(&self, node: usize) -> Option<LocalController> {
        let here = &self.world.nodes[node];
        let term = if self.scene.is(Broken::Deadline) { Some(here.lease.term) } else { self.term(node) };
        let sends = |driver: &LocalController| {
            here.members
                .iter()
                .any(|member| member.connection == driver.connection && member.open && !member.superseded)
        };
        here.driver.filter(|driver| here.alive && !driver.suspended && Some(driver.term) == term && sends(driver))
    }

    /// Whether the conditions under which this controller was confirmed have held ever since.
    fn covers(&self, node: usize, driver: &LocalController) -> bool {
        let now = millis(self.world.now.saturating_sub(self.scene.drift));
        self.world.nodes[node].lease.covers(driver.term, now)
    }

    /// The local client that certainly had control when the store lost its lineage.
    fn confirmed_controller(&self, node: usize) -> Option<ConnectionId> {
        let sure = self.world.nodes[node].driver.filter(|driver| !driver.suspended && self.covers(node, driver));
        sure.map(|driver| driver.connection)
    }

    /// Whether the document names a client of this node as controller, and this node has not confirmed it.
    fn doubts_controller(&self, node: usize, session: &Session, sure: Option<ConnectionId>) -> bool {
        let own = session.core.controller.as_ref().filter(|controller| controller.place.node == node_id(node));
        let connection = own.map(|controller| controller.place.connection);
        let unsure = connection.is_some() && connection != sure && self.is_doubtful(node);
        unsure && !self.scene.is(Broken::SureHolder)
    }

    fn is_doubtful(&self, node: usize) -> bool {
        !self.scene.is(Broken::Generation) && self.knows_of_a_loss(node)
    }

    fn knows_of_a_loss(&self, node: usize) -> bool {
        self.world.now + self.scene.drift < self.world.nodes[node].doubtful_until
    }

    /// A document was read: if it came from another server than before, its node is in doubt.
    fn heard_from(&mut self, node: usize) {
        let known = self.world.nodes[node].lineage.server;
        if known != self.world.store.lineage.server && !self.scene.is(Broken::Notice) {
            self.doubt(node);
        }
    }

    fn doubt(&mut self, node: usize) {
        let patience = u8::try_from(self.scene.timing().patience()).unwrap();
        self.world.nodes[node].doubtful_until = self.world.now + patience;
    }

    /// Compares the store's lineage with the one seen before.
    fn remember(&mut self, node: usize) {
        let (now, lineage) = (self.world.now, self.world.store.lineage);
        let here = &mut self.world.nodes[node];
        let before = std::mem::replace(&mut here.lineage, lineage);
        let lost = if self.scene.is(Broken::Notice) { before.marker != lineage.marker } else { before != lineage };
        if lost {
            here.monitors.values_mut().for_each(|monitor| monitor.since = millis(now));
            here.lapsed.clear();
            here.loss_unreported = true;
            self.doubt(node);
            self.marks.note(Mark::MemoryLost);
        }
    }

    pub fn queue(&mut self, node: usize) {
        let here = &mut self.world.nodes[node];
        if !std::mem::replace(&mut here.reload_queued, true) {
            here.jobs.push(Job::Tick);
        }
    }

    /// The renewal that began at `began` is in the store, and its node has the answer.
    pub fn renewed(&mut self, node: usize, began: u8) {
        let (now, timing) = (self.world.now, self.scene.timing());
        let lagging = millis(now.saturating_sub(self.scene.drift));
        self.remember(node);
        let here = &mut self.world.nodes[node];
        here.beats += 1;
        self.world.store.beats[node] = Some(here.beats);
        let data_lost = std::mem::take(&mut here.loss_unreported);
        let new_term = here.lease.renew(millis(began), lagging, data_lost, &timing);
        if new_term || data_lost {
            here.stale = true;
            if let Some((_, version)) = here.view.as_mut().filter(|_| data_lost) {
                *version = 0;
            }
            self.marks.note(Mark::NewLease);
            self.queue(node);
        }
    }

    /// Looks at the heartbeats of all nodes with clients in the session.
    pub fn watch(&mut self, node: usize) {
        let now = millis(self.world.now);
        let mut patience = self.scene.timing().patience() - millis(self.scene.drift);
        if self.scene.is(Broken::Margin) {
            patience -= 1;
        }
        let beats = self.world.store.beats.clone();
        let here = &mut self.world.nodes[node];
        let Some((view, _)) = &here.view else { return };
        let others: Vec<usize> = (0..beats.len())
            .filter(|other| *other != node && view.session.rosters.contains_key(&node_id(*other)))
            .collect();
        here.monitors.retain(|other, _| others.contains(other));
        let known = std::mem::take(&mut here.lapsed);
        for other in others {
            let first = gitorial_relay::presence::HeartbeatMonitor { count: beats[other], since: now };
            if here.monitors.entry(other).or_insert(first).look(beats[other], now, patience) {
                here.lapsed.push(other);
            }
        }
        if here.lapsed.iter().any(|other| !known.contains(other)) {
            self.queue(node);
        }
    }

    /// A worker takes its next step.
    pub fn work(&mut self, node: usize) {
        match std::mem::replace(&mut self.world.nodes[node].worker, Worker::Idle) {
            Worker::Idle => self.read(node, None),
            Worker::Unknown(decision) => self.read(node, Some(decision)),
            Worker::Read(basis) => {
                let lapsed = self.still_lapsed(node, &basis.stored.doc.session);
                self.decide(node, basis, &lapsed);
            }
            Worker::Decided(decision) => match self.world.land(self.scene, self.marks, &decision.write) {
                Landed::Done(version) => self.world.nodes[node].worker = Worker::Written(decision, version),
                Landed::Refused => self.marks.note(Mark::Conflict),
            },
            Worker::Written(decision, version) => {
                let partial = version != decision.write.base.version + 1;
                self.finish(node, &decision, version, decision.term, partial);
            }
            // Either this node or another has written it: next it is read.
            Worker::Restoring(doc) => {
                if self.world.create(&doc) {
                    self.marks.note(Mark::Restored);
                }
            }
        }
    }

    fn read(&mut self, node: usize, unknown: Option<Decision>) {
        let term = self.term(node);
        let here = &mut self.world.nodes[node];
        here.reload_queued = false;
        if here.batch == 0 {
            here.batch = here.jobs.len();
        }
        self.heard_from(node);
        let Some(mut stored) = self.world.store.found.clone() else { return self.missing(node) };
        if let Some(decision) = unknown
            && was_committed(&decision, &stored, &node_id(node))
        {
            return self.finish(node, &decision, stored.version, term, true);
        }
        if self.is_doubtful(node) && stored.doc.has_claims() {
            stored.doc = stored.doc.without_claims();
        }
        self.refuse_claims(node, term);
        let dead = |other: &usize| stored.doc.session.rosters.contains_key(&node_id(*other));
        let looks = self.world.nodes[node].lapsed.iter().any(dead);
        let basis = Basis { stored, server: self.world.store.lineage.server, term };
        if looks {
            self.world.nodes[node].worker = Worker::Read(basis);
        } else {
            self.decide(node, basis, &HashSet::new());
        }
    }

    fn refuse_claims(&mut self, node: usize, term: Option<u64>) {
        if term.is_some() && !self.is_doubtful(node) {
            return;
        }
        let here = &mut self.world.nodes[node];
        let later = here.jobs.split_off(here.batch);
        let claims = |job: &mut Job| matches!(job, Job::Frame { .. } | Job::Join { .. });
        let refused: Vec<Job> = here.jobs.extract_if(.., claims).collect();
        here.batch = here.jobs.len();
        here.jobs.extend(later);
        for job in refused {
            if let Job::Join { client, .. } = job {
                self.gone(client);
            }
        }
    }

    fn still_lapsed(&self, node: usize, session: &Session) -> HashSet<NodeId> {
        let here = &self.world.nodes[node];
        let dead = here.lapsed.iter().filter(|other| session.rosters.contains_key(&node_id(**other)));
        let still = |other: &&usize| {
            let count = self.world.store.beats[**other];
            count.is_none() || here.monitors.get(*other).is_some_and(|monitor| monitor.is_still(count))
        };
        dead.filter(still).map(|other| node_id(*other)).collect()
    }

    fn decide(&mut self, node: usize, Basis { stored, server, term }: Basis, lapsed: &HashSet<NodeId>) {
        let here = node_id(node);
        let flushed = self.flushed(node);
        let context = Context { here: &here, now: millis(self.world.now), lapsed, flushed, rules: self.rules };
        let mut session = stored.doc.session.clone();
        let mut compared = false;
        for repair in self.repairs(node, &session, term) {
            compared |= repair.reads_whole_document();
            let before = session.core.epoch;
            session = apply(&session, &repair, context).session;
            if matches!(repair, Event::RestoreCore(_)) && session.core.epoch > before {
                self.marks.note(Mark::Remembered);
            }
        }
        let mut taken = 0;
        for (index, job) in self.world.nodes[node].jobs[..self.world.nodes[node].batch].iter().enumerate() {
            let event = self.event(node, job);
            let after = apply(&session, &event, context).session;
            let moves =
                after.core.controller != session.core.controller || after.core.transfer != session.core.transfer;
            if moves && index > 0 {
                break;
            }
            session = after;
            taken = index + 1;
            compared |= event.reads_whole_document();
            if moves {
                break;
            }
        }
        let after = Doc::of(session);
        let others = changed(&stored.doc, &after).iter().any(|id| *id != here);
        let unresolved_write =
            self.world.nodes[node].unresolved_write == Some(stored.write) && !self.scene.is(Broken::Forestalling);
        let rosters = stored.doc.session.rosters != after.session.rosters;
        let core = stored.doc.session.core != after.session.core || others || unresolved_write || (compared && rosters);
        let writes = core || stored.doc != after;
        let id = self.world.store.writes + 1;
        let taken = u8::try_from(taken).unwrap();
        let decision = Decision { write: Write { base: stored, server, after, core, id }, taken, term };
        if !writes {
            let version = decision.write.base.version;
            return self.finish(node, &decision, version, term, false);
        }
        self.world.store.writes = id;
        if core {
            self.world.nodes[node].unresolved_write = Some(decision.write.base.write);
        }
        self.suspend(node, &decision.write.after);
        self.world.nodes[node].worker = Worker::Decided(decision);
    }

    fn event(&self, node: usize, job: &Job) -> Event {
        match job {
            Job::Tick => Event::Tick,
            Job::Delete => Event::Delete,
            Job::Leave { connection } => Event::Leave { connection: *connection, lost: true },
            Job::Join { client, connection } => Event::Join(Join {
                connection: *connection,
                wants: Some(name(*client)),
                otherwise: name(*client),
                resume: Some(token(*client)),
            }),
            Job::Frame { client, connection, wish, epoch } => {
                let intent = self.intent(node, *client, *wish);
                Event::Frame { connection: *connection, alias: None, epoch: *epoch, intent }
            }
        }
    }

    /// The frame that a client sends for a wish.
    fn intent(&self, node: usize, client: u8, wish: Wish) -> Intent {
        let view = self.world.nodes[node].view.as_ref().map(|(view, _)| &view.session.core);
        let controller =
            view.and_then(|core| core.controller.as_ref()).map(|controller| controller.client.as_str().to_owned());
        match wish {
            Wish::Take if self.scene.clients[usize::from(client)].1 => {
                controller.map_or(Intent::Coordinate(Direction::Active), |controller| Intent::Accept(Some(controller)))
            }
            Wish::Take => Intent::State(StateClaim::Drive),
            Wish::Ask => Intent::Coordinate(Direction::Active),
            Wish::Grant => {
                let first = view.and_then(|core| core.requests.first());
                Intent::Accept(first.map(|request| request.client.as_str().to_owned()))
            }
            Wish::Release => Intent::Release,
        }
    }

    /// Before control can leave a client of this node, its states stop passing.
    fn suspend(&mut self, node: usize, after: &Doc) {
        if self.scene.is(Broken::Suspension) {
            return;
        }
        if let Some(driver) = &mut self.world.nodes[node].driver {
            let stays = after.session.controls(driver.connection) && after.epoch() == driver.epoch;
            let told_first = after.session.client(driver.connection).is_some_and(|(_, client)| client.modern);
            let leaves = after.session.core.transfer.is_some() && !told_first;
            driver.suspended |= !stays || leaves || !after.is_active();
        }
    }

    /// The controller here that was told that control is leaving it. What it sent before may still come until the next step.
    fn flushed(&self, node: usize) -> Option<(ConnectionId, Epoch)> {
        let (view, _) = self.world.nodes[node].view.as_ref()?;
        let core = &view.session.core;
        let controller = core.controller.as_ref().filter(|controller| controller.place.node == node_id(node))?;
        core.transfer.is_some().then_some((controller.place.connection, core.epoch))
    }

    /// The event that reconciles this node's sockets with its roster.
    fn repairs(&self, node: usize, session: &Session, term: Option<u64>) -> Vec<Event> {
        let here = &self.world.nodes[node];
        let about = |connection: ConnectionId| {
            here.jobs[..here.batch].iter().any(|job| match job {
                Job::Join { connection: of, .. } | Job::Leave { connection: of } => *of == connection,
                Job::Tick | Job::Frame { .. } | Job::Delete => false,
            })
        };
        let seated = |connection: ConnectionId| here.members.iter().any(|member| member.connection == connection);
        let roster = session.rosters.get(&node_id(node)).cloned().unwrap_or_default();
        let living = || roster.clients.iter().filter(|client| client.cut_off_at.is_none());
        let ghosts = living().filter(|client| !seated(client.connection) && !about(client.connection));
        let leave = |ghost: &Client| Event::Leave { connection: ghost.connection, lost: true };
        let mut events: Vec<Event> = ghosts.map(leave).collect();
        let Some(term) = term else { return events };
        let anew = here.claimed.is_some_and(|claimed| claimed != term);
        let known = |connection| living().any(|client| client.connection == connection);
        let missing = here.members.iter().filter(|member| !member.superseded && !about(member.connection));
        let missing = missing.filter(|member| anew || !known(member.connection));
        let sure = self.confirmed_controller(node);
        let unsure = self.doubts_controller(node, session, sure);
        let missing = missing.filter(|member| !(unsure && session.controls(member.connection)));
        let view = here.view.as_ref().map(|(view, _)| &view.session);
        let as_it_was = |client: &Client| {
            let given = view.map_or(client.given, |view| view.assignment(client));
            Client { given, cut_off_at: None, ..client.clone() }
        };
        let clients: Vec<Client> = missing.map(|member| as_it_was(&member.place)).collect();
        let doubtful = self.is_doubtful(node);
        if !clients.is_empty() {
            let held = sure.filter(|held| doubtful && seated(*held));
            events.push(Event::Rejoin { clients, held });
        }
        if let Some((view, _)) = here.view.as_ref().filter(|_| doubtful && !self.scene.is(Broken::Remembrance)) {
            events.push(Event::RestoreCore(Box::new(view.session.core.clone())));
        }
        events
    }

    /// The decision was committed.
    fn finish(&mut self, node: usize, decision: &Decision, version: u8, term: Option<u64>, partial: bool) {
        let after = &decision.write.after;
        let here = &mut self.world.nodes[node];
        let taken: Vec<Job> = here.jobs.drain(..usize::from(decision.taken)).collect();
        here.batch -= taken.len();
        for job in taken {
            match job {
                Job::Join { client, connection } => {
                    let place = after.session.client(connection).map(|(_, place)| Arc::new(place.clone()));
                    here.members.extend(place.map(|place| Member {
                        client,
                        connection,
                        place,
                        open: true,
                        superseded: false,
                    }));
                }
                Job::Leave { connection } => here.members.retain(|member| member.connection != connection),
                Job::Tick | Job::Frame { .. } | Job::Delete => {}
            }
        }
        self.observe(node, after, version, term);
        if partial {
            self.queue(node);
        }
    }

    /// Accepts a document as the current one.
    fn observe(&mut self, node: usize, doc: &Arc<Doc>, version: u8, term: Option<u64>) {
        let current = self.term(node);
        let here = &mut self.world.nodes[node];
        if here.view.as_ref().is_some_and(|(_, known)| *known > version) {
            return;
        }
        here.view = Some((doc.clone(), version));
        here.stale = current.is_some() && current != term;
        if !doc.is_active() {
            here.driver = None;
            here.members.clear();
            return;
        }
        here.claimed = term.or(here.claimed);
        self.set_local_controller(node, doc, term);
        let here = &mut self.world.nodes[node];
        here.fence.raise(doc.epoch());
        let superseded = &doc.session.core.superseded;
        let modern = |member: &Member| self.scene.clients[usize::from(member.client)].1;
        here.members.retain(|member| !(superseded.contains(&member.connection) && modern(member)));
        for member in &mut here.members {
            member.superseded |= superseded.contains(&member.connection);
            if let Some(place) = place(doc, member.connection) {
                member.place = Arc::new(place);
            }
        }
        let ours = |place: &gitorial_relay::session::Place| place.node == node_id(node);
        let core = &doc.session.core;
        if core.transfer.is_some() && core.controller.as_ref().is_some_and(|controller| ours(&controller.place)) {
            self.queue(node);
        }
    }

    /// Confirms the controller if it is a client of this node and this node is certain of it.
    fn set_local_controller(&mut self, node: usize, doc: &Doc, term: Option<u64>) {
        let before = self.world.nodes[node].driver;
        let granted = |driver: &LocalController| !driver.suspended || doc.epoch() > driver.epoch;
        let sure = before.filter(|driver| self.covers(node, driver) && granted(driver));
        let unsure = self.doubts_controller(node, &doc.session, sure.map(|driver| driver.connection));
        let here = &mut self.world.nodes[node];
        if unsure {
            (here.claimed, here.stale) = (Some(NO_TERM), true);
        }
        let seated = |connection: ConnectionId| here.members.iter().any(|member| member.connection == connection);
        let leaving = doc.session.core.transfer.as_ref().and(doc.session.core.controller.as_ref());
        let told_first = leaving.filter(|controller| {
            doc.session
                .client(controller.place.connection)
                .is_some_and(|(_, client)| client.modern && client.cut_off_at.is_none())
        });
        let controller = doc.session.sending_controller().or(told_first).map(|controller| controller.place.connection);
        let driver = controller.filter(|controller| !unsure && seated(*controller)).zip(term);
        here.driver =
            driver.map(|(connection, term)| LocalController { connection, epoch: doc.epoch(), term, suspended: false });
        let drives = here.driver.map(|driver| (driver.epoch, driver.connection));
        let forgotten = drives.is_some() && drives == self.world.store.forgotten;
        if forgotten && here.lineage == self.world.store.lineage && self.is_doubtful(node) {
            self.marks.note(Mark::DroveOn);
        }
    }

    /// The store has not answered: nothing is decided.
    pub fn fail(&mut self, node: usize) {
        let here = &mut self.world.nodes[node];
        here.stale = true;
        for job in here.jobs.drain(..std::mem::take(&mut here.batch)) {
            if let Job::Leave { connection } = job {
                here.members.retain(|member| member.connection != connection);
            }
        }
    }

    /// There is no document.
    fn missing(&mut self, node: usize) {
        if !self.knows_of_a_loss(node) {
            self.remember(node);
        }
        let lost = self.knows_of_a_loss(node) || self.scene.is(Broken::Tombstone);
        let here = &self.world.nodes[node];
        if let Some((view, _)) = here.view.as_ref().filter(|(view, _)| lost && view.is_active()) {
            let doubt = if self.scene.is(Broken::Generation) { 0 } else { self.scene.timing().patience() };
            let doc = restored(view, &node_id(node), self.world.now, doubt);
            self.world.nodes[node].worker = Worker::Restoring(doc);
            return;
        }
        self.fail(node);
        let here = &mut self.world.nodes[node];
        here.members.clear();
        (here.stale, here.view, here.driver) = (false, None, None);
    }
}

/// What a node writes of a session that the store has lost. Whether its controller is confirmed is decided at the next
/// read.
fn restored(view: &Doc, here: &NodeId, now: u8, doubt: Millis) -> Arc<Doc> {
    let mut session = view.session.clone();
    session.rosters.retain(|node, _| node == here);
    let Core { epoch, controller, everyone, changed_at, superseded, .. } = session.core;
    let controller = controller.filter(|controller| controller.place.node == *here);
    let doubtful_until = millis(now) + doubt;
    session.core = Core {
        status: Status::Active,
        epoch,
        controller,
        everyone,
        changed_at,
        superseded,
        doubtful_until,
        ..Core::default()
    };
    Doc::of(session)
}

/// Whether a write whose answer was lost is in the store.
fn was_committed(decision: &Decision, stored: &Stored, here: &NodeId) -> bool {
    let Write { after, core, id, .. } = &decision.write;
    let roster = |doc: &Doc| doc.session.rosters.get(here).cloned();
    if *core { stored.write == *id } else { roster(&stored.doc) == roster(after) }
}

/// The nodes whose rosters differ.
pub fn changed(before: &Doc, after: &Doc) -> Vec<NodeId> {
    let (before, after) = (&before.session.rosters, &after.session.rosters);
    let mut nodes: Vec<&NodeId> = before.keys().chain(after.keys()).collect();
    nodes.sort();
    nodes.dedup();
    nodes.into_iter().filter(|node| before.get(*node) != after.get(*node)).cloned().collect()
}

/// The outcome of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landed {
    Done(u8),
    Refused,
}

impl World {
    /// A write reaches the store.
    pub fn land(&mut self, scene: &Scene, marks: &Marks, write: &Write) -> Landed {
        let Some(stored) = self.store.found.clone() else { return Landed::Refused };
        if write.core && stored.write != write.base.write && !scene.is(Broken::VersionCheck) {
            return Landed::Refused;
        }
        if write.core && self.store.lineage.server != write.server && !scene.is(Broken::ServerCheck) {
            return Landed::Refused;
        }
        let mut session = stored.doc.session.clone();
        for node in changed(&write.base.doc, &write.after) {
            match write.after.session.rosters.get(&node) {
                Some(roster) => drop(session.rosters.insert(node, roster.clone())),
                None => drop(session.rosters.remove(&node)),
            }
        }
        if write.core {
            self.note_move(marks, &stored.doc, &write.after);
            session.core = write.after.session.core.clone();
        }
        let doc = Doc::of(session);
        let id = if write.core { write.id } else { stored.write };
        let version = stored.version + 1;
        self.deleted |= !doc.is_active();
        let gone = !doc.is_active() && scene.is(Broken::Tombstone);
        self.note_grant(&doc);
        self.store.replica = self.left_replica(scene, stored);
        self.store.found = (!gone).then_some(Stored { doc, version, write: id });
        Landed::Done(version)
    }

    /// A document is written again, unless one is there.
    pub fn create(&mut self, doc: &Arc<Doc>) -> bool {
        if self.store.found.is_some() {
            return false;
        }
        self.store.writes += 1;
        self.faults.came_back |= self.deleted;
        self.note_grant(doc);
        self.store.found = Some(Stored { doc: doc.clone(), version: 1, write: self.store.writes });
        true
    }

    /// The replica's data after this was replaced in the store.
    fn left_replica(&self, scene: &Scene, stored: Stored) -> Option<Stored> {
        let left = self.store.replica.clone().filter(|_| scene.far_behind);
        left.or(Some(stored)).filter(|_| self.left.fail_overs > 0)
    }

    /// Records how control moved by a write of a core.
    fn note_move(&self, marks: &Marks, before: &Doc, after: &Doc) {
        let (from, to) = (&before.session.core, &after.session.core);
        let Some(controller) = &from.controller else { return };
        if from.transfer.is_none() && to.transfer.is_some() {
            marks.note(Mark::Revoking);
        }
        if after.session.controls(controller.place.connection) {
            return;
        }
        let mut nodes = self.nodes.iter().enumerate();
        let alive = nodes.any(|(index, node)| node_id(index) == controller.place.node && node.alive);
        let next = to.controller.as_ref();
        let mark = match next {
            Some(next) if next.client == controller.client => Mark::Returned,
            _ if !alive => Mark::TakenFromTheDead,
            _ if before.session.client(controller.place.connection).is_some()
                && after.session.client(controller.place.connection).is_none() =>
            {
                Mark::TakenFromTheLapsed
            }
            Some(_) if from.transfer.is_some() => Mark::Transferred,
            Some(next) if next.place.node != controller.place.node => Mark::Granted,
            _ => return,
        };
        marks.note(mark);
    }
}
