//! A node of a simulated world: the real room and the real observer, and what their driver keeps for them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use gitorial_relay::ids::{ConnectionId, Millis, NodeId};
use gitorial_relay::protocol::{CloseReason, FrameType};
use gitorial_relay::queue::Queue;
use gitorial_relay::room::{Item, Output, Outputs, Reply, Request, Room};
use gitorial_relay::route::Body;
use gitorial_relay::session::Activity;
use gitorial_relay::trust::{Now, Observer, Timing};

use super::relay::AtNode;
use super::store::Store;

/// The intervals of all nodes.
pub fn timing() -> Timing {
    let millis = Duration::from_millis;
    Timing { heartbeat: millis(400), lease: millis(2_000), margin: millis(400) }
}

/// The number of a socket.
pub type SocketNumber = u32;

/// A caller that waits for the reply of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ticket {
    /// A socket that joins.
    Join(SocketNumber),
    /// Nobody.
    Nobody,
}

/// The machine of a room in a simulated world.
pub type Machine = Room<SocketNumber, Ticket>;

/// What a client's socket brings to its node.
#[derive(Clone, Debug)]
pub enum Up {
    Frame(Bytes),
    Pong(u64),
    /// A close frame with this code.
    Close(u16),
    /// The socket broke.
    Lost,
}

/// A socket as its node has it.
#[derive(Debug)]
pub struct NodeSocket {
    pub client: usize,
    pub connection: ConnectionId,
    pub queue: Queue,
    pub inbound: VecDeque<Up>,
    pub joined: bool,
    /// When its client was last heard of.
    pub heard: Millis,
    /// When its writer looks again whether all that came has been read. It looks once at a time, however often it is woken.
    pub looks_at: Millis,
}

/// A node.
#[derive(Debug)]
pub struct Node {
    pub id: NodeId,
    /// Counts its incarnations.
    pub boot: u64,
    pub alive: bool,
    pub draining: bool,
    /// It stands still.
    pub paused: bool,
    /// What has happened to it meanwhile.
    pub waiting: Vec<AtNode>,
    /// Its connections to the store and to the others are cut.
    pub cut: bool,
    /// Its inbox is silent.
    pub deaf: bool,
    offset: Millis,
    /// By how many thousandths its clock is too fast.
    drift: i64,
    store_at_origin: Millis,
    pub observer: Observer,
    pub beats: u64,
    pub room: Option<Machine>,
    /// Counts the rooms it has opened.
    pub room_number: u64,
    /// A request of its room is under way.
    pub asking: bool,
    pub sockets: BTreeMap<SocketNumber, NodeSocket>,
}

impl Node {
    /// The incarnation `boot` of the node with this index, on a clock that is off.
    pub fn new(index: usize, boot: u64, offset: Millis, drift: i64) -> Self {
        Self {
            id: NodeId::incarnation(&format!("n{index}"), boot),
            boot,
            alive: true,
            draining: false,
            paused: false,
            waiting: Vec::new(),
            cut: false,
            deaf: false,
            offset,
            drift,
            store_at_origin: 0,
            observer: Observer::new(timing(), None),
            beats: 0,
            room: None,
            room_number: 0,
            asking: false,
            sockets: BTreeMap::new(),
        }
    }

    /// The same machine after a restart.
    pub fn restarted(&self, index: usize) -> Self {
        Self::new(index, self.boot + 1, self.offset, self.drift)
    }

    /// The node's own time.
    pub fn local(&self, now: Millis) -> Millis {
        let fast = i64::try_from(now).unwrap_or(0) * self.drift / 1_000;
        self.offset + now.saturating_add_signed(fast)
    }

    /// The time on both of its clocks.
    pub fn now(&self, now: Millis) -> Now {
        let local = self.local(now);
        // Before the first answer of the store its clock is wrong, and nothing is decided by it.
        let store = if self.store_at_origin == 0 { Store::clock(now) } else { self.store_at_origin + local };
        Now { local, store }
    }

    /// The store has told its time.
    pub fn set_store_clock(&mut self, told: Millis, now: Millis) {
        self.store_at_origin = told.saturating_sub(self.local(now));
    }

    /// Whether it holds its lease.
    pub fn has_lease(&self, now: Millis) -> bool {
        self.observer.trust().term(self.now(now)).is_some()
    }
}

/// An output that is performed after the step.
#[derive(Debug)]
pub enum Performed {
    Request(Request),
    Touch(Activity),
    Publish(NodeId, Body),
    Send(SocketNumber, Item),
    Close(SocketNumber, CloseReason),
    Probe(SocketNumber, u64),
    HoldAfterLeave(SocketNumber),
    HoldNothing(SocketNumber),
    Reply(Ticket, Reply),
}

/// Collects the outputs of one step.
pub struct Sink<'a> {
    pub outputs: Vec<Performed>,
    pub sockets: &'a mut BTreeMap<SocketNumber, NodeSocket>,
}

impl Outputs<SocketNumber, Ticket> for Sink<'_> {
    fn put(&mut self, output: Output<'_, SocketNumber, Ticket>) {
        self.outputs.push(match output {
            Output::Ask(request) => Performed::Request(*request),
            Output::Touch(activity, _) => Performed::Touch(activity),
            Output::Publish(node, body) => Performed::Publish(node.clone(), body),
            Output::Send(socket, item) => Performed::Send(*socket, item),
            Output::Close(socket, reason) => Performed::Close(*socket, reason),
            Output::Probe(socket, number) => Performed::Probe(*socket, number),
            Output::HoldAfterLeave(socket) => Performed::HoldAfterLeave(*socket),
            Output::HoldNothing(socket) => Performed::HoldNothing(*socket),
            Output::Reply(ticket, reply) => Performed::Reply(ticket, reply),
            Output::Decided(_) | Output::Emit(_) | Output::Count(_) | Output::Undecided { .. } => return,
        });
    }

    fn withdraw(&mut self, socket: &SocketNumber, kind: FrameType) -> usize {
        self.sockets.get_mut(socket).map_or(0, |socket| socket.queue.withdraw(kind))
    }
}
