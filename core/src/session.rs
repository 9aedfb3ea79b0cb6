//! The session document: the data that the store keeps of a session, and questions about it.
//!
//! The parts of the document have different writers:
//!
//! | part | content | writer |
//! | --- | --- | --- |
//! | [`Info`] | lifetime, strategy, metadata | the node that creates the session, once |
//! | [`Core`] | status, controller, epoch, pending claims | any node, by compare-and-swap |
//! | [`Roster`] | the clients of one node | that node; another node once its lease has lapsed |
//! | [`Activity`] | the times of the last frames on one node | that node |
//!
//! A client's role is not stored as one value. [`Session::role`] derives it:
//!
//! 1. The client that [`Core::controller`] names is ACTIVE.
//! 2. Otherwise the later of two assignments counts: [`Core::everyone`], which each change of control except a resume
//!    sets, and [`Client::given`], which one client alone was given. So a grant makes all other clients passive in one
//!    write of the core, and no roster has to change.
//!
//! A [`Core::transfer`] marks the first of the two steps in which control moves: the controller's node has not stopped
//! the controller yet, and the next controller still waits. Every grant raises [`Core::epoch`].
//!
//! The serialized form is the store's format. It is independent of the Rust names: see the `serde` attributes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::ids::{ClientId, ConnectionId, Epoch, Millis, NodeId};

/// How a claim is decided while another client is the controller (docs/protocol.md, "Claims").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The first claimant keeps control until it is taken, handed over or released.
    #[default]
    #[serde(alias = "FIRST_COME_FIRST_SERVED")]
    FirstComeFirstServed,
    /// The controller decides on every claim.
    #[serde(alias = "USER_CHOICE")]
    UserChoice,
    /// No claim is granted while there is a controller.
    #[serde(alias = "DENY_BOTH")]
    DenyBoth,
}

/// The state of a session's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Clients may join.
    #[default]
    Active,
    /// The session had no activity for its time to live, or reached its greatest age.
    Expired,
    /// The session was deleted. The document stays as a tombstone until the session's greatest age.
    Deleted,
}

/// A client's role in its session (docs/protocol.md, "Roles").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The client has no role: it has not chosen one, or there is no controller to follow.
    #[default]
    Connected,
    /// The client is the controller: its states go to all other clients.
    Active,
    /// The client is a follower.
    Passive,
}

/// The part of the document that is fixed when the session is created.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Info {
    /// When the session was created, in the store's time.
    pub created_at: Millis,
    /// How long the session lives without activity, in milliseconds.
    pub ttl: Millis,
    /// When the session ends in spite of activity, in the store's time.
    pub ends_at: Millis,
    /// How claims against a controller are decided.
    pub strategy: Strategy,
    /// The creator's metadata: any JSON, kept byte for byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Arc<RawValue>>,
}

/// The part of the document that decides about control. It is changed only by compare-and-swap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Core {
    /// Whether the session is active, expired or deleted.
    pub status: Status,
    /// The epoch of the last grant; zero before the first.
    pub epoch: Epoch,
    /// The client that is ACTIVE.
    #[serde(rename = "holder")]
    pub controller: Option<Controller>,
    /// The change of control that waits until the controller's node has stopped the controller.
    pub transfer: Option<Transfer>,
    /// The end of the last epoch that is over.
    pub ended: Option<Ended>,
    /// The last role that all clients except the controller were given at once.
    pub everyone: Assignment,
    /// Claims that wait for the controller's decision, oldest first.
    pub requests: Vec<Request>,
    /// The controller's open offer.
    pub offer: Option<Offer>,
    /// Connections whose place a newer socket of the same client has taken (docs/protocol.md, "Two sockets of one
    /// client").
    #[serde(default, rename = "replaced")]
    pub superseded: Vec<ConnectionId>,
    /// When control or a role of all clients last changed, or the session was created, in the store's time.
    pub changed_at: Millis,
    /// Until when no client is granted control, in the store's time; zero in a document that was never lost. The store
    /// lost this document, and a controller that the document no longer names may pass states until its node's lease
    /// lapses.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub doubtful_until: Millis,
}

impl Core {
    /// Orders the cores of one session: of two cores the one with the later grant is later, and with the same grant the
    /// one that changed later.
    #[must_use]
    pub const fn age(&self) -> (Epoch, Millis) {
        (self.epoch, self.changed_at)
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(time: &Millis) -> bool {
    *time == 0
}

/// A socket and the node that has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The node.
    pub node: NodeId,
    /// The socket.
    pub connection: ConnectionId,
}

/// The client that is ACTIVE, and the grant that made it so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Controller {
    /// Its socket.
    pub place: Place,
    /// The name by which its peers know it.
    pub client: ClientId,
    /// It did not ask for the role. Any claim is granted against it until it sends a role or state frame of its own
    /// (docs/protocol.md, "Giving up").
    pub provisional: bool,
    /// When it was granted the role, in the store's time.
    pub since: Millis,
}

/// A change of control that waits until the controller's node has stopped passing the controller's frames.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Transfer {
    /// The next controller, or `None` if control is given up.
    pub to: Option<Controller>,
    /// How the controller's epoch ends.
    pub how: EpochEnd,
}

/// How an epoch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpochEnd {
    /// Control went to another client: by a take, an accepted offer or a granted request.
    Taken,
    /// The controller gave control up, or left.
    Released,
    /// The same client came back on another socket. For all other clients nothing changed.
    Resumed,
}

/// The end of an epoch, kept for the nodes that have not told their clients yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ended {
    /// The epoch that ended.
    pub epoch: Epoch,
    /// The client that was the controller.
    pub client: ClientId,
    /// The socket of that client.
    pub connection: ConnectionId,
    /// How the epoch ended.
    pub how: EpochEnd,
}

/// A role and the number of the change that gave it. Of two assignments the one with the higher number counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Assignment {
    /// `Connected` or `Passive`. ACTIVE is never assigned here: [`Core::controller`] names the controller.
    pub role: Role,
    /// The number of the change, counted per session.
    pub change: u64,
}

/// A claim that waits for the controller's decision, for at most [`crate::control::Rules::pending`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The claimant's socket.
    pub place: Place,
    /// The claimant's name.
    pub client: ClientId,
    /// When the claim was made, in the store's time.
    pub at: Millis,
}

/// The controller's offer of control to the first client that accepts it. It is open for at most
/// [`crate::control::Rules::pending`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The name in the offer's envelope.
    pub client: ClientId,
    /// When the offer was made, in the store's time.
    pub at: Millis,
    /// The connections that have declined.
    pub declined: Vec<ConnectionId>,
}

/// The clients of one node in the session. Only that node writes the roster while its lease lasts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Roster {
    /// The clients, in the order of joining.
    pub clients: Vec<Client>,
}

/// The times of the last frames on one node. The node writes them beside its roster, and more often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Activity {
    /// The time of the last frame of any of its clients, in the store's time.
    pub seen_at: Millis,
    /// The time of the controller's last frame that was not an answer to a `request_sync`, in the store's time.
    pub drove_at: Millis,
}

/// How long after its return a client has done the handshake, in milliseconds, unless its socket is lost.
const HANDSHAKE_DUE: Millis = 500;

/// A client's place in the session, bound to one socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Its socket, or its last socket if it is cut off.
    pub connection: ConnectionId,
    /// The id in its `client_connected`.
    pub id: ClientId,
    /// The id in its own frames, once it has sent a frame with an id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<ClientId>,
    /// Whether it has done the handshake.
    #[serde(default)]
    pub modern: bool,
    /// The digest of the token that it may resume with ([`crate::ids::ResumeToken::digest`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<String>,
    /// The digest of the token that it came back with ([`Client::resumes_with`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume_before: Option<String>,
    /// When its socket joined, in the store's time.
    pub joined_at: Millis,
    /// Whether it has sent a frame.
    #[serde(default)]
    pub spoke: bool,
    /// The last role that this client alone was given.
    pub given: Assignment,
    /// When its socket was lost, in the store's time, while its place is kept for the grace period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_off_at: Option<Millis>,
}

impl Client {
    /// The name that its peers know it by: its own name if it has sent one, else the announced id.
    #[must_use]
    pub fn name(&self) -> &ClientId {
        self.alias.as_ref().unwrap_or(&self.id)
    }

    /// Whether its place is kept when its socket is lost: the client has a resume token.
    #[must_use]
    pub const fn may_return(&self) -> bool {
        self.resume.is_some() || self.resume_before.is_some()
    }

    /// Whether it says so when it gives control up. One that does not may be a controller that drives no more
    /// (docs/protocol.md, "Giving up").
    #[must_use]
    pub const fn announces_release(&self) -> bool {
        self.modern
    }

    /// Whether this place, as it is in the store, has everything that the client's node knows of it. If not, the store
    /// has lost a write, because nothing of it is ever taken back while the socket lives.
    #[must_use]
    pub fn knows_all_of(&self, ours: &Self) -> bool {
        (self.modern || !ours.modern)
            && (self.spoke || !ours.spoke)
            && (self.alias.is_some() || ours.alias.is_none())
            && (self.resume.is_some() || ours.resume.is_none())
    }

    /// This place, with what the client's node knows besides ([`Client::knows_all_of`]).
    #[must_use]
    pub fn with_all_of(&self, ours: &Self) -> Self {
        Self {
            alias: self.alias.clone().or_else(|| ours.alias.clone()),
            resume: self.resume.clone().or_else(|| ours.resume.clone()),
            modern: self.modern || ours.modern,
            spoke: self.spoke || ours.spoke,
            ..self.clone()
        }
    }

    /// Whether this digest proves that a socket belongs to this client. A token is used once. The token of the last
    /// return is good once more while the client is cut off, because it may never have read the new one, and if it has
    /// not got a new one in time: then its socket is lost, though its node could not write that (docs/protocol.md,
    /// "Leaving and coming back").
    #[must_use]
    pub fn resumes_with(&self, proof: &str, now: Millis) -> bool {
        let overdue = self.resume.is_none() && now >= self.joined_at.saturating_add(HANDSHAKE_DUE);
        let unread = self.cut_off_at.is_some() || overdue;
        let before = self.resume_before.as_ref().filter(|_| unread);
        [self.resume.as_ref(), before].into_iter().flatten().any(|digest| digest == proof)
    }

    /// Whether a frame that names `name` means this client.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        self.id.as_str() == name || self.alias.as_ref().is_some_and(|alias| alias.as_str() == name)
    }
}

/// A whole session document. Two documents are equal if everything that can change is.
#[derive(Clone, Debug)]
pub struct Session {
    /// The part that never changes.
    pub info: Arc<Info>,
    /// The part that decides about control.
    pub core: Core,
    /// The clients, by node.
    pub rosters: BTreeMap<NodeId, Roster>,
    /// The times of the last frames, by node.
    pub activity: BTreeMap<NodeId, Activity>,
}

impl PartialEq for Session {
    fn eq(&self, other: &Self) -> bool {
        (&self.core, &self.rosters, &self.activity) == (&other.core, &other.rosters, &other.activity)
    }
}

impl Eq for Session {}

impl Session {
    /// A session without clients.
    #[must_use]
    pub fn new(info: Arc<Info>) -> Self {
        let core = Core { changed_at: info.created_at, ..Core::default() };
        Self { info, core, rosters: BTreeMap::new(), activity: BTreeMap::new() }
    }

    /// All clients that have a place in the session, on all nodes, in no particular order. Clients that are cut off are
    /// included; superseded sockets are not.
    pub fn clients(&self) -> impl Iterator<Item = (&NodeId, &Client)> {
        self.rosters
            .iter()
            .flat_map(|(node, roster)| roster.clients.iter().map(move |client| (node, client)))
            .filter(|(_, client)| !self.core.superseded.contains(&client.connection))
    }

    /// The client on this socket, if it has a place.
    #[must_use]
    pub fn client(&self, connection: ConnectionId) -> Option<(&NodeId, &Client)> {
        self.clients().find(|(_, client)| client.connection == connection)
    }

    /// The node that cleans up at once after the nodes of `lapsed`: the first one with clients that is alive.
    #[must_use]
    pub fn first_alive(&self, lapsed: &BTreeSet<NodeId>) -> Option<&NodeId> {
        self.rosters.keys().find(|node| !lapsed.contains(*node))
    }

    /// The number of clients with a living socket (`clientCount` of the HTTP API).
    #[must_use]
    pub fn live_clients(&self) -> usize {
        self.clients().filter(|(_, client)| client.cut_off_at.is_none()).count()
    }

    /// The role of this client.
    #[must_use]
    pub fn role(&self, client: &Client) -> Role {
        if self.controls(client.connection) {
            Role::Active
        } else if self.core.everyone.change > client.given.change {
            self.core.everyone.role
        } else {
            client.given.role
        }
    }

    /// The role of this client as an assignment of its own, from which a lost place can be restored. For the controller
    /// the role is `Connected`, because ACTIVE is never assigned.
    #[must_use]
    pub fn assignment(&self, client: &Client) -> Assignment {
        let role = match self.role(client) {
            Role::Active => Role::Connected,
            role => role,
        };
        Assignment { role, change: self.core.everyone.change.max(client.given.change) }
    }

    /// The roles of all clients, by socket.
    #[must_use]
    pub fn roles(&self) -> HashMap<ConnectionId, Role> {
        self.clients().map(|(_, client)| (client.connection, self.role(client))).collect()
    }

    /// Whether this socket is the controller's.
    #[must_use]
    pub fn controls(&self, connection: ConnectionId) -> bool {
        self.core.controller.as_ref().is_some_and(|controller| controller.place.connection == connection)
    }

    /// The controller, if its states may pass. They may not while control is moving away, or while the controller is
    /// cut off, because then other nodes take control from it without asking its node.
    #[must_use]
    pub fn sending_controller(&self) -> Option<&Controller> {
        let controller = self.core.controller.as_ref().filter(|_| self.core.transfer.is_none())?;
        let (_, client) = self.client(controller.place.connection)?;
        (client.cut_off_at.is_none() && self.core.status == Status::Active).then_some(controller)
    }

    /// Whether a transfer is moving control to this socket.
    #[must_use]
    pub fn awaits(&self, connection: ConnectionId) -> bool {
        let to = self.core.transfer.as_ref().and_then(|transfer| transfer.to.as_ref());
        to.is_some_and(|to| to.place.connection == connection)
    }

    /// The time of the last activity, in the store's time: a join, a frame or a change of control.
    #[must_use]
    pub fn last_activity(&self) -> Millis {
        let joined = self.clients().map(|(_, client)| client.joined_at).max().unwrap_or(0);
        let seen = self.activity.values().map(|activity| activity.seen_at).max().unwrap_or(0);
        joined.max(seen).max(self.core.changed_at).max(self.info.created_at)
    }

    /// When the session ends without further activity, in the store's time.
    #[must_use]
    pub fn expires_at(&self) -> Millis {
        self.last_activity().saturating_add(self.info.ttl).min(self.info.ends_at)
    }

    /// The document that the node `here` writes at `now` after the store has lost it: with its own clients, and with
    /// their control if one of them is the controller. Until `doubtful_until` no client is granted control.
    #[must_use]
    pub fn restored(&self, here: &NodeId, now: Millis, doubtful_until: Millis) -> Self {
        let mut session = self.clone();
        session.rosters.retain(|node, _| node == here);
        session.activity.retain(|node, _| node == here);
        session.activity.entry(here.clone()).or_default().seen_at = now;
        let Core { epoch, controller, everyone, changed_at, superseded, .. } = session.core;
        let controller = controller.filter(|controller| controller.place.node == *here);
        session.core = Core { epoch, controller, everyone, changed_at, superseded, doubtful_until, ..Core::default() };
        session
    }

    /// The status at `now`. A session may have expired although no node has marked its document yet.
    #[must_use]
    pub fn status_at(&self, now: Millis) -> Status {
        match self.core.status {
            Status::Active if now >= self.expires_at() => Status::Expired,
            status => status,
        }
    }
}
