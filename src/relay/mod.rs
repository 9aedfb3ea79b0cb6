//! The relay of one node: what happens when a frame, a change or a tick arrives. The only module that knows all parts.
//!
//! - `frames`: a client's frames. The ACTIVE client's states pass at once; frames that need a decision go to the queue.
//! - `queue`: one queue per session, so that conflicts only happen between nodes: load the document, `decide`, commit,
//!   and perform the `outcome`.
//! - `notify`: a new document becomes frames for this node's clients.
//! - `ask`: the controller is asked for its state when a client may have missed it.
//! - `flush`: a client that is losing control is told, and the frames that it sent before are let through.
//! - `delivery`: messages from other nodes.
//! - `upkeep`: leases, time-outs, dead nodes, repairs.

mod ask;
mod decide;
mod delivery;
mod events;
mod flush;
mod frames;
mod measure;
mod notify;
mod outcome;
mod queue;
mod sessions;
mod upkeep;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::broker::SharedBroker;
use crate::clock::StoreClock;
use crate::control::{Event, Join, Rules};
use crate::hub::{Hub, Member, QueueLimits};
use crate::ids::{ClientId, ConnectionId, Millis, NodeId, ResumeToken, SessionId};
use crate::metrics::Metrics;
use crate::presence::{Presence, Timing};
use crate::protocol::CloseReason;
use crate::random::Random;
use crate::session::Strategy;
use crate::store::SharedStore;

pub use events::RelayEvent;
pub use frames::Handling;
pub use sessions::{NewSession, RelayError, Stats};

use queue::{Job, Reply};

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
        }
    }
}

/// Whether a node can serve, and the reason if it cannot (`/readyz`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// The node serves.
    Ready,
    /// The node has not reached its store yet.
    Starting,
    /// The node is shutting down.
    Draining,
    /// The node has been without its store for longer than its lease.
    StoreUnavailable,
    /// The node's own inbox stays silent, so that frames of other nodes would not arrive.
    InboxSilent,
}

impl Readiness {
    /// The reason in one sentence.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Ready => "serving",
            Self::Starting => "waiting for the store: it has not been reached yet",
            Self::Draining => "draining: this node is shutting down",
            Self::StoreUnavailable => {
                "the store cannot be reached; sockets stay open, and no session has a controller until it can"
            }
            Self::InboxSilent => "this node does not hear the others; it is subscribing again",
        }
    }
}

/// The relay of one node. Clones are cheap and share one relay.
#[derive(Clone, Debug)]
pub struct Relay {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: RelaySettings,
    store: SharedStore,
    broker: SharedBroker,
    presence: Presence,
    clock: Arc<StoreClock>,
    hub: Hub,
    metrics: Arc<Metrics>,
    events: broadcast::Sender<RelayEvent>,
    queues: Mutex<HashMap<SessionId, VecDeque<Job>>>,
    connections: AtomicU64,
    draining: AtomicBool,
    started: AtomicBool,
    inbox_silent: AtomicBool,
    tasks: TaskTracker,
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
        let clock = Arc::new(StoreClock::default());
        let presence = Presence::new(node, store.clone(), broker.clone(), clock.clone(), settings.timing);
        let inner = Inner {
            settings,
            store,
            broker,
            presence,
            clock,
            hub: Hub::default(),
            metrics,
            events: broadcast::channel(1024).0,
            queues: Mutex::default(),
            connections: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            started: AtomicBool::new(false),
            inbox_silent: AtomicBool::new(false),
            tasks: TaskTracker::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// This incarnation of the node.
    #[must_use]
    pub fn node(&self) -> &NodeId {
        &self.inner.presence.node
    }

    /// The node's metrics.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// The settings of the relay.
    #[must_use]
    pub fn settings(&self) -> &RelaySettings {
        &self.inner.settings
    }

    /// Whether this node can serve.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        if self.inner.draining.load(Ordering::Acquire) {
            Readiness::Draining
        } else if self.inner.presence.term().is_some() {
            Readiness::Ready
        } else if !self.inner.started.load(Ordering::Acquire) {
            Readiness::Starting
        } else if self.inner.inbox_silent.load(Ordering::Acquire) {
            Readiness::InboxSilent
        } else {
            Readiness::StoreUnavailable
        }
    }

    /// Lets a socket into its session. The caller has to remove the returned member by [`Relay::leave`].
    ///
    /// # Errors
    ///
    /// The reason for closing the socket.
    pub async fn join(&self, join_request: JoinRequest) -> Result<Arc<Member>, CloseReason> {
        if self.inner.draining.load(Ordering::Acquire) {
            return Err(CloseReason::Drain);
        }
        if self.inner.presence.term().is_none() {
            return Err(CloseReason::StoreUnavailable);
        }
        let join = Join {
            connection: ConnectionId::random(),
            wants: join_request.client,
            otherwise: ClientId::random(),
            resume: join_request.resume.map(|token| token.digest()),
        };
        let span = tracing::debug_span!(target: SPANS, "join", session = join_request.session.tag());
        match self.submit(join_request.session, Event::Join(join), None).instrument(span).await {
            Reply::Joined(member) => Ok(member),
            Reply::Closed(reason) => Err(reason),
            Reply::Missing => Err(CloseReason::SessionNotFound),
            Reply::Unavailable | Reply::Done => Err(CloseReason::StoreUnavailable),
        }
    }

    /// Removes a member. `lost`: the socket broke without a close, so its client may come back.
    pub async fn leave(&self, member: &Arc<Member>, lost: bool) {
        let event = Event::Leave { connection: member.connection, lost };
        // If the store is unavailable, the room keeps the note that its roster needs a repair.
        self.submit(member.room.id, event, None).await;
    }

    /// Counts a new socket, unless the node is full. Dropping the pass uncounts the socket.
    #[must_use]
    pub fn admit(&self) -> Option<Admission> {
        let open = self.inner.connections.fetch_add(1, Ordering::AcqRel);
        self.inner.metrics.connections.inc();
        let admission = Admission { relay: self.clone() };
        (usize::try_from(open).unwrap_or(usize::MAX) < self.inner.settings.max_connections).then_some(admission)
    }

    /// The number of open sockets on this node.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.inner.connections.load(Ordering::Acquire)
    }

    /// Subscribes to the events in the sessions of this node's clients. A receiver that lags misses the oldest events.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<RelayEvent> {
        self.inner.events.subscribe()
    }

    /// The tasks that a shutdown waits for.
    #[must_use]
    pub fn tasks(&self) -> &TaskTracker {
        &self.inner.tasks
    }

    /// Refuses new sockets from now on.
    pub fn begin_drain(&self) {
        self.inner.draining.store(true, Ordering::Release);
    }

    /// The members of this node in the order in which a drain closes them: ACTIVE clients last.
    #[must_use]
    pub fn members_to_drain(&self) -> Vec<Arc<Member>> {
        let mut members = Vec::new();
        for room in self.inner.hub.rooms() {
            let state = room.lock();
            let controller = state.controller.map(|controller| controller.connection);
            members.extend(state.members.iter().map(|member| (Some(member.connection) == controller, member.clone())));
        }
        members.sort_by_key(|(drives, _)| *drives);
        members.into_iter().map(|(_, member)| member).collect()
    }

    /// Gives this node's lease back: no client of this node is the controller any more, and the other nodes need not
    /// wait for the lease to lapse.
    pub async fn retire(&self) {
        self.inner.presence.retire().await;
    }

    fn now(&self) -> Millis {
        self.inner.clock.now()
    }

    fn emit(&self, event: RelayEvent) {
        if self.inner.events.receiver_count() > 0 {
            // An event without a receiver is no error.
            let _ = self.inner.events.send(event);
        }
    }
}

/// One counted socket.
#[derive(Debug)]
pub struct Admission {
    relay: Relay,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.relay.inner.connections.fetch_sub(1, Ordering::AcqRel);
        self.relay.inner.metrics.connections.dec();
    }
}
