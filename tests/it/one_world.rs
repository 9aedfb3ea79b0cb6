//! All connections of a node are on one Redis, whichever of them moves first.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::Method;
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::support::client::RawClient;
use super::support::cluster::{Node, Options, PATIENCE};
use super::support::eventually;
use super::support::redis::RedisFixture;
use super::support::stage::reaches;

/// A primary and its replica behind one address, as a load balancer with a health check has them: new connections go
/// to the one that is the primary, and those that are open stay where they are.
struct Pair {
    servers: [RedisFixture; 2],
    /// Where new connections go, in turn.
    targets: Arc<Mutex<Vec<String>>>,
    url: String,
    task: JoinHandle<()>,
}

impl Pair {
    async fn start() -> Self {
        let mut servers = [RedisFixture::local().await, RedisFixture::local().await];
        let (host, port) = address(&servers[0]).split_once(':').map(|(h, p)| (h.to_owned(), p.to_owned())).unwrap();
        servers[1].command(&["REPLICAOF", &host, &port]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let targets = Arc::new(Mutex::new(vec![address(&servers[0])]));
        let task = tokio::spawn({
            let targets = targets.clone();
            async move {
                while let Ok((mut client, _)) = listener.accept().await {
                    let target = {
                        let mut targets = targets.lock();
                        targets.rotate_left(1);
                        targets[0].clone()
                    };
                    tokio::spawn(async move {
                        let Ok(mut server) = TcpStream::connect(target).await else { return };
                        let _ = copy_bidirectional(&mut client, &mut server).await;
                    });
                }
            }
        });
        let mut pair = Self { servers, targets, url, task };
        eventually(PATIENCE, async || {
            pair.servers[1].command(&["INFO", "replication"]).contains("link_status:up").then_some(())
        })
        .await;
        pair
    }

    /// The replica takes over, and the primary before it lives on as `before` says.
    fn fail_over(&mut self, before: Before) {
        self.servers[1].command(&["REPLICAOF", "NO", "ONE"]);
        let now = address(&self.servers[1]);
        *self.targets.lock() = vec![now.clone()];
        if let Before::Replica = before {
            let (host, port) = now.split_once(':').unwrap();
            self.servers[0].command(&["REPLICAOF", host, port]);
        }
    }

    /// Ends the connections of this kind on the primary before.
    fn cut(&mut self, kind: &str) {
        self.servers[0].command(&["CLIENT", "KILL", "TYPE", kind]);
    }

    async fn node(&self) -> Node {
        let node = Node::spawn(&Options::short_leases().flag("--redis-url", &self.url)).await;
        node.ready().await;
        node
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.task.abort();
    }
}

enum Before {
    Replica,
    Primary,
}

fn address(redis: &RedisFixture) -> String {
    redis.url().trim_start_matches("redis://").to_owned()
}

/// A session is driven over both nodes and over one that starts afterwards, and control moves to that.
async fn goes_on(pair: &Pair, [a, b]: [&RawClient; 2], session: &str) {
    let third = pair.node().await;
    let (c, _) = RawClient::join_modern(&third, session, "client_c").await;
    reaches(a, b, 2).await;
    reaches(a, &c, 3).await;
    let taken = async || {
        c.say("accept_control", json!({ "fromClientId": "client_a", "timestamp": 1 })).await;
        let told = c.quiet(Duration::from_millis(300)).await;
        told.iter().any(|frame| frame["data"]["assignedDirection"] == "ACTIVE").then_some(())
    };
    eventually(PATIENCE, taken).await;
    reaches(&c, a, 4).await;
}

async fn driven(pair: &Pair) -> (Node, Node, String, RawClient, RawClient) {
    let (near, far) = (pair.node().await, pair.node().await);
    let session = near.create_session(json!({})).await;
    let (a, _) = RawClient::join_modern(&near, &session, "client_a").await;
    let (b, _) = RawClient::join_modern(&far, &session, "client_b").await;
    a.say("coordinate_sync_direction", json!({ "preferredDirection": "ACTIVE", "reason": "test" })).await;
    reaches(&a, &b, 1).await;
    (near, far, session, a, b)
}

#[tokio::test]
async fn a_planned_failover_behind_one_address_takes_all_connections_along() {
    let mut pair = Pair::start().await;
    let (near, _far, session, a, b) = driven(&pair).await;
    pair.fail_over(Before::Replica);
    goes_on(&pair, [&a, &b], &session).await;
    assert!(near.metric("redis_reconnects_total", &[]).await >= 2.0);
}

#[tokio::test]
async fn channels_that_move_alone_take_the_store_along() {
    let mut pair = Pair::start().await;
    let (_near, _far, session, a, b) = driven(&pair).await;
    pair.fail_over(Before::Primary);
    pair.cut("pubsub");
    goes_on(&pair, [&a, &b], &session).await;
}

#[tokio::test]
async fn a_node_whose_connections_are_on_different_servers_is_not_ready_and_says_so() {
    let pair = Pair::start().await;
    let other = RedisFixture::local().await;
    // Of any three connections that are made one after the other, two come to different servers.
    *pair.targets.lock() = vec![address(&pair.servers[0]), address(&other)];
    let node = Node::spawn(&Options::short_leases().flag("--redis-url", &pair.url)).await;
    eventually(PATIENCE, async || {
        let (status, body) = node.answer(Method::GET, "/readyz").await;
        let reason = body["reason"].as_str().unwrap_or_default().to_owned();
        (status == 503 && reason.contains("on different redis servers")).then_some(())
    })
    .await;
    assert_eq!(node.answer(Method::POST, "/api/sessions").await.0, 503);
    *pair.targets.lock() = vec![address(&other)];
    node.ready().await;
}
