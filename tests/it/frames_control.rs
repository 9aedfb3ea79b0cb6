//! Rows of the table of frames: requests for control, offers, accepts and declines, under every strategy.

use std::time::Duration;

use serde_json::{Value, json};

use super::support::client::RawClient;
use super::support::cluster::{Kind, Options};
use super::support::stage::{Stage, assigned, demoted, drive, granted, meet, on_both, state};

on_both! {
    a_request_goes_to_the_controller_alone_in_the_claimants_name,
    other_requests_are_refused_while_one_is_pending,
    the_controller_grants_a_request_by_its_name,
    the_controller_declines_a_request,
    a_release_grants_the_oldest_request,
    an_offer_is_forwarded_untouched,
    an_offer_of_a_follower_with_the_handshake_is_refused,
    an_offer_of_a_client_that_believes_to_be_active_is_a_take,
    an_accepted_offer_is_forwarded_once_to_the_loser_alone,
    a_declined_offer_cannot_be_accepted_by_the_same_client,
    declining_nothing_is_refused,
    naming_the_controller_takes_control,
    naming_neither_controller_nor_epoch_is_stale,
    a_change_of_control_ends_offers_and_requests,
}

fn from(name: &str) -> Value {
    json!({ "fromClientId": name, "timestamp": 1 })
}

fn offer(by: &str) -> Value {
    let about = json!({ "transferTimestamp": 1, "fromClientId": by, "toClientId": "x", "stateChecksum": "0" });
    json!({ "tutorialState": state(1), "metadata": about })
}

fn request(by: &str) -> Value {
    json!({ "requestingClientId": by, "targetClientId": "client_a", "requestTimestamp": 1 })
}

async fn a_request_goes_to_the_controller_alone_in_the_claimants_name(stage: &Stage) {
    let (a, b, c) = stage.driven_with_a_third().await;
    b.say("request_control", request("client_b")).await;
    let asked = a.expect("request_control").await;
    assert_eq!((&asked["clientId"], &asked["data"]), (&json!("client_b"), &request("client_b")));
    b.barrier(&c).await;
    assert!(c.frames_of("request_control").is_empty());
    assert_eq!(stage.active().await, "client_a");
    assert!(b.frames_of("rejected").is_empty());
}

async fn other_requests_are_refused_while_one_is_pending(stage: &Stage) {
    let (a, b, c) = stage.driven_with_a_third().await;
    b.say("request_control", request("client_b")).await;
    a.expect("request_control").await;
    c.say("request_control", request("client_c")).await;
    assert_eq!(c.expect_rejected("request_control").await, "control_pending");
    c.barrier(&a).await;
    assert_eq!(a.frames_of("request_control").len(), 1);
}

async fn the_controller_grants_a_request_by_its_name(stage: &Stage) {
    let (a, b) = stage.driven().await;
    b.say("request_control", request("client_b")).await;
    let name = a.expect("request_control").await["clientId"].clone();
    a.say("accept_control", json!({ "fromClientId": name, "timestamp": 1 })).await;
    granted(&b).await;
    demoted(&a, "client_b").await;
    assert_eq!(stage.active().await, "client_b");
    b.say("state_update", state(2)).await;
    assert_eq!(a.expect("state_update").await["data"], state(2));
}

async fn the_controller_declines_a_request(stage: &Stage) {
    let (a, b, c) = stage.driven_with_a_third().await;
    b.say("request_control", request("client_b")).await;
    a.expect("request_control").await;
    a.say("decline_control", from("client_b")).await;
    b.expect("decline_control").await;
    c.expect("decline_control").await;
    a.say("accept_control", from("client_b")).await;
    assert_eq!(a.expect_rejected("accept_control").await, "stale_epoch", "the request is gone");
    c.say("request_control", request("client_c")).await;
    a.expect("request_control").await;
    assert_eq!(a.frames_of("request_control").len(), 2, "a new request is possible again");
}

async fn a_release_grants_the_oldest_request(stage: &Stage) {
    let (a, b, c) = stage.driven_with_a_third().await;
    b.say("request_control", request("client_b")).await;
    a.expect("request_control").await;
    a.say("release_control", json!({ "timestamp": 1 })).await;
    granted(&b).await;
    c.expect("release_control").await;
    demoted(&a, "client_b").await;
    assert_eq!(stage.active().await, "client_b");
}

async fn an_offer_is_forwarded_untouched(stage: &Stage) {
    let (a, b, c) = stage.driven_with_a_third().await;
    let text = a.frame("offer_control", offer("client_a")).to_string();
    a.send_text(&text).await;
    assert_eq!(b.expect_raw("offer_control").await.text, text);
    assert_eq!(c.expect_raw("offer_control").await.text, text);
    assert_eq!(stage.active().await, "client_a", "an offer is not a transfer");
}

async fn an_offer_of_a_follower_with_the_handshake_is_refused(stage: &Stage) {
    let a = stage.near("client_a").await;
    let b = stage.modern_far("client_b").await;
    meet(&[&a], &b).await;
    drive(&a, &[]).await;
    assigned(&b, "PASSIVE").await;
    b.say("offer_control", offer("client_b")).await;
    assert_eq!(b.expect_rejected("offer_control").await, "not_active");
    b.barrier(&a).await;
    assert!(a.frames_of("offer_control").is_empty());
}

async fn an_offer_of_a_client_that_believes_to_be_active_is_a_take(stage: &Stage) {
    let (a, b) = stage.driven().await;
    b.say("offer_control", offer("client_b")).await;
    granted(&b).await;
    demoted(&a, "client_b").await;
    a.expect("offer_control").await;
    assert_eq!(stage.active().await, "client_b");
    a.say("accept_control", from("client_b")).await;
    granted(&a).await;
    demoted(&b, "client_a").await;
}

async fn an_accepted_offer_is_forwarded_once_to_the_loser_alone(stage: &Stage) {
    let (a, b, c) = stage.driven_with_a_third().await;
    a.say("offer_control", offer("client_a")).await;
    b.expect("offer_control").await;
    c.expect("offer_control").await;
    b.say("accept_control", from("client_a")).await;
    granted(&b).await;
    demoted(&a, "client_b").await;
    c.expect_role("client_b", "active").await;
    let more = a.quiet(Duration::from_millis(100)).await;
    assert!(more.iter().all(|frame| frame["type"] != "accept_control"), "exactly one accept_control: {more:?}");
    b.barrier(&c).await;
    assert_eq!(c.frames_of("accept_control").len(), 1, "only the one from its own start as a follower");
    c.say("accept_control", from("client_a")).await;
    assert_eq!(c.expect_rejected("accept_control").await, "stale_epoch", "an offer is accepted once");
    assert_eq!(stage.active().await, "client_b");
}

async fn a_declined_offer_cannot_be_accepted_by_the_same_client(stage: &Stage) {
    let (a, b, c) = stage.driven_with_a_third().await;
    a.say("offer_control", offer("client_a")).await;
    b.expect("offer_control").await;
    c.expect("offer_control").await;
    b.say("decline_control", from("client_a")).await;
    a.expect("decline_control").await;
    assert_eq!(stage.active().await, "client_a");
    c.say("accept_control", from("client_a")).await;
    granted(&c).await;
    demoted(&a, "client_c").await;
    assert_eq!(stage.active().await, "client_c", "the offer has ended only for the client that declined it");
}

async fn declining_nothing_is_refused(stage: &Stage) {
    let (a, b) = stage.driven().await;
    b.say("decline_control", from("client_a")).await;
    assert_eq!(b.expect_rejected("decline_control").await, "nothing_pending");
    a.say("decline_control", from("client_b")).await;
    assert_eq!(a.expect_rejected("decline_control").await, "nothing_pending");
    a.barrier(&b).await;
    b.barrier(&a).await;
    assert!(a.frames_of("decline_control").is_empty() && b.frames_of("decline_control").is_empty());
}

async fn naming_the_controller_takes_control(stage: &Stage) {
    let (a, b) = stage.driven().await;
    b.say("accept_control", from("client_a")).await;
    granted(&b).await;
    demoted(&a, "client_b").await;
    assert_eq!(stage.active().await, "client_b");
}

async fn naming_neither_controller_nor_epoch_is_stale(stage: &Stage) {
    let (a, b) = stage.driven().await;
    b.say("accept_control", from("client_z")).await;
    assert_eq!(b.expect_rejected("accept_control").await, "stale_epoch");
    // It went from passive to active by itself, and is corrected.
    demoted(&b, "client_a").await;
    b.barrier(&a).await;
    assert!(a.frames_of("accept_control").is_empty());
    assert_eq!(stage.active().await, "client_a");
}

async fn a_change_of_control_ends_offers_and_requests(stage: &Stage) {
    let (a, b, c) = stage.driven_with_a_third().await;
    a.say("offer_control", offer("client_a")).await;
    b.expect("offer_control").await;
    b.say("request_control", request("client_b")).await;
    a.expect("request_control").await;
    c.say("accept_control", from("client_a")).await;
    granted(&c).await;
    demoted(&a, "client_c").await;
    b.say("accept_control", from("client_a")).await;
    assert_eq!(b.expect_rejected("accept_control").await, "stale_epoch");
    c.say("accept_control", from("client_b")).await;
    assert_eq!(c.expect_rejected("accept_control").await, "stale_epoch");
    assert_eq!(stage.active().await, "client_c");
}

/// A session with this strategy in which `client_a` has control and `client_b` and `client_c` follow.
async fn with_strategy(kind: Kind, name: &str) -> (Stage, [RawClient; 3]) {
    let stage = Stage::with(kind, Options::default(), json!({ "conflictResolution": name })).await;
    let (a, b, c) = stage.driven_with_a_third().await;
    (stage, [a, b, c])
}

#[tokio::test]
async fn under_user_choice_the_controller_picks_one_of_several_claims() {
    for (kind, name) in [(Kind::Embedded, "user_choice"), (Kind::Redis(2), "USER_CHOICE")] {
        let (stage, [a, b, c]) = with_strategy(kind, name).await;
        b.say("request_control", request("client_b")).await;
        a.expect("request_control").await;
        // A take is a claim like any other here, and a client that believed it had succeeded is corrected.
        c.say("accept_control", from("client_a")).await;
        assert_eq!(a.expect("request_control").await["clientId"], "client_c");
        demoted(&c, "client_a").await;
        assert_eq!(stage.active().await, "client_a");
        a.say("accept_control", from("client_c")).await;
        granted(&c).await;
        demoted(&a, "client_c").await;
        assert_eq!(stage.active().await, "client_c");
        assert!(b.frames_of("rejected").is_empty() && b.frames_of("confirm_transfer").is_empty());
    }
}

#[tokio::test]
async fn under_deny_both_claims_are_denied_until_a_release() {
    for (kind, name) in [(Kind::Embedded, "DENY_BOTH"), (Kind::Redis(2), "deny_both")] {
        let (stage, [a, b, c]) = with_strategy(kind, name).await;
        b.say("request_control", request("client_b")).await;
        assert_eq!(b.expect_rejected("request_control").await, "control_denied");
        c.say("accept_control", from("client_a")).await;
        assert_eq!(c.expect_rejected("accept_control").await, "control_denied");
        demoted(&c, "client_a").await;
        b.say("state_update", state(9)).await;
        assert_eq!(b.expect_rejected("state_update").await, "control_denied");
        demoted(&b, "client_a").await;
        b.barrier(&a).await;
        assert!(a.frames_of("state_update").is_empty() && a.frames_of("request_control").is_empty());
        a.say("release_control", json!({ "timestamp": 1 })).await;
        b.expect("release_control").await;
        b.say("request_control", request("client_b")).await;
        granted(&b).await;
        assert_eq!(stage.active().await, "client_b");
    }
}
