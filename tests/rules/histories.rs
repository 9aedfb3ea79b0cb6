//! Faults that need several nodes, each as its own history of the simulated world.

use gitorial_relay::session::Strategy;

use super::old_script::Generation;
use super::world::World;

#[test]
fn a_node_with_a_new_lease_claims_its_controller_by_a_write() {
    let mut world = World::new(Strategy::FirstComeFirstServed, 2, &[Some(Generation::First); 2]);
    world.connect(0, 1);
    world.connect(1, 0);
    world.drain();
    world.act(0, 3);
    world.drain();
    world.lapse(1);
    world.notice_the_dead();
    // Node 0 has decided to give up the places on node 1, and is slow to write that; meanwhile node 1 is back.
    world.work_until_it_writes(0);
    world.renew(1);
    world.work_until_it_writes(1);
    world.work(1);
    world.work(1);
    world.work(0);
    // The other client takes control, without a wait if there is no controller.
    world.act(1, 5);
    for _ in 0..6 {
        world.readable().into_iter().for_each(|socket| world.read(socket));
        world.work(0);
        world.work(0);
        assert!((0..2).filter_map(|node| world.driver(node)).count() <= 1);
    }
    world.drain();
    assert!(world.driver(0).is_some(), "the controller's states are forwarded");
}
