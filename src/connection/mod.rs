//! One WebSocket: its loop, its heartbeat and its end.

mod writer;

use std::error::Error as _;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};

use crate::hub::Socket;
use crate::ids::{ClientId, ResumeToken, SessionId};
use crate::metrics::JoinKind;
use crate::protocol::CloseReason;
use crate::relay::{JoinRequest, Relay};

use writer::Writer;

/// How long a client has to answer a close before its socket is dropped.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How soon a silent socket is checked again while its last frame is still being decided.
const BUSY_BEAT: Duration = Duration::from_secs(1);

/// The values that a client sent when it opened its socket.
#[derive(Clone, Debug)]
pub struct UpgradeRequest {
    /// The session, if it is a valid id.
    pub session: Option<SessionId>,
    /// Whether a session was named.
    pub session_given: bool,
    /// The client's own id.
    pub client: Option<ClientId>,
    /// The token that the client resumes with.
    pub resume: Option<ResumeToken>,
    /// Whether the page's origin may use the relay.
    pub origin_allowed: bool,
}

/// How a connection ended.
#[derive(Debug)]
enum Ending {
    /// The client closed the connection with this code.
    Closed(u16),
    /// The connection broke without a close.
    Lost,
    /// The relay closes the connection.
    Ours(CloseReason),
}

impl Ending {
    /// Whether the client may come back to its place (docs/protocol.md, "Leaving and coming back").
    fn lost(&self) -> bool {
        match self {
            Self::Closed(code) => !matches!(*code, 1000 | 1001 | 1005),
            Self::Lost => true,
            Self::Ours(reason) => reason.keeps_place(),
        }
    }

    fn label(&self) -> &'static str {
        match self {
            Self::Closed(_) => "client",
            Self::Lost => "lost",
            Self::Ours(reason) => reason.label(),
        }
    }
}

/// The number of protocol frames in one direction, and their bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Traffic {
    frames: u64,
    bytes: u64,
}

/// The counts of one connection, for the log line at its end.
#[derive(Debug, Default)]
struct Tally {
    read: Traffic,
    written: Traffic,
}

impl Traffic {
    fn count(&mut self, bytes: usize) {
        self.frames += 1;
        self.bytes += bytes as u64;
    }
}

/// Serves one socket to its end. A shutdown of the relay waits for it.
pub fn serve(socket: WebSocket, relay: Relay, request: UpgradeRequest) -> impl Future<Output = ()> + Send + 'static {
    let tasks = relay.tasks().clone();
    tasks.track_future(handle_connection(Box::new(socket), relay, request))
}

/// Serves the socket and always leaves the session afterwards. Futures that are not awaited for long are boxed, so that
/// they take no memory while the socket is idle.
async fn handle_connection(mut socket: Box<WebSocket>, relay: Relay, request: UpgradeRequest) {
    let Some(_admission) = relay.admit() else {
        return Box::pin(refuse(socket, &relay, CloseReason::Overloaded)).await;
    };
    let admitted = match join_request(request) {
        Ok(join_request) => Box::pin(relay.join(join_request)).await,
        Err(reason) => Err(reason),
    };
    let ours = match admitted {
        Ok(ours) => ours,
        Err(reason) => return Box::pin(refuse(socket, &relay, reason)).await,
    };
    let began = Instant::now();
    let mut tally = Tally::default();
    let end = run(&mut socket, &relay, &ours, &mut tally).await;
    let Tally { read, written } = tally;
    relay.metrics().connection_seconds.observe(began.elapsed().as_secs_f64());
    Box::pin(relay.leave(&ours, end.lost())).await;
    // The log line comes after the leave, so that a slow log delays nobody.
    tracing::info!(
        session = ours.room.id.tag(), connection = ?ours.connection, reason = end.label(),
        seconds = began.elapsed().as_secs(), frames_in = read.frames, bytes_in = read.bytes,
        frames_out = written.frames, bytes_out = written.bytes, conflated = ours.outbound.conflated(),
        refused = ours.refused(), "connection ended"
    );
    match end {
        Ending::Ours(reason) => {
            relay.metrics().close(reason);
            Box::pin(close(socket, reason)).await;
        }
        // Reading on sends the answer to the client's close.
        Ending::Closed(_) => Box::pin(drain(socket)).await,
        Ending::Lost => {}
    }
}

/// The data that the client presents to join, or the reason to refuse it.
fn join_request(request: UpgradeRequest) -> Result<JoinRequest, CloseReason> {
    if !request.origin_allowed {
        return Err(CloseReason::OriginNotAllowed);
    }
    let missing = if request.session_given { CloseReason::SessionNotFound } else { CloseReason::SessionIdRequired };
    let session = request.session.ok_or(missing)?;
    Ok(JoinRequest { session, client: request.client, resume: request.resume })
}

/// The next event on a connection.
enum Happening {
    /// The connection ends.
    Ending(Ending),
    /// The client sent something, or its socket ended.
    Came(Option<Result<Message, axum::Error>>),
    /// The heartbeat is due.
    Beat,
}

/// The loop: it reads the client's frames, writes the queue and keeps the heartbeat. It handles one frame at a time, so
/// that each client's frames keep their order. Writing goes on while a frame waits for the store.
async fn run(socket: &mut WebSocket, relay: &Relay, ours: &Arc<Socket>, tally: &mut Tally) -> Ending {
    let ping = relay.settings().ping_interval;
    let (sink, mut stream) = socket.split();
    let mut writer = Writer::new(sink, relay, &mut tally.written);
    let (mut heard, mut next_ping) = (Instant::now(), Instant::now() + ping);
    let mut beat = pin!(sleep_until(next_ping));
    loop {
        let happening = poll_fn(|cx| {
            if let Poll::Ready(end) = writer.poll(cx, &ours.outbound, false) {
                return Poll::Ready(Happening::Ending(end));
            }
            if !ours.is_deciding() {
                if let Poll::Ready(message) = stream.poll_next_unpin(cx) {
                    return Poll::Ready(Happening::Came(message));
                }
                if writer.waits_for_reader()
                    && let Poll::Ready(end) = writer.poll(cx, &ours.outbound, true)
                {
                    return Poll::Ready(Happening::Ending(end));
                }
            }
            beat.as_mut().poll(cx).map(|()| Happening::Beat)
        });
        match happening.await {
            Happening::Ending(end) => return end,
            Happening::Came(message) => {
                heard = Instant::now();
                match message {
                    Some(Ok(Message::Text(text))) => {
                        tally.read.count(text.len());
                        relay.on_frame(ours, Bytes::from(text));
                    }
                    Some(Ok(Message::Binary(bytes))) => {
                        tally.read.count(bytes.len());
                        relay.on_binary(ours);
                    }
                    Some(Ok(Message::Pong(number))) => {
                        if let Ok(number) = number.as_ref().try_into() {
                            relay.on_pong(ours, u64::from_be_bytes(number));
                        }
                    }
                    Some(Ok(Message::Ping(_))) => {}
                    Some(Ok(Message::Close(frame))) => return Ending::Closed(frame.map_or(1005, |frame| frame.code)),
                    Some(Err(error)) => return broken(&error),
                    None => return Ending::Lost,
                }
            }
            Happening::Beat => {
                let now = Instant::now();
                if now >= heard + 2 * ping && !ours.is_deciding() {
                    return Ending::Ours(CloseReason::Silent);
                }
                if now >= next_ping {
                    next_ping = now + ping;
                    writer.ping();
                }
                beat.as_mut().reset(next_ping.min((heard + 2 * ping).max(now + BUSY_BEAT)));
            }
        }
    }
}

/// Classifies a socket error: a frame over the limit is the client's mistake, any other error means that the connection
/// is lost.
fn broken(error: &axum::Error) -> Ending {
    // The downcast works only while axum and this crate depend on the same tungstenite; tests/layering.rs checks that.
    match error.source().and_then(|source| source.downcast_ref::<tungstenite::Error>()) {
        Some(
            tungstenite::Error::Capacity(CapacityError::MessageTooLong { .. })
            | tungstenite::Error::Protocol(ProtocolError::ControlFrameTooBig),
        ) => Ending::Ours(CloseReason::FrameTooBig),
        _ => Ending::Lost,
    }
}

async fn refuse(socket: Box<WebSocket>, relay: &Relay, reason: CloseReason) {
    relay.metrics().join(JoinKind::Refused);
    relay.metrics().close(reason);
    close(socket, reason).await;
}

/// Sends the close frame and waits a little for the answer, so that the client reads the reason and not a reset.
async fn close(mut socket: Box<WebSocket>, reason: CloseReason) {
    debug_assert_ne!(reason.code(), close_code::NORMAL);
    let goodbye = Message::Close(Some(CloseFrame { code: reason.code(), reason: reason.text().into() }));
    if let Ok(Ok(())) = timeout(CLOSE_TIMEOUT, socket.send(goodbye)).await {
        drain(socket).await;
    }
}

/// Reads the remaining input until the socket is closed or the client takes too long.
async fn drain(mut socket: Box<WebSocket>) {
    let _ = timeout(CLOSE_TIMEOUT, async { while let Some(Ok(_)) = socket.next().await {} }).await;
}
