//! Nodes die, freeze and come back; clients come back on other nodes.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::support::client::RawClient;
use super::support::cluster::{Cluster, Kind, Node, Options, PATIENCE};
use super::support::eventually;
use super::support::stage::Stage;

/// The deadline for noticing the death of a node, with the default intervals.
const NOTICED: Duration = Duration::from_secs(10);

/// Waits for a frame longer than other tests have to.
async fn hears(client: &RawClient, limit: Duration, what: impl Fn(&Value) -> bool) -> Value {
    eventually(limit, async || client.all().into_iter().find(|frame| what(frame))).await
}

fn is(kind: &'static str) -> impl Fn(&Value) -> bool {
    move |frame| frame["type"] == kind
}

#[tokio::test]
async fn a_dead_nodes_controller_loses_control_within_ten_seconds() {
    let stage = Stage::set(Kind::Redis(2)).await;
    let (_a, b) = stage.driven().await;
    let died = Instant::now();
    stage.cluster.near().kill9();
    hears(&b, NOTICED, is("client_disconnected")).await;
    hears(&b, NOTICED, is("release_control")).await;
    assert!(died.elapsed() < NOTICED, "{:?}", died.elapsed());
    let (_, session) = stage.cluster.far().get_session(&stage.session).await;
    assert_eq!((&session["clientCount"], &session["activeClientId"]), (&json!(1), &Value::Null));
    b.say("coordinate_sync_direction", json!({ "preferredDirection": "ACTIVE", "reason": "test" })).await;
    assert_eq!(b.expect("assign_sync_direction").await["data"]["assignedDirection"], "ACTIVE");
}

#[tokio::test]
async fn a_frozen_nodes_controller_moves_no_client_after_a_transfer() {
    let stage = Stage::with(Kind::Redis(2), Options::short_leases(), json!({})).await;
    let (a, b) = stage.driven().await;
    a.say("state_update", json!({ "step": 1 })).await;
    b.expect("state_update").await;
    stage.cluster.near().stop();
    // In flight while its node is frozen: read when the node wakes up.
    a.say("state_update", json!({ "step": "from a zombie" })).await;
    b.say("accept_control", json!({ "fromClientId": "client_a", "timestamp": 1 })).await;
    hears(&b, NOTICED, is("confirm_transfer")).await;
    b.say("state_update", json!({ "step": 2 })).await;
    stage.cluster.near().resume();
    let told = a.expect("accept_control").await;
    assert_eq!(told["clientId"], "client_b");
    // It is back in the session, so the controller is asked for its state.
    b.expect("client_connected").await;
    b.expect("request_sync").await;
    b.say("state_update", json!({ "step": 3 })).await;
    assert_eq!(a.expect("state_update").await["data"]["step"], 3, "{}", b.transcript());
    a.barrier(&b).await;
    let (_, session) = stage.cluster.near().get_session(&stage.session).await;
    assert_eq!(session["activeClientId"], "client_b");
    assert_eq!(b.frames_of("state_update").len(), 1, "{}", b.transcript());
}

/// A client with the handshake that has control on the first node, an old one that follows on the last.
async fn modern_driver(stage: &Stage) -> (RawClient, Value, RawClient) {
    let (driver, ack) = RawClient::join_modern(stage.cluster.near(), &stage.session, "client_a").await;
    let follower = stage.far("client_b").await;
    driver.say("coordinate_sync_direction", json!({ "preferredDirection": "ACTIVE", "reason": "test" })).await;
    let told = driver.expect("assign_sync_direction").await;
    assert_eq!(told["data"]["assignedDirection"], "ACTIVE");
    follower.expect("accept_control").await;
    follower.say("confirm_transfer", json!({ "toClientId": "client_a", "timestamp": 1 })).await;
    (driver, json!({ "resume": ack["resume"], "epoch": told["epoch"] }), follower)
}

async fn come_back(node: &Node, stage: &Stage, token: &Value) -> RawClient {
    let token = token["resume"].as_str().unwrap();
    let url = format!("{}/ws?session={}&client=client_a&resume={token}", node.ws(), stage.session);
    RawClient::connect(&url, "client_a").await
}

#[tokio::test]
async fn a_cut_off_controller_resumes_on_another_node_in_a_new_epoch() {
    let stage = Stage::set(Kind::Redis(2)).await;
    let (driver, token, follower) = modern_driver(&stage).await;
    driver.cut();
    let back = come_back(stage.cluster.far(), &stage, &token).await;
    let told = back.expect("assign_sync_direction").await;
    assert_eq!(told["data"]["assignedDirection"], "ACTIVE");
    assert!(told["epoch"].as_u64() > token["epoch"].as_u64(), "{told}");
    back.say("state_update", json!({ "step": 7 })).await;
    assert_eq!(follower.expect("state_update").await["data"]["step"], 7);
    assert!(follower.frames_of("client_disconnected").is_empty());

    // The token has been used: a client that shows it again is a new client.
    let again = come_back(stage.cluster.near(), &stage, &token).await;
    again.expect("client_connected").await;
    assert!(again.frames_of("assign_sync_direction").is_empty());
    let (_, session) = stage.cluster.far().get_session(&stage.session).await;
    assert_eq!(session["clientCount"], 3);
}

#[tokio::test]
async fn a_controller_regains_control_after_its_node_is_killed() {
    let stage = Stage::set(Kind::Redis(2)).await;
    let (_driver, token, follower) = modern_driver(&stage).await;
    stage.cluster.near().kill9();
    let back = come_back(stage.cluster.far(), &stage, &token).await;
    // Exclusion comes first: the dead node's lease has to lapse.
    hears(&back, NOTICED, |frame| frame["data"]["assignedDirection"] == "ACTIVE").await;
    back.say("state_update", json!({ "step": 8 })).await;
    assert_eq!(follower.expect("state_update").await["data"]["step"], 8);
    assert!(follower.frames_of("client_disconnected").is_empty(), "{}", follower.transcript());
}

#[tokio::test]
async fn a_lease_that_lapsed_while_the_node_was_down_is_not_waited_for() {
    let mut stage = Stage::with(Kind::Redis(1), Options::short_leases(), json!({})).await;
    let (driver, token, _) = modern_driver(&stage).await;
    driver.say("state_update", json!({ "step": 1 })).await;
    stage.cluster.near().kill9();
    // The lease and the margin, and the time until the heartbeat before.
    sleep(Duration::from_millis(2_000 + 300 + 300)).await;
    let next = stage.cluster.add_node().await;
    let began = Instant::now();
    let back = come_back(stage.cluster.node(next), &stage, &token).await;
    let told = back.expect("assign_sync_direction").await;
    assert_eq!(told["data"]["assignedDirection"], "ACTIVE");
    assert!(began.elapsed() < Duration::from_millis(250), "sooner than a heartbeat: {:?}", began.elapsed());
}

#[tokio::test]
async fn a_client_absent_beyond_the_grace_period_has_left() {
    let options = Options::default().flag("--grace-period", "1s");
    let stage = Stage::with(Kind::Redis(2), options, json!({})).await;
    let (driver, token, follower) = modern_driver(&stage).await;
    driver.cut();
    hears(&follower, PATIENCE, is("client_disconnected")).await;
    hears(&follower, PATIENCE, is("release_control")).await;
    let late = come_back(stage.cluster.far(), &stage, &token).await;
    late.expect("client_connected").await;
    let (_, session) = stage.cluster.far().get_session(&stage.session).await;
    assert_eq!(session["activeClientId"], Value::Null);
}

#[tokio::test]
async fn a_client_that_resumes_evicts_its_older_socket() {
    let stage = Stage::set(Kind::Redis(2)).await;
    let (driver, token, follower) = modern_driver(&stage).await;
    let back = come_back(stage.cluster.far(), &stage, &token).await;
    let (code, reason) = driver.expect_close().await;
    assert_eq!((code, reason.starts_with("Evicted")), (1008, true), "{reason}");
    assert_eq!(back.expect("assign_sync_direction").await["data"]["assignedDirection"], "ACTIVE");
    back.say("state_update", json!({ "step": 9 })).await;
    assert_eq!(follower.expect("state_update").await["data"]["step"], 9);
    assert!(follower.frames_of("client_disconnected").is_empty());
}

#[tokio::test]
async fn a_session_outlives_its_nodes_lost_one_after_the_other() {
    let mut cluster = Cluster::over_redis(1).await;
    let session = cluster.near().create_session(json!({ "metadata": { "lesson": 1 } })).await;
    let next = cluster.add_node().await;
    cluster.near().terminate();
    assert!(cluster.near().wait().await.success());
    let (status, data) = cluster.node(next).get_session(&session).await;
    assert_eq!((status, &data["metadata"]["lesson"]), (200, &json!(1)));
}
