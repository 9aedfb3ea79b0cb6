//! Faults that the simulated world or a review has found, each as its own history of one document.

use gitorial_relay::control::{Effect, Event, Intent};
use gitorial_relay::dialect::{Belief, ClientView, Dialect, Legacy, Modern, Phase};
use gitorial_relay::reconcile::{self, Notice};
use gitorial_relay::session::{Role, Status, Strategy};

use super::scene::{ASK, FOLLOW, STATE, Scene, accept, decline, name, node, offer, socket};

fn told(phase: Phase, modern: bool) -> ClientView {
    let dialect = if modern { Dialect::Modern(Modern::default()) } else { Dialect::Legacy(Legacy::default()) };
    ClientView { phase, dialect, introduced: true, ..ClientView::default() }
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
    assert_eq!(told.legacy().map(|legacy| legacy.acks.pending()), Some(0));
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
fn control_leaves_a_node_whose_last_client_has_left() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[11, 1]);
    scene.frame(1, accept(11));
    // The last client of node B left meanwhile. The write of that changes no core, so the two writes do not conflict,
    // and node B does not read the document any more.
    scene.session.rosters.remove(&node(11));
    scene.tick(1);
    assert!(scene.drives(1));
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
    for believed in [Phase::Active, Phase::Idle] {
        let mut released = told(believed, false);
        assert_eq!(scene.notices(1, &mut released), [Notice::Assign(Role::Active), Notice::ConfirmTransfer]);
        released.was_not_decided(Belief::LetGo);
        assert_eq!(scene.notices(1, &mut released), [Notice::Assign(Role::Active), Notice::ConfirmTransfer]);
    }
}

#[test]
fn an_undecided_release_is_answered_once_control_has_left() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1, 2]);
    scene.handshake(1);
    let mut released = ClientView { epoch: scene.epoch(), ..told(Phase::Active, true) };
    released.was_not_decided(Belief::LetGo);
    scene.frame(2, accept(1));
    assert_eq!(scene.notices(1, &mut released), [], "control is leaving it");
    scene.leave(2, false);
    scene.flush();
    assert_eq!(scene.role(1), Role::Connected);
    assert_eq!(scene.notices(1, &mut released), [Notice::Assign(Role::Connected)], "it may believe to have control");
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
fn a_forgotten_follower_of_nobody_comes_back_without_a_role_beside_another() {
    let mut scene = Scene::new(Strategy::FirstComeFirstServed);
    scene.join(1);
    scene.join(11);
    scene.frame(1, FOLLOW);
    let (client, roster) = (scene.client(1).clone(), node(1));
    scene.session.rosters.remove(&roster);
    let mut alone = Scene { session: scene.session.clone(), ..Scene::new(Strategy::FirstComeFirstServed) };
    alone.apply(&roster, &Event::Rejoin { clients: vec![client.clone()], held: None });
    assert_eq!(alone.role(1), Role::Passive, "the first to choose");
    // With both choices in the document there would have been a controller.
    scene.frame(11, FOLLOW);
    scene.apply(&roster, &Event::Rejoin { clients: vec![client], held: None });
    assert_eq!((scene.role(1), scene.role(11)), (Role::Connected, Role::Passive));
}

#[test]
fn a_follower_whose_answer_may_be_a_take_is_told_that_it_has_no_control() {
    let scene = Scene::driven(Strategy::FirstComeFirstServed, &[1, 11]);
    let mut old = told(Phase::Passive, false);
    assert_eq!(scene.notices(11, &mut old), []);
    assert!(old.doubts_answer());
    assert_eq!(scene.notices(11, &mut old), [Notice::AcceptControl(name(1))]);
    assert_eq!((old.phase, scene.notices(11, &mut old)), (Phase::Passive, vec![]));
    assert_eq!(old.legacy().map(|legacy| legacy.acks.pending()), Some(0), "its next state is a take");
    assert!(!told(Phase::Passive, true).doubts_answer(), "it takes nothing in silence");
}
