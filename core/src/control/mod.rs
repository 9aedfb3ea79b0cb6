//! The decision: which client has control. The rules of docs/protocol.md, "Roles", as one pure function.
//!
//! [`apply`] takes a document, an [`Event`] and a [`Context`] (the node, the time, the nodes whose lease has lapsed).
//! It returns the document after the event, and [`Effect`]s: frames to refuse, forward or hold, and connections to
//! close. It reads no clock and sends nothing, so that a property test can run it through any interleaving of nodes. A
//! caller that loses the compare-and-swap drops the result and applies the event to the new document.
//!
//! Roles and presence are not effects. Each node computes them from the new document ([`crate::reconcile`]).
//!
//! # How an event is applied
//!
//! 1. `due` makes the changes that time alone causes: it expires the session, cuts off the clients of lapsed nodes,
//!    ends grace periods, completes transfers, and drops overdue requests and offers. The node that loads the document
//!    first makes them, so no timer has to be exact.
//! 2. The event itself changes the document. Joins, frames and deletes do not change a session that is over.
//!
//! # How control moves
//!
//! A claim is granted, refused, or waits for the controller's decision; the session's
//! [`Strategy`](crate::session::Strategy) decides. A granted claim moves control in one step if there is no controller,
//! or if none of the controller's frames can pass any more: it is cut off, its node's lease has lapsed, or its own node
//! applies the event and has no frame of it left to read. Otherwise control moves in two steps. The first sets
//! [`Core::transfer`](crate::session::Core::transfer). The controller's node reads that and stops the controller; the
//! next event that it applies completes the transfer (`due`). So at most one client passes states at any time, and no
//! state of an older epoch follows one of a newer epoch.
//!
//! # Modules
//!
//! - `frames`: each role frame.
//! - `claim`: the decision on a claim, and the steps in which control moves.
//! - `members`: joins, leaves, resumes, the handshake, and repairs after a fault.
//! - `due`: the changes that time alone causes.

mod claim;
mod due;
mod frames;
mod members;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::ids::{ClientId, ConnectionId, Epoch, Millis, NodeId};
use crate::protocol::{CloseReason, ErrorCode};
use crate::session::{Client, Core, Place, Role, Session};

pub use members::Join;

/// The limits in the rules.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The grace period: how long a cut-off client keeps its place.
    pub grace: Duration,
    /// How long a request or an offer waits for an answer.
    pub pending: Duration,
    /// A controller that may give control up without a frame, and has sent nothing but answers for so long, yields to
    /// any ask.
    pub quiet: Duration,
    /// How many claims may wait at once under `user_choice`.
    pub max_requests: usize,
    /// How many clients a session may have.
    pub max_clients: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(15),
            pending: Duration::from_secs(30),
            quiet: Duration::from_secs(30),
            max_requests: 16,
            max_clients: 256,
        }
    }
}

/// Where and when an event is applied.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The node that applies the event. If the outcome may move control, the node stops its
    /// own controller before it writes.
    pub here: &'a NodeId,
    /// The store's time.
    pub now: Millis,
    /// The nodes whose lease has lapsed, as far as this node has seen.
    pub lapsed: &'a BTreeSet<NodeId>,
    /// The controller of this node, and its epoch, if all frames that may still pass have been read. The node knows how
    /// its clients learn of a loss, and so when that is.
    pub flushed: Option<(ConnectionId, Epoch)>,
    /// The limits.
    pub rules: &'a Rules,
}

/// A change that a node applies to a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A socket opened.
    Join(Join),
    /// A socket of this node closed.
    Leave {
        /// The socket.
        connection: ConnectionId,
        /// Whether the socket was lost without a goodbye, so that its client may come back.
        lost: bool,
    },
    /// This node claims the places of its clients again. Living sockets of it are missing from the document or marked
    /// as cut off, or its lease had lapsed, so that other nodes may be about to cut them off. A controller among them
    /// goes on in a new epoch. After the store has lost data, the clients of this node that are cut off and may come
    /// back are included.
    Rejoin {
        /// Their places as this node last knew them, with the role of each ([`Session::assignment`]).
        clients: Vec<Client>,
        /// The client that had control when the store lost data, if this node is sure that no other client was granted
        /// control since.
        held: Option<ConnectionId>,
    },
    /// The store may have lost its last confirmed writes. The value is the core as this node last saw it.
    RestoreCore(Box<Core>),
    /// A client gets a resume token, by which it can prove that it is back.
    Handshake {
        /// The client's socket.
        connection: ConnectionId,
        /// The digest of the token ([`crate::ids::ResumeToken::digest`]).
        resume: String,
    },
    /// A client sent a frame that affects roles, or its first frame.
    Frame {
        /// The sender's socket.
        connection: ConnectionId,
        /// The `clientId` of the frame.
        alias: Option<ClientId>,
        /// What is known of the epoch in which the frame was sent.
        stamp: Stamp,
        /// What the frame asks for.
        intent: Intent,
    },
    /// The session is deleted.
    Delete,
    /// No event of its own: only what is due is done.
    Due,
}

impl Event {
    /// The socket that joins or leaves by this event, if one does.
    #[must_use]
    pub const fn socket(&self) -> Option<ConnectionId> {
        match self {
            Self::Join(join) => Some(join.connection),
            Self::Leave { connection, .. } => Some(*connection),
            Self::Rejoin { .. } | Self::RestoreCore(_) | Self::Handshake { .. } => None,
            Self::Frame { .. } | Self::Delete | Self::Due => None,
        }
    }
}

/// What is known of the epoch in which a frame was sent, and so of what its sender believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stamp {
    /// The sender names the last epoch that it was told, if it was told one. It believes the role that it is told, and
    /// asks for another.
    Named(Option<Epoch>),
    /// The sender names no epochs. The value is the epoch in which it was the controller when the frame arrived, if it
    /// was. It acts first: a frame that only a controller sends says that its sender believes to have control. If the
    /// sender is not the controller when the frame is decided, the frame was under way when the sender lost control.
    Seen(Option<Epoch>),
}

/// What a frame asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Intent {
    /// Nothing: the client's first frame, which does not affect roles.
    Speak,
    /// `coordinate_sync_direction`: ACTIVE or PASSIVE.
    Coordinate(Direction),
    /// `request_control`.
    Request,
    /// `offer_control`, with the name in its envelope.
    Offer(ClientId),
    /// `accept_control`, with the `fromClientId` of its payload.
    Accept(Option<String>),
    /// `decline_control`, with the `fromClientId` of its payload.
    Decline(Option<String>),
    /// `release_control`.
    Release,
    /// `state_update`.
    State(StateKind),
}

/// The direction that a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// ACTIVE: to control.
    Active,
    /// PASSIVE: to follow.
    Passive,
}

/// What a `state_update` can be, by what its sender's connection knows (docs/protocol.md, "States").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StateKind {
    /// An answer to an open `request_sync`.
    Answer,
    /// The one initial push that its sender may make after its own coordinate PASSIVE.
    InitialPush,
    /// Neither of them: a state that only the controller may send.
    Drive,
}

/// What the relay has to do besides storing the document and telling roles and presence.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// The frame is refused with this code.
    Reject(ConnectionId, ErrorCode),
    /// The connection is closed for this reason.
    Close(ConnectionId, CloseReason),
    /// The frame that caused the event goes to all other clients.
    ForwardToOthers,
    /// The frame goes to the client that loses control by it, together with the news of the loss.
    ForwardToLoser(Place),
    /// The controller is asked to decide a claim. It gets the frame itself if that is a `request_control`, else a
    /// `request_control` in the claimant's name.
    AskController {
        /// The controller's socket.
        controller: Place,
        /// The claimant's name.
        claimant: ClientId,
    },
    /// The state goes to all other clients.
    PassState,
    /// The state goes to the clients that asked its sender for it.
    PassAnswer,
    /// The frame waits with its connection until the transfer ends. It is sent on if its sender gets control, else
    /// dropped.
    HoldFrame,
    /// The frame is dropped without an answer: it was under way when its sender lost control or its place.
    Drop,
    /// A change of control or a refusal is counted in the metrics.
    Count(Transition),
}

/// A kind of decision about control, for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transition {
    /// Control was granted.
    Granted,
    /// The controller's node has to stop the controller before another client is granted control.
    Revoking,
    /// The controller gave control up, or left.
    Released,
    /// A claim was refused.
    Refused,
}

impl Transition {
    /// All kinds, each with its label in the metrics.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Granted, "granted"),
        (Self::Revoking, "revoking"),
        (Self::Released, "released"),
        (Self::Refused, "refused"),
    ];
}

/// The result of [`apply`].
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The document after the event.
    pub session: Session,
    /// The effects, in the order in which they happen.
    pub effects: Vec<Effect>,
}

/// Makes the changes that are due at `context.now`, then applies `event`. The input document is not changed.
#[must_use]
pub fn apply(session: &Session, event: &Event, context: Context<'_>) -> Outcome {
    let mut decider = Decider { context, session: session.clone(), actor: None, effects: Vec::new() };
    decider.due();
    decider.event(event);
    Outcome { session: decider.session, effects: decider.effects }
}

/// Decides one event: the document and the effects so far.
struct Decider<'a> {
    context: Context<'a>,
    session: Session,
    /// The sender of the frame that is applied, if the event is a frame.
    actor: Option<ConnectionId>,
    effects: Vec<Effect>,
}

impl Decider<'_> {
    fn event(&mut self, event: &Event) {
        let over = self.session.core.status != crate::session::Status::Active;
        match event {
            // A session that is over does not change any more, so its status stays the first one that ended it.
            Event::Frame { .. } if over => self.emit(Effect::Drop),
            Event::Delete if over => {}
            Event::Join(join) => self.join(join),
            Event::Leave { connection, lost } => self.leave(*connection, *lost),
            Event::Rejoin { clients, held } => self.rejoin(clients, *held),
            Event::RestoreCore(core) => self.remember(core),
            Event::Handshake { connection, resume } => self.handshake(*connection, resume),
            Event::Frame { connection, alias, stamp, intent } => {
                self.frame(*connection, alias.as_ref(), *stamp, intent);
            }
            Event::Delete => self.session.core.status = crate::session::Status::Deleted,
            Event::Due => {}
        }
    }

    fn emit(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    fn reject(&mut self, connection: ConnectionId, code: ErrorCode) {
        self.emit(Effect::Reject(connection, code));
    }

    /// Gives one client a role of its own, which lasts until the next change for all clients.
    fn give(&mut self, connection: ConnectionId, role: Role) {
        let change = self.session.core.everyone.change;
        if let Some(client) = self.own_client(connection) {
            client.given = crate::session::Assignment { role, change };
        }
    }

    /// A client of this node.
    fn own_client(&mut self, connection: ConnectionId) -> Option<&mut Client> {
        let roster = self.session.rosters.get_mut(self.context.here)?;
        roster.clients.iter_mut().find(|client| client.connection == connection)
    }
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}
