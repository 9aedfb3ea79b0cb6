//! Many states at once: none lost, none twice, none out of order, none changed.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::support::client::RawClient;
use super::support::cluster::{Cluster, Kind, Node, PATIENCE};
use super::support::eventually;
use super::support::stage::{Stage, drive, meet};

const SESSIONS: usize = 20;
const STATES: usize = 500;

/// A state of about 400 bytes, with the irregular spelling of hand-written JSON.
fn text(client: &str, number: usize) -> String {
    let padding = "x".repeat(200);
    format!(
        r#"{{ "type":"state_update","clientId":"{client}","future":[1.0e0,"\u0041", {{"deep":null}}],"data":{{"number":{number},"padding":"{padding}","half":0.50}},"timestamp":1,"protocol_version":1}}"#
    )
}

async fn play(near: &Node, far: &Node, index: usize) {
    let session = near.create_session(json!({})).await;
    let (driver, follower) = (format!("driver_{index}"), format!("follower_{index}"));
    let a = RawClient::join(near, &session, &driver).await;
    let joined = async || near.get_session(&session).await.1["clientCount"].clone();
    eventually(PATIENCE, async || (joined().await == 1).then_some(())).await;
    let b = RawClient::join(far, &session, &follower).await;
    eventually(PATIENCE, async || (joined().await == 2).then_some(())).await;
    meet(&[&a], &b).await;
    drive(&a, &[&b]).await;
    let sent: Vec<String> = (0..STATES).map(|number| text(&driver, number)).collect();
    for state in &sent {
        a.send_text(state).await;
    }
    for state in &sent {
        assert_eq!(b.expect_raw("state_update").await.text, *state, "session {index}");
    }
    a.barrier(&b).await;
    assert_eq!(b.frames_of("state_update").len(), STATES, "session {index}");
    let own: Vec<Value> = a.frames_of("state_update");
    assert!(own.is_empty(), "no client gets its own states back");
}

async fn all_at_once(cluster: &Cluster) {
    join_all((0..SESSIONS).map(|index| play(cluster.near(), cluster.far(), index))).await;
}

#[tokio::test]
async fn ten_thousand_states_on_one_node_arrive_byte_for_byte() {
    all_at_once(&Stage::set(Kind::Embedded).await.cluster).await;
}

#[tokio::test]
async fn ten_thousand_states_across_nodes_arrive_byte_for_byte() {
    all_at_once(&Stage::set(Kind::Redis(2)).await.cluster).await;
}
