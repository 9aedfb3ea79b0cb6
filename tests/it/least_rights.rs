//! The rights in docs/operations.md, "Redis's rights", are enough for everything that nodes do; and a prefix keeps two
//! relays on one Redis apart.

use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};

use super::support::client::RawClient;
use super::support::cluster::{Node, Options, PATIENCE};
use super::support::eventually;
use super::support::redis::RedisFixture;
use super::support::redis_cluster::RedisCluster;
use super::support::stage::assigned;

/// The keys, channels and commands of the document, for another prefix than the usual one.
fn documented(prefix: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/operations.md")).unwrap();
    let (_, command) = text.split_once("redis-cli ACL SETUSER relay on '>PASSWORD' ").expect("the command is there");
    let (rights, _) = command.split_once("```").unwrap();
    rights.replace(['\'', '\\', '\n'], " ").replace("gitorial:", prefix)
}

/// What the document adds and takes away for a Cluster.
fn documented_for_a_cluster() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/operations.md")).unwrap();
    let row = text.lines().find(|line| line.starts_with("| `CLUSTER SLOTS`")).expect("the row is there");
    let quoted: Vec<_> = row.split('`').filter(|part| part.contains('+')).collect();
    let words = |part: &str| part.replace(['\'', '\\'], "");
    let (more, less) = (words(quoted[0]), words(quoted[1]).replace('+', "-"));
    format!("{} {more} {less}", documented("gitorial:"))
}

async fn node(redis: &RedisFixture, prefix: &str) -> Node {
    node_at(&redis.url_for("relay:hunter2"), prefix).await
}

async fn node_at(url: &str, prefix: &str) -> Node {
    let options = Options::short_leases().flag("--session-listing", "public").flag("--redis-prefix", prefix);
    let node = Node::spawn(&options.flag("--redis-url", url)).await;
    node.ready().await;
    node
}

async fn listed(node: &Node) -> Vec<String> {
    let (status, sessions) = node.answer(Method::GET, "/api/sessions").await;
    assert_eq!(status, 200, "{sessions}");
    sessions.as_array().unwrap().iter().map(|session| session["id"].as_str().unwrap().to_owned()).collect()
}

async fn controls(node: &Node, session: &str, client: &str) {
    eventually(PATIENCE, async || (node.get_session(session).await.1["activeClientId"] == client).then_some(())).await;
}

async fn takes_control(client: &RawClient) {
    client.say("coordinate_sync_direction", json!({ "preferredDirection": "ACTIVE", "reason": "test" })).await;
    assigned(client, "ACTIVE").await;
}

#[tokio::test]
async fn the_documented_rights_are_enough_for_the_life_of_a_session() {
    let mut redis = RedisFixture::local().await;
    redis.allow(&documented("gitorial:"));
    live_a_life(&redis.url_for("relay:hunter2")).await;
}

#[tokio::test]
async fn the_documented_rights_are_enough_on_a_cluster() {
    let redis = RedisCluster::start(3).await;
    redis.allow(&documented_for_a_cluster());
    live_a_life(&redis.url_for("relay:hunter2@")).await;
}

async fn live_a_life(url: &str) {
    let (near, far) = (node_at(url, "gitorial:").await, node_at(url, "gitorial:").await);
    let session = near.create_session(json!({ "conflictResolution": "first_come_first_served" })).await;
    let (a, _) = RawClient::join_modern(&near, &session, "client_a").await;
    let (b, _) = RawClient::join_modern(&far, &session, "client_b").await;
    takes_control(&a).await;
    a.say("state_update", json!({ "step": 1 })).await;
    assert_eq!(b.expect("state_update").await["data"]["step"], 1);
    // Control moves to the other node.
    b.say("accept_control", json!({ "fromClientId": "client_a", "timestamp": 1 })).await;
    controls(&near, &session, "client_b").await;
    assert_eq!(listed(&near).await, std::slice::from_ref(&session));
    // A node dies with the controller, and the other one takes its sessions over.
    far.kill9();
    eventually(PATIENCE, async || near.log().contains("the lease of another node has lapsed").then_some(())).await;
    let third = node_at(url, "gitorial:").await;
    let (c, _) = RawClient::join_modern(&third, &session, "client_c").await;
    c.say("accept_control", json!({ "fromClientId": "client_b", "timestamp": 1 })).await;
    controls(&third, &session, "client_c").await;
    // A drain, with the goodbye to Redis.
    near.terminate();
    assert_eq!(a.expect_close().await.0, 1012);
    assert!(near.wait().await.success());
    assert_eq!(third.delete_session(&session).await.0, 200);
    assert_eq!(c.expect_close().await.0, 1008);
    for node in [&near, &third] {
        let log = node.log();
        assert!(!["refuses", "NOPERM", "could not"].iter().any(|word| log.contains(word)), "{log}");
    }
}

#[tokio::test]
async fn relays_with_different_prefixes_share_a_redis_unseen() {
    let mut redis = RedisFixture::local().await;
    redis.allow(&documented("left:"));
    let left = node(&redis, "left:").await;
    let channels = redis.command(&["PUBSUB", "CHANNELS"]);
    assert!(channels.contains("left:inbox:{"), "{channels}");
    redis.allow(&format!("{} {}", documented("left:"), documented("right:")));
    let right = node(&redis, "right:").await;
    let one = left.create_session(json!({})).await;
    let other = right.create_session(json!({})).await;
    for (node, own, foreign) in [(&left, &one, &other), (&right, &other, &one)] {
        assert_eq!(listed(node).await, std::slice::from_ref(own));
        assert_eq!((node.get_session(own).await.0, node.get_session(foreign).await.0), (200, 404));
        let (client, _) = RawClient::join_modern(node, own, "client_a").await;
        takes_control(&client).await;
    }
    let keys = redis.command(&["KEYS", "*"]);
    let named = |prefix: &str| keys.lines().filter(|line| line.starts_with(prefix)).count();
    // The session, the node's heartbeat and renewal, the generation and its servers.
    assert_eq!((named("left:"), named("right:"), named("gitorial:")), (5, 5, 0), "{keys}");
    // Both generations differ, so a loss is noticed by each relay for itself.
    let generation = |prefix: &str, redis: &mut RedisFixture| redis.command(&["GET", &format!("{prefix}generation")]);
    assert_ne!(generation("left:", &mut redis), generation("right:", &mut redis));
    assert_eq!(left.answer(Method::GET, "/readyz").await.1["status"], Value::from("ready"));
}
