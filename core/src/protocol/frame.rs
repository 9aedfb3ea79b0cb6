//! Frames: the relay parses the envelope and keeps the payload as bytes (docs/protocol.md, "Frames").

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::ErrorCode;
use crate::ids::{Epoch, Millis};

/// The version of the protocol that this relay speaks.
pub const PROTOCOL_VERSION: u64 = 1;

/// The `clientId` of frames that the relay sends in its own name.
pub const RELAY_CLIENT_ID: &str = "relay-server";

/// The deepest nesting of objects and arrays that is passed on. Some JSON parsers of peers fail not far above it.
const MAX_DEPTH: usize = 128;

/// The direction of a frame, seen from the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flow {
    /// From a client.
    In,
    /// To a client.
    Out,
}

impl Flow {
    /// The value of the `direction` label in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

macro_rules! frame_types {
    ($($(#[$doc:meta])* $name:ident = $wire:literal,)*) => {
        /// All types of frames that the protocol names. Every `match` on it lists all types, so that the compiler finds
        /// each place where a new type needs a decision.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum FrameType {
            $($(#[$doc])* $name,)*
            /// A type that the protocol does not name. The relay forwards it untouched.
            Unknown,
        }

        impl FrameType {
            /// Every type, `Unknown` last.
            pub const ALL: &'static [Self] = &[$(Self::$name,)* Self::Unknown];

            /// The type named `wire` on the wire.
            #[must_use]
            pub fn from_wire(wire: &str) -> Self {
                match wire {
                    $($wire => Self::$name,)*
                    _ => Self::Unknown,
                }
            }

            /// The name on the wire; `unknown` for a type that the protocol does not name.
            #[must_use]
            pub const fn wire(self) -> &'static str {
                match self {
                    $(Self::$name => $wire,)*
                    Self::Unknown => "unknown",
                }
            }
        }
    };
}

frame_types! {
    /// A client announces its protocol version; optional.
    ProtocolHandshake = "protocol_handshake",
    /// The relay answers `protocol_handshake`.
    ProtocolAck = "protocol_ack",
    /// A client asks whether the relay is there; optional.
    ProtocolPing = "protocol_ping",
    /// The relay answers `protocol_ping`.
    ProtocolPong = "protocol_pong",
    /// A client joined.
    ClientConnected = "client_connected",
    /// A client left.
    ClientDisconnected = "client_disconnected",
    /// A client asks for a role.
    CoordinateSyncDirection = "coordinate_sync_direction",
    /// The relay tells a client its role.
    AssignSyncDirection = "assign_sync_direction",
    /// The tutorial's state.
    StateUpdate = "state_update",
    /// A client, or the relay, asks for the state.
    RequestSync = "request_sync",
    /// A client asks for control.
    RequestControl = "request_control",
    /// The controller offers control.
    OfferControl = "offer_control",
    /// A client accepts an offer or a request, or takes control.
    AcceptControl = "accept_control",
    /// A client declines an offer or a request.
    DeclineControl = "decline_control",
    /// From the relay: the receiver is the controller. From a client: it knows that it is not the controller.
    ConfirmTransfer = "confirm_transfer",
    /// The controller gives control up.
    ReleaseControl = "release_control",
    /// The relay announces a client's new role. From a client: an announcement without effect.
    RoleChanged = "role_changed",
    /// The relay refused one frame.
    Rejected = "rejected",
    /// A reserved type: never sent by the relay, and never forwarded.
    Error = "error",
}

/// A client's text frame: its bytes, and its envelope, which is parsed once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    /// The whole frame as it was sent.
    pub text: Bytes,
    /// Its type.
    pub kind: FrameType,
    /// `clientId`, if it has one.
    pub client_id: Option<String>,
    /// `epoch`, if it has one. Only clients that have done the handshake send it.
    pub epoch: Option<Epoch>,
    /// `protocol_version`, if it has one.
    pub protocol_version: Option<u64>,
    /// The byte range of `data` in `text`; empty if it has none.
    data: std::ops::Range<usize>,
    /// The hash of `data` if the frame is a state, else zero.
    state_hash: u64,
}

/// The reason why a text is not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The text is not a JSON object with a string `type`, or a member of the envelope is wrong.
    #[error("not a JSON object with a string type")]
    NotAFrame,
    /// Objects and arrays nest deeper than 128 levels.
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
}

impl Malformed {
    /// The code of the refusal.
    #[must_use]
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::NotAFrame => ErrorCode::MalformedFrame,
            Self::TooDeep => ErrorCode::NestedTooDeep,
        }
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default, rename = "clientId")]
    client_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    epoch: Option<Epoch>,
    #[serde(default)]
    protocol_version: Option<u64>,
}

/// The members of a role frame's payload that affect roles. Each of them may be missing.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct RoleData {
    /// `preferredDirection` of a `coordinate_sync_direction`.
    #[serde(rename = "preferredDirection")]
    pub preferred_direction: Option<String>,
    /// `fromClientId` of an `accept_control` or `decline_control`.
    #[serde(rename = "fromClientId")]
    pub from_client_id: Option<String>,
}

impl Frame {
    /// Parses the envelope of a text frame. The text must be UTF-8. The payload is not parsed.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if the text is not a frame that peers can parse.
    pub fn parse(text: Bytes) -> Result<Self, Malformed> {
        if nests_too_deep(&text) {
            return Err(Malformed::TooDeep);
        }
        let envelope: Envelope<'_> = serde_json::from_slice(&text).map_err(|_| Malformed::NotAFrame)?;
        // serde accepts an array for a struct, but a peer expects an object.
        if text.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
            return Err(Malformed::NotAFrame);
        }
        let kind = FrameType::from_wire(&envelope.kind);
        let client_id = envelope.client_id.map(Cow::into_owned);
        let data = envelope.data.map_or(0..0, |data| {
            let start = data.get().as_ptr() as usize - text.as_ptr() as usize;
            start..start + data.get().len()
        });
        let (epoch, protocol_version) = (envelope.epoch, envelope.protocol_version);
        let is_state = kind == FrameType::StateUpdate;
        let state_hash = if is_state { xxhash_rust::xxh3::xxh3_64(&text[data.clone()]) } else { 0 };
        Ok(Self { kind, client_id, epoch, protocol_version, data, state_hash, text })
    }

    /// The bytes of the payload as the client wrote them; empty if there is no payload.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.text[self.data.clone()]
    }

    /// The members of the payload that affect roles; all of them `None` if the payload has another shape.
    #[must_use]
    pub fn role_data(&self) -> RoleData {
        serde_json::from_slice(self.data()).unwrap_or_default()
    }

    /// A hash of a state's payload, by which states are compared; zero for all other frames. It is fast and not
    /// cryptographic.
    #[must_use]
    pub const fn data_hash(&self) -> u64 {
        self.state_hash
    }
}

/// Whether objects and arrays nest deeper than [`MAX_DEPTH`]. Brackets inside strings do not count.
fn nests_too_deep(text: &[u8]) -> bool {
    // Nearly every frame has too few brackets to nest so deeply. Counting them is cheap, and needs no parsing of
    // strings.
    if memchr::memchr2_iter(b'{', b'[', text).nth(MAX_DEPTH).is_none() {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return true;
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// The members of a frame's envelope in their order, each value as the client wrote it.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry::<Cow<'de, str>, &'de RawValue>()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// The frames that the relay writes itself, and the members that it sets in the frames that it forwards.
pub mod outgoing {
    use super::*;

    /// `frame` with the members `set` of its envelope replaced or added at the end. All other values stay byte for
    /// byte. A text that is not a JSON object is returned as it is.
    #[must_use]
    pub fn with_members(frame: &Bytes, set: &[(&str, serde_json::Value)]) -> Bytes {
        let Ok(Members(members)) = serde_json::from_slice::<Members<'_>>(frame) else {
            return frame.clone();
        };
        let mut text = String::with_capacity(frame.len() + 48);
        let kept = members.iter().filter(|(name, _)| set.iter().all(|(other, _)| other != name));
        let kept = kept.map(|(name, value)| (name.as_ref(), value.get().to_owned()));
        let added = set.iter().map(|(name, value)| (*name, value.to_string()));
        for (name, value) in kept.chain(added) {
            text.push(if text.is_empty() { '{' } else { ',' });
            text.push_str(&serde_json::Value::from(name).to_string());
            text.push(':');
            text.push_str(&value);
        }
        text.push('}');
        text.into()
    }

    /// A frame of the relay, without an epoch. `client` becomes its `clientId`, `data` its payload, `now` its
    /// `timestamp` in milliseconds.
    #[must_use]
    pub fn frame(kind: FrameType, client: &str, data: Option<serde_json::Value>, now: Millis) -> Bytes {
        numbered(kind, client, data, now, None)
    }

    /// A frame of the relay as [`frame`] makes it, with the epoch that clients with the handshake get.
    #[must_use]
    pub fn numbered(
        kind: FrameType,
        client: &str,
        data: Option<serde_json::Value>,
        now: Millis,
        epoch: Option<Epoch>,
    ) -> Bytes {
        #[derive(Serialize)]
        struct Out<'a> {
            #[serde(rename = "type")]
            kind: &'a str,
            #[serde(rename = "clientId")]
            client: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            data: Option<serde_json::Value>,
            timestamp: Millis,
            protocol_version: u64,
            #[serde(skip_serializing_if = "Option::is_none")]
            epoch: Option<Epoch>,
        }
        let protocol_version = PROTOCOL_VERSION;
        let out = Out { kind: kind.wire(), client, data, timestamp: now, protocol_version, epoch };
        serde_json::to_vec(&out).map(Bytes::from).unwrap_or_default()
    }

    /// `rejected`: the refusal of one frame of the type `of` (docs/protocol.md, "Refusals").
    #[must_use]
    pub fn rejected(code: ErrorCode, of: &str, now: Millis) -> Bytes {
        let data = serde_json::json!({ "code": code.code(), "message": code.message(), "type": of });
        frame(FrameType::Rejected, RELAY_CLIENT_ID, Some(data), now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Frame, Malformed> {
        Frame::parse(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn the_payload_is_found_without_being_read() {
        let frame = parse(r#"{"type":"state_update","x":[1, 2],"data":{ "a" : 1 },"clientId":"c"}"#).unwrap();
        assert_eq!(frame.kind, FrameType::StateUpdate);
        assert_eq!(frame.client_id.as_deref(), Some("c"));
        assert_eq!(frame.data(), br#"{ "a" : 1 }"#);
    }

    #[test]
    fn what_a_peer_could_not_read_as_a_frame_is_malformed() {
        for text in ["", "hello", "[]", "null", "{}", r#"{"type":1}"#, r#"["state_update"]"#, r#"{"type":"a"} x"#] {
            assert_eq!(parse(text).unwrap_err(), Malformed::NotAFrame, "{text}");
        }
        assert_eq!(parse(r#"{"type":"a","type":"b"}"#).unwrap_err(), Malformed::NotAFrame);
    }

    #[test]
    fn nesting_is_bounded_and_brackets_in_strings_do_not_count() {
        let nested = |depth| format!(r#"{{"type":"x","data":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
        assert!(parse(&nested(MAX_DEPTH - 1)).is_ok());
        assert_eq!(parse(&nested(MAX_DEPTH)).unwrap_err(), Malformed::TooDeep);
        assert!(parse(&format!(r#"{{"type":"x","data":"\"{}"}}"#, "[".repeat(1000))).is_ok());
    }

    #[test]
    fn setting_a_member_leaves_the_others_as_they_were_written() {
        let frame = Bytes::from_static(br#"{"type":"x", "data":{"a" : 1.00},"epoch":1,"more":"\u0041"}"#);
        let set = outgoing::with_members(&frame, &[("epoch", 2.into()), ("seq", 7.into())]);
        assert_eq!(set, r#"{"type":"x","data":{"a" : 1.00},"more":"\u0041","epoch":2,"seq":7}"#);
    }

    #[test]
    fn every_type_is_named_as_on_the_wire() {
        for kind in FrameType::ALL.iter().filter(|kind| **kind != FrameType::Unknown) {
            assert_eq!(FrameType::from_wire(kind.wire()), *kind);
        }
        assert_eq!(FrameType::from_wire("cursor_moved"), FrameType::Unknown);
    }
}
