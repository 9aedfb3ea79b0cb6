//! A tour of the protocol: an editor and a website stay on the same step, and control moves from one to the other.
//!
//! `cargo run --example tour -- http://127.0.0.1:8080`, or with two addresses to connect the two sides to two nodes.
//! The tour prints every frame that goes over the wire.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// One side of the session. It acts as an existing client does.
struct Side {
    name: &'static str,
    id: &'static str,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Side {
    async fn join(name: &'static str, id: &'static str, http: &str, session: &str) -> Result<Self> {
        let url = format!("{}/ws?session={session}", http.replacen("http", "ws", 1));
        let (socket, _) = connect_async(&url).await.with_context(|| format!("{name} cannot connect to {http}"))?;
        println!("{name:>8} joins at {http}");
        Ok(Self { name, id, socket })
    }

    async fn say(&mut self, kind: &str, data: Value) -> Result<()> {
        let frame = json!({ "type": kind, "clientId": self.id, "data": data, "timestamp": 0, "protocol_version": 1 });
        println!("{:>8} --> {kind} {data}", self.name);
        Ok(self.socket.send(Message::text(frame.to_string())).await?)
    }

    /// Reads until a frame of this type comes. A side that loses control acknowledges the loss, as existing clients do.
    async fn hear(&mut self, wanted: &str) -> Result<Value> {
        loop {
            let next = timeout(Duration::from_secs(10), self.socket.next());
            let Some(message) = next.await.with_context(|| format!("{} waits for {wanted}", self.name))? else {
                bail!("{} was disconnected", self.name);
            };
            let Message::Text(text) = message? else { continue };
            let frame: Value = serde_json::from_str(&text)?;
            let kind = frame["type"].as_str().unwrap_or_default();
            println!("{:>8} <-- {kind} {}", self.name, frame["data"]);
            if kind == "accept_control" {
                self.say("confirm_transfer", json!({ "toClientId": frame["clientId"] })).await?;
            }
            if kind == wanted {
                return Ok(frame);
            }
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut addresses = std::env::args().skip(1);
    let first = addresses.next().unwrap_or_else(|| "http://127.0.0.1:8080".to_owned());
    let second = addresses.next().unwrap_or_else(|| first.clone());

    let created = reqwest::Client::new().post(format!("{first}/api/sessions")).body("{}").send().await;
    let created: Value =
        created.with_context(|| format!("no relay at {first}: start one with `make run`"))?.json().await?;
    let session = created["id"].as_str().context("the relay answers with a session")?;
    println!("session created, it expires at {}", created["expiresAt"]);

    let mut editor = Side::join("editor", "client_editor", &first, session).await?;
    let mut website = Side::join("website", "client_website", &second, session).await?;
    editor.hear("client_connected").await?;

    println!("\nThe editor asks to drive, the website to follow.");
    editor.say("coordinate_sync_direction", json!({ "preferredDirection": "ACTIVE", "reason": "tour" })).await?;
    editor.hear("confirm_transfer").await?;
    website.say("coordinate_sync_direction", json!({ "preferredDirection": "PASSIVE", "reason": "tour" })).await?;
    website.hear("assign_sync_direction").await?;

    println!("\nThe editor moves to step 5, and the website follows.");
    editor.say("state_update", json!({ "tutorialId": "react-basics", "stepContent": { "index": 4 } })).await?;
    website.hear("state_update").await?;

    println!("\nThe editor offers control, the website accepts: it drives now.");
    editor.say("offer_control", json!({ "metadata": { "fromClientId": editor.id } })).await?;
    website.hear("offer_control").await?;
    website.say("accept_control", json!({ "fromClientId": editor.id })).await?;
    editor.hear("accept_control").await?;
    website.hear("confirm_transfer").await?;
    website.say("state_update", json!({ "tutorialId": "react-basics", "stepContent": { "index": 5 } })).await?;
    editor.hear("state_update").await?;

    let seen = reqwest::get(format!("{second}/api/sessions/{session}")).await?.json::<Value>().await?;
    println!("\n{} clients, driven by {}. That was the tour.", seen["clientCount"], seen["activeClientId"]);
    Ok(())
}
