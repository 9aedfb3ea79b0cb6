//! The names of things in the model, and the frames of its clients.

use std::sync::OnceLock;

use gitorial_relay::ids::{ClientId, ConnectionId, Millis, NodeId};
use gitorial_relay::protocol::Frame;
use gitorial_relay::session::Session;
use serde_json::{Value, json};

use super::scene::Wish;

/// The nodes' clocks at the first tick. Their origin has no meaning.
const BEGIN: Millis = 100_000;

/// The socket of this client: the first, or the one on which it came back.
pub fn socket(client: u8, again: u8) -> ConnectionId {
    ConnectionId::from_number(u128::from(client + 1 + again * 16) << 96)
}

pub fn node_id(index: usize) -> &'static NodeId {
    static NODES: OnceLock<[NodeId; 3]> = OnceLock::new();
    &NODES.get_or_init(|| ["a@0", "b@0", "c@0"].map(NodeId::from_text))[index]
}

pub fn name(client: u8) -> ClientId {
    ClientId::parse(&format!("client_{client}")).unwrap()
}

/// A tick of the model is a millisecond of the rules.
pub fn millis(tick: u8) -> Millis {
    Millis::from(tick)
}

/// A tick on the clock of every node.
pub fn local(tick: u8) -> Millis {
    BEGIN + millis(tick)
}

/// A frame of a client, without a name in its envelope.
pub fn frame(kind: &str, data: &Value) -> Frame {
    Frame::parse(json!({ "type": kind, "data": data }).to_string().into()).unwrap()
}

/// A state with a content of its own.
pub fn state(number: u8) -> Frame {
    frame("state_update", &json!({ "number": number }))
}

/// The answer of a client without the handshake to an `accept_control`.
pub fn confirmation() -> Frame {
    static FRAME: OnceLock<Frame> = OnceLock::new();
    FRAME.get_or_init(|| frame("confirm_transfer", &json!({}))).clone()
}

/// The frame that a client sends for a wish, if its node shows it this document. `modern`: it has done the handshake.
pub fn asks_for(wish: Wish, modern: bool, seen: &Session, number: u8) -> Frame {
    let controller = seen.core.controller.as_ref().map(|controller| controller.client.as_str());
    let accepts = |from: Option<&str>| frame("accept_control", &json!({ "fromClientId": from }));
    match wish {
        Wish::Take if !modern => state(number),
        Wish::Take if controller.is_some() => accepts(controller),
        Wish::Take | Wish::Ask => frame("coordinate_sync_direction", &json!({ "preferredDirection": "ACTIVE" })),
        Wish::Grant => accepts(seen.core.requests.first().map(|request| request.client.as_str())),
        Wish::Release => frame("release_control", &json!({})),
    }
}
