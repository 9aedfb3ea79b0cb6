//! Messages in a node's inbox that no node of the cluster wrote, and documents that no relay wrote.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gitorial_relay::RedisSettings;
use gitorial_relay::broker::{Body, Delivery, Kind, Message, RedisBroker, Route, RoutedFrame, SharedBroker, Target};
use gitorial_relay::ids::{ConnectionId, Epoch, NodeId, Seq, SessionId};
use gitorial_relay::metrics::Metrics;
use gitorial_relay::random::{Random, boot};
use gitorial_relay::region::Regions;
use reqwest::Method;
use serde_json::json;
use tokio::sync::mpsc::Receiver;

use super::support::cluster::{Kind as Nodes, Options, PATIENCE};
use super::support::eventually;
use super::support::redis::RedisFixture;
use super::support::stage::{Stage, state};

const SECRET: &str = "correct-horse-battery";
const OTHER: &str = "staple-battery-horse";

/// A node's end of the broker.
struct Peer {
    node: NodeId,
    broker: SharedBroker,
    inbox: Receiver<Delivery>,
    metrics: Arc<Metrics>,
}

impl Peer {
    /// Speaks as this node, with these secrets if they are not empty.
    async fn named(node: NodeId, redis: &RedisFixture, secrets: &str) -> Self {
        let mut settings = RedisSettings::new(redis.url());
        settings.secret = (!secrets.is_empty()).then(|| secrets.parse().unwrap());
        let metrics = Arc::new(Metrics::new());
        let (broker, inbox) =
            RedisBroker::connect(&settings, node.clone(), Arc::clone(&metrics), Duration::from_millis(50))
                .await
                .unwrap();
        let peer = Self { node, broker, inbox, metrics };
        let region = Regions::ONE.iter().next().unwrap();
        eventually(PATIENCE, async || peer.broker.probe(region).await.ok()).await;
        peer
    }

    fn tell(&self, to: &NodeId) -> SessionId {
        let session = SessionId::random();
        self.broker.publish(to, Message { session, body: Body::Changed { version: 1 } });
        session
    }

    async fn expect(&mut self, session: SessionId) {
        loop {
            match tokio::time::timeout(PATIENCE, self.inbox.recv()).await.unwrap().unwrap() {
                Delivery::Message { message, .. } => return assert_eq!(message.session, session),
                Delivery::Lost { .. } => {}
            }
        }
    }

    async fn refuses(&self, reason: &str) {
        let counted = format!("gitorial_relay_refused_messages_total{{reason=\"{reason}\"}} ");
        let count = |text: String| text.lines().find_map(|line| line.strip_prefix(&counted)?.parse::<f64>().ok());
        eventually(PATIENCE, async || count(self.metrics.render()).filter(|count| *count >= 1.0)).await;
    }

    fn inbox_name(&self) -> String {
        format!("gitorial:inbox:{{{}}}", self.node)
    }
}

/// A second subscriber of a channel, which writes down what it hears and can send it again.
struct Recorder {
    socket: TcpStream,
    heard: Vec<u8>,
}

fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

impl Recorder {
    fn of(redis: &RedisFixture, channel: &str) -> Self {
        let mut socket = TcpStream::connect(redis.url().trim_start_matches("redis://")).unwrap();
        socket.write_all(&command(&[b"SUBSCRIBE", channel.as_bytes()])).unwrap();
        // The answer, so that nothing is missed from now on.
        let _ = socket.read(&mut [0; 4_096]).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        Self { socket, heard: Vec::new() }
    }

    /// Everything that was published since the last call.
    fn publications(&mut self) -> Vec<Vec<u8>> {
        let mut buffer = [0; 64 * 1024];
        while let Ok(length @ 1..) = self.socket.read(&mut buffer) {
            self.heard.extend_from_slice(&buffer[..length]);
        }
        let heard = std::mem::take(&mut self.heard);
        let starts = heard.windows(3).enumerate().filter(|(_, bytes)| bytes == b"\r\n\xFF").map(|(at, _)| at);
        let length = |at: usize| {
            let line = heard[..at].iter().rposition(|byte| *byte == b'$').unwrap();
            std::str::from_utf8(&heard[line + 1..at]).unwrap().parse::<usize>().unwrap()
        };
        starts.map(|at| heard[at + 2..at + 2 + length(at)].to_vec()).collect()
    }
}

fn publish(redis: &RedisFixture, channel: &str, bytes: &[u8]) {
    let mut socket = TcpStream::connect(redis.url().trim_start_matches("redis://")).unwrap();
    socket.write_all(&command(&[b"PUBLISH", channel.as_bytes(), bytes])).unwrap();
    assert!(socket.read(&mut [0; 64]).unwrap() > 0);
}

#[tokio::test]
async fn a_node_with_a_secret_believes_only_those_that_have_it() {
    let redis = RedisFixture::local().await;
    let (mut a, b) = (Peer::named(boot("a"), &redis, SECRET).await, Peer::named(boot("b"), &redis, SECRET).await);
    a.expect(b.tell(&a.node)).await;
    for (secrets, reason) in [("", "unsigned"), (OTHER, "wrongly_signed")] {
        // Whoever can publish can use any name.
        let forger = Peer::named(b.node.clone(), &redis, secrets).await;
        forger.tell(&a.node);
        a.refuses(reason).await;
    }
    a.expect(b.tell(&a.node)).await;
}

#[tokio::test]
async fn the_secret_is_changed_while_nodes_run() {
    let redis = RedisFixture::local().await;
    let both = |first: &str, second: &str| format!("{first},{second}");
    // From no secret to one, and from that to another: two neighbouring steps always hear each other.
    let steps = [
        String::new(),
        both(SECRET, ""),
        SECRET.to_owned(),
        both(SECRET, OTHER),
        both(OTHER, SECRET),
        OTHER.to_owned(),
    ];
    for pair in steps.windows(2) {
        let (mut a, mut b) =
            (Peer::named(boot("a"), &redis, &pair[0]).await, Peer::named(boot("b"), &redis, &pair[1]).await);
        a.expect(b.tell(&a.node)).await;
        b.expect(a.tell(&b.node)).await;
    }
}

#[tokio::test]
async fn what_was_recorded_and_is_sent_again_is_not_heard_again() {
    let redis = RedisFixture::local().await;
    let mut a = Peer::named(boot("a"), &redis, SECRET).await;
    let b = Peer::named(boot("b"), &redis, SECRET).await;
    let mut recorder = Recorder::of(&redis, &a.inbox_name());
    a.expect(b.tell(&a.node)).await;
    let recorded = recorder.publications();
    assert!(!recorded.is_empty());
    // Its sender has ended since, and nobody else uses its name.
    a.broker.forget(Regions::ONE.iter().next().unwrap(), &b.node);
    drop(b);
    recorded.iter().for_each(|bytes| publish(&redis, &a.inbox_name(), bytes));
    let mut c = Peer::named(boot("c"), &redis, SECRET).await;
    recorded.iter().for_each(|bytes| publish(&redis, &c.inbox_name(), bytes));
    c.refuses("wrongly_signed").await;
    // The next that arrives is new, on both nodes.
    let (to_a, to_c) = (c.tell(&a.node), a.tell(&c.node));
    a.expect(to_a).await;
    c.expect(to_c).await;
}

/// The nodes that have an inbox.
fn nodes(redis: &mut RedisFixture) -> Vec<NodeId> {
    let channels = redis.command(&["PUBSUB", "CHANNELS"]);
    let names = channels.lines().filter_map(|line| line.strip_prefix("gitorial:inbox:{")?.strip_suffix('}'));
    names.map(NodeId::from_text).collect()
}

#[tokio::test]
async fn a_forged_epoch_does_not_mute_a_session() {
    let mut stage = Stage::set(Nodes::Redis(2)).await;
    let (a, b) = stage.driven().await;
    let forger = Peer::named(boot("forger"), stage.cluster.redis.as_ref().unwrap(), "").await;
    let session = SessionId::parse(&stage.session).unwrap();
    let dropped = async |stage: &Stage| stage.cluster.far().metric("dropped_frames_total", &[]).await;
    let before = dropped(&stage).await;
    for node in nodes(stage.cluster.redis.as_mut().unwrap()) {
        let (source, target) = (ConnectionId::from_number(7), Target::Others);
        let route = Route { source, epoch: Epoch(u64::MAX), seq: Seq(1), state_hash: 1, target, kind: Kind::State };
        let text = Bytes::from_static(br#"{"type":"state_update","clientId":"forger","data":{}}"#);
        forger.broker.publish(&node, Message { session, body: Body::Frame(RoutedFrame { route, text }) });
    }
    eventually(PATIENCE, async || (dropped(&stage).await > before).then_some(())).await;
    a.say("state_update", state(2)).await;
    assert_eq!(b.expect("state_update").await["clientId"], "client_a");
}

#[tokio::test]
async fn a_document_with_an_impossible_epoch_is_refused_and_the_others_are_served() {
    let mut stage = Stage::set(Nodes::Redis(2)).await;
    let redis = stage.cluster.redis.as_mut().unwrap();
    let key = format!("gitorial:{{{}}}", stage.session);
    let answer = redis.command(&["HGET", &key, "core"]);
    let core = answer.split("\r\n").nth(1).unwrap().to_owned();
    let forged = core.replacen("\"epoch\":0", &format!("\"epoch\":{}", u64::MAX), 1);
    assert_ne!(core, forged);
    redis.command(&["HSET", &key, "core", &forged]);
    let (status, body) = stage.cluster.near().get_session(&stage.session).await;
    assert_eq!((status, &body["code"]), (500, &json!("internal")), "{body}");
    // Deep JSON is refused by its parser.
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    stage.cluster.redis.as_mut().unwrap().command(&["HSET", &key, "core", &deep]);
    assert_eq!(stage.cluster.near().get_session(&stage.session).await.0, 500);
    assert_eq!(stage.cluster.near().answer(Method::GET, "/readyz").await.0, 200);
    stage.session = stage.another_session(json!({})).await;
    stage.driven().await;
}

#[tokio::test]
async fn nodes_with_a_secret_share_a_session_and_never_show_it() {
    let options = Options::default().env("RELAY_CLUSTER_SECRET", SECRET).flag("--log-level", "debug");
    let mut stage = Stage::with(Nodes::Redis(2), options, json!({})).await;
    let (a, b) = stage.driven().await;
    a.say("state_update", state(2)).await;
    assert_eq!(b.expect("state_update").await["clientId"], "client_a");
    let forger = Peer::named(boot("forger"), stage.cluster.redis.as_ref().unwrap(), "").await;
    for node in nodes(stage.cluster.redis.as_mut().unwrap()) {
        (0..3).for_each(|_| {
            forger.tell(&node);
        });
    }
    let near = stage.cluster.near();
    let refused = async || near.metric("refused_messages_total", &[("reason", "unsigned")]).await;
    eventually(PATIENCE, async || (refused().await >= 2.0).then_some(())).await;
    let log = near.log();
    assert_eq!(log.lines().filter(|line| line.contains("a message from another node is ignored")).count(), 1, "{log}");
    assert!(!log.contains(SECRET));
}
