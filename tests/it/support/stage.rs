//! A session on a cluster, and clients in it on both its ends.

use std::time::Duration;

use serde_json::{Value, json};

use super::client::RawClient;
use super::cluster::{Cluster, Kind, Node, Options, PATIENCE};
use super::eventually;

/// Runs each of the named rules, an `async fn(&Stage)`, on one node and on two nodes over Redis.
macro_rules! on_both {
    ($($name:ident,)*) => {
        mod embedded {
            $(#[tokio::test]
            async fn $name() {
                super::$name(&super::Stage::set(super::Kind::Embedded).await).await;
            })*
        }
        mod over_redis {
            $(#[tokio::test]
            async fn $name() {
                super::$name(&super::Stage::set(super::Kind::Redis(2)).await).await;
            })*
        }
    };
}
pub(crate) use on_both;

/// A session and the nodes that serve it.
pub struct Stage {
    /// The nodes.
    pub cluster: Cluster,
    /// The session's id.
    pub session: String,
}

impl Stage {
    /// A new session on a new cluster.
    pub async fn set(kind: Kind) -> Self {
        Self::with(kind, Options::default(), json!({})).await
    }

    /// As [`Stage::set`], with options for the nodes and for the session.
    pub async fn with(kind: Kind, options: Options, session: Value) -> Self {
        let cluster = Cluster::start(kind, options).await;
        let session = cluster.near().create_session(session).await;
        Self { cluster, session }
    }

    /// The same nodes, another session.
    pub async fn another_session(&self, body: Value) -> String {
        self.cluster.near().create_session(body).await
    }

    /// An old client on the first node.
    pub async fn near(&self, id: &str) -> RawClient {
        self.seat(self.cluster.near(), &self.session, id).await
    }

    /// An old client on the last node.
    pub async fn far(&self, id: &str) -> RawClient {
        self.seat(self.cluster.far(), &self.session, id).await
    }

    /// An old client that has joined, or was refused: a socket that is open is not in its session yet.
    pub async fn seat(&self, node: &Node, session: &str, id: &str) -> RawClient {
        let count = async || node.get_session(session).await.1["clientCount"].clone();
        let before = count().await;
        let client = RawClient::join(node, session, id).await;
        eventually(PATIENCE, async || (!client.is_open() || count().await != before).then_some(())).await;
        client
    }

    /// A client with the handshake on the first node.
    pub async fn modern_near(&self, id: &str) -> RawClient {
        RawClient::join_modern(self.cluster.near(), &self.session, id).await.0
    }

    /// A client with the handshake on the last node.
    pub async fn modern_far(&self, id: &str) -> RawClient {
        RawClient::join_modern(self.cluster.far(), &self.session, id).await.0
    }

    /// `client_a` and `client_b`, one on each end, which know of each other.
    pub async fn two(&self) -> (RawClient, RawClient) {
        let a = self.near("client_a").await;
        let b = self.far("client_b").await;
        meet(&[&a], &b).await;
        (a, b)
    }

    /// As [`Stage::two`], and `client_c` beside `client_a`.
    pub async fn three(&self) -> (RawClient, RawClient, RawClient) {
        let (a, b) = self.two().await;
        let c = self.near("client_c").await;
        meet(&[&a, &b], &c).await;
        (a, b, c)
    }

    /// `client_a` has control, `client_b` follows.
    pub async fn driven(&self) -> (RawClient, RawClient) {
        let (a, b) = self.two().await;
        drive(&a, &[&b]).await;
        (a, b)
    }

    /// `client_a` has control, `client_b` and `client_c` follow.
    pub async fn driven_with_a_third(&self) -> (RawClient, RawClient, RawClient) {
        let (a, b, c) = self.three().await;
        drive(&a, &[&b, &c]).await;
        (a, b, c)
    }

    /// The controller according to the HTTP API.
    pub async fn active(&self) -> Value {
        let (status, session) = self.cluster.far().get_session(&self.session).await;
        assert_eq!(status, 200, "{session}");
        session["activeClientId"].clone()
    }
}

/// A state of the controller reaches a follower; if need be it is sent again, or the controller is asked for it.
pub async fn reaches(controller: &RawClient, follower: &RawClient, step: u64) {
    eventually(PATIENCE, async || {
        controller.say("state_update", json!({ "step": step })).await;
        let got = follower.quiet(Duration::from_millis(200)).await;
        got.iter().any(|frame| frame["data"]["step"] == step).then_some(())
    })
    .await;
}

/// Waits until all know of the new client, and it of them.
pub async fn meet(there: &[&RawClient], newcomer: &RawClient) {
    for client in there {
        client.expect("client_connected").await;
        newcomer.expect("client_connected").await;
    }
}

/// `driver` asks for control without a controller and gets it; the others, old clients, are told to follow and confirm.
pub async fn drive(driver: &RawClient, others: &[&RawClient]) {
    driver.say("coordinate_sync_direction", json!({ "preferredDirection": "ACTIVE", "reason": "pull" })).await;
    granted(driver).await;
    for other in others {
        demoted(other, &driver.id).await;
        // Its acknowledgement is its first frame: from now on all nodes know its name.
        other.barrier(driver).await;
    }
    if !others.is_empty() {
        driver.expect("request_sync").await;
    }
}

/// The old client is told by *Grant* that it has control.
pub async fn granted(client: &RawClient) {
    assigned(client, "ACTIVE").await;
    client.expect("confirm_transfer").await;
}

/// The old client is told by *Demote* that `by` has control, and acknowledges.
pub async fn demoted(client: &RawClient, by: &str) {
    assigned(client, "PASSIVE").await;
    let told = client.expect("accept_control").await;
    assert_eq!(told["clientId"], by, "{} got {}", client.id, client.transcript());
    acknowledge(client).await;
}

/// The client is told this direction.
pub async fn assigned(client: &RawClient, direction: &str) {
    let told = client.expect("assign_sync_direction").await;
    assert_eq!(told["data"]["assignedDirection"], direction, "{} got {}", client.id, client.transcript());
}

/// An old client's answer to every `accept_control`.
pub async fn acknowledge(client: &RawClient) {
    client.say("confirm_transfer", json!({ "toClientId": "whoever", "timestamp": 1 })).await;
}

/// A tutorial state at this step.
pub fn state(step: u64) -> Value {
    json!({
        "tutorialId": "t", "tutorialTitle": "T", "totalSteps": 100, "isShowingSolution": false,
        "stepContent": { "id": format!("step-{step}"), "title": "S", "commitHash": "c", "type": "action", "index": step },
    })
}

/// The step of a state.
pub fn step_of(state: &Value) -> Option<u64> {
    state["stepContent"]["index"].as_u64()
}
