//! Who may drive: the rules of docs/protocol.md, "Roles", as a pure function.
//!
//! [`apply`] takes a session document and something that happened, and returns the document as it is afterwards and what
//! has to be sent besides. It reads no clock, awaits nothing and sends nothing, so that a property test can drive it
//! through a million interleavings. Roles and presence are not among its effects: whoever has a new document tells its
//! clients by [`crate::reconcile`].
//!
//! Where things are: [`claim`](self) decides who gets control and moves it, `frames` reads each role frame, `members`
//! has joins, leaves, resumes and dead nodes, `due` has what happens by itself when time passes.

mod claim;
mod due;
mod frames;
mod members;

use std::collections::HashSet;
use std::time::Duration;

use crate::ids::{ClientId, ConnectionId, Epoch, Millis, NodeId};
use crate::protocol::{CloseReason, ErrorCode};
use crate::session::{Client, Core, Place, Role, Session};

pub use members::Join;

/// The numbers in the rules.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How long a cut-off client keeps its place.
    pub grace: Duration,
    /// How long a request or an offer waits for an answer.
    pub pending: Duration,
    /// After how long without a frame of its own a holder without the handshake may have let go silently.
    pub quiet: Duration,
    /// How many claims may wait at once.
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
    /// The node that applies it. It has already stopped its own holder if the outcome may move control.
    pub here: &'a NodeId,
    /// The store's time.
    pub now: Millis,
    /// The nodes whose lease this node has seen lapse.
    pub lapsed: &'a HashSet<NodeId>,
    /// The controller here that knows that control is leaving it, and whose last frames have all been read; and its epoch.
    pub flushed: Option<(ConnectionId, Epoch)>,
    /// The numbers.
    pub rules: &'a Rules,
}

/// Something that happened in a session.
#[derive(Clone, Debug)]
pub enum Event {
    /// A socket opened.
    Join(Join),
    /// A socket of this node closed. `lost`: without a goodbye, so that its client may come back.
    Leave {
        /// Which.
        connection: ConnectionId,
        /// Whether the client may come back.
        lost: bool,
    },
    /// Living sockets of this node are missing from the document or marked as cut off, or its lease had lapsed, so that
    /// others may be about to do that. If the holder is among them, this is a new grant. After the store has lost its memory
    /// those are among them, too, that are cut off and may come back.
    Rejoin {
        /// Their places as they were, with the role of each ([`Session::assignment`]).
        clients: Vec<Client>,
        /// The one that drove, if it may go on: the store has lost its memory, so nobody else was let drive since.
        held: Option<ConnectionId>,
    },
    /// The store may have forgotten what it last confirmed, and this is the core as this node last saw it.
    RestoreCore(Box<Core>),
    /// A client did the handshake; it may resume with the token of this digest.
    Handshake {
        /// Which.
        connection: ConnectionId,
        /// The digest of its next token.
        resume: String,
    },
    /// A client sent a frame that decides about roles, or the first frame of all.
    Frame {
        /// Whose.
        connection: ConnectionId,
        /// The `clientId` it carries.
        alias: Option<ClientId>,
        /// The `epoch` it carries. For one that carries none: the epoch that its sender drove in when it came in, if it
        /// did. If it drives no more when the frame is decided on, the frame was under way when it lost control.
        epoch: Option<Epoch>,
        /// What it wants.
        intent: Intent,
    },
    /// Somebody deletes the session.
    Delete,
    /// Nothing: only what is due.
    Tick,
}

impl Event {
    /// Whether what comes of it depends on more than its own node's roster. Such a decision is written only over the core
    /// that it was made on, even if it leaves that core as it is: of two that are made at once the second sees the first.
    #[must_use]
    pub const fn reads_whole_document(&self) -> bool {
        match self {
            Self::Join(_) | Self::Rejoin { .. } | Self::RestoreCore(_) | Self::Frame { .. } | Self::Delete => true,
            Self::Leave { .. } | Self::Handshake { .. } | Self::Tick => false,
        }
    }
}

/// What a frame wants of the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Nothing: a frame without meaning for roles, the first of its client.
    Speak,
    /// `coordinate_sync_direction`: ACTIVE or PASSIVE.
    Coordinate(Direction),
    /// `request_control`.
    Request,
    /// `offer_control`; the name in its envelope.
    Offer(ClientId),
    /// `accept_control`; the name in its payload.
    Accept(Option<String>),
    /// `decline_control`; the name in its payload.
    Decline(Option<String>),
    /// `release_control`.
    Release,
    /// `state_update`.
    State(StateClaim),
}

/// The direction that a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To drive.
    Active,
    /// To follow.
    Passive,
}

/// What a `state_update` can be, as far as its sender's connection knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateClaim {
    /// An answer to an open `request_sync`.
    Answer,
    /// The one initial push that follows an answer to the sender's own coordinate PASSIVE.
    InitialPush,
    /// Neither: only the ACTIVE client may send it.
    Drive,
}

/// What has to be done besides storing the document and telling roles and presence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The frame is refused.
    Reject(ConnectionId, ErrorCode),
    /// The connection is closed.
    Close(ConnectionId, CloseReason),
    /// The frame that caused the event goes to all other clients.
    ForwardToOthers,
    /// The frame goes to the client that loses control by it, with the news of its loss.
    ForwardToLoser(Place),
    /// A claim is put before the holder: the frame itself if it is a `request_control`, else one made for it.
    AskController {
        /// The holder.
        controller: Place,
        /// Who claims, by name.
        claimant: ClientId,
    },
    /// The state goes to all other clients.
    PassState,
    /// The state goes to those who asked its sender for it.
    PassAnswer,
    /// The frame waits with its connection: it follows if control comes, and is dropped if not.
    HoldFrame,
    /// The frame is dropped without an answer: it was under way when its sender lost control.
    Drop,
    /// Control changed, or a claim was decided: for the metrics.
    Count(Transition),
}

/// A change of who drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// A role was granted.
    Granted,
    /// The holder's node has to stop it before another is granted.
    Revoking,
    /// The holder gave it up.
    Released,
    /// A claim was refused.
    Refused,
}

impl Transition {
    /// Every kind, with its label in the metrics.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Granted, "granted"),
        (Self::Revoking, "revoking"),
        (Self::Released, "released"),
        (Self::Refused, "refused"),
    ];
}

/// A document after an event, and what else follows from it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The document.
    pub session: Session,
    /// What follows, in order.
    pub effects: Vec<Effect>,
}

/// Applies what is due at `context.now`, then `event`.
#[must_use]
pub fn apply(session: &Session, event: &Event, context: Context<'_>) -> Outcome {
    let mut step = Step { context, session: session.clone(), actor: None, effects: Vec::new() };
    step.due();
    step.event(event);
    Outcome { session: step.session, effects: step.effects }
}

/// One application of one event: the document in the making.
struct Step<'a> {
    context: Context<'a>,
    session: Session,
    /// Whose frame this is.
    actor: Option<ConnectionId>,
    effects: Vec<Effect>,
}

impl Step<'_> {
    fn event(&mut self, event: &Event) {
        let over = self.session.core.status != crate::session::Status::Active;
        match event {
            // A session that is over changes no more, and stays over in the way in which it ended.
            Event::Frame { .. } if over => self.emit(Effect::Drop),
            Event::Delete if over => {}
            Event::Join(join) => self.join(join),
            Event::Leave { connection, lost } => self.leave(*connection, *lost),
            Event::Rejoin { clients, held } => self.rejoin(clients, *held),
            Event::RestoreCore(core) => self.remember(core),
            Event::Handshake { connection, resume } => self.handshake(*connection, resume),
            Event::Frame { connection, alias, epoch, intent } => {
                self.frame(*connection, alias.as_ref(), *epoch, intent);
            }
            Event::Delete => self.session.core.status = crate::session::Status::Deleted,
            Event::Tick => {}
        }
    }

    fn emit(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    fn reject(&mut self, connection: ConnectionId, code: ErrorCode) {
        self.emit(Effect::Reject(connection, code));
    }

    /// Gives one client a role of its own, until the next change for everybody.
    fn give(&mut self, connection: ConnectionId, role: Role) {
        let change = self.session.core.everyone.change;
        if let Some(client) = self.own_client(connection) {
            client.given = crate::session::Assignment { role, change };
        }
    }

    /// A client of this node, to be changed.
    fn own_client(&mut self, connection: ConnectionId) -> Option<&mut Client> {
        let roster = self.session.rosters.get_mut(self.context.here)?;
        roster.clients.iter_mut().find(|client| client.connection == connection)
    }
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}
