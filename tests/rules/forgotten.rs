//! What the store has forgotten, and how its nodes write it again.

use gitorial_relay::control::{Event, Intent};
use gitorial_relay::protocol::ErrorCode;
use gitorial_relay::session::{Client, Role, Strategy};

use super::scene::{ASK, FOLLOW, STATE, Scene, accept, node, refused};

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
