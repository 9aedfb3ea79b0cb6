//! A node's heartbeats, and its calls to the store, which may come late or get no answer.

use gitorial_relay::ids::{Millis, NodeId};
use gitorial_relay::protocol::CloseReason;
use gitorial_relay::room::{Input, Request};
use gitorial_relay::session::Activity;
use gitorial_relay::store::{Beat, Committed, StoreLineage};
use rand::Rng;

use super::faults::Mutation;
use super::node::{SocketNumber, timing};
use super::relay::AtNode;
use super::world::{Event, World};

/// How long a node waits for the store.
const COMMAND_TIMEOUT: Millis = 660;

/// After how long without a word a socket counts as dead.
const SILENT: Millis = 10_000;

/// A call to the store.
#[derive(Clone, Debug)]
pub struct Call {
    pub node: usize,
    pub boot: u64,
    pub id: NodeId,
    pub operation: Operation,
}

/// What is asked of the store.
#[derive(Clone, Debug)]
pub enum Operation {
    /// By the room with this number.
    Room(u64, Request),
    /// The room with this number reports activity.
    Touch(u64, Activity),
    /// A heartbeat that began at this time of the node.
    Beat(u64, u64),
    /// The heartbeats of these nodes.
    Beats(Vec<NodeId>),
}

impl World {
    /// A call leaves for the store. It may be lost, or its answer may.
    pub fn send_call(&mut self, call: Call) {
        let latency = self.latency();
        let broken = self.store_away || self.nodes[call.node].cut;
        let answered = !self.answers_lost || self.rng.random_bool(0.7);
        if answered && !broken {
            return self.after(latency, Event::Store(call));
        }
        // It may still be carried out, while its node waits or later.
        if self.rng.random_bool(0.5) {
            let late = self.rng.random_range(0..2 * COMMAND_TIMEOUT);
            self.after(late, Event::Store(Call { boot: u64::MAX, ..call.clone() }));
        }
        let (node, boot) = (call.node, call.boot);
        let conflict = self.mutation == Some(Mutation::LostIsConflict);
        let failed = match call.operation {
            Operation::Room(number, Request::Commit(_)) if conflict => {
                AtNode::Answer(number, Box::new(Input::Committed(Committed::Conflict)))
            }
            Operation::Room(number, _) => AtNode::Answer(number, Box::new(Input::Failed)),
            Operation::Touch(number, activity) => {
                AtNode::Answer(number, Box::new(Input::Touched { activity, found: None }))
            }
            Operation::Beat(began, _) => AtNode::Beat(began, None),
            Operation::Beats(_) => AtNode::Beats(Vec::new(), false),
        };
        self.after(COMMAND_TIMEOUT, Event::Node(node, boot, failed));
    }

    /// A call reaches the store. A call whose answer is lost names no incarnation.
    pub fn call_store(&mut self, Call { node, boot, id, operation }: Call) {
        if boot == u64::MAX && self.store_away && self.rng.random_bool(0.5) {
            return;
        }
        let latency = self.latency();
        let answer = match operation {
            Operation::Beat(began, count) => AtNode::Beat(began, Some(self.store.beat(&id, count, self.now))),
            Operation::Beats(nodes) => AtNode::Beats(self.store.beats(&nodes), true),
            Operation::Touch(number, activity) => {
                let found = Some(self.store.touch(&id, activity));
                AtNode::Answer(number, Box::new(Input::Touched { activity, found }))
            }
            Operation::Room(number, request) => {
                let input = self.answer(node, boot, request);
                AtNode::Answer(number, Box::new(input))
            }
        };
        self.after(latency, Event::Node(node, boot, answer));
    }

    /// The store answers a room. What its node learns from an answer besides, it learns at once.
    fn answer(&mut self, node: usize, boot: u64, request: Request) -> Input<SocketNumber, super::node::Ticket> {
        let (now, listens) = (self.now, self.nodes[node].boot == boot);
        match request {
            Request::Load => {
                let loaded = self.store.load(now);
                if listens {
                    self.nodes[node].set_store_clock(loaded.now, now);
                    if self.mutation != Some(Mutation::UnknownServer) {
                        let local = self.nodes[node].local(now);
                        self.nodes[node].observer.heard_from(&loaded.server, local);
                    }
                }
                Input::Loaded(loaded)
            }
            Request::LookAgain(nodes) => {
                let beats = self.store.beats(&nodes);
                Input::StillLapsed(self.nodes[node].observer.still_lapsed(beats))
            }
            Request::Commit(write) => {
                let committed = self.store.commit(write, now);
                self.note(|| format!("store: {committed:?}"));
                Input::Committed(committed)
            }
            Request::ReadLineage => {
                let lineage = self.store.lineage();
                if listens {
                    self.learn(node, lineage);
                }
                Input::LineageRead
            }
            Request::Create(session, _) => {
                self.drawn += 1;
                self.store.create(session, self.drawn);
                Input::Created
            }
            Request::Pause(_) => Input::Resumed,
        }
    }

    fn learn(&mut self, node: usize, lineage: StoreLineage) {
        if self.mutation != Some(Mutation::UnknownLineage) {
            let local = self.nodes[node].local(self.now);
            self.nodes[node].observer.read_lineage(lineage, local);
        }
    }

    pub fn begin_heartbeat(&mut self, node: usize) {
        let heartbeat = Millis::try_from(timing().heartbeat.as_millis()).unwrap_or(0);
        self.at_node(node, heartbeat, AtNode::Heartbeat);
        self.find_gaps(node);
        self.close_silent_sockets(node);
        let local = self.nodes[node].local(self.now);
        self.nodes[node].beats += 1;
        let count = self.nodes[node].beats;
        self.call(node, Operation::Beat(local, count));
    }

    /// The heartbeat is written, and the node's own message has come back, or not.
    pub fn end_heartbeat(&mut self, node: usize, began: u64, beat: Option<Beat>) {
        let now = self.now;
        if let Some(beat) = beat {
            self.nodes[node].set_store_clock(beat.now, now);
            self.learn(node, beat.lineage);
            let silent = self.nodes[node].deaf || self.nodes[node].cut;
            if !silent || self.mutation == Some(Mutation::DeafRenewal) {
                self.renewed(node, began);
            }
        }
        let nodes: Vec<NodeId> = {
            let here = &self.nodes[node];
            let view = here.room.as_ref().and_then(|room| room.view());
            let all = view.iter().flat_map(|view| view.session.rosters.keys());
            all.filter(|other| **other != here.id).cloned().collect()
        };
        self.call(node, Operation::Beats(nodes));
    }

    fn renewed(&mut self, node: usize, began: u64) {
        let local = self.nodes[node].local(self.now);
        let began = if self.mutation == Some(Mutation::LateRenewal) { local } else { began };
        let renewed = self.nodes[node].observer.renewed(began, local);
        if renewed.new_term || renewed.data_lost {
            self.step_if_open(node, Input::Distrust { data_lost: renewed.data_lost });
            let after = self.rng.random_range(0..100);
            self.at_node(node, after, AtNode::Reload);
        }
    }

    /// The heartbeats of the other nodes are read.
    pub fn watched(&mut self, node: usize, beats: Vec<(NodeId, Option<u64>)>, answered: bool) {
        let mut local = self.nodes[node].local(self.now);
        if !answered {
            self.nodes[node].observer.reset_failure_detector(local);
        } else {
            if self.mutation == Some(Mutation::Impatient) {
                local += timing().patience() - timing().deadline(0) / 2;
            }
            let lapsed = self.nodes[node].observer.watched(beats, local);
            for dead in lapsed {
                self.reap(node, &dead);
            }
        }
        self.step_if_open(node, Input::Tick);
    }

    /// The first live node of a session reads it at once when another is dead, the others a little later.
    fn reap(&mut self, node: usize, dead: &NodeId) {
        let here = &self.nodes[node];
        let (lapsed, view) = (here.observer.lapsed(), here.room.as_ref().and_then(|room| room.view()));
        let Some(view) = view.filter(|view| view.session.rosters.contains_key(dead)) else { return };
        let first = view.session.first_alive(&lapsed) == Some(&here.id);
        let after = if first { 0 } else { Millis::try_from(timing().heartbeat.as_millis()).unwrap_or(0) };
        self.at_node(node, after, AtNode::Reload);
    }

    /// A node finds that messages to it were lost, and says so to the nodes that sent them.
    fn find_gaps(&mut self, node: usize) {
        if self.store_away || self.nodes[node].cut || self.nodes[node].deaf || self.network.lossy {
            return;
        }
        let lost: Vec<usize> = self.network.lost.iter().filter(|(_, to)| *to == node).map(|(from, _)| *from).collect();
        for from in lost {
            if !self.nodes[from].alive || self.nodes[from].cut {
                continue;
            }
            self.network.lost.remove(&(from, node));
            let (latency, to) = (self.latency(), self.nodes[node].id.clone());
            if self.mutation != Some(Mutation::SilentLoss) {
                self.at_node(from, latency, AtNode::Gap(to));
            }
        }
    }

    fn close_silent_sockets(&mut self, node: usize) {
        let local = self.nodes[node].local(self.now);
        let mut silent: Vec<SocketNumber> = Vec::new();
        for (number, socket) in &mut self.nodes[node].sockets {
            let client = &self.clients[socket.client];
            // A client that is there answers the pings of its socket.
            if client.socket.as_ref().is_some_and(|socket| socket.number == *number) && !client.stalled {
                socket.heard = local;
            } else if local.saturating_sub(socket.heard) > SILENT {
                silent.push(*number);
            }
        }
        for number in silent {
            self.close_socket(node, number, CloseReason::Silent);
        }
    }
}
