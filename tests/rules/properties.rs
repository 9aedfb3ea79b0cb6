//! The rules as properties of every history of a simulated world.

use std::collections::HashMap;

use gitorial_relay::ids::{ConnectionId, Epoch};
use gitorial_relay::room::{Input, LocalController};
use gitorial_relay::session::{Role, Strategy as Decides};
use proptest::prelude::*;

use super::old_script::Generation;
use super::world::World;

/// One step of a history. The numbers choose where it happens.
#[derive(Clone, Copy, Debug)]
enum Step {
    Connect(u8, u8),
    Disconnect(u8, bool),
    Act(u8, u8),
    Read(u8),
    Receive(u8),
    Work(u8),
    Fail(u8),
    Stray(u8),
    Deliver(u8),
    Miss(u8),
    Crash(u8),
    Bury,
    Lapse(u8),
    Renew(u8),
    Wait(u16),
    Reload(u8),
    Drain,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (any::<u8>(), any::<u8>()).prop_map(|(client, node)| Step::Connect(client, node)),
        2 => (any::<u8>(), any::<bool>()).prop_map(|(client, lost)| Step::Disconnect(client, lost)),
        40 => (any::<u8>(), any::<u8>()).prop_map(|(client, choice)| Step::Act(client, choice)),
        20 => any::<u8>().prop_map(Step::Read),
        20 => any::<u8>().prop_map(Step::Receive),
        40 => any::<u8>().prop_map(Step::Work),
        1 => any::<u8>().prop_map(Step::Fail),
        1 => any::<u8>().prop_map(Step::Stray),
        14 => any::<u8>().prop_map(Step::Deliver),
        1 => any::<u8>().prop_map(Step::Miss),
        1 => any::<u8>().prop_map(Step::Crash),
        1 => Just(Step::Bury),
        1 => any::<u8>().prop_map(Step::Lapse),
        4 => any::<u8>().prop_map(Step::Renew),
        3 => (0..10_000_u16).prop_map(Step::Wait),
        4 => any::<u8>().prop_map(Step::Reload),
        6 => Just(Step::Drain),
    ]
}

fn strategies() -> impl Strategy<Value = Decides> {
    prop_oneof![Just(Decides::FirstComeFirstServed), Just(Decides::UserChoice), Just(Decides::DenyBoth)]
}

fn generations() -> impl Strategy<Value = Vec<Option<Generation>>> {
    let one = prop_oneof![Just(Some(Generation::First)), Just(Some(Generation::Second)), Just(None)];
    proptest::collection::vec(one, 2..5)
}

/// One of those where something can happen.
fn one_of<T: Copy>(all: &[T], choice: u8) -> Option<T> {
    all.get(usize::from(choice).checked_rem(all.len())?).copied()
}

fn do_step(world: &mut World, step: Step) {
    let (clients, nodes) = (world.clients.len(), world.nodes.len());
    let client = |client: u8| usize::from(client) % clients;
    let node = |node: u8| usize::from(node) % nodes;
    match step {
        Step::Connect(who, at) => world.connect(client(who), node(at)),
        Step::Disconnect(who, lost) => world.disconnect(client(who), lost),
        Step::Act(who, choice) => {
            let who = client(who);
            if choice % 8 == 6 && world.clients[who].generation == Some(Generation::Second) {
                // A frame in flight to the second generation when it releases may put it back into a role (a grant) or
                // hide its release (a demotion): these are acts of two users within one round trip, and no frame of
                // the relay can prevent that.
                world.drain();
                if !world.is_quiet(who) {
                    return;
                }
            }
            world.act(who, choice);
        }
        Step::Read(choice) => one_of(&world.readable(), choice).into_iter().for_each(|one| world.read(one)),
        Step::Receive(choice) => one_of(&world.receiving(), choice).into_iter().for_each(|one| world.receive(one)),
        Step::Work(choice) => one_of(&world.working(), choice).into_iter().for_each(|one| world.work(one)),
        Step::Fail(choice) => one_of(&world.working(), choice).into_iter().for_each(|one| world.fail(one)),
        Step::Stray(at) => world.carry_out_stray(node(at)),
        Step::Deliver(choice) => one_of(&world.links(), choice).into_iter().for_each(|one| world.deliver(one)),
        Step::Miss(choice) => one_of(&world.links(), choice).into_iter().for_each(|one| world.lose_message(one)),
        Step::Crash(at) => world.crash(node(at)),
        Step::Bury => world.notice_the_dead(),
        Step::Lapse(at) => world.lapse(node(at)),
        Step::Renew(at) => world.renew(node(at)),
        Step::Wait(millis) => world.wait(u64::from(millis)),
        Step::Reload(at) => world.step_if_open(node(at), Input::Reload),
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
        // Nothing more comes from a socket whose end its node has read.
        let open = |controller: &LocalController| {
            world.sockets.iter().any(|socket| socket.at_node && socket.connection == controller.connection)
        };
        let passing = (0..world.nodes.len()).filter_map(|node| world.driver(node)).filter(open).collect::<Vec<_>>();
        assert!(passing.len() <= 1, "states of two clients would be forwarded at once: {passing:?}");
        let core = &world.document().0.core;
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
        let session = world.document().0;
        let core = &session.core;
        let sockets: usize = session.rosters.values().map(|roster| roster.clients.len()).sum();
        assert!(core.requests.len() <= world.rules.max_requests, "too many requests");
        assert!(core.superseded.len() <= world.clients.len() * 4, "too many superseded sockets");
        let size = serde_json::to_vec(core).unwrap().len() + serde_json::to_vec(&session.rosters).unwrap().len();
        assert!(size <= 2_000 + 400 * (sockets + core.superseded.len()), "the document has grown to {size} bytes");
        assert!(core.transfer.is_none() || core.controller.is_some(), "nothing to transfer");
    }
}

fn run(strategy: Decides, nodes: usize, generations: &[Option<Generation>], steps: &[Step]) -> World {
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
    if world.clients.iter().all(|client| client.socket.is_none()) {
        // No node reads the document before a client comes back.
        return;
    }
    let (session, version) = world.document();
    for node in &world.nodes {
        let Some(room) = node.room.as_ref().filter(|room| !room.members().is_empty()) else { continue };
        let view = room.view().unwrap();
        let (seen, stored) = ((&view.session.core, &view.session.rosters), (&session.core, &session.rosters));
        assert_eq!(seen, stored, "{} sees a different document", node.id);
        assert_eq!(view.version, version);
        for member in room.members().iter().filter(|member| !member.superseded) {
            let owed = member.view.legacy().map_or(0, |legacy| legacy.acks.pending());
            assert_eq!(owed, 0, "{:?} has a frame to confirm", member.connection);
        }
    }
    for client in &world.clients {
        let Some(number) = client.socket else { continue };
        let place = session.client(world.sockets[number].connection);
        let Some((_, place)) = place else { panic!("{} has no place", client.name) };
        let role = session.role(place);
        assert!(client.knows(role), "{:?} is {role:?} and believes to be {:?}", client.generation, client.phase());
    }
    let core = &session.core;
    assert!(core.transfer.is_none() && core.requests.is_empty() && core.offer.is_none(), "something is pending");
    let passing = (0..world.nodes.len()).find_map(|node| world.driver(node)).map(|driver| driver.connection);
    let controller = core.controller.as_ref().map(|controller| controller.place.connection);
    assert_eq!(passing, controller, "only the ACTIVE client's states are forwarded");
    if controller.is_none() {
        assert!(session.roles().values().all(|role| *role != Role::Active));
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
        steps in proptest::collection::vec(step(), 1..400),
    ) {
        look_at_rest(&run(strategy, nodes, &generations, &steps));
    }
}
