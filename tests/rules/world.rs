//! A session, its nodes and its clients, in one thread: every message waits until a step of the test moves it.

use std::sync::Arc;

use gitorial_relay::control::{Event, Join, Rules};
use gitorial_relay::ids::{ClientId, ConnectionId, Epoch, Millis};
use gitorial_relay::session::{Info, Roster, Session, Strategy};

use super::client::{Client, Generation};
use super::node::{Decision, Member, Node, Stored};

/// The whole world.
#[derive(Debug)]
pub struct World {
    pub now: Millis,
    pub rules: Rules,
    pub store: Stored,
    pub nodes: Vec<Node>,
    pub clients: Vec<Client>,
    /// The states that were forwarded, in order: the grant and the sender's socket.
    pub passed: Vec<(Epoch, ConnectionId)>,
    sockets: u128,
}

impl World {
    pub fn new(strategy: Strategy, nodes: usize, generations: &[Generation]) -> Self {
        let info = Info { created_at: 0, ttl: 1 << 40, ends_at: 1 << 41, strategy, metadata: None };
        Self {
            now: 0,
            rules: Rules { max_requests: 2, ..Rules::default() },
            store: Stored { session: Session::new(Arc::new(info)), core_write: 0, version: 0 },
            nodes: (0..nodes).map(Node::new).collect(),
            clients: generations
                .iter()
                .enumerate()
                .map(|(number, generation)| Client::new(*generation, number))
                .collect(),
            passed: Vec::new(),
            sockets: 0,
        }
    }

    /// A client opens a socket on a node, and comes back as itself if it can.
    pub fn connect(&mut self, client: usize, node: usize) {
        let node = node % self.nodes.len();
        if self.clients[client].socket.is_some() || !self.nodes[node].alive {
            return;
        }
        self.sockets += 1;
        let connection = ConnectionId::from_number(self.sockets << 96);
        let join_request = self.clients[client].join_request.take();
        let (wants, resume) = join_request.map(|(id, token)| (ClientId::parse(&id), Some(token))).unwrap_or_default();
        let otherwise = ClientId::parse(&format!("socket_{}", self.sockets)).unwrap();
        let join = Join { connection, wants, otherwise, resume };
        self.nodes[node].submit(Event::Join(join), None);
        self.clients[client].connected(node, connection);
    }

    /// A client's socket ends, with or without a close frame. Frames in flight to its node still arrive in part.
    pub fn disconnect(&mut self, client: usize, lost: bool) {
        let Some(socket) = self.clients[client].socket.take() else { return };
        let node = &mut self.nodes[socket.node];
        // A frame that is being decided does not delay the news of the end; the place is removed after it.
        node.submit(Event::Leave { connection: socket.connection, lost }, None);
        node.members.remove(&socket.connection);
        if node.driver.is_some_and(|driver| driver.connection == socket.connection) {
            node.driver = None;
        }
    }

    /// A node is gone, and all its sockets with it. The first one stays, so that one node is left.
    pub fn crash(&mut self, node: usize) {
        if node == 0 || node >= self.nodes.len() {
            return;
        }
        let id = self.nodes[node].id.clone();
        self.nodes[node] = Node { id, alive: false, ..Node::new(node) };
        for client in &mut self.clients {
            client.socket.take_if(|socket| socket.node == node);
        }
    }

    /// A node sees that the leases of dead nodes have lapsed.
    pub fn notice_the_dead(&mut self, node: usize) {
        let node = node % self.nodes.len();
        let lapsed = |other: &&Node| !other.alive || !other.leased;
        let lapsed = self.nodes.iter().filter(lapsed).map(|other| other.id.clone());
        self.nodes[node].lapsed = lapsed.filter(|other| *other != self.nodes[node].id).collect();
        self.tick(node);
    }

    /// A node loses its lease: it is paused, or cannot reach the store.
    pub fn lapse(&mut self, node: usize) {
        self.nodes[node].leased = false;
    }

    /// It has a new lease, and reads everything again.
    pub fn renew(&mut self, node: usize) {
        let node_ = &mut self.nodes[node];
        if !std::mem::replace(&mut node_.leased, true) {
            node_.term += 1;
            self.tick(node);
        }
    }

    /// A node looks at the others' heartbeats once more after it has read the document.
    fn look_again(&mut self, node: usize) {
        let back = self.nodes.iter().filter(|other| other.alive && other.leased).map(|other| other.id.clone());
        let back: Vec<_> = back.collect();
        self.nodes[node].lapsed.retain(|other| !back.contains(other));
    }

    pub fn tick(&mut self, node: usize) {
        let queued = self.nodes[node].jobs.iter().any(|job| matches!(job.event, Event::Tick));
        if self.nodes[node].alive && !queued {
            self.nodes[node].submit(Event::Tick, None);
        }
    }

    /// A node learns that the document changed.
    pub fn hear(&mut self, node: usize) {
        let known = self.nodes[node].view.as_ref().map_or(0, |(_, version)| *version);
        let members = !self.nodes[node].members.is_empty();
        if members && known < std::mem::take(&mut self.nodes[node].notified) {
            self.tick(node);
        }
    }

    /// A client's oldest frame reaches its node.
    pub fn read(&mut self, client: usize) {
        let name = self.clients[client].name.clone();
        let Some(socket) = &mut self.clients[client].socket else { return };
        let (index, connection) = (socket.node, socket.connection);
        let node = &mut self.nodes[index];
        if node.members.get(&connection).is_none_or(|member| member.busy) {
            return;
        }
        let Some((frame, epoch)) = socket.up.pop_front() else { return };
        if let Some(epoch) = node.read(connection, &name, frame, epoch) {
            self.pass(index, connection, epoch);
        }
    }

    pub fn pass(&mut self, node: usize, connection: ConnectionId, epoch: Epoch) {
        self.passed.push((epoch, connection));
        let id = self.nodes[node].id.clone();
        if self.store.session.rosters.contains_key(&id) {
            let activity = self.store.session.activity.entry(id).or_default();
            (activity.seen_at, activity.drove_at) = (self.now, self.now);
        }
    }

    /// A node's worker takes its next step: it decides, or writes its decision.
    pub fn work(&mut self, node: usize) {
        let now = self.now;
        let worker = &mut self.nodes[node];
        if !worker.alive {
            return;
        }
        let Some(decision) = worker.decision.take() else {
            // Without a lease nothing is decided: its clients may have lost their places, and their frames would be lost.
            if worker.leased && !worker.jobs.is_empty() {
                self.look_again(node);
                self.nodes[node].decide(&self.store, now, &self.rules);
            }
            return;
        };
        if let Some((version, wrote)) = self.commit(node, &decision) {
            self.finish(node, decision, version, wrote);
        }
    }

    /// `None`: another node's core was first. Otherwise the version, and whether anything was written.
    fn commit(&mut self, node: usize, decision: &Decision) -> Option<(u64, bool)> {
        let Decision { base, after, .. } = decision;
        let before = &base.session;
        let keys = before.rosters.keys().chain(after.rosters.keys());
        let mut changed: Vec<_> =
            keys.filter(|id| before.rosters.get(*id) != after.rosters.get(*id)).cloned().collect();
        changed.dedup();
        let jobs = &self.nodes[node].jobs;
        let compared = jobs.iter().take(decision.taken).any(|job| job.event.reads_whole_document());
        let others = changed.iter().any(|id| *id != self.nodes[node].id);
        let core = before.core != after.core || ((compared || others) && !changed.is_empty());
        if !core && changed.is_empty() {
            return Some((base.version, false));
        }
        if core {
            if self.store.core_write != base.core_write {
                return None;
            }
            self.store.core_write = self.store.version + 1;
            self.store.session.core = after.core.clone();
        }
        for id in changed {
            match after.rosters.get(&id).filter(|roster: &&Roster| !roster.clients.is_empty()) {
                Some(roster) => drop(self.store.session.rosters.insert(id, roster.clone())),
                None => {
                    self.store.session.rosters.remove(&id);
                    self.store.session.activity.remove(&id);
                }
            }
        }
        self.store.version += 1;
        let version = self.store.version;
        for (_, other) in self.nodes.iter_mut().enumerate().filter(|(index, _)| *index != node) {
            other.notified = version;
        }
        Some((version, true))
    }

    fn finish(&mut self, node: usize, decision: Decision, version: u64, wrote: bool) {
        let Decision { base, after, effects, taken, term } = decision;
        let jobs: Vec<_> = self.nodes[node].jobs.drain(..taken).collect();
        for job in &jobs {
            if let Event::Join(join) = &job.event
                && let Some((_, client)) = after.client(join.connection)
                && self.socket_is_open(join.connection)
            {
                let mut member = Member { client: Some(client.clone()), ..Member::default() };
                member.client_view.modern = client.modern;
                self.nodes[node].members.insert(join.connection, member);
            }
            if let (Event::Frame { .. } | Event::Handshake { .. }, Some((connection, _))) = (&job.event, &job.frame)
                && let Some(member) = self.nodes[node].members.get_mut(connection)
            {
                (member.spoke, member.busy) = (true, false);
            }
        }
        self.observe(node, &after, version, term);
        self.nodes[node].claimed = self.nodes[node].claimed.max(term);
        if wrote && version != base.version + 1 {
            self.tick(node);
        }
        for (index, effect) in effects {
            self.perform(node, &after, jobs[index].frame.as_ref(), &effect);
        }
        for job in jobs {
            if let Event::Handshake { connection, resume } = job.event {
                self.acknowledge(node, connection, resume, &after);
            }
        }
    }
}
