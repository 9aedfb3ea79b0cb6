//! The driver of a node: it gives the room its inputs and performs the outputs, as `src/relay` does. It has no rules.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use gitorial_relay::control::Rules;
use gitorial_relay::ids::{ConnectionId, Epoch, NodeId, SessionId};
use gitorial_relay::room::{Env, Input, LocalController, Request};
use gitorial_relay::route::{Body, RoutedFrame};
use gitorial_relay::stored::{Committed, Loaded, Write};
use gitorial_relay::trust::{Now, Observer, Renewed, StoreLineage, Trust};

use super::check::Check;
use super::marks::{Mark, Marks};
use super::names::{confirmation, local, millis, node_id};
use super::outputs::{Act, Acts};
use super::scene::{Broken, Scene};
use super::world::{Machine, Part, Pending, Routed, World};

/// A caller that gets no reply.
pub const NOBODY: u8 = u8::MAX;

/// One step of one world.
pub struct Stage<'a> {
    pub check: &'a Check,
    pub scene: &'a Scene,
    pub rules: &'a Rules,
    pub marks: &'a Marks,
    pub world: World,
    /// Whether the network keeps the states that are sent in this step; `None` before the first.
    pub kept: Option<bool>,
}

impl Check {
    /// What a node believes now.
    fn trust(&self, world: &World, node: usize) -> Trust {
        let mut trust = world.nodes[node].observer.trust();
        match self.scene.broken {
            Some(Broken::Deadline) => trust.lease.deadline = u64::MAX,
            // The owner's clock lags behind by more than the margin.
            Some(Broken::Margin) => trust.lease.deadline += 1,
            // The doubt ends as soon as there is a document again.
            Some(Broken::Generation) => {
                (trust.patience, trust.lineage_since) = (0, 0);
                if world.store.found.is_some() {
                    trust.doubtful_until = 0;
                }
            }
            _ => {}
        }
        trust
    }

    /// The local client whose states this node lets through now.
    pub fn passing(&self, world: &World, node: usize) -> Option<LocalController> {
        let here = &world.nodes[node];
        let controller = here.unsuspended.or(here.room.local_controller()).filter(|_| here.alive)?;
        let (now, trust) = (world.time(), self.trust(world, node));
        let mut draw = || 0;
        let env = Env {
            session: SessionId::from_bits(0),
            here: node_id(node),
            now,
            trust,
            rules: &self.rules,
            draw: &mut draw,
        };
        let late = here.unsuspended.filter(|controller| trust.term(now) == Some(controller.term));
        let passes = late.or_else(|| here.room.passing_controller(&env));
        passes.filter(|_| here.open().any(|member| member.connection == controller.connection))
    }
}

impl World {
    fn time(&self) -> Now {
        Now { local: local(self.now), store: millis(self.now) }
    }
}

impl Stage<'_> {
    /// Gives an input to the room of a node, and performs its outputs. Returns whether a frame was dropped.
    pub fn give(&mut self, node: usize, input: Input<ConnectionId, u8>) -> bool {
        let mut room = Machine::clone(&self.world.nodes[node].room);
        let mut inputs = VecDeque::from([input]);
        let mut dropped = false;
        while let Some(input) = inputs.pop_front() {
            let before = room.local_controller();
            for act in self.step(node, &mut room, input) {
                dropped |= matches!(act, Act::Dropped);
                if matches!(&act, Act::Ask(request) if matches!(**request, Request::Commit(_)))
                    && self.scene.is(Broken::Suspension)
                {
                    self.world.nodes[node].unsuspended = before.filter(|controller| !controller.suspended);
                }
                // The leave of a socket that the room has dropped already changes nothing.
                if !matches!(act, Act::Close(of) if room.members().iter().all(|member| member.connection != of)) {
                    self.perform(node, act, &mut inputs);
                }
            }
        }
        let here = &mut self.world.nodes[node];
        here.closed.retain(|closed| room.members().iter().any(|member| member.connection == *closed));
        here.room = Part::of(room);
        self.note_continued(node);
        dropped
    }

    fn step(&mut self, node: usize, room: &mut Machine, input: Input<ConnectionId, u8>) -> Vec<Act> {
        let (now, mut trust) = (self.world.time(), self.check.trust(&self.world, node));
        let decides = matches!(input, Input::StillLapsed(_) | Input::Committed(_));
        if decides && self.scene.is(Broken::SureHolder) {
            (trust.doubtful_until, trust.lineage_since) = (0, 0);
        }
        let writes = &mut self.world.store.writes;
        let mut draw = || {
            *writes += 1;
            u128::from(*writes)
        };
        let session = SessionId::from_bits(0);
        let mut env = Env { session, here: node_id(node), now, trust, rules: self.rules, draw: &mut draw };
        let mut acts = Acts::default();
        room.step(&mut env, input, &mut acts);
        acts.0
    }

    fn perform(&mut self, node: usize, act: Act, then: &mut VecDeque<Input<ConnectionId, u8>>) {
        let here = &mut self.world.nodes[node];
        match act {
            Act::Ask(request) => self.ask(node, *request, then),
            // Nothing in the model depends on the activity in the document.
            Act::Touch(activity) => {
                let found = Some(self.world.store.found.is_some());
                then.push_back(Input::Touched { activity, found });
            }
            Act::Publish(to, frame) => self.publish(node, &to, frame),
            Act::Show(epoch) => self.show(node, epoch),
            Act::Accepted(connection) if !here.closed.contains(&connection) => {
                then.push_back(Input::Frame { connection, frame: confirmation() });
            }
            Act::Close(connection) => {
                here.closed.push(connection);
                then.push_back(Input::Leave { connection, lost: false, ticket: NOBODY });
            }
            Act::Probe(connection, number) => here.probes.push((connection, number)),
            Act::Refused(client) if client != NOBODY => self.gone(client),
            Act::Accepted(_) | Act::Refused(_) | Act::Dropped => {}
        }
    }

    /// A room asks its driver.
    fn ask(&mut self, node: usize, request: Request, then: &mut VecDeque<Input<ConnectionId, u8>>) {
        let here = &mut self.world.nodes[node];
        match request {
            Request::Load => here.pending = Pending::Load,
            Request::LookAgain(nodes) => {
                let seemed = here.observer.suspects(nodes);
                if seemed.is_empty() {
                    then.push_back(Input::StillLapsed(BTreeSet::new()));
                } else {
                    let epoch = self.world.store.found.as_ref().map(|stored| stored.session.core.epoch);
                    here.pending = Pending::Look(seemed, epoch.unwrap_or_default());
                }
            }
            Request::Commit(write) => self.commit(node, write, then),
            Request::ReadLineage => {
                self.read_lineage(node);
                then.push_back(Input::LineageRead);
            }
            Request::Create(session, _) => here.pending = Pending::Create(Part::of(session)),
            Request::Pause(_) => then.push_back(Input::Resumed),
        }
    }

    fn commit(&mut self, node: usize, write: Write, then: &mut VecDeque<Input<ConnectionId, u8>>) {
        if self.scene.is(Broken::EarlyAnswer) && self.world.late.is_none() {
            let version = self.world.store.found.as_ref().map_or(0, |stored| stored.version) + 1;
            self.world.late = Some(Part::of(write));
            then.push_back(Input::Committed(Committed::Done { version, now: millis(self.world.now) }));
            return;
        }
        self.world.nodes[node].pending = Pending::Commit(Part::of(write));
    }

    /// The driver performs what the room waits for.
    pub fn work(&mut self, node: usize) {
        let here = &mut self.world.nodes[node];
        match std::mem::replace(&mut here.pending, Pending::Nothing) {
            Pending::Nothing => {}
            Pending::Load => {
                let server = self.world.store.server_name();
                let found = self.world.store.found.as_ref().map(|stored| {
                    let mut stored = gitorial_relay::stored::Stored::clone(stored);
                    stored.base.server.clone_from(&server);
                    stored
                });
                self.with_observer(node, |observer, now, broken| {
                    if broken != Some(Broken::Notice) {
                        observer.heard_from(&server, now);
                    }
                });
                self.give(node, Input::Loaded(Loaded { now: millis(self.world.now), server, found }));
            }
            Pending::Look(nodes, _) => {
                let here = &self.world.nodes[node];
                let still = match self.scene.broken {
                    Some(Broken::StaleLook) => nodes.into_iter().collect(),
                    _ => here.observer.still_lapsed(self.beats_of(nodes)),
                };
                self.give(node, Input::StillLapsed(still));
            }
            Pending::Commit(write) => match self.land(&write) {
                Committed::Done { version, .. } => self.world.nodes[node].pending = Pending::Answer(version),
                refused => self.answer(node, refused),
            },
            Pending::Answer(version) => self.answer(node, Committed::Done { version, now: millis(self.world.now) }),
            Pending::Create(session) => {
                self.create(&session);
                self.give(node, Input::Created);
            }
        }
    }

    fn answer(&mut self, node: usize, committed: Committed) {
        self.world.nodes[node].unsuspended = None;
        self.give(node, Input::Committed(committed));
    }

    /// The answer to a write is lost, and the write may still be committed. `again`: the store answers after that.
    pub fn lose_answer(&mut self, node: usize, again: bool) {
        let here = &mut self.world.nodes[node];
        let Pending::Commit(write) = std::mem::replace(&mut here.pending, Pending::Nothing) else { return };
        here.unsuspended = None;
        self.world.left.lost_answers -= 1;
        self.world.late = Some(write);
        self.give(node, Input::Failed);
        if !again && self.world.nodes[node].pending == Pending::Load {
            self.world.nodes[node].pending = Pending::Nothing;
            self.give(node, Input::Failed);
        }
    }

    /// A state goes to another node, as far as the network keeps states.
    fn publish(&mut self, node: usize, to: &NodeId, frame: RoutedFrame) {
        let left = &mut self.world.left.states;
        let kept = *self.kept.get_or_insert_with(|| {
            let kept = *left > 0;
            *left -= u8::from(kept);
            kept
        });
        let to = (0..self.world.nodes.len()).find(|other| node_id(*other) == to);
        if let Some(to) = to.filter(|_| kept) {
            self.world.routed.push(Routed { from: node, to, frame: Arc::new(frame), copies: self.scene.copies });
        }
    }

    /// The clients of this node get a state.
    pub fn show(&mut self, node: usize, epoch: Epoch) {
        let here = &mut self.world.nodes[node];
        self.world.faults.out_of_order |= epoch < here.shown;
        here.shown = here.shown.max(epoch);
    }

    /// A state arrives.
    pub fn arrive(&mut self, index: usize) {
        let Routed { from, to, frame, copies } = self.world.routed[index].clone();
        if copies > 1 {
            self.world.routed[index].copies -= 1;
        } else {
            self.world.routed.remove(index);
        }
        if !self.world.nodes[to].alive || self.world.nodes[to].room.members().is_empty() {
            return;
        }
        let body = Body::Frame(RoutedFrame::clone(&frame));
        if !self.give(to, Input::Message { from: node_id(from).clone(), body }) {
            self.marks.note(Mark::Arrived);
            return;
        }
        self.marks.note(Mark::Fenced);
        if self.scene.is(Broken::Fence) {
            self.show(to, frame.route.epoch);
        }
    }

    fn with_observer<A>(&mut self, node: usize, change: impl FnOnce(&mut Observer, u64, Option<Broken>) -> A) -> A {
        let mut observer = Observer::clone(&self.world.nodes[node].observer);
        let answer = change(&mut observer, local(self.world.now), self.scene.broken);
        self.world.nodes[node].observer = Part::of(observer);
        answer
    }

    fn read_lineage(&mut self, node: usize) {
        let seen = StoreLineage::clone(&self.world.store.lineage);
        let doubt = self.world.nodes[node].observer.trust().doubtful_until;
        self.with_observer(node, |observer, now, broken| {
            if broken == Some(Broken::Notice) {
                let server = "server 1".to_owned();
                let servers = BTreeSet::from([server.clone()]);
                let since = if seen.marker == "1" { 0 } else { seen.since };
                return observer.read_lineage(StoreLineage { server, servers, since, ..seen }, now);
            }
            observer.read_lineage(seen, now);
        });
        if self.world.nodes[node].observer.trust().doubtful_until > doubt {
            self.marks.note(Mark::MemoryLost);
        }
    }

    /// The renewal that began at `began` is in the store, and its node has the answer.
    pub fn renewed(&mut self, node: usize, began: u8) {
        let here = &mut self.world.nodes[node];
        here.beats += 1;
        self.world.store.beats[node] = Some(here.beats);
        self.read_lineage(node);
        let Renewed { new_term, data_lost } =
            self.with_observer(node, |observer, now, _| observer.renewed(local(began), now));
        if new_term || data_lost {
            self.marks.note(Mark::NewLease);
            self.give(node, Input::Distrust { data_lost });
            self.give(node, Input::Reload);
        }
    }

    /// Looks at the heartbeats of all nodes with clients in the session.
    pub fn watch(&mut self, node: usize) {
        let Some(view) = self.world.nodes[node].room.view() else { return };
        let others = view.session.rosters.keys().filter(|other| *other != node_id(node)).cloned();
        let beats = self.beats_of(others.collect());
        if !self.with_observer(node, |observer, now, _| observer.watched(beats, now)).is_empty() {
            self.give(node, Input::Reload);
        }
    }

    fn beats_of(&self, nodes: Vec<NodeId>) -> Vec<(NodeId, Option<u64>)> {
        let beat = |id: &NodeId| (0..self.world.nodes.len()).find(|other| node_id(*other) == id);
        let beats = nodes.into_iter().map(|id| (beat(&id).and_then(|other| self.world.store.beats[other]), id));
        beats.map(|(beat, id)| (id, beat)).collect()
    }

    /// Notes that a client goes on whose grant the store has lost.
    fn note_continued(&self, node: usize) {
        let here = &self.world.nodes[node];
        let drives = here.room.local_controller().filter(|controller| !controller.suspended);
        let drives = drives.map(|controller| (controller.epoch, controller.connection));
        if drives.is_some()
            && drives == self.world.store.forgotten
            && here.observer.trust().doubtful_until > local(self.world.now)
        {
            self.marks.note(Mark::DroveOn);
        }
    }
}
