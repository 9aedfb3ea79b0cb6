//! The relay of one node: what happens when a frame, a change or a tick comes in. The only place that knows all parts.
//!
//! - `frames`: a client's frame. The ACTIVE client's states pass at once; all that needs a decision goes to the queue.
//! - `queue`: one queue per session, so that conflicts only happen between nodes: load the document, `decide`, commit,
//!   and do what follows from the `outcome`.
//! - `tell`: a new document becomes frames for this node's clients.
//! - `ask`: whoever drives is asked for its state when somebody may have missed it.
//! - `flush`: a client that is losing control is told, and what it had sent before is let through.
//! - `delivery`: what other nodes send.
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

/// The target of the spans around what is decided, all at level DEBUG: `join`, `decide`, `commit`. States have none.
pub const SPANS: &str = "gitorial_relay::decisions";

/// The numbers a relay works with.
#[derive(Clone, Debug)]
pub struct RelaySettings {
    /// Those in the rules.
    pub rules: Rules,
    /// Those of the node leases.
    pub timing: Timing,
    /// How much may wait for one socket.
    pub queue: QueueLimits,
    /// How long a session lives without activity unless its creator says otherwise.
    pub session_ttl: Duration,
    /// How long it lives at most.
    pub session_max_lifetime: Duration,
    /// How claims are decided unless its creator says otherwise.
    pub strategy: Strategy,
    /// How often a client is pinged; silent for two intervals it is given up.
    pub ping_interval: Duration,
    /// How many sockets this node takes.
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

/// Whether a node can serve, and if not, why (`/readyz`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It can.
    Ready,
    /// It has not reached its store yet.
    Starting,
    /// It is shutting down.
    Draining,
    /// It has lost its store for longer than its lease.
    StoreUnavailable,
    /// Its own inbox stays silent: other nodes' frames would not arrive.
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
                "the store cannot be reached; sockets stay open and nobody can drive until it can"
            }
            Self::InboxSilent => "this node does not hear the others; it is subscribing again",
        }
    }
}

/// The relay of one node. Cheap to clone; every clone is the same relay.
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

/// What a socket shows at the door.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// The session it wants into.
    pub session: SessionId,
    /// The id it asks to be known by.
    pub client: Option<ClientId>,
    /// Its proof of having been that client before.
    pub resume: Option<ResumeToken>,
}

impl Relay {
    /// A relay for the node `node` over this store and broker. It serves once [`Relay::upkeep`] runs.
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

    /// The numbers it works with.
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

    /// Lets a socket into its session. Whoever gets a seat has to give it back by [`Relay::leave`].
    ///
    /// # Errors
    ///
    /// The reason to close the socket with.
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

    /// Gives a seat back. `lost`: the socket went without a goodbye, so its client may come back.
    pub async fn leave(&self, member: &Arc<Member>, lost: bool) {
        let event = Event::Leave { connection: member.connection, lost };
        // If the store is away the room remembers that its roster has to be mended.
        self.submit(member.room.id, event, None).await;
    }

    /// Counts a socket in, unless the node has as many as it takes. The socket is counted out when the pass is dropped.
    #[must_use]
    pub fn admit(&self) -> Option<Admission> {
        let open = self.inner.connections.fetch_add(1, Ordering::AcqRel);
        self.inner.metrics.connections.inc();
        let admission = Admission { relay: self.clone() };
        (usize::try_from(open).unwrap_or(usize::MAX) < self.inner.settings.max_connections).then_some(admission)
    }

    /// Counts the sockets that are open on this node.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.inner.connections.load(Ordering::Acquire)
    }

    /// What happens in the sessions of this node's clients, from now on. A receiver that lags misses the oldest.
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

    /// The seats of this node in the order a drain closes them: ACTIVE clients last.
    #[must_use]
    pub fn members_to_drain(&self) -> Vec<Arc<Member>> {
        let mut members = Vec::new();
        for room in self.inner.hub.rooms() {
            let state = room.lock();
            let driver = state.driver.map(|driver| driver.connection);
            members.extend(state.members.iter().map(|member| (Some(member.connection) == driver, member.clone())));
        }
        members.sort_by_key(|(drives, _)| *drives);
        members.into_iter().map(|(_, member)| member).collect()
    }

    /// Gives this node's lease back: nobody drives here any more, and the others need not wait for it to lapse.
    pub async fn retire(&self) {
        self.inner.presence.retire().await;
    }

    fn now(&self) -> Millis {
        self.inner.clock.now()
    }

    fn emit(&self, event: RelayEvent) {
        if self.inner.events.receiver_count() > 0 {
            // Nobody listening any more is no error.
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
