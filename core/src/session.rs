//! The session document: what the store keeps of a session, and the questions one can ask of it. Pure data.
//!
//! It has three parts with different writers. [`Info`] never changes. [`Core`] says who drives and is changed by
//! compare-and-swap. Each node writes its own [`Roster`], so that joins on different nodes never conflict.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::ids::{ClientId, ConnectionId, Epoch, Millis, NodeId};

/// How a claim is decided while somebody else is ACTIVE (docs/protocol.md, "Claims").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Whoever came first keeps control until it is taken, offered or released.
    #[default]
    #[serde(alias = "FIRST_COME_FIRST_SERVED")]
    FirstComeFirstServed,
    /// The ACTIVE client decides on every claim.
    #[serde(alias = "USER_CHOICE")]
    UserChoice,
    /// No claim is granted while somebody is ACTIVE.
    #[serde(alias = "DENY_BOTH")]
    DenyBoth,
}

/// Whether a session is still one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Clients may join.
    #[default]
    Active,
    /// Nothing happened in it for its time to live, or it reached its greatest age.
    Expired,
    /// Somebody deleted it. The document stays as a tombstone until its greatest age.
    Deleted,
}

/// A client's role in its session (docs/protocol.md, "Roles").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// No role chosen, or nobody drives.
    #[default]
    Connected,
    /// Drives: its states go to all others.
    Active,
    /// Follows.
    Passive,
}

/// What is fixed when a session is created.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Info {
    /// When it was created, in the store's time.
    pub created_at: Millis,
    /// How long it lives without activity, in milliseconds.
    pub ttl: Millis,
    /// When it ends however busy it is.
    pub ends_at: Millis,
    /// How claims against a holder are decided.
    pub strategy: Strategy,
    /// What the creator attached to it: any JSON, kept as it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Arc<RawValue>>,
}

/// The part of the document that decides: changed only by compare-and-swap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Core {
    /// Alive, expired or deleted.
    pub status: Status,
    /// The epoch of the last grant; zero before the first.
    pub epoch: Epoch,
    /// The ACTIVE client.
    #[serde(rename = "holder")]
    pub controller: Option<Controller>,
    /// Whom the holder's role goes to once the holder's node has stopped it.
    pub transfer: Option<Transfer>,
    /// How the last epoch that is over ended.
    pub ended: Option<Ended>,
    /// The last role that was given to everybody but the holder at once.
    pub everyone: Assignment,
    /// Claims that wait for the holder's decision, oldest first.
    pub requests: Vec<Request>,
    /// The holder's standing offer.
    pub offer: Option<Offer>,
    /// Connections whose place a newer socket of the same client took (docs/protocol.md, "Two sockets of one client").
    #[serde(default, rename = "replaced")]
    pub superseded: Vec<ConnectionId>,
    /// When a role last changed or the session was created, in the store's time.
    pub changed_at: Millis,
    /// Until when nobody is granted control anew, in the store's time: the store lost this document, and a holder that
    /// it does not know any more may drive as long as its node's lease lasts.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub doubtful_until: Millis,
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

/// Who is ACTIVE, and since which grant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Controller {
    /// Where it is.
    pub place: Place,
    /// By what name its peers know it.
    pub client: ClientId,
    /// It did not ask for the role: any claim beats it until it sends something of its own.
    pub provisional: bool,
    /// When it was granted the role.
    pub since: Millis,
}

/// A change of control that waits for the old holder's node to stop letting its frames through.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Transfer {
    /// Who gets the role, or `None` when it is given up.
    pub to: Option<Controller>,
    /// How the old holder's epoch ends.
    pub how: EpochEnd,
}

/// How an epoch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpochEnd {
    /// Control went to another: by a take, an accepted offer or a granted request.
    Taken,
    /// The holder gave it up or left.
    Released,
    /// The same client came back on another socket: for all others nothing changed.
    Resumed,
}

/// The end of an epoch, for those who still have to be told.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ended {
    /// Which epoch.
    pub epoch: Epoch,
    /// Whose it was.
    pub client: ClientId,
    /// The socket it was held by.
    pub connection: ConnectionId,
    /// How it ended.
    pub how: EpochEnd,
}

/// A role and the change that gave it; of two, the later change counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Assignment {
    /// `Connected` or `Passive`: ACTIVE is what [`Core::controller`] says.
    pub role: Role,
    /// The number of the change.
    pub change: u64,
}

/// A claim that waits for the holder's decision, for at most [`crate::control::Rules::pending`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Request {
    /// Who claims.
    pub place: Place,
    /// Its name.
    pub client: ClientId,
    /// Since when.
    pub at: Millis,
}

/// The holder's offer of control to whoever accepts first, for at most [`crate::control::Rules::pending`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Offer {
    /// The name in the offer's envelope.
    pub client: ClientId,
    /// Since when.
    pub at: Millis,
    /// Who said no.
    pub declined: Vec<ConnectionId>,
}

/// One node's clients of the session. Written by that node alone while it lives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Roster {
    /// In the order of joining.
    pub clients: Vec<Client>,
}

/// What a node last reported of its clients' doings, written beside its roster and more often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    /// The last frame of any of its clients, in the store's time.
    pub seen_at: Millis,
    /// The last frame of the holder that was no answer to a `request_sync`.
    pub drove_at: Millis,
}

/// A client's place in the session, bound to one socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Client {
    /// Its socket, or its last one if it is cut off.
    pub connection: ConnectionId,
    /// The id that the relay announced it by.
    pub id: ClientId,
    /// The id in its own frames, once it has sent one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<ClientId>,
    /// It has done the handshake.
    #[serde(default)]
    pub modern: bool,
    /// The digest of the token it may resume with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<String>,
    /// The digest of the token that it came back with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume_before: Option<String>,
    /// When its socket opened.
    pub joined_at: Millis,
    /// It has sent a frame.
    #[serde(default)]
    pub spoke: bool,
    /// The role that it, alone, was last given.
    pub given: Assignment,
    /// Since when its socket is gone, while its place is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_off_at: Option<Millis>,
}

impl Client {
    /// The name that its peers see in its frames: its own if it has given one.
    #[must_use]
    pub fn name(&self) -> &ClientId {
        self.alias.as_ref().unwrap_or(&self.id)
    }

    /// Whether its place is kept for it when its socket is lost.
    #[must_use]
    pub const fn may_return(&self) -> bool {
        self.resume.is_some() || self.resume_before.is_some()
    }

    /// Whether this proof is that of this client. A token is used once; should the socket that it was used for be lost,
    /// its client may never have read the next one.
    #[must_use]
    pub fn resumes_with(&self, proof: &str) -> bool {
        let before = self.resume_before.as_ref().filter(|_| self.cut_off_at.is_some());
        [self.resume.as_ref(), before].into_iter().flatten().any(|digest| digest == proof)
    }

    /// Whether a frame that names `name` means this client.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        self.id.as_str() == name || self.alias.as_ref().is_some_and(|alias| alias.as_str() == name)
    }
}

/// A whole session document.
#[derive(Clone, Debug)]
pub struct Session {
    /// What never changes.
    pub info: Arc<Info>,
    /// What decides.
    pub core: Core,
    /// The clients, by node.
    pub rosters: BTreeMap<NodeId, Roster>,
    /// What the nodes reported, by node.
    pub activity: BTreeMap<NodeId, Activity>,
}

impl Session {
    /// A session nobody has joined yet.
    #[must_use]
    pub fn new(info: Arc<Info>) -> Self {
        let core = Core { changed_at: info.created_at, ..Core::default() };
        Self { info, core, rosters: BTreeMap::new(), activity: BTreeMap::new() }
    }

    /// Every client that has a place, in no particular order: those on other nodes and those cut off included, sockets
    /// that a newer one replaced left out.
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

    /// How many clients have a living socket (`clientCount` of the HTTP API).
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

    /// The role of this client as an assignment of its own, to give it back by: ACTIVE is not given in this way.
    #[must_use]
    pub fn assignment(&self, client: &Client) -> Assignment {
        let role = match self.role(client) {
            Role::Active => Role::Connected,
            role => role,
        };
        Assignment { role, change: self.core.everyone.change.max(client.given.change) }
    }

    /// Every role at once, by socket.
    #[must_use]
    pub fn roles(&self) -> HashMap<ConnectionId, Role> {
        self.clients().map(|(_, client)| (client.connection, self.role(client))).collect()
    }

    /// Whether this socket is the ACTIVE client's.
    #[must_use]
    pub fn controls(&self, connection: ConnectionId) -> bool {
        self.core.controller.as_ref().is_some_and(|controller| controller.place.connection == connection)
    }

    /// The ACTIVE client, if its states may pass: not while control is leaving it, and not while it is cut off, since
    /// others take control from it then without asking its node.
    #[must_use]
    pub fn driver(&self) -> Option<&Controller> {
        let controller = self.core.controller.as_ref().filter(|_| self.core.transfer.is_none())?;
        let (_, client) = self.client(controller.place.connection)?;
        (client.cut_off_at.is_none() && self.core.status == Status::Active).then_some(controller)
    }

    /// Whether control is on its way to this socket.
    #[must_use]
    pub fn awaits(&self, connection: ConnectionId) -> bool {
        let to = self.core.transfer.as_ref().and_then(|transfer| transfer.to.as_ref());
        to.is_some_and(|to| to.place.connection == connection)
    }

    /// The last activity, in the store's time.
    #[must_use]
    pub fn last_activity(&self) -> Millis {
        let joined = self.clients().map(|(_, client)| client.joined_at).max().unwrap_or(0);
        let seen = self.activity.values().map(|activity| activity.seen_at).max().unwrap_or(0);
        joined.max(seen).max(self.core.changed_at).max(self.info.created_at)
    }

    /// When it ends if nothing more happens.
    #[must_use]
    pub fn expires_at(&self) -> Millis {
        self.last_activity().saturating_add(self.info.ttl).min(self.info.ends_at)
    }

    /// The status at `now`: a document that nobody has marked yet may have expired all the same.
    #[must_use]
    pub fn status_at(&self, now: Millis) -> Status {
        match self.core.status {
            Status::Active if now >= self.expires_at() => Status::Expired,
            status => status,
        }
    }
}
