//! The rules as properties of every history of a simulated world.

use std::collections::HashMap;

use gitorial_relay::ids::{ConnectionId, Epoch};
use gitorial_relay::session::{Role, Strategy as Decides};
use proptest::prelude::*;

use super::client::Generation;
use super::world::World;

/// One step of a history. The numbers choose who does it.
#[derive(Clone, Copy, Debug)]
enum Step {
    Connect(u8, u8),
    Disconnect(u8, bool),
    Act(u8, u8),
    Read(u8),
    Receive(u8),
    Work(u8),
    Hear(u8),
    Miss(u8),
    Crash(u8),
    Bury(u8),
    Lapse(u8),
    Renew(u8),
    Wait(u16),
    Tick(u8),
    Drain,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<u8>(), any::<u8>()).prop_map(|(client, node)| Step::Connect(client, node)),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(client, lost)| Step::Disconnect(client, lost)),
        12 => (any::<u8>(), any::<u8>()).prop_map(|(client, choice)| Step::Act(client, choice)),
        8 => any::<u8>().prop_map(Step::Read),
        6 => any::<u8>().prop_map(Step::Receive),
        16 => any::<u8>().prop_map(Step::Work),
        4 => any::<u8>().prop_map(Step::Hear),
        1 => any::<u8>().prop_map(Step::Miss),
        1 => any::<u8>().prop_map(Step::Crash),
        2 => any::<u8>().prop_map(Step::Bury),
        1 => any::<u8>().prop_map(Step::Lapse),
        2 => any::<u8>().prop_map(Step::Renew),
        2 => (0..20_000_u16).prop_map(Step::Wait),
        1 => any::<u8>().prop_map(Step::Tick),
        4 => Just(Step::Drain),
    ]
}

fn strategies() -> impl Strategy<Value = Decides> {
    prop_oneof![Just(Decides::FirstComeFirstServed), Just(Decides::UserChoice), Just(Decides::DenyBoth)]
}

fn generations() -> impl Strategy<Value = Vec<Generation>> {
    let one = prop_oneof![Just(Generation::First), Just(Generation::Second), Just(Generation::Modern)];
    proptest::collection::vec(one, 2..5)
}

fn do_step(world: &mut World, step: Step) {
    let (clients, nodes) = (world.clients.len(), world.nodes.len());
    match step {
        Step::Connect(client, node) => world.connect(usize::from(client) % clients, usize::from(node)),
        Step::Disconnect(client, lost) => world.disconnect(usize::from(client) % clients, lost),
        Step::Act(client, choice) => {
            let client = usize::from(client) % clients;
            if choice % 8 == 6 && world.clients[client].generation == Generation::Second {
                // A frame in flight to the second generation when it releases may put it back into a role (a grant) or
                // hide its release (a demotion): these are acts of two users within one round trip, and no frame of
                // the relay can prevent that.
                world.drain();
                let quiet = |socket: &super::client::Socket| socket.up.is_empty() && socket.down.is_empty();
                if !world.clients[client].socket.as_ref().is_some_and(quiet) {
                    return;
                }
            }
            world.clients[client].act(choice);
        }
        Step::Read(client) => world.read(usize::from(client) % clients),
        Step::Receive(client) => world.receive(usize::from(client) % clients),
        Step::Work(node) => world.work(usize::from(node) % nodes),
        Step::Hear(node) => world.hear(usize::from(node) % nodes),
        Step::Miss(node) => world.nodes[usize::from(node) % nodes].notified = 0,
        Step::Crash(node) => world.crash(usize::from(node) % nodes),
        Step::Bury(node) => world.notice_the_dead(usize::from(node)),
        Step::Lapse(node) => world.lapse(usize::from(node) % nodes),
        Step::Renew(node) => world.renew(usize::from(node) % nodes),
        Step::Wait(millis) => world.now += u64::from(millis),
        Step::Tick(node) => world.tick(usize::from(node) % nodes),
        Step::Drain => world.drain(),
    }
}

/// The properties that must hold after every step.
#[derive(Default)]
struct Watch {
    epoch: Epoch,
    controllers: HashMap<Epoch, ConnectionId>,
    passed: usize,
}

impl Watch {
    fn look(&mut self, world: &World) {
        let passing: Vec<_> = world.nodes.iter().filter_map(|node| node.passing()).collect();
        assert!(passing.len() <= 1, "states of two clients would be forwarded at once: {passing:?}");
        let core = &world.store.session.core;
        assert!(core.epoch >= self.epoch, "the epoch decreased");
        self.epoch = core.epoch;
        if let Some(controller) = &core.controller {
            let known = *self.controllers.entry(core.epoch).or_insert(controller.place.connection);
            assert_eq!(known, controller.place.connection, "an epoch was granted twice");
        }
        for index in self.passed.max(1)..world.passed.len() {
            let (before, now) = (world.passed[index - 1], world.passed[index]);
            assert!(
                now.0 > before.0 || now == before,
                "a state was forwarded out of the order of epochs: {before:?} {now:?}"
            );
        }
        self.passed = world.passed.len();
        self.look_at_size(world);
    }

    fn look_at_size(&self, world: &World) {
        let (core, session) = (&world.store.session.core, &world.store.session);
        let sockets: usize = session.rosters.values().map(|roster| roster.clients.len()).sum();
        assert!(core.requests.len() <= world.rules.max_requests, "too many requests");
        assert!(core.superseded.len() <= world.clients.len() * 4, "too many superseded sockets");
        let size = serde_json::to_vec(core).unwrap().len() + serde_json::to_vec(&session.rosters).unwrap().len();
        assert!(size <= 2_000 + 400 * (sockets + core.superseded.len()), "the document has grown to {size} bytes");
        assert!(core.transfer.is_none() || core.controller.is_some(), "nothing to transfer");
    }
}

fn run(strategy: Decides, nodes: usize, generations: &[Generation], steps: &[Step]) -> World {
    let mut world = World::new(strategy, nodes, generations);
    let mut watch = Watch::default();
    for step in steps {
        do_step(&mut world, *step);
        watch.look(&world);
    }
    world.heal();
    watch.look(&world);
    world
}

fn look_at_rest(world: &World) {
    let session = &world.store.session;
    for node in world.nodes.iter().filter(|node| node.alive && !node.members.is_empty()) {
        let (view, version) = node.view.as_ref().unwrap();
        assert_eq!(
            (&view.core, &view.rosters),
            (&session.core, &session.rosters),
            "{} sees a different document",
            node.id
        );
        assert_eq!(*version, world.store.version);
        for (connection, member) in node.members.iter().filter(|(_, member)| !member.superseded) {
            assert_eq!(member.client_view.acks, 0, "{connection:?} has a frame to confirm");
        }
    }
    for client in &world.clients {
        let Some(socket) = &client.socket else { continue };
        let Some((_, place)) = session.client(socket.connection) else { panic!("{} has no place", client.name) };
        let role = session.role(place);
        assert!(client.knows(role), "{:?} is {role:?} and believes to be {:?}", client.generation, client.phase);
    }
    let core = &session.core;
    assert!(core.transfer.is_none() && core.requests.is_empty() && core.offer.is_none(), "something is pending");
    let passing = world.nodes.iter().filter_map(|node| node.passing()).map(|driver| driver.connection).next();
    let controller = core.controller.as_ref().map(|controller| controller.place.connection);
    assert_eq!(passing, controller, "only the ACTIVE client's states are forwarded");
    if controller.is_none() {
        let passive = session.roles().values().filter(|role| **role == Role::Active).count();
        assert_eq!(passive, 0);
    }
}

/// Enough cases for some seconds; set `PROPTEST_CASES` for a long run.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|number| number.parse().ok()).unwrap_or(5_000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn every_history_has_one_controller_and_ends_with_known_roles(
        strategy in strategies(),
        nodes in 1..4_usize,
        generations in generations(),
        steps in proptest::collection::vec(step(), 1..250),
    ) {
        look_at_rest(&run(strategy, nodes, &generations, &steps));
    }
}
