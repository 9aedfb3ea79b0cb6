//! A simulated world: nodes, a store, the network and clients in one thread, on a virtual clock. One seed is one world.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use gitorial_relay::control::Rules;
use gitorial_relay::ids::{Epoch, Millis, NodeId};
use gitorial_relay::route::Body;
use gitorial_relay::session::{Info, Place, Role, Session, Strategy};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::client::{Client, Down};
use super::faults::{EAGER, Fault, Mutation, Scheduled, schedule};
use super::history::{Event as Entry, Quiet, What, Who};
use super::judge::{Verdict, judge, judge_quiet};
use super::node::{Node, SocketNumber, Up};
use super::relay::{AtNode, connection};
use super::store::Store;
use super::support::old_script::Generation;
use super::upkeep::Call;

/// Until when users act.
const ACTING: Millis = 6_000;

/// How long a world may take to come to rest after its faults.
const CONVERGED: Millis = 60_000;

/// How often a world at rest is looked at.
const LOOK: Millis = 500;

/// How long after its end a grace period is noticed.
const OVERDUE: Millis = 5_000;

/// How long control may take to move while only one kind of fault happens: the lease of a dead node, and what is lost.
const MOVED: Millis = 6_000;

/// More events than any world needs.
const MAX_EVENTS: u64 = 400_000;

/// Something that happens at a time.
#[derive(Debug)]
pub enum Event {
    /// At this incarnation of a node.
    Node(usize, u64, AtNode),
    /// A call reaches the store.
    Store(Call),
    /// Something reaches the client with this socket.
    Down(usize, SocketNumber, Down),
    /// A client opens a socket.
    Open(usize),
    /// A client waits no longer for this socket to open.
    OpenTimeout(usize, SocketNumber),
    /// A client's user acts.
    Act(usize),
    /// A client with the handshake pings.
    Ping(usize),
    Begin(Fault),
    End(Fault),
    /// A node starts again.
    Restart(usize),
}

/// An event in the queue. Events at the same time happen in the order in which they were put there.
struct Timed {
    at: Millis,
    order: u64,
    event: Event,
}

impl PartialEq for Timed {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Timed {}

impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// The network between the nodes.
#[derive(Debug, Default)]
pub struct Network {
    /// When the last message on each link arrives, because a link keeps their order.
    pub arrives: HashMap<(usize, usize), Millis>,
    /// The links on which messages were lost that nobody has noticed yet.
    pub lost: BTreeSet<(usize, usize)>,
    pub slow: bool,
    pub lossy: bool,
}

/// A world.
pub struct World {
    pub now: Millis,
    pub rng: StdRng,
    pub store: Store,
    pub store_away: bool,
    pub answers_lost: bool,
    /// When the store last lost data.
    pub lost_data_at: Option<Millis>,
    pub nodes: Vec<Node>,
    pub clients: Vec<Client>,
    pub network: Network,
    pub rules: Rules,
    pub mutation: Option<Mutation>,
    /// The clients act often and for long.
    pub eager: bool,
    /// The client of each socket that was ever opened.
    pub opened_by: BTreeMap<SocketNumber, usize>,
    pub drawn: u128,
    queue: BinaryHeap<Reverse<Timed>>,
    order: u64,
    history: Vec<Entry>,
    /// The latest epoch of which a state has passed, and whose it was.
    latest: Option<(Epoch, Who)>,
    /// The epoch that is ending, and since when.
    moving: Option<(Epoch, Millis)>,
    /// What was found wrong while the world ran.
    found: Vec<Verdict>,
    faults: Vec<Scheduled>,
    trace: Option<Vec<String>>,
}

/// How a world ended.
pub struct Ended {
    pub verdicts: Vec<Verdict>,
    pub trace: Vec<String>,
}

impl World {
    /// The world of this seed.
    pub fn new(seed: u64, mutation: Option<Mutation>, traced: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let (nodes, clients) = (rng.random_range(1..=3), rng.random_range(2..=4));
        let strategy = match rng.random_range(0..4) {
            0 => Strategy::UserChoice,
            1 => Strategy::DenyBoth,
            _ => Strategy::FirstComeFirstServed,
        };
        let (created_at, hours) = (Store::clock(0), 3_600_000);
        let info = Info { created_at, ttl: hours, ends_at: created_at + 12 * hours, strategy, metadata: None };
        let mut store = Store::new(Session::new(Arc::new(info)));
        store.careless = mutation == Some(Mutation::Careless);
        store.any_server = mutation == Some(Mutation::AnyServer);
        let clock = |rng: &mut StdRng| (rng.random_range(100_000..10_000_000), rng.random_range(-10..=10));
        let nodes: Vec<Node> = (0..nodes)
            .map(|index| {
                let (offset, drift) = clock(&mut rng);
                Node::new(index, 1, offset, drift)
            })
            .collect();
        // The first always does the handshake, so that one client sees the epochs.
        let generation = |client: usize, rng: &mut StdRng| match (client, rng.random_range(0..4)) {
            (1.., 0) => Some(Generation::First),
            (1.., 1) => Some(Generation::Second),
            _ => None,
        };
        let clients: Vec<Client> =
            (0..clients).map(|client| Client::new(client, generation(client, &mut rng))).collect();
        let mut faults = schedule(&mut rng, nodes.len(), clients.len());
        let needed = mutation.map(|mutation| mutation.needs(&mut rng, nodes.len(), clients.len())).unwrap_or_default();
        let eager = !needed.is_empty();
        faults.extend(needed);
        let mut world = Self {
            now: 0,
            rng,
            store,
            store_away: false,
            answers_lost: false,
            lost_data_at: None,
            nodes,
            clients,
            network: Network::default(),
            rules: Rules::default(),
            mutation,
            eager,
            opened_by: BTreeMap::new(),
            drawn: 0,
            queue: BinaryHeap::new(),
            order: 0,
            history: Vec::new(),
            latest: None,
            moving: None,
            found: Vec::new(),
            faults,
            trace: traced.then(Vec::new),
        };
        world.begin();
        world
    }

    /// The same world without its mutation.
    pub fn mended(mut self) -> Self {
        self.mutation = None;
        (self.store.careless, self.store.any_server) = (false, false);
        self
    }

    fn begin(&mut self) {
        for node in 0..self.nodes.len() {
            let after = self.rng.random_range(0..50);
            self.at_node(node, after, AtNode::Heartbeat);
        }
        for client in 0..self.clients.len() {
            let after = self.rng.random_range(100..800);
            self.after(after, Event::Open(client));
            self.after(after, Event::Act(client));
            self.after(after, Event::Ping(client));
        }
        for Scheduled { fault, at, lasts } in self.faults.clone() {
            self.after(at, Event::Begin(fault));
            self.after(at + lasts, Event::End(fault));
        }
    }

    /// Runs the world to its end.
    pub fn run(mut self) -> Ended {
        let healed = self.faults.iter().map(|scheduled| scheduled.at + scheduled.lasts).max().unwrap_or(0);
        let gone = self.faults.iter().any(|scheduled| matches!(scheduled.fault, Fault::Gone(_)));
        let forgotten =
            if gone { Millis::try_from(self.rules.grace.as_millis()).unwrap_or(0) + 2 * OVERDUE } else { 0 };
        let rest = healed.max(if self.eager { EAGER } else { ACTING }) + LOOK + forgotten;
        let (mut events, mut look) = (0, rest);
        let mut verdicts = Vec::new();
        while let Some(Reverse(next)) = self.queue.pop() {
            events += 1;
            while look <= next.at {
                self.now = look;
                verdicts = self.look();
                if verdicts.is_empty() || look > rest + CONVERGED {
                    return self.end(verdicts);
                }
                look += LOOK;
            }
            self.now = next.at.max(self.now);
            assert!(events < MAX_EVENTS, "the world does not come to rest");
            self.happen(next.event);
        }
        self.end(verdicts)
    }

    fn end(self, mut verdicts: Vec<Verdict>) -> Ended {
        verdicts.extend(self.found);
        verdicts.extend(judge(&self.history));
        Ended { verdicts, trace: self.trace.unwrap_or_default() }
    }

    fn look(&mut self) -> Vec<Verdict> {
        let mut standings: Vec<_> = self.clients.iter().map(Client::standing).collect();
        let Some(stored) = self.store.document() else {
            return vec![Verdict::SessionLost { who: Who { session: 0, client: 0 }, reason: "no document".to_owned() }];
        };
        let session = &stored.session;
        // A client whose old place is still taken may have another name in the document.
        let on = |place: &Place| self.opened_by.iter().find(|(number, _)| connection(**number) == place.connection);
        let controller = session.core.controller.as_ref().and_then(|controller| on(&controller.place));
        let controller = controller.map(|(_, client)| self.clients[*client].who);
        // One of the first generation may wait for PASSIVE since an older socket, and ignore a grant that it never asked
        // for. Any claim is granted against it.
        let unasked = session.core.controller.as_ref().is_some_and(|controller| controller.provisional);
        for standing in standings.iter_mut().filter(|standing| Some(standing.who) == controller) {
            standing.deserted |= unasked && standing.stubborn;
        }
        standings.retain(|standing| !self.clients[standing.who.client].gone);
        let overdue = self.overdue_places(session);
        let quiet = Quiet { controller, clients: session.live_clients() + overdue, standings };
        let mut verdicts = judge_quiet(0, &quiet);
        // A client that gave control up calls that PASSIVE, and has made no choice that somebody should control.
        let followers = session.roles().values().filter(|role| **role == Role::Passive).count();
        verdicts.retain(|verdict| followers > 1 || !matches!(verdict, Verdict::NobodyDrives { .. }));
        if !verdicts.is_empty() {
            let core = format!("{:?}", session.core);
            self.note(|| format!("not at rest: {verdicts:?}; {core}"));
        }
        verdicts
    }

    /// The places that are kept for clients that have been away for longer than the grace period.
    fn overdue_places(&self, session: &Session) -> usize {
        let grace = Millis::try_from(self.rules.grace.as_millis()).unwrap_or(Millis::MAX);
        let since = session.clients().filter_map(|(_, client)| client.cut_off_at);
        since.filter(|since| since + grace + OVERDUE < Store::clock(self.now)).count()
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Node(node, boot, what) => {
                let here = &self.nodes[node];
                if !here.alive || here.boot != boot {
                    return;
                }
                if here.paused {
                    return self.nodes[node].waiting.push(what);
                }
                self.happen_at_node(node, what);
            }
            Event::Store(call) => {
                self.call_store(call);
                self.watch_transfer();
            }
            Event::Down(client, socket, down) => self.receive(client, socket, down),
            Event::Open(client) => self.open(client),
            Event::OpenTimeout(client, socket) => self.give_up(client, socket),
            Event::Act(client) => self.act(client),
            Event::Ping(client) => self.ping(client),
            Event::Begin(fault) => self.strike(fault),
            Event::End(fault) => self.heal(fault),
            Event::Restart(node) => self.restart(node),
        }
    }

    /// Whether users act.
    pub fn is_acting(&self) -> bool {
        self.now < if self.eager { EAGER } else { ACTING }
    }

    pub fn after(&mut self, millis: Millis, event: Event) {
        self.order += 1;
        self.queue.push(Reverse(Timed { at: self.now + millis, order: self.order, event }));
    }

    pub fn at_node(&mut self, node: usize, after: Millis, what: AtNode) {
        let boot = self.nodes[node].boot;
        self.after(after, Event::Node(node, boot, what));
    }

    /// How long something takes on a network that works.
    pub fn latency(&mut self) -> Millis {
        match self.rng.random_range(0..20) {
            0 => self.rng.random_range(5..60),
            _ => self.rng.random_range(0..4),
        }
    }

    /// A node lets a state of this client through. Of all nodes together, none may do so after a state of a later epoch.
    pub fn passes(&mut self, client: usize, epoch: Epoch) {
        let who = self.clients[client].who;
        let Some((latest, of)) = self.latest.filter(|(latest, _)| *latest >= epoch) else {
            self.latest = Some((epoch, who));
            return;
        };
        let verdict = match latest == epoch {
            true if of == who => return,
            true => Verdict::TwoControllers { session: 0, epoch: epoch.0, clients: (of, who) },
            false => Verdict::OlderAfterNewer { receiver: who, older: epoch.0, newer: latest.0 },
        };
        self.finds(verdict);
    }

    /// Something is found wrong while the world runs.
    pub fn finds(&mut self, verdict: Verdict) {
        if !self.found.contains(&verdict) {
            self.note(|| format!("WRONG: {verdict:?}"));
            self.found.push(verdict);
        }
    }

    /// Looks how long control has been moving. A node that hears nothing must not keep others from it. Only worlds with
    /// faults of a kind are held to this: others may leave no node that could end the move.
    fn watch_transfer(&mut self) {
        let core = self.store.document().map(|stored| &stored.session.core);
        let moving = core.filter(|core| core.transfer.is_some()).map(|core| core.epoch);
        let since = self.moving.filter(|(epoch, _)| Some(*epoch) == moving).map_or(self.now, |(_, since)| since);
        self.moving = moving.map(|epoch| (epoch, since));
        if self.eager && moving.is_some() && self.now - since > MOVED {
            self.finds(Verdict::Stuck { session: 0 });
        }
    }

    /// Records an event of a client.
    pub fn record(&mut self, who: Who, what: What) {
        self.note(|| format!("client {}: {what:?}", who.client));
        self.history.push(Entry { at: Duration::from_millis(self.now), who, what });
    }

    /// Adds a line to the trace.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>6} ms  {}", self.now, line()));
        }
    }

    /// The index of a node's present incarnation, if that is still running.
    pub fn index_of(&self, id: &NodeId) -> Option<usize> {
        self.nodes.iter().position(|node| node.id == *id && node.alive)
    }

    /// A node sends a message to another.
    pub fn publish(&mut self, from: usize, to: &NodeId, body: Body) {
        let Some(to) = self.index_of(to) else { return };
        let broken = self.store_away || self.nodes[from].cut || self.nodes[to].cut || self.nodes[to].deaf;
        if broken || (self.network.lossy && self.rng.random_bool(0.5)) {
            self.network.lost.insert((from, to));
            return;
        }
        let mut latency = self.latency();
        if self.network.slow {
            latency += self.rng.random_range(0..800);
        }
        let arrives = self.network.arrives.entry((from, to)).or_insert(0);
        *arrives = (*arrives).max(self.now + latency);
        let (after, again) = (*arrives - self.now, self.rng.random_bool(0.01));
        let sender = self.nodes[from].id.clone();
        // A broker delivers once; receivers do not rely on that for these two.
        let repeats = match &body {
            Body::Changed { .. } => true,
            Body::Frame(frame) => frame.route.kind == gitorial_relay::route::Kind::State,
            Body::RecentStates(_) => false,
        };
        if repeats && again {
            self.at_node(to, after, AtNode::Message { from: sender.clone(), body: body.clone() });
        }
        self.at_node(to, after, AtNode::Message { from: sender, body });
    }

    /// A client's socket brings something to its node, in order.
    pub fn send_up(&mut self, client: usize, up: Up) {
        let latency = self.latency();
        let Some(socket) = &mut self.clients[client].socket else { return };
        socket.up_at = socket.up_at.max(self.now + latency);
        let (node, boot, number, after) = (socket.node, socket.boot, socket.number, socket.up_at - self.now);
        self.after(after, Event::Node(node, boot, AtNode::Up(number, up)));
    }

    /// A node sends something to a client, in order.
    pub fn send_down(&mut self, client: usize, number: SocketNumber, down: Down) {
        let latency = self.latency();
        let Some(socket) = self.clients[client].socket.as_mut().filter(|socket| socket.number == number) else {
            return;
        };
        socket.down_at = socket.down_at.max(self.now + latency);
        let after = socket.down_at - self.now;
        self.after(after, Event::Down(client, number, down));
    }
}
