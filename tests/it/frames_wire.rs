//! The socket itself: the upgrade, its refusals, the first frame, close codes (docs/protocol.md, "WebSocket").

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::support::client::RawClient;
use super::support::cluster::{Kind, Options, PATIENCE};
use super::support::eventually;
use super::support::stage::{Stage, meet, on_both, state};

on_both! {
    an_upgrade_without_a_session_is_accepted_then_refused,
    an_upgrade_for_an_unknown_session_is_accepted_then_refused,
    a_refused_upgrade_joins_nothing,
    both_paths_upgrade,
    the_first_frame_may_share_a_packet_with_the_upgrade,
    a_ping_is_answered,
    a_drain_tells_every_client_to_reconnect,
}

async fn an_upgrade_without_a_session_is_accepted_then_refused(stage: &Stage) {
    for path in ["/", "/ws", "/?session=", "/ws?client=client_a"] {
        let client = RawClient::connect(&format!("{}{path}", stage.cluster.near().ws()), "client_a").await;
        assert_eq!(client.expect_close().await, (1008, "Session ID required".to_owned()), "{path}");
        assert!(client.all().is_empty());
    }
}

async fn an_upgrade_for_an_unknown_session_is_accepted_then_refused(stage: &Stage) {
    let gone = stage.another_session(json!({})).await;
    assert_eq!(stage.cluster.far().delete_session(&gone).await.0, 200);
    for id in ["00000000-0000-4000-8000-000000000000", "nonsense", "..%2F..", &gone] {
        let client = RawClient::join(stage.cluster.near(), id, "client_a").await;
        assert_eq!(client.expect_close().await, (1008, "Session not found".to_owned()), "{id}");
        assert!(client.all().is_empty());
    }
}

async fn a_refused_upgrade_joins_nothing(stage: &Stage) {
    let client = RawClient::join(stage.cluster.near(), "nonsense", "client_a").await;
    client.expect_close().await;
    eventually(PATIENCE, async || (stage.cluster.near().metric("connections", &[]).await == 0.0).then_some(())).await;
    let closes = stage.cluster.near().metric("closes_total", &[("reason", "session_not_found")]).await;
    assert!(closes >= 1.0, "the close is counted by its reason");
}

async fn both_paths_upgrade(stage: &Stage) {
    let session = &stage.session;
    let a = RawClient::connect(&format!("{}/?session={session}", stage.cluster.near().ws()), "client_a").await;
    eventually(PATIENCE, async || {
        let (_, found) = stage.cluster.near().get_session(session).await;
        (found["clientCount"] == 1).then_some(())
    })
    .await;
    let b = RawClient::connect(&format!("{}/ws?session={session}", stage.cluster.far().ws()), "client_b").await;
    meet(&[&a], &b).await;
    a.barrier(&b).await;
}

/// A client's text frame, masked with zeros, of a payload below 64 KiB.
fn masked(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("short");
    let mut bytes = vec![0x81];
    match text.len() {
        short @ 0..126 => bytes.push(0x80 | u8::try_from(short).expect("short")),
        _ => {
            bytes.push(0x80 | 126);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(text.bytes());
    bytes
}

async fn the_first_frame_may_share_a_packet_with_the_upgrade(stage: &Stage) {
    let b = stage.far("client_b").await;
    let (address, session) = (stage.cluster.near().address(), &stage.session);
    for path in ["/", "/ws"] {
        let mut bytes = format!(
            "GET {path}?session={session} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        .into_bytes();
        let texts = [1, 2].map(|number| format!(r#"{{"type":"cursor_moved","clientId":"client_a","data":{number}}}"#));
        bytes.extend(texts.iter().flat_map(|text| masked(text)));
        let mut socket = TcpStream::connect(address).await.expect("the node listens");
        socket.write_all(&bytes).await.expect("written");
        let mut answer = [0; 12];
        timeout(PATIENCE, socket.read_exact(&mut answer)).await.expect("in time").expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 101");
        for text in &texts {
            assert_eq!(&b.expect_raw("cursor_moved").await.text, text);
        }
    }
}

async fn a_ping_is_answered(stage: &Stage) {
    let mut socket = TcpStream::connect(stage.cluster.near().address()).await.expect("the node listens");
    let (address, session) = (stage.cluster.near().address(), &stage.session);
    let request = format!(
        "GET /ws?session={session} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.expect("written");
    socket.write_all(&[0x89, 0x82, 0, 0, 0, 0, b'h', b'i']).await.expect("written");
    let mut got = Vec::new();
    let pong = [0x8a, 2, b'h', b'i'];
    while !got.windows(pong.len()).any(|bytes| bytes == pong) {
        let read = timeout(PATIENCE, socket.read_buf(&mut got)).await.expect("in time").expect("read");
        assert_ne!(read, 0, "closed: {got:?}");
    }
}

async fn a_drain_tells_every_client_to_reconnect(stage: &Stage) {
    let a = stage.near("client_a").await;
    let b = RawClient::join(stage.cluster.near(), &stage.session, "client_b").await;
    meet(&[&a], &b).await;
    stage.cluster.near().terminate();
    for client in [&a, &b] {
        assert_eq!(client.expect_close().await, (1012, "Service restart: reconnect now".to_owned()));
    }
    let status = stage.cluster.near().wait().await;
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn a_session_has_a_limit_of_clients() {
    for kind in [Kind::Embedded, Kind::Redis(2)] {
        let options = Options::default().flag("--max-clients-per-session", "2");
        let stage = Stage::with(kind, options, json!({})).await;
        let (a, b) = stage.two().await;
        let late = stage.far("client_c").await;
        assert_eq!(late.expect_close().await, (1008, "Session is full".to_owned()));
        b.leave().await;
        a.expect("client_disconnected").await;
        let now = stage.far("client_c").await;
        now.expect("client_connected").await;
    }
}

#[tokio::test]
async fn a_killed_node_takes_only_its_own_clients_with_it() {
    let stage = Stage::set(Kind::Redis(2)).await;
    let (a, b) = stage.two().await;
    stage.cluster.near().kill9();
    assert_eq!(a.expect_close().await.0, 1006);
    b.say("coordinate_sync_direction", json!({ "preferredDirection": "ACTIVE", "reason": "pull" })).await;
    super::support::stage::granted(&b).await;
    b.say("state_update", state(1)).await;
    assert!(b.quiet(Duration::from_millis(50)).await.iter().all(|frame| frame["type"] != "rejected"));
    eventually(PATIENCE, async || {
        let (_, found) = stage.cluster.far().get_session(&stage.session).await;
        (found["clientCount"] == 1).then_some(())
    })
    .await;
}
