//! A session, its nodes and its clients, in one thread: every message, store request, answer and frame waits until a
//! step of the test moves it. Only time passes by itself for all: leases are renewed, and what is due is done.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use gitorial_relay::control::{Join, Rules};
use gitorial_relay::ids::{ClientId, ConnectionId, Epoch, Millis, NodeId, ResumeToken};
use gitorial_relay::protocol::{CloseReason, Frame};
use gitorial_relay::room::{Input, Request};
use gitorial_relay::route::Body;
use gitorial_relay::session::{Info, Session, Strategy};
use serde_json::Value;

use super::client::Client;
use super::machine::{Node, Open};
use super::old_script::{Generation, Phase};
use super::store::Store;

/// More rounds than any world needs to come to rest.
const ROUNDS: usize = 400;

/// How often leases are renewed.
const HEARTBEAT: Millis = 1_000;

/// A lease has lapsed for its owner after so long without a renewal, but not yet for the other nodes.
const LAPSED: Millis = 4_500;

/// After so much longer the other nodes know it too.
const KNOWN_DEAD: Millis = 3_000;

/// What a client's socket brings to its node.
#[derive(Debug)]
pub enum Up {
    Frame(Bytes),
    Pong(u64),
    Close { lost: bool },
}

/// What a node sends to a client.
#[derive(Debug)]
pub enum Down {
    Text(Bytes),
    Probe(u64),
    Close,
}

/// A socket, and what is under way on it.
#[derive(Debug)]
pub struct Socket {
    pub client: usize,
    pub node: usize,
    pub connection: ConnectionId,
    pub joined: bool,
    /// Its node has not seen its end.
    pub at_node: bool,
    up: VecDeque<Up>,
    down: VecDeque<Down>,
}

/// The whole world.
#[derive(Debug)]
pub struct World {
    pub now: Millis,
    pub rules: Rules,
    pub store: Store,
    pub nodes: Vec<Node>,
    pub clients: Vec<Client>,
    /// All sockets that were ever opened.
    pub sockets: Vec<Socket>,
    /// The states of controllers that were forwarded, in order: the grant and the sender's socket.
    pub passed: Vec<(Epoch, ConnectionId)>,
    /// How often a room has drawn a number.
    pub drawn: u128,
    /// The store may have carried out a write of which no node tells the others.
    pub unannounced: bool,
    /// The messages from one node to another.
    links: BTreeMap<(usize, usize), VecDeque<Body>>,
    /// The links on which a message was lost that nobody has noticed.
    gaps: BTreeSet<(usize, usize)>,
}

impl World {
    pub fn new(strategy: Strategy, nodes: usize, generations: &[Option<Generation>]) -> Self {
        let created_at = Store::clock(0);
        let info = Info { created_at, ttl: 1 << 40, ends_at: created_at + (1 << 41), strategy, metadata: None };
        let clients = generations.iter().enumerate();
        let mut world = Self {
            now: 0,
            rules: Rules { max_requests: 2, ..Rules::default() },
            store: Store::new(Session::new(Arc::new(info))),
            nodes: (0..nodes).map(Node::new).collect(),
            clients: clients.map(|(number, generation)| Client::new(*generation, number)).collect(),
            sockets: Vec::new(),
            passed: Vec::new(),
            drawn: 0,
            unannounced: false,
            links: BTreeMap::new(),
            gaps: BTreeSet::new(),
        };
        world.wait(HEARTBEAT);
        world
    }

    /// The document in the store, and its version.
    pub fn document(&self) -> (&Session, u64) {
        let stored = self.store.document().expect("the store never loses it");
        (&stored.session, stored.version)
    }

    /// A client opens a socket on a node, and comes back as itself if it can.
    pub fn connect(&mut self, client: usize, node: usize) {
        let node = node % self.nodes.len();
        // A node without a lease lets nobody in.
        if self.clients[client].socket.is_some() || !self.nodes[node].alive || !self.has_lease(node) {
            return;
        }
        let number = self.sockets.len();
        let connection = ConnectionId::from_number((number as u128 + 1) << 96);
        let (up, down) = (VecDeque::new(), VecDeque::new());
        self.sockets.push(Socket { client, node, connection, joined: false, at_node: true, up, down });
        let (wants, token) = self.clients[client].query();
        let join = Join {
            connection,
            wants: wants.as_deref().and_then(ClientId::parse),
            otherwise: ClientId::from_bits(number as u128),
            asked_at: Store::clock(self.now),
            resume: token.map(|token| ResumeToken::presented(&token).digest()),
        };
        let greeting = self.clients[client].opened(number);
        self.send_all(client, greeting);
        self.step(node, Input::Join { join, socket: number, ticket: Some(number) });
    }

    /// A client's socket ends, with or without a close frame. Without one, what is under way to its node is lost.
    pub fn disconnect(&mut self, client: usize, lost: bool) {
        let Some(number) = self.clients[client].socket.take() else { return };
        let socket = &mut self.sockets[number];
        if lost {
            socket.up.clear();
        }
        socket.up.push_back(Up::Close { lost });
        socket.down.clear();
    }

    /// A client's user acts.
    pub fn act(&mut self, client: usize, choice: u8) {
        if self.clients[client].socket.is_some() {
            let frames = self.clients[client].act(choice);
            self.send_all(client, frames);
        }
    }

    fn send_all(&mut self, client: usize, frames: Vec<Value>) {
        let Some(number) = self.clients[client].socket else { return };
        let frames = frames.iter().map(|frame| Up::Frame(frame.to_string().into()));
        self.sockets[number].up.extend(frames);
    }

    pub fn send_down(&mut self, number: usize, down: Down) {
        let socket = &mut self.sockets[number];
        if self.clients[socket.client].socket == Some(number) {
            socket.down.push_back(down);
        }
    }

    /// A node closes a socket. Returns what its room hears of that.
    pub fn close(&mut self, number: usize, reason: CloseReason) -> Option<Input<usize, Option<usize>>> {
        self.send_down(number, Down::Close);
        let socket = &mut self.sockets[number];
        let open = std::mem::replace(&mut socket.at_node, false);
        let (connection, lost) = (socket.connection, reason.keeps_place());
        open.then_some(Input::Leave { connection, lost, ticket: None })
    }

    /// The sockets on which something is under way to a node that reads it.
    pub fn readable(&self) -> Vec<usize> {
        let readable = |number: &usize| {
            let Socket { connection, node, joined, at_node, up, .. } = &self.sockets[*number];
            let room = self.nodes[*node].room.as_ref();
            *joined && *at_node && !up.is_empty() && !room.is_some_and(|room| room.is_deciding(*connection))
        };
        (0..self.sockets.len()).filter(readable).collect()
    }

    /// The clients to which something is under way.
    pub fn receiving(&self) -> Vec<usize> {
        let number = |client: &usize| self.clients[*client].socket;
        let receiving = |client: &usize| number(client).is_some_and(|number| !self.sockets[number].down.is_empty());
        (0..self.clients.len()).filter(receiving).collect()
    }

    /// The nodes that wait for the store.
    pub fn working(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].open.is_some()).collect()
    }

    /// The links on which messages are under way.
    pub fn links(&self) -> Vec<(usize, usize)> {
        self.links.iter().filter(|(_, link)| !link.is_empty()).map(|(ends, _)| *ends).collect()
    }

    /// The oldest frame on a socket reaches its node.
    pub fn read(&mut self, number: usize) {
        let Socket { connection, node, .. } = self.sockets[number];
        match self.sockets[number].up.pop_front() {
            Some(Up::Frame(text)) => {
                let frame = Frame::parse(text).unwrap();
                self.step(node, Input::Frame { connection, frame });
            }
            Some(Up::Pong(number)) => self.step_if_open(node, Input::Pong { connection, number }),
            Some(Up::Close { lost }) => {
                self.sockets[number].at_node = false;
                self.step(node, Input::Leave { connection, lost, ticket: None });
            }
            None => {}
        }
    }

    /// A client takes what has reached it first.
    pub fn receive(&mut self, client: usize) {
        let Some(number) = self.clients[client].socket else { return };
        match self.sockets[number].down.pop_front() {
            Some(Down::Text(text)) => {
                let answers = self.clients[client].hear(std::str::from_utf8(&text).unwrap());
                self.send_all(client, answers);
            }
            Some(Down::Probe(probe)) => self.sockets[number].up.push_back(Up::Pong(probe)),
            Some(Down::Close) => self.clients[client].socket = None,
            None => {}
        }
    }

    /// Whether nothing is under way between a client and its node.
    pub fn is_quiet(&self, client: usize) -> bool {
        let socket = self.clients[client].socket.map(|number| &self.sockets[number]);
        socket.is_some_and(|socket| socket.up.is_empty() && socket.down.is_empty())
    }

    pub fn publish(&mut self, from: usize, to: &NodeId, body: Body) {
        if let Some(to) = self.nodes.iter().position(|node| node.id == *to && node.alive) {
            self.links.entry((from, to)).or_default().push_back(body);
        }
    }

    /// The oldest message on a link reaches its node.
    pub fn deliver(&mut self, (from, to): (usize, usize)) {
        if let Some(body) = self.links.get_mut(&(from, to)).and_then(VecDeque::pop_front) {
            let from = self.nodes[from].id.clone();
            self.step_if_open(to, Input::Message { from, body });
        }
    }

    /// The oldest message on a link is lost.
    pub fn lose_message(&mut self, link: (usize, usize)) {
        if self.links.get_mut(&link).and_then(VecDeque::pop_front).is_some() {
            self.gaps.insert(link);
        }
    }

    /// A node notices that messages to it were lost, and says so to the nodes that sent them.
    pub fn report_gaps(&mut self, node: usize) {
        let (gaps, others): (BTreeSet<_>, _) = self.gaps.iter().copied().partition(|(_, to)| *to == node);
        self.gaps = others;
        for (from, _) in gaps {
            let to = self.nodes[node].id.clone();
            self.step(from, Input::Gap { to });
        }
    }

    /// A node is gone, and all its sockets with it. The first one stays, so that one node is left.
    pub fn crash(&mut self, node: usize) {
        if node == 0 || node >= self.nodes.len() {
            return;
        }
        let open = self.nodes[node].open.take();
        let committed = |open: &Open| matches!(open, Open::Answered(answer) if matches!(**answer, Input::Committed(_)));
        self.unannounced |= open.as_ref().is_some_and(committed) || self.gaps.iter().any(|(from, _)| *from == node);
        let stray = match open {
            // Its last write may still be on its way to the store.
            Some(Open::Asked(Request::Commit(write))) => Some(write),
            _ => self.nodes[node].stray.take(),
        };
        self.nodes[node] = Node::new(node);
        (self.nodes[node].alive, self.nodes[node].stray) = (false, stray);
        for (number, socket) in self.sockets.iter_mut().enumerate().filter(|(_, socket)| socket.node == node) {
            socket.at_node = false;
            self.clients[socket.client].socket.take_if(|open| *open == number);
        }
        self.links.retain(|(_, to), _| *to != node);
        self.gaps.retain(|(from, to)| *from != node && *to != node);
    }

    /// Time passes. The nodes that reach the store renew their leases.
    pub fn wait(&mut self, millis: Millis) {
        let end = self.now + millis;
        while self.now < end {
            self.now = end.min(self.now + HEARTBEAT);
            for node in 0..self.nodes.len() {
                if self.nodes[node].alive {
                    self.give_up_probes(node);
                    self.beat(node);
                }
            }
        }
    }

    /// A node loses its lease.
    pub fn lapse(&mut self, node: usize) {
        self.nodes[node].silent = true;
        self.wait(LAPSED);
    }

    /// The other nodes notice which nodes have lost their leases.
    pub fn notice_the_dead(&mut self) {
        self.wait(KNOWN_DEAD);
    }

    /// A node has a lease again.
    pub fn renew(&mut self, node: usize) {
        if self.nodes[node].alive && std::mem::take(&mut self.nodes[node].silent) {
            self.beat(node);
        }
    }

    /// Everything under way arrives.
    pub fn drain(&mut self) {
        for _ in 0..ROUNDS {
            let (readable, receiving) = (self.readable(), self.receiving());
            let (working, links) = (self.working(), self.links());
            if readable.is_empty() && receiving.is_empty() && working.is_empty() && links.is_empty() {
                return;
            }
            readable.into_iter().for_each(|socket| self.read(socket));
            receiving.into_iter().for_each(|client| self.receive(client));
            links.into_iter().for_each(|link| self.deliver(link));
            working.into_iter().for_each(|node| self.work(node));
        }
        panic!("the world does not come to rest: {self:#?}");
    }

    /// All faults end: dead nodes are found, grace periods end, and every client that believes it has control says so.
    pub fn heal(&mut self) {
        for node in 0..self.nodes.len() {
            self.renew(node);
        }
        self.drain();
        self.settle();
        for client in 0..self.clients.len() {
            if self.clients[client].phase() == Phase::Active && self.clients[client].socket.is_some() {
                let frames = self.clients[client].send_state();
                self.send_all(client, frames);
            }
        }
        self.drain();
        // Clients that lost or gained control by that have time for one more vain claim.
        self.settle();
    }

    /// Leases of dead nodes lapse, grace periods end, and nobody waits for an answer any more.
    fn settle(&mut self) {
        for pause in [LAPSED + KNOWN_DEAD, 15_000, 15_000] {
            self.wait(pause);
            for node in 0..self.nodes.len() {
                // Otherwise every node has heard of every write.
                if self.unannounced {
                    self.step_if_open(node, Input::Reload);
                }
            }
            self.drain();
        }
    }

    /// A node works until its room wants to write.
    pub fn work_until_it_writes(&mut self, node: usize) {
        while !matches!(self.nodes[node].open, Some(Open::Asked(Request::Commit(_)))) {
            assert!(self.nodes[node].open.is_some(), "it does not write");
            self.work(node);
        }
    }
}
