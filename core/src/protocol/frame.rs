//! Frames: the envelope is read, the payload stays bytes (docs/protocol.md, "Frames").

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

/// The deepest nesting of objects and arrays that is passed on: some JSON readers of peers give up not far above.
const MAX_DEPTH: usize = 128;

/// Which way a frame goes, seen from the relay.
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
        /// Every type of frame that the protocol names. Exhaustive on purpose: a new type is decided on everywhere.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum FrameType {
            $($(#[$doc])* $name,)*
            /// A type that the protocol does not name; passed on untouched.
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

            /// Its name on the wire; `unknown` for the others.
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
    /// Announces the client's protocol version; optional.
    ProtocolHandshake = "protocol_handshake",
    /// The relay's answer to it.
    ProtocolAck = "protocol_ack",
    /// Asks the relay whether it is there; optional.
    ProtocolPing = "protocol_ping",
    /// The relay's answer to it.
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
    /// Asks for the state.
    RequestSync = "request_sync",
    /// Asks for control.
    RequestControl = "request_control",
    /// Offers control.
    OfferControl = "offer_control",
    /// Accepts an offer or a request, or takes control.
    AcceptControl = "accept_control",
    /// Declines an offer or a request.
    DeclineControl = "decline_control",
    /// The relay: "you are ACTIVE now". A client: "I know that I am not".
    ConfirmTransfer = "confirm_transfer",
    /// Gives control up.
    ReleaseControl = "release_control",
    /// Announces a role.
    RoleChanged = "role_changed",
    /// The relay refused one frame.
    Rejected = "rejected",
    /// Never sent by this relay, and never passed on.
    Error = "error",
}

/// A client's text frame: its envelope, read once, and the bytes it came in.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The whole frame as it was sent.
    pub text: Bytes,
    /// Its type.
    pub kind: FrameType,
    /// `clientId`, if it has one.
    pub client_id: Option<String>,
    /// `epoch`, if it has one (only clients that have done the handshake send it).
    pub epoch: Option<Epoch>,
    /// `protocol_version`, if it has one.
    pub protocol_version: Option<u64>,
    /// Where `data` stands in `text`; empty if it has none.
    data: std::ops::Range<usize>,
}

/// Why a text cannot be a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It is no JSON object with a string `type`.
    #[error("not a JSON object with a string type")]
    NotAFrame,
    /// It nests too deeply.
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
}

impl Malformed {
    /// The code that its sender is refused with.
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

/// What the relay reads of the payload of a role frame; every member may be missing.
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
    /// Reads the envelope of a text frame. The text has to be UTF-8.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if a peer could not read it as a frame.
    pub fn parse(text: Bytes) -> Result<Self, Malformed> {
        if nests_too_deep(&text) {
            return Err(Malformed::TooDeep);
        }
        let envelope: Envelope<'_> = serde_json::from_slice(&text).map_err(|_| Malformed::NotAFrame)?;
        // A struct can be read from an array too, and a peer expects an object.
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
        Ok(Self { kind, client_id, epoch, protocol_version, data, text })
    }

    /// The payload as it was written; empty if there is none.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.text[self.data.clone()]
    }

    /// The members of the payload that decide about roles; none if it has another shape.
    #[must_use]
    pub fn role_data(&self) -> RoleData {
        serde_json::from_slice(self.data()).unwrap_or_default()
    }

    /// A hash of the payload that tells two states apart.
    #[must_use]
    pub fn data_hash(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(self.data())
    }
}

/// Whether objects and arrays nest deeper than [`MAX_DEPTH`]. Brackets inside strings do not count.
fn nests_too_deep(text: &[u8]) -> bool {
    // Too few brackets for it: true of nearly every frame, and found without following the strings.
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

/// The members of a frame's envelope in their order, each value as it was written.
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

/// The frames that the relay writes itself, and the changes it makes to those it passes on.
pub mod outgoing {
    use super::*;

    /// `frame` with the given members of its envelope set and all others byte for byte as they were.
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

    /// A frame of the relay's own. `client` is the `clientId` it carries, `data` its payload, if it has one.
    #[must_use]
    pub fn frame(kind: FrameType, client: &str, data: Option<serde_json::Value>, now: Millis) -> Bytes {
        numbered(kind, client, data, now, None)
    }

    /// As [`frame`], with the epoch that a client which has done the handshake is told.
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

    /// `rejected`: the refusal of one frame.
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
