//! A refused frame never reaches a peer and never closes the connection, except an oversized one.

use serde_json::{Value, json};

use super::support::client::RawClient;
use super::support::cluster::{Kind, Options};
use super::support::stage::{Stage, on_both};

on_both! {
    types_that_only_the_relay_may_send_are_refused,
    a_text_that_is_not_a_frame_is_refused,
    a_binary_frame_is_refused,
    a_frame_that_nests_200_deep_is_refused,
    an_envelope_member_of_the_wrong_type_is_refused,
    a_refusal_names_code_message_and_type,
    an_error_is_neither_sent_nor_forwarded,
    a_role_changed_of_a_client_changes_no_role,
}

/// The next refusal of any frame, which leaves the connection open and reaches no peer.
async fn refused(a: &RawClient, b: &RawClient, what: &str) -> Value {
    let refusal = a.expect("rejected").await;
    let seen = b.frames_of("test_barrier").len();
    a.barrier(b).await;
    assert!(a.is_open(), "{what}");
    assert_eq!(b.frames_of("test_barrier").len(), seen + 1);
    refusal
}

async fn types_that_only_the_relay_may_send_are_refused(stage: &Stage) {
    let (a, b) = stage.two().await;
    let reserved =
        ["assign_sync_direction", "client_connected", "client_disconnected", "protocol_ack", "rejected", "error"];
    for kind in reserved {
        let before = b.frames_of(kind).len();
        a.say(kind, json!({ "assignedDirection": "ACTIVE" })).await;
        let refusal = refused(&a, &b, kind).await;
        assert_eq!((&refusal["data"]["code"], &refusal["data"]["type"]), (&json!("reserved_type"), &json!(kind)));
        assert_eq!(b.frames_of(kind).len(), before, "{kind} reached a peer");
    }
}

async fn a_text_that_is_not_a_frame_is_refused(stage: &Stage) {
    let (a, b) = stage.two().await;
    let texts = ["", "hello", "[]", "null", "17", "{}", r#"{"clientId":"c"}"#, r#"{"type":1}"#, r#"{"type":"x""#];
    for text in texts.into_iter().chain([r#"["state_update"]"#, r#"{"type":"x"} trailing"#, r#"{"type":null}"#]) {
        let before = b.count();
        a.send_text(text).await;
        assert_eq!(refused(&a, &b, text).await["data"]["code"], "malformed_frame", "{text}");
        assert_eq!(b.count(), before + 1, "only the barrier reached the peer after {text}");
    }
}

async fn a_binary_frame_is_refused(stage: &Stage) {
    let (a, b) = stage.two().await;
    let before = b.count();
    a.send_binary(br#"{"type":"cursor_moved"}"#).await;
    assert_eq!(refused(&a, &b, "binary").await["data"]["code"], "binary_frame");
    assert_eq!(b.count(), before + 1);
}

async fn a_frame_that_nests_200_deep_is_refused(stage: &Stage) {
    let (a, b) = stage.two().await;
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let deep = format!(r#"{{"type":"cursor_moved","data":{}1{}}}"#, open.repeat(200), close.repeat(200));
        a.send_text(&deep).await;
        assert_eq!(refused(&a, &b, "depth").await["data"]["code"], "nested_too_deep");
    }
    let brackets = format!(r#"{{"type":"cursor_moved","data":"{}"}}"#, "[".repeat(200));
    a.send_text(&brackets).await;
    assert_eq!(b.expect_raw("cursor_moved").await.text, brackets, "brackets in a string are not nesting");
}

async fn an_envelope_member_of_the_wrong_type_is_refused(stage: &Stage) {
    let (a, b) = stage.two().await;
    for wrong in [json!({ "clientId": 7 }), json!({ "clientId": {} }), json!({ "protocol_version": "1" })] {
        let mut frame = json!({ "type": "cursor_moved", "data": {} });
        for (name, value) in wrong.as_object().expect("an object") {
            frame[name] = value.clone();
        }
        a.send(frame).await;
        assert_eq!(refused(&a, &b, &wrong.to_string()).await["data"]["code"], "malformed_frame", "{wrong}");
    }
    assert!(b.frames_of("cursor_moved").is_empty());
}

async fn a_refusal_names_code_message_and_type(stage: &Stage) {
    let (a, b) = stage.driven().await;
    b.say("release_control", json!({ "timestamp": 1 })).await;
    let refusal = b.expect("rejected").await;
    let data = &refusal["data"];
    assert_eq!((&data["code"], &data["type"]), (&json!("not_active"), &json!("release_control")));
    assert!(data["message"].as_str().is_some_and(|message| message.len() > 10), "{refusal}");
    assert!(refusal["timestamp"].is_u64() && refusal["protocol_version"] == 1, "{refusal}");
    b.barrier(&a).await;
    assert!(a.frames_of("rejected").is_empty(), "a refusal is for its sender");
    assert!(stage.cluster.far().metric("refusals_total", &[("code", "not_active")]).await >= 1.0);
}

async fn an_error_is_neither_sent_nor_forwarded(stage: &Stage) {
    let (a, b) = stage.driven().await;
    for text in ["no json", r#"{"type":"error","data":{}}"#, r#"{"type":5}"#] {
        a.send_text(text).await;
        a.expect("rejected").await;
    }
    b.say("release_control", json!({})).await;
    b.expect("rejected").await;
    a.barrier(&b).await;
    b.barrier(&a).await;
    assert!(a.frames_of("error").is_empty() && b.frames_of("error").is_empty());
}

async fn a_role_changed_of_a_client_changes_no_role(stage: &Stage) {
    let (a, b) = stage.driven().await;
    b.expect_role("client_a", "active").await;
    for role in ["active", "connected"] {
        b.say("role_changed", json!({ "role": role, "timestamp": 1, "mine": true })).await;
    }
    b.barrier(&a).await;
    let forwarded = a.frames_of("role_changed").into_iter().filter(|frame| frame["data"]["mine"] == true).count();
    assert_eq!(forwarded, 2, "an announcement is forwarded");
    assert_eq!(stage.active().await, "client_a");
    a.say("state_update", super::support::stage::state(1)).await;
    assert_eq!(b.expect("state_update").await["clientId"], "client_a");
}

#[tokio::test]
async fn an_oversized_frame_closes_its_senders_socket_only() {
    let options = || Options::default().flag("--max-frame-bytes", "4096");
    for kind in [Kind::Embedded, Kind::Redis(2)] {
        let stage = Stage::with(kind, options(), json!({})).await;
        let (a, b) = stage.two().await;
        a.say("cursor_moved", json!("x".repeat(3_000))).await;
        b.expect("cursor_moved").await;
        a.say("cursor_moved", json!("x".repeat(8_000))).await;
        assert_eq!(a.expect_close().await, (1009, "Frame too big".to_owned()));
        b.expect("client_disconnected").await;
        assert!(b.is_open() && b.frames_of("cursor_moved").len() == 1);
    }
}
