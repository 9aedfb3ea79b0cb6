//! The model as the checker sees it: its initial state, its steps, and its properties.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gitorial_relay::control::{Context, Direction, Event, Intent, Join, Rules, apply};
use gitorial_relay::hub::Fence;
use gitorial_relay::ids::{ConnectionId, Epoch, Seq};
use gitorial_relay::presence::{HeartbeatMonitor, Lease};
use gitorial_relay::session::{Info, Session};
use stateright::{Model, Property};

use super::doc::{Doc, millis, name, node_id, socket, token};
use super::marks::{Mark, Marks};
use super::node::{Landed, Stage};
use super::run::deep;
use super::scene::{Broken, Scene, Wish};
use super::world::{Faults, Job, Member, Node, Routed, Step, Store, StoreLineage, Stored, Worker, World, Write};

/// Never two clients whose states their nodes would forward.
pub const EXCLUSION: &str = "there is at most one controller";
/// No state of an older epoch after one of a newer epoch.
pub const ORDER: &str = "states are shown in the order of their epochs";
/// An epoch belongs to one connection.
pub const ONCE: &str = "an epoch is granted once";
/// A deleted session stays deleted.
pub const GONE: &str = "a deleted session does not come back";

/// Nodes stop writing when nothing happens any more.
pub const REST: &str = "writes come to an end";

/// More than a scene needs.
fn many_writes() -> u8 {
    10 + 6 * deep()
}

/// A scene to check.
#[derive(Clone, Debug)]
pub struct Check {
    pub scene: Scene,
    pub rules: Rules,
    pub marks: Arc<Marks>,
}

impl Check {
    pub fn of(scene: Scene) -> Self {
        let long = Duration::from_secs(1 << 20);
        let grace = if scene.grace { long } else { Duration::ZERO };
        let rules = Rules { grace, pending: long, quiet: long, max_requests: 2, max_clients: 8 };
        Self { scene, rules, marks: Arc::default() }
    }

    fn first_document(&self) -> Arc<Doc> {
        let strategy = self.scene.strategy;
        let info = Info { created_at: 0, ttl: 1 << 40, ends_at: 1 << 41, strategy, metadata: None };
        let mut session = Session::new(Arc::new(info));
        let lapsed = std::collections::HashSet::new();
        for (client, (node, modern)) in (0..).zip(&self.scene.clients) {
            let (here, connection) = (node_id(*node), socket(client, 0));
            let context = Context { here: &here, now: 0, lapsed: &lapsed, flushed: None, rules: &self.rules };
            let join = Join { connection, wants: Some(name(client)), otherwise: name(client), resume: None };
            let mut events = vec![Event::Join(join)];
            if *modern {
                events.push(Event::Handshake { connection, resume: token(client) });
            }
            let intent = if client == 0 { Intent::Coordinate(Direction::Active) } else { Intent::Speak };
            events.push(Event::Frame { connection, alias: None, epoch: None, intent });
            for event in events {
                session = apply(&session, &event, context).session;
            }
        }
        Doc::of(session)
    }

    fn first_node(&self, index: usize, doc: &Arc<Doc>) -> Node {
        let member = |(client, _): (u8, _)| {
            let connection = socket(client, 0);
            let place = Arc::new(doc.session.client(connection).unwrap().1.clone());
            Member { client, connection, place, open: true, superseded: false }
        };
        let members: Vec<Member> =
            (0..).zip(&self.scene.clients).filter(|(_, (node, _))| *node == index).map(member).collect();
        let lease = Lease { deadline: self.scene.timing().deadline(0), term: 1, kept: None };
        let driver = members.iter().find(|member| member.client == 0).map(|member| super::world::LocalController {
            connection: member.connection,
            epoch: doc.epoch(),
            term: lease.term,
            suspended: false,
        });
        let others =
            (0..self.scene.nodes).filter(|other| *other != index && doc.session.rosters.contains_key(&node_id(*other)));
        let mut fence = Fence::default();
        fence.raise(doc.epoch());
        Node {
            alive: true,
            lease,
            renewing: None,
            beats: 1,
            lineage: StoreLineage { marker: 1, server: 1 },
            loss_unreported: false,
            doubtful_until: 0,
            monitors: others
                .map(|other| (other, HeartbeatMonitor { count: Some(1), since: 0 }))
                .collect::<BTreeMap<_, _>>(),
            lapsed: Vec::new(),
            view: (!members.is_empty()).then(|| (doc.clone(), 1)),
            driver,
            claimed: (!members.is_empty()).then_some(lease.term),
            fence,
            members,
            jobs: Vec::new(),
            batch: 0,
            worker: Worker::Idle,
            reload_queued: false,
            stale: false,
            unresolved_write: None,
            shown: Epoch::default(),
        }
    }

    fn stage(&self, world: World) -> Stage<'_> {
        Stage { scene: &self.scene, rules: &self.rules, marks: &self.marks, world }
    }

    /// The clients whose states their nodes would forward now.
    pub fn driving(&self, world: &World) -> Vec<ConnectionId> {
        let stage = self.stage(world.clone());
        (0..world.nodes.len()).filter_map(|node| stage.passing(node)).map(|driver| driver.connection).collect()
    }
}

impl Model for Check {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let doc = self.first_document();
        let granted = vec![(doc.epoch(), socket(0, 0))];
        let stored = Stored { doc: doc.clone(), version: 1, write: 0 };
        let store = Store {
            found: Some(stored),
            replica: None,
            forgotten: None,
            beats: vec![Some(1); self.scene.nodes],
            lineage: StoreLineage { marker: 1, server: 1 },
            writes: 0,
        };
        vec![World {
            now: 0,
            store,
            nodes: (0..self.scene.nodes).map(|index| self.first_node(index, &doc)).collect(),
            routed: Vec::new(),
            late: None,
            away: Vec::new(),
            sent: 0,
            left: self.scene.budget,
            deleted: false,
            granted,
            faults: Faults::default(),
        }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        if world.left.ticks > 0 {
            steps.push(Step::Time);
        }
        for (index, node) in world.nodes.iter().enumerate().filter(|(_, node)| node.alive) {
            self.steps_of(world, index, node, steps);
        }
        steps.extend((0..world.routed.len()).map(Step::Arrive));
        if world.late.is_some() {
            steps.push(Step::Land);
        }
        if world.left.memory_losses > 0 && world.left.ticks > 0 {
            steps.push(Step::Forget);
        }
        if world.left.fail_overs > 0 && world.store.replica.is_some() && world.left.ticks > 0 {
            steps.push(Step::FailOver);
        }
    }

    fn next_state(&self, last: &World, step: Step) -> Option<World> {
        let mut stage = self.stage(last.clone());
        stage.take(step);
        let mut world = stage.world;
        world.routed.sort();
        world.forget_old_grants();
        (world != *last).then_some(world)
    }

    /// After a loss of data nodes may write in turn until the next heartbeat, if one of them takes the other for dead.
    fn within_boundary(&self, world: &World) -> bool {
        world.store.writes <= many_writes()
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(EXCLUSION, |check: &Self, world: &World| check.driving(world).len() <= 1),
            Property::always(ORDER, |_, world: &World| !world.faults.out_of_order),
            Property::always(ONCE, |_, world: &World| !world.faults.granted_twice),
            Property::always(GONE, |_, world: &World| !world.faults.came_back),
            Property::always(REST, |check: &Self, world: &World| {
                check.scene.budget.memory_losses > 0 || world.store.writes < many_writes()
            }),
        ]
    }
}

impl Check {
    fn steps_of(&self, world: &World, index: usize, node: &Node, steps: &mut Vec<Step>) {
        let left = &world.left;
        let unnoticed = node.lineage != world.store.lineage;
        if self.scene.lease.is_some() || unnoticed {
            let longer = self.scene.timing().deadline(millis(world.now)) > node.lease.deadline || unnoticed;
            match node.renewing {
                _ if self.scene.is_steady(index) => {}
                Some(_) => steps.push(Step::Renewed(index)),
                None if left.renewals > 0 && longer => steps.push(Step::Renew(index)),
                None => {}
            }
            if self.scene.lease.is_some()
                && (0..world.nodes.len())
                    .any(|other| other != index && !(self.scene.is_steady(other) && world.nodes[other].alive))
            {
                steps.push(Step::Watch(index));
            }
        }
        let needs_resync = match (&node.view, &world.store.found) {
            (Some((_, known)), Some(stored)) => *known != stored.version,
            (None, Some(_)) | (Some(_), None) => true,
            (None, None) => false,
        };
        let due = || node.view.as_ref().is_some_and(|(view, _)| self.is_due(index, node, view));
        if !node.reload_queued && node.view.is_some() && (node.stale || needs_resync || due()) {
            steps.push(Step::Hear(index));
        }
        if node.worker != Worker::Idle || !node.jobs.is_empty() {
            steps.push(Step::Work(index));
        }
        if left.lost_answers > 0 && world.late.is_none() && matches!(node.worker, Worker::Decided(_)) {
            steps.extend([Step::LoseAnswer(index, true), Step::LoseAnswer(index, false)]);
        }
        for member in node.members.iter().filter(|member| member.open && !member.superseded) {
            let asks = |job: &Job| matches!(job, Job::Frame { connection, .. } if *connection == member.connection);
            if left.wishes > 0 && !node.jobs.iter().any(asks) {
                steps.extend(self.scene.wishes.iter().map(|wish| Step::Wish(index, member.client, *wish)));
            }
            if left.breaks > 0 {
                steps.push(Step::Break(index, member.client));
            }
        }
        if left.states > 0 {
            steps.push(Step::Pass(index));
        }
        if left.returns > 0 {
            steps.extend(world.away.iter().map(|client| Step::Return(index, *client)));
        }
        if left.crashes > 0 {
            steps.push(Step::Crash(index));
        }
        if left.deletes > 0 && node.view.is_some() {
            steps.push(Step::Delete(index));
        }
    }

    /// Whether something is due by the clock: a place past its grace period, or a place on a dead node.
    fn is_due(&self, index: usize, node: &Node, view: &Doc) -> bool {
        let here = view.session.rosters.get(&node_id(index));
        let over = here.is_some_and(|roster| roster.clients.iter().any(|client| client.cut_off_at.is_some()));
        let mut dead = node.lapsed.iter().filter_map(|other| view.session.rosters.get(&node_id(*other)));
        (over && !self.scene.grace)
            || dead.any(|roster| roster.clients.iter().any(|client| client.cut_off_at.is_none()))
    }
}

impl Stage<'_> {
    fn take(&mut self, step: Step) {
        match step {
            Step::Time => {
                self.world.left.ticks -= 1;
                self.world.now += 1;
                for node in (0..self.world.nodes.len()).filter(|node| self.scene.is_steady(*node)) {
                    if self.world.nodes[node].alive {
                        self.renewed(node, self.world.now);
                    }
                }
            }
            Step::Renew(node) => {
                self.world.left.renewals -= 1;
                self.world.nodes[node].renewing = Some(self.world.now);
            }
            Step::Renewed(node) => {
                if let Some(began) = self.world.nodes[node].renewing.take() {
                    self.renewed(node, began);
                }
            }
            Step::Watch(node) => self.watch(node),
            Step::Hear(node) => self.queue(node),
            Step::Work(node) => {
                self.work(node);
                while self.scene.is_steady(node) && self.world.nodes[node].worker != Worker::Idle {
                    self.work(node);
                }
            }
            Step::LoseAnswer(node, again) => self.lose_answer(node, again),
            Step::Land => {
                if let Some((_, write)) = self.world.late.take()
                    && let Landed::Done(_) = self.world.land(self.scene, self.marks, &write)
                {
                    self.marks.note(Mark::LandedLate);
                }
            }
            Step::Wish(node, client, wish) => self.wish(node, client, wish),
            Step::Pass(node) => self.pass(node),
            Step::Arrive(index) => self.arrive(index),
            Step::Break(node, client) => self.cut(node, client),
            Step::Return(node, client) => self.come_back(node, client),
            Step::Crash(node) => self.crash(node),
            Step::Delete(node) => {
                self.world.left.deletes -= 1;
                self.world.nodes[node].jobs.push(Job::Delete);
            }
            Step::Forget => {
                // The clock of a store that comes back empty is later than all that it has lost.
                self.world.left.ticks -= 1;
                self.world.now += 1;
                self.world.left.memory_losses -= 1;
                let store = &mut self.world.store;
                (store.found, store.replica) = (None, None);
                store.lineage.marker += 1;
                store.beats.fill(None);
            }
            Step::FailOver => {
                // The replica's clock is never behind the time at which the lost write was decided.
                self.world.left.ticks -= 1;
                self.world.now += 1;
                self.world.left.fail_overs -= 1;
                self.fail_over();
                self.marks.note(Mark::FailedOver);
            }
        }
    }

    fn fail_over(&mut self) {
        let store = &mut self.world.store;
        let grant = |stored: &Option<Stored>| {
            let doc = &stored.as_ref()?.doc;
            doc.controller().map(|controller| (doc.epoch(), controller))
        };
        store.forgotten = grant(&store.found).filter(|known| Some(*known) != grant(&store.replica));
        store.found = store.replica.take();
        store.lineage.server += 1;
    }

    fn lose_answer(&mut self, node: usize, again: bool) {
        let Worker::Decided(decision) = std::mem::replace(&mut self.world.nodes[node].worker, Worker::Idle) else {
            return;
        };
        self.world.left.lost_answers -= 1;
        self.world.late = Some((node, decision.write.clone()));
        if again {
            self.world.nodes[node].worker = Worker::Unknown(decision);
        } else {
            self.fail(node);
        }
    }

    fn wish(&mut self, node: usize, client: u8, wish: Wish) {
        let here = &mut self.world.nodes[node];
        let Some(member) = here.members.iter().find(|member| member.client == client && member.open) else { return };
        let connection = member.connection;
        let view = here.view.as_ref().filter(|(view, _)| view.session.controls(connection));
        let epoch = view.map(|(view, _)| view.epoch()).filter(|_| !self.scene.clients[usize::from(client)].1);
        here.jobs.push(Job::Frame { client, connection, wish, epoch });
        self.world.left.wishes -= 1;
    }

    fn pass(&mut self, node: usize) {
        let Some(driver) = self.passing(node) else { return };
        self.world.left.states -= 1;
        self.world.sent += 1;
        let here = &self.world.nodes[node];
        let Some((view, _)) = here.view.clone() else { return };
        let epoch = view.epoch();
        let live = |other: &usize| {
            let roster = view.session.rosters.get(&node_id(*other));
            roster.is_some_and(|roster| roster.clients.iter().any(|client| client.cut_off_at.is_none()))
        };
        let others = (0..self.world.nodes.len()).filter(|other| *other != node && live(other));
        let seq = Seq(self.world.sent.into());
        let copies = self.scene.copies;
        let routed: Vec<_> = others.map(|to| Routed { to, epoch, source: driver.connection, seq, copies }).collect();
        self.world.routed.extend(routed);
        self.show(node, epoch, driver.connection);
    }

    /// The clients of this node get a state, except its sender.
    fn show(&mut self, node: usize, epoch: Epoch, from: ConnectionId) {
        let here = &mut self.world.nodes[node];
        if here.members.iter().any(|member| member.connection != from && member.open && !member.superseded) {
            self.world.faults.out_of_order |= epoch < here.shown;
            here.shown = here.shown.max(epoch);
        }
    }

    fn arrive(&mut self, index: usize) {
        let Routed { to, epoch, source, seq, copies } = self.world.routed[index];
        if copies > 1 {
            self.world.routed[index].copies -= 1;
        } else {
            self.world.routed.remove(index);
        }
        let here = &mut self.world.nodes[to];
        if !here.alive || here.members.is_empty() {
            return;
        }
        if here.fence.admit(epoch, source, seq) || self.scene.is(Broken::Fence) {
            self.marks.note(Mark::Arrived);
            self.show(to, epoch, source);
        } else {
            self.marks.note(Mark::Fenced);
        }
    }

    fn cut(&mut self, node: usize, client: u8) {
        let here = &mut self.world.nodes[node];
        let Some(member) = here.members.iter_mut().find(|member| member.client == client && member.open) else {
            return;
        };
        member.open = false;
        here.jobs.push(Job::Leave { connection: member.connection });
        self.world.left.breaks -= 1;
        self.gone(client);
    }

    /// A client without a socket may come back.
    pub fn gone(&mut self, client: u8) {
        if self.scene.clients[usize::from(client)].1 && self.world.left.returns > 0 {
            self.world.away.push(client);
            self.world.away.sort_unstable();
        }
    }

    fn come_back(&mut self, node: usize, client: u8) {
        if self.term(node).is_none() {
            return;
        }
        self.world.left.returns -= 1;
        self.world.away.retain(|away| *away != client);
        let connection = socket(client, self.world.left.returns + 1);
        self.world.nodes[node].jobs.push(Job::Join { client, connection });
    }

    fn crash(&mut self, node: usize) {
        self.world.left.crashes -= 1;
        let here = &mut self.world.nodes[node];
        here.alive = false;
        let members = std::mem::take(&mut here.members);
        // Frames that it had sent may still arrive.
        if let Worker::Decided(decision) = std::mem::replace(&mut here.worker, Worker::Idle) {
            self.world.late = self.world.late.take().or(Some((node, decision.write)));
        }
        let here = &mut self.world.nodes[node];
        (here.view, here.driver, here.batch, here.renewing) = (None, None, 0, None);
        (here.lease, here.fence, here.shown) = (Lease::default(), Fence::default(), Epoch::default());
        here.jobs.clear();
        here.monitors.clear();
        here.lapsed.clear();
        members.iter().filter(|member| member.open).for_each(|member| self.gone(member.client));
    }
}

impl World {
    /// Records the connection that this epoch belongs to.
    pub fn note_grant(&mut self, doc: &Doc) {
        let Some(controller) = doc.controller() else { return };
        let epoch = doc.epoch();
        match self.granted.iter().find(|(known, _)| *known == epoch) {
            Some((_, known)) => self.faults.granted_twice |= *known != controller,
            None => self.granted.push((epoch, controller)),
        }
    }

    /// An epoch below that of every document there is cannot be reached again: the next is always above the last.
    fn forget_old_grants(&mut self) {
        let written = |write: &Write| write.base.doc.epoch().min(write.after.epoch());
        let worker = |node: &Node| match &node.worker {
            Worker::Idle => None,
            Worker::Read(basis) => Some(basis.stored.doc.epoch()),
            Worker::Decided(decision) | Worker::Written(decision, _) | Worker::Unknown(decision) => {
                Some(written(&decision.write))
            }
            Worker::Restoring(doc) => Some(doc.epoch()),
        };
        let stored = [&self.store.found, &self.store.replica].into_iter().flatten().map(|stored| stored.doc.epoch());
        let views = self.nodes.iter().filter_map(|node| node.view.as_ref()).map(|(view, _)| view.epoch());
        let late = self.late.iter().map(|(_, write)| written(write));
        let all = stored.chain(views).chain(self.nodes.iter().filter_map(worker)).chain(late);
        if let Some(least) = all.min() {
            self.granted.retain(|(epoch, _)| *epoch >= least);
        }
        self.granted.sort();
    }
}
