//! The contract of every broker: order, each message once, and no unnoticed loss.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gitorial_relay::RedisSettings;
use gitorial_relay::broker::{
    Body, BrokerError, Delivery, Kind, MemoryBus, Message, RedisBroker, Route, RoutedFrame, SharedBroker, Target,
};
use gitorial_relay::ids::{ConnectionId, Epoch, NodeId, Seq, SessionId};
use gitorial_relay::metrics::Metrics;
use gitorial_relay::random::{Random, boot};
use gitorial_relay::region::Regions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::support::eventually;
use super::support::redis::RedisFixture;
use super::support::redis_cluster::RedisCluster;

const PATIENCE: Duration = Duration::from_secs(20);

/// The network between nodes, of either kind.
#[allow(clippy::large_enum_variant, reason = "one for each test")]
enum Net {
    Memory(MemoryBus),
    Redis(RedisFixture),
    Cluster(RedisCluster),
}

async fn connect(url: &str, node: &NodeId) -> (SharedBroker, mpsc::Receiver<Delivery>) {
    let mut settings = RedisSettings::new(url);
    settings.command_timeout = Duration::from_millis(500);
    settings.connect_timeout = Duration::from_millis(500);
    let (heartbeat, metrics) = (Duration::from_millis(100), Arc::new(Metrics::new()));
    RedisBroker::connect(&settings, node.clone(), metrics, heartbeat).await.expect("the url is right")
}

/// A node on it.
struct Peer {
    node: NodeId,
    broker: SharedBroker,
    inbox: mpsc::Receiver<Delivery>,
    regions: Regions,
}

impl Net {
    fn regions(&self) -> Regions {
        if matches!(self, Self::Cluster(_)) { Regions::OF_A_CLUSTER } else { Regions::ONE }
    }

    async fn join(&self, name: &str) -> Peer {
        self.join_as(boot(name)).await
    }

    async fn join_as(&self, node: NodeId) -> Peer {
        let (broker, inbox) = match self {
            Self::Memory(bus) => bus.join(node.clone()),
            Self::Redis(fixture) => connect(fixture.url(), &node).await,
            Self::Cluster(fixture) => connect(&fixture.url(), &node).await,
        };
        let peer = Peer { node, broker, inbox, regions: self.regions() };
        eventually(PATIENCE, async || peer.probe().await.ok()).await;
        peer
    }

    /// From now on every message is lost.
    async fn cut(&mut self, peer: &Peer) {
        match self {
            Self::Memory(bus) => bus.drop_next(usize::MAX),
            Self::Redis(fixture) => {
                fixture.stop().await;
                eventually(PATIENCE, async || peer.probe().await.err()).await;
            }
            Self::Cluster(fixture) => {
                (0..fixture.len()).for_each(|index| fixture.kill(index));
                eventually(PATIENCE, async || peer.probe().await.err()).await;
            }
        }
    }

    /// From now on every message arrives again.
    async fn mend(&mut self, peers: [&Peer; 2]) {
        match self {
            Self::Memory(bus) => bus.drop_next(0),
            Self::Redis(fixture) => fixture.restart().await,
            Self::Cluster(fixture) => {
                for index in 0..fixture.len() {
                    fixture.restart(index).await;
                }
                fixture.is_whole().await;
            }
        }
        for peer in peers {
            eventually(PATIENCE, async || peer.probe().await.ok()).await;
        }
    }
}

impl Peer {
    async fn probe(&self) -> Result<(), BrokerError> {
        let probes = self.regions.iter().map(|region| self.broker.probe(region));
        futures_util::future::try_join_all(probes).await.map(drop)
    }

    async fn next(&mut self) -> Delivery {
        timeout(PATIENCE, self.inbox.recv()).await.expect("a delivery in time").expect("the broker lives")
    }

    fn tell(&self, to: &Peer) -> SessionId {
        let session = SessionId::random();
        self.broker.publish(&to.node, Message { session, body: Body::Changed { version: 1 } });
        session
    }
}

fn a_frame(source: u128, seq: u64, target: Target, text: Bytes) -> RoutedFrame {
    let source = ConnectionId::from_number(source);
    RoutedFrame {
        route: Route { source, epoch: Epoch(3), seq: Seq(seq), state_hash: 0, target, kind: Kind::State },
        text,
    }
}

fn of_frame(frame: RoutedFrame) -> Message {
    Message { session: SessionId::random(), body: Body::Frame(frame) }
}

/// Waits until each session was delivered to `to` or reported to `from`, and returns the reported ones.
async fn settled(sessions: &BTreeSet<SessionId>, from: &mut Peer, to: &mut Peer) -> BTreeSet<SessionId> {
    let (mut delivered, mut lost) = (BTreeSet::new(), BTreeSet::new());
    eventually(PATIENCE, async || {
        while let Ok(delivery) = to.inbox.try_recv() {
            match delivery {
                Delivery::Message { message, .. } => assert!(delivered.insert(message.session), "delivered twice"),
                Delivery::Lost { .. } => {}
            }
        }
        while let Ok(delivery) = from.inbox.try_recv() {
            match delivery {
                Delivery::Lost { to: whom, sessions } => {
                    assert_eq!(whom, to.node);
                    lost.extend(sessions.expect("the sender still knows these few"));
                }
                Delivery::Message { .. } => {}
            }
        }
        sessions.iter().all(|session| delivered.contains(session) || lost.contains(session)).then_some(())
    })
    .await;
    lost
}

async fn messages_of_two_senders_arrive_in_order_and_once(net: Net) {
    let (a, b, mut c) = (net.join("a").await, net.join("b").await, net.join("c").await);
    let senders = [a, b].map(|peer| {
        let (to, session) = (c.node.clone(), SessionId::random());
        tokio::spawn(async move {
            for seq in 1..=1_000 {
                let text = Bytes::from(format!(r#"{{"type":"state_update","n":{seq}}}"#));
                let body = Body::Frame(a_frame(1, seq, Target::Others, text));
                peer.broker.publish(&to, Message { session, body });
                if seq % 50 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            peer
        })
    });
    let mut seen = std::collections::HashMap::new();
    for _ in 0..2_000 {
        let Delivery::Message { from, message } = c.next().await else { panic!("no message is lost") };
        let Body::Frame(frame) = message.body else { panic!("only frames were sent") };
        let last = seen.insert(from, frame.route.seq.0).unwrap_or(0);
        assert_eq!(frame.route.seq.0, last + 1);
    }
    let peers = futures_util::future::join_all(senders).await;
    assert_eq!(seen.into_values().collect::<Vec<_>>(), [1_000, 1_000]);
    // A message after all of them: no message came twice in between.
    let session = peers[0].as_ref().expect("no panic").tell(&c);
    assert!(matches!(c.next().await, Delivery::Message { message, .. } if message.session == session));
}

async fn a_frame_arrives_byte_for_byte_with_its_label(net: Net) {
    let (a, mut b) = (net.join("a").await, net.join("b").await);
    let only = Target::Only(vec![ConnectionId::from_number(5), ConnectionId::from_number(6)]);
    let odd = Bytes::from_static("{ \"type\" : \"x\",\r\n\t\"é\":\"\\u0000\u{10FFFF}\" }".as_bytes());
    for text in [odd, Bytes::new(), Bytes::from(vec![b'x'; 1024 * 1024])] {
        let message = of_frame(a_frame(9, u64::MAX, only.clone(), text));
        a.broker.publish(&b.node, message.clone());
        assert!(b.next().await == Delivery::Message { from: a.node.clone(), message });
    }
}

async fn messages_sent_before_a_node_listened_are_reported_later(net: Net) {
    let mut a = net.join("a").await;
    let late = boot("late");
    let sessions: BTreeSet<_> = (0..3).map(|_| SessionId::random()).collect();
    for session in &sessions {
        a.broker.publish(&late, Message { session: *session, body: Body::Changed { version: 1 } });
    }
    a.probe().await.expect("the queued messages have been sent");
    let mut late = net.join_as(late).await;
    assert_eq!(settled(&sessions, &mut a, &mut late).await, sessions);
    let after = a.tell(&late);
    assert!(matches!(late.next().await, Delivery::Message { message, .. } if message.session == after));
}

async fn a_loss_in_the_middle_is_reported_with_its_sessions(mut net: Net) {
    let (mut a, mut b) = (net.join("a").await, net.join("b").await);
    let before = a.tell(&b);
    assert!(matches!(b.next().await, Delivery::Message { message, .. } if message.session == before));
    net.cut(&a).await;
    let sessions: BTreeSet<_> = (0..5).map(|_| a.tell(&b)).collect();
    net.mend([&a, &b]).await;
    let after = a.tell(&b);
    let all = sessions.iter().copied().chain([after]).collect();
    let lost = settled(&all, &mut a, &mut b).await;
    assert!(!lost.contains(&before) || !sessions.is_disjoint(&lost));
}

async fn a_loss_at_the_tail_is_reported_with_its_sessions(mut net: Net) {
    let (mut a, mut b) = (net.join("a").await, net.join("b").await);
    a.tell(&b);
    b.next().await;
    net.cut(&a).await;
    let sessions: BTreeSet<_> = (0..5).map(|_| a.tell(&b)).collect();
    // Lost for certain: a probe that was sent after them has failed.
    if !matches!(net, Net::Memory(_)) {
        eventually(PATIENCE, async || a.probe().await.err()).await;
    }
    net.mend([&a, &b]).await;
    settled(&sessions, &mut a, &mut b).await;
}

async fn a_node_that_hears_itself_passes_the_probe(net: Net) {
    let a = net.join("a").await;
    for _ in 0..20 {
        a.probe().await.expect("it hears");
    }
}

async fn a_forgotten_node_that_comes_back_is_heard_again(net: Net) {
    let (a, mut b) = (net.join("a").await, net.join("b").await);
    for _ in 0..3 {
        let session = a.tell(&b);
        assert!(matches!(b.next().await, Delivery::Message { message, .. } if message.session == session));
        a.regions.iter().for_each(|region| a.broker.forget(region, &b.node));
    }
}

macro_rules! contract {
    ($($rule:ident),* $(,)?) => {
        mod in_memory {
            $(#[tokio::test]
            async fn $rule() {
                super::$rule(super::Net::Memory(super::MemoryBus::new())).await;
            })*
        }
        mod in_redis {
            $(#[tokio::test]
            async fn $rule() {
                super::$rule(super::Net::Redis(super::RedisFixture::local().await)).await;
            })*
        }
        mod in_a_cluster {
            $(#[tokio::test]
            async fn $rule() {
                super::$rule(super::Net::Cluster(super::RedisCluster::start(3).await)).await;
            })*
        }
    };
}

contract!(
    messages_of_two_senders_arrive_in_order_and_once,
    a_frame_arrives_byte_for_byte_with_its_label,
    messages_sent_before_a_node_listened_are_reported_later,
    a_loss_in_the_middle_is_reported_with_its_sessions,
    a_loss_at_the_tail_is_reported_with_its_sessions,
    a_node_that_hears_itself_passes_the_probe,
    a_forgotten_node_that_comes_back_is_heard_again,
);

/// Publishes what any program with access to Redis can: the last number of a link from `from` to `to`.
async fn forge(fixture: &RedisFixture, from: &NodeId, to: &NodeId, link: u64, last: u64) {
    let mut publication = vec![0xFF, 1];
    publication.extend(postcard::to_allocvec(&(from, link, 0_u64, 3_u8, last)).expect("plain data"));
    let inbox = format!("gitorial:inbox:{{{to}}}");
    let head = format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n{inbox}\r\n${}\r\n", inbox.len(), publication.len());
    let address = fixture.url().strip_prefix("redis://").expect("a plain url");
    let mut socket = TcpStream::connect(address).await.expect("redis listens");
    let all = [head.as_bytes(), &publication, b"\r\n"].concat();
    socket.write_all(&all).await.expect("redis reads");
    let mut answer = [0; 4];
    socket.read_exact(&mut answer).await.expect("redis answers");
    assert_eq!(&answer, b":1\r\n", "the node listens");
}

#[tokio::test]
async fn a_forged_publication_makes_no_node_deaf() {
    let fixture = RedisFixture::local().await;
    let net = Net::Redis(fixture);
    let (a, mut b) = (net.join("a").await, net.join("b").await);
    let Net::Redis(fixture) = &net else { unreachable!() };
    // Of a link that does not exist yet, and of the one that does: in the name of a peer, and in its own.
    let (peer, own) = (a.node.clone(), b.node.clone());
    for (from, link, last) in [(&peer, u64::MAX, 1), (&peer, 1, u64::MAX), (&own, u64::MAX, 1), (&own, 1, u64::MAX)] {
        let before = a.tell(&b);
        while !matches!(b.next().await, Delivery::Message { message, .. } if message.session == before) {}
        forge(fixture, from, &own, link, last).await;
        eventually(PATIENCE, async || b.probe().await.ok()).await;
        eventually(PATIENCE, async || {
            let after = a.tell(&b);
            let heard = |delivery| matches!(delivery, Delivery::Message { message, .. } if message.session == after);
            sleep(Duration::from_millis(10)).await;
            std::iter::from_fn(|| b.inbox.try_recv().ok()).any(heard).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn only_the_dropped_messages_are_reported_in_memory() {
    let bus = MemoryBus::new();
    let net = Net::Memory(bus.clone());
    let (mut a, mut b) = (net.join("a").await, net.join("b").await);
    bus.drop_next(2);
    let sent: Vec<_> = (0..4).map(|_| a.tell(&b)).collect();
    let all = sent.iter().copied().collect();
    assert_eq!(settled(&all, &mut a, &mut b).await, sent[..2].iter().copied().collect());
}

#[tokio::test]
async fn a_probe_fails_while_redis_is_away_and_recovers_by_itself() {
    let mut fixture = RedisFixture::local().await;
    for fault in ["stop", "pause"] {
        let net = Net::Redis(fixture);
        let a = net.join("a").await;
        let Net::Redis(mut back) = net else { unreachable!() };
        if fault == "stop" {
            back.stop().await;
        } else {
            back.pause();
        }
        let error = eventually(PATIENCE, async || a.probe().await.err()).await;
        assert!(matches!(error, BrokerError::Unavailable(_)), "{fault}: {error}");
        if fault == "stop" {
            back.restart().await;
        } else {
            back.resume();
        }
        eventually(PATIENCE, async || a.probe().await.ok()).await;
        fixture = back;
    }
}

#[tokio::test]
async fn a_killed_subscription_recovers_and_reports_its_losses() {
    let net = Net::Redis(RedisFixture::local().await);
    let (mut a, mut b) = (net.join("a").await, net.join("b").await);
    let Net::Redis(mut fixture) = net else { unreachable!() };
    let mut sessions = BTreeSet::new();
    for round in 0..50 {
        if round == 10 {
            fixture.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        }
        sessions.insert(a.tell(&b));
        a.probe().await.ok();
    }
    settled(&sessions, &mut a, &mut b).await;
    eventually(PATIENCE, async || b.probe().await.ok()).await;
    let after = a.tell(&b);
    settled(&BTreeSet::from([after]), &mut a, &mut b).await;
}

#[tokio::test]
async fn garbage_in_an_inbox_is_dropped_and_counted() {
    let mut fixture = RedisFixture::local().await;
    let (settings, metrics) = (RedisSettings::new(fixture.url()), Arc::new(Metrics::new()));
    let (node, region) = (boot("a"), Regions::ONE.iter().next().expect("one"));
    let (broker, _inbox) =
        RedisBroker::connect(&settings, node.clone(), Arc::clone(&metrics), Duration::from_secs(1)).await.expect("url");
    eventually(PATIENCE, async || broker.probe(region).await.ok()).await;
    fixture.command(&["PUBLISH", &format!("gitorial:inbox:{{{node}}}"), "{}"]);
    let counted = r#"gitorial_relay_refused_messages_total{reason="unreadable"} 1"#;
    eventually(PATIENCE, async || metrics.render().contains(counted).then_some(())).await;
    broker.probe(region).await.expect("it still hears");
}
