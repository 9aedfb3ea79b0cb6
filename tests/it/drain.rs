//! A node is drained under load: in waves, controllers last, and every client comes back.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt, future, stream};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::support::cluster::{Cluster, Kind, Options, PATIENCE};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

const SESSIONS: usize = 500;
const CLIENTS: usize = 4;
const SOCKETS: usize = SESSIONS * CLIENTS;

/// The node's deadline. The twenty waves take four fifths of it.
const DRAIN: Duration = Duration::from_secs(10);
const WAVE: usize = SOCKETS / 20;
const PAUSE: Duration = Duration::from_millis(400);

/// How many clients connect at once.
const AT_ONCE: usize = 50;

/// A client with the handshake, as far as a drain needs it.
struct Client {
    session: String,
    id: String,
    socket: Socket,
    token: String,
    drives: bool,
}

/// The measurements of one client.
struct Moved {
    /// The time at which its socket was closed.
    closed_at: Instant,
    code: u16,
    drove: bool,
    /// How long it took to get back to its place.
    away: Duration,
    /// The answer to its second handshake.
    ack: Value,
}

async fn open(address: &str, session: &str, id: &str, resume: Option<&str>) -> (Socket, Value) {
    let resume = resume.map(|token| format!("&resume={token}")).unwrap_or_default();
    let url = format!("ws://{address}/ws?session={session}&client={id}{resume}");
    let (mut socket, _) = timeout(PATIENCE, connect_async(&url)).await.expect("in time").expect("it opens");
    let hello = json!({ "type": "protocol_handshake", "protocol_version": 1, "timestamp": 1 });
    socket.send(Message::text(hello.to_string())).await.expect("written");
    let ack = until(&mut socket, |frame| frame["type"] == "protocol_ack").await;
    (socket, ack)
}

/// The next frame that the predicate accepts.
async fn until(socket: &mut Socket, wanted: impl Fn(&Value) -> bool) -> Value {
    timeout(PATIENCE, async {
        loop {
            let message = socket.next().await.expect("not closed").expect("not broken");
            let Message::Text(text) = message else { continue };
            let frame: Value = serde_json::from_str(&text).expect("json");
            if wanted(&frame) {
                return frame;
            }
        }
    })
    .await
    .expect("it comes in time")
}

impl Client {
    async fn join(address: &str, session: String, index: usize) -> Self {
        let id = format!("client_{index}");
        let (mut socket, ack) = open(address, &session, &id, None).await;
        let drives = index == 0;
        if drives {
            let ask = json!({ "type": "coordinate_sync_direction", "clientId": id, "timestamp": 1,
                "data": { "preferredDirection": "ACTIVE", "reason": "test" } });
            socket.send(Message::text(ask.to_string())).await.expect("written");
            until(&mut socket, |frame| frame["data"]["assignedDirection"] == "ACTIVE").await;
        }
        let token = ack["resume"].as_str().expect("a token").to_owned();
        Self { session, id, socket, token, drives }
    }

    /// Waits for the close, and comes back on the other node at once.
    async fn move_to(mut self, address: &str) -> Moved {
        let code = loop {
            match self.socket.next().await {
                Some(Ok(Message::Close(frame))) => break frame.map_or(1005, |frame| frame.code.into()),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => break 1006,
            }
        };
        let closed_at = Instant::now();
        let (_socket, ack) = open(address, &self.session, &self.id, Some(&self.token)).await;
        Moved { closed_at, code, drove: self.drives, away: closed_at.elapsed(), ack }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_clients_move_in_waves_and_keep_their_places() {
    let options = Options::default().flag("--drain-timeout", &format!("{}s", DRAIN.as_secs()));
    let cluster = Cluster::start(Kind::Redis(2), options).await;
    let (from, to) = (cluster.near().address().to_owned(), cluster.far().address().to_owned());
    let sessions: Vec<String> =
        stream::iter(0..SESSIONS).map(|_| cluster.near().create_session(json!({}))).buffered(AT_ONCE).collect().await;
    let joins = sessions.iter().flat_map(|session| (0..CLIENTS).map(move |index| (session.clone(), index)));
    let clients: Vec<Client> = stream::iter(joins)
        .map(|(session, index)| Client::join(&from, session, index))
        .buffered(AT_ONCE)
        .collect()
        .await;
    let moving: Vec<_> = clients
        .into_iter()
        .map(|client| {
            let to = to.clone();
            tokio::spawn(async move { client.move_to(&to).await })
        })
        .collect();
    let began = Instant::now();
    cluster.near().terminate();
    let moved: Vec<Moved> =
        future::join_all(moving).await.into_iter().map(|moved| moved.expect("every client comes back")).collect();
    assert!(cluster.near().wait().await.success());
    let took = began.elapsed();

    assert!(took < DRAIN + Duration::from_secs(2), "done within the deadline: {took:?}");
    assert!(moved.iter().all(|moved| moved.code == 1012), "every client is told to come back elsewhere");
    let kept = |moved: &&Moved| moved.ack["resumed"] == true && (moved.ack["role"] == "active" || !moved.drove);
    assert_eq!(moved.iter().filter(kept).count(), SOCKETS, "every client has its place and its role again");
    // Controllers last: no follower goes later than the first controller, except within one wave that has both.
    let times =
        |drove: bool| moved.iter().filter(move |moved| moved.drove == drove).map(|moved| moved.closed_at - began);
    let (last_follower, first_driver) = (times(false).max().unwrap(), times(true).min().unwrap());
    assert!(first_driver + PAUSE / 2 > last_follower, "{first_driver:?} {last_follower:?}");
    let mut closed: Vec<Duration> = moved.iter().map(|moved| moved.closed_at - began).collect();
    closed.sort_unstable();
    let within = |from: Duration| closed.iter().filter(|at| **at >= from && **at < from + PAUSE / 2).count();
    let fullest = closed.iter().map(|from| within(*from)).max().unwrap_or(0);
    assert!(fullest <= WAVE + WAVE / 4, "no wave is larger than {WAVE}: {fullest}");
    let mut away: Vec<Duration> = moved.iter().map(|moved| moved.away).collect();
    away.sort_unstable();
    eprintln!(
        "{SOCKETS} sockets drained in {took:?}, {fullest} at once; away {:?} (median), {:?} (longest)",
        away[SOCKETS / 2],
        away[SOCKETS - 1]
    );
}
