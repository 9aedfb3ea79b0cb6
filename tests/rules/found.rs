//! Faults that the simulated world or a review has found, each as its own history.

use gitorial_relay::control::{Effect, Event, Intent};
use gitorial_relay::protocol::ErrorCode;
use gitorial_relay::reconcile::{self, Belief, ClientView, Notice, Phase};
use gitorial_relay::session::{Client, Role, Status, Strategy};

use super::client::Generation;
use super::scene::{ASK, FOLLOW, STATE, Scene, accept, decline, node, offer, refused, socket};
use super::world::World;

fn told(phase: Phase, modern: bool) -> ClientView {
    ClientView { phase, modern, introduced: true, ..ClientView::default() }
}

#[test]
fn a_state_in_flight_at_a_loss_does_not_take_control_back() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1, 2, 11]);
    for (taker, late) in [(2, STATE), (11, STATE)] {
        let (controller, epoch) = (if taker == 2 { 1 } else { 2 }, scene.epoch());
        scene.frame(taker, accept(controller));
        assert_eq!(scene.frame_of(controller, late, Some(epoch)).last(), Some(&Effect::Drop));
        assert!(scene.drives(taker));
    }
}

#[test]
fn a_claimant_that_control_is_moving_to_is_not_refused() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1, 11]);
    scene.frame(11, accept(1));
    assert_eq!(scene.frame(11, STATE), [Effect::HoldFrame]);
    assert_eq!(scene.frame(11, accept(1)), []);
    scene.tick(1);
    assert!(scene.drives(11));
}

#[test]
fn a_claimant_that_control_is_moving_to_is_not_told_to_follow() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1, 11]);
    let mut told = told(Phase::Passive, false);
    told.believes(Belief::Drives);
    scene.frame(11, accept(1));
    assert_eq!(scene.notices(11, &mut told), []);
    scene.tick(1);
    assert_eq!(scene.notices(11, &mut told), [Notice::Assign(Role::Active), Notice::ConfirmTransfer]);
    assert_eq!(told.acks, 0);
}

#[test]
fn a_release_is_confirmed_after_any_older_news() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1, 2]);
    let mut told = told(Phase::Active, true);
    told.believes(Belief::LetGo);
    scene.frame(1, Intent::Release);
    assert_eq!(scene.notices(1, &mut told), [Notice::Assign(Role::Connected)]);
    assert_eq!((told.phase, scene.notices(1, &mut told)), (Phase::Idle, vec![]));
}

#[test]
fn a_client_that_released_before_its_grant_is_corrected() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1, 2]);
    let mut told = told(Phase::Passive, false);
    told.believes(Belief::Drives);
    scene.frame(2, accept(1));
    assert_eq!(scene.notices(2, &mut told), [Notice::Assign(Role::Active), Notice::ConfirmTransfer]);
    // This was in flight already, and the frame that it just got makes it ACTIVE again.
    told.believes(Belief::LetGo);
    scene.frame(2, Intent::Release);
    let notices = scene.notices(2, &mut told);
    assert!(notices.contains(&Notice::Assign(Role::Passive)), "{notices:?}");
    assert!(matches!(notices.last(), Some(Notice::ReleaseControl(_))), "{notices:?}");
    assert_eq!(told.phase, Phase::Idle);
}

#[test]
fn a_controller_that_grants_a_request_is_not_told_active_again() {
    let mut scene = Scene::driven(Strategy::UserChoice, &[1, 2, 11]);
    let mut told = told(Phase::Active, false);
    told.epoch = scene.epoch();
    scene.frame(11, Intent::Request);
    told.believes(Belief::Drives);
    scene.frame(1, accept(7));
    assert_eq!(scene.notices(1, &mut told), []);
}

#[test]
fn a_release_skips_a_requester_whose_socket_is_gone() {
    let mut scene = Scene::driven(Strategy::UserChoice, &[1, 2, 3]);
    scene.handshake(2);
    scene.frame(2, Intent::Request);
    scene.frame(3, Intent::Request);
    scene.leave(2, true);
    scene.frame(1, Intent::Release);
    assert!(scene.drives(3));
}

#[test]
fn moving_control_follows_its_claimant_to_another_socket() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1, 11]);
    scene.handshake(11);
    scene.frame(11, accept(1));
    scene.come_back(12, Some(11));
    scene.tick(1);
    assert!(scene.drives(12));
}

#[test]
fn a_controller_back_while_control_leaves_it_does_not_regain_it() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1, 11]);
    scene.handshake(1);
    scene.frame(11, accept(1));
    scene.come_back(12, Some(1));
    scene.tick(1);
    assert_eq!((scene.drives(11), scene.role(12)), (true, Role::Passive));
}

#[test]
fn a_cut_off_controller_returns_in_a_new_epoch_only() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1, 11]);
    scene.handshake(1);
    let (client, epoch) = (scene.client(1).clone(), scene.epoch());
    scene.lapsed.insert(node(1));
    scene.tick(11);
    scene.lapsed.clear();
    assert!(scene.session.sending_controller().is_none(), "others take control from it without asking");
    scene.apply(&node(1), &Event::Rejoin { clients: vec![client], held: None });
    assert!(scene.drives(1) && scene.epoch() > epoch);
}

#[test]
fn a_missing_socket_does_not_rejoin_beside_its_resumed_client() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[11, 1]);
    scene.handshake(1);
    let client = scene.client(1).clone();
    scene.lapsed.insert(node(1));
    scene.tick(11);
    scene.come_back(12, Some(1));
    scene.lapsed.clear();
    scene.tick(1);
    scene.apply(&node(1), &Event::Rejoin { clients: vec![client], held: None });
    let same = scene.session.clients().filter(|(_, client)| client.connection != socket(11)).count();
    assert_eq!((same, reconcile::is_superseded(&scene.session, socket(1))), (1, true));
}

#[test]
fn a_returning_follower_is_brought_up_to_date() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1, 2]);
    scene.handshake(2);
    scene.leave(2, true);
    let before = scene.session.clone();
    scene.come_back(11, Some(2));
    assert!(reconcile::diff(Some(&before), &scene.session).followers);
}

#[test]
fn an_offer_keeps_no_more_refusals_than_there_are_clients() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1]);
    scene.frame(1, offer(1));
    for client in 2..9 {
        scene.join(client);
        scene.frame(client, decline(1));
        scene.leave(client, false);
    }
    assert_eq!(scene.session.core.offer.unwrap().declined.len(), 1);
}

#[test]
fn an_ended_session_keeps_the_reason_of_its_end() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1, 2]);
    scene.now += 1_800_000;
    scene.apply(&node(1), &Event::Delete);
    assert_eq!(scene.session.core.status, Status::Expired);
    let core = scene.session.core.clone();
    for intent in [ASK, STATE, FOLLOW, Intent::Release] {
        assert_eq!(scene.frame(2, intent), [Effect::Drop]);
    }
    assert_eq!(scene.session.core, core);
}

#[test]
fn a_node_with_a_new_lease_claims_its_controller_by_a_write() {
    let mut world = World::new(Strategy::FirstComeFirstServed, 2, &[Generation::First, Generation::First]);
    world.connect(0, 1);
    world.connect(1, 0);
    world.drain();
    world.clients[0].act(3);
    world.drain();
    world.lapse(1);
    world.notice_the_dead(0);
    // Node 0 has decided to give up the places on node 1, and is slow to write that; meanwhile node 1 is back.
    world.work(0);
    world.renew(1);
    world.work(1);
    world.work(1);
    world.work(0);
    // The other client takes control, without a wait if there is no controller.
    world.clients[1].act(5);
    for _ in 0..3 {
        world.read(1);
        world.work(0);
        world.work(0);
        assert!(world.nodes.iter().filter_map(|node| node.passing()).count() <= 1);
    }
    world.drain();
    assert!(world.nodes[0].passing().is_some(), "the controller's states are forwarded");
}

#[test]
fn a_follower_whose_node_was_declared_dead_stays_a_follower() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[11, 1]);
    scene.handshake(1);
    scene.frame(1, FOLLOW);
    let client = scene.client(1).clone();
    scene.lapsed.insert(node(1));
    scene.tick(11);
    scene.lapsed.clear();
    scene.apply(&node(1), &Event::Rejoin { clients: vec![client], held: None });
    assert_eq!((scene.role(1), scene.session.live_clients()), (Role::Passive, 2));
}

#[test]
fn an_undecided_claim_makes_no_follower_without_a_controller() {
    let mut scene = Scene::new(Strategy::FirstComeFirstServed);
    scene.join(1);
    scene.handshake(1);
    let mut undecided = told(Phase::Passive, true);
    undecided.believes(Belief::Drives);
    let last = |notices: Vec<Notice>| notices.last().cloned();
    assert!(matches!(last(scene.notices(1, &mut undecided)), Some(Notice::ReleaseControl(_))));
    let mut drove = told(Phase::Active, true);
    assert!(matches!(last(scene.notices(1, &mut drove)), Some(Notice::ReleaseControl(_))));
    // One that gave control up goes on as a follower, until another drives.
    let mut released = told(Phase::Active, true);
    released.believes(Belief::LetGo);
    assert_eq!(scene.notices(1, &mut released), [Notice::Assign(Role::Connected)]);
}

#[test]
fn a_controller_whose_release_was_not_decided_is_told_its_role() {
    let scene = Scene::driven(Strategy::FirstComeFirstServed, &[1, 2]);
    for assured in [true, false] {
        let mut released = ClientView { assured, epoch: scene.epoch(), ..told(Phase::Active, false) };
        released.was_not_decided(Belief::LetGo);
        assert_eq!(scene.notices(1, &mut released), [Notice::Assign(Role::Active), Notice::ConfirmTransfer]);
    }
}

#[test]
fn a_release_from_before_a_grant_is_forgotten() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1]);
    scene.handshake(1);
    let mut client = told(Phase::Idle, true);
    client.believes(Belief::LetGo);
    assert_eq!(scene.notices(1, &mut client), [Notice::Assign(Role::Active)]);
    scene.frame_of(1, Intent::Release, Some(scene.epoch()));
    assert!(matches!(scene.notices(1, &mut client).last(), Some(Notice::ReleaseControl(_))));
}

/// The document as another node restores it: the roster of `keeper`'s node alone.
fn forget_all_but(scene: &mut Scene, keeper: u128) {
    scene.session.rosters.retain(|id, _| *id == node(keeper));
}

#[test]
fn a_follower_that_the_store_lost_stays_a_follower() {
    for by_choice in [true, false] {
        let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[11, 1, 2]);
        if by_choice {
            scene.frame(1, FOLLOW);
        }
        let clients = [1, 2].map(|number| scene.client(number).clone());
        let clients = clients.map(|client| Client { given: scene.session.assignment(&client), ..client });
        forget_all_but(&mut scene, 11);
        scene.apply(&node(1), &Event::Rejoin { clients: clients.to_vec(), held: None });
        assert_eq!([1, 2].map(|number| scene.role(number)), [Role::Passive; 2], "by choice: {by_choice}");
        // It still follows with the others when every client gets a role.
        scene.frame(11, Intent::Release);
        assert_eq!([1, 2].map(|number| scene.role(number)), [Role::Connected; 2]);
    }
}

#[test]
fn a_missing_follower_loses_its_role_if_control_is_given_up() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[11, 1]);
    let client = scene.client(1).clone();
    let client = Client { given: scene.session.assignment(&client), ..client };
    forget_all_but(&mut scene, 11);
    scene.frame(11, Intent::Release);
    scene.apply(&node(1), &Event::Rejoin { clients: vec![client], held: None });
    assert_eq!(scene.role(1), Role::Connected);
}

#[test]
fn followers_of_an_unrestored_controller_are_freed_after_doubt() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1, 11, 12]);
    // The controller and its node are gone with the store's data; the other node restores the session.
    forget_all_but(&mut scene, 11);
    scene.session.core.controller = None;
    scene.session.core.doubtful_until = scene.now + 6_000;
    scene.tick(11);
    assert_eq!([11, 12].map(|number| scene.role(number)), [Role::Passive; 2], "the controller may still be claimed");
    scene.now += 6_000;
    scene.tick(11);
    assert_eq!([11, 12].map(|number| scene.role(number)), [Role::Connected; 2]);
    scene.frame(12, ASK);
    assert!(scene.drives(12));
}

#[test]
fn a_client_cut_off_when_the_store_lost_it_can_come_back() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[11, 1]);
    scene.handshake(1);
    scene.leave(1, true);
    let client = scene.client(1).clone();
    let client = Client { given: scene.session.assignment(&client), ..client };
    forget_all_but(&mut scene, 11);
    scene.apply(&node(1), &Event::Rejoin { clients: vec![client.clone()], held: None });
    assert_eq!(scene.session.live_clients(), 1, "it is still away");
    scene.come_back(12, Some(1));
    assert_eq!((scene.role(12), scene.session.live_clients()), (Role::Passive, 2));
    // If its old node claims it once more, it keeps its new place.
    scene.session.rosters.remove(&node(1));
    scene.apply(&node(1), &Event::Rejoin { clients: vec![client], held: None });
    assert_eq!((scene.role(12), scene.session.clients().count()), (Role::Passive, 2));
}

#[test]
fn a_core_that_the_store_lost_is_written_again() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1, 2]);
    // A replica that missed the last change replaces its primary.
    let loss_unreported = scene.session.clone();
    scene.now += 10;
    scene.frame(2, accept(1));
    let (core, epoch) = (scene.session.core.clone(), scene.epoch());
    scene.session = loss_unreported;
    scene.apply(&node(1), &Event::RestoreCore(Box::new(core)));
    assert!(scene.drives(2) && scene.epoch() == epoch);
    scene.frame(1, accept(2));
    assert!(scene.epoch() > epoch, "no epoch is given twice");
}

#[test]
fn a_core_that_others_have_changed_since_is_kept() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1, 2]);
    let old = scene.session.core.clone();
    scene.now += 10;
    scene.frame(2, accept(1));
    let core = scene.session.core.clone();
    scene.apply(&node(1), &Event::RestoreCore(Box::new(old)));
    assert_eq!(scene.session.core, core);
}

#[test]
fn a_release_that_the_store_lost_still_counts() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1, 2]);
    let loss_unreported = scene.session.clone();
    scene.now += 10;
    scene.frame(1, Intent::Release);
    let core = scene.session.core.clone();
    scene.session = loss_unreported;
    scene.apply(&node(1), &Event::RestoreCore(Box::new(core)));
    assert!(!scene.drives(1) && scene.session.core.controller.is_none());
}

#[test]
fn a_controller_missing_from_a_restore_is_added_by_its_own_node() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1, 11]);
    scene.session.core.doubtful_until = scene.now + 6_000;
    let core = scene.session.core.clone();
    scene.session.core.controller = None;
    let restored = scene.session.core.clone();
    scene.apply(&node(11), &Event::RestoreCore(Box::new(core.clone())));
    assert_eq!(scene.session.core, restored, "another node does not add it");
    scene.apply(&node(1), &Event::RestoreCore(Box::new(core.clone())));
    assert_eq!(scene.session.core, core);
    scene.apply(&node(11), &Event::RestoreCore(Box::new(restored)));
    assert_eq!(scene.session.core, core, "the two nodes do not write in turn");
}

#[test]
fn nodes_that_know_different_cores_do_not_write_in_turn() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1, 11]);
    let loss_unreported = scene.session.clone();
    scene.now += 10;
    scene.frame(1, Intent::Release);
    scene.frame(11, STATE);
    let granted = scene.session.core.clone();
    // Meanwhile the node of the client that released has repaired the store's core, later but without that grant.
    scene.session = loss_unreported;
    scene.now += 10;
    scene.leave(1, false);
    let mended = scene.session.core.clone();
    assert!(mended.changed_at > granted.changed_at && mended.epoch < granted.epoch);
    scene.apply(&node(11), &Event::RestoreCore(Box::new(granted)));
    assert!(scene.drives(11));
    scene.apply(&node(1), &Event::RestoreCore(Box::new(mended)));
    assert!(scene.drives(11), "the later grant stays");
}

#[test]
fn a_client_whose_role_was_undecided_does_not_wait_forever() {
    for (belief, asked) in [(Belief::Pull, Phase::Pull), (Belief::Push, Phase::Push)] {
        let mut scene = Scene::new(Strategy::FirstComeFirstServed);
        scene.join(1);
        let mut told = told(Phase::Idle, false);
        // Its frame was refused because the store was away; a client without the handshake does not understand that.
        told.believes(belief);
        assert_eq!(told.phase, asked);
        let notices = scene.notices(1, &mut told);
        assert!(notices.contains(&Notice::Assign(Role::Passive)), "{notices:?}");
        assert!(matches!(notices.last(), Some(Notice::ReleaseControl(_))), "{notices:?}");
        assert_eq!(told.phase, Phase::Idle);
    }
}

#[test]
fn no_grant_after_data_loss_until_old_leases_expire() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1, 11]);
    // Node B has restored it, and does not know whether the old controller still has control.
    scene.session.rosters.remove(&node(1));
    (scene.session.core.controller, scene.session.core.doubtful_until) = (None, scene.now + 6_000);
    for intent in [ASK, STATE] {
        assert_eq!(refused(&scene.frame(11, intent)), Some(ErrorCode::StoreUnavailable));
    }
    scene.now += 6_000;
    scene.frame(11, STATE);
    assert!(scene.drives(11));
}
