//! One shard of a Redis Cluster is one shard: what it does not have goes on without it.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::support::client::RawClient;
use super::support::cluster::{Node, Options, PATIENCE};
use super::support::eventually;
use super::support::redis_cluster::RedisCluster;
use super::support::stage::reaches;

/// The lease of [`Options::short_leases`].
const LEASE: Duration = Duration::from_secs(2);

async fn node(redis: &RedisCluster) -> Node {
    let node = Node::spawn(&Options::short_leases().flag("--redis-url", &redis.url())).await;
    node.ready().await;
    node
}

async fn whole(node: &Node) {
    let whole = async || (node.answer(Method::GET, "/readyz").await.1["regionsAway"] == 0).then_some(());
    eventually(PATIENCE, whole).await;
}

/// A session whose controller is on one node and whose follower is on the other.
struct Pair {
    session: String,
    server: usize,
    clients: [RawClient; 2],
    controller: usize,
    step: u64,
}

impl Pair {
    async fn on(redis: &RedisCluster, nodes: [&Node; 2]) -> Self {
        let session = nodes[0].create_session(json!({ "conflictResolution": "first_come_first_served" })).await;
        let (a, _) = RawClient::join_modern(nodes[0], &session, "client_a").await;
        let (b, _) = RawClient::join_modern(nodes[1], &session, "client_b").await;
        a.say("coordinate_sync_direction", json!({ "preferredDirection": "ACTIVE", "reason": "test" })).await;
        becomes_active(&a).await;
        let server = redis.server_of(&session);
        Self { session, server, clients: [a, b], controller: 0, step: 0 }
    }

    fn follower(&self) -> &RawClient {
        &self.clients[1 - self.controller]
    }

    /// The controller's next state reaches the follower.
    async fn drive(&mut self) {
        self.step += 1;
        self.clients[self.controller].say("state_update", json!({ "step": self.step })).await;
        while self.follower().expect("state_update").await["data"]["step"] != self.step {}
    }

    /// Control moves to the other node.
    async fn turn(&mut self) {
        let from = self.clients[self.controller].id.clone();
        self.follower().say("accept_control", json!({ "fromClientId": from, "timestamp": 1 })).await;
        becomes_active(self.follower()).await;
        self.controller = 1 - self.controller;
    }

    /// The session goes on, if need be after its controller has been asked for its state.
    async fn recovers(&mut self) {
        self.step += 1;
        reaches(&self.clients[self.controller], self.follower(), self.step).await;
    }
}

async fn becomes_active(client: &RawClient) {
    while client.expect("assign_sync_direction").await["data"]["assignedDirection"] != "ACTIVE" {}
}

/// A pair on each server.
async fn one_on_each(redis: &RedisCluster, nodes: [&Node; 2]) -> Vec<Pair> {
    let mut pairs: Vec<Pair> = Vec::new();
    while pairs.len() < redis.len() {
        let pair = Pair::on(redis, nodes).await;
        if pairs.iter().all(|other| other.server != pair.server) {
            pairs.push(pair);
        }
    }
    pairs.sort_by_key(|pair| pair.server);
    pairs
}

/// Everything that a user can do goes on in these sessions, for longer than two leases, and sessions are created.
async fn live_on(pairs: &mut [Pair], nodes: [&Node; 2]) {
    let end = Instant::now() + 2 * LEASE + LEASE / 2;
    while Instant::now() < end {
        for pair in &mut *pairs {
            pair.drive().await;
            pair.turn().await;
            pair.drive().await;
            let (late, _) = RawClient::join_modern(nodes[1], &pair.session, "client_late").await;
            assert!(late.is_open());
            late.leave().await;
        }
        for node in nodes {
            let session = node.create_session(json!({})).await;
            assert_eq!(node.get_session(&session).await.0, 200);
        }
    }
}

/// The session of a shard that is away is refused.
async fn is_refused(pair: &Pair, nodes: [&Node; 2]) {
    for (client, node) in pair.clients.iter().zip(nodes) {
        assert!(client.is_open());
        client.say("request_control", json!({ "requestingClientId": client.id })).await;
        assert_eq!(client.expect_rejected("request_control").await, "store_unavailable");
        let (status, body) = node.get_session(&pair.session).await;
        assert_eq!((status, &body["code"]), (503, &json!("store_unavailable")), "{body}");
        let late = RawClient::join(node, &pair.session, "client_late").await;
        assert_eq!(late.expect_close().await.0, 1013);
    }
}

async fn tells_how_many_are_away(node: &Node) {
    let (status, body) = node.answer(Method::GET, "/readyz").await;
    assert_eq!((status, &body["status"]), (200, &Value::from("ready")));
    assert_eq!((&body["regions"], &body["regionsAway"]), (&json!(16), &json!(4)), "{body}");
    let reason = body["reason"].as_str().unwrap();
    assert!(reason.starts_with("serving, but 4 of 16 regions are away: "), "{reason}");
    assert_eq!(node.metric("regions_without_lease", &[]).await, 4.0);
    assert!(node.metric("lease_seconds", &[]).await > 0.0);
}

#[tokio::test]
async fn a_dead_shard_stops_its_own_sessions_only() {
    let mut redis = RedisCluster::start(4).await;
    let (near, far) = (node(&redis).await, node(&redis).await);
    let mut pairs = one_on_each(&redis, [&near, &far]).await;
    let mut dead = pairs.remove(2);
    redis.kill(dead.server);
    live_on(&mut pairs, [&near, &far]).await;
    is_refused(&dead, [&near, &far]).await;
    tells_how_many_are_away(&near).await;
    // A node that starts now serves the others, after it has tried for a lease to reach all.
    let third = node(&redis).await;
    let (late, _) = RawClient::join_modern(&third, &pairs[0].session, "client_third").await;
    while late.frames_of("state_update").is_empty() {
        pairs[0].drive().await;
    }
    redis.restart(dead.server).await;
    for node in [&near, &far, &third] {
        whole(node).await;
    }
    dead.recovers().await;
    for pair in &mut pairs {
        pair.drive().await;
    }
}

#[tokio::test]
async fn a_shard_that_stands_still_delays_no_other() {
    let redis = RedisCluster::start(4).await;
    let (near, far) = (node(&redis).await, node(&redis).await);
    let mut pairs = one_on_each(&redis, [&near, &far]).await;
    let mut dead = pairs.remove(1);
    redis.pause(dead.server);
    live_on(&mut pairs, [&near, &far]).await;
    is_refused(&dead, [&near, &far]).await;
    redis.resume(dead.server);
    dead.recovers().await;
}

#[tokio::test]
async fn a_slot_that_moves_takes_its_sessions_along() {
    let redis = Arc::new(RedisCluster::start(3).await);
    let (near, far) = (node(&redis).await, node(&redis).await);
    let mut pair = Pair::on(&redis, [&near, &far]).await;
    // Only a server that the nodes have known for some time is above suspicion.
    live_on(std::slice::from_mut(&mut pair), [&near, &far]).await;
    let (slot, home) = (redis.slot_of(&pair.session), pair.server);
    for to in [(home + 1) % 3, (home + 2) % 3, home] {
        let moving = Arc::clone(&redis);
        let from = redis.server_of(&pair.session);
        let moving = tokio::task::spawn_blocking(move || moving.move_slot(slot, from, to));
        while !moving.is_finished() {
            pair.clients[pair.controller].say("state_update", json!({ "step": 0 })).await;
            pair.follower().quiet(Duration::from_millis(1)).await;
        }
        moving.await.unwrap();
        pair.recovers().await;
        pair.turn().await;
        pair.drive().await;
    }
    for node in [&near, &far] {
        let log = node.log();
        assert!(!log.contains("the store has lost its memory"), "{log}");
    }
}
