//! A node of the lockstep world: the real room and the real observer. What the room asks of the store waits until a
//! step of the test moves it, and so does the answer.

use std::collections::VecDeque;

use gitorial_relay::ids::{ConnectionId, Epoch, Millis, NodeId, SessionId};
use gitorial_relay::protocol::{CloseReason, FrameType};
use gitorial_relay::room::{Env, FLUSH_TIMEOUT, Input, LocalController, Output, Outputs, Reply, Request, Room};
use gitorial_relay::route::{Body, Kind};
use gitorial_relay::session::Activity;
use gitorial_relay::stored::Write;
use gitorial_relay::trust::{Now, Observer, Timing};

use super::store::Store;
use super::world::{Down, World};

/// The room, whose sockets are numbers. A caller that waits for a reply is the number of a socket that joins.
type Machine = Room<usize, Option<usize>>;
type MachineInput = Input<usize, Option<usize>>;

/// The open request of a room.
#[derive(Debug)]
pub enum Open {
    /// It is on its way to the store.
    Asked(Request),
    /// The store has carried it out, and the answer is on its way to the room.
    Answered(Box<MachineInput>),
}

/// An output that is performed after the step.
enum Performed {
    Request(Request),
    Touch(Activity),
    Publish(NodeId, Body),
    Send(usize, Down, Option<(ConnectionId, Epoch)>),
    Close(usize, CloseReason),
    Probe(usize, u64),
    Joined(usize, Reply),
}

#[derive(Default)]
struct Sink(Vec<Performed>);

impl Outputs<usize, Option<usize>> for Sink {
    fn put(&mut self, output: Output<'_, usize, Option<usize>>) {
        self.0.push(match output {
            Output::Ask(request) => Performed::Request(*request),
            Output::Touch(activity, _) => Performed::Touch(activity),
            Output::Publish(node, body) => Performed::Publish(node.clone(), body),
            Output::Send(socket, item) => Performed::Send(*socket, Down::Text(item.text), item.state_of),
            Output::Close(socket, reason) => Performed::Close(*socket, reason),
            Output::Probe(socket, number) => Performed::Probe(*socket, number),
            Output::Reply(Some(socket), reply) => Performed::Joined(socket, reply),
            // Frames go straight to their client, so nothing is held.
            Output::HoldAfterLeave(_) | Output::HoldNothing(_) => return,
            Output::Reply(None, _) | Output::Decided(_) | Output::Emit(_) => return,
            Output::Count(_) | Output::Undecided { .. } => return,
        });
    }

    /// A frame is under way to its client at once.
    fn withdraw(&mut self, _: &usize, _: FrameType) -> usize {
        0
    }
}

/// A node.
#[derive(Debug)]
pub struct Node {
    pub id: NodeId,
    pub alive: bool,
    /// Its heartbeats do not reach the store, and it does not hear of those of others.
    pub silent: bool,
    pub room: Option<Machine>,
    pub open: Option<Open>,
    /// A write that got no answer. The store may carry it out until it carries out the next request of this node.
    pub stray: Option<Write>,
    observer: Observer,
    beats: u64,
    /// The probes that are not answered yet: until when, by whom, and their numbers.
    probes: Vec<(Millis, ConnectionId, u64)>,
}

impl Node {
    pub fn new(number: usize) -> Self {
        Self {
            id: NodeId::incarnation(&format!("node-{number}"), 1),
            alive: true,
            silent: false,
            room: None,
            open: None,
            stray: None,
            observer: Observer::new(Timing::default(), None),
            beats: 0,
            probes: Vec::new(),
        }
    }
}

impl World {
    fn clocks(&self) -> Now {
        Now { local: self.now, store: Store::clock(self.now) }
    }

    /// Whether a node has its lease.
    pub fn has_lease(&self, node: usize) -> bool {
        self.nodes[node].observer.trust().term(self.clocks()).is_some()
    }

    /// The client of a node whose states pass now.
    pub fn driver(&self, node: usize) -> Option<LocalController> {
        let (here, now, rules) = (&self.nodes[node], self.clocks(), &self.rules);
        let (session, trust, draw) = (SessionId::from_bits(1), here.observer.trust(), &mut || 0);
        here.room.as_ref()?.passing_controller(&Env { session, here: &here.id, now, trust, rules, draw })
    }

    /// The room of a node takes a step, if the node has one.
    pub fn step_if_open(&mut self, node: usize, input: MachineInput) {
        if self.nodes[node].room.is_some() {
            self.step(node, input);
        }
    }

    /// The room of a node takes a step, and those that follow from it at once.
    pub fn step(&mut self, node: usize, input: MachineInput) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let now = self.clocks();
            let (drawn, here) = (&mut self.drawn, &mut self.nodes[node]);
            let mut draw = || {
                *drawn += 1;
                *drawn
            };
            let (session, trust) = (SessionId::from_bits(1), here.observer.trust());
            let mut env = Env { session, here: &here.id, now, trust, rules: &self.rules, draw: &mut draw };
            let mut sink = Sink::default();
            here.room.get_or_insert_default().step(&mut env, input, &mut sink);
            for output in sink.0 {
                inputs.extend(self.perform(node, output));
            }
        }
        let here = &mut self.nodes[node];
        here.room.take_if(|room| here.open.is_none() && room.is_idle(&here.id));
    }

    /// Performs an output. Returns what happens to the room at once by that.
    fn perform(&mut self, node: usize, output: Performed) -> Option<MachineInput> {
        match output {
            Performed::Request(request) => return self.ask(node, request),
            Performed::Touch(activity) => {
                let found = Some(self.store.touch(&self.nodes[node].id, activity));
                return Some(Input::Touched { activity, found });
            }
            Performed::Publish(to, body) => {
                if let Body::Frame(frame) = &body
                    && frame.route.kind == Kind::State
                {
                    self.note_passed(node, frame.route.source, frame.route.epoch);
                }
                self.publish(node, &to, body);
            }
            Performed::Send(socket, text, state_of) => {
                if let Some((source, epoch)) = state_of {
                    self.note_passed(node, source, epoch);
                    let room = self.nodes[node].room.as_ref();
                    let told = room.and_then(Room::view).map(|view| view.session.core.epoch);
                    assert!(told <= Some(epoch), "a state of {epoch:?} is shown in {told:?}");
                }
                self.send_down(socket, text);
            }
            Performed::Close(socket, reason) => return self.close(socket, reason),
            Performed::Probe(socket, number) => {
                let connection = self.sockets[socket].connection;
                self.nodes[node].probes.push((self.now + FLUSH_TIMEOUT, connection, number));
                self.send_down(socket, Down::Probe(number));
            }
            Performed::Joined(socket, Reply::Joined { .. }) => self.sockets[socket].joined = true,
            Performed::Joined(socket, _) => {
                self.sockets[socket].at_node = false;
                self.send_down(socket, Down::Close);
            }
        }
        None
    }

    /// Notes that a state of the controller of this node passes. An initial push of a follower is none.
    fn note_passed(&mut self, node: usize, source: ConnectionId, epoch: Epoch) {
        let controller = self.nodes[node].room.as_ref().and_then(Room::local_controller);
        if controller.is_some_and(|controller| controller.connection == source) {
            self.passed.push((epoch, source));
        }
    }

    /// A room asks the store.
    fn ask(&mut self, node: usize, request: Request) -> Option<MachineInput> {
        let here = &mut self.nodes[node];
        here.open = Some(match request {
            Request::Pause(_) => Open::Answered(Box::new(Input::Resumed)),
            // Only nodes that seem dead are looked at again.
            Request::LookAgain(nodes) => match here.observer.suspects(nodes) {
                dead if dead.is_empty() => return Some(Input::StillLapsed(Default::default())),
                dead => Open::Asked(Request::LookAgain(dead)),
            },
            request => Open::Asked(request),
        });
        None
    }

    /// The open request of a node reaches the store, or the answer reaches the node.
    pub fn work(&mut self, node: usize) {
        match self.nodes[node].open.take() {
            Some(Open::Asked(request)) => {
                let answer = Box::new(self.carry_out(node, request));
                self.nodes[node].open = Some(Open::Answered(answer));
            }
            Some(Open::Answered(answer)) => self.step(node, *answer),
            None => {}
        }
    }

    fn carry_out(&mut self, node: usize, request: Request) -> MachineInput {
        let here = &mut self.nodes[node];
        here.stray = None;
        match request {
            Request::Load => {
                let loaded = self.store.load(self.now);
                here.observer.heard_from(&loaded.server, self.now);
                Input::Loaded(loaded)
            }
            Request::LookAgain(nodes) => Input::StillLapsed(here.observer.still_lapsed(self.store.beats(&nodes))),
            Request::Commit(write) => Input::Committed(self.store.commit(write, self.now)),
            Request::ReadLineage => {
                here.observer.read_lineage(self.store.lineage(), self.now);
                Input::LineageRead
            }
            Request::Pause(_) => Input::Resumed,
            Request::Create(session, _) => {
                self.drawn += 1;
                self.store.create(session, self.drawn);
                Input::Created
            }
        }
    }

    /// The open request of a node gets no answer.
    pub fn fail(&mut self, node: usize) {
        match self.nodes[node].open.take() {
            None => return,
            Some(Open::Answered(answer)) if matches!(*answer, Input::Resumed) => return self.step(node, *answer),
            Some(Open::Asked(Request::Commit(write))) => self.nodes[node].stray = Some(write),
            Some(Open::Answered(answer)) => self.unannounced |= matches!(*answer, Input::Committed(_)),
            Some(Open::Asked(_)) => {}
        }
        self.step(node, Input::Failed);
    }

    /// The store carries out a write that its node does not wait for any more.
    pub fn carry_out_stray(&mut self, node: usize) {
        if let Some(write) = self.nodes[node].stray.take() {
            self.store.commit(write, self.now);
            self.unannounced = true;
        }
    }

    /// A node renews its lease, looks at the heartbeats of the others, and does what is due.
    pub fn beat(&mut self, node: usize) {
        let now = self.now;
        if self.nodes[node].silent {
            self.nodes[node].observer.reset_failure_detector(now);
            return self.step_if_open(node, Input::Tick);
        }
        self.report_gaps(node);
        let here = &mut self.nodes[node];
        here.beats += 1;
        here.observer.read_lineage(self.store.beat(&here.id, here.beats, now).lineage, now);
        let renewed = here.observer.renewed(now, now);
        if renewed.new_term || renewed.data_lost {
            self.step_if_open(node, Input::Distrust { data_lost: renewed.data_lost });
            self.step_if_open(node, Input::Reload);
        }
        let here = &mut self.nodes[node];
        let view = here.room.as_ref().and_then(Room::view);
        let others = view.iter().flat_map(|view| view.session.rosters.keys()).filter(|other| **other != here.id);
        let others: Vec<NodeId> = others.cloned().collect();
        if !here.observer.watched(self.store.beats(&others), now).is_empty() {
            self.step_if_open(node, Input::Reload);
        }
        self.step_if_open(node, Input::Tick);
    }

    /// A node waits no longer for the pongs that are late.
    pub fn give_up_probes(&mut self, node: usize) {
        let probes = &mut self.nodes[node].probes;
        let late: Vec<_> = probes.extract_if(.., |(until, ..)| *until <= self.now).collect();
        for (_, connection, number) in late {
            self.step_if_open(node, Input::Pong { connection, number });
        }
    }
}
