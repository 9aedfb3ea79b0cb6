//! A session from its creation to its end, over all nodes (docs/protocol.md, "Sessions").

use std::time::Duration;

use serde_json::{Value, json};

use super::support::client::RawClient;
use super::support::cluster::{Kind, Options, PATIENCE};
use super::support::eventually;
use super::support::stage::{Stage, demoted, drive, granted, on_both, state};

on_both! {
    clients_are_counted_over_all_nodes,
    the_controller_is_named,
    a_delete_closes_every_socket_on_every_node,
    an_expiry_closes_every_socket_on_every_node,
    an_expired_session_is_not_found,
    activity_keeps_a_session_alive,
    a_session_outlives_its_clients,
    sessions_do_not_hear_each_other,
    both_spellings_of_a_strategy_are_the_same,
    joins_and_leaves_leave_nothing_behind,
}

async fn count(stage: &Stage, expected: usize) {
    for node in stage.cluster.nodes() {
        eventually(PATIENCE, async || {
            let (status, session) = node.get_session(&stage.session).await;
            (status == 200 && session["clientCount"] == expected).then_some(())
        })
        .await;
    }
}

async fn clients_are_counted_over_all_nodes(stage: &Stage) {
    count(stage, 0).await;
    let (a, b, c) = stage.three().await;
    count(stage, 3).await;
    b.leave().await;
    count(stage, 2).await;
    a.cut();
    count(stage, 1).await;
    c.leave().await;
    count(stage, 0).await;
}

async fn the_controller_is_named(stage: &Stage) {
    let (a, b) = stage.driven().await;
    assert_eq!(stage.active().await, "client_a");
    b.say("accept_control", json!({ "fromClientId": "client_a", "timestamp": 1 })).await;
    granted(&b).await;
    demoted(&a, "client_b").await;
    assert_eq!(stage.active().await, "client_b");
    b.say("release_control", json!({ "timestamp": 1 })).await;
    a.expect("release_control").await;
    assert_eq!(stage.active().await, Value::Null);
}

async fn a_delete_closes_every_socket_on_every_node(stage: &Stage) {
    let (a, b, c) = stage.driven_with_a_third().await;
    assert_eq!(stage.cluster.far().delete_session(&stage.session).await.0, 200);
    for client in [&a, &b, &c] {
        assert_eq!(client.expect_close().await, (1008, "Session deleted".to_owned()));
    }
    let late = stage.near("client_d").await;
    assert_eq!(late.expect_close().await, (1008, "Session not found".to_owned()));
    for node in stage.cluster.nodes() {
        eventually(PATIENCE, async || (node.metric("sessions", &[]).await == 0.0).then_some(())).await;
    }
}

/// Two clients, one on each end, in a session that lives this long without activity.
async fn short_lived(stage: &Stage, life: Duration) -> (String, RawClient, RawClient) {
    let session = stage.another_session(json!({ "expiresIn": life.as_millis() as u64 })).await;
    let a = stage.seat(stage.cluster.near(), &session, "client_a").await;
    let b = stage.seat(stage.cluster.far(), &session, "client_b").await;
    (session, a, b)
}

async fn an_expiry_closes_every_socket_on_every_node(stage: &Stage) {
    let (session, a, b) = short_lived(stage, Duration::from_millis(1_500)).await;
    for client in [&a, &b] {
        assert_eq!(client.expect_close().await, (1008, "Session expired".to_owned()));
    }
    assert_eq!(stage.cluster.far().get_session(&session).await.0, 404);
}

async fn an_expired_session_is_not_found(stage: &Stage) {
    let session = stage.another_session(json!({ "expiresIn": 1_000 })).await;
    for node in stage.cluster.nodes() {
        eventually(PATIENCE, async || (node.get_session(&session).await.0 == 404).then_some(())).await;
        let late = RawClient::join(node, &session, "client_a").await;
        assert_eq!(late.expect_close().await, (1008, "Session not found".to_owned()));
    }
}

async fn activity_keeps_a_session_alive(stage: &Stage) {
    let (session, a, b) = short_lived(stage, Duration::from_secs(3)).await;
    let idle = stage.another_session(json!({ "expiresIn": 3_000 })).await;
    // Somewhat longer than the idle session lives.
    eventually(PATIENCE, async || {
        a.barrier(&b).await;
        (stage.cluster.far().get_session(&idle).await.0 == 404).then_some(())
    })
    .await;
    assert_eq!(stage.cluster.far().get_session(&session).await.0, 200);
    a.barrier(&b).await;
}

async fn a_session_outlives_its_clients(stage: &Stage) {
    let (a, b) = stage.driven().await;
    a.leave().await;
    b.leave().await;
    count(stage, 0).await;
    let again = stage.far("client_a").await;
    drive(&again, &[]).await;
    assert!(again.frames_of("state_update").is_empty(), "no state is kept anywhere");
    assert_eq!(stage.active().await, "client_a");
}

async fn sessions_do_not_hear_each_other(stage: &Stage) {
    let (a, b) = stage.driven().await;
    let other = stage.another_session(json!({})).await;
    let x = stage.seat(stage.cluster.near(), &other, "client_x").await;
    let y = stage.seat(stage.cluster.far(), &other, "client_y").await;
    x.expect("client_connected").await;
    y.expect("client_connected").await;
    a.say("state_update", state(1)).await;
    b.expect("state_update").await;
    a.barrier(&b).await;
    x.barrier(&y).await;
    y.barrier(&x).await;
    for client in [&x, &y] {
        let types: Vec<_> = client.all().into_iter().map(|frame| frame["type"].clone()).collect();
        assert_eq!(types, ["client_connected", "test_barrier"]);
    }
}

async fn both_spellings_of_a_strategy_are_the_same(stage: &Stage) {
    let outcomes = [
        ("first_come_first_served", "control_held"),
        ("FIRST_COME_FIRST_SERVED", "control_held"),
        ("deny_both", "control_denied"),
        ("DENY_BOTH", "control_denied"),
    ];
    for (strategy, code) in outcomes {
        let session = stage.another_session(json!({ "conflictResolution": strategy })).await;
        let a = RawClient::join(stage.cluster.near(), &session, "client_a").await;
        drive(&a, &[]).await;
        let b = RawClient::join(stage.cluster.far(), &session, "client_b").await;
        b.say("coordinate_sync_direction", json!({ "preferredDirection": "ACTIVE", "reason": "pull" })).await;
        assert_eq!(b.expect_rejected("coordinate_sync_direction").await, code, "{strategy}");
    }
}

async fn joins_and_leaves_leave_nothing_behind(stage: &Stage) {
    for _ in 0..25 {
        let joins = (0..20).map(|number| async move {
            let id = format!("client_{number}");
            let node = if number % 2 == 0 { stage.cluster.near() } else { stage.cluster.far() };
            RawClient::join(node, &stage.session, &id).await
        });
        let clients = futures_util::future::join_all(joins).await;
        futures_util::future::join_all(
            clients.into_iter().enumerate().map(|(number, client)| async move {
                if number % 3 == 0 { client.cut() } else { client.leave().await }
            }),
        )
        .await;
    }
    count(stage, 0).await;
    for node in stage.cluster.nodes() {
        for gauge in ["connections", "sessions"] {
            eventually(PATIENCE, async || (node.metric(gauge, &[]).await == 0.0).then_some(())).await;
        }
    }
}

#[tokio::test]
async fn session_ids_appear_neither_in_logs_nor_in_metrics() {
    for kind in [Kind::Embedded, Kind::Redis(2)] {
        let options = Options::default().env("RUST_LOG", "gitorial_relay=trace,warn").env("RELAY_LOG_FORMAT", "json");
        let stage = Stage::with(kind, options, json!({ "metadata": "a-secret-of-its-creator" })).await;
        let (a, b) = stage.driven().await;
        a.say("state_update", json!({ "stepContent": { "title": "a-secret-of-the-tutorial" } })).await;
        b.expect("state_update").await;
        b.say("release_control", json!({})).await;
        b.expect("rejected").await;
        b.send_text("no json").await;
        b.expect("rejected").await;
        b.cut();
        a.expect("client_disconnected").await;
        stage.cluster.far().delete_session(&stage.session).await;
        a.expect_close().await;
        for node in stage.cluster.nodes() {
            let written = node.log() + &node.metrics().await;
            for secret in [stage.session.as_str(), &stage.session.replace('-', ""), "a-secret-of"] {
                assert!(!written.contains(secret), "{secret}");
            }
        }
    }
}
