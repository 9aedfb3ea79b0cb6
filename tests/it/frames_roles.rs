//! Rows of the table of frames: the assignment of roles, and the frames that tell it.

use std::time::Duration;

use serde_json::{Value, json};

use super::support::client::RawClient;
use super::support::cluster::Kind;
use super::support::stage::{Stage, assigned, demoted, drive, granted, meet, on_both, state};

on_both! {
    coordinate_active_is_granted_without_a_controller,
    a_repeated_coordinate_active_is_answered_again,
    coordinate_active_is_refused_under_a_controller,
    coordinate_passive_under_a_controller_makes_a_follower,
    coordinate_passive_of_the_controller_gives_up_control,
    the_oldest_client_that_has_spoken_is_provisional_controller,
    a_provisional_controller_gives_way_to_any_claim,
    a_silent_client_never_becomes_provisional_controller,
    every_role_change_is_announced_to_every_client,
    release_control_of_the_controller_is_forwarded_and_frees_it,
    release_control_of_a_follower_is_refused,
    confirm_transfer_of_a_client_is_never_forwarded,
    a_client_with_the_handshake_gets_assign_sync_direction_alone,
    one_of_two_simultaneous_claims_is_granted,
    the_controllers_leave_frees_control,
    the_relay_asks_once_for_the_state_for_a_new_follower,
}

fn active() -> Value {
    json!({ "preferredDirection": "ACTIVE", "reason": "pull" })
}

fn passive() -> Value {
    json!({ "preferredDirection": "PASSIVE", "reason": "push" })
}

async fn coordinate_active_is_granted_without_a_controller(stage: &Stage) {
    let (a, b) = stage.two().await;
    a.say("coordinate_sync_direction", active()).await;
    let told = a.expect("assign_sync_direction").await;
    assert_eq!(told["data"]["assignedDirection"], "ACTIVE");
    assert!(told["data"]["reason"].is_string() && told["timestamp"].is_u64(), "{told}");
    let confirmed = a.expect("confirm_transfer").await;
    assert!(confirmed["data"]["reason"].is_string() && confirmed["data"]["toClientId"].is_null(), "{confirmed}");
    demoted(&b, "client_a").await;
    assert_eq!(stage.active().await, "client_a");
    b.barrier(&a).await;
    assert!(a.frames_of("coordinate_sync_direction").is_empty() && a.frames_of("rejected").is_empty());
    a.barrier(&b).await;
    assert!(b.frames_of("coordinate_sync_direction").is_empty(), "a choice is for the relay only");
}

async fn a_repeated_coordinate_active_is_answered_again(stage: &Stage) {
    let (a, b) = stage.driven().await;
    a.say("coordinate_sync_direction", active()).await;
    granted(&a).await;
    a.say("state_update", state(1)).await;
    b.expect("state_update").await;
    assert_eq!(b.frames_of("accept_control").len(), 1, "nothing changed for the others");
}

async fn coordinate_active_is_refused_under_a_controller(stage: &Stage) {
    let a = stage.near("client_a").await;
    drive(&a, &[]).await;
    let b = stage.far("client_b").await;
    assert_eq!(b.expect("accept_control").await["clientId"], "client_a");
    b.say("confirm_transfer", json!({})).await;
    b.say("coordinate_sync_direction", active()).await;
    // *Refuse*: all at once, so that no phase of an old client is left out.
    assigned(&b, "ACTIVE").await;
    demoted(&b, "client_a").await;
    assert_eq!(b.expect_rejected("coordinate_sync_direction").await, "control_held");
    a.expect("request_sync").await;
    assert_eq!(stage.active().await, "client_a");
    assert!(b.frames_of("confirm_transfer").is_empty(), "it never was the controller");
}

async fn coordinate_passive_under_a_controller_makes_a_follower(stage: &Stage) {
    let a = stage.near("client_a").await;
    drive(&a, &[]).await;
    let b = stage.far("client_b").await;
    b.expect("accept_control").await;
    b.say("coordinate_sync_direction", passive()).await;
    assigned(&b, "PASSIVE").await;
    a.expect("request_sync").await;
    a.say("state_update", state(1)).await;
    b.expect("state_update").await;
    assert_eq!(b.frames_of("accept_control").len(), 1, "it asked to follow, so it is only told the role");
}

async fn coordinate_passive_of_the_controller_gives_up_control(stage: &Stage) {
    let (a, b) = stage.driven().await;
    a.say("coordinate_sync_direction", passive()).await;
    // b has spoken, so there is a controller again.
    b.expect("release_control").await;
    granted(&b).await;
    assigned(&a, "PASSIVE").await;
    assert_eq!(stage.active().await, "client_b");
}

async fn the_oldest_client_that_has_spoken_is_provisional_controller(stage: &Stage) {
    let (a, b, c) = stage.three().await;
    let d = stage.far("client_d").await;
    meet(&[&a, &b, &c], &d).await;
    c.barrier(&d).await;
    b.barrier(&d).await;
    d.say("coordinate_sync_direction", passive()).await;
    assigned(&d, "PASSIVE").await;
    granted(&b).await;
    demoted(&a, "client_b").await;
    demoted(&c, "client_b").await;
    assert_eq!(stage.active().await, "client_b");
}

async fn a_provisional_controller_gives_way_to_any_claim(stage: &Stage) {
    let (a, b) = stage.two().await;
    a.barrier(&b).await;
    b.say("coordinate_sync_direction", passive()).await;
    granted(&a).await;
    assigned(&b, "PASSIVE").await;
    b.say("request_control", json!({ "requestingClientId": "client_b" })).await;
    granted(&b).await;
    demoted(&a, "client_b").await;
    assert_eq!(stage.active().await, "client_b");
}

async fn a_silent_client_never_becomes_provisional_controller(stage: &Stage) {
    let (a, b) = stage.two().await;
    b.say("coordinate_sync_direction", passive()).await;
    assigned(&b, "PASSIVE").await;
    b.barrier(&a).await;
    assert_eq!(stage.active().await, Value::Null);
    assert!(a.frames_of("assign_sync_direction").is_empty());
}

async fn every_role_change_is_announced_to_every_client(stage: &Stage) {
    let (a, b, c) = stage.driven_with_a_third().await;
    for client in [&a, &b, &c] {
        client.expect_role("client_a", "active").await;
    }
    b.say("accept_control", json!({ "fromClientId": "client_a", "timestamp": 1 })).await;
    for client in [&a, &b, &c] {
        client.expect_role("client_b", "active").await;
        client.expect_role("client_a", "passive").await;
    }
    b.say("release_control", json!({ "timestamp": 1 })).await;
    for client in [&a, &b, &c] {
        client.expect_role("client_b", "connected").await;
    }
}

async fn release_control_of_the_controller_is_forwarded_and_frees_it(stage: &Stage) {
    let (a, b, c) = stage.driven_with_a_third().await;
    a.say("release_control", json!({ "timestamp": 1 })).await;
    for client in [&b, &c] {
        assert_eq!(client.expect("release_control").await["clientId"], "client_a");
    }
    assert_eq!(stage.active().await, Value::Null);
    b.say("coordinate_sync_direction", active()).await;
    granted(&b).await;
    demoted(&a, "client_b").await;
    demoted(&c, "client_b").await;
    for client in [&b, &c] {
        assert_eq!(client.frames_of("release_control").len(), 1, "once");
    }
}

async fn release_control_of_a_follower_is_refused(stage: &Stage) {
    let (a, b) = stage.driven().await;
    b.say("release_control", json!({ "timestamp": 1 })).await;
    assert_eq!(b.expect_rejected("release_control").await, "not_active");
    b.barrier(&a).await;
    assert!(a.frames_of("release_control").is_empty());
    assert_eq!(stage.active().await, "client_a");
}

async fn confirm_transfer_of_a_client_is_never_forwarded(stage: &Stage) {
    let (a, b) = stage.driven().await;
    let before = a.frames_of("confirm_transfer").len();
    for _ in 0..3 {
        b.say("confirm_transfer", json!({ "toClientId": "client_a", "timestamp": 1 })).await;
    }
    b.barrier(&a).await;
    assert_eq!(a.frames_of("confirm_transfer").len(), before);
    assert!(b.frames_of("rejected").is_empty(), "an automatic answer is not a fault");
    assert_eq!(stage.active().await, "client_a");
}

async fn a_client_with_the_handshake_gets_assign_sync_direction_alone(stage: &Stage) {
    let a = stage.modern_near("client_a").await;
    let b = stage.modern_far("client_b").await;
    a.say("coordinate_sync_direction", active()).await;
    let told = a.expect("assign_sync_direction").await;
    assert_eq!(told["data"]["assignedDirection"], "ACTIVE");
    assigned(&b, "PASSIVE").await;
    b.send(json!({ "type": "accept_control", "clientId": "client_b", "data": {}, "epoch": told["epoch"] })).await;
    let next = b.expect("assign_sync_direction").await;
    assert_eq!(next["data"]["assignedDirection"], "ACTIVE", "the current epoch works as well as the controller's name");
    assigned(&a, "PASSIVE").await;
    assert!(next["epoch"].as_u64() > told["epoch"].as_u64() && told["epoch"].as_u64() > Some(0), "{told} {next}");
    for client in [&a, &b] {
        let told = [client.frames_of("confirm_transfer"), client.frames_of("release_control")].concat();
        assert!(told.is_empty(), "{told:?}");
    }
    let forwarded = a.frames_of("accept_control");
    assert!(forwarded.len() <= 1 && b.frames_of("accept_control").is_empty(), "{forwarded:?}");
}

async fn one_of_two_simultaneous_claims_is_granted(stage: &Stage) {
    let (a, b) = stage.two().await;
    tokio::join!(a.say("coordinate_sync_direction", active()), b.say("coordinate_sync_direction", active()),);
    let refused = async |client: &RawClient| client.expect_rejected("coordinate_sync_direction").await;
    let (code, winner, loser) = tokio::select! {
        code = refused(&a) => (code, &b, &a),
        code = refused(&b) => (code, &a, &b),
    };
    assert!(["control_held", "control_pending"].contains(&code.as_str()), "{code}");
    granted(winner).await;
    let told = loser.expect("accept_control").await;
    assert_eq!(told["clientId"], winner.id.as_str());
    assert_eq!(stage.active().await, winner.id.as_str());
    loser.barrier(winner).await;
    assert!(winner.frames_of("rejected").is_empty() && loser.frames_of("confirm_transfer").is_empty());
}

async fn the_controllers_leave_frees_control(stage: &Stage) {
    let (a, b) = stage.driven().await;
    a.leave().await;
    b.expect("client_disconnected").await;
    b.expect("release_control").await;
    assert_eq!(stage.active().await, Value::Null);
    b.say("state_update", state(1)).await;
    granted(&b).await;
    assert_eq!(stage.active().await, "client_b");
}

async fn the_relay_asks_once_for_the_state_for_a_new_follower(stage: &Stage) {
    let (a, b) = stage.driven().await;
    a.say("state_update", state(1)).await;
    b.expect("state_update").await;
    let c = stage.modern_far("client_c").await;
    c.say("coordinate_sync_direction", passive()).await;
    assigned(&c, "PASSIVE").await;
    a.expect("request_sync").await;
    a.say("state_update", state(1)).await;
    assert_eq!(c.expect("state_update").await["data"], state(1));
    let more = a.quiet(Duration::from_millis(100)).await;
    assert!(more.iter().all(|frame| frame["type"] != "request_sync"), "{more:?}");
    assert!(b.frames_of("request_sync").is_empty(), "a follower is not asked by the relay");
}
