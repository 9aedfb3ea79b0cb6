//! The room: one session on one node, as a machine.
//!
//! [`Room::step`] takes one [`Input`] and puts its [`Output`]s, in order. It does no I/O, reads no clock and draws no
//! random number. The relay's driver, the model checker and the simulator all run this code, so what is checked is what
//! runs.
//!
//! A room holds the document as its node last read it, the sockets of this node, and a queue of jobs. Most frames only
//! pass through: a state of the controller goes to the others at once. A frame that affects roles, a join, a leave and a
//! delete become jobs.
//!
//! # How jobs are decided
//!
//! 1. [`Request::Load`]: the document is read. The lease that the node holds before that is the one that counts.
//! 2. [`Request::LookAgain`]: the heartbeats of the nodes that seemed dead are read again.
//! 3. The jobs are decided ([`crate::control`]), as many of them as fit into one write. If control may leave a client of
//!    this node, its states stop passing now.
//! 4. [`Request::Commit`]: the document is written. If another node was first, the room starts again at 1. If the answer
//!    is lost, the room reads what became of the write.
//! 5. The outcome: the other nodes hear that the document has changed, the clients of this node are told the news, the
//!    frames pass, and the callers get their replies.
//!
//! # Files
//!
//! - `input`, `output`: the interface.
//! - `frames`: a client's frames. `forward` passes them on, `delivery` takes those of other nodes.
//! - `work`: the queue, and the store. `decide` makes a decision of the jobs, `outcome` carries it out.
//! - `news`: a new document, and what the clients are told about it.
//! - `flush`: control leaves a client of this node.
//! - `ask`: the controller is asked for its state.
//! - `upkeep`: what is due, and reports of activity.
//! - `member`, `answers`, `parcel`, `recent`: the data.

mod answers;
mod ask;
mod decide;
mod delivery;
mod flush;
mod forward;
mod frames;
mod input;
mod member;
mod news;
mod outcome;
mod output;
mod parcel;
mod print;
mod recent;
mod upkeep;
mod work;

use std::sync::Arc;

use bytes::Bytes;

use crate::control::Event;
use crate::ids::{ConnectionId, Epoch, Millis, NodeId};
use crate::protocol::{ErrorCode, FrameType, outgoing};
use crate::session::{Role, Session};
use crate::stored::WriteId;

pub use answers::Answers;
pub use flush::FLUSH_TIMEOUT;
pub use input::{Env, Input};
pub use member::Member;
pub use output::{Counted, Item, Output, Outputs, RelayEvent, Reply, Request};
pub use recent::{Fence, RecentStates};
pub use upkeep::keep;

use flush::Flush;
use upkeep::Reports;
use work::{Cause, Work};

/// The document as this node last read it. Its clients have been told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// The document.
    pub session: Arc<Session>,
    /// Its version.
    pub version: u64,
}

/// The local controller: its states may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LocalController {
    /// Its socket.
    pub connection: ConnectionId,
    /// The epoch of its grant.
    pub epoch: Epoch,
    /// The node's lease when it last read the document. If that has lapsed, the states of the controller do not pass.
    pub term: u64,
    /// The controller has not sent a state of its own yet.
    pub provisional: bool,
    /// Control is leaving it: frames wait for the decision.
    pub suspended: bool,
}

/// What a room knows of its document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    /// The document as this node last read it.
    view: Option<View>,
    /// The other nodes that have clients of the session.
    elsewhere: Vec<NodeId>,
    /// The node's lease under which the places of this room were last claimed.
    term: Option<u64>,
    /// The document has to be read again before any decision.
    stale: bool,
    /// The store has lost data, and the document has not been read since: if it is missing, it was lost.
    unread_since_loss: bool,
    /// When something is due, in the store's time.
    due_at: Millis,
    /// A write of this node may have been committed that the other nodes have not heard of.
    unannounced: bool,
    /// The core that this node last tried to replace. While it is in the store, that write may still be committed.
    unresolved_write: Option<WriteId>,
}

/// Who controls, as far as this node's own clients are concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Control {
    /// The controller, if it is a client of this node.
    local: Option<LocalController>,
    /// The client of this node that control is leaving, or was the last to leave.
    flush: Option<Flush>,
}

/// The states that pass through a room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Stream {
    /// The fence that refuses late states of other nodes.
    fence: Fence,
    /// The states that passed recently.
    passed: RecentStates,
    /// The `release_control` that ended an epoch, until it is sent: its sender's socket, and the frame.
    release: Option<(ConnectionId, Bytes)>,
    /// The clients on this node may have missed the controller's last state, or the clients on other nodes that of a
    /// controller on this node. The relay asks for the state with every change of the document, until a state arrives.
    needs_resync: bool,
    /// A node that the document, as this node last read it, does not name yet has asked for the controller's state.
    early_sync_request: bool,
    /// The client that was last asked for its state for this reason, and when.
    asked: Option<(ConnectionId, Millis)>,
}

impl Stream {
    /// A state may be missing, also the answer to a question that was asked already.
    fn resync(&mut self) {
        (self.needs_resync, self.asked) = (true, None);
    }
}

/// One session on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room<S, T> {
    known: Known,
    control: Control,
    /// The sockets on this node, in the order of joining.
    members: Vec<Member<S>>,
    stream: Stream,
    reports: Reports,
    work: Work<S, T>,
}

impl<S, T> Default for Room<S, T> {
    fn default() -> Self {
        Self {
            known: Known { due_at: Millis::MAX, ..Known::default() },
            control: Control::default(),
            members: Vec::new(),
            stream: Stream::default(),
            reports: Reports::default(),
            work: Work::default(),
        }
    }
}

impl<S, T> Room<S, T> {
    /// Takes one step. The outputs are put while the step runs, in the order in which they have to be performed.
    pub fn step<O: Outputs<S, T>>(&mut self, env: &mut Env<'_>, input: Input<S, T>, out: &mut O) {
        let mut step = Step { room: self, env, out };
        step.take(input);
        step.start_work();
    }

    /// Whether the driver has to wait for [`Output::Decided`] before it reads the next frame of this client.
    #[must_use]
    pub fn is_deciding(&self, connection: ConnectionId) -> bool {
        self.work.is_deciding(connection)
    }

    /// Whether the room can be dropped: it has no socket, no place in the document, and nothing to do.
    #[must_use]
    pub fn is_idle(&self, here: &NodeId) -> bool {
        // A client that is cut off loses its place when its grace period is over.
        let roster = self.known.view.as_ref().and_then(|view| view.session.rosters.get(here));
        let without_place = roster.is_none_or(|roster| roster.clients.is_empty());
        self.members.is_empty() && !self.known.stale && self.work.is_idle() && without_place
    }

    /// The sockets on this node.
    #[must_use]
    pub fn members(&self) -> &[Member<S>] {
        &self.members
    }

    /// The document as this node last read it.
    #[must_use]
    pub fn view(&self) -> Option<&View> {
        self.known.view.as_ref()
    }

    /// The other nodes that have clients of the session.
    #[must_use]
    pub fn elsewhere(&self) -> &[NodeId] {
        &self.known.elsewhere
    }

    /// The controller, if it is a client of this node, and whether its states pass or not.
    #[must_use]
    pub fn local_controller(&self) -> Option<LocalController> {
        self.control.local
    }

    /// The local controller, if its states pass at this moment.
    #[must_use]
    pub fn passing_controller(&self, env: &Env<'_>) -> Option<LocalController> {
        let term = env.trust.term(env.now)?;
        self.control.local.filter(|controller| !controller.suspended && controller.term == term)
    }

    /// Whether the document has to be read again.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.known.stale
    }

    /// The role of a client of this node, as this node knows it.
    #[must_use]
    pub fn role(&self, connection: ConnectionId) -> Role {
        let Some(view) = &self.known.view else { return Role::default() };
        view.session.client(connection).map(|(_, client)| view.session.role(client)).unwrap_or_default()
    }

    fn member(&self, connection: ConnectionId) -> Option<&Member<S>> {
        self.members.iter().find(|member| member.connection == connection)
    }

    fn member_mut(&mut self, connection: ConnectionId) -> Option<&mut Member<S>> {
        member::find(&mut self.members, connection)
    }

    /// The local controller, if it is this socket.
    fn local_controller_at(&self, connection: ConnectionId) -> Option<LocalController> {
        self.control.local.filter(|controller| controller.connection == connection)
    }

    /// Whether the document, as this node last read it, names this socket as the controller.
    fn controls(&self, connection: ConnectionId) -> bool {
        self.known.view.as_ref().is_some_and(|view| view.session.controls(connection))
    }

    /// The epoch of the document, as this node last read it.
    fn epoch(&self) -> Epoch {
        self.known.view.as_ref().map(|view| view.session.core.epoch).unwrap_or_default()
    }
}

/// One step of a room.
struct Step<'a, 'e, S, T, O> {
    room: &'a mut Room<S, T>,
    env: &'a mut Env<'e>,
    out: &'a mut O,
}

impl<S, T, O: Outputs<S, T>> Step<'_, '_, S, T, O> {
    fn take(&mut self, input: Input<S, T>) {
        match input {
            Input::Frame { connection, frame } => self.frame(connection, frame),
            Input::Malformed { connection, code } => self.reject(connection, code, ""),
            Input::Message { from, body } => self.message(&from, body),
            Input::Gap { to } => self.resync_after_gap(&to),
            Input::Pong { connection, number } => self.pong(connection, number),
            Input::Join { join, socket, ticket } => {
                self.submit(Event::Join(join), Cause::Join(Some(socket)), Some(ticket));
            }
            Input::Leave { connection, lost, ticket } => {
                self.submit(Event::Leave { connection, lost }, Cause::None, Some(ticket));
            }
            Input::Delete { ticket } => self.submit(Event::Delete, Cause::None, Some(ticket)),
            Input::Tick => self.tick(),
            Input::Reload => self.reload(),
            Input::Distrust { data_lost } => self.distrust(data_lost),
            Input::Touched { activity, found } => self.touched(activity, found),
            Input::Loaded(loaded) => self.loaded(loaded),
            Input::StillLapsed(lapsed) => self.looked_again(lapsed),
            Input::Committed(committed) => self.committed(committed),
            Input::LineageRead => self.lineage_read(),
            Input::Created | Input::Resumed => self.load(),
            Input::Failed => self.failed(),
        }
    }

    fn count(&mut self, counted: Counted) {
        self.out.put(Output::Count(counted));
    }

    /// Refuses a frame of this client. `of`: the type of the frame on the wire.
    fn reject(&mut self, connection: ConnectionId, code: ErrorCode, of: &str) {
        self.count(Counted::Refused(code));
        if let Some(member) = self.room.member(connection) {
            member.send(outgoing::rejected(code, of, self.env.now.store), FrameType::Rejected, self.out);
        }
    }

    /// Whether the store may lack something about this session ([`crate::trust::Trust::assess`]).
    fn is_recovering(&self, session: &Session) -> bool {
        self.env.trust.assess(Some(session.info.created_at), self.env.now).is_recovering()
    }

    /// Whether the states of this socket may pass now.
    fn drives(&self, connection: ConnectionId) -> bool {
        self.room.passing_controller(self.env).is_some_and(|controller| controller.connection == connection)
    }
}
