//! A client that does nothing by itself: the test tells it what to send, and it keeps every frame that it got.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::cluster::{Node, PATIENCE};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A limit above the number of frames in any test.
const MAX_FRAMES: usize = 100_000;

/// The longest that a test may wait for nothing to happen.
const LONGEST_QUIET: Duration = Duration::from_millis(300);

/// A frame as it came.
#[derive(Clone, Debug)]
pub struct Received {
    /// The time of arrival.
    pub at: Instant,
    /// The text, byte for byte.
    pub text: String,
    /// The frame as JSON; null if it is not JSON.
    pub json: Value,
    seen: bool,
}

impl Received {
    fn is(&self, kind: &str) -> bool {
        self.json["type"] == kind
    }
}

#[derive(Debug, Default)]
struct Inbox {
    frames: Mutex<Vec<Received>>,
    closed: Mutex<Option<(u16, String)>>,
    changes: watch::Sender<u64>,
}

/// The client.
pub struct RawClient {
    /// The id in its frames.
    pub id: String,
    sink: tokio::sync::Mutex<SplitSink<Socket, Message>>,
    inbox: Arc<Inbox>,
    reader: JoinHandle<()>,
}

impl RawClient {
    /// Opens a socket to a whole URL.
    pub async fn connect(url: &str, id: &str) -> Self {
        let (socket, _) =
            timeout(PATIENCE, connect_async(url)).await.expect("in time").expect("the upgrade is accepted");
        let (sink, stream) = socket.split();
        let inbox = Arc::new(Inbox::default());
        let reader = tokio::spawn(read(stream, Arc::clone(&inbox)));
        Self { id: id.to_owned(), sink: tokio::sync::Mutex::new(sink), inbox, reader }
    }

    /// Joins a session as an old client does: only its frames contain its id.
    pub async fn join(node: &Node, session: &str, id: &str) -> Self {
        Self::connect(&format!("{}/ws?session={session}", node.ws()), id).await
    }

    /// Joins a session under its id and does the handshake. The client and its `protocol_ack`.
    pub async fn join_modern(node: &Node, session: &str, id: &str) -> (Self, Value) {
        let client = Self::connect(&format!("{}/ws?session={session}&client={id}", node.ws()), id).await;
        client.send(json!({ "type": "protocol_handshake", "protocol_version": 1, "timestamp": 1 })).await;
        let ack = client.expect("protocol_ack").await;
        (client, ack)
    }

    /// A frame of this client.
    pub fn frame(&self, kind: &str, data: Value) -> Value {
        json!({ "type": kind, "clientId": self.id, "data": data, "timestamp": 1, "protocol_version": 1 })
    }

    /// Sends a frame of this type.
    pub async fn say(&self, kind: &str, data: Value) {
        self.send(self.frame(kind, data)).await;
    }

    /// Sends this JSON.
    pub async fn send(&self, frame: Value) {
        self.send_text(&frame.to_string()).await;
    }

    /// Sends this text.
    pub async fn send_text(&self, text: &str) {
        self.write(Message::text(text)).await;
    }

    /// Sends a binary frame.
    pub async fn send_binary(&self, bytes: &[u8]) {
        self.write(Message::binary(bytes.to_vec())).await;
    }

    async fn write(&self, message: Message) {
        let mut sink = self.sink.lock().await;
        timeout(PATIENCE, sink.send(message)).await.expect("written in time").expect("the socket is open");
    }

    /// The first frame of this type that no test has seen; the others stay unseen.
    pub async fn expect(&self, kind: &str) -> Value {
        self.take(kind, |frame| frame.is(kind)).await.json
    }

    /// As [`RawClient::expect`], with its time and its text.
    pub async fn expect_raw(&self, kind: &str) -> Received {
        self.take(kind, |frame| frame.is(kind)).await
    }

    /// The refusal of a frame of type `of`; its code.
    pub async fn expect_rejected(&self, of: &str) -> String {
        let matches = |frame: &Received| frame.is("rejected") && frame.json["data"]["type"] == of;
        let frame = self.take(&format!("rejected {of}"), matches).await;
        frame.json["data"]["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The announcement that `client` has `role`.
    pub async fn expect_role(&self, client: &str, role: &str) {
        let matches = |frame: &Received| {
            frame.is("role_changed") && frame.json["clientId"] == client && frame.json["data"]["role"] == role
        };
        self.take(&format!("role_changed {client} {role}"), matches).await;
    }

    async fn take(&self, what: &str, matches: impl Fn(&Received) -> bool) -> Received {
        let mut changes = self.inbox.changes.subscribe();
        let deadline = Instant::now() + PATIENCE;
        loop {
            changes.borrow_and_update();
            // Read first: frames that came before the close are there by then.
            let closed = !self.is_open();
            if let Some(frame) = self.inbox.frames.lock().iter_mut().find(|frame| !frame.seen && matches(frame)) {
                frame.seen = true;
                return frame.clone();
            }
            let over = closed || timeout_at(deadline, changes.changed()).await.is_err();
            assert!(!over, "{} never got {what}; it got {}", self.id, self.transcript());
        }
    }

    /// The close frame's code and reason; 1005 if it has no code, 1006 without a close frame.
    pub async fn expect_close(&self) -> (u16, String) {
        let mut changes = self.inbox.changes.subscribe();
        let deadline = Instant::now() + PATIENCE;
        loop {
            changes.borrow_and_update();
            if let Some(closed) = self.inbox.closed.lock().clone() {
                return closed;
            }
            let over = timeout_at(deadline, changes.changed()).await.is_err();
            assert!(!over, "{} is not closed; it got {}", self.id, self.transcript());
        }
    }

    /// Whether the socket is still open, as far as the client knows.
    pub fn is_open(&self) -> bool {
        self.inbox.closed.lock().is_none()
    }

    /// The frames that come within this time. The only fixed wait: to check that no frame comes, where no barrier can.
    pub async fn quiet(&self, time: Duration) -> Vec<Value> {
        assert!(time <= LONGEST_QUIET, "no test waits longer than this");
        let before = self.inbox.frames.lock().len();
        tokio::time::sleep(time).await;
        self.inbox.frames.lock()[before..].iter().map(|frame| frame.json.clone()).collect()
    }

    /// Every frame of this type so far.
    pub fn frames_of(&self, kind: &str) -> Vec<Value> {
        self.inbox.frames.lock().iter().filter(|frame| frame.is(kind)).map(|frame| frame.json.clone()).collect()
    }

    /// Every frame so far.
    pub fn all(&self) -> Vec<Value> {
        self.inbox.frames.lock().iter().map(|frame| frame.json.clone()).collect()
    }

    /// How many frames it got so far, without announcements of roles, which are sent at their own pace.
    pub fn count(&self) -> usize {
        self.inbox.frames.lock().iter().filter(|frame| !frame.is("role_changed")).count()
    }

    /// When this returns `other` has got every forwarded frame that this client sent before: a frame
    /// of an unknown type overtakes nothing.
    pub async fn barrier(&self, other: &Self) {
        static MARKS: AtomicU64 = AtomicU64::new(1);
        let mark = MARKS.fetch_add(1, Ordering::Relaxed);
        self.say("test_barrier", json!({ "mark": mark })).await;
        other.take("a barrier", |frame| frame.is("test_barrier") && frame.json["data"]["mark"] == mark).await;
    }

    /// Sends a close frame and disconnects.
    pub async fn leave(self) {
        // The relay may have closed it already.
        let _ = self.sink.lock().await.close().await;
        self.expect_close().await;
    }

    /// Disconnects without a close frame.
    pub fn cut(self) {
        drop(self);
    }

    /// Its frames, for messages; a star marks those that no test has seen.
    pub fn transcript(&self) -> String {
        let frames = self.inbox.frames.lock();
        let lines = frames.iter().map(|frame| format!("\n  {} {}", if frame.seen { " " } else { "*" }, frame.text));
        format!("{}\n  closed: {:?}", lines.collect::<String>(), self.inbox.closed.lock())
    }
}

impl Drop for RawClient {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// A socket in the session that only the test reads after the handshake.
pub async fn unread_socket(node: &Node, session: &str, receive_buffer: u32) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(receive_buffer).expect("a buffer");
    let mut stream = socket.connect(node.address().parse().expect("an address")).await.expect("the node listens");
    let request = format!(
        "GET /ws?session={session} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.expect("answered");
    assert_eq!(&head, b"HTTP/1.1 101");
    stream
}

async fn read(mut stream: SplitStream<Socket>, inbox: Arc<Inbox>) {
    let mut closed = (1006, String::new());
    while let Some(Ok(message)) = stream.next().await {
        match message {
            Message::Text(text) => {
                let json = serde_json::from_str(&text).unwrap_or(Value::Null);
                let mut frames = inbox.frames.lock();
                assert!(frames.len() < MAX_FRAMES, "too many frames");
                frames.push(Received { at: Instant::now(), text: text.to_string(), json, seen: false });
            }
            Message::Close(frame) => {
                closed = frame.map_or((1005, String::new()), |frame| (frame.code.into(), frame.reason.to_string()));
            }
            _ => {}
        }
        inbox.changes.send_modify(|changes| *changes += 1);
    }
    *inbox.closed.lock() = Some(closed);
    inbox.changes.send_modify(|changes| *changes += 1);
}
