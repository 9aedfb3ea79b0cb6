//! Claims: which are granted, which wait and which are refused.

use gitorial_relay::control::{Effect, Intent};
use gitorial_relay::ids::Epoch;
use gitorial_relay::protocol::ErrorCode;
use gitorial_relay::session::{Role, Strategy};

use super::scene::{ASK, FOLLOW, STATE, Scene, accept, decline, name, node, offer, refused, socket};

const ALL: [Strategy; 3] = [Strategy::FirstComeFirstServed, Strategy::UserChoice, Strategy::DenyBoth];

#[test]
fn a_join_assigns_no_role_even_under_a_controller() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1]);
    scene.join(2);
    assert_eq!((scene.role(1), scene.role(2)), (Role::Active, Role::Connected));
}

#[test]
fn every_strategy_grants_a_claim_without_a_controller() {
    for strategy in ALL {
        for claim in [ASK, Intent::Request, accept(9), STATE, offer(2)] {
            let mut scene = Scene::new(strategy);
            scene.join(1);
            scene.join(2);
            scene.frame(2, claim.clone());
            assert_eq!((scene.role(1), scene.role(2)), (Role::Passive, Role::Active), "{strategy:?} {claim:?}");
        }
    }
}

#[test]
fn first_come_first_served_refuses_a_coordinating_client() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1]);
    scene.join(2);
    let core = scene.session.core.clone();
    assert_eq!(refused(&scene.frame(2, ASK)), Some(ErrorCode::ControlHeld));
    assert_eq!((scene.role(2), scene.session.core == core), (Role::Passive, true));
}

#[test]
fn first_come_first_served_grants_every_kind_of_take() {
    for take in [accept(1), STATE, offer(2)] {
        let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1, 2]);
        let before = scene.epoch();
        scene.frame(2, take.clone());
        assert_eq!((scene.role(1), scene.role(2)), (Role::Passive, Role::Active), "{take:?}");
        assert!(scene.epoch() > before);
    }
}

#[test]
fn first_come_first_served_keeps_one_request_at_a_time() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1, 2, 3]);
    let effects = scene.frame(2, Intent::Request);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::AskController { .. })));
    assert_eq!(refused(&scene.frame(3, Intent::Request)), Some(ErrorCode::ControlPending));
    assert!(scene.waits(2) && !scene.waits(3) && scene.drives(1));
}

#[test]
fn user_choice_lets_the_controller_pick_one_claim() {
    let mut scene = Scene::driven(Strategy::UserChoice, &[1, 2, 3, 4]);
    scene.join(5);
    for (client, claim) in [(2, Intent::Request), (3, STATE), (4, accept(1)), (5, ASK)] {
        scene.frame(client, claim);
        assert!(scene.waits(client) && scene.drives(1));
    }
    assert_eq!(scene.role(5), Role::Passive);
    scene.frame(1, accept(3));
    assert!(scene.drives(3) && scene.session.core.requests.is_empty());
}

#[test]
fn deny_both_refuses_claims_and_a_coordinating_client_follows() {
    for claim in [ASK, Intent::Request, accept(1), STATE, offer(2)] {
        let mut scene = Scene::driven(Strategy::DenyBoth, &[1]);
        scene.join(2);
        let core = scene.session.core.clone();
        assert_eq!(refused(&scene.frame(2, claim.clone())), Some(ErrorCode::ControlDenied), "{claim:?}");
        assert_eq!(scene.session.core, core);
        let role = if claim == Intent::Request { Role::Connected } else { Role::Passive };
        assert_eq!(scene.role(2), role, "{claim:?}");
    }
}

#[test]
fn a_controller_that_claims_again_keeps_its_epoch() {
    for strategy in ALL {
        let mut scene = Scene::driven(strategy, &[1, 2]);
        let epoch = scene.epoch();
        assert_eq!(refused(&scene.frame(1, ASK)), None);
        assert!(scene.drives(1) && scene.epoch() == epoch);
    }
}

#[test]
fn a_provisional_controller_gives_way_until_it_sends_a_frame() {
    for strategy in ALL {
        for own in [false, true] {
            let mut scene = Scene::new(strategy);
            [1, 2, 3].iter().for_each(|client| drop(scene.join(*client)));
            scene.frame(1, Intent::Speak);
            scene.frame(2, FOLLOW);
            assert!(scene.drives(1), "the only client that has spoken");
            if own {
                scene.frame(1, STATE);
            }
            scene.frame(3, ASK);
            assert_eq!(scene.drives(3), !own, "{strategy:?}");
        }
    }
}

#[test]
fn an_old_controller_gives_way_after_thirty_quiet_seconds() {
    for (modern, wait, yields) in [(false, 29_999, false), (false, 30_000, true), (true, 30_000, false)] {
        let mut scene = Scene::new(Strategy::DenyBoth);
        scene.join(1);
        if modern {
            scene.handshake(1);
        }
        scene.frame(1, ASK);
        scene.join(2);
        scene.now = scene.session.core.controller.as_ref().unwrap().since + wait;
        scene.frame(2, ASK);
        assert_eq!(scene.drives(2), yields);
    }
}

#[test]
fn a_client_with_the_handshake_takes_by_the_current_epoch_only() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1, 2]);
    scene.handshake(2);
    let (past, now) = (Epoch(scene.epoch().0 - 1), scene.epoch());
    assert_eq!(refused(&scene.frame_of(2, Intent::Accept(None), Some(past))), Some(ErrorCode::StaleEpoch));
    assert_eq!(refused(&scene.frame_of(2, Intent::Accept(None), None)), Some(ErrorCode::StaleEpoch));
    scene.frame_of(2, Intent::Accept(None), Some(now));
    assert!(scene.drives(2));
}

#[test]
fn a_state_of_a_follower_with_the_handshake_changes_nothing() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1, 2]);
    scene.handshake(2);
    let (core, rosters) = (scene.session.core.clone(), scene.session.rosters.clone());
    assert_eq!(refused(&scene.frame(2, STATE)), Some(ErrorCode::NotActive));
    assert_eq!(core, scene.session.core);
    scene.session.rosters.get_mut(&node(2)).unwrap().clients[1].alias = None;
    assert_eq!(rosters, scene.session.rosters);
}

#[test]
fn an_offer_is_taken_by_its_name_under_every_strategy() {
    for strategy in ALL {
        let mut scene = Scene::driven(strategy, &[1, 2]);
        scene.frame(1, offer(1));
        let effects = scene.frame(2, accept(1));
        assert!(scene.drives(2) && scene.session.core.offer.is_none());
        assert!(effects.iter().any(|effect| matches!(effect, Effect::ForwardToLoser(_))));
    }
}

#[test]
fn a_declined_offer_remains_for_all_others() {
    let mut scene = Scene::driven(Strategy::DenyBoth, &[1, 2, 3]);
    scene.frame(1, offer(1));
    assert_eq!(scene.frame(2, decline(1)), [Effect::ForwardToOthers]);
    assert_eq!(refused(&scene.frame(2, decline(1))), Some(ErrorCode::NothingPending));
    assert_eq!(refused(&scene.frame(2, accept(1))), Some(ErrorCode::ControlDenied));
    scene.frame(3, accept(1));
    assert!(scene.drives(3));
}

#[test]
fn the_controller_declines_the_request_that_it_names() {
    let mut scene = Scene::driven(Strategy::UserChoice, &[1, 2, 3]);
    scene.frame(2, Intent::Request);
    scene.frame(3, Intent::Request);
    assert_eq!(scene.frame(1, decline(2)), [Effect::ForwardToOthers]);
    assert!(!scene.waits(2) && scene.waits(3));
}

#[test]
fn offers_and_requests_end_with_their_time_epoch_or_owner() {
    let pending = || {
        let mut scene = Scene::driven(Strategy::UserChoice, &[1, 2, 3]);
        scene.frame(1, offer(1));
        scene.frame(2, Intent::Request);
        scene
    };
    let mut late = pending();
    late.now += 30_000;
    late.tick(1);
    assert!(late.session.core.requests.is_empty() && late.session.core.offer.is_none());
    let mut taken = pending();
    taken.frame(3, accept(1));
    assert!(taken.session.core.requests.is_empty() && taken.session.core.offer.is_none());
    let mut left = pending();
    left.leave(2, false);
    assert!(left.session.core.requests.is_empty() && left.session.core.offer.is_some());
    left.leave(1, false);
    assert!(left.session.core.offer.is_none());
}

#[test]
fn an_accept_that_names_no_current_client_is_stale() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1, 2]);
    assert_eq!(refused(&scene.frame(2, accept(7))), Some(ErrorCode::StaleEpoch));
    assert_eq!((scene.drives(1), scene.role(2)), (true, Role::Passive));
}

#[test]
fn the_number_of_requests_is_bounded() {
    let mut scene = Scene::driven(Strategy::UserChoice, &[1, 2, 3, 4]);
    scene.rules.max_requests = 2;
    let refusals = [2, 3, 4, 2].map(|client| refused(&scene.frame(client, Intent::Request)));
    assert_eq!(refusals, [None, None, Some(ErrorCode::ControlPending), None]);
    assert_eq!(scene.session.core.requests.len(), 2);
}

#[test]
fn the_requester_is_named_as_its_peers_know_it() {
    let mut scene = Scene::driven(Strategy::UserChoice, &[1, 2]);
    let effects = scene.frame(2, Intent::Request);
    let controller = scene.session.core.controller.as_ref().unwrap().place.clone();
    assert_eq!(controller.connection, socket(1));
    assert!(effects.contains(&Effect::AskController { controller, claimant: name(2) }));
}

#[test]
fn control_leaves_a_client_only_after_all_its_frames_are_read() {
    let mut scene = Scene::driven(Strategy::FirstComeFirstServed, &[1, 2]);
    scene.handshake(1);
    let epoch = scene.epoch();
    scene.frame(2, accept(1));
    assert_eq!((scene.role(1), scene.session.sending_controller(), scene.epoch()), (Role::Active, None, epoch));
    scene.tick(1);
    assert_eq!(scene.role(1), Role::Active, "its last state may be in flight");
    scene.flush();
    assert!(scene.drives(2) && scene.epoch() > epoch);
    // The relay waits neither for a client without the handshake, nor for one that hands control over itself.
    scene.frame(1, accept(2));
    assert!(scene.drives(1));
    scene.frame(2, Intent::Request);
    scene.frame(1, accept(2));
    assert!(scene.drives(2));
}
