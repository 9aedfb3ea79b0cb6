//! Embeds the relay in another axum application. The application has its own routes and decides who gets a session; the
//! relay serves the sockets.
//!
//! `cargo run --example embed`, then:
//!
//! ```text
//! curl -s -X POST http://127.0.0.1:3000/lessons/react-basics     # the application decides who gets a session
//! websocat 'ws://127.0.0.1:3000/ws?session=<the id>'             # the relay serves it
//! curl -s http://127.0.0.1:3000/stats
//! ```
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use axum::extract::{Path, State, WebSocketUpgrade};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use gitorial_relay::connection::{self, UpgradeRequest};
use gitorial_relay::ids::SessionId;
use gitorial_relay::protocol::SessionData;
use gitorial_relay::relay::{NewSession, Relay};
use gitorial_relay::{Node, NodeSettings};
use serde::Deserialize;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let node = Node::start(NodeSettings::default()).await?;

    // Events of all sessions, for example for a dashboard or an audit log.
    let mut events = node.relay().events();
    tokio::spawn(async move {
        while let Ok(event) = events.recv().await {
            println!("{event:?}");
        }
    });

    let app = Router::new()
        .route("/lessons/{lesson}", post(begin))
        .route("/lessons/sessions/{id}", get(show).delete(end))
        .route("/stats", get(stats))
        .route("/ws", get(open))
        .with_state(node.relay().clone());
    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app)
        .with_graceful_shutdown(async {
            // If the signal cannot be awaited, the future ends and the server shuts down.
            let _ = tokio::signal::ctrl_c().await;
        })
        .await?;
    node.stop(Duration::from_secs(10)).await;
    Ok(())
}

/// Creates a session by the application's own rule: a session belongs to a lesson and lives for an hour.
async fn begin(State(relay): State<Relay>, Path(lesson): Path<String>) -> Result<Json<SessionData>, StatusCode> {
    let metadata = serde_json::value::to_raw_value(&serde_json::json!({ "lesson": lesson }));
    let metadata = metadata.map_err(|_| StatusCode::BAD_REQUEST)?;
    let new = NewSession {
        metadata: Some(metadata.into()),
        expires_in: Some(Duration::from_secs(60 * 60)),
        ..NewSession::default()
    };
    relay.create_session(new).await.map(Json).map_err(|_| StatusCode::SERVICE_UNAVAILABLE)
}

async fn show(State(relay): State<Relay>, Path(id): Path<String>) -> Result<Json<SessionData>, StatusCode> {
    let id = SessionId::parse(&id).ok_or(StatusCode::NOT_FOUND)?;
    let session = relay.session(id).await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    session.map(Json).ok_or(StatusCode::NOT_FOUND)
}

async fn end(State(relay): State<Relay>, Path(id): Path<String>) -> StatusCode {
    let Some(id) = SessionId::parse(&id) else { return StatusCode::NOT_FOUND };
    match relay.delete_session(id).await {
        Ok(true) => StatusCode::NO_CONTENT,
        Ok(false) => StatusCode::NOT_FOUND,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn stats(State(relay): State<Relay>) -> Json<serde_json::Value> {
    let stats = relay.stats();
    Json(serde_json::json!({ "connections": stats.connections, "sessions": stats.sessions }))
}

#[derive(Deserialize)]
struct Ask {
    session: String,
}

/// Upgrades a socket and hands it to the relay, which serves it until it closes.
async fn open(
    State(relay): State<Relay>,
    axum::extract::Query(ask): axum::extract::Query<Ask>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let session = SessionId::parse(&ask.session);
    let request = UpgradeRequest { session, session_given: true, client: None, resume: None, origin_allowed: true };
    upgrade.on_upgrade(move |socket| connection::serve(socket, relay, request))
}
