//! The real driver, over the embedded store and bus, under Tokio's paused time: what takes half an hour takes no time
//! here, and happens at its exact moment.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use gitorial_relay::Node;
use gitorial_relay::broker::MemoryBus;
use gitorial_relay::clock::TimeSource;
use gitorial_relay::hub::{Next, Socket};
use gitorial_relay::ids::SessionId;
use gitorial_relay::metrics::Metrics;
use gitorial_relay::protocol::CloseReason;
use gitorial_relay::random::boot;
use gitorial_relay::relay::{JoinRequest, NewSession, Readiness, RelaySettings};
use gitorial_relay::room::FLUSH_TIMEOUT;
use gitorial_relay::store::MemoryStore;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Longer than anything here takes, in paused time.
const PATIENCE: Duration = Duration::from_secs(60);

/// Some nodes that share a store and a bus.
struct Cluster {
    store: Arc<MemoryStore>,
    bus: MemoryBus,
}

impl Cluster {
    fn new() -> Self {
        Self { store: Arc::new(MemoryStore::with_limit(100)), bus: MemoryBus::new() }
    }

    async fn node(&self, name: &str) -> Node {
        let id = boot(name);
        let (broker, inbox) = self.bus.join(id.clone());
        let settings = RelaySettings { time: TimeSource::Runtime, ..RelaySettings::default() };
        let node = Node::assemble(id, self.store.clone(), broker, inbox, Arc::new(Metrics::new()), settings);
        assert!(node.ready(PATIENCE).await);
        node
    }
}

/// A client with the handshake, as the node's end of its socket sees it.
struct Client<'a> {
    node: &'a Node,
    socket: Arc<Socket>,
    name: String,
    /// Whether it answers pings.
    answers: bool,
}

impl<'a> Client<'a> {
    async fn join(node: &'a Node, session: SessionId) -> Self {
        let join_request = JoinRequest { session, client: None, resume: None };
        let socket = node.relay().join(join_request).await.unwrap();
        let mut client = Self { node, socket, name: String::new(), answers: true };
        client.send("protocol_handshake", &json!({})).await;
        client.name = client.hears("protocol_ack").await["clientId"].as_str().unwrap().to_owned();
        client
    }

    async fn send(&self, kind: &str, data: &Value) {
        let frame = json!({ "type": kind, "clientId": self.name, "data": data, "protocol_version": 1 });
        self.node.relay().on_frame(&self.socket, Bytes::from(frame.to_string()));
        self.node.relay().decided(&self.socket).await;
    }

    /// Reads on to the next frame of this type.
    async fn hears(&self, kind: &str) -> Value {
        let heard = async {
            loop {
                match self.next().await {
                    Ok(frame) if frame["type"] == kind => return frame,
                    Ok(_) => {}
                    Err(reason) => panic!("closed ({reason:?}) before a {kind}"),
                }
            }
        };
        timeout(PATIENCE, heard).await.unwrap_or_else(|_| panic!("no {kind} came"))
    }

    /// The next frame, or the reason for which the socket is closed.
    async fn next(&self) -> Result<Value, CloseReason> {
        let outbound = &self.socket.outbound;
        let mut heard_all = false;
        loop {
            let next = poll_fn(|cx| {
                outbound.register(cx);
                match outbound.next(self.node.relay().local_time(), heard_all) {
                    Next::Wait(None) => Poll::Pending,
                    next => Poll::Ready(next),
                }
            });
            match next.await {
                Next::Write(item) => return Ok(serde_json::from_slice(&item.text).unwrap()),
                Next::Close(reason) => return Err(reason),
                Next::Probe(number) if self.answers => self.node.relay().on_pong(&self.socket, number),
                Next::Probe(_) => {}
                Next::ReadFirst => heard_all = true,
                Next::Wait(Some(_)) => sleep(Duration::from_millis(1)).await,
                Next::Wait(None) => {}
            }
        }
    }

    /// Asks for control that is free.
    async fn ask_for_control(&self) {
        self.send("coordinate_sync_direction", &json!({ "preferredDirection": "ACTIVE", "reason": "test" })).await;
        self.drives().await;
    }

    /// Takes control from this client.
    async fn take_control(&self, from: &str) {
        self.send("accept_control", &json!({ "fromClientId": from, "timestamp": 1 })).await;
        self.drives().await;
    }

    /// Waits until it is told that it drives.
    async fn drives(&self) {
        loop {
            let news = self.hears("role_changed").await;
            if news["clientId"] == self.name.as_str() && news["data"]["role"] == "active" {
                return;
            }
        }
    }
}

async fn session(node: &Node) -> SessionId {
    node.relay().create_session(NewSession::default()).await.unwrap().id()
}

#[tokio::test(start_paused = true)]
async fn a_session_that_nobody_uses_ends_after_its_half_hour() {
    let node = Cluster::new().node("a").await;
    let id = session(&node).await;
    let client = Client::join(&node, id).await;
    let half_an_hour = Instant::now() + Duration::from_secs(30 * 60);
    sleep_until(half_an_hour - Duration::from_secs(10)).await;
    assert_eq!(client.socket.outbound.closing(), None, "closed before its time");
    let end = timeout(PATIENCE, async { while client.next().await.is_ok() {} });
    end.await.expect("the session ends");
    assert_eq!(client.socket.outbound.closing(), Some(CloseReason::SessionExpired));
    assert!(half_an_hour.elapsed() <= 2 * node.relay().settings().timing.heartbeat, "{:?}", half_an_hour.elapsed());
    assert!(node.relay().session(id).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn control_leaves_a_dead_node_when_its_lease_has_lapsed_and_not_before() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node("a").await, cluster.node("b").await);
    let id = session(&a).await;
    let name = {
        let controller = Client::join(&a, id).await;
        controller.ask_for_control().await;
        controller.name
    };
    let follower = Client::join(&b, id).await;
    // The follower's node has to see a heartbeat before it can see that there are no more.
    sleep(Duration::from_secs(3)).await;

    let died = Instant::now();
    drop(a);
    follower.take_control(&name).await;
    let timing = &b.relay().settings().timing;
    let waited = died.elapsed();
    // The last renewal was made up to a heartbeat before the end.
    assert!(waited >= timing.lease - timing.heartbeat, "control moved after {waited:?}: the lease was still held");
    assert!(waited <= timing.lease + timing.margin + 2 * timing.heartbeat, "control moved only after {waited:?}");
    assert_eq!(b.relay().readiness(), Readiness::Ready);
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_answers_no_ping_is_waited_for_150_milliseconds() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node("a").await, cluster.node("b").await);
    let id = session(&a).await;
    let mut controller = Client::join(&a, id).await;
    controller.answers = false;
    controller.ask_for_control().await;
    let follower = Client::join(&b, id).await;
    controller.send("state_update", &json!({ "step": 1 })).await;
    follower.hears("state_update").await;

    let asked = Instant::now();
    follower.take_control(&controller.name).await;
    assert_eq!(asked.elapsed(), Duration::from_millis(FLUSH_TIMEOUT));
}
