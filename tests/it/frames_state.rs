//! Rows of the table of frames: states, requests for them, and unknown types.

use serde_json::{Value, json};

use super::support::client::RawClient;
use super::support::cluster::Kind;
use super::support::stage::{Stage, acknowledge, assigned, demoted, drive, granted, meet, on_both, state};

on_both! {
    the_controllers_state_goes_to_all_others_byte_for_byte,
    states_arrive_in_order_and_once,
    a_state_of_an_old_follower_is_a_take,
    a_state_of_a_follower_with_the_handshake_is_refused,
    a_follower_with_the_handshake_pushes_one_initial_state,
    a_state_of_an_older_epoch_is_refused,
    a_state_in_flight_when_control_moved_is_dropped,
    a_request_goes_to_all_and_its_answer_to_the_requester_alone,
    an_answer_that_is_another_state_is_a_take,
    one_answer_serves_all_requesters_and_a_second_is_no_take,
    a_client_without_a_state_may_answer_with_any,
    a_take_right_after_an_answer_is_a_take,
    an_answer_that_the_controller_has_overtaken_is_dropped,
    an_outdated_answer_of_a_returned_client_is_no_take,
    a_controller_whose_answer_crossed_a_state_is_asked_again,
    a_late_answer_of_a_former_controller_is_no_initial_push,
    a_controller_back_on_another_socket_is_asked_for_its_state,
    unknown_types_are_forwarded_byte_for_byte_and_counted,
    unknown_members_are_preserved_byte_for_byte,
    clients_with_the_handshake_get_epoch_and_seq_added,
    clients_without_the_handshake_get_only_members_they_know,
}

async fn the_controllers_state_goes_to_all_others_byte_for_byte(stage: &Stage) {
    let (a, b, c) = stage.driven_with_a_third().await;
    let text = r#"{ "data" : {"b":1.0,"a":"\u00e9 é","n":1e3},"timestamp":1, "clientId":"client_a","type":"state_update","protocol_version":1,"extra":[ ] }"#;
    a.send_text(text).await;
    assert_eq!(b.expect_raw("state_update").await.text, text);
    assert_eq!(c.expect_raw("state_update").await.text, text);
    b.barrier(&a).await;
    assert!(a.frames_of("state_update").is_empty(), "a state does not go to its sender");
}

async fn states_arrive_in_order_and_once(stage: &Stage) {
    let (a, b, c) = stage.driven_with_a_third().await;
    for step in 0..200 {
        a.say("state_update", state(step)).await;
    }
    a.barrier(&b).await;
    a.barrier(&c).await;
    for client in [&b, &c] {
        let got: Vec<_> = client.frames_of("state_update").into_iter().map(|frame| frame["data"].clone()).collect();
        assert_eq!(got, (0..200).map(state).collect::<Vec<_>>());
    }
}

async fn a_state_of_an_old_follower_is_a_take(stage: &Stage) {
    let (a, b, c) = stage.driven_with_a_third().await;
    b.say("state_update", state(7)).await;
    granted(&b).await;
    demoted(&a, "client_b").await;
    for client in [&a, &c] {
        assert_eq!(client.expect("state_update").await["data"], state(7), "it follows the grant");
    }
    assert_eq!(stage.active().await, "client_b");
    assert!(b.frames_of("rejected").is_empty());
}

async fn modern_two(stage: &Stage) -> (RawClient, RawClient) {
    let a = stage.modern_near("client_a").await;
    let b = stage.modern_far("client_b").await;
    meet(&[&a], &b).await;
    a.say("coordinate_sync_direction", json!({ "preferredDirection": "ACTIVE", "reason": "pull" })).await;
    assigned(&a, "ACTIVE").await;
    assigned(&b, "PASSIVE").await;
    (a, b)
}

async fn a_state_of_a_follower_with_the_handshake_is_refused(stage: &Stage) {
    let (a, b) = modern_two(stage).await;
    b.say("state_update", state(1)).await;
    assert_eq!(b.expect_rejected("state_update").await, "not_active");
    b.barrier(&a).await;
    assert!(a.frames_of("state_update").is_empty());
    assert_eq!(stage.active().await, "client_a");
}

async fn a_follower_with_the_handshake_pushes_one_initial_state(stage: &Stage) {
    let (a, b) = modern_two(stage).await;
    b.say("coordinate_sync_direction", json!({ "preferredDirection": "PASSIVE", "reason": "push" })).await;
    assigned(&b, "PASSIVE").await;
    b.say("state_update", state(1)).await;
    assert_eq!(a.expect("state_update").await["data"], state(1));
    b.say("state_update", state(2)).await;
    assert_eq!(b.expect_rejected("state_update").await, "not_active");
    b.barrier(&a).await;
    assert_eq!(a.frames_of("state_update").len(), 1);
    assert_eq!(stage.active().await, "client_a", "a push is not a claim");
}

async fn a_state_of_an_older_epoch_is_refused(stage: &Stage) {
    let (a, b) = modern_two(stage).await;
    let old = a.frames_of("assign_sync_direction")[0]["epoch"].clone();
    b.say("accept_control", json!({ "fromClientId": "client_a", "timestamp": 1 })).await;
    assigned(&b, "ACTIVE").await;
    assigned(&a, "PASSIVE").await;
    let mut late = a.frame("state_update", state(9));
    late["epoch"] = old;
    a.send(late).await;
    assert_eq!(a.expect_rejected("state_update").await, "stale_epoch");
    a.barrier(&b).await;
    assert!(b.frames_of("state_update").is_empty());
    assert_eq!(stage.active().await, "client_b");
}

async fn a_state_in_flight_when_control_moved_is_dropped(stage: &Stage) {
    let (a, b) = stage.driven().await;
    b.say("accept_control", json!({ "fromClientId": "client_a", "timestamp": 1 })).await;
    a.expect("accept_control").await;
    // Not acknowledged yet: all these frames count as sent before.
    a.say("state_update", state(9)).await;
    a.say("offer_control", json!({})).await;
    a.barrier(&b).await;
    assert!(b.frames_of("state_update").is_empty() && b.frames_of("offer_control").is_empty());
    assert!(a.frames_of("rejected").is_empty());
    assert_eq!(stage.active().await, "client_b");
    acknowledge(&a).await;
    a.say("state_update", state(10)).await;
    assert_eq!(b.expect("state_update").await["data"], state(10));
}

async fn a_request_goes_to_all_and_its_answer_to_the_requester_alone(stage: &Stage) {
    let (a, b, c) = stage.driven_with_a_third().await;
    a.say("state_update", state(3)).await;
    b.expect("state_update").await;
    c.expect("state_update").await;
    a.say("request_sync", json!({})).await;
    for client in [&b, &c] {
        assert_eq!(client.expect("request_sync").await["clientId"], "client_a");
        client.say("state_update", state(3)).await;
    }
    for _ in 0..2 {
        assert_eq!(a.expect("state_update").await["data"], state(3));
    }
    b.barrier(&c).await;
    c.barrier(&b).await;
    assert_eq!((b.frames_of("state_update").len(), c.frames_of("state_update").len()), (1, 1));
    assert!(b.frames_of("rejected").is_empty() && c.frames_of("rejected").is_empty());
    assert_eq!(stage.active().await, "client_a", "an answer is not a claim");
}

async fn an_answer_that_is_another_state_is_a_take(stage: &Stage) {
    let (a, b) = stage.driven().await;
    a.say("state_update", state(3)).await;
    b.expect("state_update").await;
    a.say("request_sync", json!({})).await;
    b.expect("request_sync").await;
    b.say("state_update", state(4)).await;
    granted(&b).await;
    assert_eq!(stage.active().await, "client_b");
}

async fn one_answer_serves_all_requesters_and_a_second_is_no_take(stage: &Stage) {
    let (a, b, c) = stage.driven_with_a_third().await;
    a.say("state_update", state(3)).await;
    b.expect("state_update").await;
    c.expect("state_update").await;
    a.say("request_sync", json!({})).await;
    c.say("request_sync", json!({})).await;
    // An old client answers every request, so it answers twice, even if its first answer went to all requesters.
    for _ in 0..2 {
        b.expect("request_sync").await;
    }
    b.say("state_update", state(3)).await;
    b.say("state_update", state(3)).await;
    assert_eq!(a.expect("state_update").await["clientId"], "client_b");
    assert_eq!(c.expect("state_update").await["clientId"], "client_b");
    b.barrier(&a).await;
    assert_eq!(stage.active().await, "client_a");
    assert_eq!(b.frames_of("assign_sync_direction").len(), 1, "its role has not changed");
}

async fn a_client_without_a_state_may_answer_with_any(stage: &Stage) {
    let (a, b) = stage.driven().await;
    a.say("request_sync", json!({})).await;
    b.expect("request_sync").await;
    b.say("state_update", state(40)).await;
    assert_eq!(a.expect("state_update").await["data"], state(40));
    assert_eq!(
        stage.active().await,
        "client_a",
        "the seed's pull: the peer's state arrives, then the caller gets control"
    );
}

async fn a_take_right_after_an_answer_is_a_take(stage: &Stage) {
    let (a, b) = stage.driven().await;
    a.say("request_sync", json!({})).await;
    b.expect("request_sync").await;
    b.say("state_update", state(1)).await;
    assert_eq!(a.expect("state_update").await["data"], state(1), "no state was sent before: any state is an answer");
    b.say("state_update", state(2)).await;
    granted(&b).await;
    demoted(&a, "client_b").await;
    assert_eq!(a.expect("state_update").await["data"], state(2));
}

async fn an_answer_that_the_controller_has_overtaken_is_dropped(stage: &Stage) {
    let (a, b) = stage.driven().await;
    a.say("state_update", state(4)).await;
    b.expect("state_update").await;
    a.say("request_sync", json!({})).await;
    b.expect("request_sync").await;
    // It reads slowly: it writes its answer long after the controller has moved on.
    a.say("state_update", state(5)).await;
    b.expect("state_update").await;
    b.say("state_update", state(4)).await;
    b.barrier(&a).await;
    assert!(a.frames_of("state_update").is_empty(), "{}", a.transcript());
    assert_eq!(stage.active().await, "client_a");
}

async fn an_outdated_answer_of_a_returned_client_is_no_take(stage: &Stage) {
    let (a, b) = (stage.near("client_a").await, stage.near("client_b").await);
    drive(&a, &[&b]).await;
    for step in [1, 2] {
        a.say("state_update", state(step)).await;
        b.expect("state_update").await;
    }
    // On its last socket it got the first state only, and its node did not know the session before.
    let back = stage.far("client_c").await;
    meet(&[&a, &b], &back).await;
    back.expect("accept_control").await;
    acknowledge(&back).await;
    b.say("request_sync", json!({})).await;
    back.expect("request_sync").await;
    a.say("state_update", state(3)).await;
    back.expect("state_update").await;
    back.say("state_update", state(1)).await;
    back.barrier(&a).await;
    assert!(a.frames_of("state_update").is_empty(), "{}", a.transcript());
    assert_eq!(stage.active().await, "client_a");
    back.say("state_update", state(4)).await;
    granted(&back).await;
    assert_eq!(a.expect("state_update").await["data"], state(4), "a new state is a take");
}

async fn a_controller_whose_answer_crossed_a_state_is_asked_again(stage: &Stage) {
    let (a, b) = stage.driven().await;
    a.say("state_update", state(22)).await;
    b.expect("state_update").await;
    a.say("request_sync", json!({})).await;
    b.expect("request_sync").await;
    b.say("state_update", state(2)).await;
    granted(&b).await;
    demoted(&a, "client_b").await;
    a.expect("state_update").await;
    b.expect("request_sync").await;
    // Its answer is older than the state that it shows.
    b.say("state_update", state(22)).await;
    assert_eq!(a.expect("state_update").await["data"], state(22));
    b.expect("request_sync").await;
    b.say("state_update", state(2)).await;
    assert_eq!(a.expect("state_update").await["data"], state(2));
}

async fn a_late_answer_of_a_former_controller_is_no_initial_push(stage: &Stage) {
    let (a, b) = modern_two(stage).await;
    a.say("state_update", state(1)).await;
    b.expect("state_update").await;
    b.say("accept_control", json!({ "fromClientId": "client_a", "timestamp": 1 })).await;
    assigned(&b, "ACTIVE").await;
    b.expect("request_sync").await;
    a.say("accept_control", json!({ "fromClientId": "client_b", "timestamp": 1 })).await;
    assigned(&b, "PASSIVE").await;
    b.say("coordinate_sync_direction", json!({ "preferredDirection": "PASSIVE", "reason": "push" })).await;
    assigned(&b, "PASSIVE").await;
    // Only now it answers the request that it got as controller, with a state that was refused meanwhile.
    b.say("state_update", state(9)).await;
    b.barrier(&a).await;
    assert!(a.frames_of("state_update").is_empty(), "{}", a.transcript());
    let mut push = b.frame("state_update", state(2));
    push["epoch"] = b.frames_of("assign_sync_direction").last().unwrap()["epoch"].clone();
    b.send(push).await;
    assert_eq!(a.expect("state_update").await["data"], state(2), "its pushed state carries an epoch");
}

async fn a_controller_back_on_another_socket_is_asked_for_its_state(stage: &Stage) {
    let (_a, b) = stage.driven().await;
    let again = stage.far("client_a").await;
    again.expect("accept_control").await;
    acknowledge(&again).await;
    granted(&again).await;
    again.expect("request_sync").await;
    again.say("state_update", state(3)).await;
    assert_eq!(b.expect("state_update").await["data"], state(3));
}

async fn unknown_types_are_forwarded_byte_for_byte_and_counted(stage: &Stage) {
    let (a, b) = stage.two().await;
    let texts = [
        r#"{"type":"cursor_moved"}"#,
        r#" {"clientId":"client_a" ,"type":"cursor_moved","data":null} "#,
        r#"{"type":"cursor_moved","clientId":"client_a","data":{"deep":[[[{"x":"\ud83d\ude00"}]]],"big":12345678901234567890}}"#,
    ];
    for text in texts {
        a.send_text(text).await;
        assert_eq!(b.expect_raw("cursor_moved").await.text, text);
    }
    b.barrier(&a).await;
    assert!(a.frames_of("cursor_moved").is_empty() && a.frames_of("rejected").is_empty());
    let counted = stage.cluster.near().metric("frames_total", &[("type", "unknown"), ("direction", "in")]).await;
    assert!(counted >= 3.0, "{counted}");
}

async fn unknown_members_are_preserved_byte_for_byte(stage: &Stage) {
    let (a, b) = stage.driven().await;
    for kind in ["state_update", "offer_control", "request_sync", "role_changed", "release_control"] {
        let text =
            format!(r#"{{"type":"{kind}","clientId":"client_a","mine":{{ "é":[1, 2] }},"data":{{"role":"mine"}}}}"#);
        a.send_text(&text).await;
        let got = loop {
            let got = b.expect_raw(kind).await;
            if kind != "role_changed" || got.json["data"]["role"] == "mine" {
                break got.text;
            }
        };
        assert_eq!(got, text);
    }
}

fn numbers(frame: &Value) -> (u64, u64) {
    (frame["epoch"].as_u64().expect("an epoch"), frame["seq"].as_u64().expect("a seq"))
}

async fn clients_with_the_handshake_get_epoch_and_seq_added(stage: &Stage) {
    let a = stage.near("client_a").await;
    let b = stage.modern_far("client_b").await;
    let c = stage.modern_near("client_c").await;
    meet(&[&a, &b], &c).await;
    a.say("coordinate_sync_direction", json!({ "preferredDirection": "ACTIVE", "reason": "pull" })).await;
    granted(&a).await;
    for client in [&b, &c] {
        let told = client.expect("assign_sync_direction").await;
        assert!(told["epoch"].as_u64() > Some(0), "{told}");
        a.send_text(r#"{"type":"state_update","clientId":"client_a","data":{ "x" : 1.0 },"epoch":3,"mine":"\u00e9"}"#)
            .await;
        a.send_text(r#"{"type":"cursor_moved","clientId":"client_a"}"#).await;
        let (first, second) = (client.expect_raw("state_update").await, client.expect_raw("cursor_moved").await);
        let (epoch, seq) = numbers(&first.json);
        assert_eq!(Some(epoch), told["epoch"].as_u64(), "the relay's epoch, not the sender's");
        assert!(numbers(&second.json) > (epoch, seq), "{first:?} {second:?}");
        assert!(
            first.text.contains(r#""data":{ "x" : 1.0 }"#) && first.text.contains(r#""mine":"\u00e9""#),
            "{first:?}"
        );
    }
}

async fn clients_without_the_handshake_get_only_members_they_know(stage: &Stage) {
    let (a, b) = stage.driven().await;
    let m = stage.modern_far("client_m").await;
    meet(&[&a, &b], &m).await;
    m.say("accept_control", json!({ "fromClientId": "client_a", "timestamp": 1 })).await;
    demoted(&a, "client_m").await;
    assigned(&m, "ACTIVE").await;
    m.say("state_update", state(1)).await;
    m.barrier(&b).await;
    m.barrier(&a).await;
    let known = [
        "client_connected",
        "client_disconnected",
        "assign_sync_direction",
        "state_update",
        "request_sync",
        "accept_control",
        "confirm_transfer",
        "role_changed",
        "test_barrier",
    ];
    for frame in a.all().into_iter().chain(b.all()) {
        assert!(known.contains(&frame["type"].as_str().unwrap_or_default()), "{frame}");
        assert!(frame["epoch"].is_null() && frame["seq"].is_null(), "{frame}");
    }
}
