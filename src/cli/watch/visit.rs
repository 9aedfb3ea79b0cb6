//! One socket of a watcher, from its handshake to its end.

use std::time::Duration;

use crate::listen::Shutdown;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use gitorial_relay::ids::SessionId;
use gitorial_relay::protocol::{CloseReason, Frame, FrameType, PROTOCOL_VERSION};
use serde::Deserialize;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::Report;
use super::line::Event;
use crate::cli::address::Address;
use crate::cli::call::{Stream, connect};

/// The watcher pings a node that was silent for this long.
const QUIET: Duration = Duration::from_secs(15);

/// How long an upgrade, a pong, or a close may take.
const PATIENCE: Duration = Duration::from_secs(5);

type Socket = WebSocketStream<Box<dyn Stream>>;

/// The watcher's place in its session, over all its sockets.
pub(super) struct Place {
    session: SessionId,
    client: String,
    resume: Option<String>,
}

/// How a visit ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The watcher was stopped.
    Stopped,
    /// The session does not exist, or no longer exists.
    Over(&'static str),
    /// The relay refused the watcher.
    Refused(&'static str),
    /// The connection was lost for another reason: the watcher may come back.
    Lost(String),
}

/// The relay's answer to a handshake.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ack {
    client_id: String,
    resume: String,
    resumed: bool,
}

impl Place {
    /// Creates a place in this session without an identity.
    pub(super) fn new(session: SessionId) -> Self {
        Self { session, client: format!("watch-{:08x}", rand::random::<u32>()), resume: None }
    }

    /// Whether the watcher has ever joined.
    pub(super) fn has_been_in(&self) -> bool {
        self.resume.is_some()
    }

    fn path(&self) -> String {
        let path = format!("/ws?session={}&client={}", self.session.reveal(), escaped(&self.client));
        match &self.resume {
            Some(token) => format!("{path}&resume={}", escaped(token)),
            None => path,
        }
    }
}

/// Joins at this address and reports the events, until the socket ends.
pub(super) async fn visit(address: &Address, place: &mut Place, report: &Report, stop: &Shutdown) -> Ended {
    let opened = tokio::select! {
        opened = open(address, place) => opened,
        () = stop.requested() => return Ended::Stopped,
    };
    let mut socket = match opened {
        Ok(socket) => socket,
        Err(why) => return Ended::Lost(why),
    };
    let handshake = serde_json::json!({ "type": "protocol_handshake", "protocol_version": PROTOCOL_VERSION });
    if socket.send(Message::text(handshake.to_string())).await.is_err() {
        return Ended::Lost("the socket broke".to_owned());
    }
    let (mut patience, mut asked) = (Instant::now() + QUIET, false);
    loop {
        let message = tokio::select! {
            message = socket.next() => message,
            () = stop.requested() => {
                goodbye(socket).await;
                return Ended::Stopped;
            }
            () = sleep_until(patience) => {
                let ping = Message::text(r#"{"type":"protocol_ping"}"#);
                if asked || socket.send(ping).await.is_err() {
                    return Ended::Lost("the node does not answer".to_owned());
                }
                (patience, asked) = (Instant::now() + PATIENCE, true);
                continue;
            }
        };
        (patience, asked) = (Instant::now() + QUIET, false);
        match message {
            Some(Ok(Message::Text(text))) => hear(text.as_str(), place, report),
            Some(Ok(Message::Close(frame))) => return closed(frame),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Ended::Lost("the socket broke".to_owned()),
        }
    }
}

async fn open(address: &Address, place: &Place) -> Result<Socket, String> {
    let stream = connect(address).await.map_err(|error| error.to_string())?;
    let upgraded = timeout(PATIENCE, client_async(address.websocket(&place.path()), stream)).await;
    match upgraded {
        Ok(Ok((socket, _))) => Ok(socket),
        // The library's text for other errors may contain the address, and so the session's id.
        Ok(Err(Error::Http(answer))) => Err(format!("{address} answered {}, not with a WebSocket", answer.status())),
        Ok(Err(_)) => Err(format!("{address} did not open a WebSocket")),
        Err(_) => Err(format!("{address} does not open a WebSocket within {} s", PATIENCE.as_secs())),
    }
}

fn hear(text: &str, place: &mut Place, report: &Report) {
    let Ok(frame) = Frame::parse(Bytes::copy_from_slice(text.as_bytes())) else { return };
    if frame.kind != FrameType::ProtocolAck {
        return Event::of(&frame, &place.client).iter().for_each(|event| report.say(event));
    }
    // A frame that is refused is followed by a close with the reason.
    let Ok(Ack { client_id, resume, resumed }) = serde_json::from_str(text) else { return };
    (place.client, place.resume) = (client_id.clone(), Some(resume));
    report.say(&Event::Watching { client: client_id, resumed });
}

/// The meaning of a close for a client (docs/protocol.md, "Close codes").
fn closed(frame: Option<CloseFrame>) -> Ended {
    let Some(CloseFrame { code, reason }) = frame else { return Ended::Lost("the socket was closed".to_owned()) };
    let code = u16::from(code);
    let known = CloseReason::ALL.into_iter().find(|known| known.code() == code && known.text() == reason.as_str());
    let Some(known) = known else { return Ended::Lost(format!("the socket was closed with {code}")) };
    match known {
        CloseReason::SessionNotFound | CloseReason::SessionExpired | CloseReason::SessionDeleted => {
            Ended::Over(known.text())
        }
        CloseReason::SessionIdRequired
        | CloseReason::SessionFull
        | CloseReason::Evicted
        | CloseReason::UnsupportedVersion
        | CloseReason::OriginNotAllowed => Ended::Refused(known.text()),
        CloseReason::FrameTooBig
        | CloseReason::Silent
        | CloseReason::Drain
        | CloseReason::SlowReader
        | CloseReason::Overloaded
        | CloseReason::StoreUnavailable
        | CloseReason::Internal => Ended::Lost(known.text().to_owned()),
    }
}

/// Leaves the session, so that the watcher's place is not kept.
async fn goodbye(mut socket: Socket) {
    let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    let _ = timeout(PATIENCE, async {
        if socket.close(Some(frame)).await.is_ok() {
            while let Some(Ok(_)) = socket.next().await {}
        }
    })
    .await;
}

/// Escapes text for a query.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gitorial_relay::random::Random;

    fn close(reason: CloseReason) -> Ended {
        closed(Some(CloseFrame { code: CloseCode::from(reason.code()), reason: reason.text().into() }))
    }

    #[test]
    fn an_ended_session_ends_the_watch_and_a_drain_does_not() {
        assert!(matches!(close(CloseReason::SessionDeleted), Ended::Over("Session deleted")));
        assert!(matches!(close(CloseReason::SessionFull), Ended::Refused(_)));
        assert!(matches!(close(CloseReason::Drain), Ended::Lost(_)));
        assert!(matches!(closed(None), Ended::Lost(_)));
        let strange = CloseFrame { code: CloseCode::from(1008), reason: "\u{1b}[2J".into() };
        assert!(matches!(closed(Some(strange)), Ended::Lost(why) if why == "the socket was closed with 1008"));
    }

    #[test]
    fn a_returning_watcher_sends_its_token() {
        let mut place = Place::new(SessionId::random());
        assert!(!place.path().contains("resume") && !place.has_been_in());
        place.resume = Some("a+b".to_owned());
        assert!(place.path().ends_with("&resume=a%2Bb") && place.has_been_in());
    }
}
