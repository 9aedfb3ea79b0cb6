//! Rows of the table of frames: handshake and presence (docs/protocol.md, "Frames").

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::support::client::{RawClient, unread_socket};
use super::support::cluster::{Kind, Options, PATIENCE};
use super::support::eventually;
use super::support::stage::{Stage, acknowledge, assigned, demoted, granted, meet, on_both, state};

on_both! {
    a_handshake_of_version_1_is_acknowledged,
    a_handshake_of_version_2_closes_the_socket,
    the_handshake_is_accepted_only_once_as_the_first_frame,
    a_join_announces_both_sides_each_by_one_id,
    clients_that_join_at_once_hear_of_each_other,
    the_id_in_the_url_is_the_id_that_is_announced,
    an_id_that_is_taken_is_not_announced_twice,
    a_leave_is_announced_by_the_id_of_the_join,
    a_broken_socket_is_announced_as_a_leave,
    a_client_joins_without_a_role,
    a_new_follower_is_held_until_it_acknowledges_the_controller,
    frames_that_need_an_answer_are_held_after_a_leave,
    a_client_on_a_second_socket_takes_its_own_place,
    an_ack_pending_on_a_dead_socket_does_not_hold_the_next_one,
    a_cut_off_controller_with_a_token_resumes_elsewhere,
    a_resume_evicts_the_older_socket,
    a_resume_broken_before_or_after_its_answer_is_retried,
    a_protocol_ping_is_answered_and_reaches_no_peer,
    a_client_with_a_wrong_token_cannot_resume,
}

async fn a_handshake_of_version_1_is_acknowledged(stage: &Stage) {
    let (_a, ack) = RawClient::join_modern(stage.cluster.near(), &stage.session, "client_a").await;
    assert_eq!((&ack["accepted"], &ack["protocol_version"]), (&json!(true), &json!(1)), "{ack}");
    assert!(ack["timestamp"].is_u64() && ack["error"].is_null(), "{ack}");
    assert!(ack["capabilities"].is_array() && ack["resume"].is_string(), "{ack}");
}

async fn a_handshake_of_version_2_closes_the_socket(stage: &Stage) {
    let a = stage.near("client_a").await;
    a.send(json!({ "type": "protocol_handshake", "protocol_version": 2, "timestamp": 1 })).await;
    let ack = a.expect("protocol_ack").await;
    assert_eq!(ack["accepted"], false, "{ack}");
    assert!(ack["error"].is_string() && ack["protocol_version"] == 1, "{ack}");
    assert_eq!(a.expect_close().await, (1008, "Protocol version not supported".to_owned()));
}

async fn the_handshake_is_accepted_only_once_as_the_first_frame(stage: &Stage) {
    let again = json!({ "type": "protocol_handshake", "protocol_version": 1, "timestamp": 1 });
    let a = stage.modern_near("client_a").await;
    a.send(again.clone()).await;
    assert_eq!(a.expect_rejected("protocol_handshake").await, "handshake_refused");
    let b = stage.far("client_b").await;
    meet(&[&a], &b).await;
    b.barrier(&a).await;
    b.send(again).await;
    assert_eq!(b.expect_rejected("protocol_handshake").await, "handshake_refused");
    assert!(a.frames_of("protocol_handshake").is_empty(), "a handshake is never forwarded");
}

async fn a_join_announces_both_sides_each_by_one_id(stage: &Stage) {
    let a = stage.near("client_a").await;
    let b = stage.far("client_b").await;
    let (of_b, of_a) = (a.expect("client_connected").await, b.expect("client_connected").await);
    let c = stage.near("client_c").await;
    let known = [c.expect("client_connected").await, c.expect("client_connected").await];
    let mut ids = known.each_ref().map(|frame| frame["clientId"].as_str().expect("an id"));
    let mut announced = [&of_a, &of_b].map(|frame| frame["clientId"].as_str().expect("an id"));
    ids.sort_unstable();
    announced.sort_unstable();
    assert_eq!(ids, announced, "each client has one id for all");
    for frame in [&of_a, &of_b] {
        assert!(
            frame.get("data").is_none() && frame["timestamp"].is_u64() && frame["protocol_version"] == 1,
            "{frame}"
        );
    }
    c.barrier(&a).await;
    c.barrier(&b).await;
    let counts = [&a, &b, &c].map(|client| client.frames_of("client_connected").len());
    assert_eq!(counts, [2, 2, 2], "each client hears of each other client once");
}

async fn clients_that_join_at_once_hear_of_each_other(stage: &Stage) {
    for _ in 0..20 {
        let session = stage.another_session(json!({})).await;
        let (a, b) = tokio::join!(
            RawClient::join(stage.cluster.near(), &session, "client_a"),
            RawClient::join(stage.cluster.far(), &session, "client_b"),
        );
        a.expect("client_connected").await;
        b.expect("client_connected").await;
        a.barrier(&b).await;
        b.barrier(&a).await;
    }
}

async fn the_id_in_the_url_is_the_id_that_is_announced(stage: &Stage) {
    let a = stage.near("client_a").await;
    let (_b, ack) = RawClient::join_modern(stage.cluster.far(), &stage.session, "client_b").await;
    assert_eq!(a.expect("client_connected").await["clientId"], "client_b");
    assert_eq!(ack["clientId"], "client_b");
}

async fn an_id_that_is_taken_is_not_announced_twice(stage: &Stage) {
    let a = stage.near("client_a").await;
    let _b = stage.modern_far("client_b").await;
    let (_thief, ack) = RawClient::join_modern(stage.cluster.near(), &stage.session, "client_b").await;
    let ids = [a.expect("client_connected").await, a.expect("client_connected").await];
    assert_ne!(ids[0]["clientId"], ids[1]["clientId"]);
    assert_eq!(ack["clientId"], ids[1]["clientId"]);
}

async fn a_leave_is_announced_by_the_id_of_the_join(stage: &Stage) {
    let (a, b, c) = stage.three().await;
    // By now b and c have another name than the announced one.
    b.barrier(&a).await;
    b.barrier(&c).await;
    let first = a.frames_of("client_connected")[0]["clientId"].clone();
    b.leave().await;
    for client in [&a, &c] {
        let gone = client.expect("client_disconnected").await;
        assert_eq!((&gone["clientId"], &gone["data"]), (&first, &json!({})), "{gone}");
    }
}

async fn a_broken_socket_is_announced_as_a_leave(stage: &Stage) {
    let (a, b) = stage.two().await;
    let id = a.frames_of("client_connected")[0]["clientId"].clone();
    b.cut();
    assert_eq!(a.expect("client_disconnected").await["clientId"], id);
    assert_eq!(stage.cluster.far().get_session(&stage.session).await.1["clientCount"], 1);
}

async fn a_client_joins_without_a_role(stage: &Stage) {
    let (a, b) = stage.two().await;
    a.barrier(&b).await;
    b.barrier(&a).await;
    for client in [&a, &b] {
        for kind in ["assign_sync_direction", "confirm_transfer", "accept_control", "role_changed"] {
            assert!(client.frames_of(kind).is_empty(), "{kind}");
        }
    }
    assert_eq!(stage.active().await, Value::Null);
}

async fn a_new_follower_is_held_until_it_acknowledges_the_controller(stage: &Stage) {
    let (a, b) = stage.driven().await;
    let c = stage.far("client_c").await;
    meet(&[&a, &b], &c).await;
    assert_eq!(c.expect("accept_control").await["clientId"], "client_a");
    // It may still believe that it has control: its frames were in flight.
    c.say("state_update", state(66)).await;
    c.say("release_control", json!({ "timestamp": 1 })).await;
    c.barrier(&a).await;
    assert!(a.frames_of("state_update").is_empty() && a.frames_of("release_control").is_empty());
    assert!(c.frames_of("rejected").is_empty() && c.frames_of("assign_sync_direction").is_empty());
    assert_eq!(stage.active().await, "client_a");
    c.say("confirm_transfer", json!({ "toClientId": "client_a", "timestamp": 1 })).await;
    c.say("state_update", state(67)).await;
    assert_eq!(a.expect("state_update").await["data"], state(67), "now it is a take");
}

async fn frames_that_need_an_answer_are_held_after_a_leave(stage: &Stage) {
    let (a, b, c) = stage.driven_with_a_third().await;
    a.leave().await;
    c.expect("release_control").await;
    c.say("state_update", state(1)).await;
    let left = b.expect_raw("client_disconnected").await.at;
    let state = b.expect_raw("state_update").await.at;
    let told = b.expect_raw("assign_sync_direction").await.at;
    b.expect("accept_control").await;
    assert!(state < told, "states are never held");
    // 100 ms by the relay's clock; the times that the test sees may be late at either end.
    assert!(told.duration_since(left) > Duration::from_millis(50), "{:?}", told.duration_since(left));
}

async fn a_client_on_a_second_socket_takes_its_own_place(stage: &Stage) {
    let (old, b) = stage.driven().await;
    old.say("state_update", state(1)).await;
    b.expect("state_update").await;
    let new = stage.far("client_a").await;
    new.expect("accept_control").await;
    new.say("confirm_transfer", json!({ "toClientId": "client_a", "timestamp": 1 })).await;
    new.expect("assign_sync_direction").await;
    new.say("state_update", state(2)).await;
    assert_eq!(b.expect("state_update").await["data"], state(2));
    old.say("state_update", state(3)).await;
    new.barrier(&b).await;
    assert!(old.quiet(Duration::from_millis(100)).await.is_empty() && old.is_open(), "it gets nothing and stays open");
    assert_eq!(b.frames_of("state_update").len(), 2, "the older socket is ignored");
    let (_, session) = stage.cluster.near().get_session(&stage.session).await;
    assert_eq!((&session["clientCount"], &session["activeClientId"]), (&json!(2), &json!("client_a")));
}

async fn an_ack_pending_on_a_dead_socket_does_not_hold_the_next_one(stage: &Stage) {
    let (dead, b) = stage.driven().await;
    b.say("state_update", state(1)).await;
    dead.expect("accept_control").await;
    let new = stage.near("client_a").await;
    new.expect("accept_control").await;
    acknowledge(&new).await;
    demoted(&new, "client_b").await;
    new.say("state_update", state(2)).await;
    granted(&new).await;
    assert_eq!(b.expect("state_update").await["data"], state(2));
}

/// A modern `client_a` on the first node that has control, and its token; `client_b` on the last node.
async fn modern_driver(stage: &Stage) -> (RawClient, String, RawClient) {
    let (a, ack) = RawClient::join_modern(stage.cluster.near(), &stage.session, "client_a").await;
    let b = stage.modern_far("client_b").await;
    a.say("coordinate_sync_direction", json!({ "preferredDirection": "ACTIVE", "reason": "pull" })).await;
    a.expect("assign_sync_direction").await;
    b.expect("assign_sync_direction").await;
    (a, ack["resume"].as_str().expect("a token").to_owned(), b)
}

/// The socket of a client that claims the id `client_a`, before its first frame.
async fn knock(stage: &Stage, token: &str) -> RawClient {
    let (ws, session) = (stage.cluster.far().ws(), &stage.session);
    RawClient::connect(&format!("{ws}/ws?session={session}&client=client_a&resume={token}"), "client_a").await
}

async fn resume(stage: &Stage, token: &str) -> (RawClient, Value) {
    let client = knock(stage, token).await;
    client.send(json!({ "type": "protocol_handshake", "protocol_version": 1, "timestamp": 1 })).await;
    let ack = client.expect("protocol_ack").await;
    (client, ack)
}

/// One of the two clients is cut off, and the relay knows.
async fn is_cut_off(stage: &Stage) {
    eventually(PATIENCE, async || {
        let (_, session) = stage.cluster.near().get_session(&stage.session).await;
        (session["clientCount"] == 1).then_some(())
    })
    .await;
}

async fn a_cut_off_controller_with_a_token_resumes_elsewhere(stage: &Stage) {
    let (a, token, b) = modern_driver(stage).await;
    a.cut();
    is_cut_off(stage).await;
    assert_eq!(stage.active().await, "client_a", "its place is kept");
    let (a, ack) = resume(stage, &token).await;
    assert_eq!((&ack["clientId"], &ack["role"]), (&json!("client_a"), &json!("active")), "{ack}");
    assert_ne!(ack["resume"], token.as_str(), "each return gives a new token");
    assert_eq!(ack["resumed"], true, "{ack}");
    assigned(&a, "ACTIVE").await;
    a.say("state_update", state(4)).await;
    assert_eq!(b.expect("state_update").await["data"], state(4));
    assert!(b.frames_of("client_disconnected").is_empty(), "the others see no change");
}

async fn a_resume_evicts_the_older_socket(stage: &Stage) {
    let (old, token, b) = modern_driver(stage).await;
    let (new, _) = resume(stage, &token).await;
    assert_eq!(old.expect_close().await, (1008, "Evicted: the client resumed on another connection".to_owned()));
    assigned(&new, "ACTIVE").await;
    new.say("state_update", state(5)).await;
    assert_eq!(b.expect("state_update").await["data"], state(5));
    assert_eq!(stage.active().await, "client_a");
}

async fn a_resume_broken_before_or_after_its_answer_is_retried(stage: &Stage) {
    let (a, token, b) = modern_driver(stage).await;
    a.cut();
    // Its socket opens, and breaks before its first frame.
    let again = knock(stage, &token).await;
    again.expect("client_connected").await;
    again.cut();
    is_cut_off(stage).await;
    // It is accepted, but never reads the answer with its new token.
    let (again, _) = resume(stage, &token).await;
    again.cut();
    is_cut_off(stage).await;
    let (a, ack) = resume(stage, &token).await;
    assert_eq!((&ack["role"], &ack["resumed"]), (&json!("active"), &json!(true)), "{ack}");
    assigned(&a, "ACTIVE").await;
    a.say("state_update", state(6)).await;
    assert_eq!(b.expect("state_update").await["data"], state(6));
    assert!(b.frames_of("client_disconnected").is_empty(), "the others see no change");
}

async fn a_protocol_ping_is_answered_and_reaches_no_peer(stage: &Stage) {
    let (a, ack) = RawClient::join_modern(stage.cluster.near(), &stage.session, "client_a").await;
    assert!(ack["capabilities"].as_array().is_some_and(|all| all.contains(&json!("ping"))), "{ack}");
    let b = stage.far("client_b").await;
    meet(&[&a], &b).await;
    let (_, before) = stage.cluster.near().get_session(&stage.session).await;
    a.send(json!({ "type": "protocol_ping", "protocol_version": 1, "timestamp": 1 })).await;
    let pong = a.expect("protocol_pong").await;
    assert_eq!((&pong["clientId"], &pong["protocol_version"]), (&json!("relay-server"), &json!(1)), "{pong}");
    a.send(json!({ "type": "protocol_pong", "clientId": "client_a", "timestamp": 1 })).await;
    assert_eq!(a.expect_rejected("protocol_pong").await, "reserved_type");
    let (_, after) = stage.cluster.near().get_session(&stage.session).await;
    assert_eq!(before["expiresAt"], after["expiresAt"], "being connected is not activity");
    b.barrier(&a).await;
    assert!(b.frames_of("protocol_ping").is_empty() && b.frames_of("protocol_pong").is_empty());
}

async fn a_client_with_a_wrong_token_cannot_resume(stage: &Stage) {
    let (a, _token, _b) = modern_driver(stage).await;
    let (_thief, ack) = resume(stage, "00000000000000000000000000000000").await;
    assert_ne!(ack["clientId"], "client_a");
    assert_eq!(ack["resumed"], false, "{ack}");
    assert_ne!(ack["role"], "active");
    assert!(a.is_open());
    assert_eq!(stage.active().await, "client_a");
}

#[tokio::test]
async fn a_silent_socket_is_closed_after_two_ping_intervals() {
    let options = Options::default().flag("--ping-interval", "1s");
    let stage = Stage::with(Kind::Embedded, options, json!({})).await;
    let mut silent = unread_socket(stage.cluster.near(), &stage.session, 4096).await;
    let mut read = [0; 512];
    // It answers the first ping, and nothing after that.
    while !read.ends_with(&[0x89, 0]) {
        read = [0; 512];
        let length = silent.read(&mut read).await.unwrap();
        read.copy_within(..length, 512 - length);
    }
    silent.write_all(&[0x8A, 0x80, 0, 0, 0, 0]).await.unwrap();
    let answered = Instant::now();
    let gone = async || stage.cluster.near().get_session(&stage.session).await.1["clientCount"] == 0;
    eventually(PATIENCE, async || gone().await.then_some(())).await;
    let took = answered.elapsed().as_secs_f64();
    assert!((1.9..2.7).contains(&took), "{took}");
}
