//! What happens at a node: its room takes a step, and the outputs are performed in order.

use gitorial_relay::control::Join;
use gitorial_relay::dialect::legacy::is_answered;
use gitorial_relay::ids::{ClientId, ConnectionId, NodeId, ResumeToken, SessionId};
use gitorial_relay::protocol::{CloseReason, Frame};
use gitorial_relay::queue::{Next, Queue, QueueLimits};
use gitorial_relay::room::{Env, FLUSH_TIMEOUT, Input, Item, Reply, Request};
use gitorial_relay::route::{Body, Kind, Route, RoutedFrame};
use gitorial_relay::store::Beat;
use gitorial_relay::trust::Trust;

use rand::Rng;

use super::client::Down;
use super::faults::Mutation;
use super::judge::Verdict;
use super::node::{Machine, NodeSocket, Performed, Sink, SocketNumber, Ticket, Up};
use super::upkeep::{Call, Operation};
use super::world::World;

/// Something that happens at a node.
#[derive(Debug)]
pub enum AtNode {
    /// The store answered the room with this number.
    Answer(u64, Box<Input<SocketNumber, Ticket>>),
    /// A heartbeat is due.
    Heartbeat,
    /// The heartbeat that began at this time of the node is written, or not.
    Beat(u64, Option<Beat>),
    /// The heartbeats of these nodes were read, or not.
    Beats(Vec<(NodeId, Option<u64>)>, bool),
    /// The room reads its document again.
    Reload,
    /// A message of another node.
    Message { from: NodeId, body: Body },
    /// Another node missed messages of this one.
    Gap(NodeId),
    /// A socket opens.
    Opens(SocketNumber, usize, Option<String>, Option<String>),
    /// A socket brings something.
    Up(SocketNumber, Up),
    /// A socket's writer looks at its queue.
    Write(SocketNumber),
    /// A client took too long to answer a probe.
    Late(ConnectionId, u64),
    /// A drain closes this socket.
    DrainSocket(SocketNumber),
    /// A drain is over.
    Drained,
}

/// The name of a socket in the document.
pub fn connection(number: SocketNumber) -> ConnectionId {
    ConnectionId::from_number(u128::from(number) << 96)
}

impl World {
    pub fn happen_at_node(&mut self, node: usize, what: AtNode) {
        match what {
            AtNode::Answer(number, input) => {
                self.nodes[node].asking &= matches!(*input, Input::Touched { .. });
                if self.nodes[node].room.is_some() && self.nodes[node].room_number == number {
                    self.step(node, *input);
                }
            }
            AtNode::Heartbeat => self.begin_heartbeat(node),
            AtNode::Beat(began, beat) => self.end_heartbeat(node, began, beat),
            AtNode::Beats(beats, answered) => self.watched(node, beats, answered),
            AtNode::Reload => self.step_if_open(node, Input::Reload),
            AtNode::Message { from, body } => match body {
                Body::Changed { .. } => self.step(node, Input::Message { from, body }),
                Body::Frame(_) | Body::RecentStates(_) => self.step_if_open(node, Input::Message { from, body }),
            },
            AtNode::Gap(to) => self.step(node, Input::Gap { to }),
            AtNode::Opens(number, client, id, token) => self.opens(node, number, client, id, token),
            AtNode::Up(number, up) => {
                let local = self.nodes[node].local(self.now);
                if let Some(socket) = self.nodes[node].sockets.get_mut(&number) {
                    socket.heard = local;
                    socket.inbound.push_back(up);
                    self.read(node, number);
                }
            }
            AtNode::Write(number) => self.write(node, number),
            AtNode::Late(connection, number) => self.step_if_open(node, Input::Pong { connection, number }),
            AtNode::DrainSocket(number) => self.close_socket(node, number, CloseReason::Drain),
            AtNode::Drained => self.drained(node),
        }
    }

    /// What the node believes now.
    fn trust(&self, node: usize) -> Trust {
        let mut trust = self.nodes[node].observer.trust();
        if self.mutation == Some(Mutation::EternalLease) && trust.lease.term > 0 {
            trust.lease.deadline = u64::MAX;
        }
        trust
    }

    pub fn step_if_open(&mut self, node: usize, input: Input<SocketNumber, Ticket>) {
        if self.nodes[node].room.is_some() {
            self.step(node, input);
        }
    }

    /// The node's room takes a step.
    pub fn step(&mut self, node: usize, input: Input<SocketNumber, Ticket>) {
        self.note(|| format!("node {node}: {}", brief(&input)));
        let (now, trust) = (self.nodes[node].now(self.now), self.trust(node));
        let here = &mut self.nodes[node];
        if here.room.is_none() {
            (here.room, here.room_number) = (Some(Machine::default()), here.room_number + 1);
        }
        let (drawn, session) = (&mut self.drawn, SessionId::from_bits(1));
        let mut draw = || {
            *drawn += 1;
            *drawn
        };
        let mut env = Env { session, here: &here.id, now, trust, rules: &self.rules, draw: &mut draw };
        let mut sink = Sink { outputs: Vec::new(), sockets: &mut here.sockets };
        if let Some(room) = &mut here.room {
            room.step(&mut env, input, &mut sink);
        }
        let mut outputs = sink.outputs;
        if self.mutation == Some(Mutation::Reversed) {
            outputs.reverse();
        }
        for output in outputs {
            let unheard = self.mutation == Some(Mutation::Unannounced)
                && matches!(output, Performed::Publish(_, Body::Changed { .. }));
            if !unheard {
                self.perform(node, output);
            }
        }
        self.serve(node);
        self.close_room_if_idle(node);
    }

    pub fn close_room_if_idle(&mut self, node: usize) {
        let careless = self.mutation == Some(Mutation::ForgottenRoom);
        let here = &mut self.nodes[node];
        let idle =
            here.room.as_ref().is_some_and(|room| room.is_idle(&here.id) || careless && room.members().is_empty());
        if idle && !here.asking {
            here.room = None;
        }
    }

    fn perform(&mut self, node: usize, output: Performed) {
        self.note_state(node, &output);
        let local = self.nodes[node].local(self.now);
        match output {
            Performed::Request(request) => self.request(node, request),
            Performed::Touch(activity) => {
                let number = self.nodes[node].room_number;
                self.call(node, Operation::Touch(number, activity));
            }
            Performed::Publish(to, body) => self.publish(node, &to, body),
            Performed::Send(number, item) => {
                if let Some(socket) = self.nodes[node].sockets.get_mut(&number) {
                    socket.queue.push(item, &QueueLimits::default(), local);
                }
            }
            Performed::Close(number, reason) => {
                if let Some(socket) = self.nodes[node].sockets.get_mut(&number) {
                    socket.queue.close(reason);
                }
            }
            Performed::Probe(number, of) => {
                let Some(socket) = self.nodes[node].sockets.get_mut(&number) else { return };
                socket.queue.probe(of);
                let connection = socket.connection;
                self.at_node(node, FLUSH_TIMEOUT, AtNode::Late(connection, of));
            }
            Performed::HoldAfterLeave(number) => {
                if let Some(socket) = self.nodes[node].sockets.get_mut(&number) {
                    socket.queue.hold_after_leave(local);
                }
            }
            Performed::HoldNothing(number) => {
                if let Some(socket) = self.nodes[node].sockets.get_mut(&number) {
                    socket.queue.hold_nothing();
                }
            }
            Performed::Reply(Ticket::Join(number), reply) => self.joined(node, number, reply),
            Performed::Reply(Ticket::Nobody, _) => {}
        }
    }

    /// Notes a state that the node lets through: of a client of its own, to whomever.
    fn note_state(&mut self, node: usize, output: &Performed) {
        let (source, epoch) = match output {
            Performed::Send(_, Item { state_of: Some(state), .. }) => *state,
            Performed::Publish(_, Body::Frame(RoutedFrame { route, .. })) if route.kind == Kind::State => {
                (route.source, route.epoch)
            }
            _ => return,
        };
        let socket = self.nodes[node].sockets.values().find(|socket| socket.connection == source);
        if let Some(client) = socket.map(|socket| socket.client) {
            self.passes(client, epoch);
        }
    }

    fn request(&mut self, node: usize, request: Request) {
        self.nodes[node].asking = true;
        let number = self.nodes[node].room_number;
        if let Request::Pause(attempt) = request {
            let wait = self.rng.random_range(0..=1 << attempt.min(6));
            return self.at_node(node, wait, AtNode::Answer(number, Box::new(Input::Resumed)));
        }
        if let Request::LookAgain(nodes) = &request {
            let dead = self.nodes[node].observer.suspects(nodes.clone());
            let stale = self.mutation == Some(Mutation::StaleHeartbeats);
            if dead.is_empty() || stale {
                let answer = Input::StillLapsed(dead.into_iter().collect());
                return self.at_node(node, 0, AtNode::Answer(number, Box::new(answer)));
            }
            return self.call(node, Operation::Room(number, Request::LookAgain(dead)));
        }
        self.call(node, Operation::Room(number, request));
    }

    /// A socket opens, and its client asks to join.
    fn opens(&mut self, node: usize, number: SocketNumber, client: usize, id: Option<String>, token: Option<String>) {
        self.send_down(client, number, Down::Opened);
        let (joined, heard) = (false, self.nodes[node].local(self.now));
        let connection = connection(number);
        let (queue, inbound, looks_at) = (Queue::default(), Default::default(), 0);
        let socket = NodeSocket { client, connection, queue, inbound, joined, heard, looks_at };
        self.nodes[node].sockets.insert(number, socket);
        if self.nodes[node].draining {
            return self.joined(node, number, Reply::Closed(CloseReason::Drain));
        }
        if !self.nodes[node].has_lease(self.now) {
            return self.joined(node, number, Reply::Unavailable);
        }
        let join = Join {
            connection,
            wants: id.as_deref().and_then(ClientId::parse),
            otherwise: ClientId::from_bits(number.into()),
            asked_at: self.nodes[node].now(self.now).store,
            resume: token.map(|token| ResumeToken::presented(&token).digest()),
        };
        self.step(node, Input::Join { join, socket: number, ticket: Ticket::Join(number) });
    }

    fn joined(&mut self, node: usize, number: SocketNumber, reply: Reply) {
        let reason = match reply {
            Reply::Joined { .. } => {
                if let Some(socket) = self.nodes[node].sockets.get_mut(&number) {
                    socket.joined = true;
                }
                return self.at_node(node, 0, AtNode::Write(number));
            }
            Reply::Closed(reason) => reason,
            Reply::Missing => CloseReason::SessionNotFound,
            Reply::Unavailable | Reply::Done => CloseReason::StoreUnavailable,
        };
        if let Some(socket) = self.nodes[node].sockets.remove(&number) {
            self.send_down(socket.client, number, Down::Close(reason.code(), reason.text().to_owned()));
        }
    }

    /// Reads what a socket has brought, one frame after the other.
    pub fn read(&mut self, node: usize, number: SocketNumber) {
        loop {
            let here = &mut self.nodes[node];
            let Some(socket) = here.sockets.get_mut(&number).filter(|socket| socket.joined) else { return };
            let connection = socket.connection;
            let deciding = here.room.as_ref().is_some_and(|room| room.is_deciding(connection));
            if deciding && self.mutation != Some(Mutation::Overtaking) {
                return;
            }
            let Some(up) = socket.inbound.pop_front() else { return };
            match up {
                Up::Frame(text) => match Frame::parse(text) {
                    Ok(frame) => self.step(node, Input::Frame { connection, frame }),
                    Err(malformed) => self.step(node, Input::Malformed { connection, code: malformed.code() }),
                },
                Up::Pong(number) => self.step_if_open(node, Input::Pong { connection, number }),
                Up::Close(code) => return self.leave(node, number, !matches!(code, 1000 | 1001 | 1005)),
                Up::Lost => return self.leave(node, number, true),
            }
        }
    }

    pub fn leave(&mut self, node: usize, number: SocketNumber, lost: bool) {
        let Some(socket) = self.nodes[node].sockets.remove(&number) else { return };
        if socket.joined {
            let connection = socket.connection;
            self.step(node, Input::Leave { connection, lost, ticket: Ticket::Nobody });
        }
    }

    pub fn close_socket(&mut self, node: usize, number: SocketNumber, reason: CloseReason) {
        if let Some(socket) = self.nodes[node].sockets.get_mut(&number) {
            socket.queue.close(reason);
            self.at_node(node, 0, AtNode::Write(number));
        }
    }

    /// The sockets' tasks get their turn after a step: they read on, and write what is queued.
    fn serve(&mut self, node: usize) {
        let waiting: Vec<SocketNumber> = self.nodes[node].sockets.keys().copied().collect();
        for number in waiting {
            self.at_node(node, 0, AtNode::Write(number));
        }
    }

    /// A socket's task: it reads what waits, and writes its queue.
    fn write(&mut self, node: usize, number: SocketNumber) {
        self.read(node, number);
        loop {
            let local = self.nodes[node].local(self.now);
            let here = &mut self.nodes[node];
            let Some(socket) = here.sockets.get_mut(&number).filter(|socket| socket.joined) else { return };
            let deciding = here.room.as_ref().is_some_and(|room| room.is_deciding(socket.connection));
            let heard_all = socket.inbound.is_empty() && !deciding;
            let client = socket.client;
            let early = if self.mutation == Some(Mutation::NoHold) { 1_000_000 } else { 0 };
            match socket.queue.next(local + early, heard_all || early > 0) {
                Next::Write(item) => {
                    let leaves = socket.inbound.iter().any(|up| matches!(up, Up::Close(_)));
                    if leaves && is_answered(item.kind) && !self.clients[client].brain.is_modern() {
                        self.finds(Verdict::Hurt {
                            who: self.clients[client].who,
                            how: "asked after its close".into(),
                        });
                    }
                    let text = String::from_utf8_lossy(&item.text).into_owned();
                    self.send_down(client, number, Down::Text(text));
                }
                Next::Probe(of) => self.send_down(client, number, Down::Probe(of)),
                Next::ReadFirst if socket.looks_at > self.now => return,
                Next::ReadFirst => {
                    socket.looks_at = self.now + 1;
                    return self.at_node(node, 1, AtNode::Write(number));
                }
                Next::Wait(None) => return,
                Next::Wait(Some(until)) => {
                    return self.at_node(node, until.saturating_sub(local) + 1, AtNode::Write(number));
                }
                Next::Close(reason) => {
                    self.send_down(client, number, Down::Close(reason.code(), reason.text().to_owned()));
                    return self.leave(node, number, reason.keeps_place());
                }
            }
        }
    }

    /// A node in a drain has closed its sockets: it gives its lease back and ends.
    fn drained(&mut self, node: usize) {
        self.nodes[node].observer.retire();
        let id = self.nodes[node].id.clone();
        self.store.retire(&id);
        self.crash(node);
    }

    pub fn call(&mut self, node: usize, operation: Operation) {
        let here = &self.nodes[node];
        let call = Call { node, boot: here.boot, id: here.id.clone(), operation };
        self.send_call(call);
    }
}

/// An input in a few words, for the trace.
fn brief(input: &Input<SocketNumber, Ticket>) -> String {
    if let Input::Message { from, body: Body::Frame(RoutedFrame { route, text }) } = input {
        let Route { kind, source, target, epoch, .. } = route;
        return format!("{kind:?} of {source:?} from {from} to {target:?} in epoch {}: {text:?}", epoch.0);
    }
    let Input::Loaded(loaded) = input else { return format!("{input:?}").chars().take(200).collect() };
    let Some(stored) = &loaded.found else { return format!("Loaded: nothing, from {}", loaded.server) };
    let core = &stored.session.core;
    let name = |controller: &Option<gitorial_relay::session::Controller>| {
        controller.as_ref().map_or("nobody".to_owned(), |c| format!("{} on {}", c.client.as_str(), c.place.node))
    };
    let clients = stored.session.rosters.iter().map(|(node, roster)| {
        let clients = roster.clients.iter().map(|client| (client.connection, client.cut_off_at.is_some()));
        format!("{node}: {:?}", clients.collect::<Vec<_>>())
    });
    let (epoch, controller, server) = (core.epoch.0, name(&core.controller), &loaded.server);
    let moving = core.transfer.as_ref().map_or(String::new(), |transfer| format!(" moving to {}", name(&transfer.to)));
    let clients = clients.collect::<Vec<_>>().join(", ");
    let superseded = &core.superseded;
    let version = stored.version;
    format!("Loaded {version} from {server}: epoch {epoch} of {controller}{moving}; {clients}; without {superseded:?}")
}
