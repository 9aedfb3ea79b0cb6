//! Spans of decisions reach a collector (builds with the feature `otlp`): `cargo test --features otlp --test otlp`.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

const PATIENCE: Duration = Duration::from_secs(20);

/// The bodies that were posted.
type Posted = Arc<Mutex<Vec<Bytes>>>;

/// A collector on a free port, and the bodies that it gets.
async fn collector() -> (String, Posted) {
    let posted = Posted::default();
    let take = async |State(posted): State<Posted>, body: Bytes| posted.lock().push(body);
    let app = Router::new().route("/v1/traces", post(take)).with_state(posted.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (address, posted)
}

/// The relay's program, and the address it listens on.
async fn relay(collector: &str) -> (Child, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gitorial-relay"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("RELAY_") || name.starts_with("OTEL_")) {
        command.env_remove(name);
    }
    command.args(["--listen", "127.0.0.1:0", "--node-id", "traced", "--otlp-endpoint", collector]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
    (child, line.strip_prefix("listening on ").unwrap().to_owned())
}

/// Creates a session and changes it twice: a client joins and claims control. Returns the session's id.
async fn work(relay: &str) -> String {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let session: Value = client.post(format!("{relay}/api/sessions")).send().await.unwrap().json().await.unwrap();
    let session = session["id"].as_str().unwrap().to_owned();
    let url = format!("{}/ws?session={session}", relay.replace("http://", "ws://"));
    let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
    let claim = json!({ "type": "coordinate_sync_direction", "data": { "preferredDirection": "ACTIVE" } });
    let claim = tokio_tungstenite::tungstenite::Message::text(claim.to_string());
    futures_util::SinkExt::send(&mut socket, claim).await.unwrap();
    let told = timeout(PATIENCE, futures_util::StreamExt::next(&mut socket)).await.unwrap().unwrap().unwrap();
    assert!(told.to_text().unwrap().contains("ACTIVE"), "{told}");
    session
}

/// Ends the process as an operator would. Returns its log.
async fn end(mut child: Child) -> String {
    let id = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().await.unwrap().success());
    let mut log = String::new();
    timeout(PATIENCE, child.stderr.take().unwrap().read_to_string(&mut log)).await.unwrap().unwrap();
    assert!(timeout(PATIENCE, child.wait()).await.unwrap().unwrap().success(), "{log}");
    log
}

/// A span, as far as it matters here.
#[derive(Debug)]
struct Span {
    name: String,
    trace: Vec<u8>,
    id: Vec<u8>,
    parent: Vec<u8>,
}

/// The parts of a protobuf message that have a length, by their numbers.
fn parts(mut message: &[u8]) -> HashMap<u64, Vec<&[u8]>> {
    fn number(bytes: &mut &[u8]) -> u64 {
        let (mut number, mut shift) = (0, 0);
        while let Some((byte, rest)) = bytes.split_first() {
            *bytes = rest;
            number |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        number
    }
    let mut found: HashMap<u64, Vec<&[u8]>> = HashMap::new();
    while !message.is_empty() {
        let key = number(&mut message);
        let length = match key & 7 {
            0 => {
                number(&mut message);
                continue;
            }
            1 => 8,
            2 => usize::try_from(number(&mut message)).unwrap(),
            5 => 4,
            other => panic!("protobuf has no wire type {other}"),
        };
        let (part, rest) = message.split_at(length);
        found.entry(key >> 3).or_default().push(part);
        message = rest;
    }
    found
}

/// The spans in a request: resource spans (1), scope spans (2), spans (2) with trace (1), id (2), parent (4), name (5).
fn spans(request: &[u8]) -> Vec<Span> {
    let inner = |message: &[u8], number: u64| -> Vec<Vec<u8>> {
        parts(message).remove(&number).unwrap_or_default().into_iter().map(<[u8]>::to_vec).collect()
    };
    let scopes = inner(request, 1).into_iter().flat_map(|resource| inner(&resource, 2));
    let span = |bytes: Vec<u8>| {
        let one = |number| inner(&bytes, number).into_iter().next().unwrap_or_default();
        Span { name: String::from_utf8(one(5)).unwrap(), trace: one(1), id: one(2), parent: one(4) }
    };
    scopes.flat_map(|scope| inner(&scope, 2)).map(span).collect()
}

#[tokio::test]
async fn a_join_and_its_decision_and_commit_share_one_trace() {
    let (address, posted) = collector().await;
    let (child, relay) = relay(&address).await;
    let session = work(&relay).await;
    // Spans that have not been sent by then are sent at the end.
    let log = end(child).await;
    let bodies = posted.lock().concat();
    let says = |text: &str| bodies.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(says("gitorial-relay") && says("traced") && !says(&session), "{log}");
    let spans: Vec<Span> = posted.lock().iter().flat_map(|body| spans(body)).collect();
    let join = spans.iter().find(|span| span.name == "join").unwrap_or_else(|| panic!("{spans:?}"));
    let child_of = |parent: &Span, name: &str| {
        spans.iter().find(|span| span.name == name && span.parent == parent.id && span.trace == parent.trace).unwrap()
    };
    assert!(join.parent.is_empty());
    child_of(child_of(join, "decide"), "commit");
    // The claim is a separate decision.
    assert!(spans.iter().any(|span| span.name == "decide" && span.parent.is_empty()), "{spans:?}");
    assert!(!log.contains("collector"), "{log}");
}

#[tokio::test]
async fn a_node_without_its_collector_serves_and_logs_the_loss_once() {
    // No process listens there any more.
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (child, relay) = relay(&format!("http://{address}")).await;
    work(&relay).await;
    let began = Instant::now();
    let log = end(child).await;
    assert_eq!(log.matches("the collector does not accept spans").count(), 1, "{log}");
    assert!(began.elapsed() < PATIENCE);
}
