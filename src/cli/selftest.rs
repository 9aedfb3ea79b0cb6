//! `selftest`: checks that a frame goes from one node to another.
//!
//! A test that runs right after an installation meets names that no resolver knows yet, and network rules that do not know
//! its own address yet. Both pass by themselves, so a failed try is repeated.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::io::Write;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use gitorial_relay::ids::SessionId;
use gitorial_relay::protocol::FrameType;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tokio::net::lookup_host;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::address::Address;
use super::call::{Question, Stream, ask, connect};
use super::{ToolError, print};
use crate::config::duration;

/// How long the frame of one try may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long the look-up of a name may take.
const LOOKUP: Duration = Duration::from_secs(10);

/// How long the test waits before it tries again.
const PAUSE: Duration = Duration::from_secs(1);

/// The arguments of `selftest`.
#[derive(clap::Args)]
pub(super) struct Selftest {
    /// The address of a node, without TLS. May be given several times; a name stands for all its addresses.
    #[arg(long, value_name = "URL", required = true)]
    url: Vec<Address>,

    /// The smallest number of nodes that the test expects to find.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    nodes: usize,

    /// How long the test tries again after a failure, as in 45s; 0s tries once. A name that is not known yet, a node that
    /// is not ready, and network rules that do not know this machine yet need some time.
    #[arg(long, value_name = "DURATION", default_value = "45s", value_parser = duration)]
    retry_for: Duration,
}

/// The part of a new session that the test needs.
#[derive(Deserialize)]
struct Created {
    id: String,
}

type Socket = WebSocketStream<Box<dyn Stream>>;

impl Selftest {
    pub(super) async fn run(self) -> Result<(), ToolError> {
        let (started, mut known) = (Instant::now(), String::new());
        loop {
            let error = match self.attempt().await {
                Ok(()) => return Ok(()),
                // A wrong command line does not become right.
                Err(error @ (ToolError::Use(_) | ToolError::Setting(_) | ToolError::Machine(_))) => return Err(error),
                Err(error) => error,
            };
            if self.retry_for.is_zero() {
                return Err(error);
            }
            let (cause, left) = (error.to_string(), self.retry_for.saturating_sub(started.elapsed()));
            if left.is_zero() {
                let tried = started.elapsed().as_secs();
                return Err(ToolError::Refused(format!("gave up after {tried} s: {cause}")));
            }
            if cause != known {
                let _ = writeln!(
                    std::io::stderr(),
                    "gitorial-relay: waiting up to {} s: {cause}",
                    left.as_secs_f64().ceil()
                );
                known = cause;
            }
            sleep(PAUSE.min(left)).await;
        }
    }

    /// One try.
    async fn attempt(&self) -> Result<(), ToolError> {
        let nodes = self.addresses().await?;
        if nodes.len() < self.nodes {
            let (found, wanted) = (nodes.len(), self.nodes);
            return Err(ToolError::Refused(format!("{found} of {wanted} nodes have an address; wait for the others")));
        }
        let Some(first) = nodes.first() else { return Err(ToolError::Use("give --url".to_owned())) };
        let last = nodes.last().unwrap_or(first);
        let session = create(first).await?;
        let relayed = timeout(PATIENCE, relay(first, last, session)).await;
        // The session is deleted in every case. If that fails, it ends by itself.
        let path = path(session);
        let _ = ask(first, Question { method: Method::DELETE, path: &path, ..Question::default() }).await;
        let took =
            relayed.map_err(|_| ToolError::Refused(format!("no frame came from {first} to {last} in time")))??;
        print(&format!("a frame went from {first} to {last} in {:.1} ms", took.as_secs_f64() * 1_000.0));
        Ok(())
    }

    /// All addresses of all nodes, without duplicates.
    async fn addresses(&self) -> Result<Vec<Address>, ToolError> {
        let mut found = BTreeSet::new();
        for url in &self.url {
            if url.tls {
                return Err(ToolError::Use(format!("{url} uses TLS; pass the addresses of the nodes themselves")));
            }
            let resolved = timeout(LOOKUP, lookup_host((url.host.as_str(), url.port))).await;
            let unknown = |why: &dyn Display| ToolError::Refused(format!("{url} cannot be resolved: {why}"));
            let resolved = resolved.map_err(|_| unknown(&"the name server does not answer"))?;
            let addresses = resolved.map_err(|error| unknown(&error))?;
            found.extend(addresses);
        }
        found.into_iter().map(|address| format!("http://{address}").parse().map_err(ToolError::Use)).collect()
    }
}

fn path(session: SessionId) -> String {
    format!("/api/sessions/{}", session.reveal())
}

async fn create(node: &Address) -> Result<SessionId, ToolError> {
    let body = Some(json!({ "metadata": { "selftest": true }, "expiresIn": 60_000 }).to_string());
    let question = Question { method: Method::POST, path: "/api/sessions", body, ..Question::default() };
    let (status, answer) = ask(node, question).await?;
    let id = serde_json::from_slice(&answer).ok().and_then(|Created { id }| SessionId::parse(&id));
    id.filter(|_| status == StatusCode::CREATED)
        .ok_or_else(|| ToolError::Refused(format!("{node} did not create a session: it answered {status}")))
}

/// Joins on both nodes, sends a state on the first one, and waits for it on the last one. Returns how long that took.
async fn relay(first: &Address, last: &Address, session: SessionId) -> Result<Duration, ToolError> {
    let mut sender = join(first, session).await?;
    let mut receiver = join(last, session).await?;
    let met = FrameType::ClientConnected;
    tokio::try_join!(hear(&mut sender, first, met), hear(&mut receiver, last, met))?;
    let state = json!({
        "type": "state_update", "clientId": "client_selftest", "data": { "selftest": true },
        "timestamp": 0, "protocol_version": 1,
    });
    let sent = Instant::now();
    sender.send(Message::text(state.to_string())).await.map_err(|_| lost(first))?;
    hear(&mut receiver, last, FrameType::StateUpdate).await?;
    Ok(sent.elapsed())
}

async fn join(node: &Address, session: SessionId) -> Result<Socket, ToolError> {
    let stream = connect(node).await?;
    let path = format!("/ws?session={}", session.reveal());
    let opened = client_async(node.websocket(&path), stream).await;
    // The library's error text may contain the address, and so the session's id.
    opened.map(|(socket, _)| socket).map_err(|_| ToolError::Refused(format!("{node} did not open a WebSocket")))
}

async fn hear(socket: &mut Socket, node: &Address, kind: FrameType) -> Result<(), ToolError> {
    let marked = format!("\"type\":\"{}\"", kind.wire());
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) if text.as_str().contains(&marked) => return Ok(()),
            Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(lost(node)),
            Some(Ok(_)) => {}
        }
    }
}

fn lost(node: &Address) -> ToolError {
    ToolError::Refused(format!("{node} closed the connection"))
}
