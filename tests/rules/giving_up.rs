//! Releases, leaves, returns, and control that moves from node to node.

use gitorial_relay::control::{Effect, Event, Intent};
use gitorial_relay::protocol::{CloseReason, ErrorCode};
use gitorial_relay::session::{EpochEnd, Role, Strategy};

use super::scene::{ASK, FOLLOW, STATE, Scene, accept, name, node, refused, socket};

#[test]
fn a_release_leaves_all_clients_without_a_role() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1, 2, 11]);
    scene.frame(1, Intent::Release);
    assert_eq!([1, 2, 11].map(|client| scene.role(client)), [Role::Connected; 3]);
    let ended = scene.session.core.ended.clone().unwrap();
    assert_eq!((ended.how, ended.connection), (EpochEnd::Released, socket(1)));
}

#[test]
fn a_release_grants_the_oldest_pending_request() {
    let mut scene = Scene::driven(Strategy::UserChoice, &[1, 2, 11]);
    scene.frame(11, Intent::Request);
    scene.now += 1;
    scene.frame(2, Intent::Request);
    scene.frame(1, Intent::Release);
    assert!(scene.drives(11) && scene.role(1) == Role::Passive && scene.role(2) == Role::Passive);
}

#[test]
fn only_the_controller_can_release() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1, 2]);
    let core = scene.session.core.clone();
    assert_eq!(refused(&scene.frame(2, Intent::Release)), Some(ErrorCode::NotActive));
    assert_eq!(scene.session.core, core);
}

#[test]
fn coordinate_passive_makes_another_provisional_controller() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1, 2, 3]);
    scene.frame(2, Intent::Speak);
    scene.frame(3, Intent::Speak);
    scene.frame(1, FOLLOW);
    assert!(scene.drives(2) && scene.session.core.controller.as_ref().unwrap().provisional);
    assert_eq!((scene.role(1), scene.role(3)), (Role::Passive, Role::Passive));
}

#[test]
fn a_provisional_controller_has_spoken_and_preferably_no_role() {
    let mut scene = Scene::new(Strategy::FirstComeFirstServed);
    [1, 2, 3, 4].iter().for_each(|client| drop(scene.join(*client)));
    scene.frame(2, FOLLOW);
    assert!(scene.session.core.controller.is_none(), "no other client has spoken");
    scene.frame(4, Intent::Speak);
    scene.frame(3, FOLLOW);
    assert!(scene.drives(4), "2 has been connected longer, but follows");
}

#[test]
fn coordinate_passive_under_another_controller_only_follows() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1]);
    scene.join(2);
    let core = scene.session.core.clone();
    scene.frame(2, FOLLOW);
    assert_eq!((scene.role(2), scene.session.core == core), (Role::Passive, true));
}

#[test]
fn control_leaves_a_controller_on_another_node_in_two_steps() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1, 11]);
    let epoch = scene.epoch();
    assert!(scene.frame(11, STATE).contains(&Effect::HoldFrame));
    assert!(
        scene.session.sending_controller().is_none() && scene.epoch() == epoch,
        "while revoking there is no controller"
    );
    scene.tick(11);
    assert!(scene.session.sending_controller().is_none(), "only the controller's node confirms the revocation");
    scene.tick(1);
    assert!(scene.drives(11) && scene.epoch() > epoch);
}

#[test]
fn a_lapsed_node_need_not_confirm_a_revocation() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1, 11]);
    scene.frame(11, accept(1));
    scene.lapsed.insert(node(1));
    scene.tick(11);
    assert!(scene.drives(11) && scene.session.client(socket(1)).is_none());
}

#[test]
fn other_claims_are_refused_while_control_is_moving() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1, 11, 12]);
    scene.frame(11, accept(1));
    assert_eq!(refused(&scene.frame(12, STATE)), Some(ErrorCode::ControlPending));
    scene.tick(1);
    assert!(scene.drives(11));
}

fn modern(strategy: Strategy) -> Scene {
    let mut scene = Scene::new(strategy);
    scene.join(1);
    scene.handshake(1);
    scene.frame(1, ASK);
    scene.join(11);
    scene.frame(11, FOLLOW);
    scene
}

#[test]
fn a_leave_frees_control_and_a_loss_keeps_it_for_a_grace_period() {
    let mut left = modern(Strategy::FirstComeFirstServed);
    left.leave(1, false);
    assert!(left.session.core.controller.is_none() && left.role(11) == Role::Connected);
    let mut lost = modern(Strategy::FirstComeFirstServed);
    lost.leave(1, true);
    lost.now += 14_999;
    lost.tick(1);
    assert_eq!(lost.role(1), Role::Active);
    lost.now += 1;
    lost.tick(1);
    assert!(lost.session.core.controller.is_none() && lost.role(11) == Role::Connected);
}

#[test]
fn a_loss_without_a_token_is_a_leave() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1, 2]);
    scene.leave(1, true);
    assert!(scene.session.core.controller.is_none() && scene.session.client(socket(1)).is_none());
}

#[test]
fn a_request_waits_for_the_grace_period_and_a_take_ends_it() {
    let mut scene = modern(Strategy::FirstComeFirstServed);
    scene.leave(1, true);
    scene.frame(11, ASK);
    assert!(scene.waits(11) && scene.role(1) == Role::Active);
    scene.frame(11, STATE);
    assert!(scene.drives(11), "at once: a cut-off controller has nothing to stop");
}

#[test]
fn a_resume_on_another_node_is_a_new_grant_and_spends_its_token() {
    let mut scene = modern(Strategy::FirstComeFirstServed);
    scene.leave(1, true);
    let epoch = scene.epoch();
    scene.come_back(12, Some(1));
    assert!(scene.drives(12) && scene.epoch() > epoch);
    assert_eq!((scene.client(12).id.clone(), scene.role(11)), (name(1), Role::Passive));
    scene.come_back(13, Some(1));
    assert!(scene.drives(12) && scene.client(13).id != name(1));
}

#[test]
fn a_token_is_valid_again_if_no_handshake_follows_its_return() {
    let mut scene = modern(Strategy::FirstComeFirstServed);
    scene.leave(1, true);
    scene.come_back(12, Some(1));
    scene.now += 500;
    let effects = scene.come_back(13, Some(1));
    assert!(
        scene.drives(13) && scene.client(13).id == name(1),
        "the socket is lost, and its node could not write that"
    );
    assert!(effects.contains(&Effect::Close(socket(12), CloseReason::Evicted)));
    scene.handshake(13);
    scene.now += 500;
    scene.come_back(14, Some(1));
    assert!(scene.drives(13) && scene.client(14).id != name(1));
}

#[test]
fn a_token_is_valid_again_if_its_socket_is_lost() {
    let mut scene = modern(Strategy::FirstComeFirstServed);
    scene.leave(1, true);
    scene.come_back(12, Some(1));
    scene.leave(12, true);
    scene.come_back(13, Some(1));
    assert!(scene.drives(13), "before the handshake");
    scene.handshake(13);
    scene.leave(13, true);
    scene.come_back(14, Some(1));
    assert!(scene.drives(14) && scene.client(14).id == name(1), "before the answer was read");
}

#[test]
fn a_resume_evicts_the_older_socket_first() {
    let mut scene = modern(Strategy::FirstComeFirstServed);
    let effects = scene.come_back(12, Some(1));
    assert!(effects.contains(&Effect::Close(socket(1), CloseReason::Evicted)));
    assert!(scene.session.sending_controller().is_none(), "its node has not confirmed the revocation yet");
    scene.tick(1);
    assert!(scene.drives(12));
}

#[test]
fn a_returning_follower_follows_and_no_epoch_begins() {
    let mut scene = modern(Strategy::FirstComeFirstServed);
    scene.join(12);
    scene.handshake(12);
    scene.frame(12, FOLLOW);
    scene.leave(12, true);
    let epoch = scene.epoch();
    scene.come_back(2, Some(12));
    assert_eq!((scene.role(2), scene.epoch()), (Role::Passive, epoch));
}

#[test]
fn a_second_socket_of_the_same_old_client_takes_over_its_place() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1, 2]);
    scene.join(3);
    scene.frame_as(3, name(1), Intent::Speak, None);
    assert!(scene.drives(3) && scene.session.client(socket(1)).is_none());
    assert_eq!((scene.session.live_clients(), scene.role(2)), (2, Role::Passive));
    assert_eq!(scene.frame(1, STATE), [Effect::Drop]);
    scene.leave(1, false);
    assert!(scene.drives(3) && scene.session.core.superseded.is_empty());
}

#[test]
fn a_controller_that_lost_its_place_follows_the_new_one() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1, 11]);
    let client = scene.client(1).clone();
    scene.lapsed.insert(node(1));
    scene.tick(11);
    scene.lapsed.clear();
    scene.frame(11, ASK);
    scene.apply(&node(1), &Event::Rejoin { clients: vec![client], held: None });
    assert_eq!((scene.role(1), scene.drives(11)), (Role::Passive, true));
}

#[test]
fn a_controller_that_lost_its_place_is_free_without_a_new_one() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1, 11]);
    let client = scene.client(1).clone();
    scene.lapsed.insert(node(1));
    scene.tick(11);
    scene.lapsed.clear();
    scene.apply(&node(1), &Event::Rejoin { clients: vec![client], held: None });
    assert_eq!((scene.role(1), scene.session.sending_controller()), (Role::Connected, None));
}

#[test]
fn an_expired_session_has_no_joins_and_no_controller() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1]);
    scene.now += 1_800_000;
    let effects = scene.join(2);
    assert_eq!(effects, [Effect::Close(socket(2), CloseReason::SessionNotFound)]);
    assert!(scene.session.sending_controller().is_none());
}
