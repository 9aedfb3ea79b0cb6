//! The library inside another axum application, used as `examples/embed.rs` shows it.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use gitorial_relay::http::HttpSettings;
use gitorial_relay::ids::SessionId;
use gitorial_relay::protocol::SessionData;
use gitorial_relay::random::{Random, boot};
use gitorial_relay::relay::{JoinRequest, NewSession, RelayEvent};
use gitorial_relay::session::Role;
use gitorial_relay::{Node, NodeSettings, http};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::broadcast::Receiver;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

const PATIENCE: Duration = Duration::from_secs(10);

async fn serve(node: &Node) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let relay = http::router(node.relay().clone(), HttpSettings::default());
    // The application's own routes are served beside the relay's.
    let app = relay.route("/about", axum::routing::get(async || "a tutorial platform"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

async fn event(events: &mut Receiver<RelayEvent>, wanted: impl Fn(&RelayEvent) -> bool) -> RelayEvent {
    let found = async {
        loop {
            let event = events.recv().await.unwrap();
            if wanted(&event) {
                return event;
            }
        }
    };
    timeout(PATIENCE, found).await.expect("the event comes")
}

#[tokio::test]
async fn an_application_creates_reads_lists_and_deletes_sessions() {
    let node = Node::start(NodeSettings::default()).await.unwrap();
    assert!(node.ready(PATIENCE).await);
    let relay = node.relay();
    let created = relay.create_session(NewSession::default()).await.unwrap();
    let shown = |data: &SessionData| serde_json::to_value(data).unwrap();
    let read = relay.session(created.id()).await.unwrap().unwrap();
    assert_eq!(shown(&read), shown(&created));
    assert_eq!(relay.sessions().await.unwrap().len(), 1);
    assert!(relay.delete_session(created.id()).await.unwrap());
    assert!(!relay.delete_session(created.id()).await.unwrap());
    assert!(relay.session(created.id()).await.unwrap().is_none());
    assert!(relay.session(SessionId::random()).await.unwrap().is_none());
    assert!(relay.sessions().await.unwrap().is_empty());
    node.stop(PATIENCE).await;
}

#[tokio::test]
async fn events_report_sessions_clients_roles_and_transfers() {
    let node = Node::start(NodeSettings::default()).await.unwrap();
    assert!(node.ready(PATIENCE).await);
    let mut events = node.relay().events();
    let address = serve(&node).await;
    let id = node.relay().create_session(NewSession::default()).await.unwrap().id();
    assert_eq!(events.recv().await.unwrap(), RelayEvent::SessionCreated(id));
    let url = format!("ws://{address}/ws?session={}", id.reveal());
    let (mut first, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
    let (mut second, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
    event(&mut events, |event| matches!(event, RelayEvent::ClientConnected(of, _) if *of == id)).await;
    assert_eq!((node.relay().stats().connections, node.relay().stats().sessions), (2, 1));

    let say = |kind: &str, client: &str, data: serde_json::Value| {
        Message::text(json!({ "type": kind, "clientId": client, "data": data }).to_string())
    };
    let pull = json!({ "preferredDirection": "ACTIVE", "reason": "test" });
    first.send(say("coordinate_sync_direction", "one", pull)).await.unwrap();
    let active = |event: &RelayEvent| matches!(event, RelayEvent::RoleChanged(_, _, Role::Active));
    assert!(matches!(event(&mut events, active).await, RelayEvent::RoleChanged(_, who, _) if who.as_str() == "one"));

    // Its loss is announced by an accept_control, which every existing client acknowledges.
    second.send(say("confirm_transfer", "two", json!({}))).await.unwrap();
    second.send(say("accept_control", "two", json!({ "fromClientId": "one" }))).await.unwrap();
    let moved = event(&mut events, |event| matches!(event, RelayEvent::ControlTransferred { .. })).await;
    let RelayEvent::ControlTransferred { from, to, .. } = moved else { panic!("{moved:?}") };
    assert_eq!((from.as_str(), to.as_str()), ("one", "two"));

    drop(second);
    event(&mut events, |event| matches!(event, RelayEvent::ClientDisconnected(of, _) if *of == id)).await;
    assert!(node.relay().delete_session(id).await.unwrap());
    event(&mut events, |event| *event == RelayEvent::SessionDeleted(id)).await;
    let closed = async { while first.next().await.is_some_and(|frame| !matches!(frame, Ok(Message::Close(_)))) {} };
    timeout(PATIENCE, closed).await.expect("its socket is closed");
    node.stop(PATIENCE).await;
}

#[tokio::test]
async fn two_nodes_run_in_one_process() {
    use std::sync::Arc;

    use gitorial_relay::broker::MemoryBus;
    use gitorial_relay::metrics::Metrics;
    use gitorial_relay::relay::RelaySettings;
    use gitorial_relay::store::MemoryStore;

    let (store, bus) = (MemoryStore::new(), MemoryBus::new());
    let assemble = |name: &str| {
        let node = boot(name);
        let (broker, inbox) = bus.join(node.clone());
        let metrics = Arc::new(Metrics::new());
        Node::assemble(node, Arc::new(store.clone()), broker, inbox, metrics, RelaySettings::default())
    };
    let (left, right) = (assemble("left"), assemble("right"));
    assert!(left.ready(PATIENCE).await && right.ready(PATIENCE).await);
    let id = left.relay().create_session(NewSession::default()).await.unwrap().id();
    let mut sockets = Vec::new();
    for node in [&left, &right] {
        let url = format!("ws://{}/?session={}", serve(node).await, id.reveal());
        sockets.push(tokio_tungstenite::connect_async(&url).await.unwrap().0);
    }
    let (mut one, mut two) = (sockets.remove(0), sockets.remove(0));
    // There is no controller, so the client that sends a state takes control.
    one.send(Message::text(r#"{"type":"state_update","clientId":"one","data":{"step":1}}"#)).await.unwrap();
    let arrives = async {
        while let Some(Ok(frame)) = two.next().await {
            if frame.to_text().is_ok_and(|text| text.contains(r#""data":{"step":1}"#)) {
                return;
            }
        }
        panic!("the socket ended");
    };
    timeout(PATIENCE, arrives).await.expect("the state arrives on the other node");
    left.stop(PATIENCE).await;
    right.stop(PATIENCE).await;
}

#[tokio::test]
async fn a_scrape_shows_the_queues_and_the_drain() {
    let node = Node::start(NodeSettings::default()).await.unwrap();
    assert!(node.ready(PATIENCE).await);
    let relay = node.relay();
    let session = relay.create_session(NewSession::default()).await.unwrap().id();
    let join_request = || JoinRequest { session, client: None, resume: None };
    // Members whose sockets are never written to: their frames stay queued.
    let (admission, first) = (relay.admit().unwrap(), relay.join(join_request()).await.unwrap());
    let second = relay.join(join_request()).await.unwrap();
    let depths = [&first, &second].map(|member| member.outbound.depth().1);
    let gauge = |name: &str| {
        relay.measure();
        let text = relay.metrics().render();
        let line =
            text.lines().find_map(|line| line.strip_prefix(&format!("gitorial_relay_{name} ")).map(str::to_owned));
        line.unwrap().parse::<f64>().unwrap()
    };
    assert!(depths.iter().all(|depth| *depth > 0), "{depths:?}");
    assert_eq!(gauge("queued_frames"), depths.iter().sum::<usize>() as f64);
    assert_eq!(gauge("longest_queue_frames"), *depths.iter().max().unwrap() as f64);
    assert_eq!((gauge("ready"), gauge("draining"), gauge("drain_sockets")), (1.0, 0.0, 0.0));
    relay.begin_drain();
    assert_eq!((gauge("ready"), gauge("draining"), gauge("drain_sockets")), (0.0, 1.0, 1.0));
    drop(admission);
    assert_eq!(gauge("drain_sockets"), 0.0);
    relay.retire().await;
    assert_eq!(gauge("lease_seconds"), 0.0);
    for member in [first, second] {
        relay.leave(&member, false).await;
    }
    node.stop(PATIENCE).await;
}
