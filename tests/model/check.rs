//! The model as the checker sees it: which steps are possible, and what always holds.

use std::sync::Arc;
use std::time::Duration;

use gitorial_relay::control::Rules;
use gitorial_relay::ids::ConnectionId;
use stateright::{Model, Property};

use super::marks::Marks;
use super::names::{local, name};
use super::node::Stage;
use super::run::deep;
use super::scene::{Scene, Wish};
use super::world::{Node, Pending, Step, World};

/// Never two clients whose states their nodes would let through.
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
    pub first: World,
}

impl Check {
    pub fn of(scene: Scene) -> Self {
        let long = Duration::from_secs(1 << 20);
        let rules = Rules { grace: long, pending: long, quiet: long, max_requests: 2, max_clients: 8 };
        let mut check = Self { first: Self::empty_world(&scene), scene, rules, marks: Arc::default() };
        check.first = check.first_world();
        check
    }

    /// The digest of the token that this client has at the start.
    pub fn token(&self, client: u8) -> Option<String> {
        let session = &self.first.store.found.as_ref()?.session;
        session.clients().find(|(_, known)| known.id == name(client))?.1.resume.clone()
    }

    pub fn stage(&self, world: World) -> Stage<'_> {
        Stage { check: self, scene: &self.scene, rules: &self.rules, marks: &self.marks, world, kept: None }
    }

    /// The clients whose states their nodes would let through now.
    pub fn driving(&self, world: &World) -> Vec<ConnectionId> {
        let passing = |node| self.passing(world, node);
        (0..world.nodes.len()).filter_map(passing).map(|driver| driver.connection).collect()
    }

    /// The number of writes since the start.
    fn writes(&self, world: &World) -> u8 {
        world.store.writes - self.first.store.writes
    }
}

impl Model for Check {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![self.first.clone()]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        if world.left.ticks > 0 {
            steps.push(Step::Time);
        }
        for (index, node) in world.nodes.iter().enumerate().filter(|(_, node)| node.alive) {
            self.steps_of(world, index, node, steps);
            self.steps_of_clients(world, index, node, steps);
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
        world.routed.sort_by_key(super::world::Routed::key);
        world.forget_old_grants();
        (world != *last).then_some(world)
    }

    /// After a loss of data nodes may write in turn until the next heartbeat, if one of them takes the other for dead.
    fn within_boundary(&self, world: &World) -> bool {
        self.writes(world) <= many_writes()
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(EXCLUSION, |check: &Self, world: &World| check.driving(world).len() <= 1),
            Property::always(ORDER, |_, world: &World| !world.faults.out_of_order),
            Property::always(ONCE, |_, world: &World| !world.faults.granted_twice),
            Property::always(GONE, |_, world: &World| !world.faults.came_back),
            Property::always(REST, |check: &Self, world: &World| {
                check.scene.budget.memory_losses > 0 || check.writes(world) < many_writes()
            }),
        ]
    }
}

impl Check {
    fn steps_of(&self, world: &World, index: usize, node: &Node, steps: &mut Vec<Step>) {
        let left = &world.left;
        self.steps_of_leases(world, index, node, steps);
        if node.pending != Pending::Load && Self::has_news(world, node) {
            steps.push(Step::Hear(index));
        }
        if node.pending != Pending::Nothing {
            steps.push(Step::Work(index));
        }
        if left.lost_answers > 0 && world.late.is_none() && matches!(node.pending, Pending::Commit(_)) {
            steps.extend([Step::LoseAnswer(index, true), Step::LoseAnswer(index, false)]);
        }
        if left.crashes > 0 {
            steps.push(Step::Crash(index));
        }
        if left.deletes > 0 && node.room.view().is_some() {
            steps.push(Step::Delete(index));
        }
    }

    fn steps_of_leases(&self, world: &World, index: usize, node: &Node, steps: &mut Vec<Step>) {
        let lineage = &world.store.lineage;
        let unnoticed = node.observer.trust().lineage_since != lineage.since;
        if self.scene.lease.is_none() && !unnoticed {
            return;
        }
        let longer = self.scene.timing().deadline(local(world.now)) > node.observer.trust().lease.deadline;
        match node.renewing {
            _ if self.scene.is_steady(index) => {}
            Some(_) => steps.push(Step::Renewed(index)),
            None if world.left.renewals > 0 && (longer || unnoticed) => steps.push(Step::Renew(index)),
            None => {}
        }
        let unsure = |other: usize| other != index && !(self.scene.is_steady(other) && world.nodes[other].alive);
        if self.scene.lease.is_some() && (0..world.nodes.len()).any(unsure) {
            steps.push(Step::Watch(index));
        }
    }

    /// Whether the node may read the document again: it has changed, or something is due.
    fn has_news(world: &World, node: &Node) -> bool {
        let Some(view) = node.room.view() else { return false };
        let until = view.session.core.doubtful_until;
        let due = until > 0 && super::names::millis(world.now) >= until;
        let known = world.store.found.as_ref().is_some_and(|stored| stored.version == view.version);
        !known || node.room.is_stale() || due
    }

    fn steps_of_clients(&self, world: &World, index: usize, node: &Node, steps: &mut Vec<Step>) {
        let left = &world.left;
        let passes = self.passing(world, index).map(|controller| controller.connection);
        for (client, _) in (0..).zip(&self.scene.clients) {
            let Some(connection) = node.socket_of(name(client).as_str()) else { continue };
            if left.wishes > 0 && !node.room.is_deciding(connection) {
                // A controller need not take control.
                let wishes = self.scene.wishes.iter().filter(|wish| **wish != Wish::Take || passes != Some(connection));
                steps.extend(wishes.map(|wish| Step::Wish(index, client, *wish)));
            }
            if left.breaks > 0 {
                steps.push(Step::Break(index, client));
            }
        }
        if left.states > 0 && passes.is_some_and(|connection| !node.room.is_deciding(connection)) {
            steps.push(Step::Pass(index));
        }
        if !node.probes.is_empty() {
            steps.push(Step::Pong(index));
        }
        if left.returns > 0 {
            steps.extend(world.away.iter().map(|client| Step::Return(index, *client)));
        }
    }
}
