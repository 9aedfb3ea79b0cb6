//! The broker over Redis channels: one inbox for each node, plain `SUBSCRIBE` and `PUBLISH`. On a Cluster there is one
//! for each node and region, and its channel is sharded (`SSUBSCRIBE`, `SPUBLISH`): a publication visits the servers of
//! its region only, and an inbox whose server is away leaves the others alone.
//!
//! One connection to a server publishes and one listens, so that a link keeps its order.
//!
//! Every loss is noticed in the same way, whatever its reason: by the numbers of the link ([`super::link`]). A
//! publication that failed, had no listener or did not fit leaves a gap. The receiver sees the gap by the next message
//! or by the sender's last number, which is sent once in each heartbeat interval.

mod subscription;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use fred::types::Value;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::task::AbortOnDropHandle;

use self::subscription::{reader, stay_subscribed};
use super::exchange::Exchange;
use super::seal::{Forged, Seal};
use super::wire::{Entry, Head, Item, Refused, decode, encode};
use super::{Body, Broker, BrokerError, Delivery, Message, RoutedFrame, SharedBroker};
use crate::ids::NodeId;
use crate::metrics::{CommandResult, Disbelief, Metrics};
use crate::redis::{Call, Failure, Names, RedisSettings, RedisSettingsError, Servers};
use crate::region::{Region, Regions};

/// The largest number of deliveries that wait for the relay. A delivery beyond it becomes a gap.
const MAX_DELIVERIES: usize = 16_384;
/// The largest number of publications that wait to be read, each of at most about 256 KiB unless a frame is larger.
const MAX_PUBLICATIONS: usize = 256;
/// How long a probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// The broker over Redis. It connects in the background, reconnects by itself, and ends when it is dropped.
pub struct RedisBroker {
    node: NodeId,
    regions: Regions,
    posts: Posts,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

/// One for each region.
type Posts = Arc<[Arc<Post>]>;

/// The state that the tasks of one region share.
struct Post {
    node: NodeId,
    region: Region,
    /// What the names of its inboxes begin and end with, before and after the node.
    inboxes: (String, &'static str),
    exchange: Mutex<Exchange>,
    seal: Seal,
    /// What was logged already, by [`Disbelief`].
    told: [AtomicBool; Disbelief::ALL.len()],
    /// Notified when there is something to publish.
    wake: Notify,
    deliveries: mpsc::Sender<Delivery>,
    probes: Mutex<HashMap<u64, Probe>>,
    /// The number of the live subscription to the inbox, counted from 1; zero while there is none.
    subscribed: watch::Sender<u64>,
    /// Why Redis refuses the subscription.
    refused: watch::Sender<Option<String>>,
    /// Notified when the subscription may have ended.
    doubted: Notify,
    publishing: Arc<Servers>,
    listening: Arc<Servers>,
    metrics: Arc<Metrics>,
}

/// A caller that waits for this token to come back.
struct Probe {
    tell: oneshot::Sender<Result<(), BrokerError>>,
    /// Redis has accepted the probe. If it does not come back, this node's inbox is silent.
    sent: bool,
}

impl RedisBroker {
    /// Opens `node`'s inbox. Does not wait for Redis. The caller must be inside a Tokio runtime. `heartbeat` is how
    /// often a node sends its last numbers, and so how late a loss may be noticed.
    ///
    /// Messages from other nodes arrive in the returned receiver, which must be read: a message that does not fit is
    /// lost, and reported to its sender.
    ///
    /// # Errors
    ///
    /// [`BrokerError::Unavailable`] if the settings cannot be used ([`RedisSettings::validate`]).
    pub async fn connect(
        settings: &RedisSettings,
        node: NodeId,
        metrics: Arc<Metrics>,
        heartbeat: Duration,
    ) -> Result<(SharedBroker, mpsc::Receiver<Delivery>), BrokerError> {
        let unusable = |error: RedisSettingsError| BrokerError::Unavailable(error.to_string());
        let (deliveries, delivered) = mpsc::channel(MAX_DELIVERIES);
        let publishing = Servers::open(settings, 32, Arc::clone(&metrics), || Box::new(|_| ())).map_err(unusable)?;
        let readers = Arc::new(OnceLock::new());
        let fresh = {
            let readers = Arc::clone(&readers);
            move || reader(Arc::clone(&readers))
        };
        let listening = Servers::open(settings, MAX_PUBLICATIONS, Arc::clone(&metrics), fresh).map_err(unusable)?;
        let (publishing, listening) = (Arc::new(publishing), Arc::new(listening));
        let regions = settings.regions();
        let names = Names::new(&settings.prefix, regions);
        let seal = Seal::of(settings.secret.as_ref());
        let post = |region| {
            Arc::new(Post {
                node: node.clone(),
                region,
                inboxes: match names.tagged(region) {
                    Some(begin) => (format!("{begin}inbox:"), ""),
                    None => (format!("{}inbox:{{", names.prefix()), "}"),
                },
                exchange: Mutex::new(Exchange::new(seal.is_required())),
                seal: if regions == Regions::ONE { seal.clone() } else { seal.clone().of_region(region) },
                told: Default::default(),
                wake: Notify::new(),
                deliveries: deliveries.clone(),
                probes: Mutex::default(),
                subscribed: watch::Sender::new(0),
                refused: watch::Sender::new(None),
                doubted: Notify::new(),
                publishing: Arc::clone(&publishing),
                listening: Arc::clone(&listening),
                metrics: Arc::clone(&metrics),
            })
        };
        let posts: Posts = regions.iter().map(post).collect();
        let _ = readers.set(Arc::downgrade(&posts));
        let mut tasks = Vec::new();
        for post in posts.iter() {
            tasks.push(AbortOnDropHandle::new(tokio::spawn(publish(Arc::clone(post), heartbeat))));
            tasks.push(AbortOnDropHandle::new(tokio::spawn(stay_subscribed(Arc::clone(post), heartbeat))));
        }
        Ok((Arc::new(Self { node, regions, posts, _tasks: tasks }), delivered))
    }

    fn post(&self, region: Region) -> &Post {
        &self.posts[region.index()]
    }
}

impl fmt::Debug for RedisBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBroker").field("node", &self.node).finish_non_exhaustive()
    }
}

#[async_trait]
impl Broker for RedisBroker {
    fn publish(&self, to: &NodeId, message: Message) {
        let post = self.post(self.regions.of(message.session));
        if !post.exchange().publish(to, message, micros()) {
            post.metrics.redis_command("enqueue", CommandResult::Error);
        }
        post.wake.notify_one();
    }

    async fn probe(&self, region: Region) -> Result<(), BrokerError> {
        self.post(region).probe().await
    }

    async fn follow(&self, region: Region, server: &str) -> Result<(), BrokerError> {
        self.post(region).follow(server).await
    }

    fn queued(&self) -> usize {
        self.posts.iter().map(|post| post.exchange().queued()).sum()
    }

    fn forget(&self, region: Region, node: &NodeId) {
        self.post(region).exchange().forget(node);
    }
}

/// The task that publishes: it sends all queued items in one round trip, and the next items gather meanwhile.
async fn publish(post: Arc<Post>, heartbeat: Duration) {
    let mut heartbeats = interval(heartbeat);
    heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let command = if post.publishing.is_cluster() { "SPUBLISH" } else { "PUBLISH" };
    loop {
        tokio::select! {
            () = post.wake.notified() => {}
            _ = heartbeats.tick() => post.exchange().tick(micros()),
        }
        let batches = post.exchange().drain();
        if batches.is_empty() {
            continue;
        }
        let (mut calls, mut probes) = (Vec::new(), Vec::new());
        for batch in batches {
            let head = Head { from: post.node.clone(), link: batch.link, sent_at: batch.sent_at };
            probes.extend(batch.items.iter().filter_map(|item| match item.entry {
                Entry::Probe { token } => Some(token),
                _ => None,
            }));
            let inbox = post.inbox(&batch.to);
            let publications = encode(&post.seal, &batch.to, &head, &batch.items).into_iter();
            calls.extend(publications.map(|bytes| Call::new(command, [inbox.as_str().into(), Value::Bytes(bytes)])));
        }
        let before = post.publishing.of(post.region);
        let outcome = post.publishing.ask(post.region, "publish", calls).await;
        post.probes_went(&probes, outcome);
        if post.publishing.has_moved(post.region, before.as_ref()) {
            // So have the inboxes, this node's own among them.
            post.doubted.notify_one();
        }
    }
}

impl Post {
    fn inbox(&self, node: &NodeId) -> String {
        format!("{}{node}{}", self.inboxes.0, self.inboxes.1)
    }

    async fn probe(&self) -> Result<(), BrokerError> {
        let mut subscribed = self.subscribed.subscribe();
        let mut refused = self.refused.subscribe();
        let token = rand::random();
        let (tell, mut told) = oneshot::channel();
        self.probes.lock().insert(token, Probe { tell, sent: false });
        let back = async {
            loop {
                // A probe that is sent while the inbox is not subscribed would be lost without a fault.
                if *subscribed.borrow_and_update() > 0 {
                    self.exchange().send(&self.node, Entry::Probe { token }, micros());
                    self.wake.notify_one();
                }
                tokio::select! {
                    answer = &mut told => return answer.ok(),
                    changed = subscribed.changed() => changed.ok()?,
                    words = refused.wait_for(Option::is_some) => {
                        return words.ok()?.clone().map(|words| Err(BrokerError::Refused(words)));
                    }
                }
            }
        };
        let answer = timeout(PROBE_TIMEOUT, back).await;
        let waiting = self.probes.lock().remove(&token);
        match answer {
            Ok(Some(outcome)) => outcome,
            _ if waiting.is_some_and(|probe| probe.sent) => {
                self.subscribed.send_replace(0);
                // What is published on one server is not heard on another.
                let [publishing, listening] = self.primaries().await;
                if let (Ok(publishing), Ok(listening)) = (publishing, listening)
                    && publishing != listening
                {
                    return self.move_together();
                }
                tracing::warn!("this node's inbox is silent; subscribing again");
                self.subscribe_again();
                Err(BrokerError::InboxSilent)
            }
            _ => Err(BrokerError::Unavailable("redis did not take a probe in time".to_owned())),
        }
    }

    /// Takes both connections to the server of the store. On a Cluster every server sends a command to the one that has
    /// the slot; a single address may lead to another server than before while the one before lives on.
    async fn follow(&self, server: &str) -> Result<(), BrokerError> {
        for found in self.primaries().await {
            if found.map_err(unproven)?.is_some_and(|found| found != server) {
                return self.move_together();
            }
        }
        Ok(())
    }

    /// The lineages of the servers that publish and that listen: empty for a replica, `None` on a Cluster.
    async fn primaries(&self) -> [Result<Option<String>, Failure>; 2] {
        if self.publishing.is_cluster() {
            return [Ok(None), Ok(None)];
        }
        let of = async |servers: &Servers| servers.primary(self.region).await.map(Some);
        let (publishing, listening) = tokio::join!(of(&self.publishing), of(&self.listening));
        [publishing, listening]
    }

    fn move_together(&self) -> Result<(), BrokerError> {
        self.publishing.reconnect(self.region);
        self.listening.reconnect(self.region);
        Err(BrokerError::Apart)
    }

    fn exchange(&self) -> MutexGuard<'_, Exchange> {
        self.exchange.lock()
    }

    /// Notes that Redis accepted these probes, or tells their callers that it did not.
    fn probes_went(&self, tokens: &[u64], outcome: Result<Vec<Value>, Failure>) {
        let mut probes = self.probes.lock();
        for token in tokens {
            match &outcome {
                Ok(_) => {
                    if let Some(probe) = probes.get_mut(token) {
                        probe.sent = true;
                    }
                }
                Err(failure) => {
                    if let Some(probe) = probes.remove(token) {
                        let _ = probe.tell.send(Err(unproven(failure.clone())));
                    }
                }
            }
        }
    }

    /// Reads one publication. Never waits or panics, whatever the publication contains.
    fn take_in(&self, publication: Bytes) {
        let (head, items) = match decode(&self.seal, &self.node, publication) {
            Ok(read) => read,
            Err(refused) => return self.ignore(refused),
        };
        let now = micros();
        let elapsed = Duration::from_micros(now.saturating_sub(head.sent_at));
        let mut exchange = self.exchange();
        if !exchange.heard(&head) {
            return;
        }
        let before = exchange.incoming(&head.from).and_then(|link| link.gap().cloned());
        for item in items {
            match item {
                Ok(item) => self.item(&mut exchange, &head, item, now, elapsed),
                Err(refused) => self.ignore(refused),
            }
        }
        // A new gap is asked about at once, an old one with the next heartbeat.
        if exchange.incoming(&head.from).is_some_and(|link| link.gap().is_some() && link.gap() != before.as_ref()) {
            exchange.ask(&head.from, now);
            self.wake.notify_one();
        }
    }

    fn item(&self, exchange: &mut Exchange, head: &Head, item: Item, now: u64, elapsed: Duration) {
        let text = item.text;
        match item.entry {
            Entry::Changed { number, session, version } => {
                self.deliver(exchange, head, number, elapsed, || Message { session, body: Body::Changed { version } });
            }
            Entry::Frame { number, session, route, .. } => self.deliver(exchange, head, number, elapsed, || Message {
                session,
                body: Body::Frame(RoutedFrame { route, text }),
            }),
            Entry::RecentStates { number, session, states } => {
                self.deliver(exchange, head, number, elapsed, || Message { session, body: Body::RecentStates(states) });
            }
            Entry::Last { number } => {
                if let Some(link) = exchange.incoming(&head.from) {
                    link.last_is(number);
                }
            }
            Entry::Missed { link, from, to } => self.lost(exchange, head, (link, from, to), now),
            Entry::Noted { link, from, to } => {
                if let Some(incoming) = exchange.incoming(&head.from).filter(|incoming| incoming.id == link) {
                    incoming.noted(&(from..=to));
                }
            }
            Entry::Probe { token } => {
                if let Some(probe) = self.probes.lock().remove(&token) {
                    let _ = probe.tell.send(Ok(()));
                }
            }
        }
    }

    fn deliver(
        &self,
        exchange: &mut Exchange,
        head: &Head,
        number: u64,
        elapsed: Duration,
        message: impl FnOnce() -> Message,
    ) {
        // Without room the number is not noted either, so the message counts as missing.
        let Ok(place) = self.deliveries.try_reserve() else { return };
        if exchange.incoming(&head.from).is_some_and(|link| link.arrived(number)) {
            self.metrics.delivered_after(elapsed);
            place.send(Delivery::Message { from: head.from.clone(), message: message() });
        }
    }

    /// Handles a report that another node misses messages of this one: tells the relay, then notes the report to the
    /// other node. A link that was dropped since then needs no resync, but the other node has to stop asking.
    fn lost(&self, exchange: &mut Exchange, head: &Head, (link, from, to): (u64, u64, u64), now: u64) {
        let missed = from..=to;
        if exchange.outgoing(&head.from, link).is_some_and(|outgoing| outgoing.is_unused(to)) {
            // The receiver would take all numbers from now on for repeated ones. What waits for it is lost with the link.
            let Ok(place) = self.deliveries.try_reserve() else { return };
            place.send(Delivery::Lost { to: head.from.clone(), sessions: None });
            tracing::warn!(node = %head.from, "another node reports numbers that were never sent; its link begins anew");
            exchange.restart(&head.from);
        } else if let Some(outgoing) = exchange.outgoing(&head.from, link)
            && let Some(sessions) = outgoing.lost(&missed)
        {
            // Without room the note is not sent, and the other node asks again.
            let Ok(place) = self.deliveries.try_reserve() else { return };
            place.send(Delivery::Lost { to: head.from.clone(), sessions });
            outgoing.note_reported(&missed);
        }
        exchange.send(&head.from, Entry::Noted { link, from, to }, now);
        self.wake.notify_one();
    }

    /// Counts a publication that is ignored, and tells the first one of each kind.
    fn ignore(&self, refused: Refused) {
        let (why, remedy) = match refused {
            Refused::Garbled => (Disbelief::Unreadable, "no node of this version writes such messages"),
            Refused::Forged(Forged::Unsigned) => (Disbelief::Unsigned, "give every node the same cluster-secret"),
            Refused::Forged(Forged::WronglySigned) => {
                (Disbelief::WronglySigned, "give every node the same cluster-secret, and find out who else can publish")
            }
        };
        self.metrics.refused_message(why);
        if !self.told[why as usize].swap(true, Ordering::Relaxed) {
            tracing::warn!(reason = why.label(), remedy, "a message from another node is ignored; this is told once");
        }
    }
}

/// Why the channels could not be shown to work.
fn unproven(failure: Failure) -> BrokerError {
    match failure {
        Failure::Unanswered(why) => BrokerError::Unavailable(why),
        refused => BrokerError::Refused(words_of(refused)),
    }
}

/// Redis's own words, or what is wrong with them.
fn words_of(failure: Failure) -> String {
    match failure {
        Failure::Refused(words) => words,
        other => other.to_string(),
    }
}

fn micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
