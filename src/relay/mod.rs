//! The relay of one node: it drives the rooms, and does what is due by the clock.
//!
//! What happens in a session is decided by its room ([`crate::room`]), which is pure. Around the rooms are:
//!
//! - `driver`: gives the rooms what happens, and performs their outputs; the store is asked in a task per conversation.
//! - `upkeep`: this node's leases, dead nodes, and a tick for every room.
//! - `sessions`: sessions as the HTTP API sees them.
//! - `measure`: snapshots for the metrics.
//! - `regions`: the lease of each region.
//! - `readiness`: whether the node can serve, and why not.

mod driver;
mod measure;
mod readiness;
mod regions;
mod sessions;
mod upkeep;

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::broker::{Body, Delivery, SharedBroker};
use crate::clock::{Clock, TimeSource};
use crate::control::{Join, Rules};
use crate::hub::{Hub, QueueLimits, Socket};
use crate::ids::{ClientId, ConnectionId, Millis, NodeId, ResumeToken, SessionId};
use crate::metrics::{JoinKind, Metrics};
use crate::presence::Timing;
use crate::protocol::{CloseReason, ErrorCode, Flow, Frame, FrameType};
use crate::random::Random;
use crate::room::Reply;
use crate::session::{Role, Strategy};
use crate::store::SharedStore;

pub use crate::room::RelayEvent;
pub use readiness::Readiness;
pub use sessions::{NewSession, RelayError, Stats};

use driver::{Driver, Input};
use regions::HeldRegions;
use upkeep::Upkeep;

/// How many deliveries are handled before the task yields.
const BATCH: usize = 64;

/// The target of the spans of decisions, all at level DEBUG: `join`, `decide`, `commit`. States have no spans.
pub const SPANS: &str = "gitorial_relay::decisions";

/// The settings of a relay.
#[derive(Clone, Debug)]
pub struct RelaySettings {
    /// The settings of the rules.
    pub rules: Rules,
    /// The intervals of the node leases.
    pub timing: Timing,
    /// The limits of one socket's queue.
    pub queue: QueueLimits,
    /// How long a session lives without activity, unless its creator says otherwise.
    pub session_ttl: Duration,
    /// How long a session lives at most.
    pub session_max_lifetime: Duration,
    /// How claims are decided, unless the session's creator says otherwise.
    pub strategy: Strategy,
    /// How often a client is pinged. A client that is silent for two intervals is disconnected.
    pub ping_interval: Duration,
    /// The largest number of sockets on this node.
    pub max_connections: usize,
    /// What the node measures time by.
    pub time: TimeSource,
}

impl Default for RelaySettings {
    fn default() -> Self {
        Self {
            rules: Rules::default(),
            timing: Timing::default(),
            queue: QueueLimits::default(),
            session_ttl: Duration::from_secs(30 * 60),
            session_max_lifetime: Duration::from_secs(12 * 60 * 60),
            strategy: Strategy::default(),
            ping_interval: Duration::from_secs(30),
            max_connections: 100_000,
            time: TimeSource::default(),
        }
    }
}

/// The relay of one node. Clones are cheap and share one relay.
#[derive(Clone, Debug)]
pub struct Relay {
    driver: Arc<Driver>,
}

/// The data that a socket presents to join a session.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// The session to join.
    pub session: SessionId,
    /// The id that the client asks for.
    pub client: Option<ClientId>,
    /// The proof that the client held this id before.
    pub resume: Option<ResumeToken>,
}

impl Relay {
    /// Creates a relay for the node `node` over this store and broker. It serves once [`Relay::upkeep`] runs.
    #[must_use]
    pub fn new(
        node: NodeId,
        store: SharedStore,
        broker: SharedBroker,
        metrics: Arc<Metrics>,
        settings: RelaySettings,
    ) -> Self {
        let clock = Arc::new(Clock::new(settings.time));
        let regions = HeldRegions::new(&node, &store, &broker, &clock, settings.timing);
        let driver = Driver {
            settings,
            store,
            broker,
            node,
            hub: Hub::new(regions.division()),
            regions,
            clock,
            metrics,
            events: broadcast::channel(1024).0,
            connections: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            tasks: TaskTracker::new(),
        };
        Self { driver: Arc::new(driver) }
    }

    /// This incarnation of the node.
    #[must_use]
    pub fn node(&self) -> &NodeId {
        &self.driver.node
    }

    /// The node's own time ([`Clock::local`]), by which frames are held.
    #[must_use]
    pub fn local_time(&self) -> Millis {
        self.driver.clock.local()
    }

    /// The node's metrics.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.driver.metrics
    }

    /// The settings of the relay.
    #[must_use]
    pub fn settings(&self) -> &RelaySettings {
        &self.driver.settings
    }

    /// Lets a socket into its session. The caller has to remove the returned socket by [`Relay::leave`].
    ///
    /// # Errors
    ///
    /// The reason for closing the socket.
    pub async fn join(&self, join_request: JoinRequest) -> Result<Arc<Socket>, CloseReason> {
        if self.driver.draining.load(Ordering::Acquire) {
            return Err(CloseReason::Drain);
        }
        if self.driver.regions.of(join_request.session).presence.term().is_none() {
            return Err(CloseReason::StoreUnavailable);
        }
        let join = Join {
            connection: ConnectionId::random(),
            wants: join_request.client,
            otherwise: ClientId::random(),
            asked_at: self.driver.clock.now().store,
            resume: join_request.resume.map(|token| token.digest()),
        };
        let span = tracing::debug_span!(target: SPANS, "join", session = join_request.session.tag());
        let mut joined = None;
        let answer = span.in_scope(|| {
            self.driver.submit(join_request.session, |room, ticket| {
                let socket = Arc::new(Socket::new(join.connection, room.clone()));
                joined = Some(socket.clone());
                Input::Join { join, socket, ticket }
            })
        });
        match (answer.get().instrument(span).await, joined) {
            (Reply::Joined { resumed }, Some(socket)) => {
                self.driver.metrics.join(if resumed { JoinKind::Resumed } else { JoinKind::New });
                Ok(socket)
            }
            (Reply::Closed(reason), _) => Err(reason),
            (Reply::Missing, _) => Err(CloseReason::SessionNotFound),
            (Reply::Unavailable | Reply::Done | Reply::Joined { .. }, _) => Err(CloseReason::StoreUnavailable),
        }
    }

    /// Removes a socket. `lost`: it broke without a close, so its client may come back.
    pub async fn leave(&self, socket: &Arc<Socket>, lost: bool) {
        let connection = socket.connection;
        // If the store is unavailable, the room keeps the note that its roster needs a repair.
        self.driver.submit(socket.room.id, |_, ticket| Input::Leave { connection, lost, ticket }).get().await;
    }

    /// Handles a text frame of this socket. `text` is UTF-8. If [`Socket::is_deciding`] is true afterwards, no other
    /// frame of the socket may be read until it is false.
    pub fn on_frame(&self, socket: &Arc<Socket>, text: Bytes) {
        match Frame::parse(text) {
            Ok(frame) => {
                self.driver.metrics.frame(frame.kind, Flow::In);
                self.driver.frame(socket, frame);
            }
            Err(malformed) => {
                self.driver.metrics.frame(FrameType::Unknown, Flow::In);
                self.refuse(socket, malformed.code());
            }
        }
    }

    /// Waits until the socket's last frame is decided. Only the task that drains the socket's queue may wait.
    pub async fn decided(&self, socket: &Socket) {
        poll_fn(|cx| {
            if !socket.is_deciding() {
                return Poll::Ready(());
            }
            socket.outbound.register(cx);
            // It may have been decided in between.
            if socket.is_deciding() { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    /// Refuses a binary frame, because other clients could not read it.
    pub fn on_binary(&self, socket: &Socket) {
        self.refuse(socket, ErrorCode::BinaryFrame);
    }

    fn refuse(&self, socket: &Socket, code: ErrorCode) {
        self.driver.step(&socket.room, Input::Malformed { connection: socket.connection, code });
    }

    /// The client has read everything before the probe with this number.
    pub fn on_pong(&self, socket: &Socket, number: u64) {
        self.driver.step(&socket.room, Input::Pong { connection: socket.connection, number });
    }

    /// The role of this socket's client as this node knows it.
    #[must_use]
    pub fn role_of(&self, socket: &Socket) -> Role {
        socket.room.lock().machine.role(socket.connection)
    }

    /// Handles the broker's deliveries until it is told to stop or the broker ends.
    pub async fn deliveries(self, mut inbox: mpsc::Receiver<Delivery>, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                received = inbox.recv_many(&mut batch, BATCH) => {
                    if received == 0 {
                        return;
                    }
                }
            }
            for delivery in batch.drain(..) {
                self.on_delivery(delivery);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Handles one delivery.
    pub fn on_delivery(&self, delivery: Delivery) {
        match delivery {
            Delivery::Message { from, message } => {
                // A document that names this node without a reason has lost a write, and only this node can correct it.
                let room = match message.body {
                    Body::Changed { .. } => Some(self.driver.hub.open(message.session)),
                    Body::Frame(_) | Body::RecentStates(_) => self.driver.hub.find(message.session),
                };
                if let Some(room) = room {
                    self.driver.step(&room, Input::Message { from, body: message.body });
                }
            }
            Delivery::Lost { to, sessions } => {
                self.driver.metrics.link_gaps.inc();
                let known = sessions.unwrap_or_else(|| self.driver.hub.rooms().iter().map(|room| room.id).collect());
                for id in known {
                    // A session whose last client here has left since still has its news to tell.
                    let room = self.driver.hub.open(id);
                    self.driver.step(&room, Input::Gap { to: to.clone() });
                    self.driver.close_if_idle(&room);
                }
            }
        }
    }

    /// Keeps the node's leases and does all timed work, until told to stop. Each region has a task, so that one whose
    /// server is away or silent delays no other.
    pub async fn upkeep(self, stop: CancellationToken) {
        let upkeep = |region| Upkeep::of(self.driver.clone(), region).run(stop.clone());
        join_all(self.driver.regions.division().iter().map(|region| self.driver.tasks.spawn(upkeep(region)))).await;
    }

    /// Does the timed work of one heartbeat: renews the leases, watches the other nodes, and does what is due.
    pub async fn on_tick(&self) {
        let upkeep = |region| Upkeep::of(self.driver.clone(), region);
        join_all(self.driver.regions.division().iter().map(async |region| upkeep(region).tick().await)).await;
    }

    /// Counts a new socket, unless the node is full. Dropping the pass uncounts the socket.
    #[must_use]
    pub fn admit(&self) -> Option<Admission> {
        let open = self.driver.connections.fetch_add(1, Ordering::AcqRel);
        self.driver.metrics.connections.inc();
        let admission = Admission { relay: self.clone() };
        (usize::try_from(open).unwrap_or(usize::MAX) < self.driver.settings.max_connections).then_some(admission)
    }

    /// The number of open sockets on this node.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.driver.connections.load(Ordering::Acquire)
    }

    /// Subscribes to the events in the sessions of this node's clients. A receiver that lags misses the oldest events.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<RelayEvent> {
        self.driver.events.subscribe()
    }

    /// The tasks that a shutdown waits for.
    #[must_use]
    pub fn tasks(&self) -> &TaskTracker {
        &self.driver.tasks
    }

    /// Refuses new sockets from now on.
    pub fn begin_drain(&self) {
        self.driver.draining.store(true, Ordering::Release);
    }

    /// The sockets of this node in the order in which a drain closes them: ACTIVE clients last.
    #[must_use]
    pub fn sockets_to_drain(&self) -> Vec<Arc<Socket>> {
        let mut sockets = Vec::new();
        for room in self.driver.hub.rooms() {
            let state = room.lock();
            let controller = state.machine.local_controller().map(|controller| controller.connection);
            let members = state.machine.members().iter();
            sockets.extend(members.map(|member| (Some(member.connection) == controller, member.socket.clone())));
        }
        sockets.sort_by_key(|(controls, _)| *controls);
        sockets.into_iter().map(|(_, socket)| socket).collect()
    }

    /// Gives this node's leases back: no client of this node is the controller any more, and the other nodes need not
    /// wait for them to lapse.
    pub async fn retire(&self) {
        self.driver.regions.retire().await;
    }
}

/// One counted socket.
#[derive(Debug)]
pub struct Admission {
    relay: Relay,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.relay.driver.connections.fetch_sub(1, Ordering::AcqRel);
        self.relay.driver.metrics.connections.dec();
    }
}
