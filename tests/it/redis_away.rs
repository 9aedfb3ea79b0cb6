//! The answers to clients and callers while Redis is away, and the recovery when it is back
//! (docs/reliability.md, "When Redis is away").

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::support::client::RawClient;
use super::support::cluster::{Kind, Node, Options, PATIENCE};
use super::support::eventually;
use super::support::stage::{Stage, acknowledge, assigned, demoted, drive};

/// Commands that time out soon, and leases that outlast the pauses of these tests unless they say otherwise.
fn impatient() -> Options {
    Options::default().flag("--redis-command-timeout", "500ms")
}

fn redis(stage: &mut Stage) -> &mut super::support::redis::RedisFixture {
    stage.cluster.redis.as_mut().unwrap()
}

async fn unready(node: &Node) {
    eventually(PATIENCE, async || (node.answer(Method::GET, "/readyz").await.0 == 503).then_some(())).await;
}

/// Waits for one more `request_sync` than there were, and answers it.
async fn is_asked(client: &RawClient, known: usize, step: u64) {
    eventually(PATIENCE, async || (client.frames_of("request_sync").len() > known).then_some(())).await;
    client.say("state_update", json!({ "step": step })).await;
}

#[tokio::test]
async fn calls_get_503_new_sockets_1013_and_open_sockets_stay() {
    let mut stage = Stage::with(Kind::Redis(1), impatient(), json!({})).await;
    let (a, b) = stage.driven().await;
    redis(&mut stage).pause();
    let path = format!("/api/sessions/{}", stage.session);
    let calls = [(Method::POST, "/api/sessions"), (Method::GET, path.as_str()), (Method::DELETE, path.as_str())];
    for (method, path) in calls {
        let (status, body) = stage.cluster.near().answer(method.clone(), path).await;
        assert_eq!((status, &body["code"]), (503, &json!("store_unavailable")), "{method} {body}");
    }
    let late = RawClient::join(stage.cluster.near(), &stage.session, "client_late").await;
    assert_eq!(late.expect_close().await.0, 1013);
    assert!(a.is_open() && b.is_open());
    redis(&mut stage).resume();
    let (status, _) = eventually(PATIENCE, async || {
        Some(stage.cluster.near().get_session(&stage.session).await).filter(|a| a.0 == 200)
    })
    .await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn frames_that_need_a_decision_are_refused_and_others_pass() {
    let mut stage = Stage::with(Kind::Redis(1), impatient(), json!({})).await;
    let (a, b) = stage.driven().await;
    redis(&mut stage).pause();
    // Frames that need no decision still pass between the clients of one node, under the lease that it still holds.
    a.say("state_update", json!({ "step": 1 })).await;
    assert_eq!(b.expect("state_update").await["data"]["step"], 1);
    b.say("request_sync", json!({})).await;
    a.expect("request_sync").await;
    b.say("cursor_moved", json!({})).await;
    a.expect("cursor_moved").await;
    let name = json!({ "fromClientId": "client_a", "timestamp": 1 });
    let frames = [
        ("coordinate_sync_direction", json!({ "preferredDirection": "ACTIVE", "reason": "test" })),
        ("request_control", json!({ "requestingClientId": "client_b" })),
        ("accept_control", name.clone()),
        ("decline_control", name),
        ("release_control", json!({ "timestamp": 1 })),
        ("offer_control", json!({})),
        ("state_update", json!({ "step": "a take" })),
    ];
    for (kind, data) in frames {
        b.say(kind, data).await;
        assert_eq!(b.expect_rejected(kind).await, "store_unavailable", "{kind}");
    }
    redis(&mut stage).resume();
}

#[tokio::test]
async fn the_controller_is_told_that_it_lost_control_after_its_lease() {
    let mut stage = Stage::with(Kind::Redis(1), Options::short_leases(), json!({})).await;
    let (a, b) = stage.driven().await;
    redis(&mut stage).pause();
    unready(stage.cluster.near()).await;
    a.say("state_update", json!({ "step": 1 })).await;
    assert_eq!(a.expect_rejected("state_update").await, "store_unavailable");
    a.barrier(&b).await;
    assert!(b.frames_of("state_update").is_empty());
    redis(&mut stage).resume();
}

#[tokio::test]
async fn a_refused_state_is_asked_for_when_redis_is_back() {
    let mut stage = Stage::with(Kind::Redis(2), Options::short_leases(), json!({})).await;
    let (a, b) = stage.driven().await;
    redis(&mut stage).pause();
    unready(stage.cluster.near()).await;
    a.say("state_update", json!({ "step": 7 })).await;
    assert_eq!(a.expect_rejected("state_update").await, "store_unavailable");
    let asked = a.frames_of("request_sync").len();
    redis(&mut stage).resume();
    is_asked(&a, asked, 7).await;
    assert_eq!(b.expect("state_update").await["data"]["step"], 7);
}

#[tokio::test]
async fn a_client_with_an_undecided_claim_is_corrected_later() {
    let mut stage = Stage::with(Kind::Redis(2), impatient(), json!({})).await;
    let (a, b) = stage.driven().await;
    redis(&mut stage).pause();
    // An existing client takes control silently, by its first state, and does not know that it was refused.
    b.say("state_update", json!({ "step": "refused" })).await;
    assert_eq!(b.expect_rejected("state_update").await, "store_unavailable");
    let asked = a.frames_of("request_sync").len();
    redis(&mut stage).resume();
    demoted(&b, "client_a").await;
    // It showed its own state meanwhile, so it is brought up to date.
    is_asked(&a, asked, 8).await;
    assert_eq!(b.expect("state_update").await["data"]["step"], 8);
    assert_eq!(stage.active().await, "client_a");
}

#[tokio::test]
async fn a_client_with_an_undecided_release_is_told_it_has_control() {
    let mut stage = Stage::with(Kind::Redis(1), impatient(), json!({})).await;
    let a = stage.modern_near("client_a").await;
    a.say("coordinate_sync_direction", json!({ "preferredDirection": "ACTIVE", "reason": "test" })).await;
    assigned(&a, "ACTIVE").await;
    redis(&mut stage).pause();
    a.say("release_control", json!({ "timestamp": 1 })).await;
    assert_eq!(a.expect_rejected("release_control").await, "store_unavailable");
    redis(&mut stage).resume();
    assigned(&a, "ACTIVE").await;
}

#[tokio::test]
async fn a_refused_state_in_answer_to_a_request_is_no_take() {
    let mut stage = Stage::with(Kind::Redis(1), impatient(), json!({})).await;
    let (a, b, c) = stage.driven_with_a_third().await;
    redis(&mut stage).pause();
    let refused = json!({ "step": "refused" });
    b.say("state_update", refused.clone()).await;
    assert_eq!(b.expect_rejected("state_update").await, "store_unavailable");
    redis(&mut stage).resume();
    demoted(&b, "client_a").await;
    b.barrier(&a).await;
    // An existing client answers with the last state that it sent, even if that was refused.
    c.say("request_sync", json!({})).await;
    b.expect("request_sync").await;
    b.say("state_update", refused.clone()).await;
    assert_eq!(c.expect("state_update").await["data"], refused);
    b.barrier(&a).await;
    assert!(a.frames_of("state_update").is_empty(), "{}", a.transcript());
    assert_eq!(stage.active().await, "client_a");
}

#[tokio::test]
async fn a_handshake_whose_token_could_not_be_stored_is_retried() {
    let mut stage = Stage::with(Kind::Redis(1), impatient(), json!({})).await;
    let near = stage.near("client_a").await;
    let url = format!("{}/ws?session={}&client=client_b", stage.cluster.near().ws(), stage.session);
    let modern = RawClient::connect(&url, "client_b").await;
    near.expect("client_connected").await;
    redis(&mut stage).pause();
    modern.send(json!({ "type": "protocol_handshake", "protocol_version": 1, "timestamp": 1 })).await;
    assert_eq!(modern.expect_close().await.0, 1013);
    assert!(modern.frames_of("protocol_ack").is_empty());
    redis(&mut stage).resume();
}

/// Joins until it is accepted. Returns the refusals before that.
async fn join_at_last(node: &Node, query: &str) -> (RawClient, Vec<(u16, String)>) {
    let mut refusals = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let client = RawClient::connect(&format!("{}/ws?{query}", node.ws()), "client_c").await;
        client.send(json!({ "type": "protocol_handshake", "protocol_version": 1, "timestamp": 1 })).await;
        let acknowledged = async || (!client.is_open() || !client.frames_of("protocol_ack").is_empty()).then_some(());
        eventually(PATIENCE, acknowledged).await;
        if client.is_open() {
            return (client, refusals);
        }
        refusals.push(client.expect_close().await);
    }
    panic!("it is never accepted: {refusals:?}");
}

#[tokio::test]
async fn an_empty_redis_loses_no_session_of_a_connected_client() {
    let mut stage = Stage::with(Kind::Redis(2), Options::short_leases(), json!({})).await;
    let (_a, _b) = stage.driven().await;
    let (c, ack) = RawClient::join_modern(stage.cluster.near(), &stage.session, "client_c").await;
    let token = ack["resume"].as_str().unwrap().to_owned();
    c.cut();
    redis(&mut stage).restart().await;
    // At once, before any heartbeat has noticed; and on a node that cannot know the lost data.
    let query = format!("session={}&client=client_c&resume={token}", stage.session);
    let fresh = stage.cluster.add_node().await;
    let known = join_at_last(stage.cluster.node(0), &query);
    let unknown = join_at_last(stage.cluster.node(fresh), &query);
    let ((_c, first), (_d, second)) = tokio::join!(known, unknown);
    let refusals: Vec<_> = first.into_iter().chain(second).collect();
    assert!(refusals.iter().all(|(code, _)| *code == 1013), "{refusals:?}");
}

#[tokio::test]
async fn followers_that_resume_on_an_empty_redis_stay_followers() {
    let mut stage = Stage::with(Kind::Redis(2), Options::short_leases(), json!({})).await;
    let mut pairs = Vec::new();
    for _ in 0..15 {
        let session = stage.another_session(json!({})).await;
        let (near, far) = (stage.cluster.near(), stage.cluster.far());
        let (driver, _) = RawClient::join_modern(near, &session, "driver").await;
        let (follower, ack) = RawClient::join_modern(far, &session, "follower").await;
        let (absent, token) = RawClient::join_modern(far, &session, "absent").await;
        driver.say("coordinate_sync_direction", json!({ "preferredDirection": "ACTIVE", "reason": "test" })).await;
        for client in [&follower, &absent] {
            assigned(client, "PASSIVE").await;
        }
        absent.cut();
        let tokens = [ack, token].map(|ack| ack["resume"].as_str().unwrap().to_owned());
        pairs.push((session, driver, follower, tokens));
    }
    redis(&mut stage).restart().await;
    for (session, _driver, follower, tokens) in pairs {
        let counted = async || stage.cluster.near().get_session(&session).await.1["clientCount"] == 2;
        eventually(PATIENCE, async || counted().await.then_some(())).await;
        follower.cut();
        for (name, token) in ["follower", "absent"].iter().zip(tokens) {
            let query = format!("session={session}&client={name}&resume={token}");
            let (back, _) = join_at_last(stage.cluster.far(), &query).await;
            let ack = back.expect("protocol_ack").await;
            assert_eq!((&ack["resumed"], &ack["role"]), (&json!(true), &json!("passive")), "{name}");
        }
    }
}

#[tokio::test]
async fn no_grant_while_the_store_may_have_lost_the_controller() {
    let mut stage = Stage::with(Kind::Redis(2), Options::short_leases(), json!({})).await;
    let a = stage.modern_near("client_a").await;
    let b = stage.modern_far("client_b").await;
    a.say("coordinate_sync_direction", json!({ "preferredDirection": "ACTIVE", "reason": "test" })).await;
    assigned(&a, "ACTIVE").await;
    assigned(&b, "PASSIVE").await;
    redis(&mut stage).restart().await;
    // One of the nodes has restored the session; until the lease is over no client may take control.
    eventually(PATIENCE, async || (stage.cluster.far().get_session(&stage.session).await.0 == 200).then_some(())).await;
    let take = async || b.say("accept_control", json!({ "fromClientId": "client_a", "timestamp": 1 })).await;
    take().await;
    assert_eq!(b.expect_rejected("accept_control").await, "store_unavailable");
    // Afterwards control is granted as usual.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let refused = b.frames_of("rejected").len();
        take().await;
        let granted = eventually(PATIENCE, async || {
            let decided = stage.active().await == "client_b" || b.frames_of("rejected").len() > refused;
            if decided { Some(stage.active().await == "client_b") } else { None }
        });
        if granted.await {
            break;
        }
        assert!(Instant::now() < deadline, "control is granted after the doubt");
    }
}

#[tokio::test]
async fn a_node_that_starts_after_a_failover_grants_nothing() {
    let mut stage = Stage::with(Kind::Redis(2), Options::short_leases(), json!({})).await;
    let (_a, _b) = stage.driven().await;
    // A replica that replaces its primary does the same.
    for words in [["REPLICAOF", "127.0.0.1", "1"], ["REPLICAOF", "NO", "ONE"]] {
        assert!(redis(&mut stage).command(&words).starts_with("+OK"));
    }
    let fresh = stage.cluster.add_node().await;
    let (c, _) = RawClient::join_modern(stage.cluster.node(fresh), &stage.session, "client_c").await;
    c.say("accept_control", json!({ "fromClientId": "client_a", "timestamp": 1 })).await;
    assert_eq!(c.expect_rejected("accept_control").await, "store_unavailable");
}

#[tokio::test]
async fn followers_on_a_node_declared_dead_are_brought_up_to_date() {
    let stage = Stage::with(Kind::Redis(2), Options::short_leases(), json!({})).await;
    let (b, a) = stage.two().await;
    let c = stage.modern_near("client_c").await;
    drive(&a, &[&b]).await;
    assigned(&c, "PASSIVE").await;
    stage.cluster.near().stop();
    let gone = |frame: &Value| frame["type"] == "client_disconnected";
    eventually(PATIENCE, async || a.all().iter().any(gone).then_some(())).await;
    a.say("state_update", json!({ "step": 5 })).await;
    let asked = a.frames_of("request_sync").len();
    stage.cluster.near().resume();
    is_asked(&a, asked, 5).await;
    assert_eq!(c.expect("state_update").await["data"]["step"], 5);
    acknowledge(&b).await;
}
